//! Traffic of a server with many calls, made in memory: everything that a B2BUA and its phones, trunks and
//! registrations put on the wire.
//!
//! A call has two legs. Two of three calls come from a phone that the server challenges first, one from a trunk whose
//! proxies record-route. Half of the calls have the words of Asterisk, half those of FreeSWITCH. A re-INVITE refreshes
//! each call. Three messages of ten are registrations and qualifications, outside of calls.

use super::words::{By, Dialog, Kind, options, register};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// From the first INVITE to the answer.
pub(crate) const RINGING: Duration = Duration::from_secs(2);
/// Messages of ten that belong to no call.
const NOISE_OF_TEN: usize = 3;
/// Largest message in bytes: what an Ethernet frame holds without fragments.
const LARGEST: usize = 1472;

/// Parameters of the traffic.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Calls in all.
    pub(crate) calls: usize,
    /// Calls that are up at a time, once the first have ended.
    pub(crate) up: usize,
    /// From the answer to the BYE.
    pub(crate) hold: Duration,
    /// Addresses of all parties.
    pub(crate) places: Places,
}

/// Addresses of all parties.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) server: SocketAddr,
    /// Addresses of the callers and of the called parties, and the number of ports of each.
    pub(crate) callers: Vec<IpAddr>,
    pub(crate) called: Vec<IpAddr>,
    pub(crate) ports: u16,
}

/// The first SIP port of phones.
const FIRST_PORT: u16 = 6000;

impl Places {
    /// A LAN with thousands of phones.
    pub(crate) fn wide() -> Self {
        let net = |n: u8| (0..=255).flat_map(|h| (1..=20).map(move |l| IpAddr::from([10, n, h, l]))).collect();
        Self { server: SocketAddr::from(([10, 44, 0, 100], 5060)), callers: net(50), called: net(60), ports: 4 }
    }

    fn at(&self, of: &[IpAddr], n: usize) -> SocketAddr {
        let port = u16::try_from((n / of.len()) % usize::from(self.ports)).unwrap_or(0);
        SocketAddr::new(of[n % of.len()], FIRST_PORT + port)
    }

    pub(crate) fn caller(&self, n: usize) -> SocketAddr {
        self.at(&self.callers, n)
    }

    pub(crate) fn called(&self, n: usize) -> SocketAddr {
        self.at(&self.called, n)
    }
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Time from the start.
    pub(crate) at: Duration,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    begin: usize,
    len: usize,
}

/// Messages in the order of time, all in one piece of memory.
pub(crate) struct Traffic {
    sent: Vec<Sent>,
    text: Vec<u8>,
    pub(crate) calls: usize,
    /// Dialogs of any kind by Call-ID: legs, registrations, qualifications.
    pub(crate) call_ids: usize,
}

impl Traffic {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut book = Book { plan, all: Vec::new() };
        let pace = plan.hold / u32::try_from(plan.up.max(1)).unwrap_or(u32::MAX);
        for n in 0..plan.calls {
            book.call(n, pace * u32::try_from(n).unwrap_or(u32::MAX));
        }
        let end = book.all.iter().map(|(at, ..)| *at).max().unwrap_or_default();
        let wanted = book.all.len() * NOISE_OF_TEN / (10 - NOISE_OF_TEN);
        let talks = wanted / Book::NOISE;
        for n in 0..talks {
            book.noise(n, end.mul_f64((n as f64 + 0.5) / talks as f64));
        }
        let mut all = book.all;
        // Stable: messages of the same time keep their order.
        all.sort_by_key(|(at, ..)| *at);
        let (mut sent, mut text) =
            (Vec::with_capacity(all.len()), Vec::with_capacity(all.iter().map(|m| m.3.len()).sum()));
        for (at, src, dst, bytes) in all {
            debug_assert!(bytes.len() <= LARGEST, "{bytes}");
            sent.push(Sent { at, src, dst, begin: text.len(), len: bytes.len() });
            text.extend_from_slice(bytes.as_bytes());
        }
        Self { sent, text, calls: plan.calls, call_ids: 2 * plan.calls + 2 * talks }
    }

    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of all messages.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Each message with its bytes, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Sent, &[u8])> {
        self.sent.iter().map(|s| (s, &self.text[s.begin..s.begin + s.len]))
    }
}

