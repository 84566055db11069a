//! Keeps this node's lease and the key bound to it.

use super::election::LeaseState;
use super::record::{NodeEntry, encode, read_node};
use crate::etcd::{Changes, Compare, Etcd, EtcdError, Keys, Lease, Op};
use crate::os::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Renewals per time to live: several may fail before the lease is lost.
const RENEWALS: u32 = 6;
/// Pause after an error, on top of etcd's own time-outs.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after ten failures in a row.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Interval between warnings about a lasting failure; log rotation may have removed the first one.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Whether this node may send under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// etcd was not asked yet.
    Unknown,
    /// The name belongs to this node.
    Ours,
    /// An agent at another address has the name.
    Taken(String),
}

/// Reports this node's lease and name.
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

/// Runs until aborted. `again` reports that the node's key may have vanished or changed.
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
        // A lease granted by the previous etcd is void in the new one.
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
                // Subtract the drift: our clock may run slower than etcd's.
                let life = lease.ttl.mul_f64((1.0 - drift).max(0.0));
                out.send_replace(Some(LeaseState { id: lease.id, until: lease.sent + life }));
                renew(&etcd, &lease, life, &again, &out, (&key, &value), &mut changes).await;
                out.send_replace(None);
                // Remove the keys together with the lease. If the revocation fails, they expire with it.
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
            // The etcd behind the endpoints changed during the request: retry at once.
            Err(NotRegistered::Etcd(EtcdError::Changed)) => continue,
            Err(NotRegistered::Etcd(e)) => e.to_string(),
        };
        let now = clock::now();
        if complained.0 != why || now >= complained.1 + COMPLAIN {
            tracing::warn!("cannot register in etcd, retrying: {why}");
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
    // Compare the revision: a put of an earlier attempt, or of the previous process, may still be in flight. It would
    // bind the key to a lease without renewal, and the key would vanish while this node vouches.
    let there = etcd.get(key).await?;
    // A predecessor on this host had the same address, and it is dead, because this process has bound its port. A
    // different address means another host. Two nodes under one name would each hold on promises made to the other.
    if let Some(kv) = &there
        && let Ok(other) = read_node(key, &kv.value)
        && other.address != entry.address
    {
        return Err(NotRegistered::Taken(format!(
            "another agent, at {}, uses the name of this node ({}); give each node its own `name` in [node]. If that \
             agent is gone for good, this node gets the name once the lease of that agent has expired",
            other.address, entry.name
        )));
    }
    let before = there.map_or(0, |kv| kv.mod_revision);
    let lease = etcd.grant().await?;
    let put = Op::Put { key: key.to_owned(), value: value.to_vec(), lease: lease.id };
    // A node that waits because the key was gone must see that the key existed in between, even if it is gone again.
    let mark = Op::Put { key: run.to_owned(), value: entry.boot.to_string().into_bytes(), lease: 0 };
    let done = etcd.txn(vec![Compare::ModRevision(key.to_owned(), before)], vec![put, mark], Vec::new()).await?;
    if done.succeeded {
        return Ok(lease);
    }
    let message = format!("another process changed {key}; check that no second agent runs under this node's name");
    Err(EtcdError::Refused { message }.into())
}

/// Checks that the node's key has this process's value and is bound to its lease.
async fn is_intact(etcd: &Etcd, lease: &Lease, (key, value): (&str, &[u8])) -> bool {
    match etcd.get(key).await {
        Ok(Some(kv)) => kv.lease == lease.id && kv.value == value,
        Ok(None) => false,
        // Unknown. The next change of the key triggers another check, and the lease is renewed or lost independently.
        Err(_) => true,
    }
}

/// Renews the lease; returns when it is lost or the key must be registered again.
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
            // This also catches a change from before the grant, although the grant would have failed then.
            Ok(()) = changes.changed() => return,
            () = tokio::time::sleep(wait) => {}
            () = again.notified() => {
                if is_intact(etcd, lease, own).await {
                    continue;
                }
                tracing::warn!(key = own.0,
                    "another etcd client deleted or changed this node's key; registering again");
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
                tracing::warn!("the lease in etcd has expired; registering again");
                return;
            }
            // The lease may still live at etcd. What this node may conclude from it ends at `until` without further
            // action.
            Err(e) => {
                tracing::debug!(error = %e, "cannot renew the lease in etcd");
                wait = PAUSE.min(pause);
            }
        }
    }
}
