//! One leg: what each message in it changes (RFC 3261 sections 12 to 15, RFC 3264, RFC 3262, RFC 3311, RFC 4028).

use super::body::{Description, description};
use super::clues::Clues;
use crate::calls::model::{Direction, Leg, LegState, Packet, Sdp, SessionTimer, Shared, Verbatim};
use crate::sip::message::{Message, Method, Name};
use crate::sip::uri;
use crate::time::Time;
use std::time::Duration;

/// Most transactions of one leg that are open at a time. A dialog has at most one INVITE and a few others; beyond it the oldest
/// is forgotten.
const MAX_PENDING: usize = 8;
/// Most entries of a route set; with more the leg is partial.
const MAX_ROUTES: usize = 32;
/// Longest Allow or Supported that is kept, in bytes; a longer one is left out (it only guides what recovery may offer).
const MAX_LIST: usize = 512;

/// Where an offer/answer exchange (RFC 3264) inside one transaction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exchange {
    /// No description has been seen.
    Empty,
    /// The request carried the offer.
    Offered(Verbatim),
    /// The response carried the offer; ACK or PRACK has to bring the answer.
    Countered(Verbatim),
    /// An answer is in force.
    Done,
}

/// A transaction within the leg that has not had its final response (or its ACK, for a late offer).
#[derive(Clone, Debug)]
struct Pending {
    by_server: bool,
    cseq: u32,
    method: Method,
    /// The first INVITE of the leg.
    initial: bool,
    /// Contact of a target refresh request: it counts only if the request is accepted (RFC 3261 section 12.2.1.1).
    target: Option<Verbatim>,
    exchange: Exchange,
    /// Description in an unreliable provisional response; stands if the 2xx brings none.
    early: Option<Verbatim>,
}

/// What a message did to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Changed,
    Confirmed,
    Ended(&'static str),
}

/// A leg with what is needed to follow it, but not to recover it.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// What is stored of it.
    pub leg: Shared<Leg>,
    /// Evidence for pairing.
    pub clues: Box<Clues>,
    /// When its first INVITE was seen.
    pub started: Time,
    /// When its first 2xx was seen.
    pub confirmed: Option<Time>,
    /// Wall clock of that, milliseconds since 1970.
    pub confirmed_ms: u64,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Hash of the first INVITE's topmost Via branch.
    pub(super) branch: u64,
    /// CSeq of the first INVITE.
    pub(super) invite_cseq: u32,
    /// Record-Route values that the INVITE already had when the server sent it: they lie behind the server, not before it.
    own_routes: usize,
    /// When the last message was seen.
    pub(super) last: Time,
    /// When a BYE that is not answered yet, or the 2xx of another fork, was first seen: the leg has not long to live.
    pub(super) ending_at: Option<Time>,
    pending: Vec<Pending>,
}

impl Tracked {
    /// A leg from its first INVITE.
    #[allow(clippy::too_many_arguments, reason = "one call site; the values have no life together")]
    pub(super) fn new(
        m: &Message<'_>,
        p: &Packet<'_>,
        out: bool,
        branch: u64,
        clues: Clues,
        emergency: bool,
        own: &dyn Fn(&[u8]) -> bool,
        now: Time,
    ) -> Self {
        let direction = if out { Direction::Outbound } else { Direction::Inbound };
        let (local_addr, remote_addr) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
        let (cseq, _) = m.cseq();
        let mut leg = Leg {
            call_id: m.call_id().into(),
            direction,
            state: LegState::Calling,
            local: if out { m.from().into() } else { m.to().into() },
            remote: if out { m.to().into() } else { m.from().into() },
            local_tag: if out { m.from_tag().unwrap_or_default().into() } else { Verbatim::default() },
            remote_tag: if out { Verbatim::default() } else { m.from_tag().unwrap_or_default().into() },
            local_cseq: out.then_some(cseq),
            remote_cseq: (!out).then_some(cseq),
            route_set: Vec::new(),
            remote_target: Verbatim::default(),
            local_target: Verbatim::default(),
            transport: p.transport,
            local_addr,
            remote_addr,
            sdp_sent: None,
            sdp_received: None,
            rtp_sources: Vec::new(),
            session_timer: None,
            allow: Verbatim::default(),
            supported: Verbatim::default(),
            partial: false,
            carried: false,
        };
        let contact = m.contact_uri().unwrap_or_default();
        let mut own_routes = 0;
        if out {
            leg.local_target = Verbatim::common(contact);
            own_routes = m.values(Name::RecordRoute).count();
        } else {
            leg.remote_target = contact.into();
            // RFC 3261 section 12.1.1: the UAS takes Record-Route in order.
            set_routes(&mut leg, m.values(Name::RecordRoute).map(Verbatim::from).collect(), own);
        }
        let mut this = Self {
            leg: leg.into(),
            clues: Box::new(clues),
            started: now,
            confirmed: None,
            confirmed_ms: 0,
            emergency,
            branch,
            invite_cseq: cseq,
            own_routes,
            last: now,
            ending_at: None,
            pending: Vec::new(),
        };
        let exchange = this.offer_in(m);
        this.pending.push(Pending {
            by_server: out,
            cseq,
            method: Method::Invite,
            initial: true,
            target: None,
            exchange,
            early: None,
        });
        this.learn_phone(m, out);
        this
    }

