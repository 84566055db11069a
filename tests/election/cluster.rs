//! Several cluster drivers in one process, over loopback UDP and a real etcd.

use keepcall::cluster::{Cause, Cluster, ClusterEvent, Fitness, MasterChange, NoEnforcer, SwitchoverError};
use keepcall::config::Config;
use keepcall::etcd::Etcd;
use keepcall::os::clock;
use keepcall::time::Time;
use lab::loopback::{EtcdServer, LONG};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Thirty heartbeats: a machine that stalls for a second or two must not change the master here.
const HOLD: Duration = Duration::from_secs(3);
/// Longer than a stop takes: a lease that is gone after the stop was revoked, and did not run out.
const LEASE: Duration = Duration::from_secs(20);

type Log = Arc<Mutex<Vec<Taken>>>;

/// A `Take` as the agent received it.
#[derive(Clone, Debug)]
struct Taken {
    node: String,
    epoch: u64,
    cause: Cause,
    committed: Time,
    at: Time,
    /// Whether the node had the hold at that moment.
    held: bool,
}

/// One node in its own runtime, so that ending the runtime is a crash.
struct Node {
    name: String,
    runtime: Option<tokio::runtime::Runtime>,
    cluster: Cluster,
}

impl Node {
    fn start(server: &EtcdServer, i: u8, log: &Log) -> Self {
        let (name, key) = (format!("n{i}"), server.dir.path().join("key"));
        std::fs::write(&key, b"the key of this cluster, for tests").unwrap();
        let text = format!(
            "[node]\nname = '{name}'\naddress = '{}'\nkey_file = '{}'\n[timing]\nheartbeat = '100ms'\nhold = '{}s'\n\
             [etcd]\nendpoints = ['{}']\ntimeout = '5s'\nlease_ttl = '{}s'\n\
             [[instance]]\nname = 'vip'\ninterface = 'lo'\naddresses = ['192.0.2.1/32']\n",
            server.net.ip(10 + i),
            key.display(),
            HOLD.as_secs(),
            server.url,
            LEASE.as_secs(),
        );
        let cfg: Config = toml::from_str(&text).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (cluster, mut events) = runtime.block_on(async {
            let etcd = Etcd::connect(&cfg.etcd).unwrap();
            Cluster::start(&cfg, etcd, Box::new(NoEnforcer), Vec::new()).await.unwrap()
        });
        let (agent, me, log) = (cluster.clone(), name.clone(), Arc::clone(log));
        runtime.spawn(async move {
            while let Some(e) = events.recv().await {
                if let ClusterEvent::Drop { instance, epoch, .. } = &e {
                    agent.released(instance, *epoch);
                }
                if let ClusterEvent::Take { instance, change: MasterChange { epoch, cause, committed, .. } } = e {
                    let (held, at) = (agent.holds(&instance, epoch), clock::now());
                    log.lock().unwrap().push(Taken { node: me.clone(), epoch, cause, committed, at, held });
                }
            }
        });
        let node = Self { name, runtime: Some(runtime), cluster };
        node.fit(true);
        node
    }

    fn fit(&self, fit: bool) {
        self.cluster.set_fitness("vip", Fitness { fit, priority: 100, summary: String::new() });
    }

    /// The end of its hold, if it has one.
    fn holds_until(&self) -> Option<Time> {
        let epoch = self.cluster.status().instances.first().map_or(0, |i| i.epoch);
        self.runtime.as_ref().and_then(|_| self.cluster.holds_until("vip", epoch))
    }

    fn holds(&self) -> bool {
        self.holds_until().is_some()
    }

    fn master(&self) -> Option<String> {
        self.cluster.status().instances.first().and_then(|i| i.master.clone())
    }

    fn successor(&self) -> Option<String> {
        self.cluster.status().instances.first().and_then(|i| i.successor.clone())
    }

    fn crash(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    fn run<T>(&self, f: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(f)
    }
}

fn wait<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn takes(log: &Log) -> Vec<Taken> {
    log.lock().unwrap().clone()
}

/// The first matching `Take` after the first `before`. A hold exists a moment before its `Take` arrives.
fn take(what: &str, log: &Log, before: usize, wanted: impl Fn(&Taken) -> bool) -> Taken {
    wait(what, || takes(log).into_iter().skip(before).find(&wanted))
}

/// The index of the holder, once it has an armed successor.
fn settled(nodes: &[Node]) -> usize {
    wait("a master with a successor", || nodes.iter().position(|n| n.holds() && n.successor().is_some()))
}

#[test]
fn first_election_switchover_unfit_server_and_crash() {
    let server = EtcdServer::start();
    let log: Log = Arc::default();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::start(&server, i, &log)).collect();
    let m = settled(&nodes);
    assert_eq!(take("the first election", &log, 0, |_| true).cause, Cause::First);

