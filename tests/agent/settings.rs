//! Two real agents with different settings: unequal holds, other addresses, and a rolling change of settings and of
//! releases.

use lab::lan::Lan;
use lab::node::{Agent, Member, Node, SOON};
use lab::witness::Witness;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;

/// The program of an older release, for `releases_are_mixed_step_by_step`; without it, this release.
const OLDER: &str = "KEEPCALL_OLDER";

fn lab() -> (Lan, Member) {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    (lan, etcd)
}

fn node(lan: &Lan, name: &str, etcd: &Member) -> Node {
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).with_sip()
}

/// For each differing setting, the values here and there.
fn differences(status: &Value) -> BTreeSet<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = status["differences"].as_array().unwrap().iter();
    all.map(|d| (text(&d["setting"]), text(&d["here"]), text(&d["there"]))).collect()
}

/// Waits until exactly these settings differ, in any order.
fn differs(agent: &Agent, expected: &[(&str, &str, &str)]) {
    let expected: BTreeSet<_> =
        expected.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
    agent.comes_to(&format!("{expected:?} to differ"), |s| differences(s) == expected);
}

/// Hands over to a node as soon as it is fit.
fn switch(from: &Agent, to: &Agent) {
    let name = to.node.dir.file_name().unwrap().to_string_lossy().into_owned();
    wait::until("the switchover", SOON, || match from.node.run(&["switchover", "--yes", "--to", &name]) {
        (0, ..) => Ok(()),
        (code, out, err) => Err(format!("{code} {out} {err}")),
    })
    .unwrap();
    to.is_master();
}

fn kill(agent: Agent) {
    agent.proc.signal(Signal::SIGKILL).unwrap();
    let mut agent = agent;
    agent.ends();
}

#[test]
fn a_long_hold_and_a_short_one_make_one_master() {
    let (lan, etcd) = lab();
    let b = node(&lan, "b", &etcd).with("hold = \"2s\"", "hold = \"400ms\"").start();
    b.is_master();
    let a = node(&lan, "a", &etcd).start();
    b.is_armed("a");
    let witness = Witness::start(lan.host("obs").unwrap(), &[&a.node.host, &b.node.host]).unwrap();
    switch(&b, &a);
    a.is_armed("b");
    a.comes_to("its own hold to be in force", |s| s["instances"][0]["promise_ms"] == 2000);

    // The long hold is a's own count. b hears nothing of it any more, and by its own count would take over after 400
    // ms.
    let cut = unix_us();
    lan.lose("out", &["a"], &["b", "e1"], 100).unwrap();
    lan.lose("in", &["b", "e1"], &["a"], 100).unwrap();
    b.is_master();
    let seen = witness.finding(cut);
    println!("two hosts for {} ms, silent for {} ms, of {} ms", seen.two_hosts_ms, seen.silence_us / 1000, seen.asked);
    assert_eq!(seen.two_hosts_ms, 0, "{:?}", seen.first_two);
    assert!(seen.asked > 400, "the witness looked for {} ms only", seen.asked);
    lan.pass("out").unwrap();
    lan.pass("in").unwrap();
    b.is_armed("a");
    b.stops();
    a.stops();
}

