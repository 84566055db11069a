//! What the relay counts of a recovered call's audio in its first seconds. That the phones have accepted shows that they
//! are there; only their packets show that the audio has found its way. It is told and nothing else: a phone that
//! suppresses silence, or whose user listens, sends nothing either, and no call is ended or corrected for it. Pure.

use super::audio::EVERY;
use super::call::CarriedCall;
use super::context::Context;
use super::heard::audio_at;
#[cfg(test)]
use super::types::Fault;
use super::types::{Action, Counted};
use crate::calls::model::Flow;
use crate::time::Time;
use std::time::Duration;

/// How long is listened after the first count: two more counts. Audio sends 50 packets a second, and comfort noise at
/// least one in a few seconds where the codec has it.
const FOR: Duration = Duration::from_secs(2 * EVERY.as_secs());

/// The counts of a recovered call so far.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    until: Time,
    base: [Option<u64>; 2],
    heard: [bool; 2],
}

/// The instant of the next counts. All calls have the same ones, so that a hundred are read in one request.
fn next_round(now: Time) -> Time {
    let every = u64::try_from(EVERY.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos((now.as_nanos() / every).saturating_add(1).saturating_mul(every))
}

impl Listening {
    fn count(&mut self, side: usize, packets: u64) {
        let (Some(base), Some(heard)) = (self.base.get_mut(side), self.heard.get_mut(side)) else { return };
        // A renewed table counts from zero, so a smaller number is life as well.
        *heard |= base.is_some_and(|base| base != packets);
        *base = base.or(Some(packets));
    }

    fn counted(&self) -> Counted {
        match self.heard {
            [true, true] => Counted::Both,
            [true, false] => Counted::Only(0),
            [false, true] => Counted::Only(1),
            [false, false] if self.base.contains(&None) => Counted::Unknown,
            [false, false] => Counted::Neither,
        }
    }
}

impl CarriedCall {
    /// Begins to listen to a recovered call. Its end is told exactly once.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>) {
        if self.call.legs.iter().all(|leg| self.relayed_audio(audio_at(leg, &cx.settings.ground)).next().is_none()) {
            return self.listened(Counted::NotOurs, cx);
        }
        let first = next_round(cx.now);
        self.listening = Some(Listening { until: first + FOR, base: [None; 2], heard: [false; 2] });
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
        if listening.heard == [true; 2] || cx.now >= listening.until {
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
            listening.base = [None; 2];
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
