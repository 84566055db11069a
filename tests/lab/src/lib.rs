//! The lab: hosts made of network namespaces on one bridge, with the real programs around keepcall.
//!
//! keepcall's integration tests use this library. The program beside it is the demo and the benchmark.

pub mod agent;
pub mod asterisk;
pub mod authority;
pub mod b2bua;
pub mod calls;
pub mod chaos;
pub mod etcd;
pub mod etcd_cluster;
pub mod forge;
pub mod ground;
pub mod hep;
pub mod kamailio;
pub mod keepalived;
pub mod lan;
pub mod loopback;
pub mod netns;
pub mod node;
pub mod observer;
pub mod phone;
pub mod proc;
pub mod redis;
pub mod rtpengine;
pub mod scene;
pub mod sipp;
pub mod wait;
pub mod witness;

/// Wall-clock microseconds since 1970, as in the agent's history, so that both fit one timeline.
pub fn unix_us() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
