//! The election, and what it rests on: etcd, the store, and the kernel lease. Needs root.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

mod chaos;
mod cluster;
mod etcd;
mod etcd_faults;
mod kernel_lease;
mod store;
