//! The guard's lifetime: short, unless the kernel was busy for longer just now.

use crate::time::Time;
use std::time::Duration;

/// The lifetimes of successive tries. The first is two ticks of the slowest server kernel clock (250 Hz), because less
/// than one tick may expire at once. The others cover another program's nftables change that keeps the kernel busy.
const ALL: [Duration; 4] =
    [Duration::from_millis(8), Duration::from_millis(16), Duration::from_millis(32), Duration::from_millis(64)];
/// How long tries start with the guard that was needed last. A refused hold costs more than a hold that a longer guard
/// shortens: the kernel rolls the hold back under the lock of all nftables, and waits for an RCU grace period, which
/// busy processors prolong.
const BUSY: Duration = Duration::from_secs(10);

/// The longest guard.
pub(super) const LONGEST: Duration = ALL[ALL.len() - 1];

/// Selects the guard for the first try.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guards {
    first: usize,
    until: Time,
}

impl Guards {
    /// The guards to try now, with their numbers, for a right with `left` remaining. The guard's time comes off the
    /// right, so the first guard is at most a quarter of it, however busy the kernel was.
    pub(super) fn now(self, now: Time, left: Duration) -> impl Iterator<Item = (usize, Duration)> {
        let needed = if now < self.until { self.first } else { 0 };
        let first = ALL.iter().take(needed + 1).rposition(|guard| *guard * 4 <= left).unwrap_or(0);
        ALL.into_iter().enumerate().skip(first)
    }

    /// The kernel was too slow for this guard at time `now`.
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
        // The longest guard is always tried.
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
