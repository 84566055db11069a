//! Plans a call's recovery: audio paths for the relay, offers for the re-INVITEs, and the order of the calls.

#[cfg(test)]
pub(super) mod tests;

use super::permitted::{Doubtful, Ground, Refusal};
use super::streams::{self, Codec, Ends, OwnAddress, Pairs, PhoneAddresses, Stream, common, keys_pass, stream};
use crate::calls::model::{Call, Flow, Leg};
use crate::sip::sdp::{Direction as Way, Media, Place, Sdp, SdpError, end_hold, keep_formats};
use std::net::{IpAddr, SocketAddr};

/// Reason why a call's audio cannot be forwarded unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpassable {
    /// A leg's session description is missing or unreadable.
    #[error("a session description of the call is missing or unreadable")]
    NoDescription,
    /// The legs share no codec with the same payload type and parameters, so forwarding would need transcoding.
    #[error("the two legs share no codec under the same payload type and with the same parameters")]
    NoCommonCodec,
    /// The legs use different keys, or only one is encrypted.
    #[error("the two legs encrypt media with different keys, or one leg does not encrypt")]
    KeysDiffer,
    /// One leg's audio uses IPv4 and the other's IPv6.
    #[error("one leg's audio uses IPv4 and the other's IPv6, and the relay cannot forward from one to the other")]
    Families,
    /// One leg has more audio streams than the other, so it is unknown which belong together.
    #[error("one leg has more audio streams than the other, and only the server knew which of them it connected")]
    UnlikeStreams,
    /// One leg's audio goes to the server, the other's to an address that nobody is known to have.
    #[error(
        "the server names an address that is not the VIP's for its audio ({0}); if the outside knows the VIP by that \
         address, add it to advertised"
    )]
    NotOurs(IpAddr),
    /// The call does not have two legs.
    #[error("keepcall knows only one leg of the call")]
    OneLeg,
    /// The legs may not belong together.
    #[error("{0}")]
    Doubtful(Doubtful),
}

/// Reason why key presses (DTMF as RTP events, RFC 4733) do not pass the relay, although the audio does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysLost {
    /// The legs agreed on different payload types.
    #[error(
        "key presses (DTMF) will not pass: telephone-event has payload type {0} on one leg and {1} on the other, and \
         the relay changes no payload type"
    )]
    Types(String, String),
    /// Only one leg has them.
    #[error(
        "key presses (DTMF) will not pass from one leg: it sends them as telephone-event, which the other leg did not \
         agree on"
    )]
    OneSide,
}

pub(super) fn ends(leg: &Leg) -> Result<Ends<'_>, Unpassable> {
    Ends::of(leg).ok_or(Unpassable::NoDescription)
}

fn is_rtp(proto: &[u8]) -> bool {
    proto.windows(4).any(|w| w.eq_ignore_ascii_case(b"RTP/"))
}

/// Plain T.38 over UDPTL (RFC 3362). Over DTLS (RFC 7345) the packets look like DTLS.
fn is_udptl(m: &Media<'_>) -> bool {
    m.kind.eq_ignore_ascii_case(b"image") && m.proto.eq_ignore_ascii_case(b"udptl")
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
    /// Why key presses do not pass, if they do not.
    pub keys_lost: Option<KeysLost>,
}

/// The audio paths of a call through the VIP.
///
/// # Errors
/// The audio runs through the VIP but cannot be forwarded unchanged, or it is uncertain that the legs belong together.
pub fn paths_of(call: &Call, ground: &Ground) -> Result<Paths, Unpassable> {
    if let Some(doubtful) = ground.doubts(call) {
        return Err(Unpassable::Doubtful(doubtful));
    }
    let [a, b] = call.legs.as_slice() else { return Err(Unpassable::OneLeg) };
    let (ea, eb) = (ends(a)?, ends(b)?);
    let pairs = streams::pairs(&ea, &eb);
    if pairs.unlike_audio && has_audio(a, &ea, ground) && has_audio(b, &eb, ground) {
        return Err(Unpassable::UnlikeStreams);
    }
    let mut paths = Paths::default();
    for (ia, ib) in pairs.used {
        let (Some(sa), Some(sb)) = (stream(a, &ea, ia, ground), stream(b, &eb, ib, ground)) else { continue };
        match passage(&sa, &sb) {
            Ok(both) => both.into_iter().for_each(|both| add(&mut paths, call, ground, both)),
            Err(why) if sa.is_audio() => return Err(why),
            Err(_) => continue,
        }
        if sa.is_audio() {
            paths.keys_lost = paths.keys_lost.or_else(|| keys_lost(&sa, &sb));
        }
    }
    if paths.flows.is_empty() {
        paths.keys_lost = None;
    }
    Ok(paths)
}

fn has_audio(leg: &Leg, ends: &Ends<'_>, ground: &Ground) -> bool {
    let all = (0..ends.sent.media().len()).filter_map(|i| stream(leg, ends, i, ground));
    all.into_iter().any(|s| s.is_audio() && s.anchor().is_some())
}

fn add(paths: &mut Paths, call: &Call, ground: &Ground, both: [Flow; 2]) {
    let refused: Vec<_> = both.iter().filter_map(|flow| Some((*flow, ground.permits_of(call, flow).err()?))).collect();
    if refused.is_empty() {
        paths.flows.extend(both);
    } else {
        paths.refused.extend(refused);
    }
}

