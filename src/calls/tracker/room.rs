//! Assigns room to legs, and decides which leg gives way. Pure.
//!
//! A leg that the server has answered cost the server work. An unanswered leg costs a stranger one packet. The two are
//! kept apart, each with its own room in legs and in bytes, so no number of unanswered legs displaces an answered one:
//!
//! | stage | room, in legs | beyond it |
//! |---|---|---|
//! | claimed: only a phone speaks of the dialog | an eighth of `max_legs`, 64 at least | (1) |
//! | waiting: the server has not answered | a quarter, 64 at least | (1) |
//! | early and up: the server has answered | `max_legs` together | (1) of those that still ring; one that is up never |
//! | ended: kept for late copies | `max_legs`, 64 at least | the oldest goes |
//!
//! (1) The oldest of a source above its share goes, else the oldest.
//!
//! Emergency calls have an eighth more in each, and no other calls displace them.

use super::TrackerSettings;
use crate::budget::Budget;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Divisor of the room for dialogs that only a phone has mentioned.
const CLAIMED: usize = 8;
/// Divisor of the room for legs that the server has not answered. With 10,000 calls it holds a hundred new ones a
/// second for 50 s.
const WAITING: usize = 4;
/// Divisor of the extra room for emergency calls.
const URGENT: usize = 8;
/// Least room of a stage, for small tables.
const LEAST: usize = 64;
/// A source above this fraction of a stage's room gives way first. A trunk has hundreds of waiting calls, but not for
/// long.
const SHARE: usize = 8;
/// Bytes for each leg that waits or is claimed. One takes 3 KiB with an ordinary description.
const SMALL_LEG: usize = 4 << 10;
/// Bytes for each answered leg. One takes 3 to 4 KiB, up to 10 with video, keys and candidates.
const LEG: usize = 8 << 10;
/// Bytes for each ended leg.
const ENDED_LEG: usize = 2 << 10;
/// Bytes for long descriptions, for each waiting leg. Browsers and video phones send these, but not all phones.
const LONG: usize = 1 << 10;
/// Largest share of one source in the room for long descriptions.
const LONG_SHARE: usize = 4;

/// Progress of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A message inside a dialog that may not exist.
    Claimed,
    /// The server has not answered.
    Waiting,
    /// The server has spoken, and the dialog is not up.
    Early,
    /// The dialog is up.
    Up,
    /// The dialog is over.
    Ended,
}

impl Stage {
    const ALL: usize = 5;

    pub(super) const fn is_answered(self) -> bool {
        matches!(self, Self::Early | Self::Up)
    }
}

/// A leg as the room sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) stage: Stage,
    /// An emergency call.
    pub(super) urgent: bool,
    /// Address of the phone.
    pub(super) source: IpAddr,
    /// Bytes of the whole leg.
    pub(super) bytes: usize,
    /// Of these, bytes of long descriptions.
    pub(super) long: usize,
}

impl Footprint {
    const fn queue_index(&self) -> usize {
        self.stage as usize * 2 + self.urgent as usize
    }

    /// Whoever has one address of an IPv6 network can have all of them (RFC 4291 section 2.5.4).
    fn origin(&self) -> IpAddr {
        const NETWORK: u128 = !0 << 64;
        match self.source {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK)),
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

/// A place in a line. Valid while the slot has the same number.
type Ticket = (u64, u32);

struct Seat {
    number: u64,
    footprint: Footprint,
}

/// Legs of one source or one stage in order of arrival.
#[derive(Default)]
struct Line {
    tickets: VecDeque<Ticket>,
    count: usize,
}

impl Line {
    fn push(&mut self, ticket: Ticket, seats: &[Option<Seat>]) {
        self.tickets.push_back(ticket);
        self.count += 1;
        // Stale tickets stay in line until they reach the front or become too many.
        if self.tickets.len() > 2 * self.count + LEAST {
            self.tickets.retain(|t| holds(seats, *t));
        }
    }

    fn first(&mut self, seats: &[Option<Seat>]) -> Option<u32> {
        while let Some(ticket) = self.tickets.front() {
            if holds(seats, *ticket) {
                return Some(ticket.1);
            }
            self.tickets.pop_front();
        }
        None
    }
}

fn holds(seats: &[Option<Seat>], (number, slot): Ticket) -> bool {
    seats.get(slot as usize).and_then(Option::as_ref).is_some_and(|s| s.number == number)
}

/// Which leg of a stage gives way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Eviction {
    /// None, so no order has to be kept.
    Never,
    /// The oldest.
    Oldest,
    /// The oldest of a source above its share, else the oldest.
    GreediestSource,
}

/// The legs of one stage.
struct StageQueue {
    max: usize,
    eviction: Eviction,
    bytes: Budget,
    line: Line,
    sources: HashMap<IpAddr, Line>,
    /// The sources by their number of legs.
    heaviest: BTreeSet<(usize, IpAddr)>,
}

