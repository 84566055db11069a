//! What a call needs to live on: the audio paths for the relay, the offers for the re-INVITEs, and who comes first.

#[cfg(test)]
mod tests;

use super::permitted::{Ground, Refusal};
use crate::calls::model::{Call, Direction, Flow, Leg};
use crate::sip::sdp::{Media, Place, Sdp, SdpError, keep_formats};
use std::net::{IpAddr, SocketAddr};

/// Why the audio of a call can't pass through as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpassable {
    /// A leg's session description was not learnt, or can't be read.
    #[error("a session description of the call is missing or unreadable")]
    NoDescription,
    /// The legs have no codec with the same payload type in common: somebody would have to transcode.
    #[error("the two legs have no codec with the same payload type in common")]
    NoCommonCodec,
    /// The legs are encrypted with different keys, or only one is encrypted.
    #[error("the two legs are not encrypted with the same keys")]
    KeysDiffer,
    /// The call does not have two legs.
    #[error("the call has only one known leg")]
    OneLeg,
}

/// Payload formats that carry no speech: alone they make no common codec.
const HELPERS: [&str; 4] = ["telephone-event/", "cn/", "red/", "ulpfec/"];

/// A leg's two descriptions.
pub(super) struct Ends<'a> {
    pub(super) sent: Sdp<'a>,
    pub(super) received: Sdp<'a>,
}

pub(super) fn ends(leg: &Leg) -> Result<Ends<'_>, Unpassable> {
    let (Some(sent), Some(received)) = (&leg.sdp_sent, &leg.sdp_received) else {
        return Err(Unpassable::NoDescription);
    };
    let (Ok(sent), Ok(received)) = (Sdp::parse(&sent.body.0), Sdp::parse(&received.body.0)) else {
        return Err(Unpassable::NoDescription);
    };
    Ok(Ends { sent, received })
}

/// One m-line of a leg, as both sides described it.
#[derive(Clone, Copy)]
struct Stream<'a> {
    sent: &'a Media<'a>,
    received: &'a Media<'a>,
    direction: Direction,
    observed: Option<SocketAddr>,
    server: IpAddr,
}

fn stream<'a>(leg: &Leg, ends: &'a Ends<'a>, i: usize) -> Option<Stream<'a>> {
    let (sent, received) = (ends.sent.media().get(i)?, ends.received.media().get(i)?);
    (sent.port != 0 && received.port != 0).then(|| Stream {
        sent,
        received,
        direction: leg.direction,
        observed: leg.rtp_sources.get(i).copied().flatten().filter(|source| {
            // Older versions believed any host that sent enough.
            received.connection.is_none_or(|told| leg.may_send_rtp(told, source.ip()))
        }),
        server: leg.local_addr.ip(),
    })
}

fn endpoint(address: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    address.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddr::new(ip, port))
}

/// Held in the old way a phone was told 0.0.0.0, which hides the server's address: its SIP address is the best guess.
fn media_address(sent: &Media<'_>, server: IpAddr, vips: &[IpAddr]) -> Option<IpAddr> {
    let ip = sent.connection?;
    Some(if ip.is_unspecified() { server } else { ip }).filter(|ip| vips.contains(ip))
}

impl<'a> Stream<'a> {
    /// The VIP address and port of this stream, if the phone was told to send to a VIP at all.
    fn anchor(&self, vips: &[IpAddr]) -> Option<SocketAddr> {
        media_address(self.sent, self.server, vips).map(|ip| SocketAddr::new(ip, self.sent.port))
    }

    fn told(&self) -> Option<SocketAddr> {
        endpoint(self.received.connection, self.received.port)
    }

    /// Where the phone sends from: what was seen on the wire beats what it says.
    fn sends_from(&self) -> Option<SocketAddr> {
        self.observed.or_else(|| self.told())
    }

    /// Where the phone listens: what it says, unless its packets come from another address: then a NAT is between, and only
    /// the mapping that the phone opened leads to it (RFC 4961 makes that the right place for a phone that sends from there).
    fn listens_at(&self) -> Option<SocketAddr> {
        match (self.observed, self.told()) {
            (Some(seen), Some(told)) if seen.ip() == told.ip() => Some(told),
            (seen, told) => seen.or(told),
        }
    }

    fn ways(&self) -> Option<Ways> {
        Some(Ways { from: self.sends_from()?, to: self.listens_at()? })
    }

    fn anchor_rtcp(&self, anchor: SocketAddr) -> Option<SocketAddr> {
        self.sent.rtcp_port().map(|port| SocketAddr::new(anchor.ip(), port))
    }

    fn ways_rtcp(&self) -> Option<Ways> {
        let at = self.listens_at()?;
        let to = self.rtcp_of(at)?;
        let from = if self.sends_from()? == at { to } else { self.rtcp_of(self.sends_from()?)? };
        Some(Ways { from, to })
    }

