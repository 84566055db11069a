//! Calls: how they are heard, learnt and paired, on real servers and phones, and how they are carried on. Needs root.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod capture;
mod hep;
mod learn;
mod pairing;
mod recovery;
mod relay;
