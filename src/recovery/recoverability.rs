//! What a takeover does with a call, by what is known of it. Pure: the engine acts by it, and `inspect` tells it.

use super::permitted::Ground;
use super::plan::{self, Paths, Unpassable};
use crate::calls::model::Call;
use crate::sip::Transport;
use crate::sip::sdp::Media;
use std::net::{IpAddr, SocketAddr};

/// What a takeover does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both parties get a re-INVITE.
    Reinvited,
    /// A leg was first seen after its start: nothing true can be said to a phone whose dialog is half known. It is left alone.
    PartialDialog,
    /// A leg is not over UDP: only UDP can be sent from the server's port. It is left alone.
    NotUdp,
    /// No partner is known: the party that is gets BYE.
    SingleLeg,
    /// The audio can't pass: both parties get BYE.
    Silent(Unpassable),
}

impl Fate {
    /// The fate of a call; `unpassable` says why its audio can't pass, if it can't.
    #[must_use]
    pub fn of(call: &Call, unpassable: Option<Unpassable>) -> Self {
        if call.legs.iter().any(|l| l.partial) {
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

/// The fate of a call here, and the paths of its audio: what the relay forwards, and what it may not.
#[must_use]
pub fn of(call: &Call, ground: &Ground) -> (Fate, Paths) {
    let (paths, unpassable) = match plan::paths_of(call, ground) {
        Ok(paths) => (paths, None),
        Err(why) => (Paths::default(), Some(why)),
    };
    (Fate::of(call, unpassable), paths)
}

/// Why some of a call's audio is not forwarded, though it passes here; `None` if all is. For people.
#[must_use]
pub fn refusal(paths: &Paths) -> Option<String> {
    let (flow, why) = paths.refused.first()?;
    let some = if paths.flows.is_empty() { "the audio" } else { "a part of the audio" };
    Some(format!("{some} from {} is not relayed to {}: {why}", flow.from, flow.to))
}

/// Which way the audio of a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the addresses of the server.
    Server,
    /// From phone to phone.
    Direct,
    /// Through another address, which one of the parties was told to send to.
    Elsewhere(SocketAddr),
    /// The call has no audio, or nothing is known of it.
    Unknown,
}

/// Which way the audio of a call goes, by what its parties were told.
#[must_use]
pub fn way(call: &Call, vips: &[IpAddr]) -> Way {
    let ends: Vec<_> = call.legs.iter().filter_map(|l| plan::ends(l).ok()).collect();
    let audio = |all: &[Media<'_>]| {
        let m = all.iter().find(|m| m.kind.eq_ignore_ascii_case(b"audio") && m.port != 0)?;
        Some(SocketAddr::new(m.connection?, m.port))
    };
    let sent: Vec<_> = ends.iter().filter_map(|e| audio(e.sent.media())).collect();
    let received: Vec<_> = ends.iter().filter_map(|e| audio(e.received.media())).collect();
    if sent.is_empty() || ends.len() != call.legs.len() {
        Way::Unknown
    } else if sent.iter().all(|at| vips.contains(&at.ip()) || at.ip().is_unspecified()) {
        Way::Server
    } else if sent.len() == 2 && sent.iter().all(|at| received.contains(at)) {
        Way::Direct
    } else {
        sent.into_iter().find(|at| !vips.contains(&at.ip())).map_or(Way::Unknown, Way::Elsewhere)
    }
}