    /// A leg that was stored before: its past is known, its evidence is not.
    pub(super) fn adopted(leg: Shared<Leg>, confirmed_ms: u64, emergency: bool, now: Time) -> Self {
        Self {
            leg,
            clues: Box::default(),
            started: now,
            confirmed: Some(now),
            confirmed_ms,
            emergency,
            branch: 0,
            invite_cseq: 0,
            own_routes: 0,
            last: now,
            ending_at: None,
            pending: Vec::new(),
        }
    }

    /// Another early dialog of the same INVITE (a fork): the same as this one before any response.
    pub(super) fn fork(&self) -> Self {
        let mut new = self.clone();
        new.leg.state = LegState::Calling;
        new.confirmed = None;
        match new.leg.direction {
            Direction::Outbound => {
                new.leg.remote_tag = Verbatim::default();
                new.leg.remote_cseq = None;
                new.leg.remote_target = Verbatim::default();
                new.leg.route_set = Vec::new();
            }
            Direction::Inbound => {
                new.leg.local_tag = Verbatim::default();
                new.leg.local_cseq = None;
                new.leg.local_target = Verbatim::default();
            }
        }
        // The offer of the INVITE went to every branch; what one branch answered counts for that branch alone. If the first branch
        // has already answered, the offer is what was in force there.
        let by_server = new.leg.direction == Direction::Outbound;
        let offer = match new.pending.iter().find(|p| p.initial).map(|p| &p.exchange) {
            Some(Exchange::Offered(o)) => Some(o.clone()),
            _ => if by_server { new.leg.sdp_sent.take() } else { new.leg.sdp_received.take() }.map(|s| s.body),
        };
        new.leg.sdp_sent = None;
        new.leg.sdp_received = None;
        new.ending_at = None;
        let exchange = offer.map_or(Exchange::Empty, Exchange::Offered);
        new.pending = vec![Pending {
            by_server,
            cseq: self.invite_cseq,
            method: Method::Invite,
            initial: true,
            target: None,
            exchange,
            early: None,
        }];
        new
    }

    /// The tag that the answering side gave: what tells forks apart.
    pub(super) fn far_tag(&self) -> &[u8] {
        match self.leg.direction {
            Direction::Outbound => &self.leg.remote_tag.0,
            Direction::Inbound => &self.leg.local_tag.0,
        }
    }

    /// Whether the transaction of the first INVITE is open.
    pub(super) fn is_inviting(&self) -> bool {
        matches!(self.leg.state, LegState::Calling | LegState::Early)
    }

