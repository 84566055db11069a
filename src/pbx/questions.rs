//! The questions that a client asks its server: a few are open at a time, the others wait. Pure.

use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Answer time-out. A server answers within milliseconds, and a stuck session is opened again.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Most open questions. Both servers handle one after the other, so more would only wait there.
pub(super) const WINDOW: usize = 16;
/// Most waiting questions: one for each channel that is followed. Further ones are dropped.
const MOST_WAITING: usize = super::MAX_CHANNELS;

/// Questions by their number, which counts them in the order of asking.
#[derive(Debug)]
pub(super) struct Questions<Ask> {
    last: u64,
    /// With their deadline. All may take equally long, so the first has the earliest.
    open: BTreeMap<u64, (Ask, Time)>,
    waiting: VecDeque<Ask>,
}

impl<Ask> Questions<Ask> {
    pub(super) const fn new() -> Self {
        Self { last: 0, open: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Whether one more may be open. If not, the question waits.
    pub(super) fn admits(&mut self, ask: Ask) -> Option<Ask> {
        if self.open.len() < WINDOW {
            return Some(ask);
        }
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(ask);
        }
        None
    }

    /// Opens a question, which is sent now. Returns its number.
    pub(super) fn open(&mut self, ask: Ask, now: Time) -> u64 {
        self.last += 1;
        self.open.insert(self.last, (ask, now + ANSWER));
        self.last
    }

    /// The open question with this number. It is answered now.
    pub(super) fn answered(&mut self, number: u64) -> Option<Ask> {
        self.open.remove(&number).map(|(ask, _)| ask)
    }

    /// The oldest open question. It is answered now.
    pub(super) fn oldest_answered(&mut self) -> Option<Ask> {
        self.open.pop_first().map(|(_, (ask, _))| ask)
    }

    /// The next waiting question, if one more may be open.
    pub(super) fn next_waiting(&mut self) -> Option<Ask> {
        if self.open.len() < WINDOW { self.waiting.pop_front() } else { None }
    }

    /// Nothing is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// All questions without an answer.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Ask> {
        self.open.values().map(|(ask, _)| ask).chain(&self.waiting)
    }

    /// When the oldest open question is late.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.open.first_key_value().map(|(_, (_, by))| *by)
    }

    /// Whether an answer is late.
    pub(super) fn is_late(&self, now: Time) -> bool {
        self.deadline().is_some_and(|by| by <= now)
    }

    /// Waits no longer for late answers.
    pub(super) fn give_up_late(&mut self, now: Time) {
        self.open.retain(|_, (_, by)| *by > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_open_and_the_rest_waits_in_order() {
        let now = Time::from_millis(1000);
        let mut all = Questions::new();
        for n in 0..20 {
            if let Some(ask) = all.admits(n) {
                assert_eq!(all.open(ask, now), n + 1);
            }
        }
        assert_eq!((all.unanswered().count(), all.next_waiting()), (20, None));
        assert_eq!((all.answered(5), all.answered(5)), (Some(4), None));
        assert_eq!(all.oldest_answered(), Some(0));
        assert_eq!(all.next_waiting(), Some(16));
    }

    #[test]
    fn the_oldest_answer_is_late_first() {
        let at = |ms: u64| Time::from_millis(1000 + ms);
        let mut all = Questions::new();
        all.open('a', at(0));
        all.open('b', at(5));
        assert_eq!(all.deadline(), Some(at(10_000)));
        assert!(!all.is_late(at(9_999)) && all.is_late(at(10_000)));
        all.give_up_late(at(10_000));
        assert!(all.unanswered().eq(&['b']) && !all.is_idle());
    }
}
