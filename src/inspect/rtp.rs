//! Assigns RTP packets to the m-lines of legs and measures them. Pure.

mod force;

use super::report::{PayloadType, Rtp, RtpTotals};
use crate::sip::sdp::{Media, Sdp};
use crate::time::Time;
use force::{Force, Lines};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most address pairs followed; packets of further pairs are only counted.
const MAX_FLOWS: usize = 100_000;
/// Most addresses from descriptions that are watched.
const MAX_ADDRESSES: usize = 200_000;
/// Most m-lines read per leg, and most legs that share one media address (a proxied call has two a hop).
pub(super) const MAX_LINES: usize = 8;
const MAX_OWNERS: usize = 16;
/// Most payload types kept apart per direction.
const MAX_TYPES: usize = 8;
/// Packets still arrive for a moment after BYE; after that the port may serve another call.
const LINGER: Duration = Duration::from_secs(2);
/// A sequence jump beyond this is a new stream, not loss.
const MAX_GAP: u16 = 3000;

/// One side of an m-line of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    record: u32,
    line: u8,
    /// Whether the local side listens at the address.
    local: bool,
    /// When the leg ended.
    over: Option<Time>,
}

/// One direction of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) record: u32,
    pub(super) line: u8,
    /// Whether the packets go to the local side.
    pub(super) received: bool,
    /// The address that their sender had described when it sent them, if they come from another one.
    told: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Flow {
    owners: SmallVec<[Place; 2]>,
    /// Generation of the index that gave `owners`.
    generation: u64,
    /// When the judgement in `owners` ends.
    until: Option<Time>,
    stat: Stat,
    /// Earlier packets between the same addresses, for other calls.
    earlier: Vec<(SmallVec<[Place; 2]>, Stat)>,
}

#[derive(Clone, Debug, Default)]
struct Stat {
    rtp: Rtp,
    ssrc: Option<u32>,
    sequence: u16,
}

/// Kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rtp,
    Rtcp,
}

/// All media of a file.
#[derive(Default)]
pub(super) struct Streams {
    addresses: HashMap<SocketAddr, SmallVec<[Owner; 2]>>,
    of_record: HashMap<u32, SmallVec<[SocketAddr; 4]>>,
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    force: Force,
    generation: u64,
    pub(super) totals: RtpTotals,
}

/// A packet that may show a phone's real RTP source.
pub(super) struct Sample {
    pub(super) record: u32,
}

impl Streams {
    /// Records the listening addresses in a side's description. `place` maps an address in it to that on the wire.
    pub(super) fn described(
        &mut self,
        (record, local): (u32, bool),
        sdp: &Sdp<'_>,
        place: impl Fn(IpAddr) -> IpAddr,
        now: Time,
    ) {
        let listens = |ip: &IpAddr, port: u16| !ip.is_unspecified() && port != 0;
        let address = |m: &Media<'_>| m.connection.filter(|ip| listens(ip, m.port)).map(&place);
        let lines = sdp.media().iter().take(MAX_LINES);
        let lines = lines.map(|m| Some(SocketAddr::new(address(m)?, m.port)));
        self.generation += u64::from(self.force.described(record, local, lines.collect::<Lines>()));
        for (line, m) in sdp.media().iter().take(MAX_LINES).enumerate() {
            let Some(ip) = address(m) else { continue };
            let at = SocketAddr::new(ip, m.port);
            let owner = Owner { record, line: u8::try_from(line).unwrap_or(u8::MAX), local, over: None };
            if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&at) {
                continue;
            }
            let owners = self.addresses.entry(at).or_default();
            if owners.contains(&owner) {
                continue;
            }
            owners.retain(|o| o.over.is_none_or(|at| now.since(at) < LINGER));
            if owners.len() < MAX_OWNERS {
                owners.push(owner);
                self.of_record.entry(record).or_default().push(at);
                self.generation += 1;
            }
        }
    }

    /// Offer and answer of a leg are concluded.
    pub(super) fn agreed(&mut self, record: u32, now: Time) {
        self.generation += u64::from(self.force.agreed(record, now));
    }

    /// The offer of a leg was refused.
    pub(super) fn refused(&mut self, record: u32) {
        self.generation += u64::from(self.force.refused(record));
    }

    /// The leg has ended: other calls soon reuse its addresses.
    pub(super) fn over(&mut self, record: u32, now: Time) {
        for at in self.of_record.remove(&record).unwrap_or_default() {
            if let Some(owners) = self.addresses.get_mut(&at) {
                owners.retain(|o| o.over.is_none_or(|at| now.since(at) < LINGER));
                for o in owners.iter_mut().filter(|o| o.record == record) {
                    o.over = Some(now);
                }
                if owners.is_empty() {
                    self.addresses.remove(&at);
                }
            }
        }
        self.generation += 1;
    }

    /// Handles a datagram that is not SIP. Returns a sample if the packet goes to the local side and is worth a look
    /// for latching.
    pub(super) fn handle(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8], now: Time) -> Option<Sample> {
        let kind = kind(payload)?;
        if !self.flows.contains_key(&(src, dst)) && self.flows.len() >= MAX_FLOWS {
            self.totals.unknown += 1;
            return None;
        }
        let flow = self.flows.entry((src, dst)).or_insert_with(|| Flow { generation: u64::MAX, ..Flow::default() });
        if flow.generation != self.generation || flow.until.is_some_and(|at| at <= now) {
            flow.generation = self.generation;
            let mut owners = owners(&self.addresses, src, dst, now);
            flow.until = None;
            for o in &mut owners {
                let (told, until) = self.force.judge(o.record, !o.received, o.line, src, now);
                o.told = told;
                flow.until = flow.until.into_iter().chain(until).min();
            }
            if owners != flow.owners {
                let old = (std::mem::replace(&mut flow.owners, owners), std::mem::take(&mut flow.stat));
                if !old.0.is_empty() && old.1.rtp.packets + old.1.rtp.rtcp > 0 {
                    flow.earlier.push(old);
                }
            }
        }
        if flow.owners.is_empty() {
            self.totals.unknown += 1;
            return None;
        }
        self.totals.packets += 1;
        flow.stat.count(kind, payload, now);
        // Every fourth packet. Latching needs three that agree, and a short call must supply them too.
        let tell = kind == Kind::Rtp && flow.stat.rtp.packets % 4 == 1;
        let record = flow.owners.iter().find(|o| o.received).filter(|_| tell)?.record;
        Some(Sample { record })
    }

    /// The RTP of each direction of each m-line.
    pub(super) fn found(self) -> impl Iterator<Item = (Place, Rtp)> {
        self.flows.into_iter().flat_map(|((src, dst), flow)| {
            let all = flow.earlier.into_iter().chain([(flow.owners, flow.stat)]);
            all.flat_map(move |(owners, stat)| {
                let rtp = Rtp { source: Some(src), destination: Some(dst), ..stat.rtp };
                let of = |o: Place| {
                    let told = o.told.filter(|_| rtp.packets > 0);
                    (o, Rtp { source_differs: told.is_some(), told, ..rtp.clone() })
                };
                owners.into_iter().filter(|_| rtp.packets + rtp.rtcp > 0).map(of).collect::<Vec<_>>()
            })
        })
    }
}

