//! Keeps this node's lease and the key bound to it.

use super::election::LeaseState;
use super::record::{Keys, NodeEntry, encode, read_node};
use crate::clock;
use crate::etcd::{Changes, Compare, Etcd, EtcdError, Lease, Op};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Renewals in one time to live: several may fail before the lease is lost.
const RENEWALS: u32 = 6;
/// Pause after an error; etcd's own time-outs come on top.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause while etcd has been away for long.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Complaint about a lasting failure, again after this time: the first one may be long gone from a log.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Whether this node may speak under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// etcd was not asked yet.
    Unknown,
    /// It is this node's.
    Ours,
    /// Another agent, on another host, has it.
    Taken(String),
}

/// Where this node stands with etcd.
pub(super) struct Reports {
    pub(super) lease: watch::Sender<Option<LeaseState>>,
    pub(super) name: watch::Sender<Name>,
}

/// Why the node is not registered.
#[derive(Debug)]
enum NotRegistered {
    Taken(String),
    Etcd(EtcdError),
}

impl From<EtcdError> for NotRegistered {
    fn from(e: EtcdError) -> Self {
        Self::Etcd(e)
    }
}

/// Runs until aborted. `again`: the node's key may have vanished or been changed.
pub(super) async fn keep(
    etcd: Etcd,
    keys: Keys,
    entry: NodeEntry,
    drift: f64,
    again: Arc<Notify>,
    Reports { lease: out, name }: Reports,
) {
    let (key, run) = (keys.node(&entry.name), keys.run(&entry.name));
    let value = encode(&entry);
    let mut failures = 0_u32;
    let mut complained = (String::new(), clock::now());
    let mut changes = etcd.changes();
    loop {
        // A lease of the etcd before is none in this one.
        changes.borrow_and_update();
        let why = match register(&etcd, (&key, &run), &value, &entry).await {
            Ok(lease) => {
                if failures > 0 {
                    tracing::info!("registered in etcd");
                }
                failures = 0;
                complained.0.clear();
                name.send_if_modified(|n| {
                    *n != Name::Ours && {
                        *n = Name::Ours;
                        true
                    }
                });
                // Less the drift: our clock may run slower than etcd's.
                let life = lease.ttl.mul_f64((1.0 - drift).max(0.0));
                out.send_replace(Some(LeaseState { id: lease.id, until: lease.sent + life }));
                renew(&etcd, &lease, life, &again, &out, (&key, &value), &mut changes).await;
                out.send_replace(None);
                // Its keys should not outlive it; if this fails they run out by themselves.
                let _ = etcd.revoke(lease.id).await;
                continue;
            }
            Err(NotRegistered::Taken(why)) => {
                name.send_if_modified(|n| {
                    *n != Name::Taken(why.clone()) && {
                        *n = Name::Taken(why.clone());
                        true
                    }
                });
                why
            }
            // Found while it was asked: once more, at once.
            Err(NotRegistered::Etcd(EtcdError::Changed)) => continue,
            Err(NotRegistered::Etcd(e)) => e.to_string(),
        };
        let now = clock::now();
        if complained.0 != why || now >= complained.1 + COMPLAIN {
            tracing::warn!("cannot register in etcd, trying again until it works: {why}");
            complained = (why, now);
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(if failures < 10 { PAUSE } else { LONG_PAUSE }).await;
    }
}

async fn register(
    etcd: &Etcd,
    (key, run): (&str, &str),
    value: &[u8],
    entry: &NodeEntry,
) -> Result<Lease, NotRegistered> {
    // Compared, because a put of an earlier try (or of the process before us) may still be under way: it would bind the key
    // to a lease that nobody renews, and the key would vanish while this node vouches.
    let there = etcd.get(key).await?;
    // A predecessor on this host had the same address, and the port that is bound here proves that it is dead. Another address is
    // another host: two that speak under one name would hold on promises that were made to the other.
    if let Some(kv) = &there
        && let Ok(other) = read_node(key, &kv.value)
        && other.address != entry.address
    {
        return Err(NotRegistered::Taken(format!(
            "another agent, at {}, uses the name of this node ({}); give each node a `name` of its own in [node]. If that agent is \
             gone for good, this node takes the name over when its lease has run out",
            other.address, entry.name
        )));
    }
    let before = there.map_or(0, |kv| kv.mod_revision);
    let lease = etcd.grant().await?;
    let put = Op::Put { key: key.to_owned(), value: value.to_vec(), lease: lease.id };
    // Who waits because the key was gone must see that it was there in between, even if it is gone again.
    let mark = Op::Put { key: run.to_owned(), value: entry.boot.to_string().into_bytes(), lease: 0 };
    let done = etcd.txn(vec![Compare::ModRevision(key.to_owned(), before)], vec![put, mark], Vec::new()).await?;
    if done.succeeded {
        return Ok(lease);
    }
    let message = format!("{key} was changed by another process; is a second agent running under this node's name?");
    Err(EtcdError::Refused { message }.into())
}

/// Whether the node's key is as this process put it, and bound to its lease.
async fn is_intact(etcd: &Etcd, lease: &Lease, (key, value): (&str, &[u8])) -> bool {
    match etcd.get(key).await {
        Ok(Some(kv)) => kv.lease == lease.id && kv.value == value,
        Ok(None) => false,
        // Not known; the key is looked at again when it changes again, and the lease is renewed or lost by itself.
        Err(_) => true,
    }
}

/// Returns when the lease is lost.
async fn renew(
    etcd: &Etcd,
    lease: &Lease,
    life: Duration,
    again: &Notify,
    out: &watch::Sender<Option<LeaseState>>,
    own: (&str, &[u8]),
    changes: &mut watch::Receiver<Changes>,
) {
    let pause = (lease.ttl / RENEWALS).max(Duration::from_millis(50));
    let mut wait = pause;
    loop {
        tokio::select! {
            // Also one of before the lease was granted: the grant would have failed.
            Ok(()) = changes.changed() => return,
            () = tokio::time::sleep(wait) => {}
            () = again.notified() => {
                if is_intact(etcd, lease, own).await {
                    continue;
                }
                tracing::warn!(key = own.0, "this node's key in etcd was deleted or changed by somebody else; registering again");
                return;
            }
        }
        let sent = clock::now();
        match etcd.keep_alive(lease.id).await {
            Ok(()) => {
                wait = pause;
                out.send_replace(Some(LeaseState { id: lease.id, until: sent + life }));
            }
            Err(EtcdError::Changed) => return,
            Err(EtcdError::LeaseGone { .. }) => {
                tracing::warn!("the lease in etcd was lost; registering again");
                return;
            }
            // The lease may live on at etcd; what we may conclude from it ends at `until` by itself.
            Err(e) => {
                tracing::debug!(error = %e, "the lease was not renewed");
                wait = PAUSE.min(pause);
            }
        }
    }
}
