//! Checks that the files and the group named in the configuration exist and are usable on this host.

use crate::config::check::Found;
use crate::config::key::{KeyFault, make_key};
use crate::config::model::Config;
use crate::config::source::Source;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// No key or password is longer. The limit keeps a device or a log file from being read to its end.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    let first = std::iter::once((&config.node.key_file, "node.key_file".to_owned()));
    let more = config.node.accept_key_files.iter().enumerate();
    for (file, key) in first.chain(more.map(|(i, file)| (file, format!("node.accept_key_files[{i}]")))) {
        if let Some(bytes) = secret(file, &key, source, found)
            && let Some(fault) = KeyFault::of(&bytes)
        {
            found.errors.push(source.problem(&key, format!("{} {fault}", shown(file)), fault.cure(file)));
        }
    }
    let etcd = &config.etcd;
    if let Some(path) = &etcd.password_file
        && let Some(bytes) = secret(path, "etcd.password_file", source, found)
    {
        let why = if bytes.split(|b| *b == b'\n').next().is_none_or(<[u8]>::is_empty) {
            Some("the first line is empty")
        } else if std::str::from_utf8(&bytes).is_err() {
            Some("the file is not UTF-8 text")
        } else {
            None
        };
        if let Some(why) = why {
            let message = format!("{} holds no password: {why}", shown(path));
            found.errors.push(source.problem("etcd.password_file", message, "write the password on the first line"));
        }
    }
    if let Some(path) = &etcd.key_file
        && let Some(bytes) = secret(path, "etcd.key_file", source, found)
        && PrivateKeyDer::from_pem_slice(&bytes).is_err()
    {
        let message = format!("{} holds no private key in PEM", shown(path));
        let help = "name the file that begins with -----BEGIN PRIVATE KEY-----; `openssl pkey -in FILE -out NEW` \
             converts other forms";
        found.errors.push(source.problem("etcd.key_file", message, help));
    }
    for (path, key) in [(&etcd.ca_file, "etcd.ca_file"), (&etcd.cert_file, "etcd.cert_file")] {
        if let Some(path) = path
            && let Some(bytes) = readable(path, key, source, found)
            && let Some(why) = no_certificate(&bytes)
        {
            let message = format!("{} {why}", shown(path));
            let help = "name the file that begins with -----BEGIN CERTIFICATE-----; `openssl x509 -inform der -in FILE \
                 -out NEW` converts DER";
            found.errors.push(source.problem(key, message, help));
        }
    }
    if let Some(group) = &config.control.group
        && !matches!(nix::unistd::Group::from_name(group), Ok(Some(_)))
    {
        let message = format!("the group {group:?} does not exist on this host");
        let help = format!("run `groupadd --system {group}`, or remove `group`: then only root may use the socket");
        found.errors.push(source.problem("control.group", message, help));
    }
    for (i, instance) in config.instances.iter().enumerate() {
        let sip = instance.sip.as_ref();
        let ami = sip.and_then(|s| s.ami.as_ref()).map(|a| (&a.secret_file, "ami.secret_file"));
        let esl = sip.and_then(|s| s.esl.as_ref()).map(|e| (&e.password_file, "esl.password_file"));
        let hep = sip.and_then(|s| s.hep.as_ref()).and_then(|h| h.key_file.as_ref()).map(|f| (f, "hep.key_file"));
        for (path, key) in ami.into_iter().chain(esl).chain(hep) {
            let key = format!("instance[{i}].sip.{key}");
            if let Some(bytes) = secret(path, &key, source, found)
                && bytes.split(|b| *b == b'\n').next().is_none_or(|line| line.trim_ascii().is_empty())
            {
                let message = format!("the first line of {} is empty", shown(path));
                found.errors.push(source.problem(
                    &key,
                    message,
                    "write the secret on the first line, the same secret as in the server",
                ));
            }
        }
        let hooks = [("on_master", &instance.hooks.on_master), ("on_backup", &instance.hooks.on_backup)];
        for (name, command) in hooks {
            if let Some(program) = command.as_ref().and_then(|c| c.first()).map(Path::new).filter(|p| p.is_absolute()) {
                executable(program, &format!("instance[{i}].hooks.{name}[0]"), source, found);
            }
        }
    }
}

/// Why the client of etcd would refuse this file of certificates; it reads the file by the same crate.
fn no_certificate(bytes: &[u8]) -> Option<&'static str> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(all) if all.is_empty() => Some("holds no certificate in PEM"),
        Ok(_) => None,
        Err(_) => Some("is damaged: its PEM cannot be read"),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The content of a file; `None` once an error is noted.
fn readable(path: &Path, key: &str, source: &Source<'_>, found: &mut Found) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // Opening a FIFO would block for ever, and a directory opens but cannot be read: only plain files are opened.
    let read = match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(std::io::Error::other("not a regular file")),
        Ok(_) => File::open(path).and_then(|f| f.take(MAX_SECRET_BYTES).read_to_end(&mut bytes)),
        Err(e) => Err(e),
    };
    match read {
        Ok(_) => Some(bytes),
        Err(e) => {
            let help = match (e.kind(), key) {
                (std::io::ErrorKind::NotFound, "node.key_file") => make_key(path),
                (std::io::ErrorKind::NotFound, _) => {
                    "create the file, or correct the path; --no-files skips the check of files".to_owned()
                }
                (std::io::ErrorKind::PermissionDenied, _) => {
                    "let the user that runs the agent (root) read the file".to_owned()
                }
                _ => "name a regular file that root can read".to_owned(),
            };
            found.errors.push(source.problem(key, format!("cannot read {}: {e}", shown(path)), help));
            None
        }
    }
}

/// Like [`readable`]; a secret that every user can write is none, and one that every user can read is warned of.
fn secret(path: &Path, key: &str, source: &Source<'_>, found: &mut Found) -> Option<Vec<u8>> {
    let bytes = readable(path, key, source, found)?;
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    let cure = format!("chmod 600 {}", path.display());
    if mode & 0o002 != 0 {
        let message =
            format!("every user of this host can replace the secret in {} (mode {:o})", shown(path), mode & 0o777);
        found.errors.push(source.problem(key, message, cure));
    } else if mode & 0o004 != 0 {
        let message = format!("every user of this host can read the secret in {}", shown(path));
        found.warnings.push(source.problem(key, message, cure));
    }
    Some(bytes)
}

fn executable(program: &Path, key: &str, source: &Source<'_>, found: &mut Found) {
    let why = match std::fs::metadata(program) {
        Ok(meta) if !meta.is_file() => "not a regular file".to_owned(),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => "the file is not executable".to_owned(),
        Ok(_) => return,
        Err(e) => e.to_string(),
    };
    let help = "name an executable file; a script needs chmod +x and a #! line";
    found.errors.push(source.problem(key, format!("cannot run {}: {why}", shown(program)), help));
}
