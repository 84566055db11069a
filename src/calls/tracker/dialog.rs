//! What each message inside a dialog does to its leg (RFC 3261 sections 12.2, 14 and 15, RFC 3311, RFC 5057).

use super::cseq::Order;
use super::leg::{At, Effect, Ending, Known, Referred, Tracked};
use super::offers::Pending;
use super::timer::{self, Asked};
use crate::calls::model::{Gap, LegState, Packet, Verbatim};
use crate::sip::message::{Message, Method};

/// Longest Refer-To URI that is kept, in bytes.
const MAX_REFER: usize = 512;

/// A message with what its handling needs besides.
#[derive(Clone, Copy)]
pub(super) struct Heard<'h> {
    pub(super) m: &'h Message<'h>,
    pub(super) p: &'h Packet<'h>,
    /// The server sent it.
    pub(super) out: bool,
    /// Hash of the topmost Via's branch.
    pub(super) branch: u64,
    /// Whether a URI is the server's.
    pub(super) own: &'h dyn Fn(&[u8]) -> bool,
    pub(super) at: At,
}

/// Requests whose Contact becomes the dialog's target if they are accepted (RFC 5057 section 5.4 names them all).
const fn refreshes_target(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

/// Whether a refusal tells that the far side has given up the call: RFC 3261 section 12.2.1.2 names 481 and 408 (which stands for no answer
/// at all), RFC 5057 section 5.1 those by which a dialog can't be reached any more.
const fn destroys(code: u16) -> bool {
    matches!(code, 404 | 408 | 410 | 416 | 481 | 482 | 483 | 484 | 485 | 502 | 604)
}

impl Tracked {
    fn highest(&self, by_server: bool) -> Option<u32> {
        if by_server { self.leg.local_cseq } else { self.leg.remote_cseq }
    }

    fn order(&self, by_server: bool, cseq: u32) -> Order {
        self.seen[usize::from(by_server)].order(self.highest(by_server), cseq)
    }

    fn set_highest(&mut self, by_server: bool, top: u32) {
        if by_server {
            self.leg.local_cseq = Some(top);
            self.know(Gap::LocalCseq);
        } else {
            self.leg.remote_cseq = Some(top);
        }
    }

    pub(super) fn note_cseq(&mut self, by_server: bool, cseq: u32) {
        let highest = self.highest(by_server);
        let top = self.seen[usize::from(by_server)].note(highest, cseq);
        self.set_highest(by_server, top);
    }

    /// There was a request of this number, which was not seen itself.
    fn raise_cseq(&mut self, by_server: bool, cseq: u32) {
        let highest = self.highest(by_server);
        let top = self.seen[usize::from(by_server)].raise(highest, cseq);
        self.set_highest(by_server, top);
    }

    /// A request inside the dialog.
    pub(super) fn request(&mut self, h: &Heard<'_>) -> Effect {
        let (m, out) = (h.m, h.out);
        self.last = h.at.now;
        let (cseq, _) = m.cseq();
        match m.method() {
            Method::Ack => return self.ack(h, cseq),
            // It repeats the CSeq of its INVITE and changes nothing by itself: 487, or a 2xx that it crossed, does.
            Method::Cancel => return Effect::None,
            _ => {}
        }
        let order = self.order(out, cseq);
        if order == Order::Known {
            // A retransmission, or older than what has been seen (RFC 3261 section 12.2.2).
            return Effect::None;
        }
        if !self.pending.is_empty() {
            self.tidy(h.at.now);
        }
        self.note_cseq(out, cseq);
        let refused = order == Order::New && !self.moved(h.p, out) && !out && h.p.src != self.leg.remote_addr;
        if out {
            self.routes_of_request(m, h.own);
        } else {
            self.routes_by_via(m);
        }
        let speaks = self.speaks(out);
        match m.method() {
            Method::Bye => {
                self.ending = match self.ending {
                    Some((since, Ending::Bye)) => Some((since, Ending::Bye)),
                    _ => Some((h.at.now, Ending::Bye)),
                };
            }
            Method::Invite | Method::Update | Method::Prack => self.asked(h, cseq, refused),
            Method::Notify | Method::Subscribe if self.new_target(m, out).is_none() => {}
            Method::Notify | Method::Subscribe | Method::Refer => self.asked(h, cseq, refused),
            _ => {}
        }
        self.learn_phone(m, out);
        if speaks && m.method() != Method::Bye { self.prove(h.at) } else { Effect::Changed }
    }

    /// Whether the server itself has now shown that there is a dialog of which so far only the phone had spoken.
    fn speaks(&mut self, out: bool) -> bool {
        out && self.known == Known::Claimed
    }

    /// A dialog whose start was not seen is real. It counts as confirmed: an early one will be answered or refused before long.
    fn prove(&mut self, at: At) -> Effect {
        self.known = Known::Middle;
        self.confirm(at)
    }

    /// Contact of a target refresh request, if it is not the target already.
    fn new_target(&self, m: &Message<'_>, out: bool) -> Option<Verbatim> {
        let known = if out { &self.leg.local_target } else { &self.leg.remote_target };
        let gap = !out && self.leg.gaps.contains(Gap::RemoteTarget);
        m.contact_uri().filter(|c| *known.0 != **c || gap).map(Verbatim::from)
    }

    /// Opens the transaction of a request that may carry an offer or a target.
    fn asked(&mut self, h: &Heard<'_>, cseq: u32, refused: bool) {
        let (m, method) = (h.m, h.m.method());
        let offer = match method {
            Method::Invite | Method::Update => self.body(m),
            Method::Prack => self.prack(h.out, m),
            _ => None,
        };
        let target = if refreshes_target(method) { self.new_target(m, h.out) } else { None };
        let place = match self.pending_at(h.out, cseq, method) {
            // Its answer came first.
            Some(place) => place,
            None => self.open(Pending::new(h.out, cseq, method, h.at.now)),
        };
        let open = &mut self.pending[place];
        (open.asked, open.branch, open.timer) = (true, h.branch, Asked::of(m));
        // Without the request it may have seemed that there was nothing to agree on.
        open.settled = false;
        (open.offer, open.target) = (offer, target);
        open.source = refused.then_some(h.p.src);
        if method == Method::Refer {
            open.closing = m.refer_to().filter(|u| u.len() <= MAX_REFER).map(Verbatim::from);
        }
        if open.answered || open.acked {
            self.apply(place, None, h);
            self.settle(place);
        }
    }

    /// What an accepted request does besides its descriptions; `answer` is the 2xx, if it is that which was seen now.
    fn apply(&mut self, place: usize, answer: Option<&Message<'_>>, h: &Heard<'_>) -> bool {
        let open = &mut self.pending[place];
        let (by_server, method, cseq, source) = (open.by_server, open.method, open.cseq, open.source.take());
        let (target, asked, refer) = (open.target.take(), open.timer, open.closing.clone());
        if self.newest[usize::from(by_server)].is_some_and(|n| n > cseq) {
            // A later request of the same side has been agreed on already.
            return false;
        }
        let mut changed = false;
        if let Some(target) = target {
            changed |= self.set_target(by_server, &target.0);
        }
        if refreshes_target(method)
            && let Some(target) = answer.and_then(Message::contact_uri)
        {
            changed |= self.set_target(h.out, target);
        }
        if let Some(source) = source {
            changed |= self.moved_with_target(source);
        }
        if method == Method::Refer {
            self.referred = refer.map(|to| Box::new(Referred { by_phone: !by_server, to }));
        }
        if matches!(method, Method::Invite | Method::Update)
            && let Some(answer) = answer
        {
            let timer = timer::agreed(answer, asked, by_server);
            if timer != self.leg.session_timer {
                self.leg.session_timer = timer;
                changed = true;
            }
            changed |= self.learn_phone(answer, h.out);
        }
        changed
    }

    fn ack(&mut self, h: &Heard<'_>, cseq: u32) -> Effect {
        let (m, out) = (h.m, h.out);
        let Some(place) = self.pending_at(out, cseq, Method::Invite) else { return self.ack_of_unseen(h, cseq) };
        let open = &self.pending[place];
        if open.acked {
            return Effect::None;
        }
        if !open.answered && open.branch != 0 && open.branch == h.branch {
            // RFC 3261 section 17.1.1.3: the ACK of a refusal has the INVITE's branch. (Some old phones send that of a 2xx so too; then the
            // 2xx decides.)
            if open.initial {
                self.ending.get_or_insert((h.at.now, Ending::Refused));
                return Effect::None;
            }
            self.pending[place].refused = true;
            return Effect::changed(self.end_of_reinvite(out, cseq, false));
        }
        let initial = open.initial && self.is_inviting();
        let answered = open.answered;
        let mut changed = out && self.routes_of_request(m, h.own);
        changed |= !out && self.routes_by_via(m);
        if initial {
            // The 2xx was not seen, but there was one.
            changed |= self.name_far(m.to(), m.to_tag().unwrap_or_default());
            if out {
                self.lack(Gap::RouteSet);
                self.lack(Gap::RemoteTarget);
                self.routes_of_request(m, h.own);
            }
        }
        if !answered {
            changed |= self.apply(place, None, h);
        }
        changed |= self.closed_by_ack(place, m);
        changed |= self.end_of_reinvite(out, cseq, true);
        let proved = self.speaks(out);
        match (initial, proved) {
            (true, _) => self.confirm(h.at),
            (false, true) => self.prove(h.at),
            (false, false) => Effect::changed(changed),
        }
    }

    fn ack_of_unseen(&mut self, h: &Heard<'_>, cseq: u32) -> Effect {
        let (m, out) = (h.m, h.out);
        let fills = if out { self.routes_of_request(m, h.own) } else { self.routes_by_via(m) };
        if self.order(out, cseq) != Order::New {
            return if self.speaks(out) { self.prove(h.at) } else { Effect::changed(fills) };
        }
        self.raise_cseq(out, cseq);
        if let Some(body) = self.body(m) {
            // Only the ACK of a 2xx has a description: the answer to an offer that is still to be seen.
            let mut open = Pending::new(out, cseq, Method::Invite, h.at.now);
            (open.asked, open.acked, open.closing) = (false, true, Some(body));
            let place = self.open(open);
            self.settle(place);
        }
        if self.speaks(out) { self.prove(h.at) } else { Effect::Changed }
    }

    /// CANCEL of the first INVITE.
    pub(super) fn cancelled(&mut self, at: At) -> Effect {
        self.last = at.now;
        if self.is_inviting() && self.ending.is_none() {
            self.ending = Some((at.now, Ending::Cancelled));
        }
        Effect::None
    }

    /// A response inside the dialog, or to its first INVITE.
    pub(super) fn response(&mut self, h: &Heard<'_>, code: u16) -> Effect {
        self.last = h.at.now;
        let m = h.m;
        let (by_server, (cseq, _), method) = (!h.out, m.cseq(), m.method());
        if code <= 100 || matches!(method, Method::Cancel | Method::Ack) {
            return Effect::None;
        }
        // Provisional responses may belong to a dialog that is not up yet.
        let proved = (200..300).contains(&code) && self.speaks(h.out);
        let effect = match self.pending_at(by_server, cseq, method) {
            Some(place) => match code {
                101..=199 => self.provisional(place, h, code),
                200..=299 => self.accepted(place, h),
                _ => self.refused(place, code, h.at),
            },
            None => self.response_alone(h, code),
        };
        if proved && !matches!(effect, Effect::Ended(_) | Effect::Confirmed) {
            return self.prove(h.at);
        }
        effect
    }

    /// A response to a request that was not seen, or that needs no transaction, or that is done with.
    fn response_alone(&mut self, h: &Heard<'_>, code: u16) -> Effect {
        let m = h.m;
        let (by_server, (cseq, _), method) = (!h.out, m.cseq(), m.method());
        let order = self.order(by_server, cseq);
        let mut effect = Effect::None;
        if order != Order::Known {
            if order == Order::New {
                self.raise_cseq(by_server, cseq);
                effect = Effect::Changed;
            }
            // The To of a response to a request that was not seen tells what was given to it.
            if (200..300).contains(&code) && matches!(method, Method::Invite | Method::Update | Method::Prack) {
                let mut open = Pending::new(by_server, cseq, method, h.at.now);
                open.asked = false;
                open.initial =
                    method == Method::Invite && by_server == self.is_caller() && self.is_inviting() && !self.is_unmet();
                let place = self.open(open);
                if self.pending[place].initial {
                    self.invite_cseq = cseq;
                    self.lack(Gap::Description);
                }
                return self.accepted(place, h);
            }
        }
        match (method, code) {
            (_, 101..=199) => effect,
            // The BYE will come again, with credentials.
            (Method::Bye, 401 | 407) => {
                self.ending = self.ending.filter(|(_, why)| *why != Ending::Bye);
                effect
            }
            // RFC 3261 section 15.1.1: whatever the answer is, the one who sent BYE has left.
            (Method::Bye, _) => self.end("BYE"),
            (_, 200..=299) => {
                self.shows_life();
                effect
            }
            (Method::Invite | Method::Update, 408 | 481) if order != Order::Known => self.end(GONE),
            // Credentials, another interval, or a better moment are asked for: it will be tried again.
            (Method::Invite, 401 | 407 | 422 | 488 | 491 | 500 | 504) => effect,
            (Method::Invite, _) if order != Order::Known && self.is_inviting() => self.end("refused or cancelled"),
            // It may have been the first INVITE, of a dialog that was taken for one that is up.
            (Method::Invite, _) if order != Order::Known && self.is_unmet() => {
                self.ending.get_or_insert((h.at.now, Ending::Doubted));
                effect
            }
            (Method::Info | Method::Message | Method::Options, 408 | 481) => {
                self.ending.get_or_insert((h.at.now, Ending::Doubted));
                effect
            }
            _ => effect,
        }
    }

    fn shows_life(&mut self) {
        self.ending = self.ending.filter(|(_, why)| *why != Ending::Doubted);
    }

    fn provisional(&mut self, place: usize, h: &Heard<'_>, code: u16) -> Effect {
        let m = h.m;
        self.pending[place].ringing = true;
        let mut changed = false;
        if self.pending[place].initial && m.to_tag().is_some() && self.is_inviting() {
            changed = self.bind(m, h.out, h.own);
            if self.leg.state != LegState::Early {
                self.leg.state = LegState::Early;
                changed = true;
            }
            if code == 199 {
                // RFC 6228: this branch has refused, others may go on.
                return self.end("this branch refused");
            }
        } else if !self.pending[place].initial && m.rseq().is_some() {
            // RFC 6141 section 4: a reliable provisional response makes a target refresh count as a 2xx does.
            changed = self.apply_target_early(place, h);
        }
        Effect::changed(self.early_reply(place, m) || changed)
    }

    fn apply_target_early(&mut self, place: usize, h: &Heard<'_>) -> bool {
        let by_server = self.pending[place].by_server;
        let mut changed = false;
        if let Some(target) = self.pending[place].target.take() {
            changed |= self.set_target(by_server, &target.0);
        }
        if let Some(target) = h.m.contact_uri() {
            changed |= self.set_target(h.out, target);
        }
        changed
    }

    fn accepted(&mut self, place: usize, h: &Heard<'_>) -> Effect {
        let m = h.m;
        let open = &self.pending[place];
        let (initial, answered, by_server, cseq, method) = (open.initial, open.answered, open.by_server, open.cseq, open.method);
        if answered {
            // A retransmission; the ACK is still to come.
            return Effect::None;
        }
        self.shows_life();
        let mut changed = false;
        if initial {
            // RFC 3261 section 13.2.2.4: the 2xx sets the route set anew, also where an early dialog had one; then it is fixed.
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
        match (open.method, code) {
            (Method::Invite | Method::Update, 408 | 481) => self.end(GONE),
            (Method::Invite | Method::Update | Method::Prack, code) if destroys(code) => {
                self.ending.get_or_insert((at.now, Ending::Doubted));
                Effect::changed(changed)
            }
            _ => Effect::changed(changed),
        }
    }
}

/// RFC 3261 section 12.2.1.2: a party does not know the dialog, or can't be reached.
const GONE: &str = "the other side no longer knows the dialog (408 or 481)";
