//! Keys and values of calls in etcd. Pure.

use super::seal::{self, Sealer, Unsealable};
use crate::calls::model::{Call, SCHEMA};
use serde::Deserialize;

/// Largest value that is read, in bytes: more than the largest call has, and less than etcd accepts.
const MAX_VALUE: usize = 1024 * 1024;
/// Longest id, in bytes; ours have 24.
const MAX_ID: usize = 64;
/// The oldest layout that is read: fields that came later have defaults.
const OLDEST: u32 = 1;

/// Why a value under a calls prefix is not used. It says nothing of the value's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// The last part of the key can't be the id of a call.
    #[error("the key is not the key of a call")]
    Key,
    /// No JSON, or not the JSON of a call.
    #[error("the value is not a call")]
    Content,
    /// Written by a newer keepcall.
    #[error("the value has schema {0}, this version knows {SCHEMA}: upgrade keepcall on this node")]
    Schema(u32),
    /// The value names another call or instance than its key.
    #[error("the value does not belong to this key")]
    Mismatch,
    /// Encrypted with another key than this node's.
    #[error("the value was encrypted under another cluster key: the content of `key_file` must be the same on every node")]
    OtherKey,
    /// Encrypted with this node's key, but it does not open.
    #[error("the encrypted value was changed, or moved here from another key")]
    Forged,
}

/// The prefix under which the calls of an instance are; it ends with a slash.
#[must_use]
pub fn prefix(cluster: &str, instance: &str) -> String {
    format!("/keepcall/{cluster}/instances/{instance}/calls/")
}

/// The key that holds the epoch which may write calls.
pub(super) fn writer_key(cluster: &str, instance: &str) -> String {
    format!("/keepcall/{cluster}/instances/{instance}/writer")
}

/// Turns calls into values and back.
pub(super) struct Coder {
    pub(super) prefix: String,
    instance: String,
    sealer: Sealer,
    /// Whether new values are encrypted. Both kinds are always read, so that nodes can be changed over one by one.
    pub(super) encrypts: bool,
}

impl Coder {
    pub(super) fn new(cluster: &str, instance: &str, cluster_key: &[u8], encrypts: bool) -> Self {
        Self { prefix: prefix(cluster, instance), instance: instance.to_owned(), sealer: Sealer::new(cluster_key), encrypts }
    }

    pub(super) fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    /// The call's id in `key`.
    pub(super) fn id_in<'k>(&self, key: &'k str) -> Option<&'k str> {
        let id = key.strip_prefix(&self.prefix)?;
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (!id.is_empty() && id.len() <= MAX_ID && id.bytes().all(good)).then_some(id)
    }

    /// The value of a call; encrypted if there is a nonce, which must be random.
    pub(super) fn encode(&self, call: &Call, nonce: Option<[u8; seal::NONCE]>) -> Option<Vec<u8>> {
        // Encoding plain structs with string keys does not fail; were it to, one call would be missing and the others not.
        let plain = serde_json::to_vec(call).ok()?;
        match nonce {
            Some(nonce) => self.sealer.seal(&self.key(&call.id), nonce, &plain),
            None => Some(plain),
        }
    }

    /// Reads a call, and checks that it belongs where it was found.
    pub(super) fn decode(&self, key: &str, value: &[u8]) -> Result<Call, BadValue> {
        let id = self.id_in(key).ok_or(BadValue::Key)?;
        if value.len() > MAX_VALUE {
            return Err(BadValue::Content);
        }
        if schema(value)? != seal::SCHEMA {
            return self.plain(id, value);
        }
        match self.sealer.open(key, value) {
            Ok(plain) => self.plain(id, &plain),
            Err(Unsealable::Form) => Err(BadValue::Schema(seal::SCHEMA)),
            Err(Unsealable::Key) => Err(BadValue::OtherKey),
            Err(Unsealable::Content) => Err(BadValue::Forged),
        }
    }

    fn plain(&self, id: &str, value: &[u8]) -> Result<Call, BadValue> {
        let schema = schema(value)?;
        if schema > SCHEMA {
            return Err(BadValue::Schema(schema));
        }
        if schema < OLDEST {
            return Err(BadValue::Content);
        }
        let mut call: Call = serde_json::from_slice(value).map_err(|_| BadValue::Content)?;
        if call.id != id || call.instance != self.instance {
            return Err(BadValue::Mismatch);
        }
        if call.legs.is_empty() || call.legs.len() > 2 {
            return Err(BadValue::Content);
        }
        // As it will be written from now on.
        call.schema = SCHEMA;
        call.shrink();
        Ok(call)
    }
}

/// The version first: a newer layout need not have the fields of this one.
fn schema(value: &[u8]) -> Result<u32, BadValue> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    serde_json::from_slice(value).map(|v: Versioned| v.schema).map_err(|_| BadValue::Content)
}
