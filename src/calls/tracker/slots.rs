//! Slots of the legs: how legs arrive, change, give way and are forgotten.

use super::leg::{Effect, Known, Tracked};
use super::room::{Footprint, Stage};
use super::{LegEvent, LegId, MAX_SAME_CALL_ID, RECHECK, Slot, Tracker};
use crate::calls::model::LegState;
use crate::time::Time;
use std::cmp::Reverse;

/// The server did not answer the leg, and newer ones came.
const GAVE_WAY: &str = "forgotten: too many calls wait for an answer";
/// The server answered the leg, but too many others are up.
const NO_ROOM: &str = "not learnt: too many calls are up";
/// Most timer heap entries per slot, stale ones included. Beyond it the stale ones are removed.
const STALE: usize = 4;

impl Tracker {
    /// Whether one more leg with this Call-ID can be learnt. An ended or claimed leg makes room.
    pub(super) fn has_place(&mut self, hash: u64) -> bool {
        let all = self.by_call_id.get(&hash).map_or(&[][..], |all| all);
        if all.len() < MAX_SAME_CALL_ID {
            return true;
        }
        let told = |slot: u32| !self.events.iter().any(|e| matches!(e, LegEvent::Ended(id, _) if id.slot == slot));
        let spare =
            |slot: &&u32| matches!(self.room.stage(**slot), Some(Stage::Claimed | Stage::Ended)) && told(**slot);
        match all.iter().find(spare).copied() {
            Some(slot) => self.forget(slot),
            None => return false,
        }
        true
    }

    pub(super) fn insert(&mut self, hash: u64, tracked: Tracked) -> LegId {
        let expiry = tracked.expiry(self.silence).min(tracked.life.last + RECHECK);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, hash, armed: expiry, tracked: None });
            // No machine has memory for more than 2^32 legs.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let s = &mut self.slots[slot as usize];
        s.hash = hash;
        s.armed = expiry;
        s.tracked = Some(Box::new(tracked));
        let generation = s.generation;
        self.by_call_id.entry(hash).or_default().push(slot);
        self.arm(expiry, slot, generation);
        LegId { slot, generation }
    }

    fn arm(&mut self, at: Time, slot: u32, generation: u32) {
        self.timers.push(Reverse((at, slot, generation)));
        if self.timers.len() > STALE * self.slots.len() + RECHECK.as_secs() as usize {
            let slots = &self.slots;
            let counts = |at: Time, slot: u32, generation: u32| {
                slots
                    .get(slot as usize)
                    .is_some_and(|s| s.generation == generation && s.armed == at && s.tracked.is_some())
            };
            self.timers.retain(|Reverse((at, slot, generation))| counts(*at, *slot, *generation));
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else { return };
        let Some(old) = s.tracked.take() else { return };
        s.generation = s.generation.wrapping_add(1);
        self.doubted -= usize::from(old.is_doubted());
        self.room.leave(slot);
        if let Some(list) = self.by_call_id.get_mut(&s.hash) {
            list.retain(|x| *x != slot);
            if list.is_empty() {
                self.by_call_id.remove(&s.hash);
            }
        }
        self.free.push(slot);
    }

    /// Assigns room to the leg, and evicts legs that no longer have room. False if that is this leg itself.
    pub(super) fn settle_in(&mut self, slot: u32, now: Time) -> bool {
        let Some(t) = self.tracked(slot) else { return false };
        let footprint = t.footprint();
        let Footprint { stage, urgent, .. } = footprint;
        let before = self.room.stage(slot);
        self.room.put(slot, footprint);
        if stage.is_answered() {
            if !before.is_some_and(Stage::is_answered) {
                while self.room.is_full(urgent) {
                    let other = self.room.ringing(urgent).filter(|other| *other != slot);
                    self.counters.no_room += 1;
                    self.give_way(other.unwrap_or(slot), NO_ROOM, now);
                    if other.is_none() {
                        return false;
                    }
                }
            }
            if self.room.is_heavy() {
                self.cut(slot);
            }
            return true;
        }
        if stage == Stage::Waiting {
            while let Some(long) = self.room.long_winded() {
                if !self.cut(long) {
                    break;
                }
            }
        }
        while let Some(other) = self.room.displaced(stage, urgent) {
            if stage == Stage::Waiting {
                self.counters.gave_way += 1;
                self.give_way(other, GAVE_WAY, now);
            } else {
                self.forget(other);
            }
            if other == slot {
                return false;
            }
        }
        true
    }

    /// Evicts a leg that has not ended.
    fn give_way(&mut self, slot: u32, reason: &'static str, now: Time) {
        self.counters.not_learnt += 1;
        self.lost = Some(now);
        let Some(id) = self.id(slot) else { return };
        let Some(t) = self.slots.get_mut(slot as usize).and_then(|s| s.tracked.as_deref_mut()) else { return };
        self.doubted -= usize::from(t.is_doubted());
        t.life.last = now;
        t.end(reason);
        t.slim();
        let footprint = t.footprint();
        self.events.push_back(LegEvent::Ended(id, reason));
        self.room.put(slot, footprint);
        self.rearm(slot);
        while let Some(oldest) = self.room.displaced(Stage::Ended, footprint.urgent) {
            self.forget(oldest);
        }
    }

    /// Drops the long descriptions of a leg. False if there are none.
    fn cut(&mut self, slot: u32) -> bool {
        let Some(id) = self.id(slot) else { return false };
        let Some(t) = self.slots.get_mut(slot as usize).and_then(|s| s.tracked.as_deref_mut()) else { return false };
        if !t.cut() {
            return false;
        }
        self.counters.cut += 1;
        let footprint = t.footprint();
        if footprint.stage == Stage::Up {
            self.events.push_back(LegEvent::Changed(id));
        }
        self.room.put(slot, footprint);
        true
    }

    /// Brings a leg's timer forward if it is now due sooner.
    fn rearm(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else { return };
        let Some(t) = s.tracked.as_deref() else { return };
        let expiry = t.expiry(self.silence);
        if expiry < s.armed {
            s.armed = expiry;
            let generation = s.generation;
            self.arm(expiry, slot, generation);
        }
    }

    /// Changes a leg, and queues the resulting events.
    pub(super) fn with(&mut self, slot: u32, now: Time, change: impl FnOnce(&mut Tracked) -> Effect) {
        let Some(id) = self.id(slot) else { return };
        let Some(t) = self.slots.get_mut(slot as usize).and_then(|s| s.tracked.as_deref_mut()) else { return };
        if t.leg.state == LegState::Ended {
            return;
        }
        let (claimed, doubted) = (t.proof.known == Known::Claimed, t.is_doubted());
        let effect = change(t);
        let joined = claimed && t.proof.known == Known::Middle;
        self.doubted = self.doubted - usize::from(doubted) + usize::from(t.is_doubted());
        if !self.settle_in(slot, now) {
            return;
        }
        match effect {
            Effect::None => {}
            Effect::Changed => {
                if self.tracked(slot).is_some_and(|t| t.leg.state == LegState::Confirmed) {
                    self.events.push_back(LegEvent::Changed(id));
                }
            }
            Effect::Confirmed => {
                self.counters.confirmed += 1;
                if joined {
                    self.counters.joined += 1;
                    self.events.push_back(LegEvent::Started(id));
                }
                self.events.push_back(LegEvent::Confirmed(id));
            }
            Effect::Ended(reason) => {
                if !claimed {
                    self.events.push_back(LegEvent::Ended(id, reason));
                }
            }
        }
        self.rearm(slot);
    }
}
