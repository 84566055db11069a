//! What is asked of etcd and what it answers, without the client library's types.

use crate::time::Time;
use std::time::Duration;

/// One key as etcd stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; bytes that are not UTF-8 are replaced (no key of ours has any).
    pub key: String,
    /// The value, as it was put.
    pub value: Vec<u8>,
    /// Revision of the last change of this key.
    pub mod_revision: i64,
    /// Revision at which the key came to be.
    pub create_revision: i64,
    /// The lease that the key is bound to; 0 if none.
    pub lease: i64,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key's last change was at this revision; 0 means that there is no such key.
    ModRevision(String, i64),
    /// There is no such key.
    Missing(String),
    /// The key has this value.
    Value(String, Vec<u8>),
    /// The key is bound to this lease.
    Lease(String, i64),
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key, bound to `lease` (0: to none).
    Put {
        /// The key.
        key: String,
        /// The new value.
        value: Vec<u8>,
        /// The lease to bind the key to; 0 for none.
        lease: i64,
    },
    /// Deletes a key; no error if there is none.
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
    /// Whether the conditions held (and the `then` operations were done, not the `or_else` ones).
    pub succeeded: bool,
    /// The store's revision after the transaction.
    pub revision: i64,
    /// What the reads gave, in the order of the `Get` and `GetPrefix` operations.
    pub reads: Vec<Vec<KeyValue>>,
}

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// etcd's number of the lease.
    pub id: i64,
    /// The time to live that etcd granted, which may be more than was asked for.
    pub ttl: Duration,
    /// When the request was sent. Validity counts from here: etcd may have started the lease at any time after it.
    pub sent: Time,
}
