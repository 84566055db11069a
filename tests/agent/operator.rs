//! The command line against real agents: its output for the operator, and the exit codes.

use lab::lan::Lan;
use lab::node::{self, Member, Node, SOON};
use lab::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn commands_without_an_agent_say_where_it_should_be() {
    let lan = Lan::new().unwrap();
    let host = lan.host("a").unwrap();
    let node = Node::new(host, "a", "http://10.44.0.11:2379");
    for command in ["status", "calls", "history", "switchover"] {
        let (code, out, err) = node.run(&[command]);
        assert!(
            code == 4 && out.is_empty() && err.contains("no agent at") && err.contains("systemctl start"),
            "{command}: {err}"
        );
        let (code, _, err) = node.run(&[command, "--socket", "/proc/version"]);
        assert!(code == 4 && err.contains("/proc/version"), "{command}: {code} {err}");
    }
    // A killed agent leaves its socket, and the next one takes it over.
    let mut agent = node.start();
    agent.comes_to("its status", |s| s["node"] == "a");
    // Another user has no permission.
    let socket = node.socket();
    let argv = [
        "setpriv",
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        &lab::node::keepcall(),
        "status",
        "--socket",
        socket.to_str().unwrap(),
    ];
    let (code, _, err) = node::said(&host.command(&argv).output().unwrap());
    assert!(code == 4 && err.contains("permission denied") && err.contains("group"), "{code} {err}");
    agent.proc.signal(Signal::SIGKILL).unwrap();
    agent.ends();
    let (code, _, err) = node.run(&["status"]);
    assert!(code == 4 && err.contains("stopped without removing its socket"), "{err}");
    let agent = node.start();
    agent.comes_to("its status", |s| s["node"] == "a");
    // History needs etcd, and says so.
    let (code, out, err) = node.run(&["history", "--json"]);
    assert!(code == 1 && err.contains("etcd") && out.contains("\"error\""), "{code} {out} {err}");
    for command in ["calls", "history", "switchover"] {
        let (code, _, err) = node.run(&[command, "nonsense"]);
        assert!(code == 2 && err.contains("nonsense") && err.contains("`keepcall status`"), "{command}: {code} {err}");
    }
    let (code, _, err) = node.run(&["switchover", "--yes"]);
    assert!(code == 5 && err.contains("no node is master"), "{code} {err}");
    agent.stops();
}

#[test]
fn a_switchover_and_every_reason_against_it() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let node = |name: &str| Node::new(lan.host(name).unwrap(), name, &etcd.url()).checked();
    let (a, b) = (node("a"), node("b"));
    let (_server_of_a, mut server_of_b) = (a.server(), b.server());
    let first = a.start();
    first.is_master();
    let (code, out, err) = a.run(&["switchover", "--yes"]);
    assert!(code == 5 && err.contains("no other node"), "{code} {out} {err}");

    let second = b.start();
    first.is_armed("b");
    let (code, _, err) = a.run(&["switchover", "--yes", "--to", "a"]);
    assert!(code == 5 && err.contains("already the master"), "{code} {err}");
    let (code, _, err) = a.run(&["switchover", "--yes", "--to", "zz"]);
    assert!(code == 2 && err.contains("\"zz\""), "{code} {err}");
    let (code, out, err) = a.run(&["switchover"]);
    assert!(code == 5 && err.contains("--yes") && out.contains("can take over"), "{code} {out} {err}");

    // The server of b dies, and comes back.
    server_of_b.kill();
    wait::until("b to be unfit", SOON, || {
        // Without a terminal there is no question, so this only shows the table.
        let (code, out, err) = a.run(&["switchover", "--to", "b"]);
        if code == 5 && err.contains("not fit") && out.contains("not fit") {
            Ok(())
        } else {
            Err(format!("{code} {out} {err}"))
        }
    })
    .unwrap();
    let (code, out, _) = a.run(&["switchover", "--yes", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 5 && answer["candidates"]["candidates"][0]["against"][0].is_string(), "{out}");
    let (_, text, _) = b.run(&["status"]);
    assert!(text.contains("FAILED") && text.contains("NOT fit"), "{text}");
    server_of_b = b.server();

    wait::until("the switchover", SOON, || {
        let (code, out, err) = a.run(&["switchover", "--yes"]);
        if code == 0 && out.contains("sip: b is master (was a), epoch ") {
            Ok(())
        } else {
            Err(format!("{code} {out} {err}"))
        }
    })
    .unwrap();
    wait::until("the address at b", SOON, || if b.has_vip() && !a.has_vip() { Ok(()) } else { Err("no".into()) })
        .unwrap();
    second.is_armed("a");

    // A request on the backup: the master does it, and its refusals come back.
    let (code, out, err) = a.run(&["switchover", "--to", "a"]);
    assert!(
        code == 5 && out.contains("master b") && out.contains("can take over") && err.contains("--yes"),
        "{out}{err}"
    );
    let (code, _, err) = a.run(&["switchover", "--yes", "--to", "b"]);
    assert!(code == 5 && err.contains("already the master"), "{code} {err}");
    let (code, out, err) = a.run(&["switchover", "--yes"]);
    assert!(code == 0 && out.contains("a is master (was b), epoch "), "{code} {out} {err}");
    assert_eq!(etcd.get("instances/sip/wishes/").or_else(|| etcd.get("instances/sip/answers/")), None);
    first.is_armed("b");
    let (code, out, err) = b.run(&["switchover", "--yes", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && answer["to"] == "b" && answer["from"] == "a", "{code} {out} {err}");
    // Foreign content there is left alone, and logged.
    etcd.put("instances/sip/wishes/x", "nonsense");
    second.says("sip/wishes/x");
    second.is_armed("a");

    // SIGTERM right after a takeover has begun: the address goes back in order, or stays. It is never on both nodes,
    // and never lost.
    let (code, _, err) = b.run(&["switchover", "--yes"]);
    assert_eq!(code, 0, "{err}");
    first.stops();
    second.is_master();
    assert!(b.has_vip() && !a.has_vip());
    let (code, out, _) = b.run(&["history"]);
    assert!(
        code == 0 && out.contains("a -> b") && out.contains("b -> a") && out.contains("switchover by an operator"),
        "{out}"
    );
    second.is_calm();
    second.stops();
    drop(server_of_b);
}
