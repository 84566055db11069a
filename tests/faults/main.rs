//! Faults in the parts of a real agent. Needs root, and the cargo feature `faults`: a program of its own, with an
//! agent of its own.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod agent;
mod ears;
