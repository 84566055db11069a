//! A master's work: heartbeats, membership, arming a successor, handing over.

use super::rights::Held;
use super::{Election, Unless};
use crate::cluster::election::types::{Action, Candidate, HandoverReason, Kind};
use crate::cluster::record::Record;
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Part of `hold` after which a silent successor is replaced: late enough for a lost heartbeat, early enough for the
/// transaction to finish within the hold.
const PATIENCE: f64 = 0.6;
/// First hold-down of a master that changed too often: longer than a server's start, so that its health shows.
const HOLD_DOWN: Duration = Duration::from_secs(10);
/// Holds between two heartbeats of a master without a right that hears no node. A promise binds its sender for one
/// hold, by any clock.
const UNHEARD_PAUSE: u32 = 2;
/// A node heard within this time is not gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

/// A master's heartbeats and its comparison with the others. `lead.rs` changes it. It starts again with a new
/// epoch (`learning.rs`) and after a stall (`rights.rs`); `follow.rs` paces its claims by `next_beat`.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct Leading {
    /// Since when this node has been master by the record.
    pub(super) since: Time,
    /// Numbers and send times of the last heartbeats.
    pub(in crate::cluster::election) sent: VecDeque<(u64, Time)>,
    /// Number of the last heartbeat.
    pub(in crate::cluster::election) beat: u64,
    pub(super) next_beat: Time,
    /// The node that is better than this one, and since when.
    pub(super) better_since: Option<(String, Time)>,
}

impl Leading {
    pub(super) const fn new(now: Time) -> Self {
        Self { since: now, sent: VecDeque::new(), beat: 0, next_beat: now, better_since: None }
    }
}

/// The progress of a handover. `lead.rs` changes the old master's part, `follow.rs` the new one's. `messages.rs` enters
/// what the other node says, `machine.rs` what the agent has released, and `rights.rs` gives up.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster::election) struct Handover {
    /// When this node began to claim.
    pub(super) claim_at: Option<Time>,
    /// The highest epoch that another node has claimed.
    pub(super) claimed: Option<u64>,
    /// The highest epoch whose addresses the agent has confirmed as down.
    pub(super) released: Option<u64>,
    /// The handover into this epoch is complete: the old master has let go, or its promises ran out.
    pub(super) go_ok: Option<u64>,
    /// The handover into this epoch is complete: this node has let go.
    pub(super) gone_epoch: Option<u64>,
}

impl Election {
    pub(in crate::cluster::election) fn lead(&mut self, r: &Arc<Record>, now: Time) {
        if self.requests.ticket.is_none() {
            return;
        }
        if self.wishes.stopping && self.right.held.is_none() {
            self.answer_switch(now);
            return;
        }
        // Each node that receives a heartbeat is bound by it. So a master that cannot hold stays silent once a
        // successor is armed, which takes over on that silence.
        if !self.node.ready && self.right.held.is_none() && r.successor.is_some() {
            return;
        }
        self.beat(r.epoch, now);
        // Without a successor the right ends some time after the last read, so a proposal on an old one could end a
        // hold. Reads go on until one succeeds.
        if !self.has_read_lately(now) || !self.may_propose(now) {
            return;
        }
        if !self.alive_is_ours(r) || self.etcd.revision == 0 {
            self.propose(Arc::clone(r), Unless::Other, false, now);
            return;
        }
        if self.wishes.parking && !self.wishes.stopping {
            if r.successor.is_some() {
                self.propose(Record { successor: None, handover: None, ..(**r).clone() }, Unless::Other, false, now);
            }
            return;
        }
        if let Some((to, wish, reason)) = self.wants_handover(r, now) {
            let flaps = match wish {
                HandoverReason::Operator => 0,
                HandoverReason::Stop => r.flaps,
                HandoverReason::Unfit | HandoverReason::Preempt | HandoverReason::Settings => self.flaps(r, now),
            };
            let next = Record {
                epoch: r.epoch + 1,
                master: to,
                successor: None,
                handover: Some(self.s.me.clone()),
                since_ms: 0,
                reason,
                flaps,
                // Keep the terms: we count by them until the next master has claimed and we have let go.
                terms: r.terms.or(Some(self.s.reported.terms)),
                ..(**r).clone()
            };
            self.propose(next, Unless::Other, !matches!(wish, HandoverReason::Operator | HandoverReason::Stop), now);
            return;
        }
        if self.wishes.stopping {
            self.let_go("the agent is stopping, and no fit node can take over at once");
            return;
        }
        let next = if self.agrees(r) { self.better_record(r, now) } else { self.estranged_record(r) };
        if let Some((next, gone)) = self.without_forgotten(r, now) {
            self.propose(next, Unless::Up(gone), false, now);
        } else if let Some(next) = next {
            self.propose(next, Unless::Other, false, now);
        }
    }

