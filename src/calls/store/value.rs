//! Keys and values of calls in etcd. Pure.

use super::seal::{self, Sealer, Unsealable};
use crate::calls::model::{Call, SCHEMA};
use crate::etcd::Keys;
use serde::{Deserialize, Serialize};

/// Largest value read, in bytes: more than the largest call has, and less than etcd accepts.
const MAX_VALUE: usize = 1024 * 1024;
/// Highest valid epoch. Epochs count changes of master, so no master wrote a higher one.
pub(super) const MAX_EPOCH: u64 = 1 << 62;
/// The end of the year 9999 in milliseconds since 1970.
const MAX_MS: u64 = 253_402_300_799_999;
/// Longest id in bytes. Real ones have 24.
const MAX_ID: usize = 64;
/// Oldest schema accepted. Later fields have defaults.
const OLDEST: u32 = 1;

/// Why a value under a calls prefix is unusable. It reveals nothing of the value's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// The last part of the key can't be the id of a call.
    #[error("the key is not one that keepcall gives a call")]
    Key,
    /// No JSON, or not the JSON of a call.
    #[error("the value is not a call")]
    Content,
    /// Written by a newer keepcall.
    #[error("the value has schema {0}, and this version reads schema {SCHEMA}: upgrade keepcall on this node")]
    Schema(u32),
    /// The value names another call or instance than its key.
    #[error("the value holds a call of another key or instance")]
    Mismatch,
    /// Unencrypted, which is not allowed here.
    #[error(
        "the value is not encrypted, so anybody who can write to etcd may have made it. If nodes of an older release \
         still write such calls, set `plain_records = \"accept\"` in [instance.sip] until they are upgraded"
    )]
    Plain,
    /// Encrypted with another key than this node's.
    #[error(
        "another cluster key encrypted the value: the content of `key_file` must be the same on every node (see \
         `accept_key_files` for a change of key)"
    )]
    OtherKey,
    /// Encrypted with this node's key, but it does not open.
    #[error("somebody changed the encrypted value, or copied it from another key")]
    Forged,
    /// An older state of the call than the known one.
    #[error("somebody put back an older state of the call")]
    Replayed,
}

/// Order of a call's states: the revision at which its writer was named, and a count since then. A later state has a
/// higher stamp, as long as etcd does not go backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp(pub(super) i64, pub(super) u64);

/// A decoded value.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    pub(super) call: Call,
    /// `None` if an older release wrote the value or it is unencrypted, because its stamp is then not authentic.
    pub(super) stamp: Option<Stamp>,
    /// Whether the value needs a rewrite: unencrypted against the settings, or under another key.
    pub(super) outdated: bool,
}

/// How values are written, and which are trusted.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) cluster_key: Vec<u8>,
    pub(super) accepted_keys: Vec<Vec<u8>>,
    /// Whether new values are encrypted.
    pub(super) encrypt: bool,
    /// Whether unencrypted values are read.
    pub(super) accept_plain: bool,
}

/// Encodes calls as values and decodes them.
pub(super) struct Coder {
    pub(super) prefix: String,
    instance: String,
    sealer: Sealer,
    /// Whether new values are encrypted.
    pub(super) encrypts: bool,
    accepts_plain: bool,
}

impl Coder {
    pub(super) fn new(cluster: &str, instance: &str, trust: &Trust) -> Self {
        Self {
            prefix: Keys::new(cluster).calls(instance),
            instance: instance.to_owned(),
            sealer: Sealer::new(&trust.cluster_key, &trust.accepted_keys),
            encrypts: trust.encrypt,
            accepts_plain: trust.accept_plain,
        }
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

    /// Encodes a call. Encrypts it if there is a nonce, which must be random.
    pub(super) fn encode(&self, call: &Call, stamp: Stamp, nonce: Option<[u8; seal::NONCE]>) -> Option<Vec<u8>> {
        // An extra field, which older releases ignore.
        #[derive(Serialize)]
        struct Stamped<'a> {
            #[serde(flatten)]
            call: &'a Call,
            written: Stamp,
        }
        // Encoding plain structs with string keys does not fail. If it did, only this call would be missing.
        let plain = serde_json::to_vec(&Stamped { call, written: stamp }).ok()?;
        match nonce {
            Some(nonce) => self.sealer.seal(&self.key(&call.id), nonce, &plain),
            None => Some(plain),
        }
    }

    /// Decodes a call and checks that it belongs to its key.
    pub(super) fn decode(&self, key: &str, value: &[u8]) -> Result<Decoded, BadValue> {
        let id = self.id_in(key).ok_or(BadValue::Key)?;
        if value.len() > MAX_VALUE {
            return Err(BadValue::Content);
        }
        if versioned(value)?.schema != seal::SCHEMA {
            let (call, _) = self.plain(id, value)?;
            // Checked last, so that junk is reported as junk.
            return if self.accepts_plain {
                Ok(Decoded { call, stamp: None, outdated: self.encrypts })
            } else {
                Err(BadValue::Plain)
            };
        }
        match self.sealer.open(key, value) {
            Ok(opened) => {
                let (call, stamp) = self.plain(id, &opened.plain)?;
                Ok(Decoded { call, stamp, outdated: self.encrypts && !opened.own_key })
            }
            Err(Unsealable::Form) => Err(BadValue::Schema(seal::SCHEMA)),
            Err(Unsealable::Key) => Err(BadValue::OtherKey),
            Err(Unsealable::Content) => Err(BadValue::Forged),
        }
    }

    fn plain(&self, id: &str, value: &[u8]) -> Result<(Call, Option<Stamp>), BadValue> {
        let Versioned { schema, written } = versioned(value)?;
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
        if call.legs.is_empty() || call.legs.len() > 2 || call.epoch > MAX_EPOCH || call.confirmed_ms > MAX_MS {
            return Err(BadValue::Content);
        }
        // The next write uses the current schema.
        call.schema = SCHEMA;
        call.shrink();
        Ok((call, written))
    }
}

#[derive(Deserialize)]
struct Versioned {
    schema: u32,
    #[serde(default)]
    written: Option<Stamp>,
}

/// Reads the version first, because a newer schema may lack this one's fields.
fn versioned(value: &[u8]) -> Result<Versioned, BadValue> {
    serde_json::from_slice(value).map_err(|_| BadValue::Content)
}
