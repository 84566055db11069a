//! Learning calls: packets -> legs -> calls -> etcd.

pub mod capture;
pub mod frame;
pub mod model;
pub mod reassembly;
pub mod pairing;
pub mod table;
pub mod tracker;