impl StageQueue {
    fn new(max: usize, bytes: usize, eviction: Eviction) -> Self {
        let bytes = Budget::new(max.saturating_mul(bytes));
        Self { max, eviction, bytes, line: Line::default(), sources: HashMap::new(), heaviest: BTreeSet::new() }
    }

    fn is_over(&self) -> bool {
        self.line.count > self.max || self.bytes.is_over()
    }

    fn enter(&mut self, ticket: Ticket, origin: IpAddr, seats: &[Option<Seat>]) {
        match self.eviction {
            Eviction::Never => return self.line.count += 1,
            Eviction::Oldest => return self.line.push(ticket, seats),
            Eviction::GreediestSource => self.line.push(ticket, seats),
        }
        let line = self.sources.entry(origin).or_default();
        self.heaviest.remove(&(line.count, origin));
        line.push(ticket, seats);
        self.heaviest.insert((line.count, origin));
    }

    fn leave(&mut self, origin: IpAddr) {
        self.line.count = self.line.count.saturating_sub(1);
        let Some(line) = self.sources.get_mut(&origin) else { return };
        self.heaviest.remove(&(line.count, origin));
        line.count = line.count.saturating_sub(1);
        if line.count == 0 {
            self.sources.remove(&origin);
        } else {
            self.heaviest.insert((line.count, origin));
        }
    }

    fn first(&mut self, seats: &[Option<Seat>]) -> Option<u32> {
        let greedy = self.heaviest.last().filter(|(count, _)| *count > self.max / SHARE).map(|(_, origin)| *origin);
        let own = greedy.and_then(|origin| self.sources.get_mut(&origin)?.first(seats));
        own.or_else(|| self.line.first(seats))
    }
}

/// All legs of a tracker, by their slots.
pub(super) struct Room {
    seats: Vec<Option<Seat>>,
    queues: [StageQueue; Stage::ALL * 2],
    next: u64,
    max_legs: usize,
    /// Bytes of all answered legs.
    answered: Budget,
    /// Long descriptions of waiting legs in order of arrival.
    long: VecDeque<(Ticket, IpAddr, usize)>,
    long_bytes: Budget,
    long_share: usize,
    /// Length of `long` that triggers the removal of stale entries.
    long_look: usize,
}

impl Room {
    pub(super) fn new(settings: &TrackerSettings) -> Self {
        let legs = settings.max_legs;
        let more = |n: usize| n / URGENT + LEAST / URGENT;
        let (claimed, waiting) = ((legs / CLAIMED).max(LEAST), (legs / WAITING).max(LEAST));
        let ended = legs.max(LEAST);
        let queues = [
            StageQueue::new(claimed, SMALL_LEG, Eviction::GreediestSource),
            StageQueue::new(more(claimed), SMALL_LEG, Eviction::GreediestSource),
            StageQueue::new(waiting, SMALL_LEG, Eviction::GreediestSource),
            StageQueue::new(more(waiting), SMALL_LEG, Eviction::GreediestSource),
            // Answered legs are bounded together; see `is_full`.
            StageQueue::new(legs, LEG, Eviction::GreediestSource),
            StageQueue::new(legs, LEG, Eviction::GreediestSource),
            StageQueue::new(legs, LEG, Eviction::Never),
            StageQueue::new(legs, LEG, Eviction::Never),
            StageQueue::new(ended, ENDED_LEG, Eviction::Oldest),
            StageQueue::new(more(ended), ENDED_LEG, Eviction::Oldest),
        ];
        Self {
            seats: Vec::new(),
            queues,
            next: 0,
            max_legs: legs,
            answered: Budget::new(legs.saturating_mul(LEG)),
            long: VecDeque::new(),
            long_bytes: Budget::new(waiting.saturating_mul(LONG)),
            long_share: waiting.saturating_mul(LONG) / LONG_SHARE,
            long_look: LEAST,
        }
    }

    /// Adds or updates a leg. A new stage means a new place in line.
    pub(super) fn put(&mut self, slot: u32, footprint: Footprint) {
        let place = slot as usize;
        if let Some(seat) = self.seats.get_mut(place).and_then(Option::as_mut)
            && seat.footprint.queue_index() == footprint.queue_index()
            && seat.footprint.origin() == footprint.origin()
        {
            let (was, number) = (seat.footprint, seat.number);
            seat.footprint = footprint;
            self.weigh(footprint.queue_index(), was.bytes, footprint.bytes);
            self.note_long((number, slot), was.long, &footprint);
            return;
        }
        self.leave(slot);
        if self.seats.len() <= place {
            self.seats.resize_with(place + 1, || None);
        }
        self.next += 1;
        let ticket = (self.next, slot);
        self.seats[place] = Some(Seat { number: self.next, footprint });
        self.queues[footprint.queue_index()].enter(ticket, footprint.origin(), &self.seats);
        self.weigh(footprint.queue_index(), 0, footprint.bytes);
        self.note_long(ticket, 0, &footprint);
    }

