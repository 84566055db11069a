//! Decides what a takeover does with a call, from the stored state. Pure. The engine acts on it and `inspect` shows it.

use super::permitted::Ground;
use super::plan::{self, Paths, Unpassable};
use crate::calls::model::{Call, Pairing};
use crate::sip::Transport;
use crate::sip::sdp::Media;
use std::net::{IpAddr, SocketAddr};

/// The fate of a call in a takeover. Only the first gets SIP from the agent. None of them is ended: what is unknown
/// about a call is no evidence that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both parties get a re-INVITE.
    Reinvited,
    /// The server is a proxy, and the dialog is the phones' own. The new server routes it by its route set, so nothing
    /// is sent.
    Proxied,
    /// A leg was first seen after its start. Its dialog is only half known, so no correct request can be sent to the
    /// phone.
    PartialDialog,
    /// A leg does not use UDP, and the server's port can only be used for UDP.
    NotUdp,
    /// Only one party is known.
    SingleLeg,
    /// The audio cannot be forwarded.
    Silent(Unpassable),
}

impl Fate {
    /// The fate of a call. `unpassable` is the reason why its audio cannot be forwarded, if any.
    #[must_use]
    pub fn of(call: &Call, unpassable: Option<Unpassable>) -> Self {
        if call.pairing == Some(Pairing::SameDialog) {
            Self::Proxied
        } else if call.legs.iter().any(|l| l.partial) {
            Self::PartialDialog
        } else if call.legs.iter().any(|l| l.transport != Transport::Udp) {
            Self::NotUdp
        } else if call.legs.len() != 2 {
            Self::SingleLeg
        } else if let Some(why) = unpassable {
            Self::Silent(why)
        } else {
            Self::Reinvited
        }
    }
}

/// The fate of a call on this host and its audio paths, both the forwarded and the refused ones.
#[must_use]
pub fn of(call: &Call, ground: &Ground) -> (Fate, Paths) {
    let (paths, unpassable) = match plan::paths_of(call, ground) {
        Ok(paths) => (paths, None),
        Err(why) => (Paths::default(), Some(why)),
    };
    let fate = Fate::of(call, unpassable);
    if fate == Fate::Proxied && ground.external {
        return (fate, Paths::default());
    }
    (fate, paths)
}

/// Why some of the audio through this host is not forwarded, in words for an operator. `None` if all of it is
/// forwarded.
#[must_use]
pub fn refusal(paths: &Paths) -> Option<String> {
    let (flow, why) = paths.refused.first()?;
    let some = if paths.flows.is_empty() { "the audio" } else { "a part of the audio" };
    Some(format!("the relay does not forward {some} from {} to {}: {why}", flow.from, flow.to))
}

/// The route of a call's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioRoute {
    /// Through the server's addresses.
    Server,
    /// From phone to phone.
    Direct,
    /// Through another address, given to one of the parties in its description.
    Elsewhere(SocketAddr),
    /// The call has no audio, or its route is unknown.
    Unknown,
}

/// The route of a call's audio, from the descriptions sent to its parties.
#[must_use]
pub fn way(call: &Call, vips: &[IpAddr]) -> AudioRoute {
    let ends: Vec<_> = call.legs.iter().filter_map(|l| plan::ends(l).ok()).collect();
    let audio = |all: &[Media<'_>]| {
        let m = all.iter().find(|m| m.kind.eq_ignore_ascii_case(b"audio") && m.port != 0)?;
        Some(SocketAddr::new(m.connection?, m.port))
    };
    let sent: Vec<_> = ends.iter().filter_map(|e| audio(e.sent.media())).collect();
    let received: Vec<_> = ends.iter().filter_map(|e| audio(e.received.media())).collect();
    if sent.is_empty() || ends.len() != call.legs.len() {
        AudioRoute::Unknown
    } else if sent.iter().all(|at| vips.contains(&at.ip()) || at.ip().is_unspecified()) {
        AudioRoute::Server
    } else if sent.len() == 2 && sent.iter().all(|at| received.contains(at)) {
        AudioRoute::Direct
    } else {
        sent.into_iter().find(|at| !vips.contains(&at.ip())).map_or(AudioRoute::Unknown, AudioRoute::Elsewhere)
    }
}
