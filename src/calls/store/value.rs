//! Keys and values of calls in etcd. Pure.

use crate::calls::model::{Call, SCHEMA};
use serde::Deserialize;

/// Largest value that is read, in bytes: more than the largest call has, and less than etcd accepts.
const MAX_VALUE: usize = 1024 * 1024;
/// Longest id, in bytes; ours have 24.
const MAX_ID: usize = 64;

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
}

/// The prefix under which the calls of an instance are; it ends with a slash.
#[must_use]
pub fn prefix(cluster: &str, instance: &str) -> String {
    format!("/keepcall/{cluster}/instances/{instance}/calls/")
}

/// The call's id in `key`.
pub(super) fn id_in<'k>(prefix: &str, key: &'k str) -> Option<&'k str> {
    let id = key.strip_prefix(prefix)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (!id.is_empty() && id.len() <= MAX_ID && id.bytes().all(good)).then_some(id)
}

/// Reads a call, and checks that it belongs where it was found.
pub(super) fn decode(prefix: &str, instance: &str, key: &str, value: &[u8]) -> Result<Call, BadValue> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    let id = id_in(prefix, key).ok_or(BadValue::Key)?;
    if value.len() > MAX_VALUE {
        return Err(BadValue::Content);
    }
    // The version first: a newer layout need not have the fields of this one.
    let Versioned { schema } = serde_json::from_slice(value).map_err(|_| BadValue::Content)?;
    if schema != SCHEMA {
        return Err(BadValue::Schema(schema));
    }
    let mut call: Call = serde_json::from_slice(value).map_err(|_| BadValue::Content)?;
    if call.id != id || call.instance != instance {
        return Err(BadValue::Mismatch);
    }
    if call.legs.is_empty() || call.legs.len() > 2 {
        return Err(BadValue::Content);
    }
    call.shrink();
    Ok(call)
}
