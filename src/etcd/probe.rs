//! Probes every member at intervals, so that a dead, slow or foreign one is known before it is needed.

use super::alarm;
use super::client::spread::Tally;
use super::client::{Etcd, Inner, linear, local};
use super::error::{EtcdError, Failure};
use crate::os::clock;
use crate::time::Time;
use etcd_client::Client;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Interval between probes of an idle member. It bounds the time to notice a change of etcd.
const PROBE: Duration = Duration::from_millis(500);
/// Interval after etcd rejected our login: etcd makes logins expensive on purpose, and repeating them changes nothing.
const REFUSED: Duration = Duration::from_secs(5);
/// After this time without an answer to a probe, other members go first.
const SLOW: Duration = Duration::from_millis(100);
/// Key that probes read. It lies below the prefix that our user must be granted, and is none of our keys.
const PROBE_KEY: &str = "/keepcall/";
/// Interval between reads of a member's alarms, which stay for minutes at least.
const ALARMS: Duration = Duration::from_secs(2);
/// How long the start waits until every member has named its cluster.
const SETTLE: Duration = Duration::from_secs(1);

impl Inner {
    /// Sends one member a small request that only a member with a leader can answer. Returns whether it let this node
    /// in.
    async fn probe_one(&self, i: usize) -> bool {
        let e = &self.endpoints[i];
        let read = |mut c: Client| async move {
            let r = c.get(PROBE_KEY, None).await?;
            Ok((linear(r.header()), ()))
        };
        let mut asked = std::pin::pin!(self.attempt(i, &read));
        let result = match tokio::time::timeout(SLOW, &mut asked).await {
            Ok(result) => result,
            Err(_) => {
                e.slow();
                asked.await
            }
        };
        match result {
            // A denied read of this key is an answer too, and so is a sign that etcd has changed.
            Ok(()) | Err(Failure::Final(EtcdError::Denied { .. } | EtcdError::Changed) | Failure::Unsettled) => {
                e.good(clock::now())
            }
            Err(Failure::Final(_)) => return false,
            Err(failure) => drop(self.note(i, failure, &mut Tally::default())),
        }
        true
    }

    /// Reads one member's alarms. Without an answer, other checks judge the member.
    async fn look_for_alarms(&self, i: usize) {
        let status = |mut c: Client| async move {
            let r = c.status().await?;
            Ok((local(r.header()), alarm::describe(r.errors())))
        };
        if let Ok(alarm) = self.attempt(i, &status).await {
            self.endpoints[i].set_alarm(alarm);
        }
    }

    /// At the start, determines the cluster of most members.
    pub(super) async fn settle(&self) {
        if self.identity().is_settled() {
            return;
        }
        let _one = self.settling.lock().await;
        if self.identity().is_settled() {
            return;
        }
        let ask_all = async {
            let mut open: FuturesUnordered<_> = (0..self.endpoints.len()).map(|i| self.probe_one(i)).collect();
            while open.next().await.is_some() && !self.identity().is_settled() {}
        };
        // A member without an answer by then counts as dead.
        let _ = tokio::time::timeout(SETTLE.min(self.timeout), ask_all).await;
        self.identity().settle();
    }
}

impl Etcd {
    /// Starts the probes once; they end with the last handle.
    pub(super) fn probe(&self) {
        if self.0.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        for i in 0..self.0.endpoints.len() {
            tokio::spawn(probe(std::sync::Arc::downgrade(&self.0), i));
        }
    }
}

async fn probe(etcd: Weak<Inner>, i: usize) {
    let mut alarms_at = Time::ZERO;
    loop {
        let Some(inner) = etcd.upgrade() else { return };
        let now = clock::now();
        let known = inner.endpoints[i].is_well() && inner.identity().judged_within(i, PROBE, now);
        let refused = !known && !inner.probe_one(i).await;
        if now >= alarms_at && !refused && inner.endpoints[i].is_well() {
            alarms_at = now + ALARMS;
            inner.look_for_alarms(i).await;
        }
        drop(inner);
        tokio::time::sleep(if refused { REFUSED } else { PROBE }).await;
    }
}
