//! Learns calls: messages -> legs -> calls -> etcd.

pub mod custody;
pub mod latching;
pub mod mirror;
pub mod model;
pub mod pairing;
pub mod store;
pub mod sweep;
pub mod table;
pub mod tracker;