    /// A request inside the dialog.
    pub(super) fn request(&mut self, m: &Message<'_>, p: &Packet<'_>, out: bool, now: Time) -> Effect {
        self.last = now;
        let (cseq, _) = m.cseq();
        match m.method() {
            Method::Ack => return self.ack(m, out, cseq),
            // It repeats the CSeq of its INVITE and changes nothing by itself: 487, or a 2xx that it crossed, does.
            Method::Cancel => return Effect::None,
            _ => {}
        }
        let highest = if out { self.leg.local_cseq } else { self.leg.remote_cseq };
        if highest.is_some_and(|h| cseq <= h) {
            // A retransmission, or older than what has been seen (RFC 3261 section 12.2.2).
            return Effect::None;
        }
        let leg = &mut *self.leg;
        if out {
            leg.local_cseq = Some(cseq);
            (leg.local_addr, leg.remote_addr) = (p.src, p.dst);
        } else {
            leg.remote_cseq = Some(cseq);
            (leg.local_addr, leg.remote_addr) = (p.dst, p.src);
        }
        let method = m.method();
        if !matches!(method, Method::Invite | Method::Update | Method::Prack | Method::Bye) {
            return Effect::Changed;
        }
        let mut exchange = self.offer_in(m);
        if method == Method::Prack
            && let Exchange::Offered(answer) = &exchange
            && let Some(open) =
                self.pending.iter_mut().find(|o| o.by_server == out && matches!(o.exchange, Exchange::Countered(_)))
            && let Exchange::Countered(offer) = std::mem::replace(&mut open.exchange, Exchange::Done)
        {
            // RFC 3262 section 5: the reliable response held the offer, so PRACK holds the answer.
            let answer = answer.clone();
            self.commit(!out, offer, answer);
            exchange = Exchange::Empty;
        }
        if method == Method::Bye {
            self.ending_at.get_or_insert(now);
            exchange = Exchange::Empty;
        }
        let target = matches!(method, Method::Invite | Method::Update).then(|| m.contact_uri().map(Verbatim::from)).flatten();
        if self.pending.len() == MAX_PENDING {
            self.pending.remove(0);
        }
        self.pending.push(Pending { by_server: out, cseq, method, initial: false, target, exchange, early: None });
        self.learn_phone(m, out);
        Effect::Changed
    }

    fn ack(&mut self, m: &Message<'_>, out: bool, cseq: u32) -> Effect {
        let Some(at) = self.pending.iter().position(|o| {
            o.by_server == out && o.cseq == cseq && o.method == Method::Invite && matches!(o.exchange, Exchange::Countered(_))
        }) else {
            return Effect::None;
        };
        let open = self.close(at);
        let (Exchange::Countered(offer), Exchange::Offered(answer)) = (open.exchange, self.offer_in(m)) else {
            return Effect::None;
        };
        self.commit(!out, offer, answer);
        Effect::Changed
    }

    /// A response; `out` says that the server sent it, so the request came from the phone.
    pub(super) fn response(
        &mut self,
        m: &Message<'_>,
        code: u16,
        out: bool,
        unix_ms: u64,
        own: &dyn Fn(&[u8]) -> bool,
        now: Time,
    ) -> Effect {
        self.last = now;
        let (cseq, _) = m.cseq();
        let method = m.method();
        let Some(at) = self.pending.iter().position(|o| o.by_server != out && o.cseq == cseq && o.method == method) else {
            return Effect::None;
        };
        match code {
            0..=100 => Effect::None,
            101..=199 => self.provisional(at, m, out, own),
            200..=299 => self.accepted(at, m, out, unix_ms, own, now),
            _ => {
                let open = self.close(at);
                match (method, code) {
                    (Method::Invite, _) if open.initial => self.end("refused or cancelled"),
                    // The BYE will come again, with credentials.
                    (Method::Bye, 401 | 407) => {
                        self.ending_at = None;
                        Effect::None
                    }
                    (Method::Bye, _) => self.end("BYE"),
                    // RFC 3261 section 12.2.1.2: the other side does not know the dialog.
                    (Method::Invite | Method::Update, 481) => self.end("the other side no longer knows the dialog (481)"),
                    _ => Effect::None,
                }
            }
        }
    }

