//! A new process keeps its predecessor's tables, without a run of nft, if they match what it would make; otherwise it
//! makes them anew.
use keepcall::calls::model::Flow;
use keepcall::recovery::media::kernel::KernelRelay;
use keepcall::recovery::permitted::Ground;
use keepcall::vip::fence::{Fence, FenceState};
use keepcall::vip::{nft, sysctl};
use lab::netns::{Lan, receive, stdout};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const RELAY: &str = "keepcall-relay-test";
const FENCE: &str = "keepcall-fence-test";
/// A packet of RTP (RFC 3550 section 5.1).
const RTP: &[u8] = b"\x80\0\0\x01\0\0\0\x02\0\0\0\x03audio";

/// The output of nft for a table, without the changing counts.
fn listed(lan: &Lan, table: &str) -> String {
    let words = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        while let Some(at) = words.iter().position(|word| *word == "packets") {
            words.drain(at..at + 4);
        }
        words.join(" ") + "\n"
    };
    stdout(&lan.exec("h", &format!("nft -a list table inet {table}"))).lines().map(words).collect()
}

/// The kernel's handles of the table and of each rule: a rule made anew has another handle, or is in another table.
fn handles(lan: &Lan, table: &str) -> BTreeSet<(u64, u64)> {
    let text = listed(lan, table);
    let handle = |line: &str| line.rsplit_once("# handle ")?.1.parse::<u64>().ok();
    let mut lines = text.lines();
    let Some(table) = lines.next().and_then(handle) else { return BTreeSet::new() };
    let rules = lines.filter(|line| !line.contains('{') || line.contains("comment"));
    rules.filter_map(|line| Some((table, handle(line)?))).collect()
}

/// Changes a table as a stranger might.
fn damage(lan: &Lan, script: &str) {
    let script = script.to_owned();
    lan.block_on(
        "h",
        || async move { nft::run("the test", &script).await.unwrap_or_else(|e| panic!("{script}: {e}")) },
    );
}

fn vip(n: u8, port: u16) -> SocketAddr {
    SocketAddr::new([10, 77, 0, n].into(), port)
}

/// A new process takes over the relay, with a call at each of these addresses, between 10.77.0.1 and 10.77.0.2.
fn relay(lan: &Lan, vips: &'static [u8]) {
    lan.block_on("h", move || async move {
        assert!(sysctl::for_relay("eth0").errors.is_empty());
        let relay = KernelRelay::new("test", &Ground::of(&vips.iter().map(|n| vip(*n, 0).ip()).collect::<Vec<_>>()));
        let calls: Vec<(String, [Flow; 2])> = vips
            .iter()
            .map(|n| {
                let (a, b) = (vip(*n, 10_000), vip(*n, 10_004));
                let there = Flow { from: vip(1, 4000), at: a, to: vip(2, 4002), source: b, udptl: false };
                let back = Flow { from: vip(2, 4002), at: b, to: vip(1, 4000), source: a, udptl: false };
                (n.to_string(), [there, back])
            })
            .collect();
        let refused = relay.set_many(calls.iter().map(|(call, flows)| (&call[..], &flows[..]))).await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    });
}

/// A relay in host `h`, and a phone on each side of it.
fn scene() -> (Lan, impl Fn(u8, &str)) {
    let lan = Lan::new(&["a", "b", "h"]);
    for n in [8, 9] {
        lan.ip("h", &format!("addr add 10.77.0.{n}/24 dev eth0"));
    }
    let (a, b) = (lan.socket("a", "10.77.0.1:4000"), lan.socket("b", "10.77.0.2:4002"));
    let forwards = move |n: u8, when: &str| {
        // Printed if the audio does not arrive.
        println!("{when}");
        a.send_to(RTP, vip(n, 10_000)).unwrap();
        assert_eq!(receive(&b).0, vip(n, 10_004).to_string(), "{when}");
    };
    (lan, forwards)
}

#[test]
fn a_relay_that_is_as_it_should_be_is_left_alone() {
    let (lan, forwards) = scene();
    relay(&lan, &[9]);
    let before = handles(&lan, RELAY);
    assert!(before.len() > 15, "{before:?}");
    for _ in 0..3 {
        relay(&lan, &[9]);
        forwards(9, "after a takeover");
    }
    assert_eq!(handles(&lan, RELAY), before);
}

