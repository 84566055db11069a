//! Where phones really send their RTP from, learnt from a few sampled packets. Pure.
//!
//! A phone behind a NAT, or one that sends from another port than it listens on, cannot be known from its SDP alone. The relay
//! of a recovered call goes by the real source, so it is learnt while the call is healthy. What is believed is decided in `latch.rs`.

mod latch;
mod rtp;

pub use rtp::Sample;

use crate::calls::model::{Leg, Verbatim};
use crate::calls::tracker::LegId;
use crate::sip::sdp;
use crate::time::Time;
use latch::{AGREE, Latch, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The index is made anew at most this often: it reads every description, and a change waits this long without harm.
const REBUILD: Duration = Duration::from_secs(1);
/// Between two tellings of samples that are not believed.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Packets a second of one phone's RTP: nearly all phones send one each 20 ms.
const PACKETS: u32 = 50;
/// Samples a second of each phone while one of them is still to be looked at: [`AGREE`] of them within seconds.
const SEEKING: u32 = 2;
/// Samples a second in all while one is still to be looked at: what one core does not feel.
const MOST: u32 = 100;
/// Samples a second in all when every phone is known: enough to notice in time that a NAT has given another port.
const SETTLED: u32 = 5;
/// A stream that is there goes unsampled for so many times the mean interval once in e^10 times; twice that, since the sampler may take half
/// as many as it is asked for.
const UNSAMPLED: u32 = 20;
/// The least that counts as silence, whatever the rate.
const LEAST_SILENCE: Duration = Duration::from_secs(10);

/// Of how many RTP packets one is to be sampled, with so many `legs`.
#[must_use]
pub fn one_in(legs: usize, seeking: bool) -> u32 {
    let legs = u32::try_from(legs).unwrap_or(u32::MAX).max(1);
    let wanted = if seeking { legs.saturating_mul(SEEKING).min(MOST) } else { legs.min(SETTLED) };
    (legs.saturating_mul(PACKETS) / wanted).max(1)
}

/// How long a phone that sends may go without a sample at most, with so many `legs`, while one is sought.
#[must_use]
pub fn quiet(legs: usize) -> Duration {
    Duration::from_secs(1) * one_in(legs, true) / PACKETS * UNSAMPLED
}

/// News of one phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The leg.
    pub leg: LegId,
    /// The m-line, counted from 0.
    pub media: usize,
    /// The real source, or `None` if it is the address that the phone itself has named.
    pub source: Option<SocketAddr>,
}

/// What became of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaCounters {
    /// RTP packets to ports of calls that were looked at.
    pub samples: u64,
    /// Of these, those from a host that neither the call's description nor its signalling names.
    pub foreign: u64,
    /// Of these, those that could not be believed although their host is named: the stream that was there does not go on in them, or
    /// several send at once.
    pub doubtful: u64,
    /// How often an address was believed anew.
    pub believed: u64,
}

/// Samples that were not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbelieved {
    /// How many there were since the last telling.
    pub count: u64,
    /// Where the last of them came from.
    pub from: SocketAddr,
    /// The server's port that it went to.
    pub at: SocketAddr,
    /// Where the audio of that port goes on being believed to come from.
    pub kept: SocketAddr,
}

impl fmt::Display for Unbelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sampled RTP packets were not believed, the last to {} from {}: neither SDP nor signalling names that host, or it does not \
             go on with the phone's stream; for that call {} stays",
            self.count, self.at, self.from, self.kept
        )
    }
}

struct Port {
    leg: LegId,
    media: usize,
    latch: Latch,
    /// The host that the phone's SIP comes from.
    signalling: IpAddr,
    /// The phone's description.
    body: Verbatim,
    /// Samples in a row that were not believed: a few are what is left of the call that had the port before.
    unbelieved: u8,
}

/// The server's RTP ports that are in use, and what was sampled on each.
#[derive(Default)]
pub struct Sources {
    ports: HashMap<SocketAddr, Port>,
    /// Of these, those whose phone is not known for certain: asked for with each message.
    open: usize,
    built: Option<Time>,
    stale: bool,
    counters: MediaCounters,
    news: Option<Unbelieved>,
    told: Option<Time>,
}

impl Sources {
    /// Legs have changed: the index is made anew with one of the next samples.
    pub fn forget(&mut self) {
        self.stale = true;
    }

    /// Forgets all ports; the counters stay.
    pub fn clear(&mut self) {
        *self = Self { counters: self.counters, told: self.told, ..Self::default() };
    }