    /// Removes a forgotten leg.
    pub(super) fn leave(&mut self, slot: u32) {
        let Some(Seat { footprint, .. }) = self.seats.get_mut(slot as usize).and_then(Option::take) else { return };
        self.queues[footprint.queue_index()].leave(footprint.origin());
        self.weigh(footprint.queue_index(), footprint.bytes, 0);
        if footprint.stage == Stage::Waiting {
            self.long_bytes.give(footprint.long);
        }
    }

    fn weigh(&mut self, queue: usize, was: usize, is: usize) {
        let answered = queue >= Stage::Early as usize * 2 && queue < Stage::Ended as usize * 2;
        for budget in [&mut self.queues[queue].bytes].into_iter().chain(answered.then_some(&mut self.answered)) {
            budget.give(was);
            budget.take(is);
        }
    }

    fn note_long(&mut self, ticket: Ticket, was: usize, footprint: &Footprint) {
        if footprint.stage != Stage::Waiting || was == footprint.long {
            return;
        }
        self.long_bytes.give(was);
        self.long_bytes.take(footprint.long);
        if footprint.long > was {
            self.long.push_back((ticket, footprint.origin(), footprint.long));
        }
        if self.long.len() > self.long_look {
            let seats = &self.seats;
            self.long.retain(|(ticket, ..)| is_long(seats, *ticket));
            self.long_look = 2 * self.long.len() + LEAST;
        }
    }

    /// Stage of a leg at its last update.
    pub(super) fn stage(&self, slot: u32) -> Option<Stage> {
        Some(self.seats.get(slot as usize)?.as_ref()?.footprint.stage)
    }

    /// The leg that gives way in an overfull stage of unanswered or ended legs.
    pub(super) fn displaced(&mut self, stage: Stage, urgent: bool) -> Option<u32> {
        let queue = &mut self.queues[stage as usize * 2 + usize::from(urgent)];
        if queue.is_over() { queue.first(&self.seats) } else { None }
    }

    /// Whether more legs are answered than there is room for, after a leg was just answered.
    pub(super) fn is_full(&self, urgent: bool) -> bool {
        !self.fits(0, urgent)
    }

    /// Whether this many further answered legs have room.
    pub(super) fn fits(&self, legs: usize, urgent: bool) -> bool {
        let more = self.max_legs / URGENT + 1;
        let early = Stage::Early as usize * 2;
        let emergencies = self.queues[early + 1].line.count + self.queues[early + 3].line.count;
        // No other call takes the extra room of emergency calls.
        let others = if urgent { self.answered() } else { self.answered() - emergencies.min(more) };
        others + legs <= self.max_legs + if urgent { more } else { 0 }
    }

    /// The leg that gives way if too many are answered: the oldest that still rings, an emergency call only as the last
    /// resort.
    pub(super) fn ringing(&mut self, urgent: bool) -> Option<u32> {
        let early = Stage::Early as usize * 2;
        let other = self.queues[early].first(&self.seats);
        if urgent { other.or_else(|| self.queues[early + 1].first(&self.seats)) } else { other }
    }

    /// Whether the answered legs exceed their bytes.
    pub(super) const fn is_heavy(&self) -> bool {
        self.answered.is_over()
    }

    /// The waiting leg that loses its long descriptions because there are too many bytes of them: the oldest, or the
    /// oldest of a source above its share.
    pub(super) fn long_winded(&mut self) -> Option<u32> {
        let Self { long, seats, .. } = self;
        while long.front().is_some_and(|(ticket, ..)| !is_long(seats, *ticket)) {
            long.pop_front();
        }
        if !self.long_bytes.is_over() {
            let newest = self.long.back()?.1;
            let own = self.long.iter().filter(|(ticket, origin, _)| *origin == newest && is_long(&self.seats, *ticket));
            if own.map(|(.., bytes)| bytes).sum::<usize>() <= self.long_share {
                return None;
            }
            return self
                .long
                .iter()
                .find(|(t, origin, _)| *origin == newest && is_long(&self.seats, *t))
                .map(|(t, ..)| t.1);
        }
        self.long.front().map(|(ticket, ..)| ticket.1)
    }

    fn count(&self, stage: Stage) -> usize {
        self.queues[stage as usize * 2..][..2].iter().map(|w| w.line.count).sum()
    }

    pub(super) fn answered(&self) -> usize {
        self.count(Stage::Early) + self.count(Stage::Up)
    }

    pub(super) fn unanswered(&self) -> usize {
        self.count(Stage::Claimed) + self.count(Stage::Waiting)
    }

    pub(super) fn all(&self) -> usize {
        self.answered() + self.unanswered() + self.count(Stage::Ended)
    }

    pub(super) fn bytes(&self) -> usize {
        self.queues.iter().map(|w| w.bytes.used()).sum()
    }
}

fn is_long(seats: &[Option<Seat>], ticket: Ticket) -> bool {
    let seat = seats.get(ticket.1 as usize).and_then(Option::as_ref);
    seat.is_some_and(|s| s.number == ticket.0 && s.footprint.stage == Stage::Waiting && s.footprint.long > 0)
}

#[cfg(test)]
mod tests;
