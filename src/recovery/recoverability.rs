//! Decides what a takeover does with a call, from the stored state. Pure. The engine acts on it and `inspect` shows it.

use super::permitted::{Doubtful, Ground};
use super::plan::{self, Paths, Unpassable};
use super::streams::{self, Ends};
use crate::calls::model::{Call, Leg, Pairing};
use crate::sip::Transport;
use std::net::SocketAddr;

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
    /// The two legs may not be one call, so nothing of one is given to the other.
    Doubtful(Doubtful),
    /// The audio cannot be forwarded.
    Silent(Unpassable),
}

impl Fate {
    /// The fate of a call. `unpassable` is the reason why its audio cannot be forwarded, if any.
    #[must_use]
    pub fn of(call: &Call, unpassable: Option<Unpassable>) -> Self {
        if call.pairing == Some(Pairing::SameDialog) {
            Self::Proxied
        } else if let Some(Unpassable::Doubtful(doubtful)) = unpassable {
            Self::Doubtful(doubtful)
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
    /// One phone was told the other phone's address.
    OneDirect {
        /// The phone that sends its audio straight to the other one, by its SIP address.
        from: SocketAddr,
        /// Where it sends.
        to: SocketAddr,
        /// The other phone sends to the server.
        other_at_server: bool,
    },
    /// Through another address, given to one of the parties in its description.
    Elsewhere(SocketAddr),
    /// The call has no audio, or its route is unknown.
    Unknown,
}

/// The audio of one leg: what the server told the phone, and the stream.
struct Told<'a> {
    leg: &'a Leg,
    at: SocketAddr,
    stream: streams::Stream<'a>,
}

/// The route of a call's audio, from the descriptions sent to its parties.
#[must_use]
pub fn way(call: &Call, ground: &Ground) -> AudioRoute {
    let ends: Vec<(&Leg, Ends<'_>)> =
        call.legs.iter().filter_map(|leg| Some((&**leg, plan::ends(leg).ok()?))).collect();
    let told: Vec<Told<'_>> = ends
        .iter()
        .filter_map(|(leg, ends)| {
            let mut all = (0..ends.sent.media().len()).filter_map(|i| streams::stream(leg, ends, i, ground));
            let stream = all.find(streams::Stream::is_audio)?;
            Some(Told { leg, at: SocketAddr::new(stream.sent.connection?, stream.sent.port), stream })
        })
        .collect();
    let ours = |t: &&Told<'_>| t.stream.anchor().is_some() || t.at.ip().is_unspecified();
    if told.is_empty() || ends.len() != call.legs.len() {
        return AudioRoute::Unknown;
    }
    if told.iter().all(|t| ours(&t)) {
        return AudioRoute::Server;
    }
    if let [a, b] = told.as_slice() {
        let straight = |t: &Told<'_>, other: &Told<'_>| !ours(&t) && other.stream.is_phones(t.at.ip());
        if straight(a, b) && straight(b, a) {
            return AudioRoute::Direct;
        }
        for (t, other) in [(a, b), (b, a)] {
            if straight(t, other) {
                let (from, other_at_server) = (t.leg.remote_addr, ours(&other));
                return AudioRoute::OneDirect { from, to: t.at, other_at_server };
            }
        }
    }
    told.iter().find(|t| !ours(t)).map_or(AudioRoute::Unknown, |t| AudioRoute::Elsewhere(t.at))
}
