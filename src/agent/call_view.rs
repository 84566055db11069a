//! The command line's view of a stored call.

use crate::calls::model::{Call, Leg};
use crate::config::Mode;
use crate::control::api::{CallRow, LegRow};
use crate::recovery::engine::{CallState, CallStatus, Counted};
use crate::recovery::outlook::Outlook;
use crate::recovery::permitted::Ground;
use crate::recovery::recoverability;
use crate::sip::sdp::{Media, Sdp};
use crate::sip::uri;
use std::net::SocketAddr;

pub(super) fn row(call: &Call, carried: Option<&CallStatus>, ground: &Ground, mode: Option<Mode>) -> CallRow {
    let outlook = mode.map(|mode| Outlook::of(call, ground, mode));
    CallRow {
        id: call.id.clone(),
        instance: call.instance.clone(),
        node: call.node.clone(),
        epoch: call.epoch,
        state: state(call, carried).to_owned(),
        confirmed_ms: call.confirmed_ms,
        emergency: call.emergency,
        pairing: call.pairing.and_then(|p| serde_json::to_value(p).ok()?.as_str().map(str::to_owned)),
        confidence: call.confidence,
        other_end: call.other_end.clone(),
        legs: call.legs.iter().map(|l| leg(l)).collect(),
        not_relayed: recoverability::refusal(&recoverability::of(call, ground).1),
        takeover: outlook.as_ref().map(|o| o.word().to_owned()).unwrap_or_default(),
        not_kept: outlook.and_then(Outlook::why),
        silent: carried.and_then(|c| c.counted).and_then(|counted| silent(call, counted)),
    }
}

/// Whose audio was missing when it was counted.
fn silent(call: &Call, counted: Counted) -> Option<String> {
    let party =
        |side: usize| call.legs.get(side).map(|l| String::from_utf8_lossy(uri::uri_of(&l.remote.0)).into_owned());
    match counted {
        Counted::Neither => Some("no audio of either party".to_owned()),
        Counted::Only(side) => Some(format!("no audio of {}", party(1_usize.checked_sub(side)?)?)),
        Counted::Both | Counted::OnHold | Counted::NotOurs | Counted::Unknown => None,
    }
}

fn state(call: &Call, carried: Option<&CallStatus>) -> &'static str {
    match carried.map(|c| c.state) {
        Some(CallState::Waiting | CallState::Recovering) => "recovering",
        Some(CallState::Carried) => "carried",
        Some(CallState::Relayed) => "relayed",
        Some(CallState::Left) => "left",
        Some(CallState::Over) => "over",
        // On a standby: the state that the master has stored.
        None if call.legs.iter().any(|l| l.carried) => "carried",
        None => "up",
    }
}

fn leg(leg: &Leg) -> LegRow {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (line, media, codecs) = leg.sdp_received.as_ref().map(|s| media(&s.body.0)).unwrap_or_default();
    LegRow {
        call_id: leg.call_id.lossy(),
        direction: named(leg.direction),
        transport: named(leg.transport),
        local: text(uri::uri_of(&leg.local.0)),
        remote: text(uri::uri_of(&leg.remote.0)),
        remote_addr: Some(leg.remote_addr),
        media,
        media_source: leg.rtp_sources.get(line).copied().flatten(),
        codecs,
        obstacle: leg.obstacle(),
    }
}

/// A value's name in JSON.
fn named(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The first media stream that is switched on (audio, if there is any): its index, receive address and formats.
fn media(body: &[u8]) -> (usize, Option<SocketAddr>, Vec<String>) {
    let Ok(sdp) = Sdp::parse(body) else { return Default::default() };
    let audio = |m: &Media<'_>| m.port != 0 && m.kind.eq_ignore_ascii_case(b"audio");
    let line = sdp.media().iter().position(audio).or_else(|| sdp.media().iter().position(|m| m.port != 0)).unwrap_or(0);
    let Some(first) = sdp.media().get(line) else { return Default::default() };
    let address = first.connection.map(|ip| SocketAddr::new(ip, first.port));
    let name = |format: &&[u8]| String::from_utf8_lossy(first.encoding(format).unwrap_or(format)).into_owned();
    (line, address, first.formats.iter().map(name).collect())
}

/// Every address of a call's phones. A server that lost the call must not talk to them.
pub(super) fn phones(call: &Call) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for leg in &call.legs {
        all.push(leg.remote_addr);
        all.extend(leg.rtp_sources.iter().flatten());
        let Some(sdp) = leg.sdp_received.as_ref().and_then(|s| Sdp::parse(&s.body.0).ok()) else { continue };
        for media in sdp.media().iter().filter(|m| m.port != 0) {
            let Some(ip) = media.connection else { continue };
            all.push(SocketAddr::new(ip, media.port));
            all.extend(media.rtcp_port().map(|port| SocketAddr::new(ip, port)));
        }
    }
    all
}
