//! Offers and answers (RFC 3264) in the transactions that carry them: INVITE, PRACK and UPDATE (RFC 3261 section
//! 13.2.1, RFC 3262 section 5, RFC 3311, RFC 6337 section 2).
//!
//! A transaction collects descriptions in any order of its messages. It puts a pair in force as soon as offer and
//! answer are certain. If they can't become certain, the leg gets [`Gap::Description`] until a complete later exchange
//! is seen.

use super::Tracked;
use crate::calls::model::{Gap, Leg, Sdp, Verbatim};
use crate::calls::tracker::timer::Asked;
use crate::sip::body::{Description, description};
use crate::sip::message::{Message, Method};
use crate::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// Most open transactions of one leg. A dialog has at most one INVITE each way and a few others. Beyond it the oldest
/// is dropped.
const MAX_PENDING: usize = 8;
/// Answer time-out of a request other than INVITE (64 x T1, RFC 3261 section 17.1.2.2). If the answer to an offer was
/// not seen by then, the result of the offer is unknown.
const SETTLED_BY: Duration = Duration::from_secs(32);

/// An unsettled transaction: its final response, or part of its descriptions, is still to come.
#[derive(Clone, Debug)]
pub(in crate::calls::tracker) struct Pending {
    pub(in crate::calls::tracker) by_server: bool,
    pub(in crate::calls::tracker) cseq: u32,
    pub(in crate::calls::tracker) method: Method,
    /// The first INVITE of the leg.
    pub(in crate::calls::tracker) initial: bool,
    /// Hash of an INVITE's branch. It tells the ACK of a refusal (same branch) from that of a 2xx (section 13.2.2.4).
    pub(in crate::calls::tracker) branch: u64,
    /// The request itself was seen.
    pub(in crate::calls::tracker) asked: bool,
    /// A 2xx was seen.
    pub(in crate::calls::tracker) answered: bool,
    /// The ACK of a 2xx was seen.
    pub(in crate::calls::tracker) acked: bool,
    /// The ACK of a refusal was probably seen, but its final response was not. That response decides if it comes.
    pub(in crate::calls::tracker) refused: bool,
    /// A provisional response was seen, so an INVITE may now take its time.
    pub(in crate::calls::tracker) ringing: bool,
    /// Its descriptions are in force, or it has none.
    pub(in crate::calls::tracker) settled: bool,
    /// New target in the Contact of a target refresh request. It counts once the request is accepted (section
    /// 12.2.1.1).
    pub(in crate::calls::tracker) target: Option<Verbatim>,
    pub(in crate::calls::tracker) timer: Asked,
    /// Source of a phone's request, if it is not yet the phone's known address.
    pub(in crate::calls::tracker) source: Option<SocketAddr>,
    /// Description in the request.
    pub(in crate::calls::tracker) offer: Option<Verbatim>,
    /// Description in a reliable provisional response or the 2xx: the answer, or the offer if the request had none.
    pub(in crate::calls::tracker) reply: Option<Verbatim>,
    /// Description in an unreliable provisional response: the answer, if the 2xx has none.
    pub(in crate::calls::tracker) early: Option<Verbatim>,
    /// Description in ACK, or in the PRACK for an offer: the answer to `reply`.
    pub(in crate::calls::tracker) closing: Option<Verbatim>,
    pub(in crate::calls::tracker) since: Time,
}

impl Pending {
    pub(in crate::calls::tracker) fn new(by_server: bool, cseq: u32, method: Method, now: Time) -> Self {
        Self {
            by_server,
            cseq,
            method,
            initial: false,
            branch: 0,
            asked: true,
            answered: false,
            acked: false,
            refused: false,
            ringing: false,
            settled: false,
            target: None,
            timer: Asked::default(),
            source: None,
            offer: None,
            reply: None,
            early: None,
            closing: None,
            since: now,
        }
    }

    pub(in crate::calls::tracker) fn is(&self, by_server: bool, cseq: u32, method: Method) -> bool {
        self.by_server == by_server && self.cseq == cseq && self.method == method
    }

    fn accepted(&self) -> bool {
        self.answered || self.acked
    }

    /// The pair that is certain so far: whether the server made the offer, the offer, the answer.
    fn pair(&self) -> Option<(bool, &Verbatim, &Verbatim)> {
        match (&self.offer, &self.reply, &self.closing) {
            (Some(offer), Some(answer), _) => Some((self.by_server, offer, answer)),
            (Some(offer), None, _) if self.answered => Some((self.by_server, offer, self.early.as_ref()?)),
            (None, Some(offer), Some(answer)) => Some((!self.by_server, offer, answer)),
            _ => None,
        }
    }

    /// Whether there is certainly nothing to agree on.
    fn is_void(&self) -> bool {
        match self.method {
            // Without an offer in the request the 2xx must carry one (section 13.2.1), or the call has no description
            // at all.
            Method::Invite => self.asked && self.answered && self.offer.is_none() && self.reply.is_none(),
            _ => self.answered && self.offer.is_none() && self.reply.is_none(),
        }
    }
}

