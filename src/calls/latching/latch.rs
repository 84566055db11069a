//! Decides which address a phone's RTP comes from: latching (RFC 7362 section 4), by a passive observer. Pure.
//!
//! The relay sends audio to the believed address. If an attacker could steer it, the conversation would go to whoever
//! sends enough packets. Three samples are therefore believed only from a host that the signalling names: the host in
//! the session description, or the source of the phone's SIP (a NAT's public side). Further rules:
//!
//! - The described address, once seen sending, never loses to another one.
//! - A live stream moves to another address only if its SSRC continues there with nearby sequence numbers, and the old
//!   address is silent. Silence alone proves nothing: it may be a hold, or a phone that sends nothing while nobody
//!   speaks.
//! - If two addresses send at once, neither is taken.
//! - In doubt the address stays.
//!
//! A phone may start a new SSRC after a renegotiation. A source from a stored record has no known SSRC at all. In both
//! cases silence of the old address for [`Latch::handle`]'s `patience` is enough.

use super::rtp::Sample;
use crate::calls::model::may_send_rtp;
use crate::time::Time;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Samples of one stream that must agree. A single one could be a stray packet of the previous call on the port.
pub(super) const AGREE: u8 = 3;
/// Streams that may wait to be believed. More than two at a time on one port are an attack, and then none is believed.
pub(super) const RIVALS: usize = 3;
/// Packets that may be missing between two samples of one stream, in addition to those of the elapsed time (RFC 3550
/// appendix A.1, MAX_DROPOUT), and how far the second may be behind (MAX_MISORDER).
const DROPOUT: u64 = 3000;
const MISORDER: u16 = 100;
/// Highest packet rate of a stream: video of several Mbit/s. Audio has 50 to 100 packets a second.
const FASTEST: u64 = 1000;

/// The result of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet, or nothing new.
    Nothing,
    /// RTP is now believed to come from this address.
    Believed(SocketAddr),
    /// The sample comes from a host that the signalling does not name.
    Foreign,
    /// The sample comes from a named host, but cannot be believed.
    Doubtful,
}

/// A stream from one address.
#[derive(Clone, Copy, Debug)]
struct Stream {
    from: SocketAddr,
    /// SSRC and last sequence number. `None` if only the address is known.
    id: Option<(u32, u16)>,
    first: Time,
    last: Time,
    agreed: u8,
}

impl Stream {
    fn new(s: &Sample, now: Time) -> Self {
        Self { from: s.from, id: Some((s.ssrc, s.seq)), first: now, last: now, agreed: 1 }
    }

    fn is_at(&self, s: &Sample) -> bool {
        self.from == s.from && self.id.is_none_or(|(ssrc, _)| ssrc == s.ssrc)
    }

    /// Whether a sample continues this stream, from any address.
    fn goes_on(&self, s: &Sample, now: Time) -> bool {
        self.id.is_some_and(|(ssrc, seq)| ssrc == s.ssrc && near(seq, s.seq, now.since(self.last)))
    }

    fn take(&mut self, s: &Sample, now: Time) {
        if self.id.is_some() && !self.goes_on(s, now) {
            (self.first, self.agreed) = (now, 0);
        }
        self.id = Some((s.ssrc, s.seq));
        self.last = now;
        self.agreed = self.agreed.saturating_add(1);
    }
}

/// Whether `after` can follow `before` within `elapsed`. Over minutes the numbers wrap around and exclude nothing, and
/// the SSRC alone decides.
fn near(before: u16, after: u16, elapsed: Duration) -> bool {
    let ahead = after.wrapping_sub(before);
    let missed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(FASTEST) / 1000;
    u64::from(ahead) <= missed.saturating_add(DROPOUT) || before.wrapping_sub(after) <= MISORDER
}

/// Whether an address is unreachable from outside of its own network (RFC 1918, RFC 6598, RFC 4193, RFC 3927, RFC
/// 4291). A phone that describes such an address sits behind a NAT.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || ip.is_unspecified() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback() || ip.is_unspecified(),
    }
}

/// One phone's stream to one port of the server.
#[derive(Clone, Debug)]
pub(super) struct Latch {
    /// The address in the phone's description.
    told: SocketAddr,
    current: Option<Stream>,
    rivals: SmallVec<[Stream; RIVALS]>,
    /// Since when the stream may continue with another SSRC, and how many samples have continued the old one since.
    loose: Option<(Time, u8)>,
}

