//! Limits repeated warnings: a flood is one piece of news and not thousands.

use super::Time;
use std::time::Duration;

/// Allows something once a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnceAMinute {
    last: Option<Time>,
}

impl OnceAMinute {
    /// Nothing has happened yet, so the first time is at once.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Whether the last time is a minute ago.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        const PAUSE: Duration = Duration::from_secs(60);
        self.last.is_none_or(|last| now.since(last) >= PAUSE)
    }

    /// It happens now, due or not.
    pub const fn happens(&mut self, now: Time) {
        self.last = Some(now);
    }

    /// Whether it may happen now; it then counts as done.
    pub fn take(&mut self, now: Time) -> bool {
        let due = self.is_due(now);
        if due {
            self.happens(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_at_once_and_the_next_a_minute_later() {
        let at = Time::from_millis;
        let mut warning = OnceAMinute::new();
        assert!(warning.take(at(5_000)));
        assert!(!warning.take(at(64_999)));
        assert!(warning.is_due(at(65_000)), "what was refused does not count");
        assert!(warning.take(at(65_000)));
        warning.happens(at(80_000));
        assert!(!warning.is_due(at(139_999)) && warning.is_due(at(140_000)));
    }
}