/// The descriptions that were in force before an open re-INVITE.
#[derive(Clone, Debug)]
pub(in crate::calls::tracker) struct Before {
    by_server: bool,
    cseq: u32,
    sent: Option<Sdp>,
    received: Option<Sdp>,
    gaps: bool,
}

impl Before {
    /// Its descriptions.
    pub(in crate::calls::tracker) fn bodies(&self) -> impl Iterator<Item = &Verbatim> {
        [&self.sent, &self.received].into_iter().flatten().map(|s| &s.body)
    }
}

impl Tracked {
    pub(in crate::calls::tracker) fn pending_at(&self, by_server: bool, cseq: u32, method: Method) -> Option<usize> {
        self.pending.iter().position(|o| o.is(by_server, cseq, method))
    }

    /// Opens a transaction and returns its place.
    pub(in crate::calls::tracker) fn open(&mut self, new: Pending) -> usize {
        if self.pending.len() >= MAX_PENDING {
            self.pending.remove(0);
        }
        self.pending.push(new);
        self.pending.len() - 1
    }

    /// Drops the transaction if nothing more can come of it.
    fn close(&mut self, at: usize) {
        if self.pending.get(at).is_some_and(|o| o.settled && o.answered && o.asked) {
            self.drop_pending(at);
        }
    }

    pub(in crate::calls::tracker) fn drop_pending(&mut self, at: usize) -> Pending {
        let gone = self.pending.remove(at);
        if self.pending.is_empty() {
            // Most legs have no open transaction most of the time.
            self.pending = Vec::new();
        }
        gone
    }

    /// The description in `m`. An unreadable one makes the leg partial.
    pub(in crate::calls::tracker) fn body(&mut self, m: &Message<'_>) -> Option<Verbatim> {
        match description(m) {
            Description::Sdp(b) => Some(b.into()),
            Description::None => None,
            Description::Unreadable => {
                self.lack(Gap::Description);
                None
            }
        }
    }

    /// A description in a provisional response.
    pub(in crate::calls::tracker) fn early_reply(&mut self, at: usize, m: &Message<'_>) -> bool {
        let reliable = m.rseq().is_some();
        let open = &self.pending[at];
        // An offer in an unreliable response does not count (section 13.2.1), and neither does a repeated answer.
        if open.settled
            || open.reply.is_some()
            || (!reliable && (open.asked && open.offer.is_none() || open.early.is_some()))
        {
            return false;
        }
        let Some(body) = self.body(m) else { return false };
        if reliable {
            self.pending[at].reply = Some(body);
            self.settle(at)
        } else {
            self.pending[at].early = Some(body);
            false
        }
    }

    /// A 2xx: takes its description, if one is still needed.
    pub(in crate::calls::tracker) fn final_reply(&mut self, at: usize, m: &Message<'_>) -> bool {
        let open = &mut self.pending[at];
        open.answered = true;
        let wanted = !open.settled && open.reply.is_none();
        // Only INVITE lets the other side make the offer.
        let wanted = wanted && (open.offer.is_some() || open.method == Method::Invite || !open.asked);
        if wanted && let Some(body) = self.body(m) {
            self.pending[at].reply = Some(body);
        }
        self.settle(at)
    }

    /// The ACK of a 2xx.
    pub(in crate::calls::tracker) fn closed_by_ack(&mut self, at: usize, m: &Message<'_>) -> bool {
        self.pending[at].acked = true;
        if !self.pending[at].settled && self.pending[at].offer.is_none() {
            let body = self.body(m);
            self.pending[at].closing = body;
        }
        self.settle(at)
    }

    /// The description in a PRACK: the answer, if the provisional response made an offer (RFC 3262 section 5), else an
    /// offer.
    pub(in crate::calls::tracker) fn prack(&mut self, by_server: bool, m: &Message<'_>) -> Option<Verbatim> {
        let body = self.body(m)?;
        let number = m.rack().map(|r| r.cseq);
        let asking =
            |o: &Pending| o.method == Method::Invite && o.by_server == by_server && number.is_none_or(|n| n == o.cseq);
        match self
            .pending
            .iter()
            .position(|o| asking(o) && !o.settled && o.asked && o.offer.is_none() && o.closing.is_none())
        {
            Some(at) => {
                self.pending[at].closing = Some(body);
                self.settle(at);
                None
            }
            None => Some(body),
        }
    }

    /// Puts the descriptions of a transaction in force if they are certain. True if that changed the leg.
    pub(in crate::calls::tracker) fn settle(&mut self, at: usize) -> bool {
        let Some(open) = self.pending.get(at) else { return false };
        if open.settled {
            self.close(at);
            return false;
        }
        let mut changed = false;
        let key = (open.by_server, open.cseq);
        if let Some((by_server, offer, answer)) = open.pair() {
            let (sent, received) = if by_server { (offer, answer) } else { (answer, offer) };
            let (sent, received) = (sent.clone(), received.clone());
            changed = self.put_in_force(key, sent, received);
            let apart = self.pending[at].method != Method::Invite;
            for (n, o) in self.pending.iter_mut().enumerate() {
                // No offer may be made while another is open (RFC 3311 section 5.1, RFC 3262 section 5), so an INVITE's
                // offer had its answer.
                o.settled |= n == at || apart && o.method == Method::Invite && o.offer.is_some();
            }
        } else if open.is_void() || self.is_repeated(at) {
            self.pending[at].settled = true;
        } else if open.accepted() {
            changed = self.lack(Gap::Description) | self.half(at);
        }
        self.close(at);
        changed
    }