    /// Builds the record without the member that an operator wants forgotten, and returns that member. As a member it
    /// could take over slowly, and failsafe would need its ack. It must be gone, because a living node would be
    /// admitted again at once.
    fn without_forgotten(&mut self, r: &Record, now: Time) -> Option<(Record, String)> {
        let node = self.wishes.forget.clone()?;
        let key = self.etcd.view.as_ref().is_some_and(|v| v.nodes.contains(&node));
        let heard = self.peers.get(&node).and_then(|p| p.heard).is_some_and(|t| now < t + FORGOTTEN_AFTER);
        if !r.members.contains(&node) {
            // Either our own transaction succeeded, or the name was never a member.
            let known = self.wishes.forgot.as_ref() == Some(&node);
            self.answer_forget(if known { Ok(()) } else { Err(format!("{node} is not a member")) });
            return None;
        }
        let up = key || heard;
        #[cfg(test)]
        let up = up && !self.broken(crate::cluster::election::types::Fault::ForgetLiving);
        if node == self.s.me || r.successor.as_deref() == Some(&node) || up {
            self.answer_forget(Err(format!("{node} is up: stop its agent, and wait until its lease has expired")));
            return None;
        }
        self.wishes.forgot = Some(node.clone());
        let members = r.members.iter().filter(|m| **m != node).cloned().collect();
        let addresses = r.addresses.iter().filter(|(m, _)| **m != node).map(|(m, a)| (m.clone(), *a)).collect();
        Some((Record { members, addresses, handover: None, ..r.clone() }, node))
    }

    pub(in crate::cluster::election) fn answer_forget(&mut self, answer: Result<(), String>) {
        if self.wishes.forget.take().is_some() {
            self.wishes.forgot = None;
            self.push(Action::Forgot(answer));
        }
    }

    /// Number of quick automatic changes, including one now.
    pub(in crate::cluster::election) fn flaps(&self, r: &Record, now: Time) -> u32 {
        if now < self.etcd.epoch_since + self.s.flap_window { r.flaps.saturating_add(1) } else { 1 }
    }

    /// End of the hold-down for a deferrable change: the wait doubles with each quick change beyond the budget. A dead
    /// master is always replaced at once.
    #[must_use]
    pub fn held_down(&self) -> Option<Time> {
        let beyond = self.etcd.record.as_ref()?.flaps.checked_sub(self.s.flap_budget)?;
        let wait = HOLD_DOWN.saturating_mul(2_u32.saturating_pow(beyond)).min(self.s.flap_window);
        Some(self.etcd.epoch_since + wait)
    }

    fn let_go(&mut self, why: &str) {
        if let Some(h) = self.right.held.take() {
            self.push(Action::Drop { epoch: h.epoch, reason: why.to_owned(), handover: false });
        }
    }

    /// After [`Election::stop`], at the time-out: lets go of any hold, even in mid-handover.
    pub fn stop_at_once(&mut self, now: Time) {
        self.wishes.stopping = true;
        if self.right.held.is_some_and(|h| h.dropping) {
            self.right.held = None;
        }
        self.let_go("the agent is stopping, and the handover did not end in time");
        self.handle_timeout(now);
    }

    /// Sends heartbeats to every node, at exact intervals.
    ///
    /// A host may be heard and hear nothing itself. Each node that hears it acks and is bound by that. So a master that
    /// has lost its right and hears no node leaves pauses, in which its successor's promise runs out.
    fn beat(&mut self, epoch: u64, now: Time) {
        let heard = |t: Time| now < t + self.s.hold;
        // A master that has just begun to send has given its peers no time to answer.
        let begun = !heard(self.leading.since);
        let unheard = begun && self.right.held.is_none() && !self.peers.values().any(|p| p.heard.is_some_and(heard));
        let due = if unheard {
            self.leading.next_beat + self.bound_hold().max(self.s.hold) * UNHEARD_PAUSE
        } else {
            self.leading.next_beat
        };
        if now >= due {
            self.leading.next_beat = now + self.s.heartbeat;
            self.leading.beat += 1;
            self.leading.sent.push_back((self.leading.beat, now));
            if self.leading.sent.len() > super::REMEMBERED_BEATS {
                self.leading.sent.pop_front();
            }
            for i in 0..self.others.len() {
                self.send(
                    Arc::clone(&self.others[i]),
                    Kind::Beat { beat: self.leading.beat, boot: self.s.boot },
                    epoch,
                );
            }
        }
        // Wake for the next heartbeat or the end of the pause; `wake_at` ignores times in the past.
        self.wake_at(self.leading.next_beat);
        self.wake_at(due);
    }

