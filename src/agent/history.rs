//! The history of master changes, kept in etcd for `keepcall history`.
//!
//! Entries live under `instances/<i>/history/<epoch>-<time>`, and only the master of that time writes its entry. The
//! time separates the takeover of an epoch from a later return of the same master in that epoch.

use crate::cluster::Cluster;
use crate::control::api::{HistoryEntry, Phase};
use crate::etcd::{Etcd, EtcdError, Keys};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Entries per instance. The writer of a new entry deletes older ones.
pub(super) const KEPT: usize = 100;
/// Entries that may wait while etcd is away. Beyond this a new entry is dropped.
const WAITING: usize = 64;
/// Pause before the next try of a failed write.
const RETRY: Duration = Duration::from_secs(1);
/// Tries per entry. With [`RETRY`] they last a minute, far longer than an etcd election.
const TRIES: usize = 60;

// Twenty digits hold any u64, so the keys sort by epoch, and by time within one.
fn key(prefix: &str, entry: &HistoryEntry) -> String {
    format!("{prefix}{:020}-{:020}", entry.epoch, entry.at_ms)
}

/// Passes entries to a writer task, so that no takeover waits for etcd.
#[derive(Clone, Debug)]
pub(super) struct Writer(mpsc::Sender<HistoryEntry>);

impl Writer {
    pub(super) fn start(etcd: Etcd, cluster: &str, instance: &str) -> Self {
        let prefix = Keys::new(cluster).history(instance);
        let (tx, mut rx) = mpsc::channel::<HistoryEntry>(WAITING);
        tokio::spawn(async move {
            while let Some(entry) = rx.recv().await {
                for _ in 0..TRIES {
                    match write(&etcd, &prefix, &entry).await {
                        Ok(()) => break,
                        Err(e) => debug!(epoch = entry.epoch, "cannot write a history entry yet: {e}"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Self(tx)
    }

    pub(super) fn write(&self, entry: HistoryEntry) {
        if self.0.try_send(entry).is_err() {
            debug!("history entry dropped: {WAITING} entries are waiting already");
        }
    }
}

/// Adds an entry when etcd was replaced by another one, to the history of each instance with this node as master. The
/// entry explains holes in a history and calls that were stored twice. Ends with the process.
pub(super) async fn note_changes(etcd: Etcd, cluster: Cluster, name: String, node: String) {
    let mut changes = etcd.changes();
    let mut writers = BTreeMap::new();
    while changes.changed().await.is_ok() {
        let Some((what, at_ms)) = changes.borrow_and_update().last.clone() else { continue };
        for i in cluster.status().instances.into_iter().filter(|i| i.master.as_ref() == Some(&node)) {
            let writer = writers.entry(i.name.clone()).or_insert_with(|| Writer::start(etcd.clone(), &name, &i.name));
            writer.write(HistoryEntry {
                instance: i.name,
                epoch: i.epoch,
                master: node.clone(),
                previous: Some(node.clone()),
                cause: "etcd".to_owned(),
                reason: what.clone(),
                at_ms,
                ..HistoryEntry::default()
            });
        }
    }
}

async fn write(etcd: &Etcd, prefix: &str, entry: &HistoryEntry) -> Result<(), EtcdError> {
    let value = serde_json::to_vec(entry).unwrap_or_default();
    etcd.put(&key(prefix, entry), &value, 0).await?;
    let (_, kept) = etcd.get_prefix(prefix).await?;
    let surplus = kept.len().saturating_sub(KEPT);
    for old in kept.iter().take(surplus) {
        etcd.delete(&old.key).await?;
    }
    Ok(())
}

/// The newest `limit` entries, newest first. Unreadable entries are skipped with a warning.
pub(super) async fn read(
    etcd: &Etcd,
    cluster: &str,
    instance: &str,
    limit: usize,
) -> Result<Vec<HistoryEntry>, EtcdError> {
    let (_, found) = etcd.get_prefix(&Keys::new(cluster).history(instance)).await?;
    let mut entries: Vec<HistoryEntry> = Vec::new();
    for kv in found {
        match serde_json::from_slice::<HistoryEntry>(&kv.value) {
            Ok(entry) if entry.instance == instance => entries.push(entry),
            Ok(_) => {
                warn!(
                    key = ?kv.key,
                    "the history entry belongs to another instance; remove it with `etcdctl del {}`", kv.key
                )
            }
            Err(e) => {
                warn!(key = ?kv.key, "cannot read the history entry ({e}); remove it with `etcdctl del {}`", kv.key)
            }
        }
    }
    entries.sort_by_key(|e| std::cmp::Reverse((e.epoch, e.at_ms)));
    entries.truncate(limit);
    Ok(entries)
}

/// Records the moment `unix_us` in an entry. The first time counts, except for `last-reinvite` and `settled`, which
/// move on.
pub(super) fn mark(entry: &mut HistoryEntry, name: &str, unix_us: u64) {
    match entry.phases.iter_mut().find(|p| p.name == name) {
        Some(phase) if matches!(name, "last-reinvite" | "settled") => phase.unix_us = unix_us,
        Some(_) => {}
        None => entry.phases.push(Phase { name: name.to_owned(), unix_us }),
    }
}
