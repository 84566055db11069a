//! Learning calls: packets -> legs -> calls -> etcd.

pub mod model;