impl Latch {
    /// For a phone that has described `told`. `kept` is the source of its RTP in the stored record.
    pub(super) fn new(told: SocketAddr, kept: Option<SocketAddr>, now: Time) -> Self {
        let current = kept.map(|from| Stream { from, id: None, first: now, last: now, agreed: 0 });
        Self { told, loose: current.map(|_| (now, 0)), current, rivals: SmallVec::new() }
    }

    pub(super) const fn told(&self) -> SocketAddr {
        self.told
    }

    /// The believed source of the RTP.
    pub(super) fn source(&self) -> SocketAddr {
        self.current.map_or(self.told, |c| c.from)
    }

    /// Whether more samples are needed soon.
    pub(super) fn is_open(&self) -> bool {
        self.current.is_none_or(|c| c.agreed < AGREE) || !self.rivals.is_empty()
    }

    /// The session was renegotiated, and the phone describes the same address.
    pub(super) fn renegotiated(&mut self, now: Time) {
        if self.current.is_some() {
            self.loose = Some((now, 0));
        }
    }

    /// Takes a sample. `signalling` is the source host of the phone's SIP. `patience` is longer than chance can keep a
    /// live stream unsampled.
    pub(super) fn handle(&mut self, s: &Sample, signalling: IpAddr, patience: Duration, now: Time) -> Outcome {
        if !may_send_rtp(self.told.ip(), signalling, s.from.ip()) {
            return Outcome::Foreign;
        }
        self.rivals.retain(|r| now.since(r.last) <= patience);
        if let Some(current) = self.current.as_mut().filter(|c| c.is_at(s)) {
            current.take(s, now);
            self.loose = self.loose.map(|(since, n)| (since, n + 1)).filter(|(_, n)| *n < AGREE);
            return Outcome::Nothing;
        }
        if !self.may_wait(s, now) {
            return Outcome::Doubtful;
        }
        let rival = self.rival(s, now);
        if rival.agreed < AGREE {
            return Outcome::Nothing;
        }
        if !self.may_follow(&rival, patience, now) {
            return Outcome::Doubtful;
        }
        let moved = self.current.is_none_or(|c| c.from != rival.from);
        self.current = Some(rival);
        self.rivals.clear();
        self.loose = None;
        if moved { Outcome::Believed(rival.from) } else { Outcome::Nothing }
    }

    /// Whether a sample outside the current stream deserves a place among the rivals.
    fn may_wait(&self, s: &Sample, now: Time) -> bool {
        let Some(current) = &self.current else { return true };
        let waits = self.rivals.iter().any(|r| r.from == s.from && r.goes_on(s, now));
        waits || s.from == current.from || s.from == self.told || self.loose.is_some() || current.goes_on(s, now)
    }

    fn rival(&mut self, s: &Sample, now: Time) -> Stream {
        if let Some(known) = self.rivals.iter_mut().find(|r| r.is_at(s)) {
            known.take(s, now);
            return *known;
        }
        if self.rivals.len() >= RIVALS {
            // The rival with the fewest samples gives way, so a flood of new streams displaces its own.
            let least = self.rivals.iter().enumerate().min_by_key(|(_, r)| (r.agreed, r.last)).map(|(n, _)| n);
            least.map(|n| self.rivals.remove(n));
        }
        let new = Stream::new(s, now);
        self.rivals.push(new);
        new
    }

    /// Whether a stream with enough samples replaces the current one.
    fn may_follow(&self, new: &Stream, patience: Duration, now: Time) -> bool {
        let described = new.from == self.told;
        // Another address sends as well. For the described address one sample is enough.
        let others = self.rivals.iter().filter(|r| r.from != new.from);
        let contested = others.clone().any(|r| r.last >= new.first || r.from == self.told);
        let Some(current) = &self.current else { return described || !contested };
        let silent = current.last < new.first;
        let long_silent = now.since(current.last.max(self.loose.map_or(current.last, |(since, _)| since))) > patience;
        if current.from == new.from {
            // A new SSRC at the same address misdirects nobody, but it must not replace a stream that continues.
            return long_silent || (silent && self.loose.is_some());
        }
        let same = current.id.zip(new.id).is_some_and(|((before, _), (after, _))| before == after);
        if described {
            // Only the phone has the described address, unless it is private and others use it in their own networks.
            return current.from.ip() == self.told.ip()
                || !is_inside(self.told.ip())
                || (same && silent)
                || long_silent;
        }
        !contested && ((same && silent) || (self.loose.is_some() && long_silent))
    }
}

#[cfg(test)]
mod tests;
