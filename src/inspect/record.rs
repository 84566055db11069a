//! Course of one leg from its messages: parties, times, answers. Pure. The SIP rules of a leg (tags, route set, CSeq,
//! descriptions) belong to the tracker.

mod blank;
mod course;
mod described;
mod half;
mod joined;

use super::report::{End, Leg, LegDirection, Party, State};
use crate::sip::Transport;
use crate::sip::body::{self, description};
use crate::sip::message::{Message, Method, Name};
use crate::sip::uri;
use crate::time::Time;
use crate::wire::Packet;
use half::Half;
use std::net::SocketAddr;

/// Longest text copied from a message into a report.
const MAX_TEXT: usize = 512;
/// Most REFERs, refusals and address pairs reported for one leg.
const MAX_TOLD: usize = 16;

/// One leg, as seen in its messages.
#[derive(Debug)]
pub(super) struct Record {
    /// Index of the viewpoint.
    pub(super) view: u32,
    pub(super) call_id: Box<[u8]>,
    /// Unknown until an INVITE without a To tag appears.
    pub(super) side: LegDirection,
    pub(super) local_tag: Box<[u8]>,
    pub(super) remote_tag: Box<[u8]>,
    pub(super) local_addr: SocketAddr,
    pub(super) remote_addr: SocketAddr,
    pub(super) transport: Transport,
    /// Topmost Via branch and CSeq of the first INVITE.
    pub(super) branch: Box<[u8]>,
    pub(super) cseq: u32,
    pub(super) from: Party,
    pub(super) to: Party,
    pub(super) request_uri: Option<String>,
    local: String,
    remote: String,
    pub(super) started: Time,
    pub(super) last: Time,
    pub(super) ringing: Option<Time>,
    pub(super) answered: Option<Time>,
    pub(super) ended: Option<Time>,
    pub(super) code: Option<u16>,
    reason: Option<String>,
    retried: Vec<u16>,
    /// Sender of CANCEL or BYE.
    pub(super) ended_by: Option<End>,
    cancelled: bool,
    hung_up: bool,
    pub(super) how: Option<String>,
    /// Reason the tracker gives for the end.
    pub(super) tracker_end: Option<&'static str>,
    local_cseq: Option<u32>,
    remote_cseq: Option<u32>,
    user_agent: Option<String>,
    messages: u64,
    reinvites: u64,
    half: Half,
    refers: Vec<String>,
    pub(super) replaces: Option<String>,
    pub(super) also_seen: Vec<[SocketAddr; 2]>,
    pub(super) cut: bool,
    pub(super) emergency: bool,
    /// The record that this one repeats, on the other side of an address translation.
    pub(super) copy_of: Option<u32>,
    /// The parties send their requests past the server.
    pub(super) passed_by: bool,
    /// Last description from each side, local first. Cleared once the agreement is known.
    said: [Option<Box<[u8]>>; 2],
    /// The tracker's view of the leg, set when the leg or the file ends.
    pub(super) learnt: Option<Box<Learnt>>,
}

/// The tracker's view of a leg.
#[derive(Debug)]
pub(super) struct Learnt {
    pub(super) leg: Leg,
    pub(super) partial: bool,
}

/// Text for a report: replaces bytes that are not UTF-8, and cuts long text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned()
}

pub(super) fn party(value: &[u8]) -> Party {
    let parts = uri::name_addr(value);
    let name = parts.display.strip_prefix(b"\"").and_then(|d| d.strip_suffix(b"\"")).unwrap_or(parts.display);
    Party {
        name: (!name.is_empty()).then(|| text(name)),
        user: uri::user(parts.uri).map(text),
        uri: text(parts.uri),
        address: None,
    }
}

impl Record {
    /// A leg from its first captured message; `out` means that the local side sent it.
    pub(super) fn new(view: u32, m: &Message<'_>, p: &Packet<'_>, out: bool, now: Time) -> Self {
        let first = m.method() == Method::Invite && m.is_request() && m.to_tag().is_none();
        let side = match (first, out) {
            (false, _) => LegDirection::Unknown,
            (true, true) => LegDirection::Outbound,
            (true, false) => LegDirection::Inbound,
        };
        // From names the sender of the request.
        let local_is_from = out == m.is_request();
        let (from, to) = (m.from_tag().unwrap_or_default(), m.to_tag().unwrap_or_default());
        let (local_tag, remote_tag) = if local_is_from { (from, to) } else { (to, from) };
        let (local, remote) = if local_is_from { (m.from(), m.to()) } else { (m.to(), m.from()) };
        let (local_addr, remote_addr) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
        Self {
            view,
            call_id: m.call_id().into(),
            side,
            local_tag: local_tag.into(),
            remote_tag: remote_tag.into(),
            local_addr,
            remote_addr,
            transport: p.transport,
            branch: m.branch().unwrap_or_default().into(),
            cseq: m.cseq().0,
            from: party(m.from()),
            to: party(m.to()),
            request_uri: first.then(|| m.request_uri().map(text)).flatten(),
            local: text(local),
            remote: text(remote),
            started: now,
            last: now,
            ringing: None,
            answered: None,
            ended: None,
            code: None,
            reason: None,
            retried: Vec::new(),
            ended_by: None,
            cancelled: false,
            hung_up: false,
            how: None,
            tracker_end: None,
            local_cseq: None,
            remote_cseq: None,
            user_agent: None,
            messages: 0,
            reinvites: 0,
            half: Half::default(),
            refers: Vec::new(),
            replaces: first.then(|| m.header(Name::Replaces).map(text)).flatten(),
            also_seen: Vec::new(),
            cut: false,
            emergency: false,
            copy_of: None,
            passed_by: false,
            said: [None, None],
            learnt: None,
        }
    }

