//! Orders to the election besides a switchover: a pause, and forgetting a node. Also its own reaction when the master
//! changes too often.

use lab::lan::Lan;
use lab::node::{Agent, Member, Node, SOON};
use lab::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A node with a check of its server.
fn node(lan: &Lan, name: &str, etcd: &Member) -> Node {
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).checked()
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

fn unfit(agent: &Agent) -> Value {
    agent.comes_to("its server to be seen dead", |s| {
        s["nodes"].as_array().unwrap().iter().any(|n| n["self"] == true && n["fit"] == false)
    })
}

fn all_well(master: &Agent) -> Value {
    master.comes_to("every server to be well", |s| s["nodes"].as_array().unwrap().iter().all(|n| n["fit"] == true))
}

#[test]
fn while_paused_nothing_moves_but_by_an_operator() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (node(&lan, "a", &etcd), node(&lan, "b", &etcd));
    let (mut server_of_a, _server_of_b) = (a.server(), b.server());
    let mut first = a.start();
    first.is_master();
    let second = b.start();
    first.is_armed("b");

    let (code, out, err) = b.run(&["pause", "--reason", "new switches"]);
    assert!(code == 0 && out.contains("NOT replaced"), "{code} {out} {err}");
    for agent in [&first, &second] {
        agent.comes_to("the pause to be shown", |s| s["paused"].as_str().is_some_and(|p| p.contains("new switches")));
    }
    let (_, text, _) = a.run(&["status"]);
    assert!(text.contains("PAUSED") && text.contains("keepcall resume") && text.contains("paused on b"), "{text}");

    // A failed check moves nothing.
    let before = epoch(&first);
    server_of_a.kill();
    unfit(&first);
    // An operator's order does.
    let (code, out, err) = a.run(&["switchover", "--yes"]);
    assert!(code == 0 && out.contains(&format!("b is master (was a), epoch {}", before + 1)), "{code} {out} {err}");
    server_of_a = a.server();
    second.is_armed("a");
    all_well(&second);
    let (code, _, err) = b.run(&["switchover", "--yes"]);
    assert_eq!(code, 0, "{err}");
    first.is_armed("b");

    // The master's host dies. The other node stays backup for longer than the slow way would take, and says so.
    let before = epoch(&second);
    first.proc.signal(Signal::SIGKILL).unwrap();
    first.ends();
    wait::until("the lease of a to run out", SOON, || match etcd.get("nodes/a") {
        None => Ok(()),
        Some(_) => Err("its key is there".into()),
    })
    .unwrap();
    let since = std::time::Instant::now();
    wait::until("two holds to pass", SOON, || {
        let status = second.status()?;
        assert!(status["instances"][0]["role"] == "backup" && status["instances"][0]["epoch"] == before, "{status}");
        if since.elapsed().as_secs() >= 5 { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    assert!(!b.has_vip());

    let (code, out, err) = b.run(&["resume", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && answer["paused"] == false && answer["before"] == true, "{out} {err}");
    second.is_master();
    wait::until("the address at b", SOON, || if b.has_vip() { Ok(()) } else { Err("no".into()) }).unwrap();
    let (code, out, _) = b.run(&["resume"]);
    assert!(code == 0 && out.contains("was not paused"), "{out}");

    // A pause written by hand counts too: it must work while no agent answers.
    etcd.put("paused", "by hand");
    second.comes_to("the pause by hand", |s| s["paused"].as_str().is_some_and(|p| p.contains("cannot be read")));
    let (code, ..) = b.run(&["resume"]);
    assert_eq!(code, 0);
    drop(server_of_a);
    second.stops();
}

#[test]
fn a_node_that_is_gone_is_forgotten_and_one_that_is_up_is_not() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (node(&lan, "a", &etcd), node(&lan, "b", &etcd));
    let (_server_of_a, _server_of_b) = (a.server(), b.server());
    let first = a.start();
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    let members = |agent: &Agent| agent.status().unwrap()["instances"][0]["members"].clone();
    for (name, why) in [("b", "is up"), ("a", "is up"), ("zz", "not a member")] {
        let (code, _, err) = b.run(&["forget", name]);
        assert!(code == 5 && err.contains(why), "{name}: {code} {err}");
    }
    second.stops();
    wait::until("b to be forgotten", SOON, || {
        let (code, out, err) = a.run(&["forget", "b"]);
        if code == 0 && out.contains("b is no longer a member") { Ok(()) } else { Err(format!("{code} {out} {err}")) }
    })
    .unwrap();
    first.comes_to("a to be the only member", |s| s["instances"][0]["members"] == serde_json::json!(["a"]));
    // The node is admitted again on its return.
    let second = b.start();
    first.is_armed("b");
    assert_eq!(members(&first), serde_json::json!(["a", "b"]));
    second.stops();
    first.stops();
}

#[test]
fn changes_that_can_wait_are_held_down_after_too_many() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let budget = |n: Node| n.with("hold = \"2s\"", "hold = \"2s\"\nflap_budget = 2");
    let nodes = [budget(node(&lan, "a", &etcd)), budget(node(&lan, "b", &etcd))];
    let mut servers = [nodes[0].server(), nodes[1].server()];
    let agents = [nodes[0].start(), nodes[1].start()];
    let master = || {
        let at = wait::until("a master with a successor", SOON, || {
            let found = agents.iter().position(|a| {
                a.status()
                    .is_ok_and(|s| s["instances"][0]["role"] == "master" && s["instances"][0]["successor"].is_string())
            });
            found.ok_or_else(|| "nobody".to_owned())
        });
        at.unwrap()
    };
    // The server dies twice, and both times the other node becomes master.
    for _ in 0..2 {
        let (at, before) = (master(), epoch(&agents[0]));
        // The other node must be well by now.
        all_well(&agents[at]);
        servers[at].kill();
        agents[1 - at].comes_to("the other to be master", |s| {
            s["instances"][0]["role"] == "master" && s["instances"][0]["epoch"].as_u64() > Some(before)
        });
        servers[at] = nodes[at].server();
    }
    let (at, before) = (master(), epoch(&agents[0]));
    let status = all_well(&agents[at]);
    let left = status["instances"][0]["held_down_ms"].as_u64().unwrap();
    assert!(left > 0 && left <= 10_000, "{status}");
    servers[at].kill();
    let status = unfit(&agents[at]);
    // While held down it stays, though its server is dead and the other node is well.
    if status["instances"][0]["held_down_ms"].as_u64() > Some(1000) {
        assert_eq!((&status["instances"][0]["role"], epoch(&agents[at])), (&"master".into(), before), "{status}");
        let (_, text, _) = nodes[at].run(&["status"]);
        assert!(text.contains("changed too often"), "{text}");
    }
    // Then it goes by itself.
    agents[1 - at].comes_to("the other to be master in the end", |s| {
        s["instances"][0]["role"] == "master" && s["instances"][0]["epoch"] == before + 1
    });
}
