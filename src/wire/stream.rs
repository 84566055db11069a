//! SIP messages out of the TCP connections that pass by. Each direction of a connection is a stream of its own; a stream may have been
//! open before this was there to see it. Pure.
//!
//! When there is no room, the stream that was silent for the longest is forgotten. Nothing more is lost by it than a message that was
//! just being sent: the next segment makes the stream known again, as one that was open before.

use crate::sip::framer::{self, Framer};
use crate::time::Time;
use crate::wire::frame::Tcp;
use order::{Order, Part, Piece};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod order;

/// Streams that are known at one time, two a connection: thirty thousand phones that keep a connection open. Some 300 bytes each.
pub const MAX_STREAMS: usize = 65_536;
/// Bytes of all streams together that wait for others. A message waits for a few milliseconds, so that this much is waiting only where
/// somebody means harm or the capture loses most of what there is.
pub const MAX_BUFFERED: usize = 32 << 20;
/// A stream that is silent for so long is forgotten. Keep-alives come every 2 minutes or more often (RFC 5626 section 4.4.1).
const IDLE: Duration = Duration::from_secs(600);
/// How often holes, and messages that only silence ends, are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Places of the queue that may be taken by streams that ended, besides as many as there are streams.
const SPARE: usize = 1024;

/// Takes source, destination and bytes of a message.
pub type Out<'f> = &'f mut dyn FnMut(SocketAddr, SocketAddr, &[u8]);

/// Who sends to whom.
type Key = (SocketAddr, SocketAddr);

/// What came of the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCounters {
    /// Streams that are known now.
    pub streams: u64,
    /// Streams that were ever begun.
    pub opened: u64,
    /// Streams forgotten for want of room, with whatever waited in them.
    pub evicted: u64,
    /// Segments with data.
    pub segments: u64,
    /// Segments that brought nothing new.
    pub repeated: u64,
    /// Segments that came before their turn.
    pub early: u64,
    /// Places where bytes were missing for good.
    pub gaps: u64,
    /// Bytes passed over because no message could be made out of them.
    pub skipped: u64,
    /// Whole messages.
    pub messages: u64,
}

#[derive(Debug)]
struct Stream {
    order: Order,
    framer: Framer,
    last: Time,
}

impl Stream {
    fn buffered(&self) -> usize {
        self.order.held() + self.framer.buffered()
    }

    /// Whether time alone can bring something out of it.
    fn waits(&self) -> bool {
        self.order.has_hole() || self.framer.is_open_ended()
    }
}

/// The streams that are known.
#[derive(Debug)]
pub struct Streams {
    streams: HashMap<Key, Stream>,
    /// Each stream once, in about the order of their last use: one that is found at the front and was used since goes to the back.
    queue: VecDeque<(Key, Time)>,
    /// Only a stream whose first segment begins like SIP is taken up.
    pick: bool,
    buffered: usize,
    /// Streams out of which time alone can bring something.
    waiting: usize,
    look_at: Time,
    counters: StreamCounters,
}

impl Streams {
    /// No streams. With `pick`, a stream is taken up where a segment of it begins like a message: for when it is not known which ports
    /// are SIP's.
    #[must_use]
    pub fn new(pick: bool) -> Self {
        Self {
            streams: HashMap::new(),
            queue: VecDeque::new(),
            pick,
            buffered: 0,
            waiting: 0,
            look_at: Time::FAR,
            counters: StreamCounters::default(),
        }
    }

    /// Takes a segment and hands each message that it completes to `out`.
    pub fn handle_segment(&mut self, src: IpAddr, dst: IpAddr, tcp: &Tcp<'_>, now: Time, out: Out<'_>) {
        let key = (SocketAddr::new(src, tcp.sport), SocketAddr::new(dst, tcp.dport));
        if let Some(number) = tcp.ack.filter(|_| self.waiting > 0) {
            self.with((key.1, key.0), now, out, |order, _, each| order.acknowledged(number, each));
        }
        let part = Part { seq: tcp.seq, syn: tcp.syn, fin: tcp.fin, rst: tcp.rst, data: tcp.data };
        if !self.streams.contains_key(&key) {
            let begins = if self.pick { framer::may_begin(tcp.data) } else { !tcp.data.is_empty() || tcp.syn };
            if !begins || tcp.rst {
                return;
            }
            self.open(key, &part, now);
        }
        self.counters.segments += u64::from(!tcp.data.is_empty());
        self.with(key, now, out, |order, now, each| order.handle(&part, now, each));
        while self.buffered > MAX_BUFFERED && self.evict() {}
        self.sweep(now);
    }

