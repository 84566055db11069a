//! Agents on a LAN with three etcd members, and an observer that records the host that answers for the address.

use lab::etcd_cluster::EtcdCluster;
use lab::lan::{Lan, VIP4};
use lab::node::{Agent, Node, SOON};
use lab::observer::Observer;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The promise of an ack. Ten heartbeats: nothing here depends on the speed of the machine.
pub(crate) const HOLD: Duration = Duration::from_secs(1);
/// The longest silence of an address that does not move. It stays on its host, so only the machine itself can cause
/// one.
const STILL: f64 = 400.0;
/// The hosts of the agents.
const HOSTS: [&str; 3] = ["a", "b", "p1"];

/// Length of an outage, where a person would wait for minutes.
pub(crate) fn outage() -> Duration {
    let seconds = std::env::var("KEEPCALL_OUTAGE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// Runs a scene for each value, all at once: each mostly waits for its own etcd.
pub(crate) fn each<T: Send>(of: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    let run = &run;
    std::thread::scope(|s| {
        let threads: Vec<_> = of.into_iter().map(|t| s.spawn(move || run(t))).collect();
        for t in threads {
            t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// The fields are in the order in which they must end.
pub(crate) struct Scene {
    pub(crate) observer: Observer,
    /// The first is master at the start.
    pub(crate) agents: Vec<Agent>,
    pub(crate) etcd: EtcdCluster,
    pub(crate) lan: Lan,
    epoch: u64,
    since: u64,
}

/// An agent's node, named after its host; `etcd` lists the endpoints.
pub(crate) fn node(lan: &Lan, host: &str, etcd: &str) -> Node {
    Node::new(lan.host(host).unwrap(), host, etcd).with("hold = \"2s\"", &format!("hold = \"{}ms\"", HOLD.as_millis()))
}

impl Scene {
    /// A plain cluster and this many agents.
    pub(crate) fn new(agents: usize) -> Self {
        Self::with(agents, |node| node)
    }

    /// The same with modified nodes.
    pub(crate) fn with(agents: usize, change: impl Fn(Node) -> Node) -> Self {
        let lan = Lan::new().unwrap();
        let etcd = EtcdCluster::start(&lan);
        let nodes = HOSTS.iter().take(agents).map(|h| change(node(&lan, h, &etcd.endpoints()))).collect();
        Self::of(lan, etcd, nodes)
    }

    /// A cluster that waits for its disks, with this many agents.
    pub(crate) fn slow_disks(agents: usize) -> Self {
        let lan = Lan::new().unwrap();
        let mut etcd = EtcdCluster::new(&lan, Vec::new(), &|_| Vec::new(), Vec::new());
        etcd.sync();
        etcd.launch_all();
        let nodes = HOSTS.iter().take(agents).map(|h| node(&lan, h, &etcd.endpoints())).collect();
        Self::of(lan, etcd, nodes)
    }

    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn of(lan: Lan, etcd: EtcdCluster, nodes: Vec<Node>) -> Self {
        let mut agents = Vec::new();
        for node in nodes {
            agents.push(node.start());
            if agents.len() == 1 {
                agents[0].is_master();
            }
        }
        let observer = Observer::start(lan.host("obs").unwrap(), VIP4).unwrap();
        let mut scene = Self { observer, agents, etcd, lan, epoch: 0, since: 0 };
        scene.settle(0);
        scene
    }

    /// Waits until `master` has a successor and every agent is a member; from then on this state must not change.
    pub(crate) fn settle(&mut self, master: usize) {
        let count = self.agents.len();
        let status = self.agents[master].comes_to("a master with a successor and all members", |s| {
            let i = &s["instances"][0];
            i["role"] == "master"
                && i["successor"].is_string()
                && i["members"].as_array().is_some_and(|m| m.len() >= count)
                && s["etcd"]["healthy"] == true
        });
        for (i, agent) in self.agents.iter().enumerate() {
            let role = if i == master { "master" } else { "backup" };
            agent.comes_to(&format!("its role as {role}"), |s| {
                let heard = |n: &Value| n["self"] == true || i != master || n["last_heard_ms"].as_u64() < Some(1000);
                s["instances"][0]["role"] == role
                    && s["nodes"].as_array().is_some_and(|n| n.len() >= count && n.iter().all(heard))
            });
        }
        self.epoch = status["instances"][0]["epoch"].as_u64().unwrap();
        wait::until("the address to answer", SOON, || {
            if self.observer.is_answered() { Ok(()) } else { Err("silence".into()) }
        })
        .unwrap();
        self.since = unix_us();
    }

    /// Waits for a master in a later epoch.
    pub(crate) fn begins_anew(&mut self) {
        let of_later =
            |s: Value| s["instances"][0]["epoch"].as_u64() > Some(self.epoch) && s["instances"][0]["role"] == "master";
        wait::until("the master in a later epoch", SOON, || {
            if self.agents[0].status().is_ok_and(of_later) { Ok(()) } else { Err(format!("{:?}", self.statuses())) }
        })
        .unwrap();
        self.settle(0);
    }

    pub(crate) fn statuses(&self) -> Vec<Value> {
        self.agents.iter().filter_map(|a| a.status().ok()).collect()
    }

    /// Lets `span` pass during a fault and checks every node throughout: one holder, always the same, in the same
    /// epoch.
    pub(crate) fn stays(&self, what: &str, span: Duration) {
        let end = Instant::now() + span;
        loop {
            let master = &self.agents[0].node.host.name;
            for s in self.statuses() {
                let i = &s["instances"][0];
                let mine = s["node"] == **master;
                assert!(i["epoch"] == self.epoch, "{what}: the epoch moved: {s}");
                assert!((i["role"] == "master") == mine, "{what}: another master, or none: {s}");
                assert!(!mine || i["hold"]["remaining_ms"].as_u64() > Some(0), "{what}: no hold: {s}");
            }
            if Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// After a fault: the master is armed again, every node sees all etcd endpoints healthy, nothing moved since the
    /// last `settle`, and the address answered all the time. Returns how long that took, and the longest silence in ms.
    pub(crate) fn returns(&mut self, what: &str) -> (Duration, f64) {
        let since = Instant::now();
        for agent in &self.agents {
            agent.comes_to(&format!("{what}: all well again"), |s| {
                let all = s["etcd"]["endpoints"].as_array().is_some_and(|e| e.iter().all(|e| e["healthy"] == true));
                let i = &s["instances"][0];
                s["etcd"]["healthy"] == true && all && i["successor"].is_string()
            });
        }
        let took = since.elapsed();
        self.stays(what, Duration::ZERO);
        let gap = self.observer.gap_after(self.since).unwrap().millis();
        let late: Vec<[u8; 6]> = self.observer.answers().iter().filter(|a| a.at >= self.since).map(|a| a.mac).collect();
        assert!(late.iter().all(|m| *m == late[0]), "{what}: two hosts answered");
        for agent in &self.agents {
            assert!(!agent.log().contains("panicked"), "{}", agent.log());
        }
        println!("{what}: 0 moves, longest silence {gap:.1} ms, all well after {took:.2?}");
        assert!(gap < STILL, "{what}: the address was silent for {gap} ms\n{}", self.agents[0].log());
        self.since = unix_us();
        (took, gap)
    }

    /// An operator moves the address, which proves that etcd, the heartbeats and the address work. The new master
    /// becomes the first of `agents`.
    pub(crate) fn switches_over(&mut self) {
        // A node is armed even while its lease is not yet confirmed again.
        wait::until("the switchover to be accepted", SOON, || {
            let (code, out, err) = self.agents[0].node.run(&["switchover", "--yes"]);
            if code == 0 { Ok(()) } else { Err(format!("{out}{err}\n{}", self.agents[0].log())) }
        })
        .unwrap();
        let new = wait::until("a new master", SOON, || {
            (1..self.agents.len()).find(|&i| self.holds(i)).ok_or_else(|| format!("{:?}", self.statuses()))
        })
        .unwrap();
        self.agents.swap(0, new);
        let before = self.epoch;
        self.settle(0);
        assert_eq!(self.epoch, before + 1, "{:?}", self.statuses());
        assert_eq!(self.observer.returns(), 0, "two hosts in turn");
    }

    pub(crate) fn holds(&self, i: usize) -> bool {
        self.agents[i].status().is_ok_and(|s| s["instances"][0]["role"] == "master")
    }

    /// Ends an agent as abruptly as a power cut.
    pub(crate) fn kill_agent(&mut self, i: usize) {
        self.agents[i].proc.signal(Signal::SIGKILL).unwrap();
        let _ = self.agents[i].proc.ended();
    }

    /// Waits until no host answers for the address, and keeps watching for `span`.
    pub(crate) fn nobody_answers(&self, span: Duration) {
        wait::until("the address to be let go", SOON, || {
            if self.observer.is_answered() { Err(format!("{:?}", self.statuses())) } else { Ok(()) }
        })
        .unwrap();
        let since = unix_us();
        std::thread::sleep(span);
        let late = self.observer.answers().iter().filter(|a| a.at > since).count();
        assert_eq!(late, 0, "somebody answers without a right: {:?}", self.statuses());
    }

    /// Time of the last answer, in wall-clock microseconds.
    pub(crate) fn last_answer(&self) -> u64 {
        self.observer.answers().last().map_or(0, |a| a.at)
    }
}
