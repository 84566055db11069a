//! Encrypts calls under the cluster's key, because descriptions hold SRTP keys and phone numbers are private. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Schema number of a sealed value. A version that knows only plain calls names this number and reports that it is too
/// old. The call inside has its own schema number.
pub(super) const SCHEMA: u32 = 2;
/// Bytes of the nonce. Random nonces of this length do not collide (draft-irtf-cfrg-xchacha section 2.1).
pub(super) const NONCE: usize = 24;
const CIPHER: &str = "xchacha20-poly1305";

/// Why a sealed value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealable {
    /// Not an envelope of this program.
    Form,
    /// Sealed under another cluster key.
    Key,
    /// Altered, or moved here from another key of etcd.
    Content,
}

/// Seals under the cluster's key. Opens values under that key or another accepted one.
pub(super) struct Sealer {
    /// The sealing key.
    own: KeyOf,
    accepted: Vec<KeyOf>,
}

/// Material derived from one cluster key.
struct KeyOf {
    cipher: XChaCha20Poly1305,
    /// Identifies the key without revealing it.
    id: String,
}

impl KeyOf {
    fn new(cluster_key: &[u8]) -> Self {
        // One HKDF output per purpose (RFC 5869), so that this key differs from the one that signs heartbeats.
        let hkdf = Hkdf::<Sha256>::new(Some(b"keepcall"), cluster_key);
        let derive = |purpose: &[u8]| {
            let mut out = [0; 32];
            hkdf.expand(purpose, &mut out).expect("HKDF-SHA256 gives up to 8160 bytes (RFC 5869 section 2.3)");
            out
        };
        let id = derive(b"name of the key of calls at rest").iter().take(4).map(|b| format!("{b:02x}")).collect();
        Self { cipher: XChaCha20Poly1305::new(&Key::from(derive(b"calls at rest, xchacha20-poly1305"))), id }
    }
}

/// An opened value.
pub(super) struct OpenedValue {
    pub(super) plain: Vec<u8>,
    /// Whether the current sealing key sealed it.
    pub(super) own_key: bool,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    schema: u32,
    cipher: &'a str,
    key: &'a str,
    nonce: &'a str,
    sealed: &'a str,
}

impl Sealer {
    pub(super) fn new(cluster_key: &[u8], accepted: &[Vec<u8>]) -> Self {
        Self { own: KeyOf::new(cluster_key), accepted: accepted.iter().map(|k| KeyOf::new(k)).collect() }
    }

    /// Seals `plain` for `key` of etcd and binds it to that key. `None` if it is too large to seal, which does not
    /// occur.
    pub(super) fn seal(&self, key: &str, nonce: [u8; NONCE], plain: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.own.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: key.as_bytes() }).ok()?;
        serde_json::to_vec(&Envelope {
            schema: SCHEMA,
            cipher: CIPHER,
            key: &self.own.id,
            nonce: &STANDARD.encode(nonce),
            sealed: &STANDARD.encode(sealed),
        })
        .ok()
    }

    /// Opens a value sealed for `key`.
    pub(super) fn open(&self, key: &str, value: &[u8]) -> Result<OpenedValue, Unsealable> {
        let envelope: Envelope<'_> = serde_json::from_slice(value).map_err(|_| Unsealable::Form)?;
        if envelope.schema != SCHEMA || envelope.cipher != CIPHER {
            return Err(Unsealable::Form);
        }
        let own_key = envelope.key == self.own.id;
        let found = if own_key { Some(&self.own) } else { self.accepted.iter().find(|k| k.id == envelope.key) };
        let with = found.ok_or(Unsealable::Key)?;
        let nonce = STANDARD.decode(envelope.nonce).ok().and_then(|n| <[u8; NONCE]>::try_from(n).ok());
        let (Some(nonce), Ok(sealed)) = (nonce, STANDARD.decode(envelope.sealed)) else { return Err(Unsealable::Form) };
        let payload = Payload { msg: &sealed, aad: key.as_bytes() };
        let plain = with.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| Unsealable::Content)?;
        Ok(OpenedValue { plain, own_key })
    }
}
