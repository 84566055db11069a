//! Evidence that a party is gone. Without it no call is ended: a call that still has audio is alive, whatever an answer
//! says, and a call that is over costs nothing more than its entry.
//!
//! A party is gone if it hangs up, or if it fails to know its dialog twice while its audio has stopped. A call without
//! any signalling is over if no audio passed the relay for a minute, and nobody is on hold. Emergency calls are never
//! ended by the agent, whatever the evidence.

use super::audio::{Doubt, EVERY};
use super::call::{CarriedCall, Phase};
use super::context::Context;
use super::plan;
use super::recoverability::{self, AudioRoute};
use super::reinvite::Verdict;
#[cfg(test)]
use super::types::Fault;
use super::types::{Action, Outcome};
use crate::calls::model::{Flow, Leg};
use crate::config::RTP_TIMEOUT_S;
use crate::sip::sdp::{Direction, Media};
use crate::time::Time;
use std::time::Duration;

/// Pause between the two questions to a party. Two counts fit in.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(11);
/// How often a carried call is looked at that nobody ends: both phones may be gone without a word.
const LOOK: Duration = Duration::from_secs(15 * 60);

// A count before a party's answer and one after it; and a silence is many counts long.
const _: () = assert!(ASK_AGAIN.as_secs() > 2 * EVERY.as_secs() && RTP_TIMEOUT_S.0 >= 6 * EVERY.as_secs());
const _: () = assert!(LOOK.as_secs() >= RTP_TIMEOUT_S.1 + 2 * EVERY.as_secs());

impl CarriedCall {
    /// Begins to count the packets of this call.
    pub(super) fn watch(&mut self, now: Time) {
        if !self.flows.is_empty() {
            self.audio.begin(now);
        }
    }

    /// From now on this carried call is looked at now and then.
    pub(super) fn look_later(&mut self, now: Time) {
        self.look = Some(now + LOOK);
    }

    /// Looks at a carried call: with audio it is alive, without any its parties are asked.
    fn look(&mut self, cx: &mut Context<'_>) {
        let Some(at) = self.look.filter(|at| cx.now >= *at && self.phase == Phase::Carrying) else { return };
        self.watch(cx.now);
        let told = self.flows.is_empty() || cx.now >= at + cx.settings.rtp_timeout;
        // The first count only begins the watch.
        let sounds = (0..2).any(|side| self.audio.heard_at(side).is_some_and(|heard| heard > at + EVERY));
        if told || sounds {
            if !sounds {
                (0..self.sides.len()).for_each(|side| self.ask(side, cx.now));
            }
            self.look_later(cx.now);
        }
    }

    /// Asks for the counters if they are due.
    pub(super) fn count(&mut self, cx: &mut Context<'_>) {
        self.look(cx);
        self.listened_in_vain(cx);
        if self.audio.next.is_some_and(|at| cx.now >= at) {
            let looks = self.look.is_some_and(|at| cx.now >= at);
            let needed = looks
                || self.listening.is_some()
                || self.kept_until().is_some()
                || self.sides.iter().any(|s| s.doubt.is_some());
            self.audio.next = (needed && !self.flows.is_empty()).then(|| cx.now + EVERY);
            if self.audio.next.is_some() {
                cx.actions.push_back(Action::Count { call: self.call.id.clone() });
            }
        }
    }

    /// Packets that each relay path has forwarded.
    pub(super) fn counted(&mut self, counts: &[(Flow, u64)], cx: &mut Context<'_>) {
        for side in 0..2 {
            // The paths alternate between the two directions.
            let own = self.flows.iter().skip(side).step_by(2);
            let packets = own.filter_map(|flow| counts.iter().find(|(f, _)| f == flow)).map(|(_, n)| n).sum();
            self.audio.count(side, packets, cx.now);
        }
        self.count_audio(counts, cx);
        self.weigh(cx);
    }

    /// Whether the silence of a party means nothing, because a side is on hold.
    pub(super) fn is_held(&self) -> bool {
        self.call.legs.iter().any(|leg| is_held(leg))
    }

