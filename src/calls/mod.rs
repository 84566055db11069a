//! Learning calls: packets -> legs -> calls -> etcd.

pub mod frame;
pub mod model;
pub mod pairing;
pub mod table;
pub mod tracker;