    /// Another early dialog of the same INVITE.
    pub(super) fn fork(&self, m: &Message<'_>, out: bool, now: Time) -> Self {
        let tag: Box<[u8]> = m.to_tag().unwrap_or_default().into();
        let (local_tag, remote_tag) = if out { (tag, self.remote_tag.clone()) } else { (self.local_tag.clone(), tag) };
        Self {
            call_id: self.call_id.clone(),
            local_tag,
            remote_tag,
            branch: self.branch.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            request_uri: self.request_uri.clone(),
            local: self.local.clone(),
            remote: self.remote.clone(),
            started: self.started,
            last: now,
            ringing: None,
            answered: None,
            ended: None,
            code: None,
            reason: None,
            retried: Vec::new(),
            ended_by: None,
            cancelled: false,
            hung_up: false,
            how: None,
            tracker_end: None,
            user_agent: None,
            messages: 0,
            reinvites: 0,
            half: Half::default(),
            refers: Vec::new(),
            replaces: self.replaces.clone(),
            also_seen: Vec::new(),
            said: self.said.clone(),
            learnt: None,
            ..*self
        }
    }

    /// The caller retries after a refusal: a new INVITE of the same leg.
    pub(super) fn again(&mut self, m: &Message<'_>) {
        if let Some(code) = self.code.take()
            && self.retried.len() < MAX_TOLD
        {
            self.retried.push(code);
        }
        (self.reason, self.ended, self.ended_by, self.how, self.tracker_end) = (None, None, None, None, None);
        (self.ringing, self.cancelled, self.half) = (None, false, Half::default());
        self.learnt = None;
        let tag = if self.side == LegDirection::Inbound { &mut self.local_tag } else { &mut self.remote_tag };
        *tag = Box::default();
        self.branch = m.branch().unwrap_or_default().into();
        self.cseq = m.cseq().0;
    }

    /// Another branch of the fork was answered at this time.
    pub(super) fn lost_to_fork(&mut self, at: Time) {
        self.cancelled = true;
        self.ended.get_or_insert(at);
        self.how.get_or_insert_with(|| "another branch of the fork answered".to_owned());
    }

    pub(super) fn near_tag(&self) -> &[u8] {
        if self.side == LegDirection::Inbound { &self.remote_tag } else { &self.local_tag }
    }

    pub(super) fn far_tag(&self) -> &[u8] {
        if self.side == LegDirection::Inbound { &self.local_tag } else { &self.remote_tag }
    }

    /// Whether the start of the leg is not in the file, or the answer to it.
    pub(super) fn is_partial(&self) -> bool {
        self.side == LegDirection::Unknown || self.half.answer_unseen
    }

    /// Whether the INVITE was refused, so that another one is the next attempt.
    pub(super) fn is_refused(&self) -> bool {
        self.answered.is_none() && (self.code.is_some() || self.half.refusal_unseen)
    }

    /// Whether these are the tags of the dialog, in whatever order.
    pub(super) fn has_tags(&self, a: &[u8], b: &[u8]) -> bool {
        let (local, remote) = (&*self.local_tag, &*self.remote_tag);
        (local, remote) == (a, b) || (local, remote) == (b, a)
    }

    /// Whether the leg has ended.
    pub(super) const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether the first INVITE still lacks a final answer.
    pub(super) fn is_inviting(&self) -> bool {
        let begun = self.side != LegDirection::Unknown || self.half.is_early();
        self.answered.is_none() && self.ended.is_none() && begun
    }

