//! Real agents, with their command line, on hosts made of network namespaces. Needs root.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod bad_start;
mod former;
mod hep;
mod host;
mod kernel;
mod lease;
mod load;
mod noise;
mod operator;
mod pair;
mod pause;
mod restart;
mod restart_calls;
mod server_dies;
mod settings;
mod takeover;
mod tls;
