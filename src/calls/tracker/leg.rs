//! One leg: its start, the parts of its dialog that the first transaction sets, and its end (RFC 3261 sections 12 to
//! 15).

pub(super) mod doubt;
pub(super) mod offer_answer;
pub(super) mod routes;

use super::cseq::{Numbers, SeenNumbers};
use super::evidence::Evidence;
use super::timer::RequestedTimer;
use crate::calls::model::{Direction, Gap, Gaps, Leg, LegState, Shared, Verbatim};
use crate::sip::message::{Message, Method, Name};
use crate::time::Time;
use crate::wire::Packet;
use doubt::Life;
use offer_answer::{Offers, Pending};
use routes::Arrival;

/// Longest Allow or Supported that is kept, in bytes. A longer one is left out, since it only guides what recovery may
/// offer.
const MAX_LIST: usize = 512;
/// More Record-Route values than any INVITE has.
const MANY: u8 = u8::MAX;

/// Effect of a message on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Changed,
    Confirmed,
    Ended(&'static str),
}

impl Effect {
    pub(super) const fn changed(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::None }
    }
}

/// How much of a leg's start was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its first INVITE.
    Start,
    /// Somebody else has followed the leg from its start.
    Adopted,
    /// A message inside the dialog, and the server has confirmed the dialog.
    Middle,
    /// A message inside a dialog that may not exist: only the phone has spoken.
    Claimed,
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) now: Time,
    /// Milliseconds since 1970.
    pub(super) unix_ms: u64,
}

/// A leg with the data to follow it, which recovery does not need.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The stored part.
    pub leg: Shared<Leg>,
    /// Evidence for pairing.
    pub clues: Box<Evidence>,
    /// Time of the first INVITE (of the first message, if that was not the INVITE).
    pub started: Time,
    /// Time of the first 2xx (or of its ACK).
    pub confirmed: Option<Time>,
    /// Wall clock of that, in milliseconds since 1970.
    pub confirmed_ms: u64,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Target of the last REFER that was accepted in this dialog.
    pub referred: Option<Box<Referred>>,
    pub(super) proof: Proof,
    /// Source of the phone's last request, if that is not its known address.
    pub(super) arrival: Option<Box<Arrival>>,
    pub(super) numbers: Numbers,
    pub(super) invite: FirstInvite,
    pub(super) life: Life,
    pub(super) offers: Offers,
}

/// What shows that the dialog exists and is up. `dialog.rs` changes it; `leg.rs`, `branch.rs` and `matching.rs` set its
/// start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    pub(super) known: Known,
    /// The server has spoken: it called, or answered with more than 100.
    pub(super) spoken: bool,
    /// The phone has acknowledged an answer, but the server was not heard.
    pub(super) claimed_up: bool,
}

/// The leg's first INVITE. `leg.rs` changes it, and `answers.rs` for an INVITE that was not seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FirstInvite {
    /// Hash of its topmost Via branch.
    pub(super) branch: u64,
    pub(super) cseq: u32,
    /// Record-Route values that it already had when the server sent it. They lie behind the server, not ahead.
    pub(super) own_routes: u8,
    /// It had no description, so the offer comes with its answer.
    pub(super) late_offer: bool,
}

/// A REFER (RFC 3515) inside a dialog: a transfer is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred {
    /// Whether the phone sent it (and the server should act on it).
    pub by_phone: bool,
    /// The URI of Refer-To, verbatim. For an attended transfer it has a `Replaces` header.
    pub to: Verbatim,
    /// When it was accepted.
    pub at: Time,
}

impl Tracked {
    fn blank(m: &Message<'_>, p: &Packet<'_>, out: bool, request: bool, direction: Direction, at: At) -> Self {
        let (local_addr, remote_addr) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
        // From names the sender of a request, and the receiver of a response.
        let (local, remote) = if out == request { (m.from(), m.to()) } else { (m.to(), m.from()) };
        let (local_tag, remote_tag) =
            if out == request { (m.from_tag(), m.to_tag()) } else { (m.to_tag(), m.from_tag()) };
        let leg = Leg {
            call_id: m.call_id().into(),
            direction,
            state: LegState::Calling,
            local: local.into(),
            remote: remote.into(),
            local_tag: local_tag.unwrap_or_default().into(),
            remote_tag: remote_tag.unwrap_or_default().into(),
            local_cseq: None,
            remote_cseq: None,
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
            gaps: Gaps::default(),
            carried: false,
        };
        Self {
            started: at.now,
            proof: Proof { known: Known::Start, spoken: out, claimed_up: false },
            numbers: Numbers::new(SeenNumbers::NONE),
            ..Self::adopted(leg.into(), 0, false, at.now)
        }
    }

