//! Real agents while a real etcd of three members fails in every possible way.

mod scene;

use lab::authority::Authority;
use lab::etcd_cluster::EtcdCluster;
use lab::lan::{Host, Lan};
use lab::node::{self, SOON, secret};
use lab::{unix_us, wait};
use scene::{HOLD, Scene, outage};
use std::time::{Duration, Instant};

/// Several holds: whatever rests on promises alone is lost by then.
const FAULT: Duration = Duration::from_secs(4);

#[test]
fn a_member_dies_freezes_or_is_cut_off() {
    scene::each(["killed", "frozen", "cut off"], |fault| {
        // Every agent uses the first member at the start, and later whichever served it last.
        let mut s = Scene::new(2);
        for member in 0..if fault == "killed" { 1 } else { 3 } {
            let what = format!("member {member} {fault}");
            match fault {
                "killed" => s.etcd.kill(member),
                "frozen" => s.etcd.freeze(member),
                _ => s.etcd.cut(member),
            }
            let reasons = if fault == "killed" { ["refused", "broke"] } else { ["did not answer", "deadline"] };
            s.stays(&what, Duration::from_secs(2));
            for agent in &s.agents {
                agent.comes_to("the member to be named", |s| {
                    let e = &s["etcd"]["endpoints"][member];
                    s["etcd"]["healthy"] == true
                        && e["healthy"] == false
                        && e["error"].as_str().is_some_and(|e| reasons.iter().any(|r| e.contains(r)))
                });
            }
            match fault {
                "killed" => s.etcd.launch(member),
                "frozen" => s.etcd.thaw(member),
                _ => s.etcd.heal(member),
            }
            s.returns(&what);
        }
        s.switches_over();
    });
}

#[test]
fn the_leader_changes() {
    scene::each([["moved", "killed"], ["frozen", "cut off from the other members"]], |changes| {
        let mut s = Scene::new(2);
        for change in changes {
            let old = s.etcd.leader();
            match change {
                "moved" => {
                    let new = s.etcd.id((old + 1) % 3);
                    s.etcd.try_ctl_at(old, &["move-leader", &new]).map(drop).unwrap();
                }
                "killed" => s.etcd.kill(old),
                "frozen" => s.etcd.freeze(old),
                _ => s.etcd.cut_peers(old),
            }
            s.stays(&format!("leader {change}"), FAULT);
            assert_ne!(s.etcd.leader(), old, "the leader did not change");
            match change {
                "moved" => {}
                "killed" => s.etcd.launch(old),
                "frozen" => s.etcd.thaw(old),
                _ => s.etcd.heal(old),
            }
            s.returns(&format!("leader {change}"));
        }
        s.switches_over();
    });
}

#[test]
fn all_of_etcd_is_down_for_long() {
    let mut s = Scene::new(3);
    for round in ["killed", "frozen"] {
        (0..3).for_each(|i| if round == "killed" { s.etcd.kill(i) } else { s.etcd.freeze(i) });
        let span = if round == "killed" { outage() } else { outage() / 3 };
        s.stays(round, span);
        let status = s.agents[0].comes_to("failsafe", |s| s["instances"][0]["hold"]["kind"] == "failsafe");
        assert_eq!(status["etcd"]["healthy"], false, "{status}");
        for e in status["etcd"]["endpoints"].as_array().unwrap() {
            assert!(e["healthy"] == false && e["error"].as_str().is_some_and(|e| !e.is_empty()), "{status}");
        }
        let (code, text, _) = s.agents[0].node.run(&["status"]);
        for words in ["NOT healthy (0 of 3 endpoints)", "failsafe", &s.etcd.urls[0], &s.etcd.urls[1], &s.etcd.urls[2]] {
            assert!(code == 0 && text.contains(words), "{words:?} is not in\n{text}");
        }
        // An impossible order is refused with a reason, and moves nothing.
        let (code, out, err) = s.agents[0].node.run(&["switchover", "--yes"]);
        assert!(
            code != 0 && out.contains("etcd is unavailable, and a change of master needs etcd"),
            "{code} {out} {err}"
        );
        (0..3).for_each(|i| if round == "killed" { s.etcd.launch(i) } else { s.etcd.thaw(i) });
        s.returns(&format!("all members {round} for {span:?}"));
        s.agents.iter().for_each(node::Agent::is_calm);
    }
    s.switches_over();
}

