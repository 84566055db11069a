//! Legs without a partner, while others are not learnt: the partner may be one of those, so that nobody may say that there is none.

use super::Table;
use crate::calls::latching;
use crate::calls::pairing::SETUP_WINDOW;
use crate::calls::tracker::LegId;
use crate::time::Time;

impl Table {
    /// Messages of the server were lost before they came here: a single leg may be half of a call.
    pub fn handle_loss(&mut self, now: Time) {
        self.tracker.lose(now);
        self.drain(now);
    }

    /// Looks whether legs were not learnt since the last look.
    pub(super) fn look_around(&mut self, now: Time) {
        self.tracker.set_quiet(latching::quiet(self.members.len()));
        let Some(lost) = self.tracker.lost() else { return };
        // A partner may come so long after the other leg, and is missed as long as that.
        let until = lost + SETUP_WINDOW;
        if now < until && self.crowded.is_none_or(|before| before <= now) {
            // Those that were single before may have got a partner now that was not learnt. Once in a while, not with each leg: each call that
            // becomes single later is noted by itself.
            let single = |legs: &[LegId]| if let [only] = legs { Some(*only) } else { None };
            let all: Vec<LegId> = self.calls.values().filter_map(|slot| single(&slot.legs)).collect();
            self.crowded = Some(until);
            for leg in all {
                self.tracker.miss_partner(leg, true, now);
            }
            self.drain(now);
        } else if now < until {
            self.crowded = Some(until);
        }
    }

    /// Notes of the legs of a new call whether a partner may be missing.
    pub(super) fn note_partners(&mut self, legs: &[LegId], now: Time) {
        let missed = match legs {
            [only] => {
                let begun = self.tracker.get(*only).map(|t| t.started);
                let lost =
                    self.tracker.lost().is_some_and(|lost| begun.is_none_or(|begun| begun <= lost + SETUP_WINDOW));
                lost || self.pairer.is_crowded(*only, &self.tracker)
            }
            _ => false,
        };
        for leg in legs {
            self.tracker.miss_partner(*leg, missed, now);
        }
    }
}

#[cfg(test)]
mod tests;
