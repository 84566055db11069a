//! A phone that fails the test at any mistake.

use crate::calls::model::{Direction, Leg, LegState, Sdp as Description, SessionTimer};
use crate::recovery::transaction::{T1, T2};
use crate::sip::Transport;
use crate::sip::message::{Message, Method, Name};
use crate::sip::sdp::Sdp;
use crate::sip::uri;
use crate::time::Time;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The phone's response to the next re-INVITE.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Accept,
    Code(u16, &'static str),
    /// A refusal by somebody on the way: the phone itself knows nothing of it.
    Stray(u16),
    /// 180, and a final response only to a CANCEL.
    Ring,
    Nothing,
    /// 2xx without SDP.
    Bare,
    /// Accepts after this many seconds, without a provisional response: the phone is out of reach until then.
    Late(u64),
}

pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) to: SocketAddr,
    pub(super) method: String,
    branch: String,
    next: Time,
    interval: Duration,
    until: Time,
}

struct Given {
    response: Vec<u8>,
    /// When to resend the final response to an INVITE, until ACK.
    resend: Option<(Time, Duration)>,
    cseq: u32,
    ok_invite: bool,
}

pub(super) struct Phone {
    pub(super) addr: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) call_id: String,
    pub(super) me: String,
    pub(super) peer: String,
    pub(super) routes: Vec<String>,
    /// Destination of the phone's requests: the Contact it knows.
    pub(super) target: SocketAddr,
    pub(super) cseq: u32,
    pub(super) peer_cseq: Option<u32>,
    /// The description in force that this phone received.
    pub(super) sdp_seen: String,
    pub(super) sdp: String,
    pub(super) answers: VecDeque<Answer>,
    pub(super) ended: bool,
    pub(super) byes: u32,
    pub(super) accepted: u32,
    pub(super) acked: u32,
    /// Status codes of our requests, by method.
    pub(super) results: Vec<(String, u16, Vec<u8>)>,
    pub(super) got: Vec<String>,
    pub(super) timer: Option<SessionTimer>,
    /// Sends responses to the packet's source instead of Via.
    pub(super) lazy: bool,
    pub(super) late_answer: Option<String>,
    pub(super) max_gap: u32,
    /// Packets arrive in order, so requests must name the newest Contact.
    pub(super) steady: bool,
    /// Repeats its description in its answers.
    pub(super) steady_sdp: bool,
    /// Hears and says nothing.
    pub(super) dead: bool,
    /// Offers that the phone may have missed, so that the version grows by more than one.
    pub(super) missed: u64,
    late: Option<(Time, SocketAddr, Vec<u8>)>,
    sent: Vec<Sent>,
    given: HashMap<String, Given>,
    pub(super) out: Vec<(SocketAddr, Vec<u8>)>,
    serial: u32,
    ringing: Option<(String, Vec<u8>)>,
    pub(super) last_invite: Option<(String, u32)>,
}

pub(super) fn sdp(user: &str, version: u64, addr: &str, port: u16, tail: &str) -> String {
    format!(
        "v=0\r\no={user} 77 {version} IN IP4 {addr}\r\ns=-\r\nc=IN IP4 {addr}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na={tail}\r\n"
    )
}

impl Phone {
    pub(super) fn new(n: u16, call_id: &str, me: &str, peer: &str, server: SocketAddr) -> Self {
        let addr: SocketAddr = format!("10.1.{}.{}:5060", n / 200, n % 200 + 1).parse().unwrap();
        Self {
            addr,
            server,
            call_id: call_id.into(),
            me: me.into(),
            peer: peer.into(),
            routes: Vec::new(),
            target: server,
            cseq: 10,
            peer_cseq: None,
            sdp_seen: sdp("srv", 5, "10.9.0.100", 10_000 + n * 2, "sendrecv"),
            sdp: sdp("ph", 1, &addr.ip().to_string(), 4000, "sendrecv"),
            answers: VecDeque::new(),
            ended: false,
            byes: 0,
            accepted: 0,
            acked: 0,
            results: Vec::new(),
            got: Vec::new(),
            timer: None,
            lazy: false,
            late_answer: None,
            max_gap: 0,
            steady: true,
            steady_sdp: false,
            dead: false,
            missed: 0,
            late: None,
            sent: Vec::new(),
            given: HashMap::new(),
            out: Vec::new(),
            serial: 0,
            ringing: None,
            last_invite: None,
        }
    }

