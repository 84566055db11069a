//! The verdict's words, where the file shows more than the recovery code knows of a call. The verdict itself stays.
//! Pure.

use super::super::report::{Audio, Call, Leg, Media};
use super::notes::{is_in_use, to_other_phone};
use std::net::IpAddr;

const NEITHER: &str = "which is the address of neither a phone nor the server";
const AUDIO: &str = "the relay forwards the audio";

/// Words the reason after what was on the wire.
pub(super) fn by_the_wire(call: &mut Call, vips: &[IpAddr]) {
    let why = &call.recovery.why;
    let other = match call.recovery.audio {
        Audio::Elsewhere => to_other_phone(call).filter(|(_, at)| !vips.contains(&at.ip())).map(|(leg, _)| {
            let others = call.legs.iter().filter(|l| l.call_id != leg.call_id || l.remote_addr != leg.remote_addr);
            let told = |l: &Leg| l.media.iter().find_map(|m| m.local.as_ref().filter(|d| d.port != 0)?.address);
            let at_server = others.filter_map(told).all(|ip| vips.contains(&ip));
            let rest = if at_server { ", and the other phone to the server" } else { "" };
            let one = format!("which is the other phone's address: {} sends its audio there{rest}", leg.remote_addr);
            why.replace(NEITHER, &one)
        }),
        Audio::Relayed if call.recovery.flows.iter().any(|f| f.udptl) => {
            let is_audio = |m: &Media| m.kind.eq_ignore_ascii_case("audio") && is_in_use(m);
            let fax = call.legs.iter().all(|l| !l.media.iter().any(is_audio));
            fax.then(|| why.replace(AUDIO, "the relay forwards the fax (T.38)"))
        }
        _ => None,
    };
    if let Some(other) = other {
        call.recovery.why = other;
    }
}
