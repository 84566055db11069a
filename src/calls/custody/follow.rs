//! Follows the calls in etcd: a standby arms its relay for each, a master takes what it reads late, and puts back what
//! somebody else deleted or changed.

#[cfg(test)]
use super::Fault;
use super::{Action, Custody, Keepers, News, Role};
use crate::calls::model::{Call, CallEvent};
use crate::calls::store::{Keep, StoreEvent};
use crate::time::Time;
use std::collections::BTreeSet;

impl Custody {
    /// What the store reports, in order. Many events at a time, so that a thousand calls make one change of the relay.
    pub fn handle_stored(&mut self, events: Vec<StoreEvent>, keepers: &impl Keepers, now: Time) {
        let mut changed = Vec::new();
        let mut late = BTreeSet::new();
        for event in events {
            match event {
                StoreEvent::Put { call, own } => {
                    let id = call.id.clone();
                    // What this node wrote as master of a former time is as foreign to it as another node's call.
                    let foreign = self.role == Role::Master && (!own || call.epoch < self.epoch);
                    if foreign && self.is_spoiled(&call, keepers) {
                        self.put_back(&id, keepers);
                        continue;
                    }
                    if foreign && self.is_late(&call) {
                        late.insert(id.clone());
                    }
                    self.stored.put(call);
                    changed.push(id);
                }
                StoreEvent::Delete { id, own } => {
                    if self.believes_deletion(own) || !self.put_back(&id, keepers) {
                        self.stored.remove(&id);
                        changed.push(id);
                    }
                }
                // A standby keeps its copy: the master writes the call again, and without a master this copy is the
                // best there is.
                StoreEvent::Spoiled { id } => {
                    if self.role == Role::Master {
                        self.put_back(&id, keepers);
                    }
                }
                StoreEvent::Synced { calls, keep: Keep::All } if self.synced => {
                    changed.extend(self.compare(calls, keepers));
                }
                StoreEvent::Synced { calls, keep } => {
                    changed.extend(self.stored.ids().map(str::to_owned));
                    changed.extend(calls.iter().map(|c| c.id.clone()));
                    if self.role == Role::Master {
                        late.extend(calls.iter().filter(|c| self.is_late(c)).map(|c| c.id.clone()));
                    }
                    self.synced = true;
                    let gone = self.stored.replace(calls, |id| keep.has(id));
                    if self.role == Role::Master {
                        self.put_back_all(gone, keepers);
                    }
                }
            }
        }
        #[cfg(test)]
        if self.lacks(Fault::LateForgotten) {
            late.clear();
        }
        // In the newest state of each. One that is gone again needs nobody, and one that the server has needs no other.
        let open = late.iter().filter(|id| keepers.state(id).is_none());
        let late: Vec<Call> = open.filter_map(|id| self.stored.get(id)).cloned().collect();
        match self.role {
            Role::Backup => self.actions.push_back(Action::Arm(changed)),
            Role::Master if late.is_empty() => {}
            Role::Master => self.actions.push_back(Action::Recover(late)),
        }
        if self.synced {
            self.actions.push_back(Action::Complete);
        }
        self.look_at_limit(now);
        self.take_relay();
        self.settle_own(keepers);
    }

    /// Whether this master reads a former master's call only now. Such a call also needs recovery.
    fn is_late(&self, call: &Call) -> bool {
        let before = call.epoch < self.epoch || !self.synced;
        before && !self.stored.contains(&call.id) && !(self.own_open && self.is_own(call))
    }

    /// Whether somebody who may not has written this state of a call that is active here. A former master's last writes
    /// come before ours, because etcd refuses them afterwards.
    fn is_spoiled(&self, call: &Call, keepers: &impl Keepers) -> bool {
        #[cfg(test)]
        if self.lacks(Fault::StrangersBelieved) {
            return false;
        }
        let ours = |held: &Call| held.node == self.node && held.epoch == self.epoch;
        keepers.state(&call.id).is_some_and(|state| state.legs != call.legs)
            || (keepers.carries(&call.id) && self.stored.get(&call.id).is_some_and(ours))
    }

    /// Whether a call that was deleted is over: whoever deleted it was the one who may.
    fn believes_deletion(&self, own: bool) -> bool {
        #[cfg(test)]
        if self.lacks(Fault::DeletionBelieved) {
            return true;
        }
        own || self.role == Role::Backup
    }

    fn put_back_all(&mut self, gone: impl IntoIterator<Item = Box<Call>>, keepers: &impl Keepers) {
        for call in gone {
            let id = call.id.clone();
            // The engine's calls are stored as they are here.
            self.stored.put(call);
            if !self.put_back(&id, keepers) {
                self.stored.remove(&id);
            }
        }
    }

    /// Stores a call again that somebody else deleted or overwrote, if the call is still active here.
    fn put_back(&mut self, id: &str, keepers: &impl Keepers) -> bool {
        let up = self.store_again(id, keepers);
        if up {
            self.tell(News::PutBack { call: id.to_owned() });
        }
        up
    }

    /// Stores a call again if it is still active here.
    fn store_again(&mut self, id: &str, keepers: &impl Keepers) -> bool {
        let call = match keepers.state(id) {
            Some(call) => Some(Box::new(call)),
            None if keepers.carries(id) => self.stored.get(id).cloned().map(Box::new),
            None => None,
        };
        let Some(call) = call else { return false };
        self.actions.push_back(Action::Store(CallEvent::Put(call)));
        true
    }

    /// Compares the calls after etcd was replaced by another one. Returns the ids of the calls that changed here.
    fn compare(&mut self, calls: Vec<Call>, keepers: &impl Keepers) -> Vec<String> {
        // Until the tracker or the engine has the former calls, this node cannot tell which stored calls are active.
        let sure = self.role == Role::Master && !self.own_open;
        let (missing, unknown) = self.stored.compare(calls, !sure);
        if !sure {
            return unknown;
        }
        self.tell(News::Replaced { missing: missing.len(), former: unknown.len() });
        for id in missing {
            if !self.store_again(&id, keepers) {
                self.stored.remove(&id);
            }
        }
        for id in unknown {
            self.remove(id, "outdated call in a replaced or restored etcd");
        }
        Vec::new()
    }

    fn look_at_limit(&mut self, now: Time) {
        let calls = self.stored.left_out();
        if calls > 0 && self.left_out_told.take(now) {
            self.tell(News::LeftOut { calls });
        }
        if self.stored.wants_reading() && self.read_again.take(now) {
            self.actions.push_back(Action::ReadAgain);
        }
    }
}
