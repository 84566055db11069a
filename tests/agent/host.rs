//! The real agent on a host or LAN in bad shape: something it needs comes late or goes away, or another host has its
//! address.

use lab::lan::{Host, Lan, VIP4};
use lab::node::{Agent, Member, Node, SOON};
use lab::wait;
use serde_json::Value;
use std::time::Duration;

/// A second instance, on an interface that may be missing.
const SECOND: &str = "\n[[instance]]\nname = \"late\"\ninterface = \"eth9\"\naddresses = [\"10.99.0.100/24\"]\n";

fn instance<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["instances"].as_array().unwrap().iter().find(|i| i["name"] == name).unwrap()
}

fn reason(status: &Value, name: &str) -> String {
    instance(status, name)["not_ready"].as_str().unwrap_or_default().to_owned()
}

fn is_told_once(agent: &Agent, what: &str) {
    let log = agent.log();
    assert_eq!(log.matches(what).count(), 1, "{what}\n{log}");
}

fn add_interface(host: &Host) {
    host.exec(&["ip", "link", "add", "eth9", "type", "veth", "peer", "name", "peer9"]).unwrap();
    for name in ["eth9", "peer9"] {
        host.exec(&["ip", "link", "set", name, "up"]).unwrap();
    }
}

#[test]
fn what_is_missing_is_waited_for_in_one_process_and_disturbs_no_other_instance() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let host = lan.host("a").unwrap();
    let mut node = Node::new(host, "a", &etcd.url()).with_sip();
    node.config.push_str(SECOND);

    // The heartbeat port, and then the key.
    let ip = host.ip4.to_string();
    let squat =
        |ip: String, port: u16| host.enter(move || Ok(std::net::UdpSocket::bind(format!("{ip}:{port}"))?)).unwrap();
    let taken = squat(ip, 7490);
    let recovery = squat("0.0.0.0".to_owned(), 5070);
    let mut agent = node.start();
    agent.says("another program has this port");
    let status = agent.comes_to("the reason in its status", |s| reason(s, "sip").contains("7490"));
    assert_eq!(instance(&status, "sip")["role"], "unknown");
    let tables = host.exec(&["nft", "list", "tables"]).unwrap();
    assert!(!tables.contains("keepcall"), "nothing is touched before the agent knows that it is alone:\n{tables}");
    std::fs::remove_file(node.dir.join("key")).unwrap();
    drop(taken);
    agent.says("/dev/urandom");
    node.key(b"0123456789abcdef0123456789abcdef");

    // The recovery port of one instance, the interface of the other. Neither instance elects this node.
    agent.says("UDP port 5070");
    agent.says("no interface eth9");
    let status =
        agent.comes_to("both reasons", |s| reason(s, "sip").contains("5070") && reason(s, "late").contains("eth9"));
    for name in ["sip", "late"] {
        assert_ne!(instance(&status, name)["role"], "master");
    }
    assert!(!node.has_vip());
    drop(recovery);
    let master = |s: &Value, name: &str| instance(s, name)["role"] == "master";
    agent.comes_to("the first instance to be master", |s| master(s, "sip") && node.has_vip());
    let epoch = instance(&agent.status().unwrap(), "sip")["epoch"].clone();
    assert!(reason(&agent.status().unwrap(), "late").contains("eth9"));

    // The interface comes, goes and comes back.
    let has_late = || host.exec(&["ip", "-o", "addr"]).unwrap().contains(" 10.99.0.100/");
    add_interface(host);
    agent.comes_to("the second instance to be master", |s| master(s, "late") && has_late());
    host.exec(&["ip", "link", "del", "eth9"]).unwrap();
    // The host becomes unfit at the next look at its instances, which may come after the reason shows.
    agent.comes_to("the interface to be missed, and the host to be unfit", |s| {
        let summary = s["nodes"][0]["summary"].as_str().unwrap_or_default();
        reason(s, "late").contains("eth9") && s["nodes"][0]["fit"] == false && summary.contains("not ready")
    });
    add_interface(host);
    agent.comes_to("the address to be back", |s| reason(s, "late").is_empty() && master(s, "late") && has_late());
    let settings = host.exec(&["cat", "/proc/sys/net/ipv4/conf/eth9/promote_secondaries"]).unwrap();
    assert_eq!(settings.trim(), "1", "a new interface has the kernel's own settings");

    // All of this in one process, each message logged once, and the first instance kept running.
    assert!(agent.is_alive());
    for what in ["another program has this port", "UDP port 5070", "there is no interface eth9;", "eth9 any more"] {
        is_told_once(&agent, what);
    }
    assert!(!agent.log().contains("another program removed"), "{}", agent.log());
    assert_eq!(instance(&agent.status().unwrap(), "sip")["epoch"], epoch);
    agent.is_calm();
    agent.stops();
}