    pub(super) fn leg(&self, direction: Direction) -> Leg {
        let tag = |v: &str| uri::tag_of(v.as_bytes()).unwrap().into();
        Leg {
            call_id: self.call_id.as_str().into(),
            direction,
            state: LegState::Confirmed,
            local: self.peer.as_str().into(),
            remote: self.me.as_str().into(),
            local_tag: tag(&self.peer),
            remote_tag: tag(&self.me),
            local_cseq: self.peer_cseq,
            remote_cseq: Some(self.cseq),
            route_set: self.routes.iter().map(|r| r.as_str().into()).collect(),
            remote_target: self.contact().as_str().into(),
            local_target: format!("sip:srv@{}", self.server).as_str().into(),
            transport: Transport::Udp,
            local_addr: self.server,
            remote_addr: self.addr,
            sdp_sent: Some(Description { body: self.sdp_seen.as_str().into() }),
            sdp_received: Some(Description { body: self.sdp.as_str().into() }),
            rtp_sources: vec![None],
            session_timer: self.timer,
            allow: "INVITE, ACK, BYE, CANCEL, UPDATE".into(),
            supported: "timer".into(),
            partial: false,
            gaps: crate::calls::model::Gaps::default(),
            carried: false,
        }
    }

    fn contact(&self) -> String {
        // A new one after each target refresh.
        format!("sip:u@{};v={}", self.addr, self.accepted)
    }

    pub(super) fn deadline(&self) -> Time {
        let sent = self.sent.iter().map(|s| s.next.min(s.until));
        let given = self.given.values().filter_map(|g| g.resend.map(|(at, _)| at));
        sent.chain(given).chain(self.late.iter().map(|(at, ..)| *at)).min().unwrap_or(Time::FAR)
    }

    /// Whether each final response to an INVITE has its ACK.
    pub(super) fn all_acked(&self) -> bool {
        self.given.values().all(|g| g.resend.is_none())
    }

    pub(super) fn tick(&mut self, now: Time) {
        if let Some((_, from, bytes)) = self.late.take_if(|(at, ..)| now >= *at) {
            self.answers.push_front(Answer::Accept);
            self.asked(from, &Message::parse(&bytes).unwrap(), now);
        }
        let results = &mut self.results;
        self.sent.retain(|s| {
            if now >= s.until {
                results.push((s.method.clone(), 0, Vec::new()));
            }
            now < s.until
        });
        for s in self.sent.iter_mut().filter(|s| now >= s.next) {
            s.interval = (s.interval * 2).min(T2);
            s.next = now + s.interval;
            self.out.push((s.to, s.bytes.clone()));
        }
        for g in self.given.values_mut() {
            if let Some((at, interval)) = &mut g.resend
                && now >= *at
            {
                *interval = (*interval * 2).min(T2);
                *at = now + *interval;
                self.out.push((self.addr, g.response.clone()));
            }
        }
    }

    fn head(&self, method: &str, branch: &str, cseq: u32) -> String {
        format!(
            "{method} sip:srv@{} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContact: <{}>\r\n",
            self.target,
            self.addr,
            self.me,
            self.peer,
            self.call_id,
            self.contact()
        )
    }