    // Only the master hands over, and it says why a node cannot take over.
    let other = (m + 1) % 3;
    let name = nodes[m].name.clone();
    wait("the others know the master", || (nodes[other].master().as_ref() == Some(&name)).then_some(()));
    let refused = nodes[other].run(nodes[other].cluster.switchover("vip", None));
    assert_eq!(refused, Err(SwitchoverError::NotMaster { master: Some(name) }));
    let unknown = nodes[m].run(nodes[m].cluster.switchover("vip", Some("nobody".into())));
    assert!(
        matches!(&unknown, Err(SwitchoverError::NoCandidate { candidates }) if candidates[0].node == "nobody"),
        "{unknown:?}"
    );

    let target = nodes[m].successor().unwrap();
    let epoch = nodes[m].run(nodes[m].cluster.switchover("vip", Some(target.clone()))).unwrap();
    let taken = take("the target holds", &log, 0, |t| t.node == target && t.epoch == epoch);
    assert!(matches!(taken.cause, Cause::Handover { .. }), "{taken:?}");

    // The server dies: the address goes to a fit node, without waiting for a hold to run out.
    let m = settled(&nodes);
    let (unfit, before, begin) = (nodes[m].name.clone(), takes(&log).len(), clock::now());
    nodes[m].fit(false);
    let taken = take("another holder", &log, before, |t| t.node != unfit);
    println!("unfit server to Take: {:?}", taken.at.since(begin));
    assert!(matches!(&taken.cause, Cause::Handover { reason } if reason.contains("fatal check")), "{taken:?}");

    // The host dies: the successor takes over after the hold.
    let m = settled(&nodes);
    let (crashed, before, begin) = (nodes[m].name.clone(), takes(&log).len(), clock::now());
    let held_until = nodes[m].holds_until().unwrap();
    nodes[m].crash();
    // The armed node may have changed at just that instant.
    let watcher = nodes.iter().find(|n| n.runtime.is_some()).unwrap();
    let etcd = Etcd::connect(&toml::from_str(&server.patient()).unwrap()).unwrap();
    let record = watcher.run(etcd.get("/keepcall/default/instances/vip/record")).unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!(record["master"], crashed.as_str(), "{record}");
    let taken = take("the successor holds", &log, before, |t| t.node != crashed);
    println!("crash to Take: {:?}", taken.at.since(begin));
    assert_eq!(taken.cause, Cause::Fast, "{record}");
    assert_eq!(record["successor"], taken.node.as_str(), "{record}");
    // Both share one clock. A renewal by the crashed node in the meantime only makes the end later.
    assert!(taken.committed > held_until, "{taken:?} before the end of the hold, {held_until:?}");

    let mut all = takes(&log);
    assert!(all.iter().all(|t| t.held), "Take without a right: {all:?}");
    all.sort_by_key(|t| t.committed);
    let rises = |w: &[Taken]| w[0].epoch < w[1].epoch || (w[0].epoch == w[1].epoch && w[0].node == w[1].node);
    assert!(all.windows(2).all(rises), "epochs must rise: {all:?}");
}

#[test]
fn a_stopped_agent_hands_over_and_leaves_nothing_behind() {
    let server = EtcdServer::start();
    let log: Log = Arc::default();
    let nodes: Vec<Node> = (1..=2).map(|i| Node::start(&server, i, &log)).collect();
    let m = settled(&nodes);
    let begin = Instant::now();
    nodes[m].run(nodes[m].cluster.clone().stop()).unwrap();
    let taken = take("the other holds", &log, 0, |t| t.node == nodes[1 - m].name);
    assert!(matches!(taken.cause, Cause::Handover { .. }), "{taken:?}");
    let etcd = Etcd::connect(&toml::from_str(&server.patient()).unwrap()).unwrap();
    let keys = nodes[1 - m].run(etcd.get_prefix("/keepcall/default/nodes/")).unwrap().1;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(begin.elapsed() < LEASE / 2, "it ran out by itself: {:?}", begin.elapsed());
}

#[test]
fn a_corrupt_record_is_named_and_nobody_takes_over() {
    let server = EtcdServer::start();
    server.must(&["put", "/keepcall/default/instances/vip/record", "{nonsense"]);
    let log: Log = Arc::default();
    let node = Node::start(&server, 1, &log);
    wait("the problem is told", || {
        node.cluster.status().instances.first().is_some_and(|i| i.problem.is_some()).then_some(())
    });
    assert!(takes(&log).is_empty());
    // The cure named in the message.
    server.must(&["del", "/keepcall/default/instances/vip/record"]);
    wait("a master", || node.holds_until());
}
