//! A master's work: heartbeats, membership, arming a successor, handing over.

use super::{Election, Unless};
use crate::cluster::election::types::{Action, Candidate, Kind, Wish};
use crate::cluster::record::Record;
use crate::time::Time;
use std::cmp::Reverse;
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

impl Election {
    pub(in crate::cluster::election) fn lead(&mut self, r: &Arc<Record>, now: Time) {
        if self.ticket.is_none() {
            return;
        }
        if self.stopping && self.held.is_none() {
            self.answer_switch(now);
            return;
        }
        // Each node that receives a heartbeat is bound by it. So a master that cannot hold stays silent once a
        // successor is armed, which takes over on that silence.
        if !self.ready && self.held.is_none() && r.successor.is_some() {
            return;
        }
        self.beat(r.epoch, now);
        if !self.may_propose(now) {
            return;
        }
        if !self.alive_is_ours(r) || self.revision == 0 {
            self.propose(Arc::clone(r), Unless::Other, false, now);
            return;
        }
        if self.parking && !self.stopping {
            if r.successor.is_some() {
                self.propose(Record { successor: None, handover: None, ..(**r).clone() }, Unless::Other, false, now);
            }
            return;
        }
        if let Some((to, wish, reason)) = self.wants_handover(r, now) {
            let flaps = match wish {
                Wish::Operator => 0,
                Wish::Stop => r.flaps,
                Wish::Unfit | Wish::Preempt | Wish::Settings => self.flaps(r, now),
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
                terms: r.terms.or(Some(self.s.told.terms)),
                ..(**r).clone()
            };
            self.propose(next, Unless::Other, !matches!(wish, Wish::Operator | Wish::Stop), now);
            return;
        }
        if self.stopping {
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
        let node = self.forget.clone()?;
        let key = self.view.as_ref().is_some_and(|v| v.nodes.contains(&node));
        let heard = self.peers.get(&node).and_then(|p| p.heard).is_some_and(|t| now < t + FORGOTTEN_AFTER);
        if !r.members.contains(&node) {
            // Either our own transaction succeeded, or the name was never a member.
            let known = self.forgot.as_ref() == Some(&node);
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
        self.forgot = Some(node.clone());
        let members = r.members.iter().filter(|m| **m != node).cloned().collect();
        let addresses = r.addresses.iter().filter(|(m, _)| **m != node).map(|(m, a)| (m.clone(), *a)).collect();
        Some((Record { members, addresses, handover: None, ..r.clone() }, node))
    }

    pub(in crate::cluster::election) fn answer_forget(&mut self, answer: Result<(), String>) {
        if self.forget.take().is_some() {
            self.forgot = None;
            self.push(Action::Forgot(answer));
        }
    }

    /// Number of quick automatic changes, including one now.
    pub(in crate::cluster::election) fn flaps(&self, r: &Record, now: Time) -> u32 {
        if now < self.epoch_since + self.s.flap_window { r.flaps.saturating_add(1) } else { 1 }
    }

    /// End of the hold-down for a deferrable change: the wait doubles with each quick change beyond the budget. A dead
    /// master is always replaced at once.
    #[must_use]
    pub fn held_down(&self) -> Option<Time> {
        let beyond = self.record.as_ref()?.flaps.checked_sub(self.s.flap_budget)?;
        let wait = HOLD_DOWN.saturating_mul(2_u32.saturating_pow(beyond)).min(self.s.flap_window);
        Some(self.epoch_since + wait)
    }

    fn let_go(&mut self, why: &str) {
        if let Some(h) = self.held.take() {
            self.push(Action::Drop { epoch: h.epoch, reason: why.to_owned(), handover: false });
        }
    }

    /// After [`Election::stop`], at the time-out: lets go of any hold, even in mid-handover.
    pub fn stop_at_once(&mut self, now: Time) {
        self.stopping = true;
        if self.held.is_some_and(|h| h.dropping) {
            self.held = None;
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
        let begun = !heard(self.lead_since);
        let unheard = begun && self.held.is_none() && !self.peers.values().any(|p| p.heard.is_some_and(heard));
        let due =
            if unheard { self.next_beat + self.bound_hold().max(self.s.hold) * UNHEARD_PAUSE } else { self.next_beat };
        if now >= due {
            self.next_beat = now + self.s.heartbeat;
            self.beat += 1;
            self.sent.push_back((self.beat, now));
            if self.sent.len() > super::REMEMBERED_BEATS {
                self.sent.pop_front();
            }
            for i in 0..self.others.len() {
                self.send(Arc::clone(&self.others[i]), Kind::Beat { beat: self.beat, boot: self.s.boot }, epoch);
            }
        }
        // Wake for the next heartbeat or the end of the pause; `wake_at` ignores times in the past.
        self.wake_at(self.next_beat);
        self.wake_at(due);
    }

    pub(in crate::cluster::election) fn may_propose(&mut self, now: Time) -> bool {
        if self.inflight.is_some() || self.doubt || self.ticket.is_none() || self.unreadable.is_some() {
            return false;
        }
        if now < self.propose_not_before {
            self.wake_at(self.propose_not_before);
            return false;
        }
        // Without a valid lease etcd would refuse the transaction, or its right would be void.
        self.lease.is_some_and(|l| now < l.until)
    }

    fn patience(&self) -> Duration {
        self.record.as_ref().map_or(self.s.hold, |r| self.counted(r)).mul_f64(PATIENCE)
    }

    /// When this peer counts as silent.
    fn silent_at(&self, node: &str) -> Time {
        let vouched = self.peers.get(node).and_then(|p| p.vouched).unwrap_or(self.lead_since);
        vouched.max(self.lead_since) + self.patience()
    }

    /// Whether the node answers and vouches now, and has the instance's addresses.
    fn live(&self, node: &str, now: Time) -> bool {
        let vouches = self.peers.get(node).and_then(|p| p.vouched).is_some_and(|t| now < t + self.patience());
        vouches && self.record.as_ref().is_none_or(|r| self.has_vips_of(node, r))
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
            let differs = r.terms != Some(self.s.told.terms) || r.vips != self.s.vips;
            return (differs && self.inherited.is_none()).then(|| self.with_own_terms(r));
        }
        let mut members = r.members.clone();
        members.extend(new().map(|n| n.as_ref().to_owned()));
        members.sort();
        Some(Record { members, ..self.with_own_terms(r) })
    }

    /// Why a node may not take over from us now.
    pub(in crate::cluster::election) fn against(&self, node: &str, now: Time) -> Option<String> {
        let member = self.record.as_ref().is_some_and(|r| r.members.iter().any(|m| m == node));
        match self.peers.get(node) {
            _ if node == self.s.me => Some("is already the master".into()),
            None => {
                Some("was never heard: check that its agent is up, its UDP port open, and its key_file the same".into())
            }
            Some(p) if p.acked.is_none_or(|t| now >= t + self.patience()) => Some("does not answer heartbeats".into()),
            Some(_) if self.record.as_ref().is_some_and(|r| !self.has_vips_of(node, r)) => {
                Some("has different addresses for this instance: `keepcall status` shows the difference".into())
            }
            Some(_) if !member => Some("is not a member yet".into()),
            Some(_) if !self.live(node, now) => Some("has no valid lease in etcd".into()),
            Some(p) if !p.fit => Some("is not fit: a fatal check fails on that node".into()),
            Some(_) => None,
        }
    }

    fn answer_switch(&mut self, now: Time) {
        if self.switch.take().is_some() {
            let why = self.candidates(now);
            self.push(Action::Switched(Err(why)));
        }
    }

    /// The node that should be master in our place, and why.
    fn wants_handover(&mut self, r: &Record, now: Time) -> Option<(String, Wish, String)> {
        // Without a hold there is no handover, unless our addresses forbid us to hold.
        if self.held.is_none() {
            self.answer_switch(now);
            if self.agrees(r) || self.paused().is_some() {
                return None;
            }
            // Even an unfit node will do: an address on a sick server is better than none.
            let to = self.best(r.members.iter(), now)?.clone();
            return Some((to, Wish::Settings, format!("{} has different addresses for this instance", self.s.me)));
        }
        let unfit = !self.fit && self.fit_known;
        if self.switch.is_none() && !self.stopping && !unfit && !self.s.preempt {
            return None;
        }
        let able = r.members.iter().filter(|n| self.against(n, now).is_none());
        let best = self.best(able, now);
        if let Some(to) = self.switch.clone() {
            let to = to.or_else(|| best.cloned());
            return match to.filter(|n| self.against(n, now).is_none()) {
                Some(n) => Some((n, Wish::Operator, "switchover by an operator".into())),
                None => {
                    let mut why = self.candidates(now);
                    // Name an unknown node too: it is most likely a typing error.
                    if let Some(Some(n)) =
                        self.switch.take().filter(|n| n.as_ref().is_some_and(|n| why.iter().all(|c| c.node != *n)))
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
        if self.stopping {
            return Some((best.clone(), Wish::Stop, format!("the agent on {} is stopping", self.s.me)));
        }
        if self.paused().is_some() {
            return None;
        }
        if let Some(at) = self.held_down().filter(|at| now < *at) {
            self.wake_at(at);
            return None;
        }
        if unfit {
            return Some((best.clone(), Wish::Unfit, format!("a fatal check failed on {}", self.s.me)));
        }
        let better = self.peers.get(best).is_some_and(|p| p.priority > self.priority);
        if !self.s.preempt || !better {
            self.better_since = None;
            return None;
        }
        let since = match &self.better_since {
            Some((n, t)) if n == best => *t,
            _ => self.better_since.insert((best.clone(), now)).1,
        };
        let due = since + self.s.preempt_delay;
        if now < due {
            self.wake_at(due);
            return None;
        }
        self.better_since = None;
        let reason = format!("{best} has a higher priority");
        Some((best.clone(), Wish::Preempt, reason))
    }

    /// The record already names the next master. We hold on its acks until it has claimed and the agent has let go.
    pub(in crate::cluster::election) fn hand_over(&mut self, r: &Record, now: Time) {
        if self.switch.take().is_some() {
            self.push(Action::Switched(Ok(r.epoch)));
        }
        let old = r.epoch.saturating_sub(1);
        let Some(h) = self.held else {
            // The hold ran out on the way: the new master waits for exactly that.
            self.gone_epoch = Some(r.epoch);
            return;
        };
        self.beat(old, now);
        if self.claimed < Some(r.epoch) {
            return;
        }
        if !h.dropping {
            self.held = Some(super::Held { dropping: true, ..h });
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
        if self.released >= Some(h.epoch) {
            self.gone_epoch = Some(r.epoch);
            self.held = None;
            let to = self.known(&r.master);
            self.send(to, Kind::Go, r.epoch);
        }
    }
}
