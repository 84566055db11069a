//! Follows the calls in etcd: arms the relay, recovers, adopts and restores calls, and sweeps abandoned ones.

use super::{CallsSide, Role, hash};
use crate::agent::part::Activity;
use crate::calls::model::{Call, CallEvent};
use crate::calls::store::{Keep, StoreEvent};
use crate::calls::sweep::Verdict;
use crate::config::Mode;
use crate::os::clock;
use crate::recovery::media::kernel::Wish;
use crate::recovery::recoverability;
use crate::time::{OnceAMinute, Time};
use std::collections::{BTreeSet, HashSet};
use tracing::{debug, info, warn};

/// Store events handled in one go, so that a thousand calls make one change of the relay.
const BATCH: usize = 1024;

/// When the limit on stored calls was last reported, and when the calls were last read again.
#[derive(Default)]
pub(super) struct LimitReports {
    told: OnceAMinute,
    read: OnceAMinute,
}

impl LimitReports {
    fn is_news(&mut self, left_out: usize, now: Time) -> bool {
        left_out > 0 && self.told.take(now)
    }

    fn may_read(&mut self, now: Time) -> bool {
        self.read.take(now)
    }
}

impl CallsSide {
    /// Settles the local server's former calls after this node became master again. A working server still has them, so
    /// the tracker learns them again. Otherwise the engine recovers them. Until the calls and the server's health are
    /// known, an armed relay keeps carrying their audio.
    pub(super) async fn settle_own(&mut self) {
        let (true, true, Some(working)) =
            (self.own_open && self.role == Role::Master, self.synced, self.server.working)
        else {
            return;
        };
        self.own_open = false;
        // The table already has the calls that the server began since.
        let learnt: BTreeSet<String> = self.table.calls().map(|c| c.id).collect();
        let own: Vec<Call> =
            self.stored.values().filter(|c| self.is_own(c) && !learnt.contains(&c.id)).cloned().collect();
        info!(instance = self.instance, calls = own.len(), working, "found stored calls of the local server");
        let now = clock::now();
        if working {
            for call in &own {
                self.table.adopt(call, now);
            }
            if !self.inherited {
                let none = |c: &Call| Wish { call: c.id.clone(), flows: Vec::new(), emergency: false };
                self.relay.set(own.iter().map(none).collect());
            }
        } else {
            self.expect(own, now);
        }
        self.carry_out().await;
        self.tell_forecast();
        self.look_for_orphans(now);
    }

    /// Whether a stored call is the local server's own, not carried by an agent.
    pub(super) fn is_own(&self, call: &Call) -> bool {
        call.node == self.node && call.legs.iter().all(|l| !l.carried)
    }

    /// Whether this master reads a former master's call only now. Such a call also needs recovery.
    pub(super) fn is_late(&self, call: &Call) -> bool {
        let before = call.epoch < self.epoch || !self.synced;
        before && !self.stored.contains(&call.id) && !(self.own_open && self.is_own(call))
    }

    /// Removes or adopts abandoned stored calls.
    pub(super) fn sweep(&mut self, now: Time) {
        // Former calls belong to nobody until the tracker or the engine has them.
        if self.role != Role::Master || !self.synced || self.own_open {
            return;
        }
        let learnt: HashSet<&str> = self.table.ids().collect();
        let carried = |id: &str| learnt.contains(id) || self.engine.carries(id);
        let verdicts = self.sweep.look(&self.stored, carried, now);
        let removed = verdicts.iter().filter(|v| matches!(v, Verdict::Remove(_))).count();
        if removed > 0 {
            info!(
                instance = self.instance,
                calls = removed,
                "removing stored calls that neither the server nor the agent carries any more"
            );
        }
        for verdict in verdicts {
            match verdict {
                Verdict::Adopt(id) => self.stored.get(&id).into_iter().for_each(|call| self.table.adopt(call, now)),
                Verdict::Remove(id) => self.store.apply(CallEvent::Delete {
                    id,
                    reason: "neither the server nor the agent carries the call any more",
                }),
            }
        }
        self.look_for_orphans(now);
    }

    /// Stores a call again that somebody else deleted or overwrote, if the call is still active here.
    pub(super) fn put_back(&mut self, id: &str) -> bool {
        let up = self.store_again(id);
        if up {
            warn!(
                instance = self.instance,
                call = id,
                "another etcd client deleted or changed this call; storing the call again"
            );
        }
        up
    }

    /// Stores a call again if it is still active here.
    fn store_again(&mut self, id: &str) -> bool {
        let call = match self.table.get(id) {
            Some(call) => Some(Box::new(call)),
            None if self.engine.carries(id) => self.stored.get(id).cloned().map(Box::new),
            None => None,
        };
        let Some(call) = call else { return false };
        self.store.apply(CallEvent::Put(call));
        true
    }

