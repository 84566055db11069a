//! Marks legs without a partner while other legs are not learnt, because the partner may be among those.

use super::Table;
use crate::calls::latching;
use crate::calls::pairing::SETUP_WINDOW;
use crate::calls::tracker::LegId;
use crate::time::Time;

impl Table {
    /// Records that messages of the server were lost on their way here. A single leg may then be half of a call.
    pub fn handle_loss(&mut self, now: Time) {
        self.tracker.lose(now);
        self.drain(now);
    }

    /// Checks whether legs were lost since the last check.
    pub(super) fn look_around(&mut self, now: Time) {
        self.tracker.set_quiet(latching::quiet(self.members.len()));
        let Some(lost) = self.tracker.lost() else { return };
        // A partner may come this long after the other leg, so it may be missing for as long.
        let until = lost + SETUP_WINDOW;
        if now < until && self.crowded.is_none_or(|before| before <= now) {
            // A leg that was single before may now have a partner that was not learnt. This runs once in a while and
            // not per leg, because `note_partners` covers each call that becomes single later.
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

    /// Notes on the legs of a new call whether a partner may be missing.
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
