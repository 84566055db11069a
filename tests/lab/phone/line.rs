//! A phone at work: transactions, timers, one call, and its audio.

#[cfg(test)]
mod tests;

use super::audio::{Ear, Heard, Mouth};
use super::dialog::{COOKIE, Dialog, answer_route, request_faults};
use super::message::{Message, Start, Writer, param, uri_of};
use super::sdp::{Own, answer_to};
use super::{Command, Identity, Phase, Reaction, Reinvite, Shared, State};
use crate::lab::unix_us;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// RFC 3261's T1 and T2, and 64 × T1, after which a transaction has failed.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const T64: Duration = Duration::from_secs(32);
/// Answers kept for retransmitted requests; a phone has one call, so a few are many.
const ANSWERS: usize = 32;
/// Entries kept in each list of a report; an hour of audio, and more faults than anyone reads.
const MAX_ARRIVALS: usize = 200_000;
const MAX_FAULTS: usize = 50;

/// A message that is sent again until something stops it.
struct Repeat {
    bytes: Vec<u8>,
    to: SocketAddr,
    at: Instant,
    pause: Duration,
    give_up: Instant,
}

impl Repeat {
    fn new(bytes: Vec<u8>, to: SocketAddr) -> Self {
        let now = Instant::now();
        Self { bytes, to, at: now + T1, pause: T1, give_up: now + T64 }
    }
}

/// The own request that waits for its final answer.
struct Client {
    method: String,
    branch: String,
    cseq: u32,
    repeat: Repeat,
    /// A provisional answer stops the repeats of an INVITE.
    quiet: bool,
    initial: bool,
}

/// The 2xx that waits for its ACK.
struct Server {
    repeat: Repeat,
    cseq: u32,
    branch: String,
    initial: bool,
    /// The INVITE had no SDP, so the ACK brings the answer.
    late_offer: bool,
}

pub(crate) struct Line {
    me: Identity,
    sip: UdpSocket,
    rtp: UdpSocket,
    shared: Shared,
    dialog: Option<Dialog>,
    client: Option<Client>,
    server: Option<Server>,
    /// Branch, method, bytes and destination of the answers given.
    answers: VecDeque<(String, String, Vec<u8>, SocketAddr)>,
    /// The ACK of the last 2xx: sent again for each repeat of the 2xx.
    ack: Option<(u32, Vec<u8>, SocketAddr)>,
    mouth: Mouth,
    ear: Ear,
}

