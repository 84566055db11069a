//! Whether the local server works: checks, hysteresis, and the verdict.
//!
//! `hysteresis` decides (pure), `options` and `process` look, `monitor` runs one task for each check and joins their results.

pub mod hysteresis;
mod monitor;
mod options;
mod process;
mod report;
mod sys;

pub use monitor::Monitor;
pub use report::{CheckState, CheckStatus, Probe, Verdict};