    fn provisional(&mut self, at: usize, m: &Message<'_>, out: bool, own: &dyn Fn(&[u8]) -> bool) -> Effect {
        let initial = self.pending[at].initial;
        let mut effect = Effect::None;
        if initial && m.to_tag().is_some() && self.is_inviting() {
            self.bind(m, out, own);
            self.leg.state = LegState::Early;
            effect = Effect::Changed;
        }
        let Exchange::Offered(sdp) = self.offer_in(m) else { return effect };
        let reliable = m.header(Name::RSeq).is_some();
        let open = &mut self.pending[at];
        match (&open.exchange, reliable) {
            (Exchange::Offered(_), false) => open.early = Some(sdp),
            (Exchange::Offered(_), true) => {
                if let Exchange::Offered(offer) = std::mem::replace(&mut open.exchange, Exchange::Done) {
                    self.commit(!out, offer, sdp);
                    effect = Effect::Changed;
                }
            }
            (Exchange::Empty, true) => open.exchange = Exchange::Countered(sdp),
            // An offer in an unreliable response is none (RFC 3261 section 13.2.1); after the answer more of them count for nothing.
            (Exchange::Empty, false) | (Exchange::Countered(_) | Exchange::Done, _) => {}
        }
        effect
    }

    fn accepted(
        &mut self,
        at: usize,
        m: &Message<'_>,
        out: bool,
        unix_ms: u64,
        own: &dyn Fn(&[u8]) -> bool,
        now: Time,
    ) -> Effect {
        let mut open = self.close(at);
        if open.method == Method::Bye {
            return self.end("BYE");
        }
        // A late offer keeps the transaction open until ACK, and the 2xx may come again before it.
        let initial = open.initial && self.leg.state != LegState::Confirmed;
        if initial {
            // RFC 3261 section 13.2.2.4: the 2xx sets the route set anew, also where an early dialog had one; then it is fixed.
            self.bind(m, out, own);
            self.leg.state = LegState::Confirmed;
            self.confirmed = Some(now);
            self.ending_at = None;
            self.confirmed_ms = unix_ms;
        }
        if matches!(open.method, Method::Invite | Method::Update) {
            if let Some(target) = open.target.take() {
                *self.target(open.by_server) = target;
            }
            if let Some(target) = m.contact_uri() {
                self.set_target(out, target);
            }
            self.leg.session_timer = session_timer(m, open.by_server);
            self.learn_phone(m, out);
        }
        let sdp = match self.offer_in(m) {
            Exchange::Offered(sdp) => Some(sdp),
            _ => None,
        };
        match (std::mem::replace(&mut open.exchange, Exchange::Done), sdp) {
            (Exchange::Offered(offer), sdp) => {
                if let Some(answer) = sdp.or(open.early.take()) {
                    self.commit(open.by_server, offer, answer);
                }
            }
            (Exchange::Empty, Some(offer)) if open.method == Method::Invite => {
                open.exchange = Exchange::Countered(offer);
                self.pending.push(open);
            }
            _ => {}
        }
        if initial {
            // Without the phone's tag or Contact no request can reach it inside the dialog.
            let leg = &mut self.leg;
            leg.partial |= leg.remote_target.0.is_empty() || leg.remote_tag.0.is_empty() || leg.local_tag.0.is_empty();
            Effect::Confirmed
        } else {
            Effect::Changed
        }
    }

    /// Takes what a response says about the dialog itself: tags, header values, route set, target.
    fn bind(&mut self, m: &Message<'_>, out: bool, own: &dyn Fn(&[u8]) -> bool) {
        let tag: Verbatim = m.to_tag().unwrap_or_default().into();
        let contact = m.contact_uri();
        if out {
            self.leg.local = m.to().into();
            self.leg.local_tag = tag;
        } else {
            self.leg.remote = m.to().into();
            self.leg.remote_tag = tag;
            let all: Vec<_> = m.values(Name::RecordRoute).map(Verbatim::from).collect();
            // The values that the INVITE had when it left the server are at the end of the list; they lead back, not to the phone.
            let beyond = all.len().saturating_sub(self.own_routes);
            // RFC 3261 section 12.1.2: the UAC takes Record-Route in reverse order.
            set_routes(&mut self.leg, all.into_iter().take(beyond).rev().collect(), own);
        }
        if let Some(contact) = contact {
            self.set_target(out, contact);
        }
        self.learn_phone(m, out);
    }

    /// Takes a transaction that is over; most of the time a leg has none, and then no memory for them.
    fn close(&mut self, at: usize) -> Pending {
        let open = self.pending.remove(at);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        open
    }

