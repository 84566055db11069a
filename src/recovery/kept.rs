//! A call without signalling of ours: the mode forbids it, or no correct request can be sent. The relay forwards its
//! audio where it can, and the agent listens for its end.

use super::call::{CarriedCall, Phase};
use super::context::Context;
use super::recoverability::Fate;
use super::types::{Action, Outcome};
use crate::calls::model::Leg;
use crate::sip::Transport;
use crate::time::Time;
use std::time::Duration;

/// Longest time to keep a call whose end may go unnoticed: a phone that hangs up through another port than the server's
/// is not overheard. Few calls last longer, and the paths only connect the two parties that agreed on them.
const AT_MOST: Duration = Duration::from_secs(12 * 3600);

/// Whether a request can be sent to the phone of this leg.
fn is_reachable(leg: &Leg) -> bool {
    leg.transport == Transport::Udp && !leg.partial
}

impl CarriedCall {
    /// Starts a call that is kept as it is.
    pub(super) fn keep(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Kept(cx.now + AT_MOST);
        self.last_answer = cx.now;
        if !self.flows.is_empty() {
            cx.actions.push_back(Action::Flows { call: self.call.id.clone(), flows: self.flows.clone() });
            self.watch(cx.now);
            return self.report(Outcome::Relayed, cx);
        }
        let outcome = match self.fate() {
            _ if !cx.mode.signals() => Outcome::Left,
            Fate::SingleLeg => Outcome::Unpaired,
            Fate::Doubtful(why) => Outcome::Refused { code: None, reason: why.to_string() },
            Fate::Silent(why) => Outcome::Refused { code: None, reason: why.to_string() },
            _ => Outcome::Left,
        };
        self.report(outcome, cx);
    }

    /// Stops all signalling now. Pending transactions are forgotten, and the audio stays as it is.
    pub(super) fn silence(&mut self, cx: &mut Context<'_>) {
        for side in &mut self.sides {
            side.invite = None;
            side.others.clear();
            side.acked.clear();
            side.served.clear();
            (side.retry, side.refresh, side.expires) = (None, None, None);
            (side.own_offer, side.late_offer, side.passing) = (None, None, None);
        }
        match self.phase {
            Phase::Kept(_) | Phase::Over(_) => {
                if let Some(reason) = self.untold {
                    self.remove(reason, cx);
                }
            }
            Phase::Waiting if cx.mode.relays() => self.keep(cx),
            // The audio is already relayed, and the phones depend on it.
            Phase::Waiting | Phase::Recovering | Phase::Carrying => {
                self.phase = Phase::Kept(cx.now + AT_MOST);
                self.watch(cx.now);
                self.report(Outcome::Relayed, cx);
            }
        }
        self.flush(cx);
    }

    /// A party of a kept call hung up, on either port. The other party is told if it can be.
    pub(super) fn hung_up_kept(&mut self, side: usize, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Kept(_)) {
            let mut bye = self.reachable(cx);
            bye[side.min(1)] = false;
            self.end(Outcome::HungUp, "hung up", &bye, cx);
        }
    }

    /// The sides that a BYE of ours can reach. What happens on one leg of an uncertain pair is no news for the other.
    pub(super) fn reachable(&self, cx: &Context<'_>) -> [bool; 2] {
        if matches!(self.fate(), Fate::Doubtful(_)) {
            return [false; 2];
        }
        let can = |side: usize| cx.mode.signals() && self.call.legs.get(side).is_some_and(|leg| is_reachable(leg));
        [can(0), can(1)]
    }

    /// Ends a call that was kept for too long.
    pub(super) fn outlived(&mut self, cx: &mut Context<'_>) {
        let carried = match self.phase {
            Phase::Carrying => Some([true; 2]),
            // What nobody relays is not the agent's to end.
            Phase::Kept(_) if !self.flows.is_empty() => Some(self.reachable(cx)),
            _ => None,
        };
        if let Some(bye) = carried.filter(|_| self.bound.is_some_and(|at| cx.now >= at)) {
            // The operator's own limit is evidence of the operator's wish.
            self.end(Outcome::Gone, "longer than the operator allows", &bye, cx);
        }
        if matches!(self.phase, Phase::Kept(until) if cx.now >= until) {
            if self.call.emergency && self.audio.sounds(cx.now, cx.settings.rtp_timeout) {
                self.phase = Phase::Kept(cx.now + AT_MOST);
            } else {
                self.close(Outcome::Gone, "relayed for longer than any call lasts", cx);
            }
        }
    }

    /// Until when a kept call is kept.
    pub(super) const fn kept_until(&self) -> Option<Time> {
        match self.phase {
            Phase::Kept(until) => Some(until),
            _ => None,
        }
    }
}
