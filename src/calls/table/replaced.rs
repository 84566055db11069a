//! A party that replaces another: an INVITE with Replaces that the server has accepted (call pickup, attended
//! transfer).

use super::Table;
use crate::calls::model::{Direction, Pairing};
use crate::calls::tracker::LegId;
use crate::time::Time;

/// RFC 3891 section 3: a server that accepts such an INVITE puts the new dialog in place of the named one. It is not
/// certain that it did so at once, or that the named one was paired rightly.
const SUCCEEDED: u8 = 95;

impl Table {
    /// Joins an answered leg with the partner of the leg that it replaces, if there is one. Returns the legs whose case
    /// this may settle.
    pub(super) fn succeed(&mut self, id: LegId, now: Time) -> Vec<LegId> {
        match self.inherited(id) {
            Some(partner) => self.join(id, partner, Pairing::Evidence, SUCCEEDED, now),
            None => Vec::new(),
        }
    }

    fn inherited(&self, id: LegId) -> Option<LegId> {
        // A Replaces in the server's own INVITE names a dialog at the other end, which the server may not know.
        let t = self.tracker.get(id).filter(|t| t.leg.direction == Direction::Inbound)?;
        let replaced = self.tracker.replaced(t)?;
        let slot = self.calls.get(&self.members.get(&replaced)?.call?)?;
        // A proxy only forwards it. The phone behind the proxy replaces the dialog, in another dialog.
        if slot.pairing.is_none_or(|(how, _)| how == Pairing::SameDialog) {
            return None;
        }
        let partner = slot.legs.iter().copied().find(|l| *l != replaced)?;
        (partner != id && self.may_guess(id, Pairing::Evidence) && self.may_guess(partner, Pairing::Evidence))
            .then_some(partner)
    }
}
