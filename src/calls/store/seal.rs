//! Calls under the cluster's key: descriptions hold the keys of SRTP, and numbers are nobody's business. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
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

/// Seals under the cluster's key, and opens what was sealed under it or under another one that is accepted.
pub(super) struct Sealer {
    /// The key that seals.
    own: KeyOf,
    accepted: Vec<KeyOf>,
}

/// What is made of one cluster key.
struct KeyOf {
    cipher: XChaCha20Poly1305,
    /// Tells keys apart without telling anything of the key.
    id: String,
}

impl KeyOf {
    fn new(cluster_key: &[u8]) -> Self {
        // One output for each purpose (RFC 5869), so that this key is none that signs heartbeats.
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

/// What was sealed, opened.
pub(super) struct Opened {
    pub(super) plain: Vec<u8>,
    /// Whether it was sealed under the key that seals now.
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

    /// `plain` as a value for `key` of etcd, to which it is bound; `None` if it cannot be sealed (it never is that large).
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

    /// What was sealed for `key`.
    pub(super) fn open(&self, key: &str, value: &[u8]) -> Result<Opened, Unsealable> {
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
        Ok(Opened { plain, own_key })
    }
}
