//! Latches each phone's real RTP source from a few sampled packets. Pure.
//!
//! SDP alone cannot locate a phone behind a NAT, or one that sends from another port than it listens on. The relay of a
//! recovered call uses the real source, so this module learns it while the call is healthy. `latch.rs` decides which
//! source to believe.

mod latch;
mod rtp;

pub use rtp::Sample;

use crate::calls::model::{Leg, Verbatim};
use crate::calls::tracker::LegId;
use crate::sip::advertised::Advertised;
use crate::sip::sdp;
use crate::time::{OnceAMinute, Time};
use latch::{AGREE, Latch, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Least time between two rebuilds of the index. A rebuild reads every description, and a change can wait this long.
const REBUILD: Duration = Duration::from_secs(1);

/// RTP packets a second of one phone: nearly all phones send one each 20 ms.
const PACKETS: u32 = 50;
/// Samples a second of each phone while one phone is still open, so that [`AGREE`] samples arrive within seconds.
const SEEKING: u32 = 2;
/// Samples a second in total while one phone is still open. One core does not notice this rate.
const MOST: u32 = 100;
/// Samples a second in total when every phone is known: enough to notice in time that a NAT has assigned another port.
const SETTLED: u32 = 5;
/// Mean sampling intervals without a sample before a stream counts as silent. A live stream stays unsampled for 10 mean
/// intervals once in e^10 times. The value is twice that, because the sampler may take half as many as requested.
const UNSAMPLED: u32 = 20;
/// Shortest time that counts as silence, at any sampling rate.
const LEAST_SILENCE: Duration = Duration::from_secs(10);

/// Sampling ratio for `legs` legs: one RTP packet in this many.
#[must_use]
pub fn one_in(legs: usize, seeking: bool) -> u32 {
    let legs = u32::try_from(legs).unwrap_or(u32::MAX).max(1);
    let wanted = if seeking { legs.saturating_mul(SEEKING).min(MOST) } else { legs.min(SETTLED) };
    (legs.saturating_mul(PACKETS) / wanted).max(1)
}

/// Longest time that a sending phone may stay unsampled, with `legs` legs, while the sampler seeks a source.
#[must_use]
pub fn quiet(legs: usize) -> Duration {
    Duration::from_secs(1) * one_in(legs, true) / PACKETS * UNSAMPLED
}

/// A change in the known source of one phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The leg.
    pub leg: LegId,
    /// The m-line, counted from 0.
    pub media: usize,
    /// The real source. `None` if it is the address in the phone's own description.
    pub source: Option<SocketAddr>,
}

/// Results of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaCounters {
    /// RTP packets checked, sent to ports of known calls.
    pub samples: u64,
    /// Of these, packets from a host that neither the call's description nor its signalling names.
    pub foreign: u64,
    /// Of these, packets from a named host that could still not be believed: they do not continue the existing stream,
    /// or several hosts send at once.
    pub doubtful: u64,
    /// Number of times that a new address was believed.
    pub believed: u64,
}

/// Samples that were not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbelieved {
    /// Samples since the last report.
    pub count: u64,
    /// Source of the last one.
    pub from: SocketAddr,
    /// Destination of the last one: a port of the server.
    pub at: SocketAddr,
    /// The source that stays believed for that port.
    pub kept: SocketAddr,
}

impl fmt::Display for Unbelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keepcall did not believe {} RTP samples, the last to {} from {}: neither SDP nor signalling names that \
             host, or the samples do not continue the phone's stream; latching keeps {} for that call",
            self.count, self.at, self.from, self.kept
        )
    }
}

struct Port {
    leg: LegId,
    media: usize,
    latch: Latch,
    /// Source host of the phone's SIP.
    signalling: IpAddr,
    /// The phone's description.
    body: Verbatim,
    /// Consecutive samples that were not believed. A few are leftovers of the previous call on the port.
    unbelieved: u8,
}

/// The server's RTP ports in use, with the samples of each.
#[derive(Default)]
pub struct Sources {
    ports: HashMap<SocketAddr, Port>,
    /// Of these, ports whose phone is uncertain. A counter, because each message asks for it.
    open: usize,
    built: Option<Time>,
    stale: bool,
    counters: MediaCounters,
    news: Option<Unbelieved>,
    told: OnceAMinute,
    vips: Vec<IpAddr>,
    advertised: Advertised,
}

impl Sources {
    /// Marks the index as outdated after a change of legs. One of the next samples rebuilds it.
    pub fn forget(&mut self) {
        self.stale = true;
    }

    /// No ports yet, at a server with these addresses.
    #[must_use]
    pub fn new(vips: &[IpAddr], advertised: &Advertised) -> Self {
        Self { vips: vips.to_vec(), advertised: advertised.clone(), ..Self::default() }
    }

    /// Forgets all ports. The counters stay.
    pub fn clear(&mut self) {
        let new = Self::new(&self.vips, &self.advertised);
        *self = Self { counters: self.counters, told: self.told, ..new };
    }

    /// Whether the index lacks changed legs.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Ports whose phone is still uncertain.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.open
    }

    /// Results of the samples so far.
    #[must_use]
    pub const fn counters(&self) -> MediaCounters {
        self.counters
    }

    /// Samples not believed since the last report, if a report is due.
    pub fn poll_unbelieved(&mut self, now: Time) -> Option<Unbelieved> {
        if !self.told.is_due(now) {
            return None;
        }
        let news = self.news.take()?;
        self.told.happens(now);
        Some(news)
    }

    /// Handles a datagram to the server's address `dst`, one of `one_in`. `legs` are the confirmed legs, and only a
    /// rebuild reads them.
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

    /// The leg whose phone is believed to send from `src` to the server's address `dst`.
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
                // Packets arrive at the virtual address, whatever name the outside has for it.
                let here = self.advertised.vip_behind(&self.vips, here, leg.local_addr.ip()).unwrap_or(here);
                let at = SocketAddr::new(here, ours);
                // Of m-lines that share a port (RFC 9143) the first represents all.
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
