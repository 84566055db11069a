//! Calls under the cluster's key: descriptions hold the keys of SRTP, and numbers are nobody's business. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The schema number of a sealed value: versions that know only plain calls name it, and say that they are too old. The layout of
/// the call inside has its own number.
pub(super) const SCHEMA: u32 = 2;
/// Bytes of the nonce: so long that random ones never meet (draft-irtf-cfrg-xchacha section 2.1).
pub(super) const NONCE: usize = 24;
const CIPHER: &str = "xchacha20-poly1305";

/// Why a sealed value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealable {
    /// No envelope of ours.
    Form,
    /// Sealed under another cluster key.
    Key,
    /// Changed, or moved here from another key of etcd.
    Content,
}

/// Seals and opens values under one cluster key.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    /// Tells keys apart without telling anything of the key.
    key_id: String,
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
    pub(super) fn new(cluster_key: &[u8]) -> Self {
        // HKDF (RFC 5869) with one block of output for each purpose, so that this key is none that signs heartbeats.
        let extracted = hmac(b"keepcall", &[cluster_key]);
        let key = hmac(&extracted, &[b"calls at rest, xchacha20-poly1305", &[1]]);
        let id = hmac(&extracted, &[b"name of the key of calls at rest", &[1]]);
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key)), key_id: id.iter().take(4).map(|b| format!("{b:02x}")).collect() }
    }

    /// `plain` as a value for `key` of etcd, to which it is bound; `None` if it cannot be sealed (it never is that large).
    pub(super) fn seal(&self, key: &str, nonce: [u8; NONCE], plain: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: key.as_bytes() }).ok()?;
        serde_json::to_vec(&Envelope {
            schema: SCHEMA,
            cipher: CIPHER,
            key: &self.key_id,
            nonce: &STANDARD.encode(nonce),
            sealed: &STANDARD.encode(sealed),
        })
        .ok()
    }

    /// What was sealed for `key`.
    pub(super) fn open(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let envelope: Envelope<'_> = serde_json::from_slice(value).map_err(|_| Unsealable::Form)?;
        if envelope.schema != SCHEMA || envelope.cipher != CIPHER {
            return Err(Unsealable::Form);
        }
        if envelope.key != self.key_id {
            return Err(Unsealable::Key);
        }
        let nonce = STANDARD.decode(envelope.nonce).ok().and_then(|n| <[u8; NONCE]>::try_from(n).ok());
        let (Some(nonce), Ok(sealed)) = (nonce, STANDARD.decode(envelope.sealed)) else { return Err(Unsealable::Form) };
        let payload = Payload { msg: &sealed, aad: key.as_bytes() };
        self.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| Unsealable::Content)
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length: longer ones are hashed");
    parts.iter().for_each(|p| mac.update(p));
    mac.finalize().into_bytes().into()
}
