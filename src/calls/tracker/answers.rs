//! Effects of each response on its leg, by sender and request (RFC 3261 sections 12.2.1.2, 13.2.2 and 15.1, RFC 5057).

use super::cseq::{MAX_CSEQ, Order};
use super::dialog::Input;
use super::leg::doubt::Ending;
use super::leg::offer_answer::Pending;
use super::leg::{At, Effect, Tracked};
use crate::calls::model::{Gap, LegState};
use crate::sip::message::Method;

/// Whether a refusal means that the far side has given up the call. RFC 3261 section 12.2.1.2 names 481 and 408 (which
/// also stands for no answer at all). RFC 5057 section 5.1 names the codes after which a dialog can't be reached any
/// more.
const fn destroys(code: u16) -> bool {
    matches!(code, 404 | 408 | 410 | 416 | 481 | 482 | 483 | 484 | 485 | 502 | 604)
}

impl Tracked {
    /// A response inside the dialog, or to its first INVITE.
    pub(super) fn response(&mut self, h: &Input<'_>, code: u16) -> Effect {
        self.touched(h);
        let m = h.m;
        let (by_server, (cseq, _), method) = (!h.out, m.cseq(), m.method());
        if code <= 100 || matches!(method, Method::Cancel | Method::Ack) {
            return Effect::None;
        }
        if by_server && !self.may_answer(cseq, method, h.branch) {
            return Effect::None;
        }
        if method == Method::Bye {
            return self.bye_answered(h, code);
        }
        let mut moved = false;
        if h.out && (200..300).contains(&code) {
            self.shows_life(h.at.now);
            moved = self.arrived(cseq);
        }
        // Provisional responses may belong to a dialog that is not up yet.
        let proved = (200..300).contains(&code) && self.speaks(h.out);
        let claimed_up = h.out && code < 300 && self.is_claimed_up();
        let effect = match self.pending_at(by_server, cseq, method) {
            Some(place) => match code {
                101..=199 => self.provisional(place, h, code),
                200..=299 => self.accepted(place, h),
                _ => self.refused(place, code, h.at),
            },
            None => self.response_alone(h, code),
        };
        self.tighten();
        if matches!(effect, Effect::Ended(_) | Effect::Confirmed) {
            return effect;
        }
        if proved {
            return self.prove(h.at);
        }
        if claimed_up {
            return self.confirm(h.at);
        }
        if moved { Effect::Changed } else { effect }
    }

    /// Whether an incoming response may answer the server's request of this number. If the request was seen, the branch
    /// must be the server's (RFC 3261 section 17.1.3). If it was not, the number must be within the server's reach.
    fn may_answer(&self, cseq: u32, method: Method, branch: u64) -> bool {
        match self.pending_at(true, cseq, method) {
            Some(place) => {
                let open = &self.offers.pending[place];
                !open.asked || open.branch == 0 || open.branch == branch
            }
            None => cseq <= MAX_CSEQ && !self.is_far_ahead(true, cseq),
        }
    }

    /// A final response to BYE.
    fn bye_answered(&mut self, h: &Input<'_>, code: u16) -> Effect {
        if code < 200 {
            return Effect::None;
        }
        let (cseq, _) = h.m.cseq();
        // RFC 3261 section 15.1.1: the sender of the BYE has left, unless it sends it again with credentials.
        let again = matches!(code, 401 | 407);
        let accepted = matches!(code, 200..=299 | 408 | 481);
        if h.out {
            if accepted && cseq <= MAX_CSEQ && self.order(false, cseq) == Order::New {
                // The server's answer proves the number of the phone's BYE.
                self.raise_cseq(false, cseq);
            }
            return match (again, accepted) {
                (true, _) => {
                    self.life.ending = self.life.ending.filter(|(_, why)| *why != Ending::PhoneBye);
                    Effect::None
                }
                (_, true) => self.end("BYE"),
                // The server continues. The phone may have left all the same.
                _ => {
                    self.doubt(Ending::PhoneBye, h.at.now);
                    Effect::None
                }
            };
        }
        match self.numbers.bye.as_deref() {
            Some((number, branch)) if *number == cseq => {
                if *branch != 0 && *branch != h.branch {
                    return Effect::None;
                }
                if again {
                    self.life.ending = self.life.ending.filter(|(_, why)| *why != Ending::Bye);
                    return Effect::None;
                }
                self.end("BYE")
            }
            // The server's BYE was not seen. If there was one, its number is new.
            _ if accepted && self.order(true, cseq) != Order::Known => {
                self.doubt(Ending::ByeAnswered(cseq), h.at.now);
                Effect::None
            }
            _ => Effect::None,
        }
    }