    /// A leg from its first INVITE.
    #[allow(clippy::too_many_arguments, reason = "one call site; the values have no life together")]
    pub(super) fn new(
        m: &Message<'_>,
        p: &Packet<'_>,
        out: bool,
        branch: u64,
        clues: Evidence,
        emergency: bool,
        own: &dyn Fn(&[u8]) -> bool,
        at: At,
    ) -> Self {
        let direction = if out { Direction::Outbound } else { Direction::Inbound };
        let mut this = Self::blank(m, p, out, true, direction, at);
        this.confirmed = None;
        this.meet(m, out, branch, clues, emergency, own, at);
        this
    }

    /// Applies the first INVITE.
    #[allow(clippy::too_many_arguments, reason = "two call sites; the values have no life together")]
    pub(super) fn meet(
        &mut self,
        m: &Message<'_>,
        out: bool,
        branch: u64,
        clues: Evidence,
        emergency: bool,
        own: &dyn Fn(&[u8]) -> bool,
        at: At,
    ) -> Effect {
        let (cseq, _) = m.cseq();
        let now = at.now;
        self.proof.known = Known::Start;
        self.life.last = now;
        self.leg.direction = if out { Direction::Outbound } else { Direction::Inbound };
        *self.clues = clues;
        self.emergency = emergency;
        self.invite.branch = branch;
        self.invite.cseq = cseq;
        self.note_cseq(out, cseq);
        if let Some(contact) = m
            .contact_uri()
            .filter(|_| if out { self.leg.local_target.0.is_empty() } else { self.leg.remote_target.0.is_empty() })
        {
            self.set_target(out, contact);
        }
        if out {
            self.invite.own_routes = u8::try_from(m.values(Name::RecordRoute).count()).unwrap_or(MANY);
        } else {
            self.routes_of_invite(m, own);
            if !self.leg.remote_target.0.is_empty() {
                self.know(Gap::RemoteTarget);
            }
        }
        // From here on, a message that was not seen did not exist.
        self.know(Gap::LocalCseq);
        self.know(Gap::Description);
        let place = match self.pending_at(out, cseq, Method::Invite) {
            Some(place) => place,
            None => {
                let mut new = Pending::new(out, cseq, Method::Invite, now);
                // Its answer was seen, or is late.
                new.acked = !self.is_inviting();
                self.open(new)
            }
        };
        let offer = self.body(m);
        self.invite.late_offer = offer.is_none();
        let open = &mut self.offers.pending[place];
        (open.initial, open.asked, open.branch, open.timer) = (true, true, branch, RequestedTimer::of(m));
        open.offer = offer;
        let accepted = open.answered || open.acked;
        self.learn_phone(m, out);
        if !accepted {
            return Effect::Changed;
        }
        self.settle(place);
        self.confirm(at)
    }

    /// A leg from a message inside its dialog. It takes the direction of the message, because the initiator is unknown.
    pub(super) fn from_middle(m: &Message<'_>, p: &Packet<'_>, out: bool, at: At) -> Self {
        let request = m.is_request();
        let direction = if out == request { Direction::Outbound } else { Direction::Inbound };
        let mut this = Self::blank(m, p, out, request, direction, at);
        this.confirmed = None;
        this.proof.known = Known::Claimed;
        this.leg.gaps = Gaps::UNMET;
        this.leg.partial = true;
        this.leg.state = LegState::Early;
        this.invite.cseq = m.cseq().0;
        this
    }

    /// A leg from a stored record: its past is known, its evidence is not.
    pub(super) fn adopted(mut leg: Shared<Leg>, confirmed_ms: u64, emergency: bool, now: Time) -> Self {
        if leg.partial && leg.gaps.is_empty() {
            leg.gaps = Gaps::default().with(Gap::Other);
        }
        Self {
            leg,
            clues: Box::default(),
            started: now,
            confirmed: Some(now),
            confirmed_ms,
            emergency,
            referred: None,
            proof: Proof { known: Known::Adopted, spoken: true, claimed_up: false },
            arrival: None,
            numbers: Numbers::new(SeenNumbers::ALL),
            invite: FirstInvite::default(),
            life: Life { last: now, ending: None, audio: None },
            offers: Offers::default(),
        }
    }

