//! Says in the report's terms what a takeover would do with a call. The recovery code itself decides, so the report
//! matches the agent.

use super::report::{Audio, Recovery, Signalling};
use crate::calls::model::Call;
use crate::recovery::heard::Hearing;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::{Paths, Unpassable};
use crate::recovery::recoverability::{self, AudioRoute, Fate};

/// What a takeover would do with this call, at a server on this ground. `passed_by`: the file shows that the parties
/// send their requests past the server.
pub(super) fn of_takeover(call: &Call, ground: &Ground, passed_by: bool) -> Recovery {
    let (fate, paths) = recoverability::of(call, ground);
    let signalling = if fate == Fate::Reinvited && !passed_by { Signalling::ReInvite } else { Signalling::No };
    let carried = matches!(fate, Fate::Reinvited | Fate::Proxied);
    let hearing = Hearing::of(call, &paths.flows, carried, ground);
    let (audio, of_audio) = audio(fate, &paths, recoverability::way(call, ground), &hearing);
    let of_signalling = if passed_by {
        "the server is not in the dialog (no Record-Route): keepcall sends nothing, and the parties' requests go past \
         the server"
            .to_owned()
    } else {
        words(fate)
    };
    let relayed = audio == Audio::Relayed;
    let keys = paths.keys_lost.as_ref().filter(|_| relayed).map(ToString::to_string);
    let why =
        [Some(of_signalling), Some(of_audio).filter(|text| !text.is_empty()), recoverability::refusal(&paths), keys];
    let why = why.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Recovery { audio, signalling, why, flows: paths.flows.iter().map(Into::into).collect() }
}

/// What becomes of the audio.
fn audio(fate: Fate, paths: &Paths, route: AudioRoute, hearing: &Hearing) -> (Audio, String) {
    let flows = &paths.flows;
    let relayed = *hearing == Hearing::BothWays && !flows.is_empty();
    // No audio of the call is left, or its path would be there too.
    let what = if flows.iter().all(|f| f.udptl) { "fax (T.38)" } else { "audio" };
    match (fate, route) {
        (Fate::Proxied, AudioRoute::Server) if relayed => (
            Audio::Relayed,
            format!("the relay forwards the {what} until a re-INVITE moves it to the new media server"),
        ),
        (_, AudioRoute::Direct) => {
            (Audio::Direct, "the audio goes from phone to phone and does not need the server".to_owned())
        }
        (_, AudioRoute::OneDirect { from, to, other_at_server }) => {
            let rest = if other_at_server { ", and the other phone to the server" } else { "" };
            let why = format!(
                "the audio passes {to}, which is the other phone's address: {from} sends its audio there{rest}"
            );
            (Audio::Elsewhere, why)
        }
        (Fate::Doubtful(_), _) => (Audio::Doubtful, String::new()),
        (Fate::SingleLeg | Fate::Silent(Unpassable::NotOurs(_)), _) => (Audio::No, String::new()),
        (_, AudioRoute::Elsewhere(at)) => {
            (Audio::Elsewhere, format!("the audio passes {at}, which is the address of neither a phone nor the server"))
        }
        (Fate::Silent(_), _) => (Audio::No, String::new()),
        _ if relayed => (Audio::Relayed, format!("the relay forwards the {what}")),
        _ if !paths.refused.is_empty() => (Audio::No, String::new()),
        (_, AudioRoute::Server) if *hearing == Hearing::BothWays => (
            Audio::Relayed,
            "a party is on hold and names no address: the relay forwards the audio when it resumes".to_owned(),
        ),
        (Fate::Reinvited | Fate::Proxied, _) => {
            (Audio::No, "the parties agreed on no audio that the relay could forward".to_owned())
        }
        (Fate::PartialDialog | Fate::NotUdp, _) => (Audio::No, "the audio stops".to_owned()),
    }
}

/// What becomes of the signalling.
fn words(fate: Fate) -> String {
    match fate {
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
        Fate::Doubtful(why) => format!("{why}; the call is left alone"),
        Fate::Silent(why) => format!("{why}; the call is left alone"),
    }
}

#[cfg(test)]
mod tests;
