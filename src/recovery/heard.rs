//! Whether the parties of a call hear each other without the server. One decision, for what is said before a takeover
//! (`outlook`) and for its outcome (`call`), so that the two cannot disagree. Pure.

use super::permitted::Ground;
use super::plan::{self, Unpassable};
use super::recoverability::refusal;
use super::streams::{self, Ends, Stream};
use crate::calls::model::{Call, Flow, Leg, Pairing};
use std::net::{IpAddr, SocketAddr};

/// What the parties of a call hear of each other without the server. A hold does not count: what matters is what they
/// hear when nobody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Each party hears the other one by the relay, or agreed on nothing that could be heard.
    BothWays,
    /// Each party hears the other one, and none of it passes this host: from phone to phone, or through a media server
    /// that lives on.
    NotOurs,
    /// One party hears the other one. With the reason.
    OneWay(String),
    /// Nobody hears anything. With the reason.
    Nothing(String),
}

impl Hearing {
    /// What the parties hear with these relay paths in force. `carried`: somebody follows their re-INVITEs, the agent
    /// or a proxy.
    #[must_use]
    pub fn of(call: &Call, flows: &[Flow], carried: bool, ground: &Ground) -> Self {
        let ends: Vec<(&Leg, Ends<'_>)> =
            call.legs.iter().filter_map(|leg| Some((&**leg, plan::ends(leg).ok()?))).collect();
        if ends.is_empty() || ends.len() != call.legs.len() {
            return Self::Nothing(Unpassable::NoDescription.to_string());
        }
        let legs: Vec<Vec<Stream<'_>>> = ends.iter().map(|(leg, ends)| in_use(leg, ends, ground)).collect();
        // Without audio it is a fax, or video alone.
        let audio = legs.iter().flatten().any(Stream::is_audio);
        let legs: Vec<Vec<Stream<'_>>> =
            legs.into_iter().map(|all| all.into_iter().filter(|s| s.is_audio() || !audio).collect()).collect();
        let around = Around { call, flows, ground };
        let ways: Vec<Way> = match legs.as_slice() {
            [a, b] => vec![around.way(a, b), around.way(b, a)],
            all => all.iter().map(|leg| around.way(leg, &[])).collect(),
        };
        if ways.iter().all(|way| way.arrives()) {
            let relayed = ways.iter().any(|way| matches!(way, Way::Relayed));
            return if relayed { Self::BothWays } else { Self::NotOurs };
        }
        let known = plan::paths_of(call, ground);
        let open = known.as_ref().is_ok_and(|paths| paths.refused.is_empty());
        let idle = legs.iter().all(Vec::is_empty);
        if open && carried && (idle || (ways.iter().all(|way| matches!(way, Way::Cut)) && is_hidden(&legs))) {
            return Self::BothWays;
        }
        let refused = known.map_or_else(|why| Some(why.to_string()), |paths| refusal(&paths));
        let elsewhere = ways.iter().find_map(|way| match way {
            Way::Elsewhere(ip) => Some(Unpassable::NotOurs(*ip).to_string()),
            _ => None,
        });
        let straight = ways.iter().find_map(|way| match way {
            Way::Straight(to) => Some(*to),
            _ => None,
        });
        let one_way = straight.map(|to| {
            format!("one way only: audio goes straight to {to}, and the other party's audio needs the server")
        });
        let why = refused.or(elsewhere).or(one_way).unwrap_or_else(|| "the relay cannot forward the audio".to_owned());
        if ways.iter().any(|way| way.arrives()) { Self::OneWay(why) } else { Self::Nothing(why) }
    }

    /// Why a party does not hear the other one. `None` if both hear.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::BothWays | Self::NotOurs => None,
            Self::OneWay(why) | Self::Nothing(why) => Some(why),
        }
    }
}

/// The streams of a leg that both sides have on.
fn in_use<'a>(leg: &Leg, ends: &'a Ends<'a>, ground: &Ground) -> Vec<Stream<'a>> {
    (0..ends.sent.media().len()).filter_map(|i| streams::stream(leg, ends, i, ground)).collect()
}

/// Where the phone of this leg sends its audio on the virtual addresses.
pub(super) fn audio_at(leg: &Leg, ground: &Ground) -> Vec<SocketAddr> {
    let Ok(ends) = plan::ends(leg) else { return Vec::new() };
    in_use(leg, &ends, ground).iter().filter(|s| s.is_audio()).filter_map(Stream::anchor).collect()
}

/// Whether a party hides its address for a hold. When it resumes, its re-INVITE names the address.
fn is_hidden(legs: &[Vec<Stream<'_>>]) -> bool {
    let hides = |s: &Stream<'_>| s.received.connection.is_some_and(|ip| ip.is_unspecified());
    legs.iter().all(|leg| !leg.is_empty()) && legs.iter().flatten().any(hides)
}

/// What becomes of what one party says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It goes to the other phone.
    Straight(SocketAddr),
    /// It goes to a media server that lives on.
    Alive,
    /// The relay forwards it.
    Relayed,
    /// It goes to an address that nobody is known to have.
    Elsewhere(IpAddr),
    /// It goes to this host, or nowhere.
    Cut,
}

impl Way {
    const fn arrives(self) -> bool {
        matches!(self, Self::Straight(_) | Self::Alive | Self::Relayed)
    }
}

struct Around<'a> {
    call: &'a Call,
    flows: &'a [Flow],
    ground: &'a Ground,
}

impl Around<'_> {
    /// What becomes of these streams of one party. One that arrives suffices, because the others may be for something
    /// else.
    fn way(&self, own: &[Stream<'_>], other: &[Stream<'_>]) -> Way {
        let ways: Vec<Way> = own.iter().map(|stream| self.way_of(stream, other)).collect();
        ways.iter().copied().find(|way| way.arrives()).or_else(|| ways.first().copied()).unwrap_or(Way::Cut)
    }

    fn way_of(&self, stream: &Stream<'_>, other: &[Stream<'_>]) -> Way {
        let proxied = self.call.pairing == Some(Pairing::SameDialog);
        if let Some(at) = stream.anchor() {
            return if self.flows.iter().any(|flow| flow.at == at) {
                Way::Relayed
            } else if proxied && self.ground.external {
                Way::Alive
            } else {
                Way::Cut
            };
        }
        let Some(told) = stream.sent.connection.filter(|ip| !ip.is_unspecified()) else { return Way::Cut };
        if other.iter().any(|theirs| theirs.is_phones(told)) {
            Way::Straight(SocketAddr::new(told, stream.sent.port))
        } else if proxied || self.ground.external {
            // Of a B2BUA, the address is more likely the dead server's own than that of a host which lives on.
            Way::Alive
        } else {
            Way::Elsewhere(told)
        }
    }
}
