//! Whether the parties of a call are heard, from the relay's counters. Pure.

use super::types::Counted;
use crate::time::Time;
use std::time::Duration;

/// How often the packets of a watched call are counted. RTCP alone passes every 5 s or so (RFC 3550 section 6.2), and
/// audio 50 times a second.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// What the relay forwarded of one party.
#[derive(Clone, Copy, Debug)]
struct Heard {
    packets: u64,
    /// When the number of packets last changed, or when the watch began.
    at: Time,
}

/// The audio of a call's two parties.
#[derive(Clone, Debug, Default)]
pub(super) struct AudioWatch {
    /// When the packets are counted next. `None` while nobody needs to know.
    pub(super) next: Option<Time>,
    heard: [Option<Heard>; 2],
}

impl AudioWatch {
    /// Begins to count, unless a watch is under way.
    pub(super) fn begin(&mut self, now: Time) {
        if self.next.is_none() {
            (self.next, self.heard) = (Some(now), [None; 2]);
        }
    }

    /// Enters the number of packets of a party so far.
    pub(super) fn count(&mut self, side: usize, packets: u64, now: Time) {
        let Some(heard) = self.heard.get_mut(side) else { return };
        // A renewed table counts from zero, so a smaller number is life as well.
        if heard.is_none_or(|h| h.packets != packets) {
            *heard = Some(Heard { packets, at: now });
        }
    }

    /// When this party was last heard, or when the watch began. `None` if nothing was counted yet.
    pub(super) fn heard_at(&self, side: usize) -> Option<Time> {
        self.heard.get(side).copied().flatten().map(|h| h.at)
    }

    /// Whether this party's audio has stopped for `limit`. False while that is not known.
    pub(super) fn is_silent(&self, side: usize, now: Time, limit: Duration) -> bool {
        self.heard_at(side).is_some_and(|at| now >= at + limit)
    }

    /// Whether a party is heard.
    pub(super) fn sounds(&self, now: Time, limit: Duration) -> bool {
        (0..2).any(|side| self.heard_at(side).is_some_and(|at| now < at + limit))
    }
}

/// A party that may be gone, since a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doubt {
    /// The party is asked again.
    Asked(Time),
    /// The party cannot be asked, but there is no evidence that it is gone.
    Lost(Time),
}

impl Doubt {
    pub(super) const fn since(self) -> Time {
        match self {
            Self::Asked(at) | Self::Lost(at) => at,
        }
    }
}

/// The questions to a silent party of a kept call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    /// When the last question was settled.
    pub(super) settled: Option<Time>,
    /// The last answer was a doubt.
    pub(super) doubt: bool,
}

/// How long is listened after the first count: two more counts. Audio sends 50 packets a second, and comfort noise at
/// least one in a few seconds where the codec has it.
const FOR: Duration = Duration::from_secs(2 * EVERY.as_secs());

/// The counts of a recovered call so far.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) until: Time,
    base: [Option<u64>; 2],
    heard: [bool; 2],
}

/// The instant of the next counts. All calls have the same ones, so that a hundred are read in one request.
fn next_round(now: Time) -> Time {
    let every = u64::try_from(EVERY.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos((now.as_nanos() / every).saturating_add(1).saturating_mul(every))
}

impl Listening {
    /// Begins with the next round of counts, at the instant returned.
    pub(super) fn begin(now: Time) -> (Time, Self) {
        let first = next_round(now);
        (first, Self { until: first + FOR, base: [None; 2], heard: [false; 2] })
    }

    /// Begins with other paths, which have other counters.
    pub(super) fn anew(&mut self) {
        self.base = [None; 2];
    }

    pub(super) fn count(&mut self, side: usize, packets: u64) {
        let (Some(base), Some(heard)) = (self.base.get_mut(side), self.heard.get_mut(side)) else { return };
        // A renewed table counts from zero, so a smaller number is life as well.
        *heard |= base.is_some_and(|base| base != packets);
        *base = base.or(Some(packets));
    }

    pub(super) fn counted(&self) -> Counted {
        match self.heard {
            [true, true] => Counted::Both,
            [true, false] => Counted::Only(0),
            [false, true] => Counted::Only(1),
            [false, false] if self.base.contains(&None) => Counted::Unknown,
            [false, false] => Counted::Neither,
        }
    }
}
