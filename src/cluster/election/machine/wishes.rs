//! What people want: another master, a member forgotten, the end of the agent.

use super::Election;
use crate::cluster::election::types::HoldKind;
use crate::time::Time;

impl Election {
    /// An operator wants another master: `to`, or the best candidate. Answered by [`Action::Switched`](crate::cluster::election::Action::Switched).
    pub fn switchover(&mut self, to: Option<String>, now: Time) {
        self.switch = Some(to);
        self.advance(now);
    }

    /// Gives up the pending switchover.
    pub fn cancel_switchover(&mut self) {
        self.switch = None;
    }

    /// An operator wants a node that is gone for good out of the members. Answered by [`Action::Forgot`](crate::cluster::election::Action::Forgot).
    pub fn forget(&mut self, node: String, now: Time) {
        self.forget = Some(node);
        self.advance(now);
    }

    /// Gives up the pending wish to forget a node.
    pub fn cancel_forget(&mut self) {
        (self.forget, self.forgot) = (None, None);
    }

    /// The process will end and another one on this host take its place: rests the right on the lease, which lasts for
    /// seconds, instead of on acks, which last for `hold`. [`Election::parked`] says when that is done.
    pub fn park(&mut self, now: Time) {
        self.parking = true;
        self.advance(now);
    }

    /// After `park`: the process may end. On a node that holds nothing that is always so.
    #[must_use]
    pub fn parked(&self) -> bool {
        let solo = self.held.is_some_and(|h| h.kind == HoldKind::Solo && !h.dropping);
        self.inflight.is_none() && (self.held.is_none() || solo)
    }

    /// Hands over if it can, else lets go; promises nothing any more.
    pub fn stop(&mut self, now: Time) {
        self.stopping = true;
        self.advance(now);
    }

    /// After `stop`: whether nothing is held or under way, and every promise has run out, so that the node's key may go.
    #[must_use]
    pub fn may_leave(&self, now: Time) -> bool {
        let leaving = self.record.as_ref().is_some_and(|r| self.leaving(r));
        self.held.is_none() && !leaving && now > self.quiet_at()
    }
}