#[test]
fn without_etcd_a_lost_member_ends_the_hold() {
    let mut s = Scene::new(3);
    (0..3).for_each(|i| s.etcd.kill(i));
    // The successor's lease runs out, and so does its vouching.
    s.agents[0].comes_to("failsafe", |s| s["instances"][0]["hold"]["kind"] == "failsafe");
    let killed = unix_us();
    s.kill_agent(2);
    s.nobody_answers(HOLD * 3);
    let rest = Duration::from_micros(s.last_answer().saturating_sub(killed));
    println!("a member lost while etcd is down: the address was let go {rest:.2?} later");
    assert!(rest < HOLD + Duration::from_millis(500), "held for {rest:?}");
    for status in s.statuses().iter().take(2) {
        assert_ne!(status["instances"][0]["role"], "master", "{status}");
    }
    let (_, text, _) = s.agents[0].node.run(&["status"]);
    assert!(text.contains("NOT healthy"), "{text}");
    let dead = s.agents.remove(2);
    let since = Instant::now();
    (0..3).for_each(|i| s.etcd.launch(i));
    wait::until(
        "the address to come back",
        SOON,
        || if s.observer.is_answered() { Ok(()) } else { Err(String::new()) },
    )
    .unwrap();
    println!("it came back {:.2?} after etcd was started", since.elapsed());
    s.agents.push(dead.node.start());
    let master = wait::until("a master", SOON, || (0..3).find(|&i| s.holds(i)).ok_or_else(String::new)).unwrap();
    s.agents.swap(0, master);
    s.settle(0);

    // The master dies while etcd is down: no node can know that it is dead.
    (0..3).for_each(|i| s.etcd.kill(i));
    s.agents[0].comes_to("failsafe", |s| s["instances"][0]["hold"]["kind"] == "failsafe");
    s.kill_agent(0);
    // The dead agent's address still answers, which is another test's matter. Its host is cut off, as if without power.
    let name = s.agents[0].node.host.name.clone();
    s.lan.cut(&name).unwrap();
    s.nobody_answers(HOLD * 4);
    s.agents.remove(0);
    let since = Instant::now();
    (0..3).for_each(|i| s.etcd.launch(i));
    wait::until(
        "the address to come back",
        SOON,
        || if s.observer.is_answered() { Ok(()) } else { Err(String::new()) },
    )
    .unwrap();
    println!("the master lost while etcd is down: taken over {:.2?} after etcd was started", since.elapsed());
    let count = (0..s.agents.len()).filter(|&i| s.holds(i)).count();
    assert_eq!(count, 1, "{:?}", s.statuses());
}

#[test]
fn the_master_dies_together_with_the_member_that_all_use() {
    scene::each([false, true], |leader| {
        // One time-out would be longer than the whole allowance here.
        let mut s = Scene::with(2, |n| {
            n.with("timeout = \"2s\"", "timeout = \"4s\"").with("lease_ttl = \"6s\"", "lease_ttl = \"13s\"")
        });
        let now = s.etcd.leader();
        if (now == 0) != leader {
            let to = if leader { 0 } else { 1 };
            s.etcd.try_ctl_at(now, &["move-leader", &s.etcd.id(to)]).unwrap();
            assert_eq!(s.etcd.leader(), to);
            s.returns("leader moved");
        }
        let event = unix_us();
        s.etcd.cut(0);
        s.lan.cut("a").unwrap();
        let gap =
            wait::until("the successor to answer", SOON, || s.observer.gap_at_change(event).map_err(|e| e.to_string()))
                .unwrap();
        println!("master and its etcd member lost at once (leader: {leader}): silent for {:.0} ms", gap.millis());
        let limit = if leader { 5000.0 } else { 3500.0 };
        assert!(gap.millis() < limit, "{}\n{}", gap.millis(), s.agents[1].log());
    });
}

