//! Final responses that come late: to an INVITE of ours that was given up, or to one of the former server.
//!
//! Timer B ends our transaction after 32 s, and not the phone's: the phone may have been out of reach, or may have asked
//! its user. With its 2xx the phone is in the session that was offered to it, so that 2xx has all its effects.

#[cfg(test)]
mod tests;

use super::call::{CarriedCall, MAX_ACKED, Phase, Purpose};
use super::context::Context;
use super::reinvite::{CSEQ_GAP, Tries, Verdict};
use super::request;
use super::transaction::{AckedInvite, Client, GivenUp, LIFE};
use super::uac::CSEQ_LIMIT;
use crate::sip::message::Message;
use crate::sip::sdp::{Origin, Sdp, continue_origin, with_origin};
use crate::time::Time;
use std::time::Duration;

/// How long an INVITE that was given up is remembered. Proxies wait for more than 3 minutes (Timer C, RFC 3261 section
/// 16.6), and a phone that rings its user for as long; then come the 32 s of its 2xx.
const GIVEN_UP: Duration = Duration::from_secs(5 * 60);

/// `offer`, with a version above that of `spent`, an earlier offer that the phone may have seen or not. A phone that has
/// seen one description under a version ignores another one under the same version (RFC 3264 section 8).
fn above(offer: Vec<u8>, spent: Option<&[u8]>) -> Vec<u8> {
    let Some(spent) = spent else { return offer };
    let version = |body: &[u8]| Some(Sdp::parse(body).ok()?.origin()?.version);
    let (Some(old), Some(new)) = (version(spent), version(&offer)) else { return offer };
    let under = |version| {
        let origin = Sdp::parse(&offer).ok()?.origin()?;
        with_origin(&offer, &Origin { version, ..origin }).ok()
    };
    if new > old {
        return offer;
    }
    // The same description again needs no other version.
    let raised = under(old).filter(|same| same == spent).or_else(|| under(old.checked_add(1)?));
    raised.unwrap_or(offer)
}

impl CarriedCall {
    /// Gives up on the pending INVITE. Its responses are still ACKed.
    pub(super) fn abandon(&mut self, side: usize, now: Time) {
        let Some(o) = self.sides[side].invite.take() else { return };
        let Client { branch, cseq, target, .. } = o.client;
        let given_up = o.offer.map(|offer| {
            self.sides[side].spent = Some(offer.clone());
            GivenUp { offer, own: matches!(o.purpose, Purpose::Own), exchanges: self.sides[side].exchanges }
        });
        let until = now + GIVEN_UP;
        self.remember(side, AckedInvite { branch, cseq, target, success: None, ack: Vec::new(), until, given_up });
    }

    pub(super) fn remember(&mut self, side: usize, acked: AckedInvite) {
        let list = &mut self.sides[side].acked;
        if list.len() == MAX_ACKED {
            list.pop_front();
        }
        list.push_back(acked);
    }

    /// A description for this phone whose version is above all that the phone may have seen.
    pub(super) fn fresh(&self, side: usize, offer: Vec<u8>) -> Vec<u8> {
        above(offer, self.sides[side].spent.as_deref())
    }

    /// Handles a final response to an INVITE that is not pending: the ACK was lost, or the INVITE was given up before the
    /// response came.
    pub(super) fn acknowledge_again(
        &mut self,
        side: usize,
        code: u16,
        branch: &[u8],
        m: &Message<'_>,
        cx: &mut Context<'_>,
    ) {
        if code < 200 {
            return;
        }
        let success = code < 300;
        let Some(at) = self.sides[side].acked.iter().position(|a| a.branch.as_bytes() == branch) else {
            if success {
                self.acknowledge_former(side, branch, m, cx);
            }
            return;
        };
        if self.sides[side].acked[at].success.is_some() {
            let (acked, leg) = (&self.sides[side].acked[at], &self.call.legs[side]);
            if acked.success == Some(success) {
                cx.send(leg.local_addr, leg.remote_addr, acked.ack.clone());
            }
            return;
        }
        let given_up = self.sides[side].acked[at].given_up.take().filter(|_| success);
        let newest = given_up.as_ref().is_some_and(|g| g.exchanges == self.sides[side].exchanges);
        if let Some(target) = m.contact_uri().filter(|_| newest) {
            self.call.legs[side].remote_target = target.into();
        }
        let AckedInvite { branch, cseq, target, .. } = self.sides[side].acked[at].clone();
        let ack = self.build_ack(side, success, cseq, &branch, &target, m, cx);
        let acked = &mut self.sides[side].acked[at];
        (acked.ack, acked.success, acked.until) = (ack.clone(), Some(success), cx.now + LIFE);
        let leg = &self.call.legs[side];
        // First the ACK: until then the phone takes no other INVITE.
        cx.send(leg.local_addr, leg.remote_addr, ack);
        if let Some(given_up) = given_up {
            self.accepted_late(side, &given_up, newest, m, cx);
        }
    }

