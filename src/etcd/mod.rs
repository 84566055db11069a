//! etcd: one client per endpoint, a deadline on every call, streams that are opened again.
//!
//! `etcd-client` spreads the calls of a client with several endpoints over all of them, dead ones included, so here each
//! endpoint has a client of its own, and [`Etcd`] tries one after the other, the last good one first and those that a probe
//! found dead or slow last.

mod alarm;
mod client;
mod endpoint;
mod error;
mod identity;
mod probe;
mod types;

pub use client::Etcd;
pub use client::changes::Changes;
pub use client::watch::WatchEvent;
pub use endpoint::EndpointHealth;
pub use error::EtcdError;
pub use types::{Compare, KeyValue, Lease, Op, TxnReply};
