//! The addresses that each side of a leg described, and which of them are in force when a packet is sent (RFC 3264).
//! Pure.

use crate::time::Time;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Packets are on their way, and phones change over a moment after the answer.
const CHANGE_OVER: Duration = Duration::from_secs(2);

/// The address of each m-line; `None` where nothing is to be received (refused, or held in the old style with an
/// address of zeros, RFC 3264 section 8.4).
pub(super) type Lines = SmallVec<[Option<SocketAddr>; 1]>;

#[derive(Clone, Debug, Default)]
struct Side {
    force: Option<Lines>,
    /// Described in an offer or answer that is not concluded yet.
    open: Option<Lines>,
    before: Option<(Option<Lines>, Time)>,
}

/// The descriptions of all legs, by record and side.
#[derive(Debug, Default)]
pub(super) struct Force(HashMap<(u32, bool), Side>);

impl Force {
    /// A side described where it listens. Like the next two, it returns whether this changes anything.
    pub(super) fn described(&mut self, record: u32, local: bool, lines: Lines) -> bool {
        let side = self.0.entry((record, local)).or_default();
        let changed = side.open.as_ref() != Some(&lines);
        side.open = Some(lines);
        changed
    }

    /// Offer and answer are concluded.
    pub(super) fn agreed(&mut self, record: u32, now: Time) -> bool {
        let mut changed = false;
        for local in [true, false] {
            let Some(side) = self.0.get_mut(&(record, local)) else { continue };
            let Some(lines) = side.open.take() else { continue };
            changed = true;
            // A retransmission ends no change-over.
            if side.force.as_ref() != Some(&lines) {
                side.before = Some((side.force.replace(lines), now));
            }
        }
        changed
    }

    /// The offer was refused, so everything stays as it was (RFC 3261 section 14.1).
    pub(super) fn refused(&mut self, record: u32) -> bool {
        let mut changed = false;
        for local in [true, false] {
            if let Some(side) = self.0.get_mut(&(record, local)).filter(|s| s.force.is_some()) {
                changed |= side.open.take().is_some();
            }
        }
        changed
    }

    /// The address that the sender of a packet has described, if it is another one than that of the packet; and until
    /// when that holds.
    pub(super) fn judge(
        &self,
        record: u32,
        local: bool,
        line: u8,
        src: SocketAddr,
        now: Time,
    ) -> (Option<SocketAddr>, Option<Time>) {
        let Some(side) = self.0.get(&(record, local)) else { return (None, None) };
        let at = |lines: &Option<Lines>| lines.as_ref().and_then(|l| l.get(usize::from(line)).copied().flatten());
        let changing = side.before.as_ref().filter(|(_, since)| now.since(*since) < CHANGE_OVER);
        let until = changing.map(|(_, since)| *since + CHANGE_OVER);
        let told = at(if side.force.is_some() { &side.force } else { &side.open });
        let fits =
            told == Some(src) || at(&side.open) == Some(src) || changing.is_some_and(|(b, _)| at(b) == Some(src));
        (told.filter(|_| !fits), until)
    }
}

#[cfg(test)]
mod tests;
