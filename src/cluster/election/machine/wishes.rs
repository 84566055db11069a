//! Operators' requests: another master, a forgotten member, the end of the agent.

use super::Election;
use crate::cluster::election::types::HoldKind;
use crate::time::Time;

/// What the operator and the agent want. `wishes.rs` changes it, and `lead.rs` and `follow.rs` when they answer.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster::election) struct Wishes {
    /// A switchover, to a named node or to the best one.
    pub(super) switch: Option<Option<String>>,
    /// The member to remove.
    pub(super) forget: Option<String>,
    /// The member whose removal this node has requested from etcd.
    pub(super) forgot: Option<String>,
    pub(super) stopping: bool,
    pub(super) parking: bool,
}

impl Election {
    /// Requests another master: `to`, or the best candidate.
    /// [`Action::Switched`](crate::cluster::election::Action::Switched) answers.
    pub fn switchover(&mut self, to: Option<String>, now: Time) {
        self.wishes.switch = Some(to);
        self.advance(now);
    }

    /// Cancels the pending switchover.
    pub fn cancel_switchover(&mut self) {
        self.wishes.switch = None;
    }

    /// Requests the removal of a permanently lost node from the members.
    /// [`Action::Forgot`](crate::cluster::election::Action::Forgot) answers.
    pub fn forget(&mut self, node: String, now: Time) {
        self.wishes.forget = Some(node);
        self.advance(now);
    }

    /// Cancels the pending removal of a node.
    pub fn cancel_forget(&mut self) {
        (self.wishes.forget, self.wishes.forgot) = (None, None);
    }

    /// Prepares for the next process on this host: moves the right onto the lease, which lasts for seconds, from acks,
    /// which last for `hold`. [`Election::parked`] tells when that is done.
    pub fn park(&mut self, now: Time) {
        self.wishes.parking = true;
        self.advance(now);
    }

    /// After `park`: whether the process may end. A node without a hold may end once no transaction is in flight.
    #[must_use]
    pub fn parked(&self) -> bool {
        let solo = self.right.held.is_some_and(|h| h.kind == HoldKind::Solo && !h.dropping);
        self.requests.inflight.is_none() && (self.right.held.is_none() || solo)
    }

    /// Hands over if possible, otherwise lets go. Makes no more promises.
    pub fn stop(&mut self, now: Time) {
        self.wishes.stopping = true;
        self.advance(now);
    }

    /// After `stop`: whether no hold or handover remains and every promise has run out, so that the node's key may go.
    #[must_use]
    pub fn may_leave(&self, now: Time) -> bool {
        let leaving = self.etcd.record.as_ref().is_some_and(|r| self.leaving(r));
        self.right.held.is_none() && !leaving && now > self.quiet_at()
    }
}
