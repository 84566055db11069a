//! Learning calls: packets -> legs -> calls -> etcd.

pub mod bytes;
pub mod capture;
pub mod facts;
pub mod frame;
pub mod hep;
pub mod inspect;
pub mod model;
pub mod pairing;
pub mod passage;
pub mod path;
mod quick;
pub mod reassembly;
pub mod server;
pub mod sources;
pub mod store;
pub mod stored;
pub mod stream;
pub mod sweep;
pub mod table;
pub mod tracker;
