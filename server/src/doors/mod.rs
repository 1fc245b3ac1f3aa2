//! Doors: the protocols that davitd answers. They translate and decide
//! nothing, and they never call each other.

pub(crate) mod native;
