//! Writing requests within a stored dialog (RFC 3261 section 12.2.1.1).

#[cfg(test)]
mod tests;

use super::transaction::Target;
use crate::calls::model::Leg;
use crate::sip::build::Builder;
use crate::sip::uri;
use std::net::SocketAddr;

/// What the agent understands. UPDATE is there because phones refresh session timers with it.
pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE";
/// Names the sender in traces.
pub(super) const USER_AGENT: &str = concat!("keepcall/", env!("CARGO_PKG_VERSION"));

/// Request URI and Route headers towards the phone.
pub(super) fn target(leg: &Leg) -> Target {
    let strict = leg.route_set.first().map(|r| uri::uri_of(&r.0)).filter(|u| uri::uri_param(u, "lr").is_none());
    match strict {
        // A strict router takes its own URI from the request line, and the remote target goes to the end of the route.
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

/// The agent's Contact URI for a leg: the user that the phone knows, on the recovery port.
pub(super) fn contact(leg: &Leg, port: u16) -> Vec<u8> {
    let at = SocketAddr::new(leg.local_addr.ip(), port);
    match uri::user(&leg.local_target.0).filter(|_| leg.local_target.0.len() >= 4) {
        Some(user) => [b"sip:", user, format!("@{at}").as_bytes()].concat(),
        None => format!("sip:{at}").into_bytes(),
    }
}

/// The start of a request in the dialog: everything up to CSeq.
pub(super) fn start(
    leg: &Leg,
    target: &Target,
    method: &str,
    cseq: u32,
    branch: &str,
    port: u16,
    to: Option<&[u8]>,
) -> Builder {
    let via = SocketAddr::new(leg.local_addr.ip(), port);
    // No `rport`: the answer shall come to the recovery port in sent-by, not to the server's port that this leaves from.
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

/// The headers of a request that refreshes the target and makes an offer.
pub(super) fn offering(b: Builder, leg: &Leg, port: u16, min_se: Option<u32>) -> Builder {
    let mut b = b
        .header("Contact", [b"<", contact(leg, port).as_slice(), b">"].concat())
        .header("Allow", ALLOW)
        .header("User-Agent", USER_AGENT);
    if let Some(timer) = leg.session_timer {
        // RFC 4028 section 7.1: the roles stay as they were; this side sends, so it is the UAC.
        let role = if timer.local_refreshes { "uac" } else { "uas" };
        let interval = timer.interval_s.max(min_se.unwrap_or(0)).max(MIN_SE);
        b = b
            .header("Supported", "timer")
            .header("Session-Expires", format!("{interval};refresher={role}"))
            .header("Min-SE", min_se.unwrap_or(MIN_SE).max(MIN_SE).to_string());
    }
    b
}

/// The least interval that RFC 4028 section 4 allows, in seconds.
pub(super) const MIN_SE: u32 = 90;
