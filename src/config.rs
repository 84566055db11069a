//! Turns TOML into checked, typed configuration.
//!
//! Three passes over a file let one run report every mistake: `schema` checks keys and the form of single values, serde
//! builds the typed values of `model`, and `check` applies the rules that span fields.

mod check;
mod confidence;
mod duration;
mod ends;
mod error;
mod key;
mod load;
mod mode;
mod model;
mod port_range;
mod schema;
mod source;

pub use confidence::MIN_CONFIDENCE;
pub use ends::{DEFAULT_RTP_TIMEOUT, MIN_CARRIED, RTP_TIMEOUT_S};
pub use error::{ConfigError, Problem};
pub use key::KeyFault;
pub use load::{Files, Loaded, load, load_with, parse, text_of};
pub use mode::Mode;
pub use model::*;
