//! Puts reports into order before they are believed.
//!
//! What a server reports over UDP or TCP was on the wire as well, and the capture has it without the server's word; its addresses are
//! true, whereas a server may name what it is bound to. A report that comes later changes nothing of what is known, and fills in
//! what the capture has missed. So those reports wait until the wire has spoken.
//!
//! Those over TLS and WebSocket nobody else can read. But each process of a server may report on a connection of its own, and a
//! response that overtakes its request there says nothing to whom has not seen the request. So these wait a little, too, and a
//! response waits for its request. The times in the packets do not help: Asterisk cuts those of what it received to milliseconds.

use super::intake::Reported;
use crate::budget::{Budget, allocated};
use crate::sip::Transport;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a report waits that the wire may show: longer than the capture takes to hand a frame on (a block of its ring is given
/// up after milliseconds), shorter than anything that a call's state waits for.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long one waits that only the server can give: as long as its connections may be read in another order than they were written.
const OVERTAKING: Duration = Duration::from_millis(25);
/// Reports that wait at a time in either line: 100 ms at 40,000 messages a second. Beyond it the oldest goes on at once.
const MAX_WAITING: usize = 4096;

/// Bytes of all reports in a line: what 16,000 ordinary messages have. Beyond it the oldest goes on at once, too.
const MAX_BYTES: usize = 16 << 20;

/// A line in which all wait the same time, so that the first is due first.
#[derive(Debug)]
struct Line {
    all: VecDeque<(Time, Reported)>,
    bytes: Budget,
}

impl Default for Line {
    fn default() -> Self {
        Self { all: VecDeque::new(), bytes: Budget::new(MAX_BYTES) }
    }
}

/// What a report takes.
fn bytes(report: &Reported) -> usize {
    size_of::<(Time, Reported)>() + allocated(report.payload.capacity())
}

impl Line {
    fn push(&mut self, at: Time, report: Reported) {
        self.bytes.take(bytes(&report));
        self.all.push_back((at, report));
    }

    fn due(&self) -> Option<Time> {
        let (at, _) = self.all.front()?;
        Some(if self.all.len() > MAX_WAITING || self.bytes.is_over() { Time::ZERO } else { *at })
    }

    /// The first, or the request that it answers.
    fn pop(&mut self) -> Option<Reported> {
        let (_, first) = self.all.front()?;
        let request = match first.is_request {
            true => None,
            false => self.all.iter().position(|(_, r)| r.is_request && r.transaction == first.transaction),
        };
        let (_, report) = match request {
            Some(at) => self.all.remove(at),
            None => self.all.pop_front(),
        }?;
        self.bytes.give(bytes(&report));
        Some(report)
    }
}

/// Reports in the order in which they are to be believed.
#[derive(Debug, Default)]
pub struct Reorder {
    overheard: Line,
    secret: Line,
}

impl Reorder {
    /// Takes in a report.
    pub fn push(&mut self, report: Reported, now: Time) {
        let (line, wait) = match report.transport {
            Transport::Udp | Transport::Tcp => (&mut self.overheard, HEAD_START),
            Transport::Tls | Transport::Ws => (&mut self.secret, OVERTAKING),
        };
        line.push(now + wait, report);
    }

    /// The next report that is due.
    pub fn pop(&mut self, now: Time) -> Option<Reported> {
        let earlier = match (self.overheard.due(), self.secret.due()) {
            (Some(a), Some(b)) if a <= b => &mut self.overheard,
            (Some(_), None) => &mut self.overheard,
            _ => &mut self.secret,
        };
        if earlier.due()? <= now { earlier.pop() } else { None }
    }

    /// When [`Reorder::pop`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.overheard.due().into_iter().chain(self.secret.due()).min()
    }
}
