//! A restart of the agent, planned or not: the address stays in place and keeps answering.

use lab::lan::{Lan, VIP4};
use lab::node::{Agent, Member, Node, SOON};
use lab::observer::Observer;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

/// Longest silence a client may see while the machine is busy. A move of the address takes a hold, which is far longer
/// here.
const SILENCE_MS: f64 = 400.0;

/// Holds are long, so that a start on a busy machine fits in one.
fn node(lan: &Lan, name: &str, etcd: &Member) -> Node {
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).with_sip()
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

fn observer(lan: &Lan) -> Observer {
    let observer = Observer::start(lan.host("obs").unwrap(), VIP4).unwrap();
    wait::until("the address to answer", SOON, || if observer.is_answered() { Ok(()) } else { Err("silence".into()) })
        .unwrap();
    observer
}

/// Since `at` only the host of `agent` answered for the address, without a long silence.
fn stayed(observer: &Observer, agent: &Agent, at: u64) {
    wait::until("the address to answer", SOON, || if observer.is_answered() { Ok(()) } else { Err("silence".into()) })
        .unwrap();
    let gap = observer.gap_after(at).unwrap();
    println!("silence: {:.1} ms", gap.millis());
    assert!(gap.millis() < SILENCE_MS, "silent for {:.1} ms\n{}", gap.millis(), agent.log());
    let host = agent.node.host.mac().unwrap();
    let others = observer.answers().iter().filter(|a| a.at >= at && a.mac != host).count();
    assert_eq!(others, 0, "others answered");
}

fn restarted(agent: &Agent) {
    wait::until("the restart in the history", SOON, || {
        let (_, out, err) = agent.node.run(&["history", "--json"]);
        let all: Value = serde_json::from_str(&out).map_err(|e| format!("{e}: {out} {err}"))?;
        if all[0]["cause"] == "restarted" { Ok(()) } else { Err(out) }
    })
    .unwrap();
}

#[test]
fn the_address_stays_through_a_planned_restart_and_through_a_kill() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (node(&lan, "a", &etcd), node(&lan, "b", &etcd));
    let mut first = a.start();
    first.is_master();
    let mut second = b.start();
    first.is_armed("b");
    let watch = observer(&lan);

    let before = epoch(&first);
    let at = unix_us();
    first.proc.signal(Signal::SIGUSR2).unwrap();
    assert_eq!(first.ends(), 0, "{}", first.log());
    assert!(first.log().contains("this is a restart") && !first.log().contains("did not confirm"), "{}", first.log());
    first = a.start();
    first.is_armed("b");
    restarted(&first);
    stayed(&watch, &first, at);
    assert_eq!(epoch(&first), before);

    // Killed, and restarted within the hold.
    let at = unix_us();
    first.proc.signal(Signal::SIGKILL).unwrap();
    // Its sockets are free only then.
    first.ends();
    first = a.start();
    first.is_armed("b");
    restarted(&first);
    stayed(&watch, &first, at);
    assert_eq!(epoch(&first), before);
    assert!(!second.log().contains("no heartbeat"), "{}", second.log());

    // The backup, both ways.
    let at = unix_us();
    second.proc.signal(Signal::SIGUSR2).unwrap();
    assert_eq!(second.ends(), 0, "{}", second.log());
    second = b.start();
    first.is_armed("b");
    second.proc.signal(Signal::SIGKILL).unwrap();
    second.ends();
    second = b.start();
    first.is_armed("b");
    stayed(&watch, &first, at);
    assert_eq!(epoch(&first), before);

    // It works as before: it hands over on request, and leaves nothing behind when it stops.
    first.stops();
    second.is_master();
    assert!(b.has_vip() && !a.has_vip());
    let left = a.host.exec(&["nft", "list", "tables"]).unwrap();
    assert!(!left.contains("lease"), "{left}");
    second.stops();
}

#[test]
fn a_single_node_keeps_the_address_too() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let a = node(&lan, "a", &etcd);
    let mut agent = a.start();
    agent.is_master();
    let watch = observer(&lan);
    let before = epoch(&agent);
    for signal in [Signal::SIGUSR2, Signal::SIGKILL] {
        let at = unix_us();
        agent.proc.signal(signal).unwrap();
        agent.ends();
        agent = a.start();
        agent.comes_to("a right of its own", |s| s["instances"][0]["hold"]["kind"] == "solo");
        stayed(&watch, &agent, at);
        assert_eq!(epoch(&agent), before);
    }
    agent.stops();
    assert!(!a.has_vip());
}

#[test]
fn systemd_is_asked_whether_a_stop_is_a_restart() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (node(&lan, "a", &etcd), node(&lan, "b", &etcd));
    // A systemctl that answers as during a job (systemctl(1), list-jobs).
    let systemctl = a.dir.join("systemctl");
    let job = |what: &str| {
        std::fs::write(
            &systemctl,
            format!("#!/bin/sh\n[ \"$1\" = list-jobs ] && echo '4711 keepcall.service {what} running'\n"),
        )
        .unwrap();
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", a.dir.display());
    let below = ["env", "KEEPCALL_UNIT=keepcall.service", &path];
    let mut first = a.start_by(&below);
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    let watch = observer(&lan);

    job("restart");
    let at = unix_us();
    first.proc.signal(Signal::SIGTERM).unwrap();
    assert_eq!(first.ends(), 0, "{}", first.log());
    assert!(a.has_vip() && first.log().contains("this is a restart"), "{}", first.log());
    first = a.start_by(&below);
    first.is_armed("b");
    stayed(&watch, &first, at);

    job("stop");
    first.stops();
    second.is_master();
    assert!(b.has_vip() && !a.has_vip());
    second.stops();
}
