//! A further branch of an INVITE that forked (RFC 3261 section 13.2.2.4).

use super::cseq::{Numbers, SeenNumbers};
use super::leg::Tracked;
use super::leg::doubt::{Ending, Life};
use super::leg::offer_answer::{Offers, Pending};
use crate::calls::model::{Direction, Gap, LegState, Verbatim};
use crate::sip::message::Method;
use crate::time::Time;

impl Tracked {
    /// Another early dialog of the same INVITE (a fork), in the state of this one before any response.
    pub(super) fn fork(&self, now: Time) -> Self {
        let by_server = self.is_caller();
        let offer = self.offer_of_invite();
        // Once a later exchange is in force, the first offer is gone.
        let lost = offer.is_some()
            && !self.is_inviting()
            && self.offers.first.is_none()
            && self.numbers.newest[usize::from(by_server)].is_some_and(|n| n != self.invite.cseq);
        let mut new = self.clone();
        new.leg.state = LegState::Calling;
        new.confirmed = None;
        new.referred = None;
        match new.leg.direction {
            Direction::Outbound => {
                new.leg.local_cseq = Some(self.invite.cseq);
                new.leg.remote_tag = Verbatim::default();
                new.leg.remote_cseq = None;
                new.leg.remote_target = Verbatim::default();
                new.leg.route_set = Vec::new();
            }
            Direction::Inbound => {
                new.leg.remote_cseq = Some(self.invite.cseq);
                new.leg.local_tag = Verbatim::default();
                new.leg.local_cseq = None;
                new.leg.local_target = Verbatim::default();
            }
        }
        new.proof.spoken = by_server;
        new.proof.claimed_up = false;
        new.arrival = None;
        new.numbers = Numbers::new(SeenNumbers::NONE);
        new.numbers.seen[usize::from(by_server)] = SeenNumbers::HIGHEST;
        new.leg.sdp_sent = None;
        new.leg.sdp_received = None;
        new.leg.rtp_sources = Vec::new();
        new.leg.session_timer = None;
        new.know(Gap::Description);
        // The first 2xx ends the early dialogs of all other branches, including those that appear later.
        let ending = match self.life.ending {
            Some((at, Ending::Cancelled)) => Some((at, Ending::Cancelled)),
            _ if self.leg.state == LegState::Confirmed => Some((now, Ending::OtherBranch)),
            _ => None,
        };
        new.life = Life { last: now, ending, audio: None };
        let mut open = Pending::new(by_server, self.invite.cseq, Method::Invite, self.started);
        (open.initial, open.branch, open.offer) = (true, self.invite.branch, offer);
        if let Some(old) = self.offers.pending.iter().find(|o| o.initial) {
            open.timer = old.timer;
        }
        if lost {
            (open.asked, open.offer) = (false, None);
        }
        new.offers = Offers { pending: vec![open], ..Offers::default() };
        new
    }
}
