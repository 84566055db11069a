//! A party has hung up, and the other one must hear of it: the call stays in the store until it has.

use super::call::{CarriedCall, Phase, Purpose};
use super::context::Context;
use super::types::{Action, Outcome};
use crate::calls::model::{Call, CallEvent, LegState};

/// Whether a party of this stored call had hung up before the takeover.
pub(super) fn is_half_over(call: &Call) -> bool {
    call.legs.iter().any(|leg| leg.state == LegState::Ended)
}

impl CarriedCall {
    /// Ends a stored call whose one party had hung up. The former server had not told the other one, or nobody knows.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        self.last_answer = cx.now;
        let mut bye = self.reachable(cx);
        for (leg, bye) in self.call.legs.iter().zip(&mut bye) {
            *bye &= leg.state != LegState::Ended;
        }
        self.end(Outcome::HungUp, "hung up", &bye, cx);
        self.flush(cx);
    }

    /// The call is over. If one party is still to hear of it, the store shows the other one as gone until then, so that
    /// the next master tells the party if this one cannot. Else the call is removed.
    pub(super) fn store_end(&mut self, reason: &'static str, cx: &mut Context<'_>) {
        let told = |side: usize| self.sides.get(side).is_some_and(|s| s.others.iter().any(is_bye));
        let (first, second) = (told(0), told(1));
        if self.sides.len() != 2 || first == second {
            return self.remove(reason, cx);
        }
        self.call.legs[usize::from(first)].state = LegState::Ended;
        self.untold = Some(reason);
        self.call.epoch = cx.epoch;
        self.call.node.clone_from(&cx.settings.node);
        cx.actions.push_back(Action::Store(CallEvent::Put(Box::new(self.call.clone()))));
    }

    /// A BYE was answered, or nobody answers it.
    pub(super) fn told(&mut self, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Over(_))
            && !self.sides.iter().any(|s| s.others.iter().any(is_bye))
            && let Some(reason) = self.untold
        {
            self.remove(reason, cx);
        }
    }

    /// Removes the call from the store.
    pub(super) fn remove(&mut self, reason: &'static str, cx: &mut Context<'_>) {
        self.untold = None;
        cx.actions.push_back(Action::Store(CallEvent::Delete { id: self.call.id.clone(), reason }));
    }
}

fn is_bye(o: &super::call::Outgoing) -> bool {
    matches!(o.purpose, Purpose::Last) && o.client.bytes.starts_with(b"BYE ")
}
