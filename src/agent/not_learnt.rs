//! Decides when to warn about calls that are not learnt, and why.

use crate::calls::tracker::Counters;
use crate::time::{OnceAMinute, Time};

/// The last report about legs that are not learnt.
#[derive(Default)]
pub(super) struct NotLearnt {
    told: OnceAMinute,
    before: Counters,
}

impl NotLearnt {
    /// The news since the last report, as readable text; `None` if there is none, or if it is too early.
    pub(super) fn news(&mut self, now: Counters, at: Time) -> Option<String> {
        let kinds = |c: &Counters| [c.gave_way, c.no_room, c.same_call_id, c.too_long, c.cut];
        let (kinds_now, kinds_before) = (kinds(&now), kinds(&self.before));
        let is_new_kind = kinds_now.iter().zip(kinds_before).any(|(now, before)| *now > 0 && before == 0);
        // A reason that is new does not wait.
        if kinds_now == kinds_before || !(self.told.is_due(at) || is_new_kind) {
            return None;
        }
        self.told.happens(at);
        let b = self.before;
        self.before = now;
        let parts = [
            (now.gave_way - b.gave_way, "unanswered legs gave way to newer legs (perhaps a flood of INVITEs)"),
            (now.no_room - b.no_room, "answered legs found no room (raise max_calls)"),
            (now.same_call_id - b.same_call_id, "legs exceeded the limit for one Call-ID"),
            (now.too_long - b.too_long, "legs have a Call-ID, From or To that is too long"),
            (now.cut - b.cut, "legs are learnt without their session description, which is too long"),
        ];
        let text: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
        Some(text.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_told_once_a_minute_with_its_reasons() {
        let mut told = NotLearnt::default();
        let at = |s| Time::ZERO + Duration::from_secs(s);
        let counted = |n| Counters { not_learnt: n, gave_way: n, ..Counters::default() };
        assert_eq!(told.news(Counters::default(), at(0)), None);
        assert!(told.news(counted(7), at(1)).is_some_and(|t| t.starts_with("7 unanswered legs gave way")));
        assert_eq!(told.news(counted(9_000), at(60)), None);
        let later = Counters { no_room: 2, not_learnt: 9_002, ..counted(9_000) };
        let text = told.news(later, at(60)).unwrap_or_default();
        assert!(text.starts_with("8993 unanswered") && text.contains("; 2 answered legs found no room"), "{text}");
        assert_eq!(told.news(later, at(200)), None, "no news is no news");
    }
}