    /// A response whose request was not seen, needs no transaction, or is settled.
    fn response_alone(&mut self, h: &Input<'_>, code: u16) -> Effect {
        let m = h.m;
        let (by_server, (cseq, _), method) = (!h.out, m.cseq(), m.method());
        let order = self.order(by_server, cseq);
        let mut effect = Effect::None;
        if order != Order::Known {
            // A refusal proves a number only next to numbers that are known. The server refuses strangers, too.
            let likely = (by_server || self.highest(by_server).is_some()) && !self.is_far_ahead(by_server, cseq);
            if order == Order::New && cseq <= MAX_CSEQ && ((200..300).contains(&code) || likely) {
                self.raise_cseq(by_server, cseq);
                effect = Effect::Changed;
            }
            // The To of a response to an unseen request shows its receiver.
            if (200..300).contains(&code) && matches!(method, Method::Invite | Method::Update | Method::Prack) {
                let mut open = Pending::new(by_server, cseq, method, h.at.now);
                open.asked = false;
                open.initial =
                    method == Method::Invite && by_server == self.is_caller() && self.is_inviting() && !self.is_unmet();
                let place = self.open(open);
                if self.offers.pending[place].initial {
                    self.invite.cseq = cseq;
                    self.lack(Gap::Description);
                }
                return self.accepted(place, h);
            }
        }
        match (method, code) {
            (_, 101..=199) => effect,
            (_, 200..=299) => effect,
            // The server's word, or that of a sender that may be the phone.
            (Method::Invite | Method::Update, 408 | 481) if order != Order::Known && h.out => self.end(GONE),
            (Method::Invite | Method::Update, 408 | 481) if order != Order::Known => {
                self.doubt(Ending::Doubted, h.at.now);
                effect
            }
            // The responder asks for credentials, another interval, or a better moment, so the sender will try again.
            (Method::Invite, 401 | 407 | 422 | 488 | 491 | 500 | 504) => effect,
            (Method::Invite, _) if order != Order::Known && self.is_inviting() && h.out => {
                self.end("refused or cancelled")
            }
            // The response may belong to the first INVITE of a dialog that seemed to be up.
            (Method::Invite, _) if order != Order::Known && (self.is_unmet() || self.is_inviting()) => {
                self.doubt(Ending::Doubted, h.at.now);
                effect
            }
            (Method::Info | Method::Message | Method::Options, 408 | 481) => {
                let asked = h.out || self.numbers.probe.as_deref() == Some(&(cseq, h.branch));
                self.doubt(if asked { Ending::Refuted } else { Ending::Doubted }, h.at.now);
                effect
            }
            _ => effect,
        }
    }

    fn provisional(&mut self, place: usize, h: &Input<'_>, code: u16) -> Effect {
        let m = h.m;
        self.offers.pending[place].ringing = true;
        if self.offers.pending[place].initial {
            // It was a copy, and not another try after a refusal.
            self.life.ending = self.life.ending.filter(|(_, why)| *why != Ending::Replaced);
        }
        let mut changed = false;
        if self.offers.pending[place].initial && m.to_tag().is_some() && self.is_inviting() {
            changed = self.bind(m, h.out, h.own);
            if self.leg.state != LegState::Early {
                self.leg.state = LegState::Early;
                changed = true;
            }
            if code == 199 {
                // RFC 6228: this branch has refused, others may go on.
                return self.end("this branch of the fork refused");
            }
        } else if !self.offers.pending[place].initial && m.rseq().is_some() {
            // RFC 6141 section 4: a reliable provisional response makes a target refresh effective, as a 2xx does.
            changed = self.apply_target_early(place, h);
        }
        Effect::changed(self.early_reply(place, m) || changed)
    }

    fn apply_target_early(&mut self, place: usize, h: &Input<'_>) -> bool {
        let by_server = self.offers.pending[place].by_server;
        let mut changed = false;
        if let Some(target) = self.offers.pending[place].target.take() {
            changed |= self.set_target(by_server, &target.0);
        }
        if let Some(target) = h.m.contact_uri() {
            changed |= self.set_target(h.out, target);
        }
        changed
    }

    fn accepted(&mut self, place: usize, h: &Input<'_>) -> Effect {
        let m = h.m;
        let open = &self.offers.pending[place];
        let (initial, answered, by_server, cseq, method) =
            (open.initial, open.answered, open.by_server, open.cseq, open.method);
        if answered {
            // A retransmission. The ACK is still to come.
            return Effect::None;
        }
        let mut changed = false;
        if initial {
            // RFC 3261 section 13.2.2.4: the 2xx sets the route set again, even after an early dialog. Then it is
            // fixed.
            changed |= self.bind(m, h.out, h.own);
        }
        changed |= self.apply(place, Some(m), h);
        changed |= self.final_reply(place, m);
        if method == Method::Invite {
            changed |= self.end_of_reinvite(by_server, cseq, true);
        }
        if initial {
            if self.is_inviting() {
                return self.confirm(h.at);
            }
            self.check_essentials();
        }
        Effect::changed(changed)
    }

    fn refused(&mut self, place: usize, code: u16, at: At) -> Effect {
        let open = self.drop_pending(place);
        if open.initial {
            return if self.is_inviting() { self.end("refused or cancelled") } else { Effect::None };
        }
        let changed = match open.method {
            Method::Invite => self.end_of_reinvite(open.by_server, open.cseq, false),
            _ => false,
        };
        // The server's word counts, and the phone's in response to a request that was seen. 481 to PRACK only says that
        // there is nothing to acknowledge (RFC 3262 section 3).
        match (open.method, code) {
            (Method::Invite | Method::Update, 408 | 481) if !open.by_server || open.asked => self.end(GONE),
            (Method::Invite | Method::Update, code) if destroys(code) => {
                let asked = open.by_server && open.asked;
                self.doubt(if asked { Ending::Refuted } else { Ending::Doubted }, at.now);
                Effect::changed(changed)
            }
            _ => Effect::changed(changed),
        }
    }
}

/// RFC 3261 section 12.2.1.2: a party does not know the dialog, or can't be reached.
const GONE: &str = "the other party no longer knows the dialog (408 or 481)";
