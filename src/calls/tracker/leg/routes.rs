//! Destination of requests to the phone: route set, remote target, address (RFC 3261 sections 12.1, 12.2 and 16.12).

use super::Tracked;
use crate::calls::model::{Gap, Verbatim};
use crate::sip::Transport;
use crate::sip::message::{Message, Name};
use crate::sip::uri;
use crate::wire::Packet;
use smallvec::SmallVec;
use std::net::SocketAddr;

/// Most entries of a route set. With more the leg is partial.
const MAX_ROUTES: usize = 32;
/// Most bytes of a route set. With more the leg is partial.
const MAX_ROUTE_BYTES: usize = 4096;
/// Values of one message. Few messages have more, and then it costs an allocation.
type Values<'a> = SmallVec<[&'a [u8]; 6]>;

/// Removes the entries behind the server. A proxy that record-routes has its own entry in the list (two of them if it
/// changes the transport or the network), and only the entries after the last of them are ahead of it.
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
    /// Sets the route set in sending order.
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

    /// RFC 3261 section 12.1.2: the UAC takes Record-Route of the response in reverse order. The values already in the
    /// INVITE when it left the server are at the end of the list. They lead back instead of to the phone, whatever
    /// their names.
    pub(in crate::calls::tracker) fn routes_of_response(
        &mut self,
        m: &Message<'_>,
        own: &dyn Fn(&[u8]) -> bool,
    ) -> bool {
        let all: Values<'_> = m.values(Name::RecordRoute).collect();
        let beyond: Values<'_> =
            all.iter().take(all.len().saturating_sub(usize::from(self.invite.own_routes))).rev().copied().collect();
        self.set_routes(&beyond, own)
    }

    /// Learns from the server's request inside the dialog: section 12.2.1.1 puts the route set into Route and the
    /// remote target into the request URI. This is the server's own word and no guess. It fills gaps, but does not
    /// overrule the start of the dialog.
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
            // A strict router takes the request URI for itself, and the remote target stands at the end.
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

    /// A proxy in the route set sees every request of the dialog (section 16.6) and adds its Via. A request of the
    /// phone with one Via has passed no proxy, so the route set is empty.
    pub(in crate::calls::tracker) fn routes_by_via(&mut self, m: &Message<'_>) -> bool {
        self.leg.gaps.contains(Gap::RouteSet) && m.values(Name::Via).nth(1).is_none() && {
            self.leg.route_set = Vec::new();
            self.know(Gap::RouteSet)
        }
    }

    /// Takes the addresses of a new request, or records them. The server's own destination is final. A phone's packet
    /// from a new address is a NAT that has assigned another port, or a new connection. It counts once the server
    /// accepts the request. Otherwise one packet in the phone's name would redirect its calls. Exception: if the leg
    /// already has an address that the phone or its proxy has named, then packets from another host change nothing,
    /// because some trunks send from one host and listen on another.
    pub(in crate::calls::tracker) fn moves(&mut self, p: &Packet<'_>, out: bool, cseq: u32) -> bool {
        let (local, remote) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
        let leg = &self.leg;
        let same = (leg.local_addr, leg.remote_addr, leg.transport) == (local, remote, p.transport);
        let elsewhere = !out && leg.remote_addr.ip() != remote.ip() && leg.next_hop() == Some(leg.remote_addr);
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