    pub(in crate::cluster::election) fn may_propose(&mut self, now: Time) -> bool {
        if self.requests.inflight.is_some()
            || self.requests.doubt
            || self.requests.ticket.is_none()
            || self.etcd.unreadable.is_some()
        {
            return false;
        }
        if now < self.requests.propose_not_before {
            self.wake_at(self.requests.propose_not_before);
            return false;
        }
        // Without a valid lease etcd would refuse the transaction, or its right would be void.
        self.node.lease.is_some_and(|l| now < l.until)
    }

    fn patience(&self) -> Duration {
        self.etcd.record.as_ref().map_or(self.s.hold, |r| self.counted(r)).mul_f64(PATIENCE)
    }

    /// When this peer counts as silent.
    fn silent_at(&self, node: &str) -> Time {
        let vouched = self.peers.get(node).and_then(|p| p.vouched).unwrap_or(self.leading.since);
        vouched.max(self.leading.since) + self.patience()
    }

    /// Whether the node answers and vouches now, and has the instance's addresses.
    fn live(&self, node: &str, now: Time) -> bool {
        let vouches = self.peers.get(node).and_then(|p| p.vouched).is_some_and(|t| now < t + self.patience());
        vouches && self.etcd.record.as_ref().is_none_or(|r| self.has_vips_of(node, r))
    }

