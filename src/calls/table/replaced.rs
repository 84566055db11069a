//! A party that takes another's place: an INVITE with Replaces that the server has accepted (call pickup, attended transfer).

use super::Table;
use crate::calls::model::{Direction, Pairing};
use crate::calls::tracker::LegId;
use crate::time::Time;

/// RFC 3891 section 3: the server that accepts such an INVITE puts the new dialog into the place of the named one. That it did so at once, and that
/// the named one was paired rightly, is not certain.
const SUCCEEDED: u8 = 95;

impl Table {
    /// Joins a leg that was just answered with the partner of the leg whose place it takes, if there is one; the legs whose case this may
    /// settle.
    pub(super) fn succeed(&mut self, id: LegId, now: Time) -> Vec<LegId> {
        match self.inherited(id) {
            Some(partner) => self.join(id, partner, Pairing::Evidence, SUCCEEDED, now),
            None => Vec::new(),
        }
    }

    fn inherited(&self, id: LegId) -> Option<LegId> {
        // An INVITE with Replaces that the server itself sends names a dialog at the other end, of which it may know nothing.
        let t = self.tracker.get(id).filter(|t| t.leg.direction == Direction::Inbound)?;
        let replaced = self.tracker.replaced(t)?;
        let slot = self.calls.get(&self.members.get(&replaced)?.call?)?;
        // A proxy only passes it on: the phone behind it is the one that replaces, in another dialog.
        if slot.pairing.is_none_or(|(how, _)| how == Pairing::SameDialog) {
            return None;
        }
        let partner = slot.legs.iter().copied().find(|l| *l != replaced)?;
        (partner != id && self.may_guess(id, Pairing::Evidence) && self.may_guess(partner, Pairing::Evidence))
            .then_some(partner)
    }
}
