//! Whether the local server works: checks, hysteresis, and the verdict.
//!
//! `options` and `process` probe, `hysteresis` decides (pure), and `monitor` runs one task per check and joins the
//! results.

pub mod hysteresis;
mod monitor;
mod options;
mod process;
mod report;

pub use monitor::Monitor;
pub use report::{CheckState, CheckStatus, Probe, Verdict};
