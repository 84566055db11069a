//! Puts the captured bytes of one direction of a TCP connection in order (RFC 9293 section 3.4). Segments may repeat,
//! overlap, overtake each other, or be missing.

use crate::time::Time;
use std::time::Duration;

/// Bytes held behind a hole. With more, the hole is given up: a sender with such a window has long retransmitted
/// whatever its peer lacks, so only this host's capture missed the bytes.
pub(super) const MAX_HELD: usize = 256 << 10;
/// Segments held behind a hole. This bounds tiny segments, which cost more than their bytes.
pub(super) const MAX_SEGMENTS: usize = 128;
/// Time-out of a hole whose bytes the receiver has not acknowledged. It covers a few TCP retransmissions, which begin
/// at 200 ms to 1 s and double.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Largest distance from the expected number. Beyond it the segment belongs to another connection with an unseen SYN,
/// or follows a loss too large to wait for.
const REACH: u32 = 1 << 20;

/// A segment, without its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) seq: u32,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) data: &'a [u8],
}

/// Output of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// Bytes are missing at this point.
    Gap,
    /// A new connection begins between the same ports.
    Restart,
    /// End of the stream.
    End,
}

/// State of one stream.
#[derive(Debug)]
pub(super) struct Order {
    /// Number of the next byte to hand out.
    next: u32,
    /// Number of the connection's first byte, or of the first one seen if the connection was already open.
    first: u32,
    /// First byte's number of a new connection, after a SYN with a new number.
    reborn: Option<u32>,
    /// Number after the stream's last byte, once its FIN was seen.
    end: Option<u32>,
    /// Segments behind a hole, sorted by number. Of two with the same number the longer one is kept.
    held: Vec<(u32, Vec<u8>)>,
    held_bytes: usize,
    /// Start of the current hole.
    hole_since: Time,
    pub(super) repeated: u64,
    pub(super) early: u64,
    pub(super) gaps: u64,
}

/// Distance from `b` to `a`, negative if `a` comes before `b`. Numbers wrap around.
const fn after(a: u32, b: u32) -> i64 {
    a.wrapping_sub(b).cast_signed() as i64
}

fn near(a: u32, b: u32) -> bool {
    after(a, b).unsigned_abs() <= u64::from(REACH)
}

impl Order {
    /// A stream that begins with this segment, the first one seen.
    pub(super) fn new(part: &Part<'_>) -> Self {
        let first = if part.syn { part.seq.wrapping_add(1) } else { part.seq };
        Self {
            next: first,
            first,
            reborn: None,
            end: None,
            held: Vec::new(),
            held_bytes: 0,
            hole_since: Time::ZERO,
            repeated: 0,
            early: 0,
            gaps: 0,
        }
    }

    pub(super) fn handle(&mut self, part: &Part<'_>, now: Time, out: &mut dyn FnMut(Piece<'_>)) {
        let mut seq = part.seq;
        if part.syn {
            // RFC 9293 section 3.4: the SYN takes a number of its own. RFC 7413 allows data with it.
            seq = seq.wrapping_add(1);
            if seq != self.first {
                self.reborn = Some(seq);
            }
        }
        if part.rst {
            // RFC 5961 section 3.2: only a RST near the expected number counts. Others may be forged.
            if near(seq, self.next) {
                self.release(out);
                out(Piece::End);
            }
            return;
        }
        if part.data.is_empty() && !part.fin {
            return;
        }
        if let Some(first) = self.reborn
            && (seq == first || (near(seq, first) && !near(seq, self.next)))
        {
            let counts = (self.repeated, self.early, self.gaps);
            *self = Self::new(&Part { seq: first, syn: false, ..*part });
            (self.repeated, self.early, self.gaps) = counts;
            out(Piece::Restart);
        }
        if !near(seq, self.next) {
            self.held.clear();
            self.held_bytes = 0;
            self.end = None;
            self.next = seq;
            self.gaps += 1;
            out(Piece::Gap);
        }
        if part.fin {
            self.end = Some(seq.wrapping_add(u32::try_from(part.data.len()).unwrap_or(u32::MAX)));
        }
        let ahead = after(seq, self.next);
        if ahead > 0 {
            self.hold(seq, part.data, now);
            if self.held_bytes > MAX_HELD || self.held.len() > MAX_SEGMENTS || now.since(self.hole_since) > PATIENCE {
                self.skip(out);
            }
        } else {
            self.give(seq, part.data, out);
        }
        self.drain(out);
        self.close(out);
    }

    /// The receiver acknowledged every byte before `number`, so the sender will not retransmit the missing ones.
    pub(super) fn acknowledged(&mut self, number: u32, out: &mut dyn FnMut(Piece<'_>)) {
        if self.held.is_empty() || !near(number, self.next) {
            return;
        }
        while !self.held.is_empty() && after(number, self.next) > 0 {
            self.skip(out);
            self.drain(out);
        }
        self.close(out);
    }

    /// Gives up an overdue hole.
    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut dyn FnMut(Piece<'_>)) {
        if !self.held.is_empty() && now.since(self.hole_since) > PATIENCE {
            self.hole_since = now;
            self.skip(out);
            self.drain(out);
            self.close(out);
        }
    }

    /// Bytes held behind a hole.
    pub(super) const fn held(&self) -> usize {
        self.held_bytes
    }

    /// The stream waits for missing bytes.
    pub(super) const fn has_hole(&self) -> bool {
        !self.held.is_empty()
    }

    /// Hands out all held bytes, across holes.
    fn release(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        while !self.held.is_empty() {
            self.skip(out);
            self.drain(out);
        }
    }

    fn hold(&mut self, seq: u32, data: &[u8], now: Time) {
        self.early += 1;
        if data.is_empty() {
            // A FIN behind a hole. Its number is recorded, and there are no bytes to hold.
            return;
        }
        if self.held.is_empty() {
            self.hole_since = now;
        }
        let place = self.held.partition_point(|(s, _)| after(seq, *s) > 0);
        match self.held.get_mut(place) {
            Some((s, old)) if *s == seq => {
                if old.len() >= data.len() {
                    self.repeated += 1;
                } else {
                    self.held_bytes += data.len() - old.len();
                    *old = data.to_vec();
                }
            }
            _ => {
                self.held_bytes += data.len();
                self.held.insert(place, (seq, data.to_vec()));
            }
        }
    }

    /// Hands out the new part of `data`, which begins at or before the expected number.
    fn give(&mut self, seq: u32, data: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        let known = usize::try_from(after(self.next, seq)).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else {
            self.repeated += u64::from(!data.is_empty());
            return;
        };
        // A segment is far shorter than 4 GB.
        self.next = self.next.wrapping_add(u32::try_from(new.len()).unwrap_or(u32::MAX));
        out(Piece::Bytes(new));
    }

    fn drain(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        while let Some((seq, _)) = self.held.first()
            && after(*seq, self.next) <= 0
        {
            let (seq, data) = self.held.remove(0);
            self.held_bytes -= data.len();
            self.give(seq, &data, out);
        }
    }

    fn close(&self, out: &mut dyn FnMut(Piece<'_>)) {
        if self.end.is_some_and(|end| after(self.next, end) >= 0) {
            out(Piece::End);
        }
    }

    /// Skips the hole.
    fn skip(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        if let Some((seq, _)) = self.held.first() {
            self.next = *seq;
            self.gaps += 1;
            out(Piece::Gap);
        }
    }
}

#[cfg(test)]
mod tests;