/// A token that no other has: unlike random, it shows in a trace which message came first.
fn token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:x}k{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Line {
    pub(crate) fn new(me: Identity, sip: UdpSocket, rtp: UdpSocket, shared: Shared) -> Self {
        let ssrc = u32::from(me.rtp.port()) << 8 | u32::from(me.sip.port() & 0xff);
        let (mouth, ear) = (Mouth::new(me.tones.0, ssrc), Ear::new(me.tones.1));
        Self { me, sip, rtp, shared, dialog: None, client: None, server: None, answers: VecDeque::new(), ack: None, mouth, ear }
    }

    /// Works until the phone is dropped.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let (mut sip_buf, mut rtp_buf) = (vec![0; 65_536], vec![0; 2048]);
        let mut tick = interval(Duration::from_millis(20));
        // A late tick is made up for, so that the RTP clock keeps to the wall's.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            let next = self.next_timer();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(c) => self.obey(c).await,
                    None => return,
                },
                // Errors of a UDP socket are of one datagram (ICMP unreachable): the timers see to the rest.
                r = self.sip.recv_from(&mut sip_buf) => if let Ok((n, from)) = r {
                    self.hear_sip(&sip_buf[..n], from).await;
                },
                r = self.rtp.recv_from(&mut rtp_buf) => if let Ok((n, from)) = r {
                    self.hear_rtp(&rtp_buf[..n], from);
                },
                _ = tick.tick() => self.speak().await,
                () = sleep_until(next) => self.on_timer().await,
            }
        }
    }

    fn note<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn violations(&self, faults: Vec<String>) {
        self.note(|s| {
            for f in faults {
                if s.violations.len() < MAX_FAULTS {
                    s.violations.push(format!("{}: {f}", self.me.number));
                }
            }
        });
    }

    fn contact(&self) -> String {
        self.me.contact()
    }

    fn via(&self) -> (String, String) {
        let branch = format!("{COOKIE}{}", token());
        (format!("SIP/2.0/UDP {};branch={branch}", self.me.sip), branch)
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) {
        // A host without the address of the server refuses here; the repeats carry on.
        let _ = self.sip.send_to(bytes, to).await;
    }

    // ---- what it is told ----

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Call(number) => self.call(&number).await,
            Command::Hangup => self.start("BYE", None).await,
            Command::Hold | Command::Resume => {
                let direction = if matches!(command, Command::Hold) { "sendonly" } else { "sendrecv" };
                let Some(d) = &mut self.dialog else { return };
                d.own.set_direction(direction);
                let text = d.own.text();
                self.start("INVITE", Some(text)).await;
            }
            Command::Refresh => {
                let Some(d) = &mut self.dialog else { return };
                d.timed = true;
                let text = d.own.text();
                self.start("INVITE", Some(text)).await;
            }
            Command::Update => self.start("UPDATE", None).await,
            Command::Behave(manner) => self.me.manner = manner,
        }
    }

    async fn call(&mut self, number: &str) {
        let own = Own::new(u64::from(self.me.rtp.port()) + 1000, self.me.rtp);
        let host = match self.me.server.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let uri = format!("sip:{number}@{host}");
        let local = format!("{};tag={}", self.me.from(), token());
        let d = Dialog {
            call_id: format!("{}@{}", token(), self.me.sip.ip()),
            local,
            remote: format!("<{uri}>"),
            target: uri,
            routes: Vec::new(),
            local_cseq: 100,
            remote_cseq: None,
            sdp: None,
            own,
            recorded: false,
            timed: false,
        };
        let (via, branch) = self.via();
        let bytes = d.request("INVITE", d.local_cseq, &via, &self.contact(), Some(&d.own.text()));
        let cseq = d.local_cseq;
        self.dialog = Some(d);
        self.note(|s| s.phase = Phase::Calling);
        self.send(&bytes, self.me.server).await;
        let repeat = Repeat::new(bytes, self.me.server);
        self.client = Some(Client { method: "INVITE".into(), branch, cseq, repeat, quiet: false, initial: true });
    }

    /// Sends a request within the dialog.
    async fn start(&mut self, method: &str, sdp: Option<String>) {
        let (via, branch) = self.via();
        let contact = self.contact();
        let Some(d) = &mut self.dialog else { return };
        d.local_cseq += 1;
        let cseq = d.local_cseq;
        let bytes = d.request(method, cseq, &via, &contact, sdp.as_deref());
        let hop = if self.me.manner.outbound_proxy { Some(self.me.server) } else { d.next_hop() };
        let Some(to) = hop else { return };
        self.send(&bytes, to).await;
        let repeat = Repeat::new(bytes, to);
        self.client = Some(Client { method: method.into(), branch, cseq, repeat, quiet: false, initial: false });
    }

    // ---- timers ----

    fn next_timer(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let c = self.client.as_ref().map(|c| if c.quiet { c.repeat.give_up } else { c.repeat.at.min(c.repeat.give_up) });
        let s = self.server.as_ref().map(|s| s.repeat.at.min(s.repeat.give_up));
        [c, s].into_iter().flatten().min().unwrap_or(far)
    }

    async fn on_timer(&mut self) {
        let now = Instant::now();
        if let Some(c) = &mut self.client {
            if now >= c.repeat.give_up {
                let (method, initial) = (c.method.clone(), c.initial);
                self.client = None;
                self.violations(vec![format!("{method} had no final answer for 32 s")]);
                if initial {
                    self.note(|s| s.phase = Phase::Failed(408));
                }
            } else if now >= c.repeat.at && !c.quiet {
                c.repeat.pause = if c.method == "INVITE" { c.repeat.pause * 2 } else { (c.repeat.pause * 2).min(T2) };
                c.repeat.at = now + c.repeat.pause;
                let (bytes, to) = (c.repeat.bytes.clone(), c.repeat.to);
                self.send(&bytes, to).await;
            }
        }
        if let Some(s) = &mut self.server {
            if now >= s.repeat.give_up {
                let cseq = s.cseq;
                self.server = None;
                self.violations(vec![format!("no ACK for the 200 to INVITE {cseq} for 32 s")]);
            } else if now >= s.repeat.at {
                s.repeat.pause = (s.repeat.pause * 2).min(T2);
                s.repeat.at = now + s.repeat.pause;
                let (bytes, to) = (s.repeat.bytes.clone(), s.repeat.to);
                self.send(&bytes, to).await;
            }
        }
    }

    // ---- SIP that comes in ----

    async fn hear_sip(&mut self, bytes: &[u8], from: SocketAddr) {
        if self.me.manner.reinvite == Reaction::Deaf {
            return;
        }
        match Message::parse(bytes) {
            Ok(m) if matches!(m.start, Start::Request(..)) => self.hear_request(m, from).await,
            Ok(m) => self.hear_response(m).await,
            Err(e) => self.violations(vec![format!("unreadable SIP from {from}: {e}")]),
        }
    }

    async fn hear_response(&mut self, m: Message) {
        let Start::Response(code, _) = m.start else { return };
        let (Ok((cseq, method)), Some(branch)) = (m.cseq(), m.branch()) else { return };
        // A repeat of a 2xx that was acknowledged.
        if method == "INVITE"
            && (200..300).contains(&code)
            && let Some((n, bytes, to)) = &self.ack
            && *n == cseq
        {
            return self.send(bytes, *to).await;
        }
        let Some(c) = self.client.take_if(|c| c.branch == branch && c.method == method) else { return };
        let mut faults = Vec::new();
        if c.cseq != cseq {
            faults.push(format!("{code} to {method}: CSeq {cseq} answers {}", c.cseq));
        }
        let Some(d) = &mut self.dialog else { return };
        if m.call_id() != d.call_id || m.get("from") != Some(&d.local) {
            faults.push(format!("{code} to {method}: Call-ID or From differ from the request's"));
        }
        let to = m.get("to").unwrap_or_default();
        match (param(&d.remote, "tag"), param(to, "tag")) {
            (Some(known), tag) if tag.as_ref() != Some(&known) => {
                faults.push(format!("{code} to {method}: To tag {tag:?}, the dialog has {known}"))
            }
            (None, None) if code > 100 => faults.push(format!("{code} to {method}: no To tag")),
            _ => {}
        }
        if code < 200 {
            self.client = Some(Client { quiet: c.quiet || method == "INVITE", ..c });
            return self.violations(faults);
        }
        if method == "INVITE" && code < 300 {
            faults.extend(self.accepted(&m, c.initial, cseq).await);
        } else if method == "INVITE" {
            // RFC 3261 17.1.1.3: same branch, same CSeq number, the To of the response.
            let (target, routes) = if c.initial { (uri_of(&d.remote), Vec::new()) } else { (d.target.clone(), d.routes.clone()) };
            let mut w = Writer::request("ACK", &target);
            w.header("Via", &format!("SIP/2.0/UDP {};branch={branch}", self.me.sip));
            w.header("Max-Forwards", "70");
            for r in &routes {
                w.header("Route", r);
            }
            w.header("From", &d.local);
            w.header("To", to);
            w.header("Call-ID", &d.call_id);
            w.header("CSeq", &format!("{cseq} ACK"));
            let bytes = w.end(None);
            self.send(&bytes, c.repeat.to).await;
        }
        self.violations(faults);
        let now = unix_us();
        self.note(|s| match (method.as_str(), c.initial) {
            ("INVITE", true) => s.phase = if code < 300 { Phase::Up } else { Phase::Failed(code) },
            ("INVITE", false) => s.own_reinvites.push((code, now)),
            ("UPDATE", _) => s.own_updates.push((code, now)),
            ("BYE", _) => {
                s.bye_answered = Some((code, now));
                s.phase = Phase::Ended;
            }
            _ => {}
        });
        // RFC 3261 12.2.1.2: a dialog that the other side does not know is over.
        if method != "BYE" && code == 481 {
            self.note(|s| s.phase = Phase::Failed(481));
        }
        if method == "BYE" || code == 481 {
            self.dialog = None;
        }
    }

    /// A 2xx to an INVITE: takes what it says and acknowledges it.
    async fn accepted(&mut self, m: &Message, initial: bool, cseq: u32) -> Vec<String> {
        let (via, _) = self.via();
        let contact = self.contact();
        let Some(d) = &mut self.dialog else { return Vec::new() };
        let mut faults = Vec::new();
        if initial {
            d.remote = m.get("to").unwrap_or_default().to_owned();
            d.routes = m.list("record-route");
            d.routes.reverse();
            d.recorded = !d.routes.is_empty();
        }
        match &m.list("contact")[..] {
            [one] => d.target = uri_of(one),
            other => faults.push(format!("200 to INVITE: Contact is {other:?}, not one URI")),
        }
        if m.body.is_empty() {
            faults.push("200 to INVITE: no SDP answer".into());
        } else {
            faults.extend(d.take_sdp(&m.body));
        }
        let bytes = d.request("ACK", cseq, &via, &contact, None);
        let hop = d.next_hop();
        let direction = d.sdp.as_ref().map(|s| s.direction.clone()).unwrap_or_default();
        self.note(|s| s.remote_direction = direction);
        if let Some(to) = hop {
            self.send(&bytes, to).await;
            self.ack = Some((cseq, bytes, to));
        }
        faults
    }

    async fn hear_request(&mut self, m: Message, from: SocketAddr) {
        let (method, branch) = (m.method(), m.branch().unwrap_or_default());
        if method == "ACK" {
            return self.hear_ack(&m);
        }
        if let Some((.., bytes, to)) = self.answers.iter().find(|(b, n, ..)| *b == branch && *n == method) {
            return self.send(bytes, *to).await;
        }
        let in_dialog = m.get("to").and_then(|t| param(t, "tag")).is_some();
        let Some(d) = self.dialog.as_mut().filter(|d| in_dialog && d.is_named_by(&m)) else {
            return self.out_of_dialog(m, from, in_dialog).await;
        };
        let contact = self.me.contact_uri();
        let (mut faults, notes) = d.check_request(&m, &contact);
        let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
        let stale = d.remote_cseq.is_some_and(|last| cseq <= last);
        d.remote_cseq = Some(d.remote_cseq.unwrap_or(0).max(cseq));
        let busy_client = self.client.as_ref().is_some_and(|c| c.method == "INVITE");
        let refusal = match &mut self.me.manner.reinvite {
            Reaction::Glare(n) if *n > 0 && method == "INVITE" => {
                *n -= 1;
                Some(491)
            }
            Reaction::Refuse(code) => Some(*code),
            _ => None,
        };
        let (code, reason, sdp) = match method.as_str() {
            // RFC 3261 12.2.2 and 14.2.
            _ if stale => (500, "CSeq too low", None),
            "INVITE" if busy_client => (491, "Request Pending", None),
            "INVITE" if refusal.is_some() => (refusal.unwrap_or_default(), "No", None),
            "INVITE" if self.server.is_some() => (500, "Previous INVITE not acknowledged", None),
            "INVITE" | "UPDATE" => {
                if let Some(c) = m.list("contact").first() {
                    d.target = uri_of(c);
                }
                if m.body.is_empty() {
                    (200, "OK", (method == "INVITE").then(|| d.own.text()))
                } else {
                    faults.extend(d.take_sdp(&m.body));
                    let direction = d.sdp.as_ref().map_or("sendrecv", |s| answer_to(&s.direction));
                    d.own.set_direction(direction);
                    (200, "OK", Some(d.own.text()))
                }
            }
            "BYE" | "OPTIONS" | "INFO" | "NOTIFY" | "MESSAGE" => (200, "OK", None),
            _ => (501, "Not Implemented", None),
        };
        let direction = d.sdp.as_ref().map(|s| s.direction.clone()).unwrap_or_default();
        let now = unix_us();
        self.violations(faults);
        self.note(|s| {
            s.remote_direction = direction;
            s.notes.extend(notes.into_iter().take(MAX_FAULTS));
            match method.as_str() {
                "INVITE" => s.reinvites.push(Reinvite { at: now, code, acked_at: None }),
                "BYE" if code == 200 => {
                    s.bye_received = Some(now);
                    s.phase = Phase::Ended;
                }
                _ => {}
            }
        });
        if (method == "BYE" && code == 200) || code == 481 {
            self.dialog = None;
            self.server = None;
        }
        self.answer(&m, from, (code, reason), None, sdp.as_deref(), false).await;
    }

    async fn out_of_dialog(&mut self, m: Message, from: SocketAddr, in_dialog: bool) {
        match m.method().as_str() {
            "INVITE" if !in_dialog && self.dialog.is_none() => self.ring(m, from).await,
            "INVITE" if !in_dialog => self.answer(&m, from, (486, "Busy Here"), Some(&token()), None, false).await,
            "OPTIONS" if !in_dialog => self.answer(&m, from, (200, "OK"), Some(&token()), None, false).await,
            method => {
                // Not a fault by itself: a BYE may cross the other side's. The checks of the run count what matters.
                self.note(|s| s.notes.push(format!("{}: {method} outside of any dialog from {from}", self.me.number)));
                let (code, reason) = (481, "Call/Transaction Does Not Exist");
                self.answer(&m, from, (code, reason), Some(&token()), None, false).await;
            }
        }
    }

    /// A call for this phone: it rings, and answers at once.
    async fn ring(&mut self, m: Message, from: SocketAddr) {
        self.violations(request_faults(&m));
        let tag = token();
        let own = Own::new(u64::from(self.me.rtp.port()) + 2000, self.me.rtp);
        let mut routes = m.list("record-route");
        // RFC 3261 12.1.1: the called side keeps the order.
        let recorded = !routes.is_empty();
        routes.retain(|r| !r.is_empty());
        let mut d = Dialog {
            call_id: m.call_id().to_owned(),
            local: format!("{};tag={tag}", m.get("to").unwrap_or_default()),
            remote: m.get("from").unwrap_or_default().to_owned(),
            target: m.list("contact").first().map(|c| uri_of(c)).unwrap_or_default(),
            routes,
            local_cseq: 500,
            remote_cseq: m.cseq().ok().map(|c| c.0),
            sdp: None,
            own,
            recorded,
            timed: false,
        };
        let faults = if m.body.is_empty() { vec!["INVITE without SDP".to_owned()] } else { d.take_sdp(&m.body) };
        self.violations(faults);
        let text = d.own.text();
        self.dialog = Some(d);
        self.note(|s| s.phase = Phase::Calling);
        self.answer(&m, from, (180, "Ringing"), Some(&tag), None, true).await;
        self.answer(&m, from, (200, "OK"), Some(&tag), Some(&text), true).await;
    }

    async fn answer(
        &mut self,
        m: &Message,
        from: SocketAddr,
        (code, reason): (u16, &str),
        tag: Option<&str>,
        sdp: Option<&str>,
        initial: bool,
    ) {
        let Some((via, to)) = answer_route(m, from) else {
            return self.violations(vec![format!("{}: unusable Via {:?}", m.method(), m.list("via"))]);
        };
        let to = if self.me.manner.answer_to_source { from } else { to };
        let mut w = Writer::response(m, code, reason, &via, tag);
        let (method, branch) = (m.method(), m.branch().unwrap_or_default());
        if method == "INVITE" && code < 300 {
            w.header("Contact", &self.contact());
            w.header("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO");
        }
        let bytes = w.end(sdp);
        self.send(&bytes, to).await;
        self.answers.retain(|(b, n, ..)| *b != branch || *n != method);
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back((branch.clone(), method.clone(), bytes.clone(), to));
        if method == "INVITE" && (200..300).contains(&code) {
            let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
            let late_offer = m.body.is_empty();
            self.server = Some(Server { repeat: Repeat::new(bytes, to), cseq, branch, initial, late_offer });
        }
    }

    fn hear_ack(&mut self, m: &Message) {
        let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
        // The ACK of a refusal, or a repeat.
        let Some(s) = self.server.take_if(|s| s.cseq == cseq) else { return };
        let mut faults = Vec::new();
        if let Some(d) = &mut self.dialog {
            if !d.is_named_by(m) {
                faults.push("ACK: Call-ID or tags are not the dialog's".to_owned());
            }
            if s.late_offer && m.body.is_empty() {
                faults.push("ACK: no SDP answer to the offer in the 200".to_owned());
            } else if s.late_offer {
                faults.extend(d.take_sdp(&m.body));
            }
        }
        // RFC 3261 13.2.2.4 and 17.1.1.3: the ACK of a 2xx is a transaction of its own.
        if m.branch().as_deref() == Some(s.branch.as_str()) {
            faults.push("ACK: it has the Via branch of the INVITE, but acknowledges a 2xx".to_owned());
        }
        self.violations(faults);
        let now = unix_us();
        self.note(|st| {
            if s.initial {
                st.phase = Phase::Up;
            } else if let Some(r) = st.reinvites.last_mut() {
                r.acked_at = Some(now);
            }
        });
    }

    // ---- audio ----

    async fn speak(&mut self) {
        let Some(d) = &self.dialog else { return };
        let Some(remote) = &d.sdp else { return };
        let wanted = remote.direction == "sendrecv" || remote.direction == "recvonly";
        if let Some(to) = remote.audio.filter(|_| wanted && d.own.sends()) {
            let packet = self.mouth.packet();
            let _ = self.me.voice.as_deref().unwrap_or(&self.rtp).send_to(&packet, to).await;
        }
    }

    fn hear_rtp(&mut self, packet: &[u8], from: SocketAddr) {
        let agreed = self.dialog.as_ref().and_then(|d| d.sdp.as_ref()).and_then(|s| s.audio);
        // Audio may overtake the answer that says where it comes from, and outlive the BYE by a moment.
        let Some(agreed) = agreed else { return };
        if agreed != from {
            return self.note(|s| {
                if s.foreign.len() < MAX_FAULTS {
                    s.foreign.push((unix_us(), from, agreed));
                }
            });
        }
        let heard = self.ear.hear(packet);
        let now = unix_us();
        let number = &self.me.number;
        self.note(|s| {
            if s.arrivals.len() < MAX_ARRIVALS {
                s.arrivals.push(now);
            }
            match heard {
                Ok(Heard::More) => {}
                Ok(Heard::Right) => {
                    s.right.push(now);
                    s.wrong_in_a_row = 0;
                }
                Ok(Heard::Wrong) => {
                    s.wrong += 1;
                    s.wrong_in_a_row += 1;
                    // One may be a packet that was lost before a server that numbers its packets anew.
                    if s.wrong_in_a_row == 2 && s.violations.len() < MAX_FAULTS {
                        s.violations.push(format!("{number}: two seconds of audio that are not the other party's"));
                    }
                }
                Err(e) => {
                    if s.violations.len() < MAX_FAULTS {
                        s.violations.push(format!("{number}: {e}"));
                    }
                }
            }
        });
    }
}
