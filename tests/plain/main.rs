//! What needs neither root nor another program.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod cli;
mod config;
mod fuzz_corpus;
