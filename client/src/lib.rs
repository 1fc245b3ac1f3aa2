//! davit client
