//! The address when an agent can do nothing: its host's kernel knows until when it may answer.

use lab::lan::{Lan, VIP4};
use lab::node::{Agent, Member, Node, SOON};
use lab::observer::Observer;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use std::time::Duration;

fn node(lan: &Lan, etcd: &Member, name: &str) -> Node {
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).with_sip()
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

fn observed(lan: &Lan) -> Observer {
    let seen = Observer::start(lan.host("obs").unwrap(), VIP4).unwrap();
    wait::until("the address to answer", SOON, || if seen.is_answered() { Ok(()) } else { Err("silence".into()) })
        .unwrap();
    seen
}

fn lease_tables(agent: &Agent) -> String {
    agent.node.host.exec(&["nft", "list", "ruleset"]).unwrap()
}

#[test]
fn the_host_of_an_agent_that_is_killed_or_frozen_falls_silent_before_the_other_answers() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (on_a, on_b) = (node(&lan, &etcd, "a"), node(&lan, &etcd, "b"));
    let mut a = on_a.start();
    a.is_master();
    let b = on_b.start();
    a.is_armed("b");
    assert!(a.log().contains("netdev tables `keepcall-lease-sip`"), "{}", a.log());
    let held = lease_tables(&a);
    let comment = format!("comment \"epoch {}\"", epoch(&a));
    assert!(held.contains(&comment) && !lease_tables(&b).contains("epoch"), "{held}");

    let seen = observed(&lan);
    let killed = unix_us();
    a.proc.signal(Signal::SIGKILL).unwrap();
    a.ends();
    b.is_master();
    wait::until("the other host to answer", SOON, || {
        if seen.owners().len() > 1 { Ok(()) } else { Err("it does not".into()) }
    })
    .unwrap();
    // Both hosts have the address, and one of them answers.
    assert!(on_a.has_vip() && on_b.has_vip());
    let gap = seen.gap_at_change(killed).unwrap();
    println!("killed: {:.1} ms without an answer", gap.millis());
    let macs = || [lan.host("a").unwrap().mac().unwrap(), lan.host("b").unwrap().mac().unwrap()];
    assert_eq!((seen.owners(), seen.returns()), (macs().to_vec(), 0));

    // The first node returns as a backup without the address; then the other one freezes.
    let mut a = on_a.start();
    b.is_armed("a");
    assert!(!on_a.has_vip());
    let frozen = unix_us();
    b.proc.signal(Signal::SIGSTOP).unwrap();
    a.is_master();
    wait::until("the first host to answer again", SOON, || {
        if seen.owners().len() > 2 { Ok(()) } else { Err("it does not".into()) }
    })
    .unwrap();
    println!("frozen: {:.1} ms without an answer", seen.gap_at_change(frozen).unwrap().millis());
    assert!(on_b.has_vip());
    // On waking it finds its hold gone, and never answers.
    b.proc.signal(Signal::SIGCONT).unwrap();
    wait::until("the address to leave the host that was frozen", SOON, || {
        if on_b.has_vip() { Err(b.log()) } else { Ok(()) }
    })
    .unwrap();
    a.is_armed("b");
    let [of_a, of_b] = macs();
    assert_eq!(seen.owners(), [of_a, of_b, of_a]);
    drop(seen);
    b.stops();
    a.proc.signal(Signal::SIGTERM).unwrap();
    assert_eq!(a.ends(), 0);
    for node in [&on_a, &on_b] {
        let left = node.host.exec(&["nft", "list", "ruleset"]).unwrap();
        assert!(!left.contains("keepcall-lease"), "{left}");
    }
}

#[test]
fn an_agent_that_is_killed_and_started_again_in_time_goes_on_with_the_address() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let on_a = node(&lan, &etcd, "a");
    let mut a = on_a.start();
    a.is_master();
    let (seen, before) = (observed(&lan), epoch(&a));
    for _ in 0..3 {
        let killed = unix_us();
        a.proc.signal(Signal::SIGKILL).unwrap();
        a.ends();
        a = on_a.start();
        a.says("is up");
        assert!(on_a.has_vip(), "{}", a.log());
        a.is_master();
        // Longer than the hold left by the process before.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(epoch(&a), before);
        let log = a.log();
        assert!(log.contains("Restarted") && !log.contains("no longer master") && !log.contains("removed"), "{log}");
        let gap = seen.gap_after(killed).unwrap();
        println!("killed and started again: {:.1} ms without an answer", gap.millis());
        assert!(gap.millis() < 200.0, "{} ms without an answer\n{log}", gap.millis());
    }
    a.is_calm();
    a.stops();
    assert!(!on_a.has_vip());
}