    /// Compares the calls after etcd was replaced by another one. Returns the ids of the calls that changed here.
    fn compare(&mut self, calls: Vec<Call>) -> Vec<String> {
        // Until the tracker or the engine has the former calls, this node cannot tell which stored calls are active.
        let sure = self.role == Role::Master && !self.own_open;
        let (missing, unknown) = self.stored.compare(calls, !sure);
        if !sure {
            return unknown;
        }
        warn!(
            instance = self.instance,
            missing = missing.len(),
            former = unknown.len(),
            "etcd was replaced or restored: storing the calls that are up again, and removing outdated calls"
        );
        for id in missing {
            if !self.store_again(&id) {
                self.stored.remove(&id);
            }
        }
        for id in unknown {
            self.store.apply(CallEvent::Delete { id, reason: "outdated call in a replaced or restored etcd" });
        }
        Vec::new()
    }

    pub(super) async fn follow(&mut self, first: StoreEvent) {
        let mut events = vec![first];
        while events.len() < BATCH {
            match self.store_events.try_recv() {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        let mut changed = Vec::new();
        let mut late = Vec::new();
        for event in events {
            match event {
                StoreEvent::Put { call, own } => {
                    let id = call.id.clone();
                    let foreign = self.role == Role::Master && !own;
                    if foreign && self.is_late(&call) {
                        late.push((*call).clone());
                    }
                    let spoiled = foreign && self.table.get(&id).is_some_and(|ours| ours.legs != call.legs);
                    self.stored.put(call);
                    if spoiled {
                        self.put_back(&id);
                    }
                    changed.push(id);
                }
                StoreEvent::Delete { id, own } => {
                    if self.role == Role::Backup || own || !self.put_back(&id) {
                        self.stored.remove(&id);
                        changed.push(id);
                    }
                }
                // A standby keeps its copy: the master writes the call again, and without a master this copy is the
                // best there is.
                StoreEvent::Spoiled { id } => {
                    if self.role == Role::Master {
                        self.put_back(&id);
                    }
                }
                StoreEvent::Synced { calls, keep: Keep::All } if self.synced => changed.extend(self.compare(calls)),
                StoreEvent::Synced { calls, keep } => {
                    changed.extend(self.stored.ids().map(str::to_owned));
                    changed.extend(calls.iter().map(|c| c.id.clone()));
                    if self.role == Role::Master {
                        late.extend(calls.iter().filter(|c| self.is_late(c)).cloned());
                    }
                    self.synced = true;
                    let gone = self.stored.replace(calls, |id| keep.has(id));
                    if self.role == Role::Master {
                        for call in gone {
                            let id = call.id.clone();
                            self.stored.put(call);
                            if !self.put_back(&id) {
                                self.stored.remove(&id);
                            }
                        }
                    }
                }
            }
        }
        match self.role {
            Role::Backup => self.arm(changed),
            Role::Master if late.is_empty() => {}
            Role::Master => {
                self.expect(late, clock::now());
                self.carry_out().await;
                self.tell_forecast();
            }
        }
        if self.synced {
            self.engine.set_complete();
        }
        let left_out = self.stored.left_out();
        if self.left_out.is_news(left_out, clock::now()) {
            warn!(
                instance = self.instance,
                left_out,
                "etcd has more calls than this node keeps, and this node would not recover the calls left out; raise \
                 max_calls"
            );
        }
        if self.stored.wants_reading() && self.left_out.may_read(clock::now()) {
            self.store.read_again();
        }
        self.own_relay();
        self.settle_own().await;
    }

    pub(super) fn arm_all(&self) {
        let all = self.stored.ids().map(str::to_owned).collect();
        self.arm(all);
    }

    /// Makes a standby's relay carry exactly the stored flows of these calls, if the mode allows it.
    pub(super) fn arm(&self, ids: Vec<String>) {
        let relays = self.mode.is_some_and(Mode::relays);
        self.turn.pulse.does(Activity::Recovery);
        let wishes = ids
            .into_iter()
            .filter(|id| self.turn.begins(hash(id.as_bytes())))
            .map(|id| {
                #[cfg(feature = "faults")]
                crate::faults::at_stored(&id);
                let call = self.stored.get(&id).filter(|_| relays);
                let emergency = call.is_some_and(|call| call.emergency);
                let paths = call.map(|call| recoverability::of(call, &self.ground).1).unwrap_or_default();
                if let Some(why) = recoverability::refusal(&paths) {
                    debug!(call = id, "{why}");
                }
                let flows = paths.flows;
                Wish { call: id, flows, emergency }
            })
            .collect();
        self.turn.ends();
        self.relay.set(wishes);
    }
}
