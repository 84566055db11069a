//! Which address a phone's RTP is believed to come from: latching (RFC 7362 section 4), for somebody who only overhears. Pure.
//!
//! Audio goes where it is believed to come from, so a guess that can be steered hands a conversation to whoever sends enough packets.
//! Three samples are believed only from a host that the signalling names: that of the session description, or the one that the phone's
//! SIP comes from (what a NAT shows of a phone). Beyond that:
//!
//! - the described address, seen sending, is never beaten by another one;
//! - a stream that is there is followed to another address only if its SSRC goes on there, with sequence numbers that are near, and the
//!   old address has fallen silent: silence alone is a hold, or a phone that sends nothing while nobody speaks;
//! - of two that send at once neither is taken;
//! - in doubt the address stays as it is.
//!
//! A phone may begin a stream with another SSRC when the session is negotiated anew; for a stream of which only the address is known (from a
//! record of the store) nothing else can be said either. Then silence of the old address for [`Latch::handle`]'s `patience` counts.

use super::rtp::Sample;
use crate::time::Time;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Samples of one stream that must agree. One alone could be a stray packet of the call that had the port before.
pub(super) const AGREE: u8 = 3;
/// Streams that may wait to be believed. More than two that send to one port at a time are an attack, and then none is believed.
pub(super) const RIVALS: usize = 3;
/// Packets that may be missing between two samples of one stream, besides those of the time between them (RFC 3550 appendix A.1,
/// MAX_DROPOUT), and how far the second may be behind (MAX_MISORDER).
const DROPOUT: u64 = 3000;
const MISORDER: u16 = 100;
/// Packets a second that a stream has at most: video of several Mbit/s. Audio has 50 to 100.
const FASTEST: u64 = 1000;

/// What a sample led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet, or what was known already.
    Nothing,
    /// From now on RTP is believed to come from here.
    Believed(SocketAddr),
    /// It comes from a host that the signalling does not name.
    Foreign,
    /// It comes from a host that the signalling names, and still cannot be believed.
    Doubtful,
}

/// A stream from one address.
#[derive(Clone, Copy, Debug)]
struct Stream {
    from: SocketAddr,
    /// SSRC and last sequence number; `None` if only the address is known.
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

    /// Whether a sample goes on with this stream, from wherever it comes.
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

/// Whether a sequence number can follow another after so long. Over minutes the numbers wrap around and exclude nothing; then the SSRC
/// alone speaks.
fn near(before: u16, after: u16, elapsed: Duration) -> bool {
    let ahead = after.wrapping_sub(before);
    let missed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(FASTEST) / 1000;
    u64::from(ahead) <= missed.saturating_add(DROPOUT) || before.wrapping_sub(after) <= MISORDER
}

/// An address that nobody reaches from outside of its own network, so that a NAT is between if it is described (RFC 1918, RFC 6598,
/// RFC 4193, RFC 3927, RFC 4291).
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
    /// Since when the stream may go on with another SSRC, and how often it has gone on as it was since then.
    loose: Option<(Time, u8)>,
}

impl Latch {
    /// For a phone that has described `told`. `kept`: where its RTP came from by what was stored of it.
    pub(super) fn new(told: SocketAddr, kept: Option<SocketAddr>, now: Time) -> Self {
        let current = kept.map(|from| Stream { from, id: None, first: now, last: now, agreed: 0 });
        Self { told, loose: current.map(|_| (now, 0)), current, rivals: SmallVec::new() }
    }

    pub(super) const fn told(&self) -> SocketAddr {
        self.told
    }

    /// Where RTP is believed to come from.
    pub(super) fn source(&self) -> SocketAddr {
        self.current.map_or(self.told, |c| c.from)
    }

    /// Whether more samples are wanted soon.
    pub(super) fn is_open(&self) -> bool {
        self.current.is_none_or(|c| c.agreed < AGREE) || !self.rivals.is_empty()
    }

    /// The session was negotiated anew, and the phone describes the same address.
    pub(super) fn renegotiated(&mut self, now: Time) {
        if self.current.is_some() {
            self.loose = Some((now, 0));
        }
    }

    /// Takes a sample. `signalling` is the host that the phone's SIP comes from; `patience` is how long a stream that is there goes unsampled
    /// by no chance.
    pub(super) fn handle(&mut self, s: &Sample, signalling: IpAddr, patience: Duration, now: Time) -> Outcome {
        if s.from.ip() != self.told.ip() && s.from.ip() != signalling {
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

    /// Whether a sample of another stream than the current one is worth a place among the rivals.
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
            // What has been seen least gives way, so that a flood of new streams pushes out its own.
            let least = self.rivals.iter().enumerate().min_by_key(|(_, r)| (r.agreed, r.last)).map(|(n, _)| n);
            least.map(|n| self.rivals.remove(n));
        }
        let new = Stream::new(s, now);
        self.rivals.push(new);
        new
    }

    /// Whether a stream that was sampled often enough takes the place of what is there.
    fn may_follow(&self, new: &Stream, patience: Duration, now: Time) -> bool {
        let described = new.from == self.told;
        // Another that sends as well; of the described address one sample is enough.
        let others = self.rivals.iter().filter(|r| r.from != new.from);
        let contested = others.clone().any(|r| r.last >= new.first || r.from == self.told);
        let Some(current) = &self.current else { return described || !contested };
        let silent = current.last < new.first;
        let long_silent = now.since(current.last.max(self.loose.map_or(current.last, |(since, _)| since))) > patience;
        if current.from == new.from {
            // Another SSRC at the same address leads nobody astray; it must not stand for a stream that goes on.
            return long_silent || (silent && self.loose.is_some());
        }
        let same = current.id.zip(new.id).is_some_and(|((before, _), (after, _))| before == after);
        if described {
            // Nobody but the phone has the described address, unless it is one that others have as well in their own networks.
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