#[test]
fn hands_that_revoke_leases_and_delete_keys() {
    let mut s = Scene::new(3);
    let leases = |s: &Scene| -> Vec<String> {
        let text = s.etcd.ctl(&["lease", "list"]);
        text.lines().skip(1).map(|l| l.trim().to_owned()).collect()
    };
    // One after the other, the master's among them, and then all at once.
    for lease in leases(&s) {
        let _ = s.etcd.try_ctl(&["lease", "revoke", &lease]);
        s.stays("lease revoked", Duration::from_millis(400));
        s.returns("lease revoked");
    }
    for lease in leases(&s) {
        let _ = s.etcd.try_ctl(&["lease", "revoke", &lease]);
    }
    s.stays("all leases revoked", FAULT);
    s.returns("all leases revoked");
    for key in
        ["nodes/", "instances/sip/alive", "instances/sip/tickets/", "instances/sip/history/", "instances/sip/calls/"]
    {
        s.etcd.ctl(&["del", "--prefix", &node::path(key)]);
        s.stays(key, Duration::from_millis(400));
        s.returns(&format!("{key} deleted"));
    }
    // The master, whose sign of life still stands, writes the record again.
    let before = s.since();
    s.etcd.ctl(&["del", "--prefix", &node::path("instances/sip/record")]);
    s.settle(0);
    println!("the record deleted: silent for {:.0} ms", s.observer.gap_after(before).unwrap().millis());
    assert_eq!(s.observer.owners().len(), 1, "the record deleted: it moved");
    s.stays("the record deleted", Duration::from_secs(1));
    s.returns("the record deleted");
    s.switches_over();
    // Without any key there is no rightful master. The holder knows that no other node held, and begins anew; all
    // others wait.
    let before = s.since();
    s.etcd.ctl(&["del", "--prefix", &node::path("")]);
    s.begins_anew();
    assert_eq!(s.observer.owners().len(), 2, "all keys deleted: it moved");
    println!("all keys deleted: silent for {:.0} ms", s.observer.gap_after(before).unwrap().millis());
    s.stays("all keys deleted", Duration::from_secs(1));
    s.returns("all keys deleted");
}

#[test]
fn the_record_is_deleted_and_its_master_dies() {
    let mut s = Scene::new(3);
    let before = s.since();
    s.kill_agent(0);
    s.etcd.ctl(&["del", &node::path("instances/sip/record")]);
    let dead = s.agents.remove(0);
    // Four seconds in which another node may still vouch for the dead master, and a lease of six; its kernel answers
    // for one of them.
    let found = wait::until("another master", Duration::from_secs(12), || {
        (0..2).find(|i| s.holds(*i)).ok_or_else(|| s.agents[0].log())
    });
    s.agents.swap(0, found.unwrap());
    s.agents.push(dead.node.start());
    s.settle(0);
    let silence = s.observer.gap_after(before).unwrap().millis();
    println!("the record deleted and its master dead: silent for {silence:.0} ms");
    assert!(silence > 8_900.0, "it was too early for a vouch to have run out: {silence:.0} ms");
    assert_eq!(s.observer.returns(), 0, "two hosts in turn");
}

#[test]
fn etcd_goes_backwards() {
    let mut s = Scene::new(2);
    let snapshot = s.etcd.save();
    // The restored data names another master, and another epoch.
    s.switches_over();
    for fault in ["restored from a snapshot", "emptied", "exchanged for another cluster"] {
        let count = |s: &serde_json::Value| s["etcd"]["changed"]["count"].as_u64().unwrap_or(0);
        let before: Vec<u64> = s.statuses().iter().map(count).collect();
        match fault {
            "emptied" => s.etcd.begin_anew("faults"),
            "exchanged for another cluster" => s.etcd.begin_anew("others"),
            _ => s.etcd.restore(&snapshot),
        }
        let since = Instant::now();
        for (agent, before) in s.agents.iter().zip(before) {
            agent.comes_to(&format!("it to be told that etcd was {fault}"), |s| count(s) > before);
        }
        println!("etcd {fault}: told {:.2?} after it answered", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(1), "{:.2?}", since.elapsed());
        s.returns(&format!("etcd {fault}"));
        let (_, text, _) = s.agents[0].node.run(&["history"]);
        assert!(text.contains("etcd went back") || text.contains("another etcd cluster"), "{text}");
        // A dying master is replaced as always.
        let before = s.since();
        s.kill_agent(0);
        let dead = s.agents.remove(0);
        wait::until("the other one to take over", HOLD * 4, || if s.holds(0) { Ok(()) } else { Err(dead.log()) })
            .unwrap();
        s.agents.push(dead.node.start());
        s.settle(0);
        println!("etcd {fault}, master killed: silent for {:.0} ms", s.observer.gap_after(before).unwrap().millis());
    }
    // One member alone does not make all others doubt.
    s.etcd.launch_alone(2);
    for agent in &s.agents {
        agent.comes_to("the foreign member to be named", |s| {
            let e = &s["etcd"]["endpoints"][2];
            s["etcd"]["healthy"] == true
                && e["error"].as_str().is_some_and(|e| e.contains("belongs to another etcd cluster"))
        });
    }
    s.stays("a member of another cluster", Duration::from_secs(1));
    s.etcd.kill(2);
    s.etcd.launch(2);
    s.returns("a member of another cluster");
}

