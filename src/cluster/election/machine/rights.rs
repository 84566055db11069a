//! Computes how long this node may hold: the latest promise made to it, under every record that may be in force.

use super::{Election, FRESH};
use crate::cluster::election::types::{Action, Cause, HoldKind, Inherited, MasterChange};
use crate::cluster::record::Record;
use crate::time::Time;

/// How this node became master, kept until it takes the addresses.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct Won {
    pub(super) epoch: u64,
    pub(super) cause: Cause,
    pub(super) previous: Option<String>,
    pub(super) detected: Time,
    pub(super) committed: Option<Time>,
}

/// This node's right to the addresses until `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::election) struct Held {
    pub(super) epoch: u64,
    pub(super) until: Time,
    pub(super) kind: HoldKind,
    /// `Drop` was sent: the agent is dropping the addresses.
    pub(super) dropping: bool,
}

/// What this node may hold, and why. `rights.rs` changes it. `lead.rs` lets go, `follow.rs` notes what was won, and
/// `machine.rs`, `asking.rs` and `restored.rs` begin or end an inherited right.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster::election) struct Right {
    pub(super) held: Option<Held>,
    /// The previous process's right. It rests on promises under the record as that process left it, so it ends with the
    /// first change of the record that this process requests.
    pub(super) inherited: Option<Inherited>,
    pub(super) won: Option<Won>,
}

const NEVER: (Time, HoldKind) = (Time::ZERO, HoldKind::Paired);

impl Election {
    /// The deadline that one record gives.
    fn right(&self, r: &Record) -> (Time, HoldKind) {
        if !self.agrees(r) {
            return NEVER;
        }
        let hold = self.counted(r);
        #[cfg(test)]
        let paired = |s: &str| {
            let unvouched = self.broken(crate::cluster::election::types::Fault::PairedUnvouched);
            let at = self.peers.get(s).and_then(|p| if unvouched { p.acked } else { p.vouched });
            at.map_or(Time::ZERO, |t| t + hold)
        };
        #[cfg(not(test))]
        let paired = |s: &str| self.peers.get(s).and_then(|p| p.vouched).map_or(Time::ZERO, |t| t + hold);
        // The last holder's epoch; it is ours until a handover is complete.
        let epoch = if self.leaving(r) { r.epoch.saturating_sub(1) } else { r.epoch };
        let inherited =
            self.right.inherited.filter(|i| i.epoch == epoch).map_or(NEVER, |i| (i.until, HoldKind::Inherited));
        if self.leaving(r) {
            // The record already names the next master. Its acks are its promise to wait for us.
            let own = (paired(&r.master), HoldKind::Paired);
            return if inherited.0 > own.0 { inherited } else { own };
        }
        if r.master != self.s.me || self.designated(r) {
            return NEVER;
        }
        let mut best = NEVER;
        let mut offer = |t: Time, kind: HoldKind| {
            if t > best.0 {
                best = (t, kind);
            }
        };
        if let Some(s) = &r.successor {
            offer(paired(s), HoldKind::Paired);
        }
        // Without other members, no ack is needed and none can come: only the lease counts.
        let others = r.members.iter().filter(|m| **m != self.s.me);
        let acked = others.map(|m| self.peers.get(m).and_then(|p| p.acked));
        #[cfg(test)]
        let acked = acked.filter(|a| a.is_some() || !self.broken(crate::cluster::election::types::Fault::FailsafeSome));
        if let Some(Some(oldest)) = acked.min() {
            offer(oldest + hold, HoldKind::Failsafe);
        }
        let armed = r.successor.is_some();
        #[cfg(test)]
        let armed = armed && !self.broken(crate::cluster::election::types::Fault::SoloArmed);
        if let Some(l) = self.node.lease.filter(|_| !armed && self.alive_is_ours(r)) {
            offer(l.until.min(self.solo_until()), HoldKind::Solo);
        }
        offer(inherited.0, inherited.1);
        best
    }

