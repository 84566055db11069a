//! Announces a change of etcd to every user of its data.

use super::Etcd;
use super::Inner;
use crate::etcd::error::EtcdError;
use crate::etcd::error::Failure;
use crate::etcd::identity::{Header, Identity, Sent, Verdict};
use crate::os::clock;
use crate::sync::Locked as _;
use std::sync::MutexGuard;
use tokio::sync::watch;

/// Detected changes of etcd since the start: restored from a backup, emptied, or exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Number of changes.
    pub count: u64,
    /// The last change in words, and its wall-clock time in milliseconds since 1970.
    pub last: Option<(String, u64)>,
}

impl Etcd {
    /// Announces every change. Data read under a lower count say nothing about etcd's present content.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.0.changes.subscribe()
    }
}

impl Inner {
    pub(in crate::etcd) fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.locked()
    }

    /// Judges whether an endpoint's answer is usable, and announces a change of etcd.
    pub(in crate::etcd) fn judge(&self, i: usize, sent: Sent, header: Option<Header>) -> Result<(), Failure> {
        // etcd always sends a header. An answer whose proxy strips it cannot be judged.
        let Some(header) = header else { return Ok(()) };
        let verdict = self.identity().handle_header(i, sent, header, clock::now());
        match verdict {
            Verdict::Good => Ok(()),
            Verdict::Unsettled => Err(Failure::Unsettled),
            Verdict::Stale => Err(Failure::Final(EtcdError::Changed)),
            Verdict::Stranger(why) | Verdict::Behind(why) => Err(Failure::Unserved(why)),
            Verdict::Changed(change) => {
                tracing::error!("{change}; this node reads everything again and restores its own keys");
                self.changes.send_modify(|c| {
                    c.count += 1;
                    c.last = Some((change.to_string(), clock::unix_ms()));
                });
                Err(Failure::Final(EtcdError::Changed))
            }
        }
    }
}