    /// Decides what the silence of the parties means.
    fn weigh(&mut self, cx: &mut Context<'_>) {
        let (now, limit) = (cx.now, cx.settings.rtp_timeout);
        let silent = |call: &Self, side: usize| call.audio.is_silent(side, now, limit);
        match self.phase {
            Phase::Kept(_) if silent(self, 0) && silent(self, 1) && !self.is_held() && !self.call.emergency => {
                let bye = self.reachable(cx);
                self.end(Outcome::Gone, "no audio of either party", &bye, cx);
            }
            Phase::Kept(_) => self.ask_silent(cx),
            Phase::Carrying => {
                let gone = (0..self.sides.len())
                    .find(|side| matches!(self.sides[*side].doubt, Some(Doubt::Lost(_))) && silent(self, *side));
                if let Some(side) = gone.filter(|_| !self.is_held()) {
                    self.gone(side, Verdict::Unreachable, cx);
                }
            }
            _ => {}
        }
    }

    /// A party did not know its dialog (481), or did not answer (408, or nothing at all). Once is a doubt.
    pub(super) fn doubted(&mut self, side: usize, verdict: Verdict, cx: &mut Context<'_>) {
        #[cfg(test)]
        match cx.settings.fault {
            Some(Fault::DoubtIsEvidence) => return self.gone(side, verdict, cx),
            Some(Fault::PathsDropped) => self.drop_paths(cx),
            _ => {}
        }
        let Some(doubt) = self.sides[side].doubt else {
            self.sides[side].doubt = Some(Doubt::Asked(cx.now));
            self.watch(cx.now);
            self.count(cx);
            self.sides[side].refresh = Some(cx.now + ASK_AGAIN);
            return;
        };
        let stopped = match (self.audio.heard_at(side), recoverability::way(&self.call, &cx.settings.ground)) {
            // A packet that was on its way when the party answered is no sign of life.
            (Some(at), _) => at <= doubt.since() + EVERY,
            // The audio ran through the server and cannot pass now.
            (None, route) => route == AudioRoute::Server && self.flows.is_empty(),
        };
        #[cfg(test)]
        let stopped = stopped || cx.settings.lacks(Fault::AudioIgnored);
        // A party on hold is silent anyway. Only its own word counts then.
        let certain = stopped && (verdict == Verdict::Gone || !self.is_held());
        let since = doubt.since();
        self.sides[side].doubt = Some(Doubt::Lost(since));
        (self.sides[side].refresh, self.sides[side].expires) = (None, None);
        self.watch(cx.now);
        if certain {
            self.gone(side, verdict, cx);
        }
    }

    /// The party is gone for certain. One that only does not answer may still hear a BYE.
    fn gone(&mut self, side: usize, verdict: Verdict, cx: &mut Context<'_>) {
        #[cfg(test)]
        let lacks = cx.settings.lacks(Fault::EmergencyEnded);
        #[cfg(not(test))]
        let lacks = false;
        if !self.call.emergency || lacks {
            let mut bye = [true, true];
            bye[side.min(1)] = verdict != Verdict::Gone;
            self.end(Outcome::Gone, "party gone", &bye, cx);
        }
    }

    #[cfg(test)]
    fn drop_paths(&mut self, cx: &mut Context<'_>) {
        self.flows.clear();
        cx.actions.push_back(Action::Flows { call: self.call.id.clone(), flows: Vec::new() });
    }

    /// The party has spoken.
    pub(super) fn is_there(&mut self, side: usize) {
        if self.sides.get(side).is_some_and(|s| s.doubt.is_some()) {
            self.sides[side].doubt = None;
        }
    }

    /// Whether requests to this party are in vain.
    pub(super) fn is_lost(&self, side: usize) -> bool {
        matches!(self.sides.get(side).and_then(|s| s.doubt), Some(Doubt::Lost(_)))
    }

    /// A party let its session timer run out, or did not acknowledge an answer. It is asked.
    pub(super) fn ask(&mut self, side: usize, now: Time) {
        if !self.is_lost(side) {
            self.sides[side].refresh.get_or_insert(now);
        }
    }

    /// When this call's packets are counted next.
    pub(super) fn next_count(&self, now: Time) -> Time {
        // While a look is open, the counts drive it.
        let look = self.look.filter(|at| *at > now || self.audio.next.is_none());
        self.audio.next.unwrap_or(Time::FAR).min(look.unwrap_or(Time::FAR))
    }
}

/// Whether a direction of this leg's audio is off, as either side asked for.
fn is_held(leg: &Leg) -> bool {
    let Ok(ends) = plan::ends(leg) else { return false };
    let off = |m: &Media<'_>| {
        m.port != 0 && (m.direction != Direction::SendRecv || m.connection.is_some_and(|ip| ip.is_unspecified()))
    };
    ends.sent.media().iter().chain(ends.received.media()).any(off)
}
