//! Requests to etcd and its answers, without the client library's types.

use crate::time::Time;
use std::time::Duration;

/// One key as etcd stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; bytes that are not UTF-8 are replaced (our keys have none).
    pub key: String,
    /// The value, as it was put.
    pub value: Vec<u8>,
    /// Revision of the last change of this key.
    pub mod_revision: i64,
    /// Revision of the key's creation.
    pub create_revision: i64,
    /// The lease that the key is bound to; 0 if none.
    pub lease: i64,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key's last change has this revision; 0 means that the key does not exist.
    ModRevision(String, i64),
    /// The key does not exist.
    Missing(String),
    /// The key has this value.
    Value(String, Vec<u8>),
    /// The key is bound to this lease.
    Lease(String, i64),
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key, bound to `lease` (0: no lease).
    Put {
        /// The key.
        key: String,
        /// The new value.
        value: Vec<u8>,
        /// The lease to bind the key to; 0 for none.
        lease: i64,
    },
    /// Deletes a key; a missing key is no error.
    Delete(String),
    /// Deletes all keys with this prefix.
    DeletePrefix(String),
    /// Reads a key.
    Get(String),
    /// Reads all keys with this prefix.
    GetPrefix(String),
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether the conditions held, so that etcd executed `then` and not `or_else`.
    pub succeeded: bool,
    /// The store's revision after the transaction.
    pub revision: i64,
    /// Results of the `Get` and `GetPrefix` operations, in order.
    pub reads: Vec<Vec<KeyValue>>,
}

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// etcd's lease number.
    pub id: i64,
    /// Time to live that etcd granted; it may exceed the request.
    pub ttl: Duration,
    /// When the request was sent. Validity counts from here: etcd may have started the lease at any later time.
    pub sent: Time,
}
