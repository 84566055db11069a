//! Addresses and tables of the kernel, on real interfaces. Needs root.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod tables_kept;
mod vip;
