//! A call with relayed audio and no signalling. The agent listens for its end and never sends SIP.

use super::call::{Carried, Context, Phase};
use super::types::{Action, Outcome};
use std::time::Duration;

/// Longest time to relay audio for a call whose end may go unnoticed: a phone that hangs up through another port than
/// the server's is not overheard. Few calls last longer, and the paths only connect the two parties that agreed on
/// them.
const AT_MOST: Duration = Duration::from_secs(12 * 3600);

impl Carried {
    /// Starts a call in a mode that only relays audio.
    pub(super) fn relay_only(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Relayed(cx.now + AT_MOST);
        let flows = self.flows.clone();
        if flows.is_empty() {
            self.report(Outcome::Left, cx);
        } else {
            cx.actions.push_back(Action::Flows { call: self.call.id.clone(), flows });
            self.report(Outcome::Relayed, cx);
        }
    }

    /// Stops all signalling now. Pending transactions are forgotten, and the audio stays as it is.
    pub(super) fn silence(&mut self, cx: &mut Context<'_>) {
        for side in &mut self.sides {
            side.invite = None;
            side.others.clear();
            side.acked.clear();
            side.served.clear();
            (side.retry, side.refresh, side.expires) = (None, None, None);
            (side.own_offer, side.late_offer) = (None, None);
        }
        match self.phase {
            Phase::Relayed(_) | Phase::Over(_) => {}
            Phase::Waiting if cx.mode.relays() => self.relay_only(cx),
            Phase::Waiting if !self.recoverable() => {
                // Nothing was done yet, and this mode allows nothing.
                self.phase = Phase::Over(cx.now);
                self.report(Outcome::Left, cx);
            }
            // The audio is already relayed, and the phones depend on it.
            Phase::Waiting | Phase::Recovering | Phase::Carrying => {
                self.phase = Phase::Relayed(cx.now + AT_MOST);
                self.report(Outcome::Relayed, cx);
            }
        }
        self.flush(cx);
    }

    /// A phone hung up, on either port.
    pub(super) fn hung_up_in_silence(&mut self, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Relayed(_)) {
            self.close(Outcome::HungUp, "hung up", cx);
        }
    }

    /// Ends a call that was relayed for too long.
    pub(super) fn outlived(&mut self, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Relayed(until) if cx.now >= until) {
            self.close(Outcome::Gone, "relayed for longer than any call lasts", cx);
        }
    }
}