    pub(super) fn ask(&mut self, method: &str, extra: &str, body: &str, now: Time) {
        self.cseq += 1;
        self.serial += 1;
        let branch = format!("z9hG4bKph{}-{}", self.addr.ip(), self.serial);
        let kind = match (method, body.is_empty()) {
            (_, true) => "",
            ("INFO", _) => "Content-Type: application/dtmf-relay\r\n",
            _ => "Content-Type: application/sdp\r\n",
        };
        let text = format!(
            "{}{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            self.head(method, &branch, self.cseq),
            body.len()
        );
        if method == "INVITE" {
            self.last_invite = Some((branch.clone(), self.cseq));
        }
        self.out.push((self.target, text.clone().into_bytes()));
        let until = now + Duration::from_secs(32);
        let (bytes, to, method) = (text.into_bytes(), self.target, method.to_owned());
        self.sent.push(Sent { bytes, to, method, branch, next: now + T1, interval: T1, until });
    }

    pub(super) fn cancel(&mut self) {
        let (branch, cseq) = self.last_invite.clone().unwrap();
        let text = format!("{}Content-Length: 0\r\n\r\n", self.head("CANCEL", &branch, cseq));
        self.out.push((self.target, text.into_bytes()));
    }

    /// Handles one datagram from the server or the agent.
    pub(super) fn hear(&mut self, from: SocketAddr, bytes: &[u8], now: Time) {
        if self.dead {
            return;
        }
        let m = Message::parse(bytes).expect("only SIP is sent to phones");
        assert_eq!(m.call_id(), self.call_id.as_bytes());
        assert!(bytes.windows(4).any(|w| w == b"\r\n\r\n"));
        match m.code() {
            Some(code) => self.answered(&m, code, now),
            None => self.asked(from, &m, now),
        }
    }

    fn answered(&mut self, m: &Message<'_>, code: u16, now: Time) {
        let branch = String::from_utf8_lossy(m.branch().unwrap()).into_owned();
        assert_eq!((m.from(), m.to()), (self.me.as_bytes(), self.peer.as_bytes()), "{code}");
        let method = String::from_utf8_lossy(m.cseq().1).into_owned();
        if let Some(at) = self.sent.iter().position(|s| s.branch == branch && s.method == method) {
            if code < 200 {
                self.sent[at].next = now + Duration::from_secs(33);
                return;
            }
            self.sent.remove(at);
            self.results.push((method.clone(), code, m.body().to_vec()));
            if code < 300 && (method == "INVITE" || method == "UPDATE") {
                self.target = port_of(m.contact_uri().expect("Contact in a 2xx"));
                if !m.body().is_empty() {
                    self.check_sdp(m.body());
                }
            }
            if method == "BYE" {
                self.ended = true;
            }
        }
        if method == "INVITE" && code >= 200 {
            let body = if code < 300 { self.late_answer.clone().unwrap_or_default() } else { String::new() };
            let branch = if code < 300 { format!("{branch}ack") } else { branch };
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            let text =
                format!("{}{kind}Content-Length: {}\r\n\r\n{body}", self.head("ACK", &branch, m.cseq().0), body.len());
            self.out.push((self.target, text.into_bytes()));
        }
    }

    /// RFC 3264 section 8.
    fn check_sdp(&mut self, body: &[u8]) {
        let (old, new) = (Sdp::parse(self.sdp_seen.as_bytes()).unwrap(), Sdp::parse(body).unwrap());
        let (o, n) = (old.origin().unwrap(), new.origin().unwrap());
        assert_eq!((o.username, o.id, o.rest), (n.username, n.id, n.rest), "o= must go on");
        if n.version == o.version {
            assert_eq!(self.sdp_seen.as_bytes(), body, "same version, same description");
        } else {
            let most = o.version + 1 + self.missed;
            assert!((o.version + 1..=most).contains(&n.version), "the version grows by one: {}", n.version);
        }
        assert!(old.media().len() <= new.media().len());
        assert_eq!(old.media()[0].kind, new.media()[0].kind);
        self.sdp_seen = String::from_utf8(body.to_vec()).unwrap();
    }

