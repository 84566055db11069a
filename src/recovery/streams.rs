//! The streams of a call: what both sides of a leg agreed on for each m-line, and which m-lines of the two legs belong
//! together. Pure.

mod codec;
mod pairs;
#[cfg(test)]
mod tests;

pub(super) use codec::{Codec, meaning};
pub(super) use pairs::{Pairs, pairs};

use super::permitted::Ground;
use crate::calls::model::{Direction, Leg};
use crate::sip::sdp::{Direction as Way, Media, Sdp};
use std::net::{IpAddr, SocketAddr};

/// A leg's two descriptions.
pub(super) struct Ends<'a> {
    pub(super) sent: Sdp<'a>,
    pub(super) received: Sdp<'a>,
}

impl<'a> Ends<'a> {
    /// Both descriptions of a leg. `None` if one is missing or unreadable.
    pub(super) fn of(leg: &'a Leg) -> Option<Self> {
        let (sent, received) = (leg.sdp_sent.as_ref()?, leg.sdp_received.as_ref()?);
        Some(Self { sent: Sdp::parse(&sent.body.0).ok()?, received: Sdp::parse(&received.body.0).ok()? })
    }

    /// Both sides' words on m-line `i`, if it is in use: neither side refused it, and both call it the same kind. An
    /// answer of another kind is invalid (RFC 3264 section 6), so nobody knows what is sent there.
    pub(super) fn in_use(&self, i: usize) -> Option<(&Media<'a>, &Media<'a>)> {
        let (sent, received) = (self.sent.media().get(i)?, self.received.media().get(i)?);
        let used = sent.port != 0 && received.port != 0 && sent.kind.eq_ignore_ascii_case(received.kind);
        used.then_some((sent, received))
    }
}

/// One m-line in use, as both sides described it.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub(super) sent: &'a Media<'a>,
    pub(super) received: &'a Media<'a>,
    direction: Direction,
    observed: Option<SocketAddr>,
    ours: Option<OwnAddress>,
    sip_source: IpAddr,
}

/// The server's address for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnAddress {
    /// The virtual address, where the packets arrive.
    pub(super) vip: IpAddr,
    /// The address that the phone knows: the same, or the advertised address outside of a NAT.
    pub(super) told: IpAddr,
}

/// The server's address in an m-line that the server sent. `None` if it is not the server's.
///
/// An old-style hold told the phone 0.0.0.0, which hides the server's media address. The server's SIP address is the
/// best guess.
pub(super) fn own_address(leg: &Leg, sent: &Media<'_>, ground: &Ground) -> Option<OwnAddress> {
    let told = sent.connection?;
    let server = leg.local_addr.ip();
    let told =
        if told.is_unspecified() { ground.advertised.ip_in(&leg.local_target.0).unwrap_or(server) } else { told };
    Some(OwnAddress { vip: ground.vip_behind(told, server)?, told })
}

/// M-line `i` of a leg. `None` if it is not in use.
pub(super) fn stream<'a>(leg: &Leg, ends: &'a Ends<'a>, i: usize, ground: &Ground) -> Option<Stream<'a>> {
    let (sent, received) = ends.in_use(i)?;
    Some(Stream {
        sent,
        received,
        direction: leg.direction,
        observed: leg.rtp_sources.get(i).copied().flatten().filter(|source| {
            // Older versions accepted any host that sent enough packets as the RTP source.
            received.connection.is_none_or(|told| leg.may_send_rtp(told, source.ip()))
        }),
        ours: own_address(leg, sent, ground),
        sip_source: leg.remote_addr.ip(),
    })
}

/// The addresses a phone sends from and receives at. They are equal for nearly all phones.
#[derive(Clone, Copy)]
pub(super) struct PhoneAddresses {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

fn endpoint(address: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    address.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddr::new(ip, port))
}

impl<'a> Stream<'a> {
    /// The VIP address and port of this stream, if the phone was told to send to a VIP.
    pub(super) fn anchor(&self) -> Option<SocketAddr> {
        self.ours.map(|ours| SocketAddr::new(ours.vip, self.sent.port))
    }

    /// The server's address in the phone's words.
    pub(super) fn known_address(&self) -> Option<IpAddr> {
        self.ours.map(|ours| ours.told)
    }

    /// Whether the phone has named `ip`, or was seen there.
    pub(super) fn is_phones(&self, ip: IpAddr) -> bool {
        self.received.connection == Some(ip)
            || self.sip_source == ip
            || self.observed.is_some_and(|seen| seen.ip() == ip)
    }

    /// Whether the phone does not say where it is: an old-style hold, or a host name.
    pub(super) fn is_hidden(&self) -> bool {
        self.received.connection.is_none_or(|ip| ip.is_unspecified())
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

    pub(super) fn ways(&self) -> Option<PhoneAddresses> {
        Some(PhoneAddresses { from: self.sends_from()?, to: self.listens_at()? })
    }

    pub(super) fn anchor_rtcp(&self, anchor: SocketAddr) -> Option<SocketAddr> {
        self.sent.rtcp_port().map(|port| SocketAddr::new(anchor.ip(), port))
    }

    pub(super) fn ways_rtcp(&self) -> Option<PhoneAddresses> {
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
    pub(super) fn holds(&self) -> bool {
        matches!(self.received.direction, Way::SendOnly | Way::Inactive)
            || self.received.connection.is_some_and(|ip| ip.is_unspecified())
    }

    pub(super) fn muxed(&self) -> bool {
        self.sent.rtcp_mux && self.received.rtcp_mux
    }

    pub(super) fn is_audio(&self) -> bool {
        self.sent.kind.eq_ignore_ascii_case(b"audio")
    }

    /// Payload types agreed by both sides of the leg, preferred first.
    pub(super) fn agreed(&self) -> Vec<Codec> {
        // The order in the answer determines what the offerer sends. The first offer came from the side that opened the
        // dialog.
        match self.direction {
            Direction::Inbound => codec::agreed(self.received, self.sent),
            Direction::Outbound => codec::agreed(self.sent, self.received),
        }
    }
}

/// The payload types that mean the same to both legs, in the order of `a`.
pub(super) fn common(a: &Stream<'_>, b: &Stream<'_>) -> Vec<Codec> {
    let theirs = b.agreed();
    a.agreed().into_iter().filter(|codec| theirs.contains(codec)).collect()
}

/// Keys work end to end if the server forwarded each phone's keys to the other unchanged.
pub(super) fn keys_pass(a: &Stream<'_>, b: &Stream<'_>) -> bool {
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
