//! Where phones really send their RTP from, learnt from a few sampled packets. Pure.
//!
//! A phone behind a NAT, or one that sends from another port than it listens on, cannot be known from its SDP alone. The relay
//! of a recovered call goes by the real source, so it is learnt while the call is healthy.

use super::model::Leg;
use super::tracker::LegId;
use crate::sip::sdp;
use crate::time::Time;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Samples in a row that must agree. One alone could be a stray packet of the call that had the port before, or somebody who
/// guesses ports to draw the audio to himself.
const AGREE: u8 = 3;
/// The index is made anew at most this often: it reads every description, and a change waits this long without harm.
const REBUILD: Duration = Duration::from_secs(1);

/// Packets a second of one phone's RTP: nearly all phones send one each 20 ms.
const PACKETS: u32 = 50;
/// Samples a second of each phone while one of them is still to be looked at: [`AGREE`] of them within seconds.
const SEEKING: u32 = 2;
/// Samples a second in all while one is still to be looked at: what one core does not feel.
const MOST: u32 = 100;
/// Samples a second in all when every phone is known: enough to notice in time that a NAT has given another port.
const SETTLED: u32 = 5;

/// Of how many RTP packets one is to be sampled, with so many `legs`.
#[must_use]
pub fn one_in(legs: usize, seeking: bool) -> u32 {
    let legs = u32::try_from(legs).unwrap_or(u32::MAX).max(1);
    let wanted = if seeking { legs.saturating_mul(SEEKING).min(MOST) } else { legs.min(SETTLED) };
    (legs.saturating_mul(PACKETS) / wanted).max(1)
}

/// Samples of one phone that are expected in a time before its silence is believed: none of them by chance is one case in 160,000.
const EXPECTED: u32 = 12;

/// How long a phone that sends may go without a sample at most, with so many `legs`, while one is sought.
#[must_use]
pub fn quiet(legs: usize) -> Duration {
    Duration::from_secs(1) * EXPECTED * one_in(legs, true) / PACKETS
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

struct Port {
    leg: LegId,
    media: usize,
    told: SocketAddr,
    last: Option<SocketAddr>,
    agreed: u8,
}

/// The server's RTP ports that are in use, and what was sampled on each.
#[derive(Default)]
pub struct Sources {
    ports: HashMap<SocketAddr, Port>,
    /// Of these, those whose phone is not known for certain: asked for with each message.
    open: usize,
    built: Option<Time>,
    stale: bool,
}

impl Sources {
    /// Legs have changed: the index is made anew with one of the next samples.
    pub fn forget(&mut self) {
        self.stale = true;
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

    /// Handles a packet from `src` to the server's address `dst`; `legs` are the confirmed legs, read only when something has
    /// changed.
    pub fn handle_sample<'a>(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        legs: impl Iterator<Item = (LegId, &'a Leg)>,
        now: Time,
    ) -> Option<Observed> {
        if self.stale && self.built.is_none_or(|at| now.since(at) >= REBUILD) {
            self.rebuild(legs);
            self.built = Some(now);
            self.stale = false;
        }
        let port = self.ports.get_mut(&dst)?;
        self.open -= usize::from(port.agreed < AGREE);
        if port.last == Some(src) {
            port.agreed = port.agreed.saturating_add(1);
        } else {
            port.last = Some(src);
            port.agreed = 1;
        }
        self.open += usize::from(port.agreed < AGREE);
        let source = (src != port.told).then_some(src);
        (port.agreed == AGREE).then_some(Observed { leg: port.leg, media: port.media, source })
    }

    /// The leg whose phone sends from `src` to the server's address `dst`, by its own word or by what was observed.
    #[must_use]
    pub fn leg_of(&self, src: SocketAddr, dst: SocketAddr) -> Option<LegId> {
        let port = self.ports.get(&dst)?;
        (src == port.told || (port.last == Some(src) && port.agreed >= AGREE)).then_some(port.leg)
    }

    fn rebuild<'a>(&mut self, legs: impl Iterator<Item = (LegId, &'a Leg)>) {
        let mut old = std::mem::take(&mut self.ports);
        for (id, leg) in legs {
            let (Some(sent), Some(received)) = (&leg.sdp_sent, &leg.sdp_received) else { continue };
            let (sent, received) = (sdp::places(&sent.body), sdp::places(&received.body));
            for (media, ((here, ours), (there, theirs))) in sent.into_iter().zip(received).enumerate() {
                let (Some(here), Some(there)) = (here, there) else { continue };
                if ours == 0 || theirs == 0 {
                    continue;
                }
                let told = SocketAddr::new(there, theirs);
                let at = SocketAddr::new(here, ours);
                let kept = old.remove(&at).filter(|p| p.leg == id && p.media == media && p.told == told);
                self.ports.insert(at, kept.unwrap_or(Port { leg: id, media, told, last: None, agreed: 0 }));
            }
        }
        self.open = self.ports.values().filter(|p| p.agreed < AGREE).count();
    }
}

#[cfg(test)]
mod tests;
