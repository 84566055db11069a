//! How long the guard lives: short, unless the kernel was busy for longer just now.

use crate::time::Time;
use std::time::Duration;

/// From one try to the next. The first is two ticks of the slowest clock that kernels for servers have (250 Hz): what is less than one
/// tick may be over at once. The others are for a change of nftables by another program that keeps the kernel busy meanwhile.
const ALL: [Duration; 4] =
    [Duration::from_millis(8), Duration::from_millis(16), Duration::from_millis(32), Duration::from_millis(64)];
/// For so long the one that was needed is begun with. A hold that the kernel refuses costs more than a shorter one: it takes it back under
/// the lock of all of nftables, and waits meanwhile until every processor has passed a point of rest, which busy ones take long for.
const BUSY: Duration = Duration::from_secs(10);

/// The longest.
pub(super) const LONGEST: Duration = ALL[ALL.len() - 1];

/// With which guard to begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guards {
    first: usize,
    until: Time,
}

impl Guards {
    /// Those to try now for a right that is left for so long, with their numbers. A guard is taken off the right, so what is begun with is
    /// a quarter of it at most, however busy the kernel was.
    pub(super) fn now(self, now: Time, left: Duration) -> impl Iterator<Item = (usize, Duration)> {
        let needed = if now < self.until { self.first } else { 0 };
        let first = ALL.iter().take(needed + 1).rposition(|guard| *guard * 4 <= left).unwrap_or(0);
        ALL.into_iter().enumerate().skip(first)
    }

    /// The kernel was too slow for this guard, at this time.
    pub(super) fn ran_out(&mut self, number: usize, now: Time) {
        self.first = (number + 1).min(ALL.len() - 1);
        self.until = now + BUSY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(guards: Guards, at: u64) -> Vec<u128> {
        guards.now(Time::from_millis(at), Duration::from_secs(1)).map(|(_, g)| g.as_millis()).collect()
    }

    #[test]
    fn what_ran_out_is_not_begun_with_for_a_while() {
        let mut guards = Guards::default();
        assert_eq!(begins(guards, 1), [8, 16, 32, 64]);
        guards.ran_out(0, Time::from_millis(1000));
        assert_eq!(begins(guards, 10_999), [16, 32, 64]);
        guards.ran_out(3, Time::from_millis(2000));
        // The longest is tried always.
        assert_eq!(begins(guards, 11_999), [64]);
        assert_eq!(begins(guards, 12_000), [8, 16, 32, 64]);
    }

    #[test]
    fn a_short_right_is_not_spent_on_its_guard() {
        let mut guards = Guards::default();
        guards.ran_out(3, Time::from_millis(1000));
        let begins =
            |left| guards.now(Time::from_millis(1001), Duration::from_millis(left)).next().map(|(_, g)| g.as_millis());
        assert_eq!([256, 255, 128, 60, 5].map(begins), [64, 32, 32, 8, 8].map(Some));
    }
}
