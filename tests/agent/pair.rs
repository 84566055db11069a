//! Two real agents with conflicting settings, and foreign changes to what is theirs: keys in etcd, the address,
//! nftables.

use lab::lan::{Lan, VIP4};
use lab::node::{self, Agent, Member, Node, SOON};
use lab::wait;
use serde_json::Value;

fn start_pair(lan: &Lan, etcd: &Member) -> (Agent, Agent) {
    let node = |name: &str| Node::new(lan.host(name).unwrap(), name, &etcd.url()).with_sip();
    let a = node("a").start();
    a.is_master();
    let b = node("b").start();
    a.is_armed("b");
    (a, b)
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

#[test]
fn nodes_that_do_not_belong_together_are_told_apart() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let a = Node::new(lan.host("a").unwrap(), "a", &etcd.url());
    let b = Node::new(lan.host("b").unwrap(), "b", &etcd.url());
    let first = a.start();
    first.is_master();

    // Another key.
    b.key(b"another key, which is long enough to be one");
    let second = b.start();
    // Only a master sends heartbeats; a heartbeat that is not accepted gets no answer.
    second.says("heartbeat refused");
    assert!(second.log().contains("key_file") && second.log().contains("10.44.0.1:"), "{}", second.log());
    let against = |out: &str| out.contains("was never heard") && out.contains("key_file");
    wait::until("b to be a candidate", SOON, || {
        let (code, out, err) = a.run(&["switchover", "--yes", "--to", "b"]);
        if code == 5 && against(&out) && against(&err) { Ok(()) } else { Err(format!("{code} {out} {err}")) }
    })
    .unwrap();
    first.is_calm();
    second.is_calm();
    assert!(a.has_vip() && !b.has_vip());
    second.stops();
    b.key(b"0123456789abcdef0123456789abcdef");

    // The same name: the later agent stays quiet until the name is free.
    let twin = b.clone().with("name = \"b\"", "name = \"a\"");
    let other = twin.start();
    other.says("uses the name of this node");
    let status = other
        .comes_to("its status", |s| s["instances"][0]["reason"].as_str().is_some_and(|r| r.contains("10.44.0.1:")));
    assert_eq!(status["instances"][0]["role"], "unknown", "{status}");
    first.is_calm();
    other.is_calm();
    assert!(a.has_vip() && !b.has_vip());
    let before = epoch(&first);
    assert!(!first.log().contains("no longer master"), "{}", first.log());
    first.stops();
    other.is_master();
    assert!(b.has_vip() && !a.has_vip() && epoch(&other) >= before);
    other.stops();
}

