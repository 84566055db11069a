//! Reads SIP messages out of captured TCP connections. Each direction of a connection is one stream, and a stream may
//! have been open before the capture began. Pure.
//!
//! When room runs out, the longest idle stream is forgotten. This loses at most the message in transit: the next
//! segment adds the stream again, as one that was open before.

use crate::sip::framer::{self, Framer};
use crate::time::Time;
use crate::wire::frame::Tcp;
use order::{Order, Part, Piece};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod order;

/// Streams tracked at one time, two a connection: thirty thousand phones with an open connection. A stream takes some
/// 300 bytes.
pub const MAX_STREAMS: usize = 65_536;
/// Bytes that wait in all streams together. A message waits a few milliseconds, so the limit is reached only in an
/// attack or when the capture loses most frames.
pub const MAX_BUFFERED: usize = 32 << 20;
/// Idle time-out of a stream. Keep-alives come every 2 minutes or more often (RFC 5626 section 4.4.1).
const IDLE: Duration = Duration::from_secs(600);
/// Interval of the check for holes and for messages that only silence ends.
const LOOK: Duration = Duration::from_millis(500);
/// Extra queue entries allowed for ended streams, besides one for each live stream.
const SPARE: usize = 1024;

/// Receives source, destination and bytes of a message.
pub type Out<'f> = &'f mut dyn FnMut(SocketAddr, SocketAddr, &[u8]);

/// Sender and receiver.
type Key = (SocketAddr, SocketAddr);

/// Counts of segments by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCounters {
    /// Streams tracked now.
    pub streams: u64,
    /// Streams ever opened.
    pub opened: u64,
    /// Streams forgotten for lack of room, with all waiting bytes.
    pub evicted: u64,
    /// Segments with data.
    pub segments: u64,
    /// Segments without new bytes.
    pub repeated: u64,
    /// Segments that arrived ahead of missing bytes.
    pub early: u64,
    /// Places with bytes lost for good.
    pub gaps: u64,
    /// Bytes skipped because they form no message.
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

    /// Time alone can complete something in this stream.
    fn waits(&self) -> bool {
        self.order.has_hole() || self.framer.is_open_ended()
    }
}

/// All tracked streams.
#[derive(Debug)]
pub struct Streams {
    streams: HashMap<Key, Stream>,
    /// Each stream once, roughly by last use. A stream at the front that was used since it was queued goes to the back.
    queue: VecDeque<(Key, Time)>,
    /// Track a stream only from a segment that begins like a SIP message.
    pick: bool,
    buffered: usize,
    /// Streams in which time alone can complete something.
    waiting: usize,
    look_at: Time,
    counters: StreamCounters,
}

impl Streams {
    /// No streams yet. With `pick`, a stream is tracked from the first segment that begins like a message. This serves
    /// captures with unknown SIP ports.
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

    /// Handles one segment and hands each message that it completes to `out`.
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

    /// The time at which [`Streams::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        (self.waiting > 0).then_some(self.look_at)
    }

    /// Gives up on overdue bytes.
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
        // Oldest first: a request waits in one stream, and its response in another.
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

    /// Counts of segments so far, by outcome.
    #[must_use]
    pub fn counters(&self) -> StreamCounters {
        StreamCounters { streams: self.streams.len() as u64, ..self.counters }
    }

    /// Runs `f` on the order of a tracked stream and feeds the result to the stream's framer.
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
        // Ended streams stay in the queue until they reach the front. A burst of short streams fills it, so drop them
        // all at once.
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

    /// Forgets the longest idle stream. False if there is none.
    fn evict(&mut self) -> bool {
        // A stream used since it was queued goes round once, so the loop ends.
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

    /// Checks the two streams at the front of the queue, so the cost of cleaning up follows the traffic. Ended streams
    /// leave the queue faster than new ones enter it.
    fn sweep(&mut self, now: Time) {
        for _ in 0..2 {
            let Some((key, queued)) = self.queue.pop_front() else { return };
            match self.streams.get(&key) {
                None => {}
                Some(stream) if now.since(stream.last) >= IDLE => self.remove(key),
                Some(stream) if stream.last > queued => self.queue.push_back((key, stream.last)),
                Some(_) => {
                    // Even the oldest stream is still active.
                    self.queue.push_front((key, queued));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