    /// An accepted offer that repeats the description in force changes nothing, whatever its answer.
    fn is_repeated(&self, at: usize) -> bool {
        let open = &self.pending[at];
        let force = if open.by_server { &self.leg.sdp_sent } else { &self.leg.sdp_received };
        open.answered
            && open.offer.is_some()
            && open.offer.as_ref() == force.as_ref().map(|s| &s.body)
            && !self.leg.gaps.contains(Gap::Description)
    }

    /// An ACK without a description shows that the 2xx had the answer. That side is known, although the offer was not
    /// seen.
    fn half(&mut self, at: usize) -> bool {
        let open = &self.pending[at];
        if open.asked || !open.answered || !(open.acked || open.method != Method::Invite) {
            return false;
        }
        let Some(body) = open.reply.clone() else { return false };
        let side = if open.by_server { &mut self.leg.sdp_received } else { &mut self.leg.sdp_sent };
        *side = Some(Sdp { body });
        true
    }

    fn put_in_force(&mut self, (by_server, cseq): (bool, u32), sent: Verbatim, received: Verbatim) -> bool {
        if self.newest[usize::from(by_server)].is_some_and(|n| n > cseq) {
            // Overtaken: a later request of this side is already in force.
            return false;
        }
        self.newest[usize::from(by_server)] = Some(cseq);
        self.keep_before();
        if self.is_inviting() && self.first_offer.is_none() {
            // Another fork may still answer the first offer.
            self.first_offer = described(&self.leg, self.is_caller());
        }
        let is = |sdp: &Option<Sdp>, body: &Verbatim| sdp.as_ref().is_some_and(|s| s.body == *body);
        let same = is(&self.leg.sdp_sent, &sent) && is(&self.leg.sdp_received, &received);
        let closed = self.know(Gap::Description);
        if same {
            return closed;
        }
        self.leg.keep_rtp_sources(&received.0);
        self.leg.sdp_sent = Some(Sdp { body: sent });
        self.leg.sdp_received = Some(Sdp { body: received });
        true
    }

    /// Saves the session before a re-INVITE changes it ahead of its acceptance (by a reliable provisional response,
    /// PRACK or UPDATE). A refusal takes all of that back (RFC 3261 section 14.1, RFC 6141 section 3).
    fn keep_before(&mut self) {
        if self.before.is_some() {
            return;
        }
        if let Some(open) = self
            .pending
            .iter()
            .find(|o| o.method == Method::Invite && !o.initial && o.asked && !o.accepted() && !o.refused)
        {
            self.before = Some(Box::new(Before {
                by_server: open.by_server,
                cseq: open.cseq,
                sent: self.leg.sdp_sent.clone(),
                received: self.leg.sdp_received.clone(),
                gaps: self.leg.gaps.contains(Gap::Description),
            }));
        }
    }

    /// The re-INVITE is over: accepted, or refused.
    pub(in crate::calls::tracker) fn end_of_reinvite(&mut self, by_server: bool, cseq: u32, accepted: bool) -> bool {
        let Some(before) = self.before.take_if(|b| b.by_server == by_server && b.cseq == cseq) else { return false };
        if accepted {
            return false;
        }
        self.leg.sdp_sent = before.sent;
        self.leg.sdp_received = before.received;
        if before.gaps {
            self.lack(Gap::Description)
        } else {
            self.know(Gap::Description)
        };
        true
    }

    /// Drops transactions that can't be answered any more. True if the descriptions in force are now unknown.
    pub(in crate::calls::tracker) fn tidy(&mut self, now: Time) -> bool {
        let inviting = self.is_inviting();
        let waits = |o: &Pending| (o.initial && inviting) || (o.ringing && !o.answered);
        let dead = |o: &Pending| now.since(o.since) > SETTLED_BY && !waits(o);
        let mut changed = false;
        while let Some(at) = self.pending.iter().position(dead) {
            let gone = self.drop_pending(at);
            if !gone.settled && !gone.refused && (gone.offer.is_some() || gone.reply.is_some()) {
                changed |= self.lack(Gap::Description);
            }
        }
        changed
    }

    /// The offer of the first INVITE, as every fork got it.
    pub(in crate::calls::tracker) fn offer_of_invite(&self) -> Option<Verbatim> {
        if self.late_offer {
            return None;
        }
        let open = self.pending.iter().find(|o| o.initial).and_then(|o| o.offer.clone());
        open.or_else(|| self.first_offer.clone()).or_else(|| described(&self.leg, self.is_caller()))
    }
}

/// The description of the server if `server` is set, else of the phone.
fn described(leg: &Leg, server: bool) -> Option<Verbatim> {
    let side = if server { &leg.sdp_sent } else { &leg.sdp_received };
    side.as_ref().map(|s| s.body.clone())
}