    /// End of what a read can vouch for. The lease alone proves nothing: while this node cannot read, somebody may
    /// delete all keys and renewals go on. A first election on another node waits [`FRESH`] and a lease after it saw
    /// that, see `lost_patience`.
    fn solo_until(&self) -> Time {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::SoloUnread) {
            return Time::FAR;
        }
        self.etcd.last_read.map_or(Time::ZERO, |r| r.sent + FRESH + self.node.lease_seconds())
    }

    /// The deadline that every possibly committed record allows.
    fn deadline(&self) -> (Time, HoldKind) {
        let unread = || {
            self.right.inherited.filter(|_| self.etcd.view.is_none()).map_or(NEVER, |i| (i.until, HoldKind::Inherited))
        };
        let view = self.etcd.record.as_ref().map_or_else(unread, |r| self.right(r));
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::NoLowering) {
            return view;
        }
        let maybe = self.requests.maybe.as_ref().map_or(view, |r| self.right(r));
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::TermsEarly)
            && self.requests.maybe.as_ref().is_some_and(|m| m.terms != self.etcd.record.as_ref().and_then(|r| r.terms))
        {
            return maybe;
        }
        if maybe.0 < view.0 { maybe } else { view }
    }

    /// Takes, extends, lowers or drops the hold; no other place does.
    pub(in crate::cluster::election) fn settle_hold(&mut self, now: Time) {
        self.settle_inherited(now);
        let (until, kind) = self.deadline();
        let inherited = self.right.inherited.map_or(0, |i| i.epoch);
        let epoch = self
            .etcd
            .record
            .as_ref()
            .map_or(inherited, |r| if self.leaving(r) { r.epoch.saturating_sub(1) } else { r.epoch });
        if let Some(h) = self.right.held {
            if h.epoch != epoch || until <= now {
                // A running node sees the end of its right at once. This node stalled and so received nothing, which
                // says nothing about the others. Give them the same time to answer as at the start; else it would be
                // silent for two holds.
                if now > h.until + self.s.heartbeat {
                    self.leading.since = now;
                }
                self.right.held = None;
                self.give_up_handover();
                if !h.dropping {
                    let reason = self.why_lost(h, now);
                    self.push(Action::Drop { epoch: h.epoch, reason, handover: false });
                }
            } else {
                self.right.held = Some(Held { until, kind, ..h });
                self.wake_at(until);
            }
        }
        let Some(r) = self
            .etcd
            .record
            .as_ref()
            .filter(|r| self.right.held.is_none() && r.master == self.s.me && !self.leaving(r))
        else {
            return;
        };
        let epoch = r.epoch;
        // A transaction in flight makes another node master: do not take what is about to go.
        if until > now
            && !self.wishes.stopping
            && self.node.ready
            && self.requests.maybe.as_ref().is_none_or(|m| m.master == self.s.me)
        {
            self.take(epoch, until, kind, now);
        }
    }

    pub(in crate::cluster::election) fn take(&mut self, epoch: u64, until: Time, kind: HoldKind, now: Time) {
        self.right.held = Some(Held { epoch, until, kind, dropping: false });
        self.wake_at(until);
        let won = self.right.won.take().filter(|w| w.epoch == epoch);
        let (cause, previous, detected, committed) = match won {
            Some(w) => (w.cause, w.previous, w.detected, w.committed.unwrap_or(now)),
            None => {
                let cause = if kind == HoldKind::Inherited { Cause::Restarted } else { Cause::Resumed };
                (cause, Some(self.s.me.clone()), now, now)
            }
        };
        self.push(Action::Take(MasterChange { epoch, cause, previous, detected, committed }));
    }

    /// Ends the inherited right when it has run out, belongs to another epoch, or our own right has replaced it.
    fn settle_inherited(&mut self, now: Time) {
        let Some(i) = self.right.inherited else { return };
        let known = match &self.etcd.record {
            None => self.etcd.view.is_none(),
            Some(r) if self.leaving(r) => i.epoch + 1 == r.epoch,
            // Once `alive` is bound to our own lease, that lease sets the deadline.
            Some(r) => r.master == self.s.me && i.epoch == r.epoch && (r.successor.is_some() || !self.alive_is_ours(r)),
        };
        #[cfg(test)]
        let known = known
            || (self.broken(crate::cluster::election::types::Fault::KeepInherited)
                && self.etcd.record.as_ref().is_some_and(|r| r.master == self.s.me));
        if !known || i.until <= now {
            self.right.inherited = None;
        }
    }

    /// After a hold ends during its handover, a late ack must not bring it back.
    fn give_up_handover(&mut self) {
        if let Some(r) = self.etcd.record.as_ref().filter(|r| self.leaving(r)) {
            self.handover.gone_epoch = Some(r.epoch);
        }
    }

    fn why_lost(&self, h: Held, now: Time) -> String {
        let _ = now;
        match &self.etcd.record {
            None if self.etcd.view.is_none() => {
                "the agent was restarted, and etcd did not confirm the hold in time".to_owned()
            }
            None => "the master's record in etcd was deleted".to_owned(),
            Some(r) if r.master != self.s.me => format!("{} is master in epoch {}: {}", r.master, r.epoch, r.reason),
            Some(r) if r.epoch != h.epoch => format!("a new epoch {} began", r.epoch),
            Some(r) if !self.agrees(r) => {
                "the addresses of this node differ from the addresses of the instance".to_owned()
            }
            Some(_) => match h.kind {
                HoldKind::Paired => {
                    "the successor no longer answers, and etcd did not confirm another successor in time".to_owned()
                }
                HoldKind::Failsafe => "etcd is unavailable, and not every member answers".to_owned(),
                HoldKind::Inherited => {
                    "the agent was restarted, and neither etcd nor a successor renewed the hold in time".to_owned()
                }
                HoldKind::Solo => "the lease in etcd was not renewed, and no successor can confirm the hold".to_owned(),
            },
        }
    }
}
