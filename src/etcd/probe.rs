//! Asks every member now and then, so that a dead, slow or foreign one is known before it is needed.

use super::alarm;
use super::client::spread::Tally;
use super::client::{Etcd, Inner, linear, local};
use super::error::{EtcdError, Failure};
use crate::clock;
use crate::time::Time;
use etcd_client::Client;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time between two probes of a member that nobody else asks. That etcd is another one than before is noticed within it.
const PROBE: Duration = Duration::from_millis(500);
/// The same after etcd did not let this node in: it makes each login cost it dear on purpose, and nothing changes by asking.
const REFUSED: Duration = Duration::from_secs(5);
/// A probe without an answer for so long makes others be asked first.
const SLOW: Duration = Duration::from_millis(100);
/// Read by probes. It is below what a user of ours must be granted, and no key of ours.
const PROBE_KEY: &str = "/keepcall/";
/// Time between two looks at a member's alarms, which stay for minutes at least.
const ALARMS: Duration = Duration::from_secs(2);
/// How long the start waits for every member to say to which cluster it belongs.
const SETTLE: Duration = Duration::from_secs(1);

impl Inner {
    /// Asks one member for something small that only a member with a leader can answer. Whether it let this node in.
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
            // Not being allowed to read this key is an answer, too; and so is one that says that etcd is another one.
            Ok(()) | Err(Failure::Final(EtcdError::Denied { .. } | EtcdError::Changed) | Failure::Unsettled) => {
                e.good(clock::now())
            }
            Err(Failure::Final(_)) => return false,
            Err(failure) => drop(self.note(i, failure, &mut Tally::default())),
        }
        true
    }

    /// Asks one member for its alarms. A member that does not tell is looked at by other means.
    async fn look_for_alarms(&self, i: usize) {
        let status = |mut c: Client| async move {
            let r = c.status().await?;
            Ok((local(r.header()), alarm::describe(r.errors())))
        };
        if let Ok(alarm) = self.attempt(i, &status).await {
            self.endpoints[i].set_alarm(alarm);
        }
    }

    /// At the start: finds out to which cluster most members belong.
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
        // Whoever has not answered by then is taken for dead.
        let _ = tokio::time::timeout(SETTLE.min(self.timeout), ask_all).await;
        self.identity().settle();
    }
}

impl Etcd {
    /// Begins to probe the endpoints, once; ends with the last handle.
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