    /// Whether there are changed legs that the index does not know.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Ports whose phone is not known for certain yet.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.open
    }

    /// What became of the samples so far.
    #[must_use]
    pub const fn counters(&self) -> MediaCounters {
        self.counters
    }

    /// What was not believed since the last telling, if it is time to tell.
    pub fn poll_unbelieved(&mut self, now: Time) -> Option<Unbelieved> {
        if self.told.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return None;
        }
        let news = self.news.take()?;
        self.told = Some(now);
        Some(news)
    }

    /// Handles a datagram to the server's address `dst`, one of `one_in`; `legs` are the confirmed legs, read only when something
    /// has changed.
    pub fn handle_sample<'a>(
        &mut self,
        (src, dst, datagram): (SocketAddr, SocketAddr, &[u8]),
        one_in: u32,
        legs: impl Iterator<Item = (LegId, &'a Leg)>,
        now: Time,
    ) -> Option<Observed> {
        if self.stale && self.built.is_none_or(|at| now.since(at) >= REBUILD) {
            self.rebuild(legs, now);
            self.built = Some(now);
            self.stale = false;
        }
        let port = self.ports.get_mut(&dst)?;
        let sample = Sample::of(src, datagram)?;
        self.counters.samples += 1;
        self.open -= usize::from(port.latch.is_open());
        let patience = (Duration::from_secs(1) * one_in / PACKETS * UNSAMPLED).max(LEAST_SILENCE);
        let outcome = port.latch.handle(&sample, port.signalling, patience, now);
        self.open += usize::from(port.latch.is_open());
        match outcome {
            Outcome::Nothing => port.unbelieved = 0,
            Outcome::Believed(from) => {
                port.unbelieved = 0;
                self.counters.believed += 1;
                let source = (from != port.latch.told()).then_some(from);
                return Some(Observed { leg: port.leg, media: port.media, source });
            }
            Outcome::Foreign | Outcome::Doubtful => {
                let counter =
                    if outcome == Outcome::Foreign { &mut self.counters.foreign } else { &mut self.counters.doubtful };
                *counter += 1;
                port.unbelieved = port.unbelieved.saturating_add(1);
                if port.unbelieved >= AGREE {
                    let count = self.news.map_or(0, |n| n.count) + 1;
                    self.news = Some(Unbelieved { count, from: src, at: dst, kept: port.latch.source() });
                }
            }
        }
        None
    }

    /// The leg whose phone sends from `src` to the server's address `dst`, as far as is believed.
    #[must_use]
    pub fn leg_of(&self, src: SocketAddr, dst: SocketAddr) -> Option<LegId> {
        let port = self.ports.get(&dst)?;
        (src == port.latch.source()).then_some(port.leg)
    }

    fn rebuild<'a>(&mut self, legs: impl Iterator<Item = (LegId, &'a Leg)>, now: Time) {
        let mut old = std::mem::take(&mut self.ports);
        for (id, leg) in legs {
            let (Some(sent), Some(received)) = (&leg.sdp_sent, &leg.sdp_received) else { continue };
            let (here, there) = (sdp::places(&sent.body), sdp::places(&received.body));
            for (media, ((here, ours), (there, theirs))) in here.into_iter().zip(there).enumerate() {
                let (Some(here), Some(there)) = (here, there) else { continue };
                if ours == 0 || theirs == 0 {
                    continue;
                }
                let told = SocketAddr::new(there, theirs);
                let at = SocketAddr::new(here, ours);
                // Of m-lines that share a port (RFC 9143) the first stands for all.
                if self.ports.get(&at).is_some_and(|p| p.leg == id) {
                    continue;
                }
                let kept = old.remove(&at).filter(|p| p.leg == id && p.media == media && p.latch.told() == told);
                let mut port = kept.unwrap_or_else(|| {
                    let source = leg.rtp_sources.get(media).copied().flatten();
                    let latch = Latch::new(told, source.filter(|s| leg.may_send_rtp(told.ip(), s.ip())), now);
                    let (signalling, body) = (leg.remote_addr.ip(), received.body.clone());
                    Port { leg: id, media, latch, signalling, body, unbelieved: 0 }
                });
                port.signalling = leg.remote_addr.ip();
                if port.body != received.body {
                    port.body = received.body.clone();
                    port.latch.renegotiated(now);
                }
                self.ports.insert(at, port);
            }
        }
        self.open = self.ports.values().filter(|p| p.latch.is_open()).count();
    }
}

#[cfg(test)]
mod tests;
