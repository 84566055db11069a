//! Measures the election's stalls and their cause. The hold must be longer than any stall.

use crate::time::{OnceAMinute, Time};
use std::time::Duration;

/// Shortest reported stall: a delay of one or two heartbeats is harmless.
const WORTH_TELLING: Duration = Duration::from_millis(100);

/// The cause of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The thread was ready to run, but was not scheduled.
    Late,
    /// The thread ran, or waited in a system call for the kernel.
    Working,
}

/// The longest stall of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    lasted: Duration,
    told: OnceAMinute,
}

/// The longest stalls since the start.
#[derive(Clone, Debug)]
pub(super) struct Stalls {
    hold: Duration,
    late: Longest,
    working: Longest,
}

impl Stalls {
    /// Starts with no stalls, for an election with this hold.
    pub(super) const fn new(hold: Duration) -> Self {
        let none = Longest { lasted: Duration::ZERO, told: OnceAMinute::new() };
        Self { hold, late: none, working: none }
    }

    /// Longest stall of a kind.
    pub(super) const fn longest(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Late => self.late.lasted,
            Kind::Working => self.working.lasted,
        }
    }

    /// Records one round, and returns the log line for a stall of at least a quarter of the hold.
    pub(super) fn note(&mut self, kind: Kind, lasted: Duration, now: Time) -> Option<String> {
        let longest = match kind {
            Kind::Late => &mut self.late,
            Kind::Working => &mut self.working,
        };
        let worst = lasted > longest.lasted;
        longest.lasted = longest.lasted.max(lasted);
        // A stall that exceeds all earlier ones does not wait.
        if lasted < WORTH_TELLING.max(self.hold / 4) || !(longest.told.is_due(now) || worst) {
            return None;
        }
        longest.told.happens(now);
        let why = match kind {
            Kind::Late => {
                "the host did not run the thread, although it has real-time priority; look for a virtual machine \
                 that was paused or migrated, too few processors (`steal` in /proc/stat), or a stopped agent"
            }
            Kind::Working => {
                "the thread waited in the kernel; look for another program that changes nftables, or an overloaded host"
            }
        };
        let (stood, hold) = (lasted.as_millis(), self.hold.as_millis());
        Some(format!("the election stalled for {stood} ms, and a stall of {hold} ms (`hold`) causes a takeover: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_nears_the_hold_is_told_and_not_again_and_again() {
        let mut s = Stalls::new(ms(1000));
        let mut note = |kind, lasted, at| s.note(kind, ms(lasted), Time::from_millis(at)).is_some();
        assert!(!note(Kind::Late, 249, 1000));
        assert!(note(Kind::Late, 250, 2000));
        // Equal to the last one and too soon; another kind has its own line; a worse stall; a stall after the interval.
        assert!(!note(Kind::Late, 250, 3000));
        assert!(note(Kind::Working, 250, 3000));
        assert!(note(Kind::Late, 900, 4000));
        assert!(!note(Kind::Late, 300, 63_999));
        assert!(note(Kind::Late, 300, 64_000));
        assert_eq!((s.longest(Kind::Late), s.longest(Kind::Working)), (ms(900), ms(250)));
    }

    #[test]
    fn short_holds_are_not_told_of_each_tick() {
        let mut s = Stalls::new(ms(60));
        assert_eq!(s.note(Kind::Late, ms(99), Time::from_millis(1000)), None);
        let told = s.note(Kind::Late, ms(100), Time::from_millis(1000)).unwrap();
        assert!(
            told.starts_with(
                "the election stalled for 100 ms, and a stall of 60 ms (`hold`) causes a takeover: the host"
            ),
            "{told}"
        );
    }
}