/// Both directions of a pair of streams, with separate entries for RTP and RTCP. Empty for media outside the VIP.
fn passage(sa: &Stream<'_>, sb: &Stream<'_>) -> Result<Vec<[Flow; 2]>, Unpassable> {
    let (at_a, at_b) = match (sa.anchor(), sb.anchor()) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return Ok(Vec::new()),
        (Some(_), None) => return half(sb, sa),
        (None, Some(_)) => return half(sa, sb),
    };
    if at_a.is_ipv4() != at_b.is_ipv4() {
        return Err(Unpassable::Families);
    }
    if !keys_pass(sa, sb) {
        return Err(Unpassable::KeysDiffer);
    }
    if is_rtp(sa.sent.proto) && !common(sa, sb).iter().any(Codec::is_speech) {
        return Err(Unpassable::NoCommonCodec);
    }
    let (Some(pa), Some(pb)) = (sa.ways(), sb.ways()) else { return Ok(Vec::new()) };
    let udptl = [sa.sent, sa.received, sb.sent, sb.received].iter().all(|m| is_udptl(m));
    let mut flows = vec![pair((pa, at_a), (pb, at_b), udptl)];
    if !is_rtp(sa.sent.proto) || sa.muxed() || sb.muxed() {
        return Ok(flows);
    }
    if let (Some(pa), Some(at_a), Some(pb), Some(at_b)) =
        (sa.ways_rtcp(), sa.anchor_rtcp(at_a), sb.ways_rtcp(), sb.anchor_rtcp(at_b))
    {
        flows.push(pair((pa, at_a), (pb, at_b), false));
    }
    Ok(flows)
}

/// Only one phone was told a virtual address. The other phone, `away`, may have the first phone's own address: then its
/// audio does not need the server.
fn half(away: &Stream<'_>, near: &Stream<'_>) -> Result<Vec<[Flow; 2]>, Unpassable> {
    let Some(told) = away.sent.connection.filter(|ip| !ip.is_unspecified()) else { return Ok(Vec::new()) };
    if near.is_phones(told) || near.is_hidden() { Ok(Vec::new()) } else { Err(Unpassable::NotOurs(told)) }
}

fn keys_lost(a: &Stream<'_>, b: &Stream<'_>) -> Option<KeysLost> {
    let keys = |s: &Stream<'_>| s.agreed().into_iter().filter(Codec::is_keys).collect::<Vec<_>>();
    let (of_a, of_b) = (keys(a), keys(b));
    let name = |codec: &Codec| String::from_utf8_lossy(&codec.format).into_owned();
    match (of_a.first(), of_b.first()) {
        (None, None) => None,
        (Some(a), Some(b)) => {
            (!of_a.iter().any(|codec| of_b.contains(codec))).then(|| KeysLost::Types(name(a), name(b)))
        }
        _ => Some(KeysLost::OneSide),
    }
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
pub fn offer_for(call: &Call, side: usize, ground: &Ground) -> Option<Vec<u8>> {
    let body = call.legs.get(side)?.sdp_sent.as_ref()?.body.to_vec();
    let [a, b] = call.legs.as_slice() else { return Some(body) };
    let (Ok(ea), Ok(eb)) = (ends(a), ends(b)) else { return Some(body) };
    let (leg, own, other_leg, other) = if side == 0 { (a, &ea, b, &eb) } else { (b, &eb, a, &ea) };
    let pairs = streams::pairs(&ea, &eb);
    let both = |i: usize| {
        let partner = pairs.used_partner(side, i)?;
        Some((stream(leg, own, i, ground)?, stream(other_leg, other, partner, ground)?))
    };
    let keep: Vec<Option<Vec<Vec<u8>>>> = (0..own.sent.media().len())
        .map(|i| {
            let (own, other) = both(i)?;
            own.anchor().and(other.anchor())?;
            let active = |s: &Stream<'_>| s.agreed().into_iter().find(Codec::is_speech);
            if active(&own) == active(&other) {
                return None;
            }
            // The order of the first leg counts for both, so that both choose the same codec.
            let shared = if side == 0 { common(&own, &other) } else { common(&other, &own) };
            shared.iter().any(Codec::is_speech).then(|| shared.into_iter().map(|codec| codec.format).collect())
        })
        .collect();
    let body = keep_formats(&body, &keep).unwrap_or(body);
    // A hold of the server died with the server. A hold of a phone goes on.
    let awake: Vec<Option<IpAddr>> = (0..own.sent.media().len())
        .map(|i| {
            let (own, other) = both(i)?;
            let held = own.sent.direction != Way::SendRecv || own.sent.connection.is_some_and(|ip| ip.is_unspecified());
            (held && !own.holds() && !other.holds()).then(|| own.known_address()).flatten()
        })
        .collect();
    if awake.iter().all(Option::is_none) {
        return Some(body);
    }
    end_hold(&body, &awake).ok().or(Some(body))
}

/// Which m-lines of the two legs belong together. No line has a partner if a leg is missing or unreadable.
pub(super) fn pairs_of(call: &Call) -> Pairs {
    let [a, b] = call.legs.as_slice() else { return Pairs::default() };
    let (Ok(a), Ok(b)) = (ends(a), ends(b)) else { return Pairs::default() };
    streams::pairs(&a, &b)
}

/// The server's media address of each m-line of the leg as the phone knows it, with the RTCP port if it is not the next
/// port. `None` for media outside the VIP.
pub(super) fn anchors(leg: &Leg, ground: &Ground) -> Option<Vec<Option<Place>>> {
    let sent = Sdp::parse(&leg.sdp_sent.as_ref()?.body.0).ok()?;
    let anchor = |m: &Media<'_>| {
        let OwnAddress { told, .. } = streams::own_address(leg, m, ground)?;
        Some((SocketAddr::new(told, m.port), m.rtcp.map(|(port, _)| port)))
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
        let new = streams::meaning(m, f);
        known
            .iter()
            .filter_map(|k| k.media().get(i))
            .filter(|k| k.formats.contains(&f))
            .any(|k| streams::meaning(k, f) != new)
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