    fn asked(&mut self, from: SocketAddr, m: &Message<'_>, now: Time) {
        let (cseq, method) = (m.cseq().0, String::from_utf8_lossy(m.cseq().1).into_owned());
        assert_eq!(from, self.server, "requests come from the address that the phone knows");
        assert_eq!((m.from(), m.to()), (self.peer.as_bytes(), self.me.as_bytes()));
        assert_eq!(m.header(Name::MaxForwards), Some(&b"70"[..]));
        let routes: Vec<_> = m.headers(Name::Route).map(|r| String::from_utf8_lossy(r).into_owned()).collect();
        assert_eq!(m.headers(Name::RecordRoute).count(), 0);
        assert_eq!(m.values(Name::Via).count(), 1);
        match self.routes.first() {
            Some(first) if !first.contains(";lr") => {
                assert_eq!(m.request_uri().unwrap(), uri::uri_of(first.as_bytes()));
                assert_eq!(routes.last().unwrap(), &format!("<{}>", self.contact()));
            }
            _ => {
                let uri = String::from_utf8_lossy(m.request_uri().unwrap()).into_owned();
                assert!(
                    uri == self.contact() || (!self.steady && uri.starts_with(&format!("sip:u@{};v=", self.addr))),
                    "{uri}"
                );
                assert_eq!(routes, self.routes);
            }
        }
        let branch = String::from_utf8_lossy(m.branch().unwrap()).into_owned();
        assert!(branch.starts_with("z9hG4bK"));
        if m.method() == Method::Ack {
            // A refusal is ACKed in its own transaction, a 2xx in a new one (RFC 3261 sections 17.1.1.3 and 13.2.2.4).
            let own = format!("{branch}/INVITE");
            let found = self.given.iter_mut().find(|(key, g)| g.cseq == cseq && (g.ok_invite || **key == own)).map(
                |(key, g)| {
                    assert!(!g.ok_invite || *key != own, "the ACK of a 2xx has its own branch");
                    g
                },
            );
            let given = found.expect("an ACK answers a final answer of ours");
            if given.resend.take().is_some() && given.ok_invite {
                self.acked += 1;
            }
            return;
        }
        let key = format!("{branch}/{method}");
        let via = m.header(Name::Via).unwrap();
        let reply_to =
            if self.lazy { from } else { port_of(&[b"sip:", via.strip_prefix(b"SIP/2.0/UDP ").unwrap()].concat()) };
        if let Some(given) = self.given.get(&key) {
            self.out.push((reply_to, given.response.clone()));
            return;
        }
        if self.late.as_ref().is_some_and(|(_, _, old)| Message::parse(old).unwrap().branch() == m.branch()) {
            return;
        }
        if method == "CANCEL" {
            self.give(&key, 200, "", cseq, m, reply_to, now, "");
            if let Some((invite, request)) = self.ringing.take() {
                let request = request.clone();
                let m = Message::parse(&request).unwrap();
                self.give(&invite, 487, "", cseq, &m, reply_to, now, "");
            }
            return;
        }
        if self.peer_cseq.is_some_and(|last| cseq <= last) {
            self.give(&key, 500, "", cseq, m, reply_to, now, "");
            return;
        }
        if let Some(last) = self.peer_cseq {
            self.max_gap = self.max_gap.max(cseq - last);
        }
        self.got.push(method.clone());
        if self.ended {
            self.peer_cseq = Some(cseq);
            self.give(&key, if method == "BYE" { 200 } else { 481 }, "", cseq, m, reply_to, now, "");
            return;
        }
        let answer = if method == "INVITE" || method == "UPDATE" { self.answers.pop_front() } else { None };
        if let Some(Answer::Late(seconds)) = answer {
            self.late = Some((now + Duration::from_secs(seconds), from, m.bytes().to_vec()));
            self.got.pop();
            return;
        }
        if !matches!(answer, Some(Answer::Nothing | Answer::Stray(_))) {
            self.peer_cseq = Some(cseq);
        }
        match (method.as_str(), answer.unwrap_or(Answer::Accept)) {
            ("BYE", _) => {
                self.ended = true;
                self.byes += 1;
                self.give(&key, 200, "", cseq, m, reply_to, now, "");
            }
            ("INVITE" | "UPDATE", _) if self.sent.iter().any(|s| s.method == "INVITE") => {
                self.give(&key, 491, "", cseq, m, reply_to, now, "");
            }
            ("INVITE" | "UPDATE", answer @ (Answer::Accept | Answer::Bare)) => {
                let contact = m.contact_uri().expect("target refresh needs Contact");
                assert_eq!(uri::user(contact), Some(&b"srv"[..]));
                self.target = port_of(contact);
                self.check_sdp(m.body());
                if method == "INVITE" {
                    self.accepted += 1;
                }
                let direction = if self.sdp_seen.contains("a=sendonly") { "recvonly" } else { "sendrecv" };
                let version = Sdp::parse(self.sdp.as_bytes()).unwrap().origin().unwrap().version + 1;
                if !self.steady_sdp {
                    self.sdp = sdp("ph", version, &self.addr.ip().to_string(), 4000, direction);
                }
                let body = if matches!(answer, Answer::Bare) { String::new() } else { self.sdp.clone() };
                let timer = m
                    .header(Name::SessionExpires)
                    .map(|v| format!("Session-Expires: {}\r\nRequire: timer\r\n", String::from_utf8_lossy(v)));
                self.give(&key, 200, &body, cseq, m, reply_to, now, &timer.unwrap_or_default());
            }
            ("INVITE", Answer::Code(code, extra)) => {
                let extra = extra.to_owned();
                self.give(&key, code, "", cseq, m, reply_to, now, &extra);
                if code == 481 {
                    self.ended = true;
                }
            }
            ("INVITE" | "UPDATE", Answer::Stray(code)) => self.give(&key, code, "", cseq, m, reply_to, now, ""),
            ("INVITE", Answer::Ring) => {
                let text = self.response(180, m, "", "");
                self.out.push((reply_to, text));
                self.ringing = Some((key, m_bytes(m)));
            }
            ("INVITE" | "UPDATE", Answer::Nothing) => {}
            _ => self.give(&key, 200, "", cseq, m, reply_to, now, ""),
        }
    }