#[test]
fn a_relay_that_is_not_as_it_should_be_is_made_anew() {
    let (lan, forwards) = scene();
    let rule = |chain: &str| {
        let text = stdout(&lan.exec("h", &format!("nft -a list chain inet {RELAY} {chain}")));
        let line = text.lines().find(|line| line.contains("comment")).unwrap().to_owned();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let another = || {
        let text = stdout(&lan.exec("h", &format!("nft list table inet {RELAY}")));
        let (_, rest) = text.split_once("comment \"").unwrap();
        let (signature, _) = rest.split_once('"').unwrap();
        format!("delete table inet {RELAY}\n{}", text.replace(signature, "0123456789abcdef"))
    };
    let unsigned = || {
        let text = stdout(&lan.exec("h", &format!("nft list table inet {RELAY}")));
        let (_, rest) = text.split_once(" comment \"").unwrap();
        let (signature, _) = rest.split_once('"').unwrap();
        format!("delete table inet {RELAY}\n{}", text.replace(&format!(" comment \"{signature}\""), ""))
    };
    relay(&lan, &[9]);
    let whole = listed(&lan, RELAY).lines().count();
    let damages: [(&str, &dyn Fn() -> String); 11] = [
        ("the table is gone", &|| format!("delete table inet {RELAY}\n")),
        ("all rules are flushed", &|| format!("flush table inet {RELAY}\n")),
        ("a chain at a hook is flushed", &|| format!("flush chain inet {RELAY} prerouting\n")),
        ("another chain is flushed", &|| format!("flush chain inet {RELAY} send4\n")),
        ("a rule is deleted", &|| format!("delete rule inet {RELAY} to4 handle {}\n", rule("to4"))),
        ("a rule is somebody else's", &|| format!("insert rule inet {RELAY} prerouting udp dport 10000 drop\n")),
        ("a set that no rule asks is deleted", &|| format!("delete map inet {RELAY} flow6\n")),
        ("a set that rules ask is deleted", &|| format!("flush table inet {RELAY}\ndelete map inet {RELAY} flow4\n")),
        ("a reason is deleted", &|| format!("delete element inet {RELAY} refused {{ 3 }}\n")),
        ("it is of another version", &another),
        ("it is of a version without signatures", &unsigned),
    ];
    for (what, script) in damages {
        damage(&lan, &script());
        let before = handles(&lan, RELAY);
        relay(&lan, &[9]);
        let after = handles(&lan, RELAY);
        assert!(before.is_disjoint(&after), "{what}: {before:?} and {after:?}");
        assert_eq!(listed(&lan, RELAY).lines().count(), whole, "{what}");
        forwards(9, what);
        relay(&lan, &[9]);
        assert_eq!(handles(&lan, RELAY), after, "{what}: and then it is as it should be");
    }
    let before = handles(&lan, RELAY);
    relay(&lan, &[9, 8]);
    assert!(before.is_disjoint(&handles(&lan, RELAY)), "an address more");
    forwards(8, "an address more");
    forwards(9, "an address more");
    relay(&lan, &[9]);
    forwards(9, "an address less");
    assert!(!listed(&lan, RELAY).contains("10.77.0.8"));
}

/// Correct rules over sets that hold less: a refusal in spite of the signature leads to nft as well.
#[test]
fn a_relay_that_takes_no_flows_is_made_anew_although_its_rules_are_right() {
    let (lan, forwards) = scene();
    lan.block_on("h", || async {
        KernelRelay::new("test", &Ground::of(&[vip(9, 0).ip()])).remove("nobody").await.unwrap()
    });
    let text = stdout(&lan.exec("h", &format!("nft list table inet {RELAY}")));
    damage(&lan, &format!("delete table inet {RELAY}\n{}", text.replace("size 65536", "size 1")));
    assert!(listed(&lan, RELAY).contains("size 1\n"));
    relay(&lan, &[9]);
    forwards(9, "sets that held less");
    assert!(!listed(&lan, RELAY).contains("size 1\n"));
}

/// A new process takes over the fence.
fn fence(lan: &Lan, to: FenceState, ports: &'static [u16]) {
    lan.block_on("h", move || async move {
        let fence = Fence::new("test", ports, (10_000, 20_000));
        match to {
            FenceState::Closed => fence.closed().await.unwrap(),
            FenceState::Open => fence.open().await.unwrap(),
            _ => fence.left(&[vip(1, 7000)]).await.unwrap(),
        }
    });
}

#[test]
fn a_fence_is_turned_by_a_new_process_and_made_anew_only_if_it_must_be() {
    let lan = Lan::new(&["a", "h"]);
    let phone = lan.socket("a", "10.77.0.1:7000");
    // The last one is the RTCP of the last media port.
    let server: Vec<_> = [5060, 10_000, 20_001].map(|port| lan.socket("h", &format!("10.77.0.2:{port}"))).into();
    let passes = |what: &str| {
        let mut passed = server.iter().map(|s| s.send_to(b"x", "10.77.0.1:7000").is_ok() && receive(&phone).1 == "x");
        let first = passed.next().unwrap();
        assert!(passed.all(|passed| passed == first), "{what}");
        first
    };
    // A SIP port among the media ports does not matter.
    const PORTS: &[u16] = &[5060, 10_000, 5060];
    fence(&lan, FenceState::Closed, PORTS);
    let first = handles(&lan, FENCE);
    assert!(first.len() > 4, "{first:?}");
    let turned =
        [(FenceState::Open, true), (FenceState::Left, false), (FenceState::Closed, false), (FenceState::Open, true)];
    for (to, open) in turned {
        fence(&lan, to, PORTS);
        assert_eq!(passes(&format!("{to:?}")), open, "{to:?}");
        assert_eq!(handles(&lan, FENCE), first, "{to:?}");
    }
    let damages = [
        "delete table inet keepcall-fence-test",
        "flush table inet keepcall-fence-test",
        "insert rule inet keepcall-fence-test output accept",
        "flush table inet keepcall-fence-test\ndelete set inet keepcall-fence-test closed",
    ];
    for what in damages {
        damage(&lan, &format!("{what}\n"));
        let before = handles(&lan, FENCE);
        fence(&lan, FenceState::Closed, PORTS);
        assert!(!passes(what), "{what}");
        assert!(before.is_disjoint(&handles(&lan, FENCE)), "{what}");
    }
    let before = handles(&lan, FENCE);
    fence(&lan, FenceState::Closed, &[5060, 5080]);
    assert!(!passes("other ports") && before.is_disjoint(&handles(&lan, FENCE)));
}