#[test]
fn history_is_compacted_while_watches_lag() {
    let mut s = Scene::new(2);
    // The watches of both agents lag by the events during the freeze of their member.
    s.etcd.freeze(0);
    for i in 0..40 {
        let put = wait::until("a put", SOON, || {
            s.etcd.try_ctl_at(1, &["put", &node::path("instances/sip/calls/x"), &i.to_string()])
        });
        put.unwrap();
    }
    let text = s.etcd.try_ctl_at(1, &["endpoint", "status", "-w", "json"]).unwrap();
    let revision =
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["Status"]["header"]["revision"].to_string();
    s.etcd.try_ctl_at(1, &["compact", &revision]).unwrap();
    s.etcd.thaw(0);
    s.etcd.answers();
    for _ in 0..3 {
        s.etcd.ctl(&["defrag"]);
        s.stays("compacted and defragmented", Duration::from_millis(500));
    }
    s.etcd.ctl(&["del", &node::path("instances/sip/calls/x")]);
    s.returns("compaction and defrag");
    s.switches_over();
}

#[test]
fn etcd_has_no_space_left() {
    let lan = Lan::new().unwrap();
    let quota = ["--quota-backend-bytes", "3000000"].map(str::to_owned).to_vec();
    let mut etcd = EtcdCluster::new(&lan, quota, &|_| Vec::new(), Vec::new());
    etcd.launch_all();
    let nodes = ["a", "b"].map(|h| scene::node(&lan, h, &etcd.endpoints())).to_vec();
    let mut s = Scene::of(lan, etcd, nodes);
    wait::until("etcd to be full", SOON, || {
        let put = s.etcd.try_fed(&["put", "/other"], &"x".repeat(1_000_000));
        if put { Err("it takes writes".into()) } else { Ok(()) }
    })
    .unwrap();
    for agent in &s.agents {
        // Before one of its own writes hits the alarm.
        agent.comes_to("the alarm of a member", |s| {
            let told = |e: &serde_json::Value| e["alarm"].as_str().is_some_and(|a| a.contains("alarm disarm"));
            s["etcd"]["endpoints"].as_array().is_some_and(|all| all.iter().any(told))
        });
    }
    // A new lease is a write, and sends the agent to other members.
    let leases = s.etcd.ctl(&["lease", "list"]);
    for lease in leases.lines().skip(1) {
        let _ = s.etcd.try_ctl(&["lease", "revoke", lease.trim()]);
    }
    for agent in &s.agents {
        agent.comes_to("the lack of space to be told", |s| {
            s["etcd"]["healthy"] == false && s["etcd"]["error"].as_str().is_some_and(|e| e.contains("alarm disarm"))
        });
    }
    s.stays("no space", FAULT);
    s.agents[0].comes_to("failsafe", |s| s["instances"][0]["hold"]["kind"] == "failsafe");
    s.etcd.ctl(&["del", "/other"]);
    let text = s.etcd.try_ctl_at(1, &["endpoint", "status", "-w", "json"]).unwrap();
    let revision =
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["Status"]["header"]["revision"].to_string();
    s.etcd.ctl(&["compact", &revision]);
    s.etcd.ctl(&["defrag"]);
    s.etcd.ctl(&["alarm", "disarm"]);
    s.returns("no space left");
    s.switches_over();
}

#[test]
fn the_disks_of_etcd_are_slow() {
    let mut s = Scene::slow_disks(2);
    for delay in ["150ms", "1500ms"] {
        s.etcd.slow_disks(delay);
        let since = Instant::now();
        let _ = s.etcd.try_ctl(&["put", &node::path("instances/sip/calls/x"), ""]);
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(150), "the disks are not slow: {took:?}");
        s.stays(&format!("each write takes {delay}"), Duration::from_secs(5));
        s.etcd.fast_disks();
        let _ = s.etcd.ctl(&["del", &node::path("instances/sip/calls/x")]);
        s.returns(&format!("each write of etcd to its disk took {delay}"));
    }
    // A slow disk is no reason to refuse a handover.
    s.etcd.slow_disks("60ms");
    s.switches_over();
    s.etcd.fast_disks();
    s.returns("switchover with slow disks");
}