#[test]
fn keys_in_etcd_that_somebody_spoils() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    // At the start: nonsense under every key that an agent reads.
    let huge = "x".repeat(1_000_000);
    for (key, value) in [
        ("nodes/b", "nonsense"),
        ("nodes/zz", "{\"schema\":99}"),
        ("instances/sip/tickets/a", "nonsense"),
        ("instances/sip/writer", "nonsense"),
        ("instances/sip/calls/00ff00ff00ff00ff00ff00ff", "{\"schema\":1}"),
        ("instances/sip/calls/weird key", "[]"),
        ("instances/sip/calls/huge", &huge),
        ("instances/sip/history/00000000000000000000", "nonsense"),
    ] {
        etcd.put(key, value);
    }
    let (a, b) = start_pair(&lan, &etcd);
    assert!(a.node.has_vip());
    for word in
        ["nodes/zz", "calls/00ff00ff00ff00ff00ff00ff", "calls/weird key", "calls/huge", "etcdctl del", "sip/writer"]
    {
        a.says(word);
    }
    let log = a.log();
    assert!(!log.contains("xxxxx") && log.len() < 20_000, "{} bytes", log.len());
    let own = epoch(&a).to_string();
    wait::until("the writer's key to be right", SOON, || match etcd.get("instances/sip/writer") {
        Some(v) if v == own => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    let (code, out, _) = a.node.run(&["history"]);
    assert!(code == 0 && out.contains("first"), "{out}");
    a.says("history/00000000000000000000");

    // While they run: one key after the other, and nothing moves.
    let record = etcd.get("instances/sip/record").unwrap();
    for key in ["nodes/a", "nodes/b", "instances/sip/alive", "instances/sip/tickets/a", "instances/sip/tickets/b"] {
        etcd.put(key, "nonsense");
        wait::until(&format!("{key} to be put right"), SOON, || match etcd.get(key) {
            Some(v) if v == "nonsense" && !key.contains("tickets") => Err(v),
            _ => Ok(()),
        })
        .unwrap();
        a.is_armed("b");
    }
    a.says("nodes/a");
    etcd.put("instances/sip/history/00000000000000000001", "nonsense");
    etcd.put("instances/sip/writer", "nonsense");
    etcd.ctl(&["del", "--prefix", &node::path("instances/sip/alive")]);
    a.is_armed("b");
    // The record itself: the master stays, reports the problem, and continues once the record is repaired.
    etcd.put("instances/sip/record", "nonsense");
    let problem = |s: &Value| s["instances"][0]["reason"].as_str().is_some_and(|r| r.contains("needs repair"));
    for agent in [&a, &b] {
        let status = agent.comes_to("the problem to be told", problem);
        let reason = status["instances"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("instances/sip/record") && reason.contains("etcdctl"), "{reason}");
        agent.is_calm();
    }
    assert!(a.node.has_vip() && !b.node.has_vip());
    etcd.put("instances/sip/record", &record);
    let before: Value = serde_json::from_str(&record).unwrap();
    a.comes_to("the repair to be seen", |s| !problem(s));
    a.is_armed("b");
    let now: Value = serde_json::from_str(&etcd.get("instances/sip/record").unwrap()).unwrap();
    assert_eq!(now["epoch"], before["epoch"], "nothing may have moved: {now}");
    // The living master writes a deleted record again.
    etcd.ctl(&["del", &node::path("instances/sip/record")]);
    wait::until("the record to be written again", SOON, || {
        etcd.get("instances/sip/record").map(drop).ok_or("gone".into())
    })
    .unwrap();
    a.is_armed("b");
    let now: Value = serde_json::from_str(&etcd.get("instances/sip/record").unwrap()).unwrap();
    assert!(
        now["epoch"] == before["epoch"] && a.node.has_vip() && !a.log().contains("no longer master"),
        "{now}\n{}",
        a.log()
    );
    for agent in [a, b] {
        agent.is_calm();
        assert!(!agent.log().contains("panicked"));
        agent.stops();
    }
}

#[test]
fn the_address_and_the_tables_are_put_back() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = start_pair(&lan, &etcd);
    let before = epoch(&a);
    for _ in 0..2 {
        let cidr = format!("{VIP4}/24");
        a.node.host.exec(&["ip", "addr", "del", &cidr, "dev", "eth0"]).unwrap();
        wait::until("the address to be put back", SOON, || {
            if a.node.has_vip() { Ok(()) } else { Err("it is away".into()) }
        })
        .unwrap();
    }
    a.says("another program removed the address");
    for agent in [&a, &b] {
        let host = &agent.node.host;
        let before = tables(agent);
        assert!(before.contains("keepcall-fence-sip"), "{before}");
        host.exec(&["nft", "flush", "ruleset"]).unwrap();
        wait::until("the tables to be put back", SOON, || {
            let now = tables(agent);
            if now == before { Ok(()) } else { Err(now) }
        })
        .unwrap();
        agent.says("another program deleted the fence");
        agent.says("another program deleted the kernel lease");
        agent.is_calm();
    }
    assert_eq!(epoch(&a), before);
    a.stops();
    b.stops();
}

/// The rules of all tables, without counters and without the holds.
fn tables(agent: &Agent) -> String {
    let text = agent.node.host.exec(&["nft", "-s", "list", "ruleset"]).unwrap();
    text.lines().filter(|l| !l.contains("epoch")).collect::<Vec<_>>().join("\n")
}
