//! The real agent learns a TLS call from HEP: it stores it, shows it, and forgets it at its end. Strangers can do none
//! of this.

use lab::hep as encode;
use lab::lan::{Host, Lan, VIP4};
use lab::node::{Member, Node, SOON, secret};
use lab::wait;
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};

const KEY: &str = "the server's key";

/// A server on this host that reports to its agent.
struct Server {
    socket: UdpSocket,
    phone: SocketAddr,
    vip: SocketAddr,
}

impl Server {
    fn new(host: &Host) -> Self {
        let socket = host.enter(|| Ok(UdpSocket::bind("127.0.0.1:0")?)).unwrap();
        Self { socket, phone: "198.51.100.7:40001".parse().unwrap(), vip: SocketAddr::new(VIP4.into(), 5061) }
    }

    fn report(&self, key: &str, by_phone: bool, message: &str) {
        let (src, dst) = if by_phone { (self.phone, self.vip) } else { (self.vip, self.phone) };
        let bytes = encode::kamailio3(src, dst, 22, Some(key), message.as_bytes());
        self.socket.send_to(&bytes, "127.0.0.1:9060").unwrap();
    }

    /// A message of the one call; `sdp` adds a description with this port.
    fn message(&self, start: &str, method: &str, cseq: u32, tag: bool, sdp: Option<u16>) -> String {
        let body = sdp.map(|p| {
            format!("v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\nm=audio {p} RTP/AVP 0\r\n")
        });
        let body = body.unwrap_or_default();
        let tag = if tag { ";tag=there" } else { "" };
        format!(
            "{start}\r\nVia: SIP/2.0/TLS 198.51.100.7:40001;branch=z9hG4bK-{method}-{cseq};rport\r\nFrom: <sip:1000@example.net>;tag=here\r\n\
             To: <sip:2000@example.net>{tag}\r\nCall-ID: over-tls\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:1000@198.51.100.7:40001;transport=tls>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn call(&self, key: &str) {
        self.report(key, true, &self.message("INVITE sip:2000@example.net SIP/2.0", "INVITE", 1, false, Some(4000)));
        self.report(key, false, &self.message("SIP/2.0 200 OK", "INVITE", 1, true, Some(12_000)));
        self.report(key, true, &self.message("ACK sip:2000@192.0.2.1 SIP/2.0", "ACK", 1, true, None));
    }

    fn hang_up(&self, key: &str) {
        self.report(key, true, &self.message("BYE sip:2000@192.0.2.1 SIP/2.0", "BYE", 2, true, None));
        self.report(key, false, &self.message("SIP/2.0 200 OK", "BYE", 2, true, None));
    }
}

/// Waits until `calls` shows this many calls.
fn shows(node: &Node, count: usize) -> Value {
    wait::until(&format!("{count} calls"), SOON, || {
        let (code, out, err) = node.run(&["calls", "--json"]);
        let calls: Value = serde_json::from_str(&out).map_err(|e| format!("{code} {e}: {out}{err}"))?;
        if calls.as_array().is_some_and(|c| c.len() == count) { Ok(calls) } else { Err(out) }
    })
    .unwrap()
}

#[test]
fn a_call_over_tls_is_learnt_by_its_key() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let host = lan.host("a").unwrap();
    let mut node = Node::new(host, "a", &etcd.url()).with_sip();
    let key = node.dir.join("hep.key");
    secret(&key, &format!("{KEY}\n"));
    node.config.push_str(&format!(
        "[instance.sip.hep]\nlisten = [\"udp:127.0.0.1:9060\", \"tcp:127.0.0.1:9060\"]\nkey_file = {key:?}\n"
    ));

    // A port that is already taken, and a missing key.
    let taken = host.enter(|| Ok(std::net::TcpListener::bind("127.0.0.1:9060")?)).unwrap();
    let other = node.clone().with("hep.key", "no.key").start();
    other.says("no.key");
    other.stops();
    let agent = node.start();
    agent.says("tcp:127.0.0.1:9060");
    assert!(agent.log().contains("another program") && !node.has_vip(), "{}", agent.log());
    drop(taken);
    agent.is_master();
    let server = Server::new(host);
    server.call("not the key");
    agent.comes_to("three refusals", |s| s["instances"][0]["calls"]["hep"]["refused"] == 3);
    agent.says("sends another key than");
    server.call(KEY);
    let calls = shows(&node, 1);
    let leg = &calls[0]["legs"][0];
    assert_eq!(
        (&leg["call_id"], &leg["direction"], &leg["transport"]),
        (&"over-tls".into(), &"inbound".into(), &"tls".into()),
        "{calls}"
    );
    assert_eq!(
        (&leg["remote_addr"], &leg["media"]),
        (&"198.51.100.7:40001".into(), &"198.51.100.7:4000".into()),
        "{calls}"
    );
    assert_eq!(calls[0]["state"], "up");
    // A forged end changes nothing; the true one ends the call.
    server.hang_up("not the key");
    agent.comes_to("five refusals", |s| s["instances"][0]["calls"]["hep"]["refused"] == 5);
    shows(&node, 1);
    server.hang_up(KEY);
    shows(&node, 0);
    let status = agent.status().unwrap();
    let hep = &status["instances"][0]["calls"]["hep"];
    assert_eq!((&hep["received"], &hep["malformed"]), (&5.into(), &0.into()), "{status}");
    assert_eq!(agent.log().matches("ignoring HEP").count(), 1, "{}", agent.log());
    let (_, text, _) = node.run(&["status"]);
    assert!(text.contains("HEP OF"), "{text}");
    agent.is_calm();
    agent.stops();
}
