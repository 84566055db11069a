//! How long the election stood still, and by what: the one thing that a hold must be longer than.

use crate::time::Time;
use std::time::Duration;

/// The shortest that is told: a heartbeat or two late is nothing.
const WORTH_TELLING: Duration = Duration::from_millis(100);
/// One line about each kind in this time, unless it is worse than all before.
const AGAIN: Duration = Duration::from_secs(60);

/// By what it stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its thread was to run and did not.
    Late,
    /// It ran, or waited for the kernel in a system call.
    Working,
}

/// The longest of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    lasted: Duration,
    told: Option<Time>,
}

/// The longest stalls since the start.
#[derive(Clone, Debug)]
pub(super) struct Stalls {
    hold: Duration,
    late: Longest,
    working: Longest,
}

impl Stalls {
    /// Of an election with this hold.
    pub(super) const fn new(hold: Duration) -> Self {
        let none = Longest { lasted: Duration::ZERO, told: None };
        Self { hold, late: none, working: none }
    }

    /// The longest of a kind.
    pub(super) const fn longest(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Late => self.late.lasted,
            Kind::Working => self.working.lasted,
        }
    }

    /// Counts one round, and returns what is to be told of it: from a quarter of the hold on.
    pub(super) fn note(&mut self, kind: Kind, lasted: Duration, now: Time) -> Option<String> {
        let longest = match kind {
            Kind::Late => &mut self.late,
            Kind::Working => &mut self.working,
        };
        let worst = lasted > longest.lasted;
        longest.lasted = longest.lasted.max(lasted);
        let silent = longest.told.is_some_and(|told| now < told + AGAIN);
        if lasted < WORTH_TELLING.max(self.hold / 4) || (silent && !worst) {
            return None;
        }
        longest.told = Some(now);
        let why = match kind {
            Kind::Late => {
                "its thread was to run and was not let run. It comes before all ordinary work, so it is the machine that stands still: \
                 a virtual one that is paused or moved, or short of processors (`steal` in /proc/stat), or an agent that was stopped"
            }
            Kind::Working => {
                "it waited in the kernel, or was stopped there: for a change of nftables that another program made, mostly, or for the \
                 machine"
            }
        };
        let (stood, hold) = (lasted.as_millis(), self.hold.as_millis());
        Some(format!("the election stood still for {stood} ms, and {hold} ms (`hold`) move the address: {why}"))
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
        // No worse, and just told; another kind has its own line; worse; and later again.
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
            told.starts_with("the election stood still for 100 ms, and 60 ms (`hold`) move the address: its thread"),
            "{told}"
        );
    }
}
