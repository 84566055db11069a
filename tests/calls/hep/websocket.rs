//! A real Kamailio that takes SIP over WebSocket (RFC 7118) and forwards it to a phone over UDP.
//!
//! Its reports of messages sent over WebSocket are half true: they carry TCP's protocol number, and lose the browser's
//! port. The call is learnt all the same.

use super::kamailio::siptrace;
use super::phone::{Certificate, Phone};
use super::watch::Watch;
use keepcall::calls::model::{LegState, Pairing};
use keepcall::sip::Transport;
use keepcall::sip::message::{Message, Name};
use lab::kamailio::Kamailio;
use lab::lan::Host;
use lab::netns::{LONG, Lan};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const VIP: &str = "10.77.0.105";

/// A browser's connection.
struct Browser(TcpStream);

impl Browser {
    fn connect() -> Self {
        let mut stream = TcpStream::connect((VIP, 8080)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // RFC 6455 section 1.3, with its example key; the server's proof is ignored.
        let hello = format!(
            "GET / HTTP/1.1\r\nHost: {VIP}:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(hello.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        Self(stream)
    }

    /// One text frame, masked as required of a client (RFC 6455 section 5.2).
    fn send(&mut self, message: &str) {
        let mask = [1, 2, 3, 4];
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        let mut frame = vec![0x81, 0x80 | 126, length[0], length[1]];
        frame.extend(mask);
        frame.extend(message.bytes().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            n => usize::from(n),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }

    /// The final response to a request.
    fn answer(&mut self) -> Vec<u8> {
        loop {
            let bytes = self.receive();
            let code = Message::parse(&bytes).ok().and_then(|m| m.code());
            if code.is_some_and(|c| c >= 200) {
                return bytes;
            }
        }
    }
}

/// A request of the one call.
fn request(method: &str, uri: &str, cseq: u32, to: &str, routes: &str, sdp: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/WS browser.invalid;branch=z9hG4bK{method}{cseq}\r\nMax-Forwards: 70\r\n{routes}\
         From: <sip:1000@{VIP}>;tag=browser\r\nTo: {to}\r\nCall-ID: by-websocket\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:1000@browser.invalid;transport=ws>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

fn start(host: &Host) -> Kamailio {
    let global = format!("tcp_accept_no_cl=yes\nlisten=udp:{VIP}:5060\nlisten=tcp:{VIP}:8080\n");
    let rest = r#"
loadmodule "xhttp.so"
loadmodule "websocket.so"
request_route {
    route(DIALOG);
    force_rport();
    record_route();
    $ru = "sip:2000@10.77.0.3:15060";
    t_relay();
}
event_route[xhttp:request] {
    if ($hdr(Upgrade) =~ "websocket") { if (ws_handle_handshake()) exit; }
    xhttp_reply("404", "Not Found", "", "");
}
"#;
    Kamailio::start(host, &global, &(siptrace(3, 9066) + rest)).unwrap().0
}

#[test]
fn a_browser_and_a_phone_are_one_call() {
    let lan = Lan::new(&["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    lan.ip("a", &format!("addr add {VIP}/24 dev eth0"));
    let _server = start(&lan.host("a", dir.path()));
    let certificate = Certificate::new(dir.path());
    let server = format!("{VIP}:5060;transport=udp");
    let _callee = Phone::start(&lan.host("c", dir.path()), 15060, "2000", &server, &certificate, None);
    let ((tell, told), (stop, stopped)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let (call, hep) = std::thread::scope(|scope| {
        let lan = &lan;
        let watching = scope.spawn(move || {
            lan.block_on("a", move || async move {
                let mut watch = Watch::open(VIP, "udp:127.0.0.1:9066", None, false);
                tell.send("listening").unwrap();
                watch.until("a call of two whole legs", Watch::has_whole_call).await;
                let call = watch.table.calls().next().unwrap();
                stop.send(()).unwrap();
                watch.until("the end of the call", |w| w.table.legs().count() == 0 && w.deleted > 0).await;
                (call, watch.counters())
            })
        });
        assert_eq!(told.recv_timeout(LONG).unwrap(), "listening");
        lan.inside("b", move || {
            let mut browser = Browser::connect();
            let sdp =
                "v=0\r\no=- 1 1 IN IP4 10.77.0.2\r\ns=-\r\nc=IN IP4 10.77.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
            let uri = format!("sip:2000@{VIP}");
            browser.send(&request("INVITE", &uri, 1, &format!("<{uri}>"), "", sdp));
            let bytes = browser.answer();
            let ok = Message::parse(&bytes).unwrap();
            assert_eq!(ok.code(), Some(200), "{}", String::from_utf8_lossy(&bytes));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let mut routes: Vec<String> =
                ok.values(Name::RecordRoute).map(|r| format!("Route: {}\r\n", text(r))).collect();
            routes.reverse();
            let (target, to) = (text(ok.contact_uri().unwrap()), text(ok.to()));
            browser.send(&request("ACK", &target, 1, &to, &routes.concat(), ""));
            stopped.recv_timeout(LONG).unwrap();
            browser.send(&request("BYE", &target, 2, &to, &routes.concat(), ""));
            browser.answer();
        });
        watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!((hep.refused, hep.malformed, hep.dropped), (0, 0, 0), "{hep:?}");
    assert_eq!(call.pairing, Some(Pairing::SameDialog), "{call:#?}");
    for (leg, transport, other) in
        [(&call.legs[0], Transport::Ws, "10.77.0.2"), (&call.legs[1], Transport::Udp, "10.77.0.3")]
    {
        assert_eq!((leg.transport, leg.state), (transport, LegState::Confirmed), "{leg:#?}");
        assert_eq!((leg.local_addr.ip().to_string().as_str(), leg.remote_addr.ip().to_string().as_str()), (VIP, other));
        assert!(leg.route_set.is_empty() && leg.sdp_sent.is_some() && leg.sdp_received.is_some(), "{leg:#?}");
    }
    assert_eq!(call.legs[0].sdp_received, call.legs[1].sdp_sent);
}