    /// When [`Streams::handle_timeout`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        (self.waiting > 0).then_some(self.look_at)
    }

    /// Gives up on what did not come in time.
    pub fn handle_timeout(&mut self, now: Time, out: Out<'_>) {
        if self.waiting == 0 || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        let mut late: Vec<(Time, Key)> = self
            .streams
            .iter()
            .filter(|(_, s)| s.waits() && now.since(s.last) >= LOOK)
            .map(|(key, s)| (s.last, *key))
            .collect();
        // In the order of time: a request waits in one stream, and its answer in another.
        late.sort_unstable();
        for (last, key) in late {
            self.with(key, last, out, |order, _, each| order.handle_timeout(now, each));
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            let before = (stream.buffered(), stream.waits());
            stream.framer.finish(&mut |message| {
                self.counters.messages += 1;
                out(key.0, key.1, message);
            });
            let after = (stream.buffered(), stream.waits());
            self.account(before, after);
        }
    }

    /// What came of the segments so far.
    #[must_use]
    pub fn counters(&self) -> StreamCounters {
        StreamCounters { streams: self.streams.len() as u64, ..self.counters }
    }

    /// Runs `f` on the order of a stream, if it is known, and what comes out of that through its framer.
    fn with(&mut self, key: Key, now: Time, out: Out<'_>, f: impl FnOnce(&mut Order, Time, &mut dyn FnMut(Piece<'_>))) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.last = stream.last.max(now);
        let before = (stream.buffered(), stream.waits());
        let counters = &mut self.counters;
        let mut each = |message: &[u8]| {
            counters.messages += 1;
            out(key.0, key.1, message);
        };
        let Stream { order, framer, .. } = stream;
        let (repeated, early, gaps, mut skipped) = (order.repeated, order.early, order.gaps, framer.skipped());
        let mut ended = false;
        let mut lost = 0;
        f(order, now, &mut |piece| match piece {
            Piece::Bytes(bytes) => framer.feed(bytes, &mut each),
            Piece::Gap => framer.gap(),
            Piece::Restart => {
                framer.finish(&mut each);
                lost += framer.skipped() - skipped + framer.buffered() as u64;
                skipped = 0;
                *framer = Framer::new();
            }
            Piece::End => {
                framer.finish(&mut each);
                ended = true;
            }
        });
        counters.repeated += order.repeated - repeated;
        counters.early += order.early - early;
        counters.gaps += order.gaps - gaps;
        counters.skipped += framer.skipped() - skipped + lost;
        let after = (stream.buffered(), stream.waits());
        let none_waited = self.waiting == 0;
        self.account(before, after);
        if ended {
            self.remove(key);
        } else if none_waited && self.waiting > 0 {
            self.look_at = now + LOOK;
        }
    }

    const fn account(&mut self, before: (usize, bool), after: (usize, bool)) {
        self.buffered = self.buffered + after.0 - before.0;
        self.waiting = self.waiting + after.1 as usize - before.1 as usize;
    }

    fn open(&mut self, key: Key, part: &Part<'_>, now: Time) {
        while self.streams.len() >= MAX_STREAMS && self.evict() {}
        let framer = if part.syn { Framer::new() } else { Framer::joined() };
        self.streams.insert(key, Stream { order: Order::new(part), framer, last: now });
        // Streams that ended stay in the queue until they come to its front. With many short ones they are thrown out all at once.
        if self.queue.len() > 2 * self.streams.len() + SPARE {
            let mut known = HashSet::new();
            self.queue.retain(|(key, _)| self.streams.contains_key(key) && known.insert(*key));
        }
        self.queue.push_back((key, now));
        self.counters.opened += 1;
    }

    fn remove(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(&key) {
            self.account((stream.buffered(), stream.waits()), (0, false));
        }
    }

    /// Forgets the stream that was silent for the longest. False if there is none.
    fn evict(&mut self) -> bool {
        // Each that was used since it was queued goes round once, so this ends.
        while let Some((key, queued)) = self.queue.pop_front() {
            match self.streams.get(&key) {
                None => {}
                Some(stream) if stream.last > queued => self.queue.push_back((key, stream.last)),
                Some(_) => {
                    self.counters.evicted += 1;
                    self.remove(key);
                    return true;
                }
            }
        }
        false
    }

    /// Looks at the two streams at the front of the queue, so that the cost of tidying up goes with the traffic: those that ended leave
    /// the queue faster than new ones enter it.
    fn sweep(&mut self, now: Time) {
        for _ in 0..2 {
            let Some((key, queued)) = self.queue.pop_front() else { return };
            match self.streams.get(&key) {
                None => {}
                Some(stream) if now.since(stream.last) >= IDLE => self.remove(key),
                Some(stream) if stream.last > queued => self.queue.push_back((key, stream.last)),
                Some(_) => {
                    // The oldest of all is in use: nothing to do.
                    self.queue.push_front((key, queued));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
