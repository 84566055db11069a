use super::super::message::{Message, Start, param};
use super::super::{Command, Identity, Manner, Phase, Phone};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

/// A server, driven by the test, in a call with a phone on loopback.
struct Peer {
    socket: UdpSocket,
    /// Another socket, for a Contact that moves.
    moved: UdpSocket,
    phone: Phone,
    to: SocketAddr,
    /// The phone's tag, once the phone has sent one.
    tag: Option<String>,
    cseq: u32,
    version: u64,
    branch: u32,
}

impl Peer {
    async fn new(manner: Manner) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let (socket, moved, sip, rtp) =
            (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
        let to = sip.local_addr().unwrap();
        let me = Identity {
            number: "2001".into(),
            sip: to,
            rtp: rtp.local_addr().unwrap(),
            server: socket.local_addr().unwrap(),
            tones: (300.0, 301.0),
            voice: None,
            manner,
        };
        Self { socket, moved, phone: Phone::on(me, sip, rtp), to, tag: None, cseq: 10, version: 7, branch: 0 }
    }

    fn invite(&mut self, contact: SocketAddr) -> String {
        self.cseq += 1;
        self.version += 1;
        let version = self.version;
        let sdp = format!(
            "v=0\r\no=- 7 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=sendrecv\r\n"
        );
        self.request("INVITE", self.cseq, contact, &sdp)
    }

