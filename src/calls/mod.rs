//! Learning calls: packets -> legs -> calls -> etcd.

pub mod frame;
pub mod model;
