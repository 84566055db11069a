//! What the relay counts of a recovered call's audio in its first seconds. That the phones have accepted shows that they
//! are there; only their packets show that the audio has found its way. It is told and nothing else: a phone that
//! suppresses silence, or whose user listens, sends nothing either, and no call is ended or corrected for it. Pure.

use super::audio::{EVERY, Listening};
use super::call::CarriedCall;
use super::context::Context;
use super::heard::audio_at;
#[cfg(test)]
use super::types::Fault;
use super::types::{Action, Counted};
use crate::calls::model::Flow;

impl CarriedCall {
    /// Begins to listen to a recovered call. Its end is told exactly once.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>) {
        if self.call.legs.iter().all(|leg| self.relayed_audio(audio_at(leg, &cx.settings.ground)).next().is_none()) {
            return self.listened(Counted::NotOurs, cx);
        }
        let (first, listening) = Listening::begin(cx.now);
        self.listening = Some(listening);
        self.audio.begin(first);
    }

    fn relayed_audio(&self, at: Vec<std::net::SocketAddr>) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| at.contains(&flow.at))
    }

    /// Packets that each relay path has forwarded. RTCP is a sign of life, but nobody hears it.
    pub(super) fn count_audio(&mut self, counts: &[(Flow, u64)], cx: &mut Context<'_>) {
        let Some(mut listening) = self.listening.take() else { return };
        for (side, leg) in self.call.legs.iter().enumerate() {
            let at = audio_at(leg, &cx.settings.ground);
            #[cfg(test)]
            let at = if cx.settings.lacks(Fault::RtcpIsAudio) {
                self.flows.iter().skip(side).step_by(2).map(|flow| flow.at).collect()
            } else {
                at
            };
            let own = self.relayed_audio(at).filter_map(|flow| counts.iter().find(|(f, _)| f == flow));
            // A path that is not in the answer was not counted: that is another thing than no packet.
            if let Some(packets) = own.map(|(_, packets)| *packets).reduce(|a, b| a + b) {
                listening.count(side, packets);
            }
        }
        if listening.counted() == Counted::Both || cx.now >= listening.until {
            let counted = match listening.counted() {
                // A party on hold is silent by its own wish, or by the other one's.
                Counted::Only(_) | Counted::Neither if self.is_held() => Counted::OnHold,
                counted => counted,
            };
            return self.listened(counted, cx);
        }
        self.listening = Some(listening);
    }

    /// The paths are others now, and so are their counters.
    pub(super) fn listen_anew(&mut self) {
        if let Some(listening) = &mut self.listening {
            listening.anew();
        }
    }

    /// Stops to listen when no answer comes: counters that cannot be read are no evidence.
    pub(super) fn listened_in_vain(&mut self, cx: &mut Context<'_>) {
        if self.listening.as_ref().is_some_and(|l| cx.now >= l.until + EVERY || self.flows.is_empty()) {
            self.listened(Counted::Unknown, cx);
        }
    }

    /// Tells what was counted.
    pub(super) fn listened(&mut self, counted: Counted, cx: &mut Context<'_>) {
        self.listening = None;
        self.counted = Some(counted);
        cx.actions.push_back(Action::Listened { call: self.call.id.clone(), counted });
    }
}
