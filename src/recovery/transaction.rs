//! Transactions over UDP (RFC 3261 section 17) as values: who to resend to, when, and when to give up.

use crate::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// Round-trip estimate (RFC 3261 section 17.1.1.1).
pub(super) const T1: Duration = Duration::from_millis(500);
/// Longest interval between two sendings of a non-INVITE request or of an INVITE's final response.
pub(super) const T2: Duration = Duration::from_secs(4);
/// 64*T1: Timers B, F, H; also how long answers are kept for retransmissions (Timer J), and our cap on Timer C.
pub(super) const LIFE: Duration = Duration::from_secs(32);

/// What a request needs to be built again for the same hop: CANCEL and the ACK of a refusal go where the INVITE went.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) uri: Vec<u8>,
    pub(super) routes: Vec<Vec<u8>>,
}

/// What a client transaction wants at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    Idle,
    Resend,
    Expired,
}

/// A client transaction.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) invite: bool,
    pub(super) cseq: u32,
    pub(super) branch: String,
    pub(super) target: Target,
    pub(super) bytes: Vec<u8>,
    pub(super) proceeding: bool,
    next: Option<Time>,
    interval: Duration,
    until: Time,
}

impl Client {
    pub(super) fn new(invite: bool, cseq: u32, branch: String, target: Target, bytes: Vec<u8>, now: Time) -> Self {
        Self {
            invite,
            cseq,
            branch,
            target,
            bytes,
            proceeding: false,
            next: Some(now + T1),
            interval: T1,
            until: now + LIFE,
        }
    }

    pub(super) fn deadline(&self) -> Time {
        self.next.map_or(self.until, |n| n.min(self.until))
    }

    /// A 1xx came: an INVITE is no longer resent (section 17.1.1.2) and gets a fresh cap; anything else goes on at T2.
    pub(super) fn provisional(&mut self, now: Time) {
        if self.invite {
            if !self.proceeding {
                self.until = now + LIFE;
            }
            self.next = None;
        } else {
            self.interval = T2;
        }
        self.proceeding = true;
    }

    pub(super) fn on_time(&mut self, now: Time) -> Tick {
        if now >= self.until {
            return Tick::Expired;
        }
        match self.next {
            Some(next) if now >= next => {
                // Timer A doubles without a limit, Timer E up to T2.
                self.interval = if self.invite { self.interval * 2 } else { (self.interval * 2).min(T2) };
                self.next = Some(now + self.interval);
                Tick::Resend
            }
            _ => Tick::Idle,
        }
    }
}

/// What tells a retransmission from a new request (RFC 3261 section 17.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The topmost Via's sent-by and branch.
    pub(super) via: Vec<u8>,
    pub(super) cseq: u32,
    pub(super) method: Vec<u8>,
}

/// A request of a phone and our answer to it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) key: Key,
    /// The request, until it has a final answer.
    pub(super) request: Vec<u8>,
    /// Where it came from.
    pub(super) heard_from: SocketAddr,
    /// Where its answers go.
    pub(super) source: SocketAddr,
    /// Our own address that it came to: answers leave from there.
    pub(super) at: SocketAddr,
    pub(super) code: u16,
    pub(super) response: Vec<u8>,
    pub(super) until: Time,
    resend: Option<(Time, Duration)>,
}

impl Served {
    pub(super) fn new(
        key: Key,
        request: Vec<u8>,
        heard_from: SocketAddr,
        source: SocketAddr,
        at: SocketAddr,
        now: Time,
    ) -> Self {
        // A relayed INVITE may take the other phone's whole transaction; then the answer's own life begins.
        Self {
            key,
            request,
            heard_from,
            source,
            at,
            code: 0,
            response: Vec::new(),
            until: now + LIFE * 4,
            resend: None,
        }
    }

    pub(super) fn is_invite(&self) -> bool {
        self.key.method == b"INVITE"
    }

    pub(super) const fn is_final(&self) -> bool {
        self.code >= 200
    }

    /// A final answer to an INVITE still waits for its ACK.
    pub(super) const fn unacknowledged(&self) -> bool {
        self.resend.is_some()
    }

    pub(super) fn answered(&mut self, code: u16, response: Vec<u8>, now: Time) {
        (self.code, self.response) = (code, response);
        if code >= 200 {
            self.request = Vec::new();
            self.until = now + LIFE;
            // RFC 3261 sections 13.3.1.4 and 17.2.1: both kinds of final answer are resent until ACK.
            self.resend = self.is_invite().then_some((now + T1, T1));
        }
    }

    pub(super) const fn acknowledged(&mut self) {
        self.resend = None;
    }

    pub(super) fn deadline(&self) -> Time {
        self.resend.map_or(self.until, |(at, _)| at.min(self.until))
    }

    pub(super) fn on_time(&mut self, now: Time) -> Tick {
        if now >= self.until {
            return Tick::Expired;
        }
        match self.resend {
            Some((at, interval)) if now >= at => {
                let interval = (interval * 2).min(T2);
                self.resend = Some((now + interval, interval));
                Tick::Resend
            }
            _ => Tick::Idle,
        }
    }
}

/// An INVITE of ours that has had its final answer (or was given up), kept so that each retransmitted answer is ACKed.
#[derive(Clone, Debug)]
pub(super) struct Acked {
    pub(super) branch: String,
    pub(super) cseq: u32,
    pub(super) target: Target,
    /// Whether the answer was a 2xx; `None` if we gave up before one came.
    pub(super) success: Option<bool>,
    pub(super) ack: Vec<u8>,
    pub(super) until: Time,
}