struct Book<'p> {
    plan: &'p Plan,
    all: Vec<(Duration, SocketAddr, SocketAddr, String)>,
}

impl Book<'_> {
    /// Messages of one call of [`Book::noise`].
    const NOISE: usize = 6;

    fn say(&mut self, at: Duration, dialog: &Dialog, (by, text): (By, String)) {
        self.tell(at, dialog.phone, by, text);
    }

    fn tell(&mut self, at: Duration, phone: SocketAddr, by: By, text: String) {
        let (src, dst) =
            if by == By::Phone { (phone, self.plan.places.server) } else { (self.plan.places.server, phone) };
        self.all.push((at, src, dst, text));
    }

    fn call(&mut self, n: usize, start: Duration) {
        use By::{Phone, Server};
        let places = &self.plan.places;
        let from_trunk = n % 3 == 2;
        let a =
            Dialog::new(n, false, if from_trunk { Kind::Trunk } else { Kind::Phone }, places.caller(n), places.server);
        let b = Dialog::new(n, true, Kind::Phone, places.called(n), places.server);
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let mut cseq = 1;
        if !from_trunk {
            self.say(ms(0), &a, a.request(Phone, "INVITE", cseq, "", true));
            self.say(ms(1), &a, a.refused(401, cseq));
            self.say(ms(9), &a, a.ack_of_refusal(cseq));
            cseq = 2;
        }
        let credentials = if from_trunk { String::new() } else { a.credentials("INVITE") };
        self.say(ms(10), &a, a.request(Phone, "INVITE", cseq, &credentials, true));
        self.say(ms(11), &a, a.response(Server, 100, "INVITE", cseq, false));
        self.say(ms(14), &b, b.request(Server, "INVITE", 1, "", true));
        self.say(ms(20), &b, b.response(Phone, 100, "INVITE", 1, false));
        self.say(ms(90), &b, b.response(Phone, 180, "INVITE", 1, false));
        self.say(ms(91), &a, a.response(Server, 180, "INVITE", cseq, false));
        let up = start + RINGING;
        let later = |ms: u64| up + Duration::from_millis(ms);
        self.say(up, &b, b.response(Phone, 200, "INVITE", 1, true));
        self.say(later(1), &b, b.within(Server, "ACK", 1, "", false));
        self.say(later(2), &a, a.response(Server, 200, "INVITE", cseq, true));
        self.say(later(12), &a, a.within(Phone, "ACK", cseq, "", false));
        let refresh = up + self.plan.hold / 2;
        let then = |ms: u64| refresh + Duration::from_millis(ms);
        self.say(then(0), &b, b.within(Server, "INVITE", 2, "", true));
        self.say(then(4), &b, b.response(Phone, 100, "INVITE", 2, false));
        self.say(then(9), &b, b.response(Phone, 200, "INVITE", 2, true));
        self.say(then(10), &b, b.within(Server, "ACK", 2, "", false));
        let end = up + self.plan.hold;
        let last = |ms: u64| end + Duration::from_millis(ms);
        self.say(last(0), &a, a.within(Phone, "BYE", cseq + 1, "", false));
        self.say(last(1), &a, a.response(Server, 200, "BYE", cseq + 1, false));
        self.say(last(2), &b, b.within(Server, "BYE", 3, "", false));
        self.say(last(12), &b, b.response(Phone, 200, "BYE", 3, false));
    }

    /// A phone registers after a challenge, and the server qualifies the phone.
    fn noise(&mut self, n: usize, start: Duration) {
        let phone = self.plan.places.called(n);
        let server = self.plan.places.server;
        for (i, (by, text)) in register(n, phone, server).into_iter().chain(options(n, phone, server)).enumerate() {
            self.tell(start + Duration::from_millis(5) * u32::try_from(i).unwrap_or(0), phone, by, text);
        }
    }
}

#[cfg(test)]
mod tests;
