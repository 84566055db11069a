//! A host with every processor busy: the election runs in real time.

use lab::lan::Lan;
use lab::node::{Agent, Member, Node, SOON};
use lab::proc::Proc;
use lab::wait;
use std::time::{Duration, Instant};

/// Policy and priority of each thread of a process, by its name. Fields 40 and 41 of `stat` (proc(5)).
fn policies(pid: u32) -> Vec<(String, u32, u32)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap().trim().to_owned();
            let stat = std::fs::read_to_string(path.join("stat")).unwrap();
            let fields: Vec<u32> =
                stat.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
            // The fields count from the state, which is field 3.
            (name, fields[41 - 3], fields[40 - 3])
        })
        .collect()
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

/// The election thread's longest delay and its longest round, in milliseconds.
fn stalls(agent: &Agent) -> (u64, u64) {
    let election = &agent.status().unwrap()["election"];
    (election["longest_late_ms"].as_u64().unwrap(), election["longest_round_ms"].as_u64().unwrap())
}

#[test]
fn busy_processors_do_not_move_the_address() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    // A hold of a second bears the noise of a busy test machine; ordinary threads would wait longer behind this many
    // hogs.
    let node = |name: &str| Node::new(lan.host(name).unwrap(), name, &etcd.url());
    let (a, b) = (node("a"), node("b"));
    let first = a.start();
    first.is_master();
    let second = b.start();
    first.is_armed("b");

    // SCHED_FIFO is policy 1. Only the election may have it: any other thread would starve the rest of the host.
    for (name, policy, priority) in policies(first.proc.pid()) {
        assert_eq!((policy, priority > 0), if name == "election" { (1, true) } else { (0, false) }, "{name}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", first.proc.pid())).unwrap();
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap().trim().to_owned();
    assert_ne!(locked, "0 kB", "memory is not locked");

    let before = epoch(&first);
    let hogs: Vec<Proc> =
        (0..16).map(|i| a.host.spawn(&format!("hog{i}"), &["sh", "-c", "while :; do :; done"]).unwrap()).collect();
    let since = Instant::now();
    wait::until("five seconds of load to pass", SOON, || {
        assert!(a.has_vip() && !b.has_vip(), "{}\n{}", first.log(), second.log());
        if since.elapsed() > Duration::from_secs(5) { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    drop(hogs);
    assert_eq!(epoch(&first), before, "{}", first.log());
    assert!(!first.log().contains("no longer master"), "{}", first.log());
    second.stops();
    first.stops();
}

/// The load of builds: processors, disk, memory, endless processes. Constant firewall listings make the kernel wait
/// under the lock that each renewal of the kernel lease needs.
fn builds(at: &str) -> [String; 6] {
    [
        format!("while :; do dd if=/dev/zero of={at}/f$$ bs=1M count=64 conv=fsync 2>/dev/null; rm -f {at}/f$$; done"),
        format!("while :; do for i in $(seq 400); do echo x >{at}/s$$.$i; done; sync -f {at}; rm -f {at}/s$$.*; done"),
        "while :; do head -c 300M /dev/zero | tail -c 250M | wc -c >/dev/null; done".to_owned(),
        "while :; do sh -c 'sh -c true; sh -c true'; done".to_owned(),
        "while :; do nft list ruleset >/dev/null; done".to_owned(),
        "while :; do :; done".to_owned(),
    ]
}

#[test]
fn builds_do_not_move_the_address() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    // The election waits for no ordinary thread: under this load it is milliseconds late (docs/election-proof.md), so
    // a second is plenty.
    let node = |name: &str| {
        Node::new(lan.host(name).unwrap(), name, &etcd.url()).with_sip().with("hold = \"2s\"", "hold = \"1s\"")
    };
    let (a, b) = (node("a"), node("b"));
    let first = a.start();
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    let before = epoch(&first);
    // A real disk, to keep it busy; the lab's tmpfs would not do.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builds = builds(disk.path().to_str().unwrap());
    let hogs: Vec<Proc> = (0..12)
        .map(|i| a.host.spawn(&format!("build{i}"), &["sh", "-c", &builds[i % builds.len()]]).unwrap())
        .collect();
    let since = Instant::now();
    wait::until("twenty seconds of load to pass", SOON, || {
        let told = || format!("{:?} {:?}\n{}\n{}", stalls(&first), stalls(&second), first.log(), second.log());
        assert!(a.has_vip() && !b.has_vip(), "{}", told());
        if since.elapsed() > Duration::from_secs(20) { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    drop(hogs);
    assert_eq!(epoch(&first), before, "{}", first.log());
    for word in ["no longer master", "another program removed", "does not apply the hold"] {
        assert!(!first.log().contains(word), "{}", first.log());
    }
    // Half a hold: the delay stays far below the limit.
    for agent in [&first, &second] {
        let (late, round) = stalls(agent);
        assert!(late < 500 && round < 500, "late by {late} ms, a round took {round} ms\n{}", agent.log());
    }
    second.stops();
    first.stops();
}

#[test]
fn a_log_that_nobody_takes_holds_up_nothing() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let node =
        |name: &str| Node::new(lan.host(name).unwrap(), name, &etcd.url()).with("hold = \"2s\"", "hold = \"500ms\"");
    let (a, b) = (node("a"), node("b"));
    // A pipe open at both ends and full after the first lines of the finest log, like a journal that waits for its
    // disk.
    let pipe = a.dir.join("log");
    let script = format!("mkfifo {0}; exec 3<>{0}; shift 2; exec env KEEPCALL_LOG=trace \"$@\" 2>{0}", pipe.display());
    let first = a.start_by(&["sh", "-c", &script, "sh"]);
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    let before = epoch(&first);
    let since = Instant::now();
    wait::until("six holds to pass", SOON, || {
        assert!(a.has_vip() && !b.has_vip(), "{}", second.log());
        if since.elapsed() > Duration::from_secs(3) { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    assert_eq!(epoch(&first), before);
    // It stops in time, although its last lines reach nobody.
    first.stops();
    second.is_master();
    second.stops();
}
