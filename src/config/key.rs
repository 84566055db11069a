//! Which content of a key file is no key of a cluster. The agent's start and `check-config` ask here.

use std::fmt;
use std::path::Path;

/// As long as the hash: guessing the key is then no easier than forging a MAC.
const MIN_BYTES: usize = 32;

/// Why these bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Too few bytes; this many.
    Short(usize),
    /// All bytes are this one: a file of zeroes (a disk image, `fallocate`, `/dev/zero`) is known to everybody.
    Repeated(u8),
}

impl KeyFault {
    /// What is wrong with a key file that holds `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        // A line end behind the key is part of it, but makes no key out of zeroes.
        let core = bytes.trim_ascii_end();
        let first = core.first().or(bytes.first()).copied().unwrap_or_default();
        if bytes.len() < MIN_BYTES {
            Some(Self::Short(bytes.len()))
        } else if core.iter().all(|b| *b == first) {
            Some(Self::Repeated(first))
        } else {
            None
        }
    }

    /// What to do about `path`.
    #[must_use]
    pub fn cure(&self, path: &Path) -> String {
        make_key(path)
    }
}

/// How to make a key.
pub(super) fn make_key(path: &Path) -> String {
    format!(
        "make the key once and copy it to every node: (umask 077; head -c 32 /dev/urandom | base64 > {})",
        path.display()
    )
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(len) => write!(f, "has {len} bytes; a cluster key needs at least {MIN_BYTES} bytes"),
            Self::Repeated(byte) => write!(f, "repeats one byte ({byte:#04x}), so everybody can guess the key"),
        }
    }
}

#[cfg(test)]
mod tests;
