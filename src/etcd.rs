//! etcd: one client per endpoint, a deadline on every call, streams that are reopened.
//!
//! `etcd-client` spreads a client's calls over all its endpoints, dead ones included. So each endpoint here has its own
//! client, and [`Etcd`] tries them in order: the last good one first, dead or slow ones (by a probe) last.

mod alarm;
mod client;
mod endpoint;
mod error;
mod identity;
mod keys;
mod probe;
mod types;

pub use client::Etcd;
pub use client::changes::Changes;
pub use client::watch::WatchEvent;
pub use endpoint::EndpointHealth;
pub use error::EtcdError;
pub use keys::Keys;
pub use types::{Compare, KeyValue, Lease, Op, TxnReply};
