//! Remarks on a call that help whoever reads its capture. Pure.

use super::super::report::{Audio, Call, Hold, Leg, LegDirection, Media, Rtp};
use std::net::SocketAddr;

/// RTP of fewer packets is not reported as one-way: the other side may only just begin.
const ONE_WAY: u64 = 50;
/// The dialog does not pass the server.
pub(super) const PASSED_BY: &str =
    "the parties send their requests past the server: it did not ask to stay in the dialog (no Record-Route)";

/// The notes on a call.
pub(super) fn of(call: &Call) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for leg in &call.legs {
        let who = leg.remote_addr;
        for m in leg.media.iter().filter(|m| m.agreed && m.kind.eq_ignore_ascii_case("audio")) {
            let count = |r: &Option<Rtp>| r.as_ref().map_or(0, |r| r.packets);
            let (there, back) = (count(&m.received), count(&m.sent));
            if leg.hold == Hold::None && (there == 0) != (back == 0) && there.max(back) >= ONE_WAY {
                let way = if there == 0 { "to" } else { "from" };
                notes.push(format!("one-way audio: RTP goes only {way} {who}"));
            }
            if let Some((source, told)) = m.received.as_ref().and_then(|r| Some((r.source?, r.told?.ip()))) {
                notes.push(if source.ip() == told {
                    format!("{who} sends RTP from {source}, another port than the one in its SDP")
                } else {
                    format!("{who} is behind a NAT: RTP comes from {source}, and the SDP says {told}")
                });
            }
        }
        if leg.direction != LegDirection::Outbound
            && let Some(ip) = contact_ip(&leg.remote_target).filter(|ip| *ip != leg.remote_addr.ip())
            && leg.route_set.is_empty()
        {
            notes.push(format!("{who} is behind a NAT: the Contact says {ip}"));
        }
    }
    if call.recovery.audio == Audio::Elsewhere && to_other_phone(call).is_none() {
        notes.push(
            "if the address that the audio passes belongs to the server too, name that address with --vip, or with \
             --advertised if a NAT has it"
                .to_owned(),
        );
    }
    notes.extend(fax(call));
    notes.dedup();
    notes
}

/// What becomes of fax, which is no audio.
fn fax(call: &Call) -> Option<String> {
    let is_fax = |leg: &Leg| leg.media.iter().any(|m| m.t38 && m.agreed && is_in_use(m));
    let legs = call.legs.iter().filter(|l| !l.media.is_empty()).count();
    let faxes = call.legs.iter().filter(|l| is_fax(l)).count();
    let at_end = "the call is a fax by T.38";
    if faxes == 0 {
        None
    } else if faxes < legs {
        Some(format!(
            "{at_end} on {faxes} of {legs} legs only: the server converts it, and without the server it is lost"
        ))
    } else if call.recovery.flows.iter().any(|f| f.udptl) {
        Some(format!("{at_end}: the relay forwards its packets (UDPTL) as they are"))
    } else if call.recovery.audio == Audio::Relayed {
        Some(format!(
            "{at_end}, and not over plain UDPTL on both legs: the relay forwards RTP only, so the fax is lost"
        ))
    } else {
        Some(format!("{at_end}, which the relay does not forward here"))
    }
}

/// Whether both sides describe the stream, and neither refuses it.
pub(super) fn is_in_use(m: &Media) -> bool {
    [&m.local, &m.remote].into_iter().all(|d| d.as_ref().is_some_and(|d| d.port != 0))
}

/// The leg whose phone was told to send its audio straight to another phone of the call, and where to.
pub(super) fn to_other_phone(call: &Call) -> Option<(&Leg, SocketAddr)> {
    call.legs.iter().enumerate().find_map(|(n, leg)| {
        let m = leg.media.iter().find(|m| m.kind.eq_ignore_ascii_case("audio") && is_in_use(m))?;
        let told = m.local.as_ref().and_then(|d| Some(SocketAddr::new(d.address?, d.port)))?;
        let others = call.legs.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, l)| l);
        let is_its = |other: &Leg| {
            let described = other.media.iter().filter_map(|m| m.remote.as_ref()?.address);
            let sends = other.media.iter().filter_map(|m| Some(m.received.as_ref()?.source?.ip()));
            described.chain(sends).chain([other.remote_addr.ip()]).any(|ip| ip == told.ip())
        };
        let mine = leg.local_addr.ip() == told.ip();
        others.into_iter().any(is_its).then_some((leg, told)).filter(|_| !mine)
    })
}

fn contact_ip(target: &str) -> Option<std::net::IpAddr> {
    std::str::from_utf8(crate::sip::uri::host_port(target.as_bytes())?.0).ok()?.parse().ok()
}
