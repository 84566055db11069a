//! Transfers by REFER (RFC 3515) that the server carried out itself: who left is out, and the legs that stayed are the
//! pair.
//!
//! The server is in both dialogs of the transferring phone, so it needs no Replaces of its own, and the new leg has
//! nothing in common with the old ones but the target of the REFER. A REFER that failed changes nothing: the transferring
//! phone stays, so its leg does not end.

use super::Table;
use crate::calls::model::{Direction, LegState, Pairing};
use crate::calls::pairing::same_party;
use crate::calls::tracker::{LegId, Referred, Tracked};
use crate::sip::message::Replaces;
use crate::sip::uri;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Attended: the REFER names a dialog of ours, so both ends are known by name. It is not certain that each was paired
/// rightly before.
const BY_DIALOG: u8 = 95;
/// Blind: the server called the target of the REFER right after it accepted the REFER, and no other leg fits.
const BY_TARGET: u8 = 90;
/// Time for a transfer from the end of the transferring leg: the target may ring for minutes.
const PATIENCE: Duration = Duration::from_secs(180);
/// The server's INVITE to the target may overtake its answer to the REFER.
const OVERTAKES: Duration = Duration::from_secs(1);
/// Legs that are remembered: those that ended within [`PATIENCE`] at some ten hang-ups a second. Beyond it the oldest go,
/// and a transfer that takes longer stays unpaired.
const MOST: usize = 2048;

/// A leg that ended, and its partner in the call that it left.
struct Left {
    leg: LegId,
    partner: LegId,
    /// The REFER of the leg's phone.
    referred: Option<Referred>,
    until: Time,
}

/// Legs that ended lately. The oldest first.
#[derive(Default)]
pub(super) struct Transfers {
    left: VecDeque<Left>,
}

impl Transfers {
    /// Remembers a leg that is about to end.
    pub(super) fn left(&mut self, leg: LegId, t: &Tracked, partner: LegId, now: Time) {
        if self.left.len() >= MOST {
            self.left.pop_front();
        }
        let referred = t.referred.as_deref().filter(|r| r.by_phone).cloned();
        self.left.push_back(Left { leg, partner, referred, until: now + PATIENCE });
    }

    fn partner_of(&self, leg: LegId) -> Option<LegId> {
        self.left.iter().rev().find(|l| l.leg == leg).map(|l| l.partner)
    }
}

impl Table {
    /// Joins the legs that stayed after a transfer. `news`: the leg that has just ended, or was just answered. Returns
    /// the legs whose case this may settle.
    pub(super) fn transferred(&mut self, news: LegId, now: Time) -> Vec<LegId> {
        while self.transfers.left.front().is_some_and(|l| l.until <= now) {
            self.transfers.left.pop_front();
        }
        let pairs = self.transfers.left.iter().filter_map(|left| {
            let (other, confidence) = self.successor(left, news)?;
            Some((left.leg, left.partner, other, confidence))
        });
        let mut open = Vec::new();
        for (leg, partner, other, confidence) in pairs.collect::<Vec<_>>() {
            let free = |id| self.is_single(id) && self.may_guess(id, Pairing::Evidence);
            if free(partner) && free(other) {
                self.transfers.left.retain(|l| l.leg != leg);
                open.extend(self.join(partner, other, Pairing::Evidence, confidence, now));
            }
        }
        open
    }

    /// Who talks to the partner of this leg now.
    fn successor(&self, left: &Left, news: LegId) -> Option<(LegId, u8)> {
        let referred = left.referred.as_ref()?;
        if let Some(named) = uri::uri_header(&referred.to.0, "replaces") {
            let named = uri::unescaped(named);
            let r = Replaces::parse(&named)?;
            // RFC 3891 section 3: to-tag is the tag of whoever would get the INVITE, which is the server.
            if let Some(dialog) = self.tracker.dialog(r.call_id, r.to_tag, r.from_tag) {
                let other = self.transfers.partner_of(dialog).filter(|other| *other != left.partner)?;
                return Some((other, BY_DIALOG));
            }
        }
        let target = uri::user(&referred.to.0)?;
        let fits = |id: LegId| {
            let called = |t: &Tracked| {
                t.leg.direction == Direction::Outbound
                    && t.started + OVERTAKES >= referred.at
                    && t.clues.callee.iter().flatten().any(|user| same_party(user, target))
            };
            id != left.partner && self.is_single(id) && self.tracker.get(id).is_some_and(called)
        };
        // Looking through all legs takes long, and only these two can settle it.
        if news != left.leg && !fits(news) {
            return None;
        }
        let mut all = self.members.keys().copied().filter(|id| fits(*id));
        let only = all.next()?;
        all.next().is_none().then_some((only, BY_TARGET))
    }

    /// Whether the leg is up and has no partner.
    fn is_single(&self, id: LegId) -> bool {
        let up = self.tracker.get(id).is_some_and(|t| t.leg.state == LegState::Confirmed);
        let call = self.members.get(&id).map(|m| m.call.and_then(|key| self.calls.get(&key)));
        up && call.is_some_and(|call| call.is_none_or(|slot| slot.legs.len() == 1))
    }
}

#[cfg(test)]
mod tests;
