//! Builds the stored form of a call.

use super::{Slot, Table};
use crate::calls::model::{Call, SCHEMA};
use crate::calls::tracker::{LegId, Tracked};
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

/// Hexadecimal digits of SHA-256 in a call's id. 96 bits do not collide among any number of calls that fits into
/// memory.
const ID_DIGITS: usize = 24;

impl Table {
    /// The stored form of a call. `None` if one of its legs is forgotten.
    pub(super) fn call(&self, slot: &Slot) -> Option<Call> {
        let legs: SmallVec<[&Tracked; 2]> = slot.legs.iter().filter_map(|id| self.tracker.get(*id)).collect();
        if legs.is_empty() || legs.len() < slot.legs.len() {
            return None;
        }
        Some(Call {
            schema: SCHEMA,
            id: slot.id.clone(),
            instance: self.settings.instance.clone(),
            node: self.settings.node.clone(),
            epoch: self.epoch,
            confirmed_ms: legs.iter().map(|t| t.confirmed_ms).max().unwrap_or(0),
            pairing: slot.pairing.map(|(how, _)| how),
            confidence: slot.pairing.map(|(_, confidence)| confidence),
            other_end: slot.other_end.clone(),
            legs: legs.iter().map(|t| t.leg.clone()).collect(),
            emergency: legs.iter().any(|t| t.emergency),
        })
    }

    /// An id that is the same for the same dialogs on every node and at every time.
    pub(super) fn name(&self, legs: &[LegId]) -> String {
        let mut hash = Sha256::new();
        for t in legs.iter().filter_map(|id| self.tracker.get(*id)) {
            for part in [&t.leg.call_id, &t.leg.local_tag, &t.leg.remote_tag] {
                // The length prefix keeps the parts apart.
                hash.update((part.0.len() as u64).to_be_bytes());
                hash.update(&part.0);
            }
        }
        let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default();
        hash.finalize().iter().take(ID_DIGITS / 2).flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}
