//! Orders reports before they are used.
//!
//! A report over UDP or TCP was on the wire as well, and the capture sees it independently of the server. The capture's
//! addresses are real, while a server may report its bind address. A report that comes after the capture changes
//! nothing known and fills in what the capture missed. These reports therefore wait for the wire.
//!
//! Nobody else can read those over TLS and WebSocket. Each process of a server may report on a connection of its own,
//! and a response that overtakes its request there is useless without the request. These reports therefore wait a
//! little as well, and a response waits for its request. The packets' timestamps do not help: Asterisk truncates those
//! of received messages to milliseconds.

use super::intake::ReportedMessage;
use crate::budget::{Budget, allocated};
use crate::sip::Transport;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Wait of a report that the wire may show: longer than the capture takes to deliver a frame (the kernel hands over a
/// ring block after milliseconds), shorter than anything that a call's state waits for.
const HEAD_START: Duration = Duration::from_millis(100);
/// Wait of a report that only the server can give: the longest disorder between reads of its connections.
const OVERTAKING: Duration = Duration::from_millis(25);
/// Most waiting reports in either line: 100 ms at 40,000 messages a second. Beyond it the oldest is passed on at once.
const MAX_WAITING: usize = 4096;

/// Bytes of all reports in a line: 16,000 ordinary messages. Beyond it the oldest is passed on at once as well.
const MAX_BYTES: usize = 16 << 20;

/// A line with the same wait for all, so that the first is due first.
#[derive(Debug)]
struct Line {
    all: VecDeque<(Time, ReportedMessage)>,
    bytes: Budget,
}

impl Default for Line {
    fn default() -> Self {
        Self { all: VecDeque::new(), bytes: Budget::new(MAX_BYTES) }
    }
}

/// Bytes of a report.
fn bytes(report: &ReportedMessage) -> usize {
    size_of::<(Time, ReportedMessage)>() + allocated(report.payload.capacity())
}

impl Line {
    fn push(&mut self, at: Time, report: ReportedMessage) {
        self.bytes.take(bytes(&report));
        self.all.push_back((at, report));
    }

    fn due(&self) -> Option<Time> {
        let (at, _) = self.all.front()?;
        Some(if self.all.len() > MAX_WAITING || self.bytes.is_over() { Time::ZERO } else { *at })
    }

    /// The first report, or the request that it answers.
    fn pop(&mut self) -> Option<ReportedMessage> {
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

/// Reports in the order of their use.
#[derive(Debug, Default)]
pub struct Reorder {
    overheard: Line,
    secret: Line,
}

impl Reorder {
    /// Adds a report.
    pub fn push(&mut self, report: ReportedMessage, now: Time) {
        let (line, wait) = match report.transport {
            Transport::Udp | Transport::Tcp => (&mut self.overheard, HEAD_START),
            Transport::Tls | Transport::Ws => (&mut self.secret, OVERTAKING),
        };
        line.push(now + wait, report);
    }

    /// The next report that is due.
    pub fn pop(&mut self, now: Time) -> Option<ReportedMessage> {
        let earlier = match (self.overheard.due(), self.secret.due()) {
            (Some(a), Some(b)) if a <= b => &mut self.overheard,
            (Some(_), None) => &mut self.overheard,
            _ => &mut self.secret,
        };
        if earlier.due()? <= now { earlier.pop() } else { None }
    }

    /// When [`Reorder::pop`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.overheard.due().into_iter().chain(self.secret.due()).min()
    }
}
