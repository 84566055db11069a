//! Says in the report's terms what a takeover would do with a call. The recovery code itself decides, so the report
//! matches the agent.

use super::report::{Audio, Recovery, Signalling};
use crate::calls::model::Call;
use crate::recovery::permitted::Ground;
use crate::recovery::recoverability::{self, AudioRoute, Fate};
use std::net::IpAddr;

/// What a takeover would do with this call, at a server with these addresses.
pub(super) fn of_takeover(call: &Call, vips: &[IpAddr]) -> Recovery {
    let (fate, paths) = recoverability::of(call, &Ground::of(vips));
    let flows = &paths.flows;
    let way = recoverability::way(call, vips);
    let signalling = if fate == Fate::Reinvited { Signalling::ReInvite } else { Signalling::No };
    let (audio, of_audio) = match (fate, way) {
        (Fate::Proxied, AudioRoute::Server) if !flows.is_empty() => (
            Audio::Relayed,
            "the relay forwards the audio until a re-INVITE moves it to the new media server".to_owned(),
        ),
        (_, AudioRoute::Direct) => {
            (Audio::Direct, "the audio goes from phone to phone and does not need the server".to_owned())
        }
        (_, AudioRoute::Elsewhere(at)) => {
            (Audio::Elsewhere, format!("the audio passes {at}, which is the address of neither a phone nor the server"))
        }
        (Fate::SingleLeg | Fate::Silent(_), _) => (Audio::No, String::new()),
        _ if !flows.is_empty() => (Audio::Relayed, "the relay forwards the audio".to_owned()),
        _ if !paths.refused.is_empty() => (Audio::No, String::new()),
        (Fate::Reinvited | Fate::Proxied, _) => {
            (Audio::No, "the parties agreed on no audio that the relay could forward".to_owned())
        }
        (Fate::PartialDialog | Fate::NotUdp, _) => (Audio::No, "the audio stops".to_owned()),
    };
    let of_signalling = match fate {
        Fate::Reinvited => "both parties get a re-INVITE".to_owned(),
        Fate::Proxied => {
            "the server is a proxy: keepcall sends nothing, and the new server routes the dialog by its route set"
                .to_owned()
        }
        Fate::PartialDialog => "a leg has gaps, so keepcall cannot send a correct re-INVITE or BYE".to_owned(),
        Fate::NotUdp => "a leg does not use UDP, and keepcall can send only UDP from the server's port".to_owned(),
        Fate::SingleLeg => {
            "keepcall knows only one leg of the call: the server itself is the other party, or the second leg is in \
             doubt; the call is left alone"
                .to_owned()
        }
        Fate::Silent(why) => format!("{why}; the call is left alone"),
    };
    let why = [Some(of_signalling), Some(of_audio).filter(|text| !text.is_empty()), recoverability::refusal(&paths)];
    let why = why.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Recovery { audio, signalling, why, flows: flows.iter().map(Into::into).collect() }
}

#[cfg(test)]
mod tests;
