//! Course of a leg: what each request and each response says of its state.

use super::super::report::{End, LegDirection, State};
use super::{MAX_TOLD, Record, text};
use crate::sip::message::{Message, Method, Name, Start};
use crate::sip::uri;
use crate::time::Time;

/// The tracker's reasons for the end of a leg that was never up. Where the wire shows an answer, they are about an answer
/// that the file lacks.
const NEVER_UP: [&str; 5] = [
    "never answered",
    "refused or cancelled",
    "replaced by a new INVITE",
    "another branch of the fork answered",
    "this branch of the fork refused",
];

impl Record {
    pub(super) fn request(&mut self, m: &Message<'_>, out: bool, now: Time) {
        self.proven_by_request(m, out, now);
        let end = if out { End::Local } else { End::Remote };
        let reason = || m.header(Name::Reason).map(text);
        match m.method() {
            Method::Invite | Method::Update if m.to_tag().is_some() => self.changed(out, m),
            // CANCEL ends only the INVITE with its branch (RFC 3261 section 9.1), not another copy.
            Method::Cancel if self.is_inviting() && self.is_of_invite(m) => {
                self.cancelled = true;
                self.ended_by.get_or_insert(end);
                self.how = self.how.take().or_else(reason);
            }
            Method::Bye if !self.hung_up => {
                self.hung_up = true;
                self.ended_by = Some(end);
                self.how = reason();
                self.ended.get_or_insert(now);
            }
            Method::Refer => {
                if let Some(to) = m.header(Name::ReferTo).filter(|_| self.refers.len() < MAX_TOLD) {
                    let to = text(uri::uri_of(to));
                    if self.refers.last() != Some(&to) {
                        self.refers.push(to);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn response(&mut self, m: &Message<'_>, code: u16, out: bool, initial: bool, now: Time) {
        let reason = || {
            let Start::Response { reason, .. } = m.start() else { return None };
            (!reason.is_empty()).then(|| text(reason))
        };
        if !initial {
            self.proven_by_response(m, code, out, reason, now);
            return;
        }
        let tag: Box<[u8]> = m.to_tag().unwrap_or_default().into();
        if code > 100 && !tag.is_empty() && self.answered.is_none() {
            if out {
                self.local_tag = tag;
                self.local = text(m.to());
            } else {
                self.remote_tag = tag;
                self.remote = text(m.to());
            }
        }
        self.half.responses = true;
        match code {
            101..=199 => {
                self.ringing.get_or_insert(now);
            }
            200..=299 if self.answered.is_none() || self.half.answer_unseen => {
                self.up(now);
                (self.code, self.reason, self.half.answer_unseen) = (Some(code), reason(), false);
            }
            300.. if self.answered.is_none() && self.code.is_none() => {
                (self.code, self.reason, self.ended) = (Some(code), reason(), Some(now));
                self.how = self.how.take().or_else(|| m.header(Name::Reason).map(text));
            }
            _ => {}
        }
    }

    /// The leg is up.
    pub(super) fn up(&mut self, now: Time) {
        self.answered.get_or_insert(now);
        if self.tracker_end.is_some_and(|end| NEVER_UP.contains(&end)) {
            self.tracker_end = None;
        }
        if !self.hung_up {
            // CANCEL came too late.
            (self.ended, self.ended_by, self.cancelled) = (None, None, false);
        }
    }

    /// The tracker ended the leg, at this time if it was not because of a message. Returns whether the leg is over.
    pub(in crate::inspect) fn given_up(&mut self, reason: &'static str, at: Option<Time>) -> bool {
        if self.answered.is_some() && NEVER_UP.contains(&reason) {
            return false;
        }
        self.tracker_end = Some(reason);
        if self.ended.is_none() {
            self.ended = at;
        }
        true
    }

    /// The leg's state at the end of the file.
    pub(in crate::inspect) fn state(&self) -> State {
        if self.answered.is_some() || self.side == LegDirection::Unknown && self.code.is_none() {
            let early = self.answered.is_none() && self.half.is_early();
            return if self.hung_up {
                State::Ended
            } else if early && self.cancelled {
                State::Cancelled
            } else if self.tracker_end.is_some() {
                if early { State::Unanswered } else { State::Ended }
            } else if early {
                State::Ringing
            } else {
                State::Up
            };
        }
        match self.code {
            Some(487) => State::Cancelled,
            Some(_) if self.cancelled => State::Cancelled,
            Some(300..=399) => State::Redirected,
            Some(_) => State::Failed,
            None if self.cancelled || self.hung_up => State::Cancelled,
            None if self.half.refusal_unseen => State::Failed,
            None if self.tracker_end.is_some() => State::Unanswered,
            None if self.ringing.is_some() => State::Ringing,
            None => State::Calling,
        }
    }
}
