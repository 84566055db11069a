//! Lets the wire speak first. What a server reports over UDP or TCP was on the wire as well, and the capture has it without the
//! server's word; its addresses are true, whereas a server may name what it is bound to. A report that comes later changes nothing of what is
//! known, and fills in what the capture has missed. So such reports wait a little. Those over TLS and WebSocket, which nobody
//! else can read, do not.

use super::intake::Reported;
use crate::calls::model::Transport;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a report waits: longer than the capture takes to hand a frame on (a block of its ring is given up after milliseconds), shorter
/// than anything that a call's state waits for.
const HEAD_START: Duration = Duration::from_millis(100);
/// Reports that wait at a time: 100 ms at 40,000 messages a second. Beyond it the oldest goes on at once.
const MAX_WAITING: usize = 4096;

/// Reports in the order in which they came, some of which are not due yet.
#[derive(Debug, Default)]
pub struct Patience {
    ready: VecDeque<Reported>,
    waiting: VecDeque<(Time, Reported)>,
}

impl Patience {
    /// Takes in a report.
    pub fn push(&mut self, report: Reported, now: Time) {
        match report.transport {
            Transport::Tls | Transport::Ws => self.ready.push_back(report),
            Transport::Udp | Transport::Tcp => self.waiting.push_back((now + HEAD_START, report)),
        }
        if self.waiting.len() > MAX_WAITING {
            self.ready.extend(self.waiting.pop_front().map(|(_, r)| r));
        }
    }

    /// The next report that is due.
    pub fn pop(&mut self, now: Time) -> Option<Reported> {
        if let Some(report) = self.ready.pop_front() {
            return Some(report);
        }
        // The wait is the same for all, so the first is due first.
        if self.waiting.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        self.waiting.pop_front().map(|(_, r)| r)
    }

    /// When [`Patience::pop`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.ready.is_empty() { self.waiting.front().map(|(at, _)| *at) } else { Some(Time::ZERO) }
    }
}