    fn rtcp_of(&self, rtp: SocketAddr) -> Option<SocketAddr> {
        if self.told() == Some(rtp) {
            let (port, ip) = match self.received.rtcp {
                Some((port, ip)) => (port, ip.unwrap_or(rtp.ip())),
                None => (rtp.port().checked_add(1)?, rtp.ip()),
            };
            return endpoint(Some(ip), port);
        }
        // Behind a NAT nothing is known of the RTCP mapping; most NATs keep neighbouring ports together.
        Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?))
    }

    fn muxed(&self) -> bool {
        self.sent.rtcp_mux && self.received.rtcp_mux
    }

    /// Payload types that both sides of the leg agreed on, with their encoding, preferred first.
    fn agreed(&self) -> Vec<(&'a [u8], String)> {
        // The answer's order says what its reader sends; the first offer came from whoever started the dialog.
        let (answer, offer) = match self.direction {
            Direction::Inbound => (self.sent, self.received),
            Direction::Outbound => (self.received, self.sent),
        };
        let mapped = |m: &'a Media<'a>, f: &'a [u8]| (f, m.encoding(f).map(normal).unwrap_or_default());
        answer
            .formats
            .iter()
            .map(|f| mapped(answer, f))
            .filter(|(f, e)| offer.formats.contains(f) && offer.encoding(f).map(normal).unwrap_or_default() == *e)
            .collect()
    }
}

/// Encodings compare without case, and `/1` for one channel says nothing (RFC 8866 section 6.6).
fn normal(encoding: &[u8]) -> String {
    let text = String::from_utf8_lossy(encoding).to_ascii_lowercase();
    text.strip_suffix("/1").map(str::to_owned).unwrap_or(text)
}

fn is_speech(encoding: &str) -> bool {
    !HELPERS.iter().any(|h| encoding.starts_with(h))
}

fn is_rtp(proto: &[u8]) -> bool {
    proto.windows(4).any(|w| w.eq_ignore_ascii_case(b"RTP/"))
}

/// T.38 over UDPTL as it is (RFC 3362); over DTLS (RFC 7345) it looks like DTLS.
fn is_udptl(m: &Media<'_>) -> bool {
    m.kind.eq_ignore_ascii_case(b"image") && m.proto.eq_ignore_ascii_case(b"udptl")
}

fn common(a: &Stream<'_>, b: &Stream<'_>) -> Vec<(Vec<u8>, String)> {
    let theirs = b.agreed();
    a.agreed().into_iter().filter(|f| theirs.contains(f)).map(|(f, e)| (f.to_vec(), e)).collect()
}

/// Keys pass end to end if the server handed each phone's keys to the other as they were.
fn keys_pass(a: &Stream<'_>, b: &Stream<'_>) -> bool {
    let clear = |s: &Stream<'_>| !s.sent.crypto && !s.received.crypto;
    if clear(a) && clear(b) {
        return !secure(a.sent.proto) && !secure(b.sent.proto);
    }
    let one = |from: &Stream<'_>, to: &Stream<'_>| !from.received.keys.is_empty() && from.received.keys == to.sent.keys;
    one(a, b) && one(b, a) && a.sent.proto.eq_ignore_ascii_case(b.sent.proto)
}

fn secure(proto: &[u8]) -> bool {
    proto.windows(4).any(|w| w.eq_ignore_ascii_case(b"SAVP"))
}

/// The paths of a call's audio through the VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// What the relay may forward: both ways, RTP and RTCP. Empty if the phones send to each other directly, or if nothing is known of
    /// their addresses.
    pub flows: Vec<Flow>,
    /// What it may not forward, and why. Of a stream that is refused one way the other way is left out as well.
    pub refused: Vec<(Flow, Refusal)>,
}

/// The audio paths of a call through the VIP.
///
/// # Errors
/// If the audio runs through the VIP but can't be forwarded as it is.
pub fn paths_of(call: &Call, ground: &Ground) -> Result<Paths, Unpassable> {
    let mut paths = Paths::default();
    for both in streams_of(call, &ground.vips)? {
        let refused: Vec<_> =
            both.iter().filter_map(|flow| Some((*flow, ground.permits_of(call, flow).err()?))).collect();
        if refused.is_empty() {
            paths.flows.extend(both);
        } else {
            paths.refused.extend(refused);
        }
    }
    Ok(paths)
}

/// Both ways of each stream, RTP and RTCP apart.
fn streams_of(call: &Call, vips: &[IpAddr]) -> Result<Vec<[Flow; 2]>, Unpassable> {
    let [a, b] = call.legs.as_slice() else { return Err(Unpassable::OneLeg) };
    let (ea, eb) = (ends(a)?, ends(b)?);
    let mut flows = Vec::new();
    for i in 0..ea.sent.media().len().min(eb.sent.media().len()) {
        let (Some(sa), Some(sb)) = (stream(a, &ea, i), stream(b, &eb, i)) else { continue };
        let (Some(at_a), Some(at_b)) = (sa.anchor(vips), sb.anchor(vips)) else { continue };
        let audio = sa.sent.kind.eq_ignore_ascii_case(b"audio");
        if !keys_pass(&sa, &sb) {
            if audio {
                return Err(Unpassable::KeysDiffer);
            }
            continue;
        }
        if is_rtp(sa.sent.proto) && !common(&sa, &sb).iter().any(|(_, e)| is_speech(e)) {
            if audio {
                return Err(Unpassable::NoCommonCodec);
            }
            continue;
        }
        let (Some(pa), Some(pb)) = (sa.ways(), sb.ways()) else { continue };
        let udptl = [sa.sent, sa.received, sb.sent, sb.received].iter().all(|m| is_udptl(m));
        flows.push(pair((pa, at_a), (pb, at_b), udptl));
        if !is_rtp(sa.sent.proto) || sa.muxed() || sb.muxed() {
            continue;
        }
        if let (Some(pa), Some(at_a), Some(pb), Some(at_b)) =
            (sa.ways_rtcp(), sa.anchor_rtcp(at_a), sb.ways_rtcp(), sb.anchor_rtcp(at_b))
        {
            flows.push(pair((pa, at_a), (pb, at_b), false));
        }
    }
    Ok(flows)
}