    fn set_target(&mut self, of_server: bool, uri: &[u8]) {
        // The server's own is nearly always the same.
        *self.target(of_server) = if of_server { Verbatim::common(uri) } else { uri.into() };
    }

    fn target(&mut self, of_server: bool) -> &mut Verbatim {
        if of_server { &mut self.leg.local_target } else { &mut self.leg.remote_target }
    }

    fn learn_phone(&mut self, m: &Message<'_>, out: bool) {
        if out {
            return;
        }
        for name in [Name::Allow, Name::Supported] {
            let list = m.headers(name).collect::<Vec<_>>().join(&b", "[..]);
            let known = if name == Name::Allow { &self.leg.allow } else { &self.leg.supported };
            if !list.is_empty() && list.len() <= MAX_LIST && list != **known {
                let list = Verbatim::common(&list);
                *(if name == Name::Allow { &mut self.leg.allow } else { &mut self.leg.supported }) = list;
            }
        }
    }

    /// The description in `m` as an offer; one that can't be kept makes the leg partial.
    fn offer_in(&mut self, m: &Message<'_>) -> Exchange {
        match description(m) {
            Description::Sdp(b) => Exchange::Offered(b.into()),
            Description::None => Exchange::Empty,
            Description::Unreadable => {
                self.leg.partial = true;
                Exchange::Empty
            }
        }
    }

    /// Puts an offer and its answer in force.
    fn commit(&mut self, offer_by_server: bool, offer: Verbatim, answer: Verbatim) {
        let (sent, received) = if offer_by_server { (offer, answer) } else { (answer, offer) };
        // What was observed of the phone's RTP holds only while it describes itself in the same way.
        if self.leg.sdp_received.as_ref().is_some_and(|old| old.body != received) {
            self.leg.rtp_sources.clear();
        }
        self.leg.sdp_sent = Some(Sdp { body: sent });
        self.leg.sdp_received = Some(Sdp { body: received });
    }

    /// Ends the leg; what is kept only lets late retransmissions be recognized.
    pub(super) fn end(&mut self, reason: &'static str) -> Effect {
        if self.leg.state == LegState::Ended {
            return Effect::None;
        }
        self.leg.state = LegState::Ended;
        self.pending = Vec::new();
        Effect::Ended(reason)
    }

    /// When the leg is given up if no more is heard; see the constants in the parent module.
    pub(super) fn expiry(&self, max_age: Duration) -> Time {
        match self.leg.state {
            LegState::Ended => self.last + super::LINGER,
            _ if self.ending_at.is_some() => self.ending_at.unwrap_or(self.last) + super::LINGER,
            LegState::Calling | LegState::Early => self.last + super::UNCONFIRMED,
            LegState::Confirmed => match self.leg.session_timer {
                // A phone may ask for a timer of a hundred years.
                Some(t) => {
                    let interval = Duration::from_secs(u64::from(t.interval_s.max(super::MIN_SESSION_S)));
                    self.last + (interval + super::SESSION_GRACE).min(max_age)
                }
                None => self.last + max_age,
            },
        }
    }
}

/// Fixes the route set, without what lies behind the server: a proxy that record-routes finds its own entry in the list, and
/// from its own place only what follows that entry is ahead.
fn set_routes(leg: &mut Leg, routes: Vec<Verbatim>, own: &dyn Fn(&[u8]) -> bool) {
    let from = routes.iter().rposition(|r| own(uri::uri_of(&r.0))).map_or(0, |n| n + 1);
    leg.route_set = routes.into_iter().skip(from).collect();
    if leg.route_set.len() > MAX_ROUTES {
        leg.route_set = Vec::new();
        leg.partial = true;
    }
}

/// RFC 4028 section 9: the 2xx says who refreshes; one without Session-Expires ends the timer.
fn session_timer(m: &Message<'_>, request_by_server: bool) -> Option<SessionTimer> {
    let value = m.header(Name::SessionExpires)?;
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let interval_s = std::str::from_utf8(&value[..digits]).ok()?.parse().ok()?;
    let by_uas = uri::param(value, "refresher").is_some_and(|r| r.eq_ignore_ascii_case(b"uas"));
    Some(SessionTimer { interval_s, local_refreshes: request_by_server != by_uas })
}
