//! Turns results into a state: several good or bad results in a row change it, and hard evidence changes it at once.
//!
//! Pure: results in, state out.

use super::CheckState;
use crate::time::Time;
use std::time::Duration;

/// One result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// The server did what was expected.
    Good,
    /// The server did not, but a lost packet looks the same, so the result only counts.
    Bad,
    /// The server certainly does not work (its process is gone): the state changes at once.
    Dead,
}

/// The state of one check.
///
/// The state starts unknown, and the first good result decides at once: a server that has just been seen to work must
/// not be kept out. Bad results before that count as always, but are excused for `grace` from the start: a server that
/// starts together with its agent takes longer to answer than `fall` probes. The state is never unknown longer than
/// `fall` bad results or the grace, whichever is later.
#[derive(Clone, Debug)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    state: CheckState,
    streak: u32,
    excused_until: Time,
}

impl Hysteresis {
    /// A check that starts at `now`; `rise` and `fall` of 0 act as 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32, grace: Duration, now: Time) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), state: CheckState::Unknown, streak: 0, excused_until: now + grace }
    }

    /// The current state.
    #[must_use]
    pub const fn state(&self) -> CheckState {
        self.state
    }

    /// Takes a result; returns whether the state has changed.
    pub fn handle(&mut self, sample: Sample, now: Time) -> bool {
        let before = self.state;
        match (self.state, sample) {
            (CheckState::Unknown, Sample::Good) => self.enter(CheckState::Good),
            (CheckState::Good, Sample::Good) | (CheckState::Failed, Sample::Bad) => self.streak = 0,
            (CheckState::Failed, Sample::Good) => self.count(self.rise, CheckState::Good),
            (CheckState::Good, Sample::Bad) => self.count(self.fall, CheckState::Failed),
            (CheckState::Unknown, Sample::Bad) => {
                self.streak = self.streak.saturating_add(1);
                if self.streak >= self.fall && now >= self.excused_until {
                    self.enter(CheckState::Failed);
                }
            }
            (CheckState::Unknown, Sample::Dead) if now < self.excused_until => {}
            (_, Sample::Dead) => self.enter(CheckState::Failed),
        }
        self.state != before
    }

    fn count(&mut self, enough: u32, then: CheckState) {
        self.streak = self.streak.saturating_add(1);
        if self.streak >= enough {
            self.enter(then);
        }
    }

    fn enter(&mut self, state: CheckState) {
        self.state = state;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests;
