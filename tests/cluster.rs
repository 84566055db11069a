//! Several cluster drivers in one process, over loopback UDP and a real etcd.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::EtcdServer;
use keepcall::cluster::{Cause, Cluster, ClusterEvent, Fitness, NoKeeper, SwitchoverError};
use keepcall::config::Config;
use keepcall::etcd::Etcd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Log = Arc<Mutex<Vec<(Instant, String, ClusterEvent)>>>;

/// One node in a runtime of its own, so that a crash is the end of that runtime.
struct Node {
    name: String,
    runtime: Option<tokio::runtime::Runtime>,
    cluster: Cluster,
}

impl Node {
    fn start(server: &EtcdServer, i: u8, log: &Log) -> Self {
        let (name, key) = (format!("n{i}"), server.dir.path().join("key"));
        std::fs::write(&key, [7_u8; 32]).unwrap();
        let port = server.url.rsplit(':').next().unwrap();
        let text = format!(
            "[node]\nname = '{name}'\naddress = '127.0.0.{i}'\nport = {port}\nkey_file = '{}'\n[etcd]\nendpoints = ['{}']\n\
             [[instance]]\nname = 'vip'\ninterface = 'lo'\naddresses = ['192.0.2.1/32']\n",
            key.display(),
            server.url
        );
        let cfg: Config = toml::from_str(&text).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (cluster, mut events) = runtime.block_on(async {
            let etcd = Etcd::connect(&cfg.etcd).unwrap();
            Cluster::start(&cfg, etcd, Box::new(NoKeeper), Vec::new()).await.unwrap()
        });
        let (agent, me, log) = (cluster.clone(), name.clone(), Arc::clone(log));
        runtime.spawn(async move {
            while let Some(e) = events.recv().await {
                if let ClusterEvent::Drop { instance, epoch, .. } = &e {
                    agent.released(instance, *epoch);
                }
                if let ClusterEvent::Take { instance, epoch, .. } = &e {
                    assert!(agent.holds(instance, *epoch), "Take without a right");
                }
                log.lock().unwrap().push((Instant::now(), me.clone(), e));
            }
        });
        let node = Self { name, runtime: Some(runtime), cluster };
        node.fit(true);
        node
    }

    fn fit(&self, fit: bool) {
        self.cluster.set_fitness("vip", Fitness { fit, priority: 100, summary: String::new() });
    }

    fn holds(&self) -> bool {
        let epoch = self.cluster.status().instances.first().map_or(0, |i| i.epoch);
        self.cluster.holds("vip", epoch)
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

fn wait(what: &str, mut f: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !f() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn takes(log: &Log) -> Vec<(Instant, String, Cause, u64)> {
    let log = log.lock().unwrap();
    log.iter()
        .filter_map(|(t, n, e)| match e {
            ClusterEvent::Take { cause, epoch, .. } => Some((*t, n.clone(), cause.clone(), *epoch)),
            _ => None,
        })
        .collect()
}

/// The index of the holder, once there is one with an armed successor.
fn settled(nodes: &[Node]) -> usize {
    wait("a master with a successor", || nodes.iter().any(|n| n.runtime.is_some() && n.holds() && n.successor().is_some()));
    nodes.iter().position(|n| n.runtime.is_some() && n.holds()).unwrap()
}

#[test]
fn first_election_switchover_unfit_server_and_crash() {
    let server = EtcdServer::start();
    let log: Log = Arc::default();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::start(&server, i, &log)).collect();
    let m = settled(&nodes);
    assert_eq!(takes(&log)[0].2, Cause::First);

    // Only the master hands over, and it says why somebody cannot have it.
    let other = (m + 1) % 3;
    let name = nodes[m].name.clone();
    let refused = nodes[other].run(nodes[other].cluster.switchover("vip", None));
    assert_eq!(refused, Err(SwitchoverError::NotMaster { master: Some(name) }));
    let unknown = nodes[m].run(nodes[m].cluster.switchover("vip", Some("nobody".into())));
    assert!(
        matches!(&unknown, Err(SwitchoverError::NoCandidate { candidates }) if candidates[0].node == "nobody"),
        "{unknown:?}"
    );

    let target = nodes[m].successor().unwrap();
    let epoch = nodes[m].run(nodes[m].cluster.switchover("vip", Some(target.clone()))).unwrap();
    wait("the target holds", || nodes.iter().any(|n| n.name == target && n.holds()));
    let last = takes(&log).last().cloned().unwrap();
    assert_eq!((last.1, last.3), (target, epoch));
    assert!(matches!(last.2, Cause::Handover { .. }));

    // The server dies: at once to a fit node.
    let m = settled(&nodes);
    let before = takes(&log).len();
    let begin = Instant::now();
    nodes[m].fit(false);
    wait("another holder", || takes(&log).len() > before);
    let gap = takes(&log).last().unwrap().0 - begin;
    println!("unfit server to Take: {gap:?}");
    assert!(gap < Duration::from_secs(2), "{gap:?}");

    // The host dies: the successor after the hold.
    let m = settled(&nodes);
    let crashed = nodes[m].name.clone();
    let before = takes(&log).len();
    let begin = Instant::now();
    nodes[m].crash();
    wait("the successor holds", || takes(&log).len() > before);
    let last = takes(&log).last().cloned().unwrap();
    println!("crash to Take: {:?}", last.0 - begin);
    // Which one was armed at that instant may have just changed; that it was an armed one is what `Fast` says.
    assert_eq!(last.2, Cause::Fast);
    assert_ne!(last.1, crashed);
    let gap = last.0 - begin;
    assert!(gap >= Duration::from_millis(250) && gap < Duration::from_secs(2), "{gap:?}");
    let epochs: Vec<u64> = takes(&log).iter().map(|t| t.3).collect();
    assert!(epochs.windows(2).all(|w| w[0] < w[1]), "epochs must rise: {epochs:?}");
}

#[test]
fn a_stopped_agent_hands_over_and_leaves_nothing_behind() {
    let server = EtcdServer::start();
    let log: Log = Arc::default();
    let nodes: Vec<Node> = (1..=2).map(|i| Node::start(&server, i, &log)).collect();
    let m = settled(&nodes);
    let begin = Instant::now();
    nodes[m].run(nodes[m].cluster.clone().stop()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    wait("the other holds", || nodes[1 - m].holds());
    let last = takes(&log).last().cloned().unwrap();
    assert!(matches!(last.2, Cause::Handover { .. }), "{last:?}");
    let etcd = Etcd::connect(&toml::from_str(&format!("endpoints = ['{}']", server.url)).unwrap()).unwrap();
    let keys = nodes[1 - m].run(etcd.get_prefix("/keepcall/default/nodes/")).unwrap().1;
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[test]
fn a_corrupt_record_is_named_and_nobody_takes_over() {
    let server = EtcdServer::start();
    assert!(server.ctl(&["put", "/keepcall/default/instances/vip/record", "{nonsense"]));
    let log: Log = Arc::default();
    let node = Node::start(&server, 1, &log);
    wait("the problem is told", || node.cluster.status().instances.first().is_some_and(|i| i.problem.is_some()));
    assert!(takes(&log).is_empty());
    // The cure that the message names.
    assert!(server.ctl(&["del", "/keepcall/default/instances/vip/record"]));
    wait("a master", || node.holds());
}
