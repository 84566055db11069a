//! Plans a call's recovery: audio paths for the relay, offers for the re-INVITEs, and the order of the calls.

#[cfg(test)]
pub(super) mod tests;

use super::permitted::{Ground, Refusal};
use crate::calls::model::{Call, Direction, Flow, Leg};
use crate::sip::sdp::{Direction as Way, Media, Place, Sdp, SdpError, end_hold, keep_formats};
use std::net::{IpAddr, SocketAddr};

/// Reason why a call's audio cannot be forwarded unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpassable {
    /// A leg's session description is missing or unreadable.
    #[error("a session description of the call is missing or unreadable")]
    NoDescription,
    /// The legs share no codec with the same payload type, so forwarding would need transcoding.
    #[error("the two legs share no codec under the same payload type")]
    NoCommonCodec,
    /// The legs use different keys, or only one is encrypted.
    #[error("the two legs encrypt media with different keys, or one leg does not encrypt")]
    KeysDiffer,
    /// The call does not have two legs.
    #[error("keepcall knows only one leg of the call")]
    OneLeg,
}

/// Formats without speech. They alone are no common codec.
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
            // Older versions accepted any host that sent enough packets as the RTP source.
            received.connection.is_none_or(|told| leg.may_send_rtp(told, source.ip()))
        }),
        server: leg.local_addr.ip(),
    })
}

fn endpoint(address: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    address.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddr::new(ip, port))
}

/// An old-style hold told the phone 0.0.0.0, which hides the server's media address. The server's SIP address is the
/// best guess.
fn media_address(sent: &Media<'_>, server: IpAddr, vips: &[IpAddr]) -> Option<IpAddr> {
    let ip = sent.connection?;
    Some(if ip.is_unspecified() { server } else { ip }).filter(|ip| vips.contains(ip))
}

impl<'a> Stream<'a> {
    /// The VIP address and port of this stream, if the phone was told to send to a VIP.
    fn anchor(&self, vips: &[IpAddr]) -> Option<SocketAddr> {
        media_address(self.sent, self.server, vips).map(|ip| SocketAddr::new(ip, self.sent.port))
    }

    fn told(&self) -> Option<SocketAddr> {
        endpoint(self.received.connection, self.received.port)
    }

    /// The phone's source address. An observed source takes precedence over the phone's description.
    fn sends_from(&self) -> Option<SocketAddr> {
        self.observed.or_else(|| self.told())
    }

    /// The phone's receiving address: its description, unless its packets come from another address. In that case a NAT
    /// is in between, and only the mapping opened by the phone leads to it (RFC 4961 makes this correct for a phone
    /// that sends from its receiving port).
    fn listens_at(&self) -> Option<SocketAddr> {
        match (self.observed, self.told()) {
            (Some(seen), Some(told)) if seen.ip() == told.ip() => Some(told),
            (seen, told) => seen.or(told),
        }
    }

    fn ways(&self) -> Option<PhoneAddresses> {
        Some(PhoneAddresses { from: self.sends_from()?, to: self.listens_at()? })
    }

    fn anchor_rtcp(&self, anchor: SocketAddr) -> Option<SocketAddr> {
        self.sent.rtcp_port().map(|port| SocketAddr::new(anchor.ip(), port))
    }

    fn ways_rtcp(&self) -> Option<PhoneAddresses> {
        let at = self.listens_at()?;
        let to = self.rtcp_of(at)?;
        let from = if self.sends_from()? == at { to } else { self.rtcp_of(self.sends_from()?)? };
        Some(PhoneAddresses { from, to })
    }

