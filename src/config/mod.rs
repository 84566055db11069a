//! TOML to checked, typed configuration.
//!
//! A file is read in three passes, so that one run names every mistake: `schema` looks at keys and the form of single values,
//! serde makes the typed values of `model`, and `check` holds the rules that span fields.

mod check;
mod duration;
mod error;
mod load;
mod mode;
mod model;
mod port_range;
mod schema;
mod source;

pub use error::{ConfigError, Problem};
pub use load::{Files, Loaded, load, load_with, parse, text_of};
pub use mode::Mode;
pub use model::*;
