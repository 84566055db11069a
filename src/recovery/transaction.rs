//! Transactions over UDP (RFC 3261 section 17) as values: when to resend, and when to give up.

use crate::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// Round-trip estimate (RFC 3261 section 17.1.1.1).
pub(super) const T1: Duration = Duration::from_millis(500);
/// Longest interval between retransmissions of a non-INVITE request or of an INVITE's final response.
pub(super) const T2: Duration = Duration::from_secs(4);
/// 64*T1: Timers B, F and H. Also the lifetime of stored responses (Timer J), and our cap on Timer C.
pub(super) const LIFE: Duration = Duration::from_secs(32);

/// Request URI and routes, kept because CANCEL and the ACK of a refusal must go the same way as the INVITE.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) uri: Vec<u8>,
    pub(super) routes: Vec<Vec<u8>>,
}

/// What to do at a client transaction's deadline.
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

    /// A 1xx arrived. An INVITE stops resending (section 17.1.1.2) and gets a fresh cap. Any other request continues at
    /// T2.
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

/// Distinguishes a retransmission from a new request (RFC 3261 section 17.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Sent-by and branch of the topmost Via.
    pub(super) via: Vec<u8>,
    pub(super) cseq: u32,
    pub(super) method: Vec<u8>,
}

/// A phone's request and our response to it.
#[derive(Clone, Debug)]
pub(super) struct ServedRequest {
    pub(super) key: Key,
    /// The request, kept until its final response.
    pub(super) request: Vec<u8>,
    /// Source address of the request.
    pub(super) heard_from: SocketAddr,
    /// Destination of the responses.
    pub(super) source: SocketAddr,
    /// Our address that received the request. Responses leave from it.
    pub(super) at: SocketAddr,
    pub(super) code: u16,
    pub(super) response: Vec<u8>,
    pub(super) until: Time,
    resend: Option<(Time, Duration)>,
}

impl ServedRequest {
    pub(super) fn new(
        key: Key,
        request: Vec<u8>,
        heard_from: SocketAddr,
        source: SocketAddr,
        at: SocketAddr,
        now: Time,
    ) -> Self {
        // A relayed INVITE may last as long as the other phone's whole transaction. After that the response has its own
        // lifetime.
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

    /// A final response to an INVITE still waits for its ACK.
    pub(super) const fn unacknowledged(&self) -> bool {
        self.resend.is_some()
    }

    pub(super) fn answered(&mut self, code: u16, response: Vec<u8>, now: Time) {
        (self.code, self.response) = (code, response);
        if code >= 200 {
            self.request = Vec::new();
            self.until = now + LIFE;
            // RFC 3261 sections 13.3.1.4 and 17.2.1: a final response to INVITE is resent until ACK, 2xx or not.
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

/// Our INVITE after its final response (or after we gave it up), kept to ACK every retransmitted response.
#[derive(Clone, Debug)]
pub(super) struct AckedInvite {
    pub(super) branch: String,
    pub(super) cseq: u32,
    pub(super) target: Target,
    /// Whether the response was a 2xx. `None` if we gave up before a response came.
    pub(super) success: Option<bool>,
    pub(super) ack: Vec<u8>,
    pub(super) until: Time,
    /// What was offered, while no final response has come.
    pub(super) given_up: Option<GivenUp>,
}

/// Our offer in the answer to a phone's INVITE without one.
#[derive(Clone, Debug)]
pub(super) struct LateOffer {
    /// CSeq of the INVITE. The phone's answer comes in the ACK with this number.
    pub(super) cseq: u32,
    pub(super) offer: Vec<u8>,
}

/// The offer of an INVITE that was given up. The phone may still accept it.
#[derive(Clone, Debug)]
pub(super) struct GivenUp {
    pub(super) offer: Vec<u8>,
    /// It was our own, and not the other phone's.
    pub(super) own: bool,
    /// Number of exchanges completed in the dialog by then.
    pub(super) exchanges: u64,
}
