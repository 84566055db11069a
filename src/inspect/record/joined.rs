//! Records that turn out to be of one dialog.

use super::super::report::End;
use super::{MAX_TOLD, Record};
use crate::time::Time;

/// What a part adds to the record of its leg.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct Part {
    started: Time,
    last: Time,
    messages: u64,
    reinvites: u64,
    refused: Option<u16>,
}

impl Record {
    pub(in crate::inspect) fn part(&self) -> Part {
        let refused = self.code.filter(|code| *code >= 300);
        Part { started: self.started, last: self.last, messages: self.messages, reinvites: self.reinvites, refused }
    }

    /// Adds a part of the same leg.
    pub(in crate::inspect) fn add(&mut self, part: &Part) {
        self.started = self.started.min(part.started);
        self.last = self.last.max(part.last);
        self.messages += part.messages;
        self.reinvites += part.reinvites;
        if self.retried.len() < MAX_TOLD {
            self.retried.extend(part.refused);
        }
    }

    /// Whether the caller was asked for credentials, and no more is known.
    pub(in crate::inspect) fn is_challenged(&self) -> bool {
        matches!(self.code, Some(401 | 407)) && self.answered.is_none() && !self.hung_up
    }

    /// Whether the first INVITE has neither an answer nor an end.
    pub(in crate::inspect) fn is_open(&self) -> bool {
        self.answered.is_none() && self.code.is_none() && !self.cancelled && !self.hung_up
    }

    /// When BYE was sent, and the tag of its sender.
    pub(in crate::inspect) fn hangup(&self) -> Option<(Time, Box<[u8]>)> {
        let at = self.ended.filter(|_| self.hung_up)?;
        let tag = if self.ended_by? == End::Local { &self.local_tag } else { &self.remote_tag };
        Some((at, tag.clone()))
    }

    /// The party with this tag sent BYE, which did not pass here.
    pub(in crate::inspect) fn hung_up_by(&mut self, at: Time, tag: &[u8]) {
        if self.hung_up || self.answered.is_none() {
            return;
        }
        self.hung_up = true;
        self.ended = Some(at);
        self.ended_by = Some(if *self.local_tag == *tag { End::Local } else { End::Remote });
    }
}