    fn rtcp_of(&self, rtp: SocketAddr) -> Option<SocketAddr> {
        if self.told() == Some(rtp) {
            let (port, ip) = match self.received.rtcp {
                Some((port, ip)) => (port, ip.unwrap_or(rtp.ip())),
                None => (rtp.port().checked_add(1)?, rtp.ip()),
            };
            return endpoint(Some(ip), port);
        }
        // Behind a NAT the RTCP mapping is unknown. Most NATs keep neighbouring ports together.
        Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?))
    }

    /// Whether the phone itself holds the stream, or may: where both sides say `inactive`, nobody knows who began.
    fn holds(&self) -> bool {
        matches!(self.received.direction, Way::SendOnly | Way::Inactive)
            || self.received.connection.is_some_and(|ip| ip.is_unspecified())
    }

    fn muxed(&self) -> bool {
        self.sent.rtcp_mux && self.received.rtcp_mux
    }

    /// Payload types agreed by both sides of the leg, with their encodings, preferred first.
    fn agreed(&self) -> Vec<(&'a [u8], String)> {
        // The order in the answer determines what the offerer sends. The first offer came from the side that opened the
        // dialog.
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

/// Encodings compare without case, and `/1` (one channel) is the default (RFC 8866 section 6.6).
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

/// Plain T.38 over UDPTL (RFC 3362). Over DTLS (RFC 7345) the packets look like DTLS.
fn is_udptl(m: &Media<'_>) -> bool {
    m.kind.eq_ignore_ascii_case(b"image") && m.proto.eq_ignore_ascii_case(b"udptl")
}

fn common(a: &Stream<'_>, b: &Stream<'_>) -> Vec<(Vec<u8>, String)> {
    let theirs = b.agreed();
    a.agreed().into_iter().filter(|f| theirs.contains(f)).map(|(f, e)| (f.to_vec(), e)).collect()
}

/// Keys work end to end if the server forwarded each phone's keys to the other unchanged.
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
    /// Flows that the relay may forward: both ways, RTP and RTCP. Empty if the phones send to each other directly, or
    /// if their addresses are unknown.
    pub flows: Vec<Flow>,
    /// Flows that the relay must not forward, with the reason. If one direction of a stream is refused, the other is
    /// left out as well.
    pub refused: Vec<(Flow, Refusal)>,
}

/// The audio paths of a call through the VIP.
///
/// # Errors
/// The audio runs through the VIP but cannot be forwarded unchanged.
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

/// Both directions of each stream, with separate entries for RTP and RTCP.
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

/// The addresses a phone sends from and receives at. They are equal for nearly all phones.
#[derive(Clone, Copy)]
struct PhoneAddresses {
    from: SocketAddr,
    to: SocketAddr,
}

fn pair((a, at_a): (PhoneAddresses, SocketAddr), (b, at_b): (PhoneAddresses, SocketAddr), udptl: bool) -> [Flow; 2] {
    [
        Flow { from: a.from, at: at_a, to: b.to, source: at_b, udptl },
        Flow { from: b.from, at: at_b, to: a.to, source: at_a, udptl },
    ]
}

/// The offer to leg `side` (0 or 1), before its version is raised: the last description sent to the leg. If the legs
/// would use different codecs, formats that the other leg lacks are removed. A hold by the server is ended.
///
/// `None` if no description was ever sent to the leg.
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
    let body = keep_formats(&body, &keep).unwrap_or(body);
    // A hold of the server died with the server. A hold of a phone goes on.
    let awake: Vec<Option<IpAddr>> = (0..own.sent.media().len())
        .map(|i| {
            let (sa, sb) = (stream(a, &ea, i)?, stream(b, &eb, i)?);
            let own = if side == 0 { &sa } else { &sb };
            let held = own.sent.direction != Way::SendRecv || own.sent.connection.is_some_and(|ip| ip.is_unspecified());
            (held && !sa.holds() && !sb.holds()).then(|| own.anchor(vips)).flatten().map(|at| at.ip())
        })
        .collect();
    if awake.iter().all(Option::is_none) {
        return Some(body);
    }
    end_hold(&body, &awake).ok().or(Some(body))
}

/// The VIP media address of each m-line of the leg, with the RTCP port if it is not the next port. `None` for media
/// outside the VIP.
pub(super) fn anchors(leg: &Leg, vips: &[IpAddr]) -> Option<Vec<Option<Place>>> {
    let sent = Sdp::parse(&leg.sdp_sent.as_ref()?.body.0).ok()?;
    let anchor = |m: &Media<'_>| {
        let at = SocketAddr::new(media_address(m, leg.local_addr.ip(), vips)?, m.port);
        Some((at, m.rtcp.map(|(port, _)| port)))
    };
    Some(sent.media().iter().map(anchor).collect())
}

/// `body` without the payload types that have another meaning on this leg. A mapping must not change during a session
/// (RFC 3264 section 8.3.2), and each leg negotiated its own.
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
