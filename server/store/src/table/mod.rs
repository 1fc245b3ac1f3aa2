//! The tables: one file a table, each with its key, its record and nothing
//! else.

pub mod container;