#[test]
fn another_host_with_the_address_is_told_with_its_hardware_address() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (host, other) = (lan.host("a").unwrap(), lan.host("c").unwrap());
    let node = Node::new(host, "a", &etcd.url())
        .with(&format!("\"{VIP4}/24\""), &format!("\"{VIP4}/24\", \"{}/64\"", lab::lan::VIP6));
    let mac = other.mac().unwrap().map(|b| format!("{b:02x}")).join(":");
    // The other host had the address before, and only speaks when asked.
    for address in [VIP4.into(), lab::lan::VIP6.into()] {
        other.add_address(address).unwrap();
    }
    let agent = node.start();
    agent.is_master();
    let status = agent.comes_to("the conflict in its status", |s| {
        s["instances"][0]["conflicts"].as_array().is_some_and(|c| c.len() == 2)
    });
    for conflict in status["instances"][0]["conflicts"].as_array().unwrap() {
        assert_eq!(conflict["mac"], mac.as_str(), "{status}");
    }
    assert!(node.has_vip(), "the address is defended, not given up");
    let (_, text, _) = node.run(&["status"]);
    assert!(text.contains("CONFLICT") && text.contains(&mac), "{text}");
    let (_, text, _) = node.run(&["history", "--json"]);
    assert!(text.contains("\"conflict\"") && text.contains(&mac), "{text}");
    // Once for each address.
    assert_eq!(agent.log().matches("another host also answers").count(), 2, "{}", agent.log());
    agent.stops();
}

#[test]
fn a_right_that_ends_and_comes_back_is_nobodys_doing() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let node =
        |name: &str| Node::new(lan.host(name).unwrap(), name, &etcd.url()).with("hold = \"2s\"", "hold = \"500ms\"");
    let (a, b) = (node("a"), node("b"));
    let first = a.start();
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    // Both freeze for longer than a hold: there is no takeover, and the master resumes as master.
    let freeze = |signal| {
        for agent in [&first, &second] {
            agent.proc.signal(signal).unwrap();
        }
    };
    for _ in 0..3 {
        let resumed = first.log().matches("cause=\"resumed\"").count();
        freeze(nix::sys::signal::Signal::SIGSTOP);
        let since = std::time::Instant::now();
        wait::until("the hold to end", SOON, || {
            if since.elapsed() > Duration::from_millis(900) { Ok(()) } else { Err("not yet".into()) }
        })
        .unwrap();
        freeze(nix::sys::signal::Signal::SIGCONT);
        wait::until("one of them to be master", SOON, || {
            let again = first.log().matches("cause=\"resumed\"").count() > resumed;
            if (again && a.has_vip()) || b.has_vip() { Ok(()) } else { Err(first.log()) }
        })
        .unwrap();
        if b.has_vip() {
            break;
        }
    }
    for agent in [first, second] {
        assert!(!agent.log().contains("another program removed"), "{}", agent.log());
        agent.stops();
    }
}
