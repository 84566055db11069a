//! A certificate authority for one test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test without its certificates has failed")]

use crate::node::secret;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate.
    pub file: PathBuf,
}

impl Authority {
    /// An authority of this name, with its certificate in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Writes a certificate for `subject` and its key, and returns the paths.
    pub fn issue(&self, dir: &Path, subject: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![subject.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let (cert, keys) = (dir.join(format!("{subject}.crt")), dir.join(format!("{subject}.key")));
        std::fs::write(&cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        secret(&keys, &key.serialize_pem());
        (cert.display().to_string(), keys.display().to_string())
    }
}
