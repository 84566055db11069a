//! TOML to checked, typed configuration.

mod duration;
mod model;
mod port_range;

pub use model::*;
