//! Announcements: what a client on the LAN follows, and what the frames say.

use super::{ips, vips};
use keepcall::vip::address::Addresses;
use keepcall::vip::announce::{Announcer, Pace};
use lab::netns::{LONG, Lan, until};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_client_on_the_lan_follows_the_announcement_from_one_host_to_the_other() {
    let lan = Lan::new(&["a", "b", "client"]);
    let neighbour = |ip: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&lan.ip("client", &format!("-j neigh show {ip} dev eth0"))).unwrap();
        json[0]["lladdr"].as_str().map(str::to_owned)
    };
    let take = |host: &str| {
        lan.block_on(host, || async {
            Addresses::open().unwrap().add("eth0", &vips()).await.unwrap();
            let announced = Announcer::open("eth0", &ips()).unwrap().announce_now();
            assert_eq!((announced.sent, announced.errors.len()), (5, 0));
        });
    };
    take("a");
    for ip in ["10.77.0.9", "fd77::9"] {
        // The client talks to it, and so has a neighbour entry.
        let to = SocketAddr::new(ip.parse().unwrap(), 5060);
        lan.inside("client", move || {
            std::net::UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
                .unwrap()
                .send_to(b"x", to)
                .unwrap()
        });
        until("the client knows the first host", || neighbour(ip) == Some(lan.mac("a")));
    }
    lan.ip("a", "link set eth0 down");
    take("b");
    for ip in ["10.77.0.9", "fd77::9"] {
        until("the client knows the new host", || neighbour(ip) == Some(lan.mac("b")));
    }
}

#[test]
fn frames_are_what_the_rfcs_ask_for_and_stop_when_told() {
    let lan = Lan::new(&["a", "client"]);
    // Immediate mode; otherwise the last packets would wait in the kernel while tcpdump ends.
    let mut dump = lan.spawn("client", "tcpdump --immediate-mode -nnvv -e -l -i eth0 -Q in arp or icmp6[0]==136");
    // tcpdump reports on stderr that it listens.
    let mut heard = std::io::BufReader::new(dump.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut heard, &mut line).unwrap(), 0);
    }
    let mac = lan.mac("a");
    lan.block_on("a", || async {
        Addresses::open().unwrap().add("eth0", &vips()).await.unwrap();
        let announcer = Arc::new(Announcer::open("eth0", &ips()).unwrap());
        let (first, going) = announcer.start(Pace { burst: 3, interval: Duration::from_millis(20), refreshes: 1000 });
        assert_eq!((first.sent, announcer.counters()), (5, (5, 0)));
        let end = tokio::time::Instant::now() + LONG;
        while announcer.counters().0 < 5 * 5 {
            assert!(tokio::time::Instant::now() < end, "refreshes do not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(going);
        let sent = announcer.counters().0;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(announcer.counters().0, sent, "it announces on after its end");
    });
    // It was sent at least 25 times; three are enough to read, and prove that none is half written.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(dump.stdout.take().unwrap()));
    let mut text = String::new();
    while text.matches("tgt is fd77::9").count() < 3 {
        text += &(lines.next().expect("tcpdump goes on").unwrap() + "\n");
    }
    dump.kill().unwrap();
    dump.wait().unwrap();
    let has =
        |words: &[&str]| assert!(text.lines().any(|l| words.iter().all(|w| l.contains(w))), "no {words:?} in {text}");
    has(&["> ff:ff:ff:ff:ff:ff", "who-has 10.77.0.9", "tell 10.77.0.9"]);
    has(&["> ff:ff:ff:ff:ff:ff", "10.77.0.9 is-at", &mac]);
    has(&["10.77.0.10 is-at", &mac]);
    has(&["> 33:33:00:00:00:01", "fd77::9 > ff02::1", "hlim 255", "icmp6 sum ok", "neighbor advertisement"]);
    has(&["tgt is fd77::9", "Flags [override]"]);
    has(&["destination link-address option (2)", &mac]);
}
