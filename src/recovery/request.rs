//! Writes requests within a stored dialog (RFC 3261 section 12.2.1.1).

#[cfg(test)]
mod tests;

use super::transaction::Target;
use crate::calls::model::Leg;
use crate::sip::advertised::Advertised;
use crate::sip::build::Builder;
use crate::sip::uri;
use std::net::{IpAddr, SocketAddr};

/// Methods that the agent handles. UPDATE is included because phones refresh session timers with it.
pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE";
/// Identifies the agent in traces.
pub(super) const USER_AGENT: &str = concat!("keepcall/", env!("CARGO_PKG_VERSION"));

/// Request URI and Route headers to reach the phone.
pub(super) fn target(leg: &Leg) -> Target {
    let strict = leg.route_set.first().map(|r| uri::uri_of(&r.0)).filter(|u| uri::uri_param(u, "lr").is_none());
    match strict {
        // A strict router expects its own URI in the request line. The remote target moves to the end of the route.
        Some(first) => {
            let mut routes: Vec<Vec<u8>> = leg.route_set.iter().skip(1).map(|r| r.to_vec()).collect();
            routes.push([b"<", &*leg.remote_target, b">"].concat());
            Target { uri: uri::without_headers(first).to_vec(), routes }
        }
        None => Target {
            uri: uri::without_headers(&leg.remote_target.0).to_vec(),
            routes: leg.route_set.iter().map(|r| r.to_vec()).collect(),
        },
    }
}

/// The agent's Contact URI for a leg: the user known to the phone, at the recovery port.
pub(super) fn contact(leg: &Leg, port: u16) -> Vec<u8> {
    let at = own_place(leg, port);
    match uri::user(&leg.local_target.0).filter(|_| leg.local_target.0.len() >= 4) {
        Some(user) => [b"sip:", user, b"@", &at].concat(),
        None => [b"sip:", at.as_slice()].concat(),
    }
}

/// The host of the server's Contact, with this port. [`own_target`] has seen to it that requests to this host arrive
/// here.
fn own_place(leg: &Leg, port: u16) -> Vec<u8> {
    let host = uri::host_port(&leg.local_target.0).map(|(host, _)| host);
    match host {
        Some(host) if host.contains(&b':') => [b"[", host, format!("]:{port}").as_bytes()].concat(),
        Some(host) => [host, format!(":{port}").as_bytes()].concat(),
        None => SocketAddr::new(leg.local_addr.ip(), port).to_string().into_bytes(),
    }
}

/// The server's Contact for a leg with the virtual address as its host. `None` if the Contact is right as it is: it has
/// that host, or an advertised one. Behind a NAT a phone cannot reach the virtual address, so the agent keeps the name
/// that the server used.
///
/// Any other host may be the dead one's own.
pub(super) fn own_target(leg: &Leg, advertised: &Advertised) -> Option<Vec<u8>> {
    let ip = leg.local_addr.ip();
    let right = |host: &[u8]| {
        advertised.has_host(host) || std::str::from_utf8(host).is_ok_and(|host| host.parse::<IpAddr>() == Ok(ip))
    };
    if uri::host_port(&leg.local_target.0).is_some_and(|(host, _)| right(host)) {
        return None;
    }
    let at = leg.local_addr;
    Some(match uri::user(&leg.local_target.0) {
        Some(user) => [b"sip:", user, format!("@{at}").as_bytes()].concat(),
        None => format!("sip:{at}").into_bytes(),
    })
}

/// Begins a request in the dialog, with all headers up to CSeq.
pub(super) fn start(
    leg: &Leg,
    target: &Target,
    method: &str,
    cseq: u32,
    branch: &str,
    port: u16,
    to: Option<&[u8]>,
) -> Builder {
    let via = String::from_utf8_lossy(&own_place(leg, port)).into_owned();
    // No `rport`: the response must go to the recovery port in sent-by. The request itself leaves from the server's
    // port.
    let mut b = Builder::request(method, &target.uri).header("Via", format!("SIP/2.0/UDP {via};branch={branch}"));
    for route in &target.routes {
        b = b.header("Route", route);
    }
    b.header("Max-Forwards", "70")
        .header("From", &leg.local.0)
        .header("To", to.unwrap_or(&leg.remote.0))
        .header("Call-ID", &leg.call_id.0)
        .header("CSeq", format!("{cseq} {method}"))
}

/// Adds the headers of a target refresh request with an offer.
pub(super) fn offering(b: Builder, leg: &Leg, port: u16, min_se: Option<u32>) -> Builder {
    let mut b = b
        .header("Contact", [b"<", contact(leg, port).as_slice(), b">"].concat())
        .header("Allow", ALLOW)
        .header("User-Agent", USER_AGENT);
    if let Some(timer) = leg.session_timer {
        // RFC 4028 section 7.1: the roles stay. This side sends the request, so it is the UAC.
        let role = if timer.local_refreshes { "uac" } else { "uas" };
        let interval = timer.interval_s.max(min_se.unwrap_or(0)).max(MIN_SE);
        b = b
            .header("Supported", "timer")
            .header("Session-Expires", format!("{interval};refresher={role}"))
            .header("Min-SE", min_se.unwrap_or(MIN_SE).max(MIN_SE).to_string());
    }
    b
}

/// Smallest interval allowed by RFC 4028 section 4, in seconds.
pub(super) const MIN_SE: u32 = 90;
