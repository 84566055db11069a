//! Watches a prefix. A stream is only a hint and may die unseen, so any error triggers another read of the prefix.

use super::changes::Changes;
use super::{Etcd, key_value_ref, local};
use crate::etcd::error::{EtcdError, Failure};
use crate::etcd::types::KeyValue;
use etcd_client::EventType;
use std::time::Duration;
use tokio::sync::mpsc;

/// Queued changes for a slow reader. Beyond it the stream itself waits, and etcd buffers or compacts; the next snapshot
/// repairs that.
const QUEUE: usize = 256;

/// Pause before the next read of the prefix. The first is short, so that a lost connection is hardly noticed. It
/// doubles up to the last, so that an etcd that is down for hours is not hammered.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Everything under the prefix; replaces all earlier events.
    Snapshot {
        /// Revision of the read.
        revision: i64,
        /// [`crate::etcd::Changes::count`] at the read: a higher count than at the previous snapshot means that etcd
        /// has changed.
        change: u64,
        /// All keys under the prefix.
        entries: Vec<KeyValue>,
    },
    /// A key was set.
    Put(KeyValue),
    /// A key was deleted, or its lease ended.
    Delete {
        /// The key.
        key: String,
        /// Revision of the deletion.
        revision: i64,
    },
}

pub(in crate::etcd) fn start(etcd: Etcd, prefix: String) -> mpsc::Receiver<WatchEvent> {
    let (tx, rx) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let closed = tx.clone();
        tokio::select! {
            () = follow(&etcd, &prefix, &tx) => {}
            () = closed.closed() => {}
        }
    });
    rx
}

/// Runs until the receiver is dropped.
async fn follow(etcd: &Etcd, prefix: &str, tx: &mpsc::Sender<WatchEvent>) {
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    let mut changes = etcd.changes();
    loop {
        let change = changes.borrow_and_update().count;
        match etcd.get_prefix(prefix).await {
            // etcd changed meanwhile; the source of this read is unknown.
            Ok(_) if changes.has_changed().unwrap_or(false) => continue,
            Err(EtcdError::Changed) => continue,
            Ok((revision, entries)) => {
                if tx.send(WatchEvent::Snapshot { revision, change, entries }).await.is_err() {
                    return;
                }
                pause = FIRST_PAUSE;
                if complained {
                    tracing::info!(prefix, "etcd answers again; watching its keys");
                    complained = false;
                }
                match etcd.open_watch(prefix, revision + 1).await {
                    Ok((stream, endpoint)) => match pump(etcd, endpoint, stream, &mut changes, tx).await {
                        End::ReceiverGone => return,
                        End::Broken(why) => {
                            tracing::debug!(prefix, endpoint, %why, "the watch on etcd ended; reading again");
                            etcd.report(endpoint, &why);
                        }
                        // The new etcd may never reach the revision that the watch waits for.
                        End::Changed => continue,
                        End::Compacted => tracing::debug!(prefix, "etcd compacted the watched revision; reading again"),
                    },
                    Err(e) => tracing::debug!(prefix, error = %e, "cannot open a watch on etcd"),
                }
            }
            Err(e) => {
                if !complained {
                    tracing::warn!(prefix, error = %e, "cannot read from etcd; retrying");
                    complained = true;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

enum End {
    ReceiverGone,
    Changed,
    Compacted,
    Broken(String),
}

async fn pump(
    etcd: &Etcd,
    endpoint: usize,
    mut stream: etcd_client::WatchStream,
    changes: &mut tokio::sync::watch::Receiver<Changes>,
    tx: &mpsc::Sender<WatchEvent>,
) -> End {
    loop {
        let sent = etcd.0.identity().send(endpoint);
        let message = tokio::select! {
            biased;
            changed = changes.changed() => match changed {
                Ok(()) => return End::Changed,
                Err(_) => return End::ReceiverGone,
            },
            message = stream.message() => message,
        };
        let response = match message {
            Ok(Some(r)) => r,
            Ok(None) => return End::Broken("etcd closed the stream".into()),
            Err(e) => return End::Broken(crate::etcd::error::chain(&e)),
        };
        match etcd.0.judge(endpoint, sent, local(response.header())) {
            Ok(()) => {}
            Err(Failure::Unserved(why)) => return End::Broken(why),
            Err(_) => return End::Changed,
        }
        if response.compact_revision() != 0 {
            return End::Compacted;
        }
        if response.canceled() {
            return End::Broken(format!("etcd cancelled the watch: {}", response.cancel_reason()));
        }
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let kv = key_value_ref(kv);
            let out = match event.event_type() {
                EventType::Put => WatchEvent::Put(kv),
                EventType::Delete => WatchEvent::Delete { key: kv.key, revision: kv.mod_revision },
            };
            if tx.send(out).await.is_err() {
                return End::ReceiverGone;
            }
        }
    }
}