#[test]
fn a_node_with_other_addresses_never_becomes_master() {
    let (lan, etcd) = lab();
    let a = node(&lan, "a", &etcd);
    let first = a.start();
    first.is_master();
    let stranger = node(&lan, "b", &etcd).with("10.44.0.100/24", "10.44.0.101/24");
    let b = stranger.start();
    differs(&first, &[("addresses", "10.44.0.100/24", "10.44.0.101/24")]);
    differs(&b, &[("addresses", "10.44.0.101/24", "10.44.0.100/24")]);
    for (agent, words) in
        [(&first, ["10.44.0.100/24", "10.44.0.101/24"]), (&b, ["cannot become master", "10.44.0.100/24"])]
    {
        let (code, out, err) = agent.node.run(&["status"]);
        assert!(code == 0 && words.iter().all(|w| out.contains(w)), "{out}{err}");
        agent.says("a setting differs between this node and another");
    }
    let refused = |out: &str| out.contains("has different addresses");
    wait::until("b to be refused", SOON, || {
        let (code, out, err) = a.run(&["switchover", "--yes", "--to", "b"]);
        if code == 5 && refused(&out) { Ok(()) } else { Err(format!("{code} {out} {err}")) }
    })
    .unwrap();
    let status = first.status().unwrap();
    assert!(status["instances"][0]["successor"].is_null(), "{status}");

    // It does not take over slowly either, which would raise the epoch.
    let epoch = &status["instances"][0]["epoch"];
    assert!(epoch.is_u64(), "{status}");
    kill(first);
    wait::until("the master's sign of life to be gone", SOON, || match etcd.get("instances/sip/alive") {
        None => Ok(()),
        Some(alive) => Err(alive),
    })
    .unwrap();
    let until = unix_us() + 3_000_000;
    wait::until("a hold to be over", SOON, || if unix_us() > until { Ok(()) } else { Err("not yet".into()) }).unwrap();
    let again = a.start();
    let after = again.is_master();
    assert!(&after["instances"][0]["epoch"] == epoch && !stranger.has_vip(), "{after}\n{}", b.log());
    b.stops();

    // Once corrected, it is armed.
    let b = node(&lan, "b", &etcd).start();
    again.is_armed("b");
    differs(&again, &[]);
    // The master returns with other addresses: then the other node, which has the instance's addresses, is master.
    kill(again);
    let a = a.with("10.44.0.100/24", "10.44.0.102/24").start();
    b.is_master();
    a.comes_to("a to say why it is none", |s| {
        s["instances"][0]["reason"].as_str().is_some_and(|r| r.contains("10.44.0.100"))
    });
    assert!(!a.node.host.has_address("10.44.0.102".parse().unwrap()).unwrap(), "{}", a.log());
    b.stops();
    a.stops();
}

#[test]
fn a_rolling_change_of_settings_has_failover_in_force_at_each_step() {
    let (lan, etcd) = lab();
    let old = |name: &str| node(&lan, name, &etcd);
    let new = |name: &str| old(name).with("hold = \"2s\"", "hold = \"1s\"").with("10000-20000", "20000-30000");
    let a = old("a").start();
    a.is_master();
    let b = old("b").start();
    a.is_armed("b");
    b.stops();
    let b = new("b").start();
    a.is_armed("b");
    differs(&a, &[("sip.media_ports", "10000-20000", "20000-30000"), ("timing.hold", "2s", "1s")]);
    kill(a);
    b.is_master();
    b.comes_to("its hold to be in force", |s| s["instances"][0]["promise_ms"] == 1000);
    // A step back, as when the change turns out wrong: the long hold again, on a, armed below the short one.
    let a = old("a").start();
    b.is_armed("a");
    kill(b);
    a.is_master();
    a.comes_to("its hold to be in force", |s| s["instances"][0]["promise_ms"] == 2000);
    let b = new("b").start();
    a.is_armed("b");
    kill(a);
    b.is_master();
    let a = new("a").start();
    b.is_armed("a");
    differs(&b, &[]);
    b.stops();
    a.is_master();
    a.stops();
}

/// Uses the older release in `KEEPCALL_OLDER`; without it, this release stands in.
#[test]
fn releases_are_mixed_step_by_step() {
    let program = std::env::var(OLDER).unwrap_or_else(|_| lab::node::keepcall());
    println!("the older release is {program}");
    let (lan, etcd) = lab();
    let new = |name: &str| node(&lan, name, &etcd);
    let old = |name: &str| Node { program: program.clone(), ..new(name) };
    let a = old("a").start();
    a.is_master();
    // The old node arms the new one; then takeover, handover, and back.
    let b = new("b").start();
    a.is_armed("b");
    if program != lab::node::keepcall() {
        differs(&b, &[("timing.hold", "2s", "not told")]);
    }
    switch(&a, &b);
    b.is_armed("a");
    switch(&b, &a);
    a.is_armed("b");
    kill(a);
    b.is_master();
    // The new node arms the old one, which takes over.
    let a = old("a").start();
    b.is_armed("a");
    kill(b);
    a.is_master();
    let b = new("b").start();
    a.is_armed("b");
    // The upgrade of the second node moves nothing but the handover at its stop.
    a.stops();
    b.is_master();
    let a = new("a").start();
    b.is_armed("a");
    differs(&b, &[]);
    b.comes_to("the hold to be told", |s| s["instances"][0]["promise_ms"] == 2000);
    b.stops();
    a.is_master();
    a.stops();
}