    fn response(&self, code: u16, m: &Message<'_>, extra: &str, body: &str) -> Vec<u8> {
        let via = String::from_utf8_lossy(m.header(Name::Via).unwrap()).into_owned();
        let cseq = m.cseq();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "SIP/2.0 {code} X\r\nVia: {via}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\nContact: <{}>\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            self.peer,
            self.me,
            self.call_id,
            cseq.0,
            String::from_utf8_lossy(cseq.1),
            self.contact(),
            body.len()
        )
        .into_bytes()
    }

    #[allow(clippy::too_many_arguments)]
    fn give(
        &mut self,
        key: &str,
        code: u16,
        body: &str,
        cseq: u32,
        m: &Message<'_>,
        to: SocketAddr,
        now: Time,
        extra: &str,
    ) {
        let response = self.response(code, m, extra, body);
        self.out.push((to, response.clone()));
        let ok_invite = m.method() == Method::Invite && code < 300;
        let resend = (m.method() == Method::Invite).then_some((now + T1, T1));
        self.given.insert(key.to_owned(), Given { response, resend, cseq, ok_invite });
    }
}

fn m_bytes(m: &Message<'_>) -> Vec<u8> {
    // Enough of the request for a response.
    let mut out = b"INVITE sip:x SIP/2.0\r\n".to_vec();
    for (name, value) in m.all().filter(|(n, _)| !n.eq_ignore_ascii_case(b"Content-Length")) {
        out.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    out.extend_from_slice(b"\r\n");
    out
}

pub(super) fn port_of(uri: &[u8]) -> SocketAddr {
    let (host, port) = uri::host_port(uri).unwrap();
    SocketAddr::new(std::str::from_utf8(host).unwrap().parse().unwrap(), port.unwrap_or(5060))
}
