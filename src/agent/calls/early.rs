//! What the wire brought in the moment before this node learnt that it is the master.
//!
//! The addresses and their announcement come first, so a phone's call may arrive before the order to take the calls
//! over does. A call that nobody learns is lost at the next takeover.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// A party whose request was not answered sends it again after half a second at first, then after one (RFC 3261 section
/// 17.1.1.2, T1). Whatever is older has been sent again, or was answered by another host.
const YOUNG: Duration = Duration::from_secs(1);
/// Most messages kept. A standby receives next to none: nobody sends to its server.
const MOST: usize = 256;
/// Most bytes of messages kept.
const MOST_BYTES: usize = 512 << 10;

/// The messages of the last second, oldest first. Beyond the bounds the oldest go.
#[derive(Debug)]
pub(super) struct Early<T> {
    messages: VecDeque<(Time, usize, T)>,
    bytes: usize,
}

impl<T> Default for Early<T> {
    fn default() -> Self {
        Self { messages: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Early<T> {
    /// Keeps a message of so many bytes.
    pub(super) fn keep(&mut self, message: T, bytes: usize, now: Time) {
        self.messages.push_back((now, bytes, message));
        self.bytes += bytes;
        while self.messages.len() > MOST || self.bytes > MOST_BYTES {
            self.drop_oldest();
        }
    }

    /// The messages that are still young, oldest first. Nothing is left afterwards.
    pub(super) fn take(&mut self, now: Time) -> impl Iterator<Item = T> + use<T> {
        while self.messages.front().is_some_and(|(at, ..)| *at + YOUNG < now) {
            self.drop_oldest();
        }
        self.bytes = 0;
        std::mem::take(&mut self.messages).into_iter().map(|(_, _, message)| message)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, bytes, _)) = self.messages.pop_front() {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn the_last_second_is_handed_out_once_and_in_order() {
        let mut early = Early::default();
        for (what, ms) in [("old", 0), ("first", 600), ("second", 1_400)] {
            early.keep(what, 500, at(ms));
        }
        assert_eq!(early.take(at(1_600)).collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(early.take(at(1_600)).count(), 0);
    }

    #[test]
    fn it_is_bounded_in_number_and_bytes() {
        let mut early = Early::default();
        for i in 0..1_000 {
            early.keep(i, 300, at(0));
        }
        assert_eq!(early.take(at(0)).next(), Some(1_000 - MOST));
        for i in 0..100 {
            early.keep(i, 64 << 10, at(0));
        }
        assert_eq!(early.take(at(0)).collect::<Vec<_>>(), (92..100).collect::<Vec<_>>());
    }
}
