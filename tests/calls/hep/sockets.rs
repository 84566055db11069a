//! The sockets themselves: streams cut anywhere, strangers, garbage, too many connections, floods.

use keepcall::config::{Carrier, HepAddress};
use keepcall::hep::intake::{Counters, Key, ReportedMessage, Rules};
use keepcall::hep::listener::Listener;
use keepcall::sip::Transport;
use lab::hep::{self as encode, kamailio3, opensips3};
use lab::netns::LONG;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

fn rules(key: Option<&str>) -> Rules {
    Rules {
        key: key.map(|k| Key::new(k.as_bytes())),
        from: key.is_none().then(|| vec!["127.0.0.1".parse().unwrap()]),
        vips: vec!["192.0.2.10".parse().unwrap()],
        server: Vec::new(),
        sip_ports: vec![5060],
    }
}

/// A listener on a free port, and its address.
fn open(carrier: Carrier, key: Option<&str>) -> (Listener, SocketAddr) {
    let listen = HepAddress { carrier, address: "127.0.0.1:0".parse().unwrap() };
    let listener = Listener::open("main", &[listen], rules(key)).unwrap();
    let at = listener.addresses()[0].address;
    (listener, at)
}

fn invite(n: u32) -> Vec<u8> {
    format!(
        "INVITE sip:b@192.0.2.10 SIP/2.0\r\nVia: SIP/2.0/TLS 198.51.100.7:5061;branch=z9hG4bK{n}\r\nFrom: <sip:a@example.net>;tag=1\r\n\
         To: <sip:b@example.net>\r\nCall-ID: {n}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn phone() -> SocketAddr {
    "198.51.100.7:40001".parse().unwrap()
}

fn vip() -> SocketAddr {
    "192.0.2.10:5061".parse().unwrap()
}

fn keyed(n: u32, key: &str) -> Vec<u8> {
    kamailio3(phone(), vip(), 22, Some(key), &invite(n))
}

async fn next(listener: &mut Listener) -> ReportedMessage {
    tokio::time::timeout(LONG, listener.next()).await.expect("a report")
}

/// Polls until the listener has counted what is expected.
async fn counted(listener: &mut Listener, what: impl Fn(Counters) -> bool) {
    let end = tokio::time::Instant::now() + LONG;
    while !what(listener.counters()) {
        assert!(tokio::time::Instant::now() < end, "{:?}", listener.counters());
        let _ = tokio::time::timeout(Duration::from_millis(5), listener.next()).await;
    }
}

/// Whether the peer closes a connection.
async fn closed(stream: &mut TcpStream) -> bool {
    // A reset also counts: it comes if the other side had not read everything.
    matches!(tokio::time::timeout(LONG, stream.read(&mut [0; 16])).await.expect("an end"), Ok(0) | Err(_))
}

#[tokio::test]
async fn opensips_sends_streams_that_are_cut_anywhere() {
    let (mut listener, at) = open(Carrier::Tcp, None);
    let packet = |n| opensips3(phone(), vip(), 22, 1, encode::chunk(0, 15, &invite(n)));
    // Two of its processes, each with its own connection; one sends a log line in between.
    let (mut a, mut b) = (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
    a.set_nodelay(true).unwrap();
    let log = opensips3(phone(), vip(), 17, 0x56, encode::chunk(0, 15, b"a line"));
    let stream = [packet(1), log, packet(2)].concat();
    for piece in stream.chunks(37) {
        a.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    b.write_all(&packet(3)).await.unwrap();
    let mut got = Vec::new();
    for _ in 0..3 {
        let report = next(&mut listener).await;
        assert_eq!((report.src, report.dst, report.transport), (phone(), vip(), Transport::Tls));
        got.push(report.payload);
    }
    got.sort();
    assert_eq!(got, [invite(1), invite(2), invite(3)]);
    assert_eq!(listener.counters(), Counters { received: 3, not_sip: 1, ..Counters::default() });
}

#[tokio::test]
async fn strangers_and_garbage_end_a_connection_but_not_the_others() {
    let (mut listener, at) = open(Carrier::Tcp, Some("secret"));
    let mut good = TcpStream::connect(at).await.unwrap();
    good.write_all(&keyed(1, "secret")).await.unwrap();
    assert_eq!(next(&mut listener).await.payload, invite(1));
    let v1 = encode::kamailio1(phone(), vip(), 22, &invite(9));
    for bytes in
        [keyed(9, "wrong"), kamailio3(phone(), vip(), 22, None, &invite(9)), v1, b"GET / HTTP/1.1\r\n\r\n".to_vec()]
    {
        let mut bad = TcpStream::connect(at).await.unwrap();
        bad.write_all(&bytes).await.unwrap();
        assert!(closed(&mut bad).await);
    }
    // Garbage behind a good packet is still garbage.
    let mut turned = TcpStream::connect(at).await.unwrap();
    turned.write_all(&[keyed(2, "secret"), b"HEX".to_vec()].concat()).await.unwrap();
    assert_eq!(next(&mut listener).await.payload, invite(2));
    assert!(closed(&mut turned).await);
    good.write_all(&keyed(3, "secret")).await.unwrap();
    assert_eq!(next(&mut listener).await.payload, invite(3));
    assert_eq!(listener.counters(), Counters { received: 3, refused: 2, malformed: 3, ..Counters::default() });
}

#[tokio::test]
async fn there_is_room_for_so_many_connections_and_again_when_some_end() {
    let (mut listener, at) = open(Carrier::Tcp, None);
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(TcpStream::connect(at).await.unwrap());
    }
    let mut one_more = TcpStream::connect(at).await.unwrap();
    assert!(closed(&mut one_more).await);
    assert_eq!(listener.counters().refused, 1);
    held[63].write_all(&kamailio3(phone(), vip(), 22, None, &invite(1))).await.unwrap();
    assert_eq!(next(&mut listener).await.payload, invite(1));
    held.remove(0);
    let end = tokio::time::Instant::now() + LONG;
    loop {
        let mut again = TcpStream::connect(at).await.unwrap();
        let _ = again.write_all(&kamailio3(phone(), vip(), 22, None, &invite(2))).await;
        // A place is free once the listener has noticed a closed connection.
        if tokio::time::timeout(Duration::from_millis(200), listener.next()).await.is_ok_and(|r| r.payload == invite(2))
        {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "no room again: {:?}", listener.counters());
    }
}

#[tokio::test]
async fn datagrams_of_every_version_and_from_strangers() {
    let (mut listener, at) = open(Carrier::Udp, None);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (n, bytes) in [
        (1, encode::kamailio1(phone(), vip(), 22, &invite(1))),
        (2, encode::kamailio2(phone(), vip(), 22, &invite(2))),
        (3, encode::freeswitch2(phone(), vip(), 22, &invite(3))),
        (4, encode::opensips2(phone(), vip(), 22, &invite(4))),
        (5, encode::freeswitch3(phone(), vip(), 6, &invite(5))),
        (6, encode::asterisk3(phone(), vip(), 6, "any", &invite(6))),
    ] {
        socket.send_to(&bytes, at).await.unwrap();
        let report = next(&mut listener).await;
        assert_eq!((report.src, report.dst, report.transport), (phone(), vip(), Transport::Tls), "{n}");
        assert_eq!(report.payload, invite(n));
    }
    // Another address of this host is another sender.
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(&encode::kamailio1(phone(), vip(), 22, &invite(7)), at).await.unwrap();
    socket.send_to(b"garbage", at).await.unwrap();
    socket.send_to(b"", at).await.unwrap();
    counted(&mut listener, |c| c == Counters { received: 6, refused: 1, malformed: 2, ..Counters::default() }).await;
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted() {
    let (mut listener, at) = open(Carrier::Udp, None);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bytes = kamailio3(phone(), vip(), 22, None, &invite(1));
    // Nothing is read in the meantime: this test's runtime has one thread, and it is busy here.
    let sent = 40_000;
    for _ in 0..sent {
        socket.send_to(&bytes, at).unwrap();
    }
    // The count arrives with the next datagram that finds room.
    counted(&mut listener, |c| c.received > 0).await;
    while tokio::time::timeout(Duration::from_millis(50), listener.next()).await.is_ok() {}
    socket.send_to(&bytes, at).unwrap();
    counted(&mut listener, |c| c.dropped > 0 && c.received + c.dropped == sent + 1).await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named_with_what_to_do() {
    let (_first, at) = open(Carrier::Tcp, None);
    for (listen, part) in [
        (HepAddress { carrier: Carrier::Tcp, address: at }, "another program listens there"),
        (
            HepAddress { carrier: Carrier::Udp, address: "203.0.113.77:9060".parse().unwrap() },
            "this host does not have the address",
        ),
    ] {
        let error = Listener::open("main", &[listen], rules(None)).err().unwrap().to_string();
        assert!(error.contains(part) && error.contains(&listen.to_string()), "{error}");
    }
}