    fn request(&mut self, method: &str, cseq: u32, contact: SocketAddr, sdp: &str) -> String {
        self.branch += 1;
        let tag = self.tag.as_ref().map(|t| format!(";tag={t}")).unwrap_or_default();
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:2001@{} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\nFrom: <sip:1001@h>;tag=peer\r\n\
             To: <sip:2001@h>{tag}\r\nCall-ID: loop\r\nCSeq: {cseq} {method}\r\nContact: <sip:{contact}>\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            self.to,
            self.socket.local_addr().unwrap(),
            self.branch,
            sdp.len()
        )
    }

    async fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.to).await.unwrap();
    }

    /// Sends an INVITE and takes its final answer.
    async fn exchange(&mut self, invite: &str) -> u16 {
        self.send(invite).await;
        loop {
            let m = hear(&self.socket).await;
            self.tag = m.get("to").and_then(|t| param(t, "tag"));
            match m.start {
                Start::Response(code, _) if code >= 200 => return code,
                Start::Response(..) => {}
                Start::Request(..) => panic!("a request: {m:?}"),
            }
        }
    }

    async fn ack(&mut self) {
        let at = self.socket.local_addr().unwrap();
        let ack = self.request("ACK", self.cseq, at, "");
        self.send(&ack).await;
    }

    async fn up() -> Self {
        let mut peer = Self::new(Manner::default()).await;
        let at = peer.socket.local_addr().unwrap();
        let invite = peer.invite(at);
        assert_eq!(peer.exchange(&invite).await, 200);
        peer.ack().await;
        peer.wait(|p| p.state().phase == Phase::Up).await;
        peer
    }

    async fn wait(&self, good: impl Fn(&Phone) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !good(&self.phone) {
            assert!(Instant::now() < end, "{:?}", *self.phone.state());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn violations(&self) -> String {
        self.phone.state().violations.join("; ")
    }
}

async fn hear(socket: &UdpSocket) -> Message {
    let mut buf = [0; 4096];
    let n = timeout(Duration::from_secs(60), socket.recv(&mut buf)).await.unwrap().unwrap();
    Message::parse(&buf[..n]).unwrap()
}

#[tokio::test]
async fn a_right_reinvite_is_accepted_and_moves_the_target() {
    let mut peer = Peer::up().await;
    let moved = peer.moved.local_addr().unwrap();
    let invite = peer.invite(moved);
    assert_eq!(peer.exchange(&invite).await, 200);
    peer.ack().await;
    peer.wait(|p| p.state().reinvites.iter().any(|r| r.code == 200 && r.acked_at.is_some())).await;
    assert_eq!(peer.violations(), "");
    peer.phone.tell(Command::Hangup).unwrap();
    let bye = hear(&peer.moved).await;
    assert_eq!(bye.start, Start::Request("BYE".into(), format!("sip:{moved}")));
    let answer = format!(
        "SIP/2.0 200 OK\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: loop\r\nCSeq: {}\r\nContent-Length: 0\r\n\r\n",
        bye.get("via").unwrap(),
        bye.get("from").unwrap(),
        bye.get("to").unwrap(),
        bye.get("cseq").unwrap()
    );
    peer.send(&answer).await;
    peer.wait(|p| p.state().bye_answered.is_some_and(|(code, _)| code == 200)).await;
    assert_eq!((peer.violations(), peer.phone.state().phase), (String::new(), Phase::Ended));
}

#[tokio::test]
async fn each_wrong_reinvite_is_told() {
    for (from, to, code, says) in [
        ("CSeq: 12 ", "CSeq: 11 ", 500, "does not rise"),
        ("o=- 7 9 ", "o=- 8 9 ", 200, "session id"),
        ("o=- 7 9 ", "o=- 7 6 ", 200, "not up by one"),
        ("o=- 7 9 ", "o=x 7 9 ", 200, "user name"),
        ("t=0 0\r\nm=audio 9 RTP/AVP", "t=0 0\r\nm=audio 9 RTP/SAV", 200, "m-line 0"),
        ("Max-Forwards: 70", "Max-Forwards: 00", 200, "Max-Forwards"),
        ("branch=z9hG4bK", "branch=z9hG4bk", 200, "Via branch"),
        ("INVITE sip:2001@", "INVITE sip:2002@", 200, "request URI"),
        ("To: <sip:2001@h>", "To: <sip:2001@g>", 200, "To has the URI"),
        ("Contact: <sip:", "Contact: <tel:", 200, "Contact is"),
        ("Max-Forwards: 70\r\n", "Max-Forwards: 70\r\nRecord-Route: <sip:h;lr>\r\n", 200, "Record-Route"),
        ("From: <sip:1001@h>;tag=peer", "From: <sip:1001@h>;tag=pear", 481, ""),
    ] {
        let mut peer = Peer::up().await;
        let at = peer.socket.local_addr().unwrap();
        let invite = peer.invite(at);
        let wrong = invite.replacen(from, to, 1);
        assert_ne!(invite, wrong, "{from} is not in the INVITE");
        assert_eq!(peer.exchange(&wrong).await, code, "{to}");
        let said = peer.violations();
        assert!(says.is_empty() == said.is_empty() && said.contains(says), "{to}: {said}");
    }
}

#[tokio::test]
async fn an_answer_is_repeated_until_its_ack() {
    let mut peer = Peer::up().await;
    let at = peer.socket.local_addr().unwrap();
    let invite = peer.invite(at);
    assert_eq!(peer.exchange(&invite).await, 200);
    assert_eq!(hear(&peer.socket).await.start, Start::Response(200, "OK".into()), "no ACK, so the 200 comes again");
    // An ACK with the INVITE's branch would acknowledge a refusal.
    peer.branch -= 1;
    peer.ack().await;
    peer.wait(|p| p.state().reinvites.iter().any(|r| r.acked_at.is_some())).await;
    assert!(peer.violations().contains("branch of the INVITE"), "{}", peer.violations());
}

#[tokio::test]
async fn an_answer_to_the_source_passes_over_the_via() {
    for (answer_to_source, to_source) in [(false, false), (true, true)] {
        let mut peer = Peer::new(Manner { answer_to_source, ..Manner::default() }).await;
        let (own, other) = (peer.socket.local_addr().unwrap(), peer.moved.local_addr().unwrap());
        let invite = peer.invite(own).replacen(&format!("UDP {own}"), &format!("UDP {other}"), 1);
        peer.send(&invite).await;
        let socket = if to_source { &peer.socket } else { &peer.moved };
        assert_eq!(hear(socket).await.start, Start::Response(180, "Ringing".into()));
    }
}