    /// Whether the server has not answered it yet.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        !self.proof.spoken
    }

    /// Whether the phone has ended the leg itself: it sent BYE, the server accepted that, and sent none.
    #[must_use]
    pub fn hung_up(&self) -> bool {
        self.leg.state == LegState::Ended && self.numbers.bye.is_none()
    }

    /// Whether the server sent the first INVITE.
    pub(super) fn is_caller(&self) -> bool {
        self.leg.direction == Direction::Outbound
    }

    /// The tag of the answering side, which tells forks apart.
    pub(super) fn far_tag(&self) -> &[u8] {
        if self.is_caller() { &self.leg.remote_tag.0 } else { &self.leg.local_tag.0 }
    }

    /// The tag of the calling side.
    pub(super) fn near_tag(&self) -> &[u8] {
        if self.is_caller() { &self.leg.local_tag.0 } else { &self.leg.remote_tag.0 }
    }

    /// Whether the transaction of the first INVITE is open.
    pub(super) fn is_inviting(&self) -> bool {
        matches!(self.leg.state, LegState::Calling | LegState::Early)
    }

    /// Whether the leg's start was not seen.
    pub(super) fn is_unmet(&self) -> bool {
        matches!(self.proof.known, Known::Middle | Known::Claimed)
    }

    /// Records that a fact is missing. True if that is new.
    pub(super) fn lack(&mut self, gap: Gap) -> bool {
        if self.leg.gaps.contains(gap) {
            return false;
        }
        self.leg.gaps = self.leg.gaps.with(gap);
        self.leg.partial = true;
        true
    }

    /// Records that a fact is known. True if that is new.
    pub(super) fn know(&mut self, gap: Gap) -> bool {
        if !self.leg.gaps.contains(gap) {
            return false;
        }
        self.leg.gaps = self.leg.gaps.without(gap);
        self.leg.partial = !self.leg.gaps.is_empty();
        true
    }

    /// Applies the dialog data of a response to the first INVITE: tags, header values, route set, target.
    pub(super) fn bind(&mut self, m: &Message<'_>, out: bool, own: &dyn Fn(&[u8]) -> bool) -> bool {
        let mut changed = self.name_far(m.to(), m.to_tag().unwrap_or_default());
        if !out {
            changed |= self.routes_of_response(m, own);
        }
        if let Some(contact) = m.contact_uri() {
            changed |= self.set_target(out, contact);
        }
        self.learn_phone(m, out) || changed
    }

    /// Sets the answering side: the whole header value and its tag.
    pub(super) fn name_far(&mut self, value: &[u8], tag: &[u8]) -> bool {
        let (known, known_tag) = if self.is_caller() {
            (&self.leg.remote, &self.leg.remote_tag)
        } else {
            (&self.leg.local, &self.leg.local_tag)
        };
        if *known.0 == *value && *known_tag.0 == *tag {
            return false;
        }
        if self.is_caller() {
            self.leg.remote = value.into();
            self.leg.remote_tag = tag.into();
        } else {
            self.leg.local = value.into();
            self.leg.local_tag = tag.into();
        }
        true
    }

    /// The dialog is confirmed.
    pub(super) fn confirm(&mut self, at: At) -> Effect {
        if !self.is_inviting() {
            return Effect::Changed;
        }
        self.leg.state = LegState::Confirmed;
        self.confirmed = Some(at.now);
        self.confirmed_ms = at.unix_ms;
        self.life.ending = self.life.ending.filter(|(_, why)| why.is_bye());
        self.check_essentials();
        Effect::Confirmed
    }

    /// Without a tag, or without the phone's Contact, no request can reach the phone inside the dialog.
    pub(super) fn check_essentials(&mut self) {
        if self.leg.remote_tag.0.is_empty() || self.leg.local_tag.0.is_empty() {
            self.lack(Gap::Tag);
        } else {
            self.know(Gap::Tag);
        }
        if self.leg.remote_target.0.is_empty() {
            self.lack(Gap::RemoteTarget);
        }
    }

    pub(super) fn set_target(&mut self, of_server: bool, contact: &[u8]) -> bool {
        if contact.len() > super::MAX_NAME {
            return !of_server && self.lack(Gap::RemoteTarget);
        }
        let gap = !of_server && self.know(Gap::RemoteTarget);
        let known = if of_server { &self.leg.local_target } else { &self.leg.remote_target };
        if *known.0 == *contact {
            return gap;
        }
        if of_server {
            // The server's own Contact is nearly always the same.
            self.leg.local_target = Verbatim::common(contact);
        } else {
            self.leg.remote_target = contact.into();
        }
        true
    }

    pub(super) fn learn_phone(&mut self, m: &Message<'_>, out: bool) -> bool {
        if out {
            return false;
        }
        let mut changed = false;
        for name in [Name::Allow, Name::Supported] {
            let known = if name == Name::Allow { &self.leg.allow } else { &self.leg.supported };
            let mut lines = m.headers(name);
            let Some(first) = lines.next().filter(|l| !l.is_empty()) else { continue };
            // Nearly always it is one line, and the same as before.
            let joined;
            let list = match lines.next() {
                None => first,
                Some(_) => {
                    joined = m.headers(name).collect::<Vec<_>>().join(&b", "[..]);
                    &joined[..]
                }
            };
            if list.len() > MAX_LIST || *list == *known.0 {
                continue;
            }
            changed = true;
            if name == Name::Allow {
                self.leg.allow = Verbatim::common(list);
            } else {
                self.leg.supported = Verbatim::common(list);
            }
        }
        changed
    }

    /// Ends the leg. The rest of its data only serves to recognize late retransmissions.
    pub(super) fn end(&mut self, reason: &'static str) -> Effect {
        if self.leg.state == LegState::Ended {
            return Effect::None;
        }
        self.leg.state = LegState::Ended;
        self.offers.pending = Vec::new();
        self.offers.before = None;
        self.offers.first = None;
        Effect::Ended(reason)
    }
}
