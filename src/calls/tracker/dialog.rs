//! Effects of each request inside a dialog on its leg (RFC 3261 sections 12.2, 14 and 15, RFC 3311).

use super::cseq::{MAX_CSEQ, Order, REACH, SeenNumbers};
use super::leg::doubt::Ending;
use super::leg::offer_answer::Pending;
use super::leg::{At, Effect, Known, Referred, Tracked};
use super::timer::{self, RequestedTimer};
use crate::calls::model::{Gap, Verbatim};
use crate::sip::message::{Message, Method};
use crate::wire::Packet;

/// Longest Refer-To URI that is kept, in bytes.
const MAX_REFER: usize = 512;

/// A message with the context of its handling.
#[derive(Clone, Copy)]
pub(super) struct Input<'h> {
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

/// Requests whose Contact becomes the dialog's target once they are accepted (RFC 5057 section 5.4 names them all).
const fn refreshes_target(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

impl Tracked {
    pub(super) fn highest(&self, by_server: bool) -> Option<u32> {
        if by_server { self.leg.local_cseq } else { self.leg.remote_cseq }
    }

    pub(super) fn order(&self, by_server: bool, cseq: u32) -> Order {
        self.numbers.seen[usize::from(by_server)].order(self.highest(by_server), cseq)
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
        let top = self.numbers.seen[usize::from(by_server)].note(highest, cseq);
        self.set_highest(by_server, top);
        self.numbers.guessed &= !by_server;
    }

    /// A request of this number existed, although it was not seen.
    pub(super) fn raise_cseq(&mut self, by_server: bool, cseq: u32) {
        let highest = self.highest(by_server);
        let top = self.numbers.seen[usize::from(by_server)].raise(highest, cseq);
        self.set_highest(by_server, top);
        self.numbers.guessed |= by_server;
    }

    /// A request inside the dialog.
    pub(super) fn request(&mut self, h: &Input<'_>) -> Effect {
        let (m, out) = (h.m, h.out);
        self.touched(h);
        let (cseq, _) = m.cseq();
        match m.method() {
            Method::Ack => return self.ack(h, cseq),
            // CANCEL repeats the CSeq of its INVITE and changes nothing by itself. A 487 does, or a 2xx that crossed
            // it.
            Method::Cancel => return Effect::None,
            _ => {}
        }
        let mut order = self.order(out, cseq);
        if out
            && order == Order::Known
            && self.numbers.guessed
            && self.highest(true).is_some_and(|h| h.saturating_sub(cseq) >= REACH)
        {
            // The server knows its own number better than whoever answered for a phone.
            (self.leg.local_cseq, self.numbers.seen[1], order) = (Some(cseq), SeenNumbers::NONE, Order::New);
        }
        if order == Order::Known {
            // A retransmission, or older than what has been seen (RFC 3261 section 12.2.2).
            return Effect::None;
        }
        if !out && (cseq > MAX_CSEQ || self.is_far_ahead(out, cseq)) {
            // No phone sends a number above 2^31 (RFC 3261 section 8.1.1.5). The number counts once the server answers it. Otherwise all later requests of the phone would look old.
            return Effect::None;
        }
        if !self.offers.pending.is_empty() {
            self.tidy(h.at.now);
        }
        // Anybody can send a request with any number. As long as the phone's own numbers are unknown, only the server's
        // answer proves one: a stranger's number would make the phone's true BYE look old. Requests with an offer or
        // a transaction of their own keep their number, because the answer must find them.
        let alone = !matches!(
            m.method(),
            Method::Invite | Method::Update | Method::Prack | Method::Notify | Method::Subscribe | Method::Refer
        );
        let unproven = !out && alone && self.highest(out).is_none();
        if !unproven {
            self.note_cseq(out, cseq);
        }
        let refused = order == Order::New && !self.moves(h.p, out, cseq) && !out && h.p.src != self.leg.remote_addr;
        if out {
            self.routes_of_request(m, h.own);
        } else {
            self.routes_by_via(m);
        }
        let speaks = self.speaks(out);
        match m.method() {
            Method::Bye if out => {
                self.numbers.bye = Some(Box::new((cseq, h.branch)));
                if self.life.ending.is_some_and(|(_, why)| why == Ending::ByeAnswered(cseq)) {
                    return self.end("BYE");
                }
                let since =
                    self.life.ending.filter(|(_, why)| *why == Ending::Bye).map_or(h.at.now, |(since, _)| since);
                self.life.ending = Some((since, Ending::Bye));
            }
            Method::Bye => self.doubt(Ending::PhoneBye, h.at.now),
            Method::Invite | Method::Update | Method::Prack => self.asked(h, cseq, refused),
            Method::Notify | Method::Subscribe if self.new_target(m, out).is_none() => {}
            Method::Notify | Method::Subscribe | Method::Refer => self.asked(h, cseq, refused),
            _ if out => self.numbers.probe = Some(Box::new((cseq, h.branch))),
            _ => {}
        }
        self.learn_phone(m, out);
        self.tighten();
        if m.method() == Method::Bye {
            return Effect::Changed;
        }
        if out {
            self.shows_life(h.at.now);
            if self.is_claimed_up() {
                return self.confirm(h.at);
            }
        }
        if speaks { self.prove(h.at) } else { Effect::Changed }
    }

    /// Records that a message was heard. An incoming one does not prolong the life of a leg that is up, because anybody
    /// can send it.
    pub(super) fn touched(&mut self, h: &Input<'_>) {
        self.proof.spoken |= h.out && h.m.code().is_none_or(|code| code > 100);
        if h.out || self.is_inviting() || self.proof.known == Known::Claimed {
            self.life.last = h.at.now;
        }
    }

    /// Whether a number is further ahead of the highest one than lost messages explain.
    pub(super) fn is_far_ahead(&self, by_server: bool, cseq: u32) -> bool {
        self.highest(by_server).is_some_and(|h| cseq > h && cseq - h > REACH)
    }

    /// Whether the server has now spoken in a dialog that its phone had treated as answered.
    pub(super) fn is_claimed_up(&self) -> bool {
        self.proof.claimed_up && self.proof.spoken && self.is_inviting()
    }

    /// Whether the server itself has now confirmed a dialog that so far only the phone had mentioned.
    pub(super) fn speaks(&mut self, out: bool) -> bool {
        out && self.proof.known == Known::Claimed
    }

    /// A dialog with an unseen start is real. It counts as confirmed, because an early one will soon be answered or
    /// refused.
    pub(super) fn prove(&mut self, at: At) -> Effect {
        self.proof.known = Known::Middle;
        self.confirm(at)
    }

    /// Contact of a target refresh request, if it differs from the current target.
    fn new_target(&self, m: &Message<'_>, out: bool) -> Option<Verbatim> {
        let known = if out { &self.leg.local_target } else { &self.leg.remote_target };
        let gap = !out && self.leg.gaps.contains(Gap::RemoteTarget);
        m.contact_uri().filter(|c| *known.0 != **c || gap).map(Verbatim::from)
    }

    /// Opens the transaction of a request that may carry an offer or a target.
    fn asked(&mut self, h: &Input<'_>, cseq: u32, refused: bool) {
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
        let open = &mut self.offers.pending[place];
        (open.asked, open.branch, open.timer) = (true, h.branch, RequestedTimer::of(m));
        // Without the request there may have seemed to be nothing to agree on.
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

    /// Effects of an accepted request besides its descriptions. `answer` is the 2xx, if it was seen just now.
    pub(super) fn apply(&mut self, place: usize, answer: Option<&Message<'_>>, h: &Input<'_>) -> bool {
        let open = &mut self.offers.pending[place];
        let (by_server, method, cseq, source) = (open.by_server, open.method, open.cseq, open.source.take());
        let (target, asked, refer) = (open.target.take(), open.timer, open.closing.clone());
        if self.numbers.newest[usize::from(by_server)].is_some_and(|n| n > cseq) {
            // A later request of the same side is already in force.
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
            changed |= self.leg.moves_with_target(source);
        }
        if method == Method::Refer {
            self.referred = refer.map(|to| Box::new(Referred { by_phone: !by_server, to, at: h.at.now }));
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

    fn ack(&mut self, h: &Input<'_>, cseq: u32) -> Effect {
        let (m, out) = (h.m, h.out);
        let Some(place) = self.pending_at(out, cseq, Method::Invite) else { return self.ack_of_unseen(h, cseq) };
        let open = &self.offers.pending[place];
        if open.acked {
            return Effect::None;
        }
        if !open.answered && open.branch != 0 && open.branch == h.branch {
            // RFC 3261 section 17.1.1.3: the ACK of a refusal has the INVITE's branch. Some old phones send the ACK of
            // a 2xx that way as well; then the 2xx decides.
            if open.initial {
                self.life.ending.get_or_insert((h.at.now, Ending::Refused));
                return Effect::None;
            }
            self.offers.pending[place].refused = true;
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
            // Whoever sends INVITE can send ACK, so an answer of the server is needed as well.
            (true, _) if !self.proof.spoken => {
                self.proof.claimed_up = true;
                Effect::changed(changed)
            }
            (true, _) => self.confirm(h.at),
            (false, true) => self.prove(h.at),
            (false, false) => Effect::changed(changed),
        }
    }

    fn ack_of_unseen(&mut self, h: &Input<'_>, cseq: u32) -> Effect {
        let (m, out) = (h.m, h.out);
        let fills = if out { self.routes_of_request(m, h.own) } else { self.routes_by_via(m) };
        if self.order(out, cseq) != Order::New {
            return if self.speaks(out) { self.prove(h.at) } else { Effect::changed(fills) };
        }
        self.raise_cseq(out, cseq);
        if let Some(body) = self.body(m) {
            // Only the ACK of a 2xx carries a description: the answer to an offer that is still to come.
            let mut open = Pending::new(out, cseq, Method::Invite, h.at.now);
            (open.asked, open.acked, open.closing) = (false, true, Some(body));
            let place = self.open(open);
            self.settle(place);
        }
        if self.speaks(out) { self.prove(h.at) } else { Effect::Changed }
    }

    /// CANCEL of the first INVITE.
    pub(super) fn cancelled(&mut self, at: At) -> Effect {
        self.life.last = at.now;
        if self.is_inviting() && self.life.ending.is_none() {
            self.life.ending = Some((at.now, Ending::Cancelled));
        }
        Effect::None
    }
}
