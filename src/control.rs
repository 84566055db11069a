//! The control socket, the command line, and the output for people.

pub mod api;
pub mod cli;
pub mod client;
pub mod logging;
pub mod server;

/// Longest line that either side sends. A status of thousands of calls is some megabytes; a longer line is a fault.
const MAX_REPLY: u64 = 64 << 20;
