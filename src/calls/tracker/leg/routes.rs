//! Where requests to the phone go: route set, remote target, address (RFC 3261 sections 12.1, 12.2 and 16.12).

use super::Tracked;
use crate::calls::model::{Gap, Leg, Verbatim};
use crate::sip::Transport;
use crate::sip::message::{Message, Name};
use crate::sip::uri;
use crate::wire::Packet;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// Most entries of a route set; with more the leg is partial.
const MAX_ROUTES: usize = 32;
/// Most bytes of a route set; with more the leg is partial.
const MAX_ROUTE_BYTES: usize = 4096;
/// Values of one message; few have more, and then it costs an allocation.
type Values<'a> = SmallVec<[&'a [u8]; 6]>;

/// Port of a SIP URI that names none.
const SIP_PORT: u16 = 5060;

/// What lies behind the server is left out: a proxy that record-routes finds its own entry in the list (two of them if it changes the
/// transport or the network), and from its own place only what follows the last of them is ahead.
fn ahead<'r>(routes: &'r [&'r [u8]], own: &dyn Fn(&[u8]) -> bool) -> &'r [&'r [u8]] {
    let from = routes.iter().rposition(|r| own(uri::uri_of(r))).map_or(0, |n| n + 1);
    &routes[from..]
}

/// A request of a phone that came from another address than the one before.
#[derive(Clone, Copy, Debug)]
pub(in crate::calls::tracker) struct Arrival {
    cseq: u32,
    local: SocketAddr,
    remote: SocketAddr,
    transport: Transport,
}

impl Tracked {
    /// Sets the route set, as it is to be sent.
    fn set_routes(&mut self, routes: &[&[u8]], own: &dyn Fn(&[u8]) -> bool) -> bool {
        let routes = ahead(routes, own);
        if routes.len() > MAX_ROUTES || routes.iter().map(|r| r.len()).sum::<usize>() > MAX_ROUTE_BYTES {
            self.lack(Gap::RouteSet);
            return true;
        }
        let news = !self.leg.route_set.iter().map(|r| &r.0[..]).eq(routes.iter().copied());
        if news {
            self.leg.route_set = routes.iter().map(|r| Verbatim::from(*r)).collect();
        }
        self.know(Gap::RouteSet) || news
    }

    /// RFC 3261 section 12.1.1: the UAS takes Record-Route of the first INVITE in order.
    pub(in crate::calls::tracker) fn routes_of_invite(&mut self, m: &Message<'_>, own: &dyn Fn(&[u8]) -> bool) -> bool {
        let all: Values<'_> = m.values(Name::RecordRoute).collect();
        self.set_routes(&all, own)
    }

    /// RFC 3261 section 12.1.2: the UAC takes Record-Route of the response in reverse order. The values that the INVITE had when it left the
    /// server are at the end of the list; they lead back, not to the phone, whatever names they bear.
    pub(in crate::calls::tracker) fn routes_of_response(
        &mut self,
        m: &Message<'_>,
        own: &dyn Fn(&[u8]) -> bool,
    ) -> bool {
        let all: Values<'_> = m.values(Name::RecordRoute).collect();
        let beyond: Values<'_> =
            all.iter().take(all.len().saturating_sub(usize::from(self.own_routes))).rev().copied().collect();
        self.set_routes(&beyond, own)
    }

    /// Learns from a request of the server inside the dialog what it knows itself: section 12.2.1.1 has it put the route set into Route
    /// and the remote target into the request URI. This is what it says, not a guess; so it fills gaps, but does not overrule what the start
    /// of the dialog told.
    pub(in crate::calls::tracker) fn routes_of_request(
        &mut self,
        m: &Message<'_>,
        own: &dyn Fn(&[u8]) -> bool,
    ) -> bool {
        let (set, target) = (self.leg.gaps.contains(Gap::RouteSet), self.leg.gaps.contains(Gap::RemoteTarget));
        let Some(request_uri) = m.request_uri().filter(|_| set || target) else { return false };
        let first = [b"<", request_uri, b">"].concat();
        let mut routes: Values<'_> = m.values(Name::Route).collect();
        let mut to = request_uri;
        let strict = routes.first().is_some_and(|r| uri::uri_param(uri::uri_of(r), "lr").is_none());
        if strict && let Some(last) = routes.pop() {
            // A strict router has the request URI for itself; the remote target stands at the end.
            to = uri::uri_of(last);
            routes.insert(0, &first);
        }
        let news = set && self.set_routes(&routes, own);
        if target && !to.is_empty() {
            self.leg.remote_target = to.into();
            return self.know(Gap::RemoteTarget) || news;
        }
        news
    }

    /// A proxy that has put itself into the route set sees every request of the dialog (section 16.6), and adds its Via. So a request of
    /// the phone with one Via has met none, and the route set is empty.
    pub(in crate::calls::tracker) fn routes_by_via(&mut self, m: &Message<'_>) -> bool {
        self.leg.gaps.contains(Gap::RouteSet) && m.values(Name::Via).nth(1).is_none() && {
            self.leg.route_set = Vec::new();
            self.know(Gap::RouteSet)
        }
    }

    /// A target refresh of the phone is accepted: where it came from counts, unless the new target says otherwise.
    pub(in crate::calls::tracker) fn moved_with_target(&mut self, source: SocketAddr) -> bool {
        if self.leg.remote_addr == source || next_hop(&self.leg) == Some(self.leg.remote_addr) {
            return false;
        }
        self.leg.remote_addr = source;
        true
    }

    /// Takes the addresses of a new request, or notes them. The server's word for where it sends to is final. A phone's packet from elsewhere
    /// is a NAT that has given it another port, or a new connection, once the server accepts what it brought: else whoever sends one packet
    /// in the phone's name would have its calls. But if the server goes by an address that the phone or its proxy has named, and the leg has
    /// it, then packets from another host are only that: some trunks send from one host and listen on another.
    pub(in crate::calls::tracker) fn moves(&mut self, p: &Packet<'_>, out: bool, cseq: u32) -> bool {
        let (local, remote) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
        let leg = &self.leg;
        let same = (leg.local_addr, leg.remote_addr, leg.transport) == (local, remote, p.transport);
        let elsewhere = !out && leg.remote_addr.ip() != remote.ip() && next_hop(leg) == Some(leg.remote_addr);
        if same || elsewhere {
            return false;
        }
        let arrival = Arrival { cseq, local, remote, transport: p.transport };
        if out {
            self.take(arrival);
        } else {
            self.arrival = Some(Box::new(arrival));
        }
        true
    }

    /// The server has accepted the phone's request of this number.
    pub(in crate::calls::tracker) fn arrived(&mut self, cseq: u32) -> bool {
        let arrival = self.arrival.take_if(|a| a.cseq == cseq);
        arrival.is_some_and(|a| {
            self.take(*a);
            true
        })
    }

    fn take(&mut self, Arrival { local, remote, transport, .. }: Arrival) {
        self.leg.local_addr = local;
        self.leg.remote_addr = remote;
        self.leg.transport = transport;
    }
}

/// The address that the phone or its proxy has named for requests to it, if it is no host name.
fn next_hop(leg: &Leg) -> Option<SocketAddr> {
    let to = leg.route_set.first().map_or(&leg.remote_target.0[..], |r| uri::uri_of(&r.0));
    let (host, port) = uri::host_port(to)?;
    let ip: IpAddr = std::str::from_utf8(host).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, port.unwrap_or(SIP_PORT)))
}