    /// The phone has accepted an offer that was given up. `newest`: no other exchange was completed since.
    fn accepted_late(&mut self, side: usize, given_up: &GivenUp, newest: bool, m: &Message<'_>, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Recovering | Phase::Carrying => {}
            Phase::Over(_) => {
                // The phone did not hear the BYE, and believes in the call again.
                if std::mem::take(&mut self.sides[side].unheard) {
                    self.send_bye(side, "the call is over", cx);
                }
                return;
            }
            Phase::Waiting | Phase::Kept(_) => return,
        }
        self.is_there(side);
        if !newest {
            // Which of the two came first at the phone is not known.
            return self.restate(side, cx);
        }
        let before = self.call.legs[side].sdp_sent.as_ref().map(|d| d.body.to_vec());
        self.take_answer(side, Some(&given_up.offer), m, cx.settings.recovery_port);
        self.reflow(cx);
        if !given_up.own {
            // The other phone was told that its offer came to nothing.
            self.arm(side, cx);
            self.restore(side, before, cx);
        } else if !self.offer_open(side) {
            self.judged(side, Verdict::Accepted, cx);
            if let Some(other) = self.other(side) {
                self.align(other, cx);
            }
        }
    }

    /// Offers a phone the stored session once more, because the phone may be in another one.
    pub(super) fn restate(&mut self, side: usize, cx: &mut Context<'_>) {
        let sent = self.call.legs[side].sdp_sent.as_ref().map(|d| d.body.to_vec());
        // What is offered already states the session.
        if self.phase != Phase::Carrying || self.sides[side].own_offer.is_some() {
            return;
        }
        if let Some(offer) = sent.and_then(|sent| continue_origin(&sent).ok()) {
            self.offer_own(side, offer, cx);
        }
    }

    /// Sends our own re-INVITE with this offer, as soon as the dialog is free.
    pub(super) fn offer_own(&mut self, side: usize, offer: Vec<u8>, cx: &mut Context<'_>) {
        self.sides[side].tries = Tries::fresh(self.sides[side].tries.min_se);
        self.sides[side].own_offer = Some(offer);
        self.retry_own(side, cx);
    }

    /// A 2xx to an INVITE that the former server sent in this dialog. Without an ACK the phone ends the session after 32 s
    /// (RFC 3261 section 13.3.1.4), and takes no other INVITE until then.
    fn acknowledge_former(&mut self, side: usize, branch: &[u8], m: &Message<'_>, cx: &mut Context<'_>) {
        let (cseq, _) = m.cseq();
        let last = self.call.legs[side].local_cseq.unwrap_or(0);
        // The last numbers may not have been stored in time. Nobody else sends such a number.
        if cseq > last.saturating_add(CSEQ_GAP) || cseq >= CSEQ_LIMIT || matches!(self.phase, Phase::Over(_)) {
            return;
        }
        let leg = &mut self.call.legs[side];
        leg.local_cseq = Some(last.max(cseq));
        if let Some(target) = m.contact_uri() {
            leg.remote_target = target.into();
        }
        self.touch();
        let Ok(branch) = std::str::from_utf8(branch).map(str::to_owned) else { return };
        let target = request::target(&self.call.legs[side]);
        let ack = self.build_ack(side, true, cseq, &branch, &target, m, cx);
        let leg = &self.call.legs[side];
        cx.send(leg.local_addr, leg.remote_addr, ack.clone());
        let until = cx.now + LIFE;
        let success = Some(true);
        self.remember(side, AckedInvite { branch, cseq, target, success, ack, until, given_up: None });
        self.unknown_offer(side, cseq, cx);
    }

    /// The phone has accepted an offer that is not known here, with this number.
    fn unknown_offer(&mut self, side: usize, cseq: u32, cx: &mut Context<'_>) {
        let s = &mut self.sides[side];
        if s.invite.is_none()
            && let Some(offer) = &s.own_offer
        {
            // Its version may be the one that our offer has.
            s.own_offer = continue_origin(offer).ok().or_else(|| s.own_offer.take());
        } else if s.settled.is_none_or(|settled| cseq > settled) {
            // The phone takes INVITEs in the order of their numbers, so ours would have the last word if it were higher.
            self.restate(side, cx);
        }
    }
}