    /// Records a message of the leg.
    pub(super) fn see(&mut self, m: &Message<'_>, p: &Packet<'_>, out: bool, cut: bool, now: Time) {
        self.last = now;
        self.messages += 1;
        self.cut |= cut;
        let (cseq, _) = m.cseq();
        let initial = self.is_initial(m, out);
        if !out {
            let agent = m.header(Name::UserAgent).or_else(|| m.header(Name::Server));
            if let Some(agent) = agent.filter(|_| self.user_agent.is_none()) {
                self.user_agent = Some(text(agent));
            }
        }
        let pair = [p.src, p.dst];
        let own = if out { [self.local_addr, self.remote_addr] } else { [self.remote_addr, self.local_addr] };
        if initial
            && m.is_request()
            && pair != own
            && self.also_seen.len() < MAX_TOLD
            && !self.also_seen.contains(&pair)
        {
            // The same transaction on other addresses: captured on both sides of an address translation.
            self.also_seen.push(pair);
        }
        // Only a higher CSeq moves the leg's addresses: retransmissions captured elsewhere in the server's network must
        // not move them back and forth.
        if m.is_request() && m.method() != Method::Ack {
            let highest = if out { &mut self.local_cseq } else { &mut self.remote_cseq };
            if m.method() != Method::Cancel && highest.is_none_or(|h| cseq > h) {
                *highest = Some(cseq);
                (self.local_addr, self.remote_addr) = if out { (p.src, p.dst) } else { (p.dst, p.src) };
            }
        }
        if let body::Description::Sdp(b) = description(m) {
            self.said[usize::from(!out)] = Some(b.into());
        }
        match m.code() {
            None => self.request(m, out, now),
            Some(code) => self.response(m, code, out, initial, now),
        }
    }

    /// Records the tracker's view.
    pub(super) fn learn(&mut self, learnt: Learnt) {
        if !learnt.leg.media.is_empty() {
            self.said = [None, None];
        }
        self.learnt = Some(Box::new(learnt));
    }
}

impl Record {
    /// The leg for the report.
    pub(super) fn told(&self, through_server: bool) -> Leg {
        let ms = |t: Option<Time>| t.map(super::ms);
        let learnt = self.learnt.as_deref();
        let state = self.state();
        let mut missing = Vec::new();
        if self.side == LegDirection::Unknown {
            missing.push("the start of the dialog is not in the file".to_owned());
        }
        if self.half.answer_unseen {
            missing.push("the answer (2xx) is not in the file; a later message shows that there was one".to_owned());
        }
        if self.half.bye_unseen {
            missing.push("the BYE is not in the file; the response to it is".to_owned());
        }
        if self.cut {
            missing.push("the capture truncated some messages of the leg".to_owned());
        }
        let unlearnt = || Leg {
            call_id: text(&self.call_id),
            local: self.local.clone(),
            remote: self.remote.clone(),
            local_tag: text(&self.local_tag),
            remote_tag: text(&self.remote_tag),
            local_cseq: self.local_cseq,
            remote_cseq: self.remote_cseq,
            ..Leg::blank(self.side, self.transport, self.local_addr, self.remote_addr)
        };
        let mut leg = learnt.map_or_else(unlearnt, |l| l.leg.clone());
        if let Some(l) = learnt.filter(|_| self.answered.is_some() || state == State::Up) {
            // A leg that ended without its BYE in the file was whole while it was up.
            let whole = missing.is_empty() || missing.len() == 1 && self.half.bye_unseen;
            if l.partial && whole {
                missing.push(if leg.remote_target.is_empty() {
                    "the remote side gave no Contact".to_owned()
                } else if leg.remote_tag.is_empty() || leg.local_tag.is_empty() {
                    "a tag is missing".to_owned()
                } else {
                    "keepcall could not read a session description or the route set".to_owned()
                });
            }
        } else if learnt.is_none() && missing.is_empty() {
            missing.push("keepcall did not learn the leg: see the counters".to_owned());
        }
        leg.partial = !missing.is_empty();
        leg.missing = missing;
        (leg.through_server, leg.state, leg.direction) = (through_server, state, self.side);
        leg.request_uri = self.request_uri.clone();
        leg.also_seen.clone_from(&self.also_seen);
        leg.started_ms = super::ms(self.started);
        (leg.ringing_ms, leg.answered_ms, leg.ended_ms) = (ms(self.ringing), ms(self.answered), ms(self.ended));
        (leg.code, leg.reason, leg.retried) = (self.code, self.reason.clone(), self.retried.clone());
        leg.ended_by = self.ended_by.filter(|_| !matches!(state, State::Up | State::Failed | State::Redirected));
        leg.ended_how = self.how.clone().or_else(|| {
            self.tracker_end
                .filter(|_| !self.hung_up && !self.cancelled && self.code.is_none_or(|c| c < 300))
                .map(str::to_owned)
        });
        leg.user_agent.clone_from(&self.user_agent);
        (leg.messages, leg.reinvites) = (self.messages, self.reinvites);
        leg.refers.clone_from(&self.refers);
        leg.replaces.clone_from(&self.replaces);
        if leg.media.is_empty() {
            leg.media = self.described();
        }
        leg
    }
}