/// Owners of a packet: the legs that named the destination, otherwise the legs that named the source (packets to a
/// phone behind a NAT, whose address is in no description). RTCP is mostly one port higher.
fn owners(
    addresses: &HashMap<SocketAddr, SmallVec<[Owner; 2]>>,
    src: SocketAddr,
    dst: SocketAddr,
    now: Time,
) -> SmallVec<[Place; 2]> {
    let below = |at: SocketAddr| SocketAddr::new(at.ip(), at.port().saturating_sub(1));
    let look = |at: SocketAddr, is_dst: bool| {
        let owners = addresses.get(&at)?;
        let live = owners.iter().filter(|o| o.over.is_none_or(|at| now.since(at) < LINGER));
        let places: SmallVec<[Place; 2]> =
            live.map(|o| Place { record: o.record, line: o.line, received: o.local == is_dst, told: None }).collect();
        (!places.is_empty()).then_some(places)
    };
    look(dst, true)
        .or_else(|| look(src, false))
        .or_else(|| look(below(dst), true))
        .or_else(|| look(below(src), false))
        .unwrap_or_default()
}

/// Tells RTP from RTCP by the first bytes (RFC 3550, RFC 5761 section 4).
fn kind(payload: &[u8]) -> Option<Kind> {
    if payload.len() < 8 || payload[0] >> 6 != 2 {
        return None;
    }
    match payload[1] {
        192..=223 => Some(Kind::Rtcp),
        _ if payload.len() >= 12 => Some(Kind::Rtp),
        _ => None,
    }
}

impl Stat {
    fn count(&mut self, kind: Kind, payload: &[u8], now: Time) {
        let ms = now.as_nanos() / 1_000_000;
        let r = &mut self.rtp;
        if r.packets + r.rtcp == 0 {
            r.first_ms = ms;
        }
        r.last_ms = ms;
        if kind == Kind::Rtcp {
            r.rtcp += 1;
            return;
        }
        r.packets += 1;
        r.bytes += payload.len() as u64;
        let number = payload[1] & 0x7f;
        if let Some(t) = r.payload_types.iter_mut().find(|t| t.number == number) {
            t.packets += 1;
        } else if r.payload_types.len() < MAX_TYPES {
            r.payload_types.push(PayloadType { number, codec: None, packets: 1 });
        }
        let sequence = u16::from_be_bytes([payload[2], payload[3]]);
        let ssrc = payload.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        if self.ssrc == ssrc {
            match sequence.wrapping_sub(self.sequence) {
                // A packet captured twice.
                0 => {}
                ahead @ 1..=MAX_GAP => {
                    r.lost += u64::from(ahead - 1);
                    self.sequence = sequence;
                }
                // A late packet, counted as lost before.
                behind if behind > u16::MAX - MAX_GAP => r.lost = r.lost.saturating_sub(1),
                _ => self.sequence = sequence,
            }
        } else {
            r.ssrcs += 1;
            (self.ssrc, self.sequence) = (ssrc, sequence);
        }
    }
}

/// Merges several address pairs of one direction: sums the counts, keeps the addresses of the busiest.
pub(super) fn join(into: &mut Option<Rtp>, more: Rtp) {
    let Some(all) = into else {
        *into = Some(more);
        return;
    };
    if more.packets > all.packets {
        (all.source, all.destination) = (more.source, more.destination);
        (all.source_differs, all.told) = (more.source_differs, more.told);
    }
    all.packets += more.packets;
    all.bytes += more.bytes;
    all.lost += more.lost;
    all.rtcp += more.rtcp;
    all.ssrcs += more.ssrcs;
    all.first_ms = all.first_ms.min(more.first_ms);
    all.last_ms = all.last_ms.max(more.last_ms);
    for t in more.payload_types {
        match all.payload_types.iter_mut().find(|x| x.number == t.number) {
            Some(x) => x.packets += t.packets,
            None => all.payload_types.push(t),
        }
    }
    all.payload_types.sort_by_key(|t| t.number);
}
