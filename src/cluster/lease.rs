//! Keeps this node's lease and the key bound to it.

use super::election::LeaseState;
use crate::clock;
use crate::etcd::{Compare, Etcd, EtcdError, Lease, Op};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Renewals in one time to live: several may fail before the lease is lost.
const RENEWALS: u32 = 6;
/// Pause after an error; etcd's own time-outs come on top.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause while etcd has been away for long.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Runs until aborted. `again`: the node's key vanished, register anew.
pub(super) async fn keep(
    etcd: Etcd,
    key: String,
    value: Vec<u8>,
    drift: f64,
    again: Arc<Notify>,
    out: watch::Sender<Option<LeaseState>>,
) {
    let mut failures = 0_u32;
    loop {
        match register(&etcd, &key, &value).await {
            Ok(lease) => {
                if failures > 0 {
                    tracing::info!("registered in etcd again");
                }
                failures = 0;
                // Less the drift: our clock may run slower than etcd's.
                let life = lease.ttl.mul_f64((1.0 - drift).max(0.0));
                out.send_replace(Some(LeaseState { id: lease.id, until: lease.sent + life }));
                renew(&etcd, &lease, life, &again, &out).await;
                out.send_replace(None);
                // Its keys should not outlive it; if this fails they run out by themselves.
                let _ = etcd.revoke(lease.id).await;
            }
            Err(e) => {
                if failures == 0 {
                    tracing::warn!(error = %e, "cannot register in etcd; trying again until it works");
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(if failures < 10 { PAUSE } else { LONG_PAUSE }).await;
            }
        }
    }
}

async fn register(etcd: &Etcd, key: &str, value: &[u8]) -> Result<Lease, EtcdError> {
    // Compared, because a put of an earlier try (or of the process before us) may still be under way: it would bind the key
    // to a lease that nobody renews, and the key would vanish while this node vouches.
    let before = etcd.get(key).await?.map_or(0, |kv| kv.mod_revision);
    let lease = etcd.grant().await?;
    let put = Op::Put { key: key.to_owned(), value: value.to_vec(), lease: lease.id };
    let done = etcd.txn(vec![Compare::ModRevision(key.to_owned(), before)], vec![put], Vec::new()).await?;
    if done.succeeded {
        return Ok(lease);
    }
    Err(EtcdError::Refused {
        message: format!("{key} was changed by another process; is a second agent running under this node's name?"),
    })
}

/// Returns when the lease is lost.
async fn renew(etcd: &Etcd, lease: &Lease, life: Duration, again: &Notify, out: &watch::Sender<Option<LeaseState>>) {
    let pause = (lease.ttl / RENEWALS).max(Duration::from_millis(50));
    let mut wait = pause;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = again.notified() => {
                tracing::warn!("this node's key in etcd is gone; registering again");
                return;
            }
        }
        let sent = clock::now();
        match etcd.keep_alive(lease.id).await {
            Ok(()) => {
                wait = pause;
                out.send_replace(Some(LeaseState { id: lease.id, until: sent + life }));
            }
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
