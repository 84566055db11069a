//! Whether the local server works: checks, hysteresis, and the verdict.
//!
//! `options` and `process` probe; `kinds` lists them, and `probe` says what each of them does. `hysteresis` decides
//! (pure), and `monitor` runs one task per check and joins the results.

pub mod hysteresis;
mod kinds;
mod monitor;
mod options;
mod probe;
mod process;
mod report;

pub use monitor::Monitor;
pub use report::{CheckState, CheckStatus, ProbeResult, Verdict};
