//! Ends the election with its agent: hands over and leaves, or parks for the next process.

use super::{HANDOVER_TIME, LEAVE_TIME, PARK_TIME, Worker};
use crate::time::Time;
use tokio::sync::oneshot;

impl Worker {
    pub(super) fn parked(&mut self, now: Time) -> bool {
        let Some(since) = self.parking.as_ref().map(|p| p.0) else { return false };
        let done = self.all.iter().all(|o| o.election.parked());
        if !done && now < since + PARK_TIME {
            return false;
        }
        self.p.lease_task.abort();
        if let Some((_, tx)) = self.parking.take() {
            let _ = tx.send(done);
        }
        true
    }

    pub(super) fn stopped(&mut self, now: Time) -> bool {
        let Some(since) = self.stopping.as_ref().map(|s| s.0) else {
            // Cancel a switchover after its caller gave up; it must not happen minutes later.
            for o in &mut self.all {
                if o.asked.as_ref().is_some_and(oneshot::Sender::is_closed) {
                    o.asked = None;
                    o.election.cancel_switchover();
                }
                if o.forget.as_ref().is_some_and(oneshot::Sender::is_closed) {
                    o.forget = None;
                    o.election.cancel_forget();
                }
            }
            return false;
        };
        if now >= since + HANDOVER_TIME {
            self.each(|e, now| e.stop_at_once(now));
            self.flush_events();
        }
        let done = self.all.iter().all(|o| o.election.may_leave(now) && o.up.is_none());
        done || now >= since + LEAVE_TIME
    }

    /// The addresses are down and the promises have run out: revoke the lease, and with it all keys.
    pub(super) async fn leave(mut self) {
        self.p.lease_task.abort();
        let lease = *self.p.lease.borrow();
        if let Some(l) = lease
            && let Err(e) = self.shared.etcd.revoke(l.id).await
        {
            tracing::warn!(error = %e, "cannot revoke the lease in etcd; the lease expires without further action");
        }
        if let Some((_, Some(tx))) = self.stopping.take() {
            let _ = tx.send(());
        }
    }
}
