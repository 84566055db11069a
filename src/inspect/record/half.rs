//! What a message proves about others that the capture lacks: captures of one direction, of responses only, or of the
//! end of a dialog.

use super::super::report::{End, LegDirection};
use super::Record;
use crate::sip::message::{Message, Method};
use crate::time::Time;
use smallvec::SmallVec;

/// Most re-INVITEs and UPDATEs kept for telling a retransmission; an older one is long over.
const MAX_CHANGES: usize = 16;
/// Beginning of the branch of a Via (RFC 3261 section 8.1.1.7). Without it, the branch of an ACK means nothing.
const COOKIE: &[u8] = b"z9hG4bK";

/// What is known although its message is not in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Half {
    /// A later message shows that the INVITE was answered.
    pub(super) answer_unseen: bool,
    /// The ACK of a refusal shows that the INVITE was refused.
    pub(super) refusal_unseen: bool,
    /// A response shows that BYE was sent.
    pub(super) bye_unseen: bool,
    /// A response to the first INVITE was seen.
    pub(super) responses: bool,
    /// CSeq of a provisional answer whose INVITE is not in the file.
    early: Option<u32>,
    /// The dialog is certainly past its first INVITE.
    confirmed: bool,
    /// The latest re-INVITEs and UPDATEs: whether the local side sent it, and its CSeq.
    changes: SmallVec<[(bool, u32); 4]>,
    /// Local and remote: the side was challenged, so that its next one is the same again (RFC 3261 section 22.2).
    challenged: [bool; 2],
}

impl Half {
    /// Whether the leg was last seen ringing, without the start of it.
    pub(super) const fn is_early(&self) -> bool {
        self.early.is_some() && !self.confirmed
    }
}

impl Record {
    /// Whether the message belongs to the transaction of the first INVITE.
    pub(super) fn is_initial(&self, m: &Message<'_>, out: bool) -> bool {
        // Both sides number their requests, so that a re-INVITE of the called side may have the same CSeq.
        let by_caller = (out == m.is_request()) == (self.side == LegDirection::Outbound);
        let first = m.method() == Method::Invite && m.cseq().0 == self.cseq;
        first && by_caller && self.side != LegDirection::Unknown && !(m.is_request() && m.to_tag().is_some())
    }

    /// Whether a CANCEL, or a response to one, names the INVITE of this leg.
    pub(in crate::inspect) fn is_of_invite(&self, m: &Message<'_>) -> bool {
        *self.branch == *m.branch().unwrap_or_default() && self.cseq == m.cseq().0
    }

    /// The local or the remote side sent a re-INVITE or an UPDATE, perhaps once more.
    pub(super) fn changed(&mut self, by_local: bool, m: &Message<'_>) {
        let change = (by_local, m.cseq().0);
        if self.half.changes.contains(&change) {
            return;
        }
        if self.half.changes.len() >= MAX_CHANGES {
            self.half.changes.remove(0);
        }
        self.half.changes.push(change);
        let again = &mut self.half.challenged[usize::from(!by_local)];
        self.reinvites += u64::from(!std::mem::take(again));
    }

    /// Draws conclusions from a request.
    pub(super) fn proven_by_request(&mut self, m: &Message<'_>, out: bool, now: Time) {
        if m.to_tag().is_none() {
            return;
        }
        let known = self.side != LegDirection::Unknown;
        let by_caller = known && out == (self.side == LegDirection::Outbound);
        let branch = m.branch().unwrap_or_default();
        let proof = match m.method() {
            // The ACK of a refusal has the branch of its INVITE, that of a 2xx a new one (sections 17.1.1.3, 13.2.2.4).
            Method::Ack if self.branch.starts_with(COOKIE) && branch.starts_with(COOKIE) => {
                let of_2xx = *self.branch != *branch;
                let inviting = self.answered.is_none() && self.code.is_none();
                if !of_2xx && by_caller && inviting && m.cseq().0 == self.cseq {
                    self.half.refusal_unseen = true;
                    self.ended.get_or_insert(now);
                }
                of_2xx && if known { by_caller && m.cseq().0 == self.cseq } else { self.half.early.is_some() }
            }
            Method::Invite => true,
            // Only the calling side may send BYE before the answer (section 15). It hardly does: it sends CANCEL.
            Method::Bye => !by_caller || !self.half.responses,
            Method::Info => !known,
            _ => false,
        };
        if proof {
            self.confirmed(now);
        }
    }