    /// The best node that answers and vouches: by fitness, then priority, then name (so that all nodes agree).
    fn best<'a>(&self, nodes: impl Iterator<Item = &'a String>, now: Time) -> Option<&'a String> {
        let live = nodes.filter(|n| **n != self.s.me && self.live(n, now));
        live.min_by_key(|n| (self.peers.get(*n).map(|p| Reverse((p.fit, p.priority))), *n))
    }

    /// Builds a record with another successor, more members or new settings, if the present one should change.
    fn better_record(&mut self, r: &Record, now: Time) -> Option<Record> {
        let next =
            |successor: Option<&String>| Some(Record { successor: successor.cloned(), ..self.with_own_terms(r) });
        let best = || self.best(r.members.iter(), now);
        let fit = |n: &str| self.peers.get(n).is_some_and(|p| p.fit);
        match &r.successor {
            Some(s) if now >= self.silent_at(s) || !self.has_vips_of(s, r) => return next(best()),
            Some(s) => {
                // Right after a restart, others may answer before the successor does, and its server's state is
                // unknown.
                let heard = self.peers.get(s).is_some_and(|p| p.heard.is_some());
                let better = (heard && !fit(s)).then(best).flatten().filter(|b| fit(b));
                if better.is_some() {
                    return next(better);
                }
                let at = self.silent_at(s);
                self.wake_at(at);
            }
            None => {
                if let Some(b) = best() {
                    return next(Some(b));
                }
            }
        }
        let new = || self.others.iter().filter(|n| !r.members.iter().any(|m| **m == ***n) && self.live(n, now));
        if new().next().is_none() {
            // A new record would end an inherited right; our own right soon replaces it.
            let differs = r.terms != Some(self.s.reported.terms) || r.vips != self.s.vips;
            return (differs && self.right.inherited.is_none()).then(|| self.with_own_terms(r));
        }
        let mut members = r.members.clone();
        members.extend(new().map(|n| n.as_ref().to_owned()));
        members.sort();
        Some(Record { members, ..self.with_own_terms(r) })
    }

    /// Why a node may not take over from us now.
    pub(in crate::cluster::election) fn against(&self, node: &str, now: Time) -> Option<String> {
        let member = self.etcd.record.as_ref().is_some_and(|r| r.members.iter().any(|m| m == node));
        match self.peers.get(node) {
            _ if node == self.s.me => Some("is already the master".into()),
            None => {
                Some("was never heard: check that its agent is up, its UDP port open, and its key_file the same".into())
            }
            Some(p) if p.acked.is_none_or(|t| now >= t + self.patience()) => Some("does not answer heartbeats".into()),
            Some(_) if self.etcd.record.as_ref().is_some_and(|r| !self.has_vips_of(node, r)) => {
                Some("has different addresses for this instance: `keepcall status` shows the difference".into())
            }
            Some(_) if !member => Some("is not a member yet".into()),
            Some(_) if !self.live(node, now) => Some("has no valid lease in etcd".into()),
            Some(p) if !p.fit => Some("is not fit: a fatal check fails on that node".into()),
            Some(_) => None,
        }
    }

    fn answer_switch(&mut self, now: Time) {
        if self.wishes.switch.take().is_some() {
            let why = self.candidates(now);
            self.push(Action::Switched(Err(why)));
        }
    }

    /// The node that should be master in our place, and why.
    fn wants_handover(&mut self, r: &Record, now: Time) -> Option<(String, HandoverReason, String)> {
        // Without a hold there is no handover, unless our addresses forbid us to hold.
        if self.right.held.is_none() {
            self.answer_switch(now);
            if self.agrees(r) || self.paused().is_some() {
                return None;
            }
            // Even an unfit node will do: an address on a sick server is better than none.
            let to = self.best(r.members.iter(), now)?.clone();
            return Some((
                to,
                HandoverReason::Settings,
                format!("{} has different addresses for this instance", self.s.me),
            ));
        }
        let unfit = !self.node.fit && self.node.fit_known;
        if self.wishes.switch.is_none() && !self.wishes.stopping && !unfit && !self.s.preempt {
            return None;
        }
        let able = r.members.iter().filter(|n| self.against(n, now).is_none());
        let best = self.best(able, now);
        if let Some(to) = self.wishes.switch.clone() {
            let to = to.or_else(|| best.cloned());
            return match to.filter(|n| self.against(n, now).is_none()) {
                Some(n) => Some((n, HandoverReason::Operator, "switchover by an operator".into())),
                None => {
                    let mut why = self.candidates(now);
                    // Name an unknown node too: it is most likely a typing error.
                    if let Some(Some(n)) = self
                        .wishes
                        .switch
                        .take()
                        .filter(|n| n.as_ref().is_some_and(|n| why.iter().all(|c| c.node != *n)))
                    {
                        let against = Some(self.against(&n, now).unwrap_or_default());
                        why.insert(0, Candidate { node: n, against });
                    }
                    self.push(Action::Switched(Err(why)));
                    None
                }
            };
        }
        let best = best?;
        if self.wishes.stopping {
            return Some((best.clone(), HandoverReason::Stop, format!("the agent on {} is stopping", self.s.me)));
        }
        if self.paused().is_some() {
            return None;
        }
        if let Some(at) = self.held_down().filter(|at| now < *at) {
            self.wake_at(at);
            return None;
        }
        if unfit {
            return Some((best.clone(), HandoverReason::Unfit, format!("a fatal check failed on {}", self.s.me)));
        }
        let better = self.peers.get(best).is_some_and(|p| p.priority > self.node.priority);
        if !self.s.preempt || !better {
            self.leading.better_since = None;
            return None;
        }
        let since = match &self.leading.better_since {
            Some((n, t)) if n == best => *t,
            _ => self.leading.better_since.insert((best.clone(), now)).1,
        };
        let due = since + self.s.preempt_delay;
        if now < due {
            self.wake_at(due);
            return None;
        }
        self.leading.better_since = None;
        let reason = format!("{best} has a higher priority");
        Some((best.clone(), HandoverReason::Preempt, reason))
    }

    /// The record already names the next master. We hold on its acks until it has claimed and the agent has let go.
    pub(in crate::cluster::election) fn hand_over(&mut self, r: &Record, now: Time) {
        if self.wishes.switch.take().is_some() {
            self.push(Action::Switched(Ok(r.epoch)));
        }
        let old = r.epoch.saturating_sub(1);
        let Some(h) = self.right.held else {
            // The hold ran out on the way: the new master waits for exactly that.
            self.handover.gone_epoch = Some(r.epoch);
            return;
        };
        self.beat(old, now);
        if self.handover.claimed < Some(r.epoch) {
            return;
        }
        if !h.dropping {
            self.right.held = Some(Held { dropping: true, ..h });
            self.push(Action::Drop {
                epoch: h.epoch,
                reason: format!("handed over to {}: {}", r.master, r.reason),
                handover: true,
            });
        }
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::GoEarly) {
            let to = self.known(&r.master);
            self.send(to, Kind::Go, r.epoch);
            return;
        }
        if self.handover.released >= Some(h.epoch) {
            self.handover.gone_epoch = Some(r.epoch);
            self.right.held = None;
            let to = self.known(&r.master);
            self.send(to, Kind::Go, r.epoch);
        }
    }
}