#[test]
fn tokens_expire_and_are_forgotten_behind_tls() {
    // Both kinds of token: etcd forgets simple ones at a restart; jwt ones expire by their own time, used or not.
    scene::each(["simple", "jwt"], |kind| {
        let lan = Lan::new().unwrap();
        let authority = Authority::new(lan.dir(), "ca");
        let ca = authority.file.display().to_string();
        let shared = lan.dir().join("jwt.key");
        secret(&shared, "a secret that all members share, for their tokens");
        let token = match kind {
            "jwt" => format!("jwt,priv-key={},sign-method=HS256,ttl=2s", shared.display()),
            _ => "simple".to_owned(),
        };
        let each = |host: &Host| {
            let (cert, key) = authority.issue(lan.dir(), &host.ip4.to_string());
            ["--cert-file", &cert, "--key-file", &key].iter().map(|s| (*s).to_owned()).collect()
        };
        let all = ["--auth-token", &token, "--auth-token-ttl", "1", "--bcrypt-cost", "4"];
        let all = all.iter().map(|s| (*s).to_owned()).collect();
        let mut etcd = EtcdCluster::new(&lan, all, &each, vec![format!("--cacert={ca}")]);
        etcd.launch_all();
        etcd.authenticate("pass word");
        let nodes = ["a", "b"].map(|host| {
            let node = scene::node(&lan, host, &etcd.endpoints());
            let password = node.dir.join("password");
            secret(&password, "pass word\n");
            node.with(
                "[etcd]\n",
                &format!("[etcd]\nca_file = \"{ca}\"\nuser = \"kc\"\npassword_file = \"{}\"\n", password.display()),
            )
        });
        let mut s = Scene::of(lan, etcd, nodes.into());
        // Every token expires several times.
        s.stays(&format!("{kind} tokens expire"), Duration::from_secs(5));
        s.returns(&format!("{kind} tokens expire"));
        for i in 0..3 {
            s.etcd.kill(i);
            s.etcd.launch(i);
            s.stays(&format!("{kind} member restarted"), Duration::from_secs(1));
            s.etcd.answers();
        }
        s.returns(&format!("{kind} tokens forgotten by restarts of all members"));
        // Changes to the user store invalidate older tokens of this kind.
        s.etcd.ctl(&["user", "add", "other:o"]);
        s.etcd.ctl(&["role", "add", "more"]);
        s.stays(&format!("{kind} users changed"), Duration::from_secs(1));
        s.returns(&format!("{kind} users changed"));
        s.agents.iter().for_each(node::Agent::is_calm);
        s.switches_over();
        if kind == "jwt" {
            a_password_changes(&mut s);
        }
    });
}

/// The lease goes on, but nothing can be read. Somebody may delete all keys meanwhile, so the lease alone is no right for
/// long (docs/election-proof.md, rule 16).
#[test]
fn a_master_alone_lets_go_when_it_may_not_read_for_long() {
    let lan = Lan::new().unwrap();
    let all = ["--auth-token", "simple", "--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let mut etcd = EtcdCluster::new(&lan, all, &|_| Vec::new(), Vec::new());
    etcd.launch_all();
    etcd.authenticate("pass word");
    let node = scene::node(&lan, "a", &etcd.endpoints());
    let password = node.dir.join("password");
    secret(&password, "pass word\n");
    let agent =
        node.with("[etcd]\n", &format!("[etcd]\nuser = \"kc\"\npassword_file = \"{}\"\n", password.display())).start();
    agent.is_master();
    agent.comes_to("solo", |s| s["instances"][0]["hold"]["kind"] == "solo");
    etcd.ctl(&["role", "revoke-permission", "keepcall", "--prefix=true", "/keepcall/"]);
    let since = Instant::now();
    let status = agent.comes_to("no hold", |s| s["instances"][0]["hold"].is_null());
    let kept = since.elapsed();
    let leases = etcd.ctl(&["lease", "list"]);
    assert_eq!(leases.lines().count(), 2, "the lease was not kept alive: {leases}");
    // A read of up to two seconds ago counts for four seconds and a lease of six.
    assert!((Duration::from_secs(7)..Duration::from_secs(11)).contains(&kept), "held for {kept:?}: {status}");
    println!("without reads: held for {kept:.2?}; {}", status["etcd"]["error"]);
    assert!(status["etcd"]["error"].as_str().is_some_and(|e| e.contains("permission")), "{status}");
    etcd.ctl(&["role", "grant-permission", "keepcall", "--prefix=true", "readwrite", "/keepcall/"]);
    agent.is_master();
    agent.is_calm();
}

/// The new password reaches the agents late: meanwhile they stay in place and report the problem.
fn a_password_changes(s: &mut Scene) {
    s.etcd.fed(&["user", "passwd", "kc", "--interactive=false"], "changed");
    for agent in &s.agents {
        agent.comes_to("the refusal to be told", |s| {
            s["etcd"]["error"].as_str().is_some_and(|e| e.contains("password_file"))
        });
    }
    s.stays("password changed", Duration::from_secs(4));
    // Once its lease has run out, the successor vouches for nothing.
    s.agents[0].comes_to("failsafe", |s| s["instances"][0]["hold"]["kind"] == "failsafe");
    s.agents.iter().for_each(node::Agent::is_calm);
    s.agents.iter().for_each(|a| secret(&a.node.dir.join("password"), "changed\n"));
    s.returns("password changed");
}
