//! Detects whether the end of this process is a restart. In a restart the addresses stay.
//!
//! systemd sends the same SIGTERM for `systemctl stop` and for `systemctl restart` (and for a package upgrade, which
//! restarts). Only systemd's job list distinguishes them. Without systemd, SIGUSR2 means a restart.

use super::instance::Order;
use super::{Instances, pass_on};
use crate::cluster::{Cluster, ClusterEvent};
use crate::config::Config;
use crate::vip::address::Addresses;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

/// The unit file sets this variable to the unit's own name.
const UNIT: &str = "KEEPCALL_UNIT";
/// Timeout for systemd's answer, far below its time limit for a stop. The agent works on while it waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Leaves everything in force for the next process. Rights rest on the lease, which outlasts a restart. The calls are
/// in etcd. Addresses, tables and keys stay.
pub(super) async fn park(
    config: &Config,
    addresses: &Addresses,
    cluster: Cluster,
    mut events: mpsc::Receiver<ClusterEvent>,
    instances: Instances,
) {
    let mut parking = tokio::spawn(cluster.park());
    let parked = loop {
        tokio::select! {
            biased;
            // Another right may still end while the cluster parks.
            Some(event) = events.recv() => pass_on(config, Some(addresses), &instances, event).await,
            done = &mut parking => break done.unwrap_or(false),
        }
    };
    if !parked {
        warn!(
            "etcd did not confirm in time that the hold rests on the lease: the next process must start within \
             `hold` to keep the addresses"
        );
    }
    for orders in instances.into_values() {
        let (done, flushed) = oneshot::channel();
        if orders.send(Order::Park(done)).await.is_ok() {
            // An error means that the instance has ended, so there is nothing to wait for.
            let _ = flushed.await;
        }
    }
}

/// Asks systemd whether it will start this unit again. Without systemd or an answer this is an ordinary stop with a
/// handover, which is safe in any case.
pub(super) async fn is_asked_for() -> bool {
    let Ok(unit) = std::env::var(UNIT) else { return false };
    let mut ask = Command::new("systemctl");
    ask.args(["list-jobs", "--no-legend", "--plain", "--no-pager"]);
    ask.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, ask.output()).await {
        Ok(Ok(output)) => restarts(&String::from_utf8_lossy(&output.stdout), &unit),
        Ok(Err(e)) => {
            warn!("cannot ask systemd whether this is a restart ({e}); stopping");
            false
        }
        Err(_) => {
            debug!("systemd did not answer in time whether this is a restart; stopping");
            false
        }
    }
}

/// Whether one of these lines (`JOB UNIT TYPE STATE`) restarts `unit`.
fn restarts(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next() == Some("restart")
    })
}

#[cfg(test)]
mod tests;
