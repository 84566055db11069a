//! What the parties of a call can hear after a takeover. An outcome says no more than that.

use super::call::CarriedCall;
use super::permitted::Ground;
use super::plan;
use super::recoverability;
use super::types::Settings;
use crate::calls::model::Leg;
use crate::sip::sdp::{Direction, Sdp};
use std::net::SocketAddr;

/// Where the phone of this leg sends its audio on the virtual addresses.
fn audio_at(leg: &Leg, ground: &Ground) -> Vec<SocketAddr> {
    let Some(sent) = leg.sdp_sent.as_ref().and_then(|d| Sdp::parse(&d.body.0).ok()) else { return Vec::new() };
    let anchors = plan::anchors(leg, ground).unwrap_or_default();
    let audio = sent.media().iter().zip(anchors).filter(|(m, _)| m.kind.eq_ignore_ascii_case(b"audio") && m.port != 0);
    audio.filter_map(|(_, at)| Some(at?.0)).collect()
}

/// Whether the phone of this leg wants to hear nothing now: its audio is inactive, or its address is hidden for a hold.
fn wants_silence(leg: &Leg) -> bool {
    let Some(said) = leg.sdp_received.as_ref().and_then(|d| Sdp::parse(&d.body.0).ok()) else { return false };
    let mut audio = said.media().iter().filter(|m| m.kind.eq_ignore_ascii_case(b"audio") && m.port != 0);
    audio.any(|m| m.direction == Direction::Inactive || m.connection.is_some_and(|ip| ip.is_unspecified()))
}

impl CarriedCall {
    /// Whether the audio has a way to each party that wants it: past this host, or by the relay's paths.
    pub(super) fn is_heard(&self, settings: &Settings) -> bool {
        #[cfg(test)]
        if settings.lacks(super::types::Fault::DeafRecovered) {
            return true;
        }
        let relayed = |at: &SocketAddr| self.flows.iter().any(|flow| flow.at == *at);
        self.call.legs.iter().any(|leg| wants_silence(leg))
            || self.call.legs.iter().all(|leg| {
                let at = audio_at(leg, &settings.ground);
                at.is_empty() || at.iter().any(relayed)
            })
    }

    /// Why the audio has no way, in words for an operator.
    pub(super) fn deaf(&self, settings: &Settings) -> String {
        let paths = plan::paths_of(&self.call, &settings.ground).unwrap_or_default();
        recoverability::refusal(&paths).unwrap_or_else(|| "the relay cannot forward the audio".to_owned())
    }
}
