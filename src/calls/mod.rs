//! Learning calls: messages -> legs -> calls -> etcd.

pub mod model;
pub mod pairing;
mod quick;
pub mod sources;
pub mod store;
pub mod stored;
pub mod sweep;
pub mod table;
pub mod tracker;