    /// Draws conclusions from a response that is not one to the first INVITE, if that is in the file.
    pub(super) fn proven_by_response(
        &mut self,
        m: &Message<'_>,
        code: u16,
        out: bool,
        reason: impl Fn() -> Option<String>,
        now: Time,
    ) {
        // The sender of the request is the other side.
        let by_local = !out;
        let by = if by_local { End::Local } else { End::Remote };
        match m.method() {
            Method::Bye if code >= 200 => {
                if matches!(code, 401 | 407) {
                    // Challenged for credentials, BYE does not end the call yet (section 22).
                    if self.hung_up {
                        (self.hung_up, self.ended, self.ended_by) = (false, None, None);
                    }
                } else if !self.hung_up {
                    let by_caller = by_local == (self.side == LegDirection::Outbound);
                    if self.side == LegDirection::Unknown || !by_caller || !self.half.responses {
                        self.confirmed(now);
                    }
                    (self.hung_up, self.half.bye_unseen, self.ended_by) = (true, true, Some(by));
                    self.ended.get_or_insert(now);
                }
            }
            Method::Cancel if (200..300).contains(&code) && self.is_inviting() && self.is_of_invite(m) => {
                self.cancelled = true;
                self.ended_by.get_or_insert(by);
            }
            Method::Invite => self.proven_by_answer(m, code, by_local, reason, now),
            Method::Update if m.to_tag().is_some() => {
                // The response shows the request.
                self.changed(by_local, m);
                if matches!(code, 401 | 407) {
                    self.half.challenged[usize::from(!by_local)] = true;
                }
            }
            _ => {}
        }
    }

    /// A response to a later INVITE, or to one that is not in the file.
    fn proven_by_answer(
        &mut self,
        m: &Message<'_>,
        code: u16,
        by_local: bool,
        reason: impl Fn() -> Option<String>,
        now: Time,
    ) {
        let cseq = m.cseq().0;
        let later = if self.side == LegDirection::Unknown {
            self.half.confirmed || self.half.changes.contains(&(by_local, cseq))
        } else {
            // An older number of the caller's is that of a refused attempt.
            by_local != (self.side == LegDirection::Outbound) || cseq > self.cseq
        };
        if later {
            if m.to_tag().is_some() && (self.half.confirmed || self.answered.is_some()) {
                // The response shows the request.
                self.changed(by_local, m);
            }
            if matches!(code, 401 | 407) {
                self.half.challenged[usize::from(!by_local)] = true;
            }
        } else if self.side == LegDirection::Unknown {
            let begun = self.half.early == Some(cseq);
            match code {
                101..=199 => {
                    self.ringing.get_or_insert(now);
                    self.half.early.get_or_insert(cseq);
                }
                200..=299 => {
                    if begun {
                        (self.code, self.reason) = (Some(code), reason());
                    }
                    self.half.confirmed = true;
                    self.up(now);
                }
                300.. if self.answered.is_none() && self.code.is_none() && (begun || self.messages == 1) => {
                    (self.code, self.reason, self.ended) = (Some(code), reason(), Some(now));
                }
                _ => {}
            }
        }
    }

    /// The dialog is past its first INVITE.
    fn confirmed(&mut self, now: Time) {
        let early = self.half.is_early();
        self.half.confirmed = true;
        if self.side == LegDirection::Unknown && self.answered.is_none() {
            if self.code.is_some_and(|c| c >= 300) {
                // So it was a later INVITE that was refused.
                (self.code, self.reason, self.ended) = (None, None, None);
            }
            if !early {
                return;
            }
        }
        if self.answered.is_none() && self.code.is_none() {
            self.half.answer_unseen = true;
            self.half.refusal_unseen = false;
            self.up(now);
        }
    }
}