/// Where a phone's packets come from, and where it wants to get its own: the same, but for some phones.
#[derive(Clone, Copy)]
struct Ways {
    from: SocketAddr,
    to: SocketAddr,
}

fn pair((a, at_a): (Ways, SocketAddr), (b, at_b): (Ways, SocketAddr), udptl: bool) -> [Flow; 2] {
    [
        Flow { from: a.from, at: at_a, to: b.to, source: at_b, udptl },
        Flow { from: b.from, at: at_b, to: a.to, source: at_a, udptl },
    ]
}

/// The body to offer to leg `side` (0 or 1), before its version is raised: what it was last sent, without the formats that
/// the other leg doesn't have where the legs would otherwise use different codecs.
///
/// `None` if the leg was never sent a description.
#[must_use]
pub fn offer_for(call: &Call, side: usize, vips: &[IpAddr]) -> Option<Vec<u8>> {
    let body = call.legs.get(side)?.sdp_sent.as_ref()?.body.to_vec();
    let [a, b] = call.legs.as_slice() else { return Some(body) };
    let (Ok(ea), Ok(eb)) = (ends(a), ends(b)) else { return Some(body) };
    let own = if side == 0 { &ea } else { &eb };
    let keep: Vec<Option<Vec<Vec<u8>>>> = (0..own.sent.media().len())
        .map(|i| {
            let (sa, sb) = (stream(a, &ea, i)?, stream(b, &eb, i)?);
            sa.anchor(vips).and(sb.anchor(vips))?;
            let active =
                |s: &Stream<'_>| s.agreed().into_iter().find(|(_, e)| is_speech(e)).map(|(f, e)| (f.to_vec(), e));
            if active(&sa) == active(&sb) {
                return None;
            }
            let both = common(&sa, &sb);
            both.iter().any(|(_, e)| is_speech(e)).then(|| both.into_iter().map(|(f, _)| f).collect())
        })
        .collect();
    keep_formats(&body, &keep).ok().or(Some(body))
}

/// For each m-line of the leg: where its media is told to go at the VIP, with the RTCP port if it is not the next one; `None`
/// where the media doesn't run through the VIP.
pub(super) fn anchors(leg: &Leg, vips: &[IpAddr]) -> Option<Vec<Option<Place>>> {
    let sent = Sdp::parse(&leg.sdp_sent.as_ref()?.body.0).ok()?;
    let anchor = |m: &Media<'_>| {
        let at = SocketAddr::new(media_address(m, leg.local_addr.ip(), vips)?, m.port);
        Some((at, m.rtcp.map(|(port, _)| port)))
    };
    Some(sent.media().iter().map(anchor).collect())
}

/// `body` without the payload types that stand for something else on this leg: a mapping must not change during a session
/// (RFC 3264 section 8.3.2), and the two legs were negotiated apart.
pub(super) fn without_conflicts(leg: &Leg, body: &[u8]) -> Result<Vec<u8>, SdpError> {
    let known: Vec<Sdp<'_>> =
        [&leg.sdp_sent, &leg.sdp_received].into_iter().flatten().filter_map(|d| Sdp::parse(&d.body.0).ok()).collect();
    let parsed = Sdp::parse(body)?;
    let conflicts = |i: usize, m: &Media<'_>, f: &[u8]| {
        let new = m.encoding(f).map(normal);
        known
            .iter()
            .filter_map(|k| k.media().get(i))
            .filter(|k| k.formats.contains(&f))
            .any(|k| k.encoding(f).map(normal) != new)
    };
    let keep = parsed.media().iter().enumerate().map(|(i, m)| {
        let kept: Vec<Vec<u8>> = m.formats.iter().filter(|f| !conflicts(i, m, f)).map(|f| f.to_vec()).collect();
        (kept.len() < m.formats.len()).then_some(kept)
    });
    keep_formats(body, &keep.collect::<Vec<_>>())
}

/// The order of recovery: emergency calls first, then the longest-standing.
#[must_use]
pub fn order(mut calls: Vec<Call>) -> Vec<Call> {
    calls.sort_by(|a, b| (!a.emergency, a.confirmed_ms, &a.id).cmp(&(!b.emergency, b.confirmed_ms, &b.id)));
    calls
}
