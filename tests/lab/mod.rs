//! The lab: hosts made of network namespaces on one bridge, with the real parts that keepcall works among.
//!
//! `program.rs` makes the demo and the benchmark of it; integration tests include it with `#[path = "lab/mod.rs"] mod
//! lab;`.

// Each program that includes the lab uses a part of it.
#![allow(dead_code)]

pub(crate) mod agent;
pub(crate) mod asterisk;
pub(crate) mod b2bua;
pub(crate) mod calls;
pub(crate) mod chaos;
pub(crate) mod etcd;
pub(crate) mod forge;
pub(crate) mod ground;
pub(crate) mod kamailio;
pub(crate) mod keepalived;
pub(crate) mod lan;
pub(crate) mod observer;
pub(crate) mod phone;
pub(crate) mod proc;
pub(crate) mod scene;
pub(crate) mod sipp;
pub(crate) mod wait;
pub(crate) mod witness;

/// Wall-clock microseconds since 1970: the scale of the agent's history, so that both fit one timeline.
pub(crate) fn unix_us() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
