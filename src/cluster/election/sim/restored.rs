//! etcd goes back to an earlier state, or loses everything, while nodes run. This is a separate small world, because
//! the simulation's etcd has one history. A node that asks etcd learns of the change, as the driver ensures; the others
//! learn of it from a probe.

use super::etcd::Etcd;
use super::random::Random;
use crate::cluster::election::types::{
    Action, Failure, Fault, LeaseState, Message, ReportedSettings, Request, Settings,
};
use crate::cluster::election::{Election, Role};
use crate::cluster::record::Terms;
use crate::cluster::settings::digest_of_vips;
use crate::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Length of a step in milliseconds; messages of one step arrive in the next.
const STEP: u64 = 5;
const HOLD: u64 = 400;
const TTL: u64 = 3_000;
/// Interval of probes of etcd.
const PROBE: u64 = 500;
const NAMES: [&str; 3] = ["a", "b", "c"];

fn nanos(ms: u64) -> u64 {
    ms * 1_000_000
}

struct Node {
    e: Election,
    up: bool,
    /// The node can reach etcd.
    online: bool,
    lease: Option<(i64, u64)>,
    renew_at: u64,
    probe_at: u64,
    /// The generation of etcd that the node knows.
    knows: u32,
    asked: VecDeque<(u64, Request)>,
}

struct World {
    now: u64,
    etcd: Etcd,
    generation: u32,
    nodes: Vec<Node>,
    wire: Vec<(usize, String, Message)>,
    two: Option<String>,
}

impl World {
    fn new(nodes: usize, fault: Option<Fault>) -> Self {
        let settings = |i: usize| Settings {
            me: NAMES[i].to_owned(),
            boot: i as u64 + 1,
            heartbeat: Duration::from_millis(HOLD / 4),
            hold: Duration::from_millis(HOLD),
            drift: 0.01,
            reported: ReportedSettings {
                terms: Terms::new(Duration::from_millis(HOLD), 0.01),
                vips: digest_of_vips(&BTreeSet::new()),
                others: 0,
            },
            vips: BTreeSet::new(),
            preempt: false,
            preempt_delay: Duration::from_secs(30),
            flap_budget: 100,
            flap_window: Duration::from_secs(60),
            fault,
        };
        let node = |i| Node {
            e: Election::new(settings(i), Time::from_millis(1_000)),
            up: true,
            online: true,
            lease: None,
            renew_at: 0,
            probe_at: 0,
            knows: 0,
            asked: VecDeque::new(),
        };
        let mut w = Self {
            now: 1_000,
            etcd: Etcd::new(nanos(TTL), false, false),
            generation: 0,
            nodes: (0..nodes).map(node).collect(),
            wire: Vec::new(),
            two: None,
        };
        for n in &mut w.nodes {
            n.e.set_fitness(true, 100, Time::from_millis(1_000));
        }
        w
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let (now, at) = (self.now, Time::from_millis(self.now));
        self.etcd.tick(nanos(now));
        for (to, from, m) in std::mem::take(&mut self.wire) {
            if self.nodes[to].up {
                self.nodes[to].e.handle_message(&from, m, at);
            }
        }
        for i in 0..self.nodes.len() {
            self.etcd_side(i, at);
            let n = &mut self.nodes[i];
            if n.up && n.e.next_deadline() <= at {
                n.e.handle_timeout(at);
            }
            self.act(i, at);
        }
        // The kernel of a killed node silences it at the end of its hold.
        let holders: Vec<&str> = (0..self.nodes.len())
            .filter(|i| self.nodes[*i].e.hold().is_some_and(|(_, until, _)| at < until))
            .map(|i| NAMES[i])
            .collect();
        if holders.len() > 1 && self.two.is_none() {
            self.two = Some(format!("{holders:?} hold at {now}"));
        }
    }

    fn learn(&mut self, i: usize, at: Time) {
        let n = &mut self.nodes[i];
        if n.knows != self.generation {
            n.knows = self.generation;
            n.lease = None;
            n.renew_at = 0;
            n.e.etcd_changed(at);
        }
    }

    fn etcd_side(&mut self, i: usize, at: Time) {
        let now = self.now;
        if !self.nodes[i].up {
            return;
        }
        if !self.nodes[i].online {
            // Requests fail, and the lease runs out by its holder's own clock.
            while let Some((id, _)) = self.nodes[i].asked.pop_front() {
                self.nodes[i].e.handle_failure(id, Failure::InDoubt, at);
            }
            return;
        }
        while let Some((id, request)) = self.nodes[i].asked.pop_front() {
            if self.nodes[i].knows == self.generation {
                match self.etcd.serve(NAMES[i], &request) {
                    Some((done, view)) => self.nodes[i].e.handle_reply(id, done, view, at),
                    None => self.nodes[i].e.handle_failure(id, Failure::Definite, at),
                }
            } else {
                self.learn(i, at);
                self.nodes[i].e.handle_failure(id, Failure::InDoubt, at);
            }
        }
        if now >= self.nodes[i].probe_at {
            self.nodes[i].probe_at = now + PROBE;
            self.learn(i, at);
        }
        if now < self.nodes[i].renew_at {
            return;
        }
        let n = &mut self.nodes[i];
        n.renew_at = now + TTL / 6;
        let lives = n.lease.is_some_and(|(id, _)| self.etcd.renew(id, nanos(now)));
        let id = if lives { n.lease.map_or(0, |l| l.0) } else { self.etcd.grant(nanos(now)) };
        if !lives {
            n.e.set_lease(None, at);
            let base = self.etcd.key(NAMES[i]);
            assert!(self.etcd.register(NAMES[i], base, id));
        }
        let until = now + TTL * 99 / 100;
        n.lease = Some((id, until));
        n.e.set_lease(Some(LeaseState { id, until: Time::from_millis(until) }), at);
    }

    fn act(&mut self, i: usize, at: Time) {
        if !self.nodes[i].up {
            return;
        }
        let mut released = Vec::new();
        while let Some(a) = self.nodes[i].e.poll_action() {
            match a {
                Action::Send { to, message } => {
                    let to = NAMES.iter().position(|n| **n == *to).unwrap();
                    if to < self.nodes.len() {
                        self.wire.push((to, NAMES[i].to_owned(), message));
                    }
                }
                Action::Store { id, request } => self.nodes[i].asked.push_back((id, request)),
                Action::Drop { epoch, .. } => released.push(epoch),
                _ => {}
            }
        }
        for epoch in released {
            self.nodes[i].e.released(epoch, at);
        }
    }

    /// Restores etcd to that state; its leases restart with their full time.
    fn restore(&mut self, mut former: Etcd) {
        former.elected(nanos(self.now));
        self.etcd = former;
        self.generation += 1;
    }

    fn master(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|i| self.nodes[*i].up && self.nodes[*i].e.role() == Role::Master)
    }

    fn switch_over(&mut self, random: &mut Random) {
        // Any node may become the next master, or its successor.
        for n in &mut self.nodes {
            n.e.set_fitness(true, random.below(3) as u16, Time::from_millis(self.now));
        }
        self.run(1_000);
        let m = self.master().expect("a master before a switchover");
        self.nodes[m].e.switchover(None, Time::from_millis(self.now));
        self.run(1_000);
    }
}

/// A cluster after several masters, with etcd's states in the epochs before.
fn grown(nodes: usize, fault: Option<Fault>, random: &mut Random) -> (World, Vec<Etcd>) {
    let mut w = World::new(nodes, fault);
    let mut former = vec![w.etcd.clone()];
    w.run(8_000);
    for _ in 0..if nodes > 1 { 1 + random.below(3) } else { 1 } {
        former.push(w.etcd.clone());
        if nodes > 1 {
            w.switch_over(random);
        }
        w.run(500);
    }
    assert!(w.master().is_some(), "no master at the start");
    (w, former)
}

fn one(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut random = Random::new(seed);
    let nodes = 1 + random.below(3) as usize;
    let (mut w, former) = grown(nodes, fault, &mut random);
    for n in &mut w.nodes {
        n.probe_at = w.now + random.below(PROBE);
    }
    let master = w.master().ok_or("no master")?;
    // A node may lose etcd for a while, or die about then.
    let cut = (random.below(3) == 0).then(|| random.below(nodes as u64) as usize);
    let dies_at = (random.below(2) == 0 && nodes > 1).then(|| random.below(2_000));
    if let Some(c) = cut {
        w.nodes[c].online = false;
    }
    w.run(random.below(1_000));
    let epoch = w.nodes[master].e.record().map_or(0, |r| r.epoch);
    let which = random.below(former.len() as u64) as usize;
    w.restore(former[which].clone());
    let what =
        format!("seed {seed}: {nodes} nodes, restored to {which} of {}, cut {cut:?}, dies {dies_at:?}", former.len());
    w.run(dies_at.unwrap_or(2_000));
    if dies_at.is_some() {
        w.nodes[master].up = false;
    } else if cut.is_none() && w.master() != Some(master) {
        return Err(format!("{what}: the master did not stay"));
    }
    w.run(4_000);
    if let Some(c) = cut {
        w.nodes[c].online = true;
    }
    w.run(12_000);
    let Some(now) = w.master() else { return Err(format!("{what}: nobody is master")) };
    let after = w.nodes[now].e.record().map_or(0, |r| r.epoch);
    if now != master && after <= epoch {
        return Err(format!("{what}: epoch {after} after {epoch}"));
    }
    // A killed master is replaced as usual.
    if nodes > 1 && w.nodes.iter().filter(|n| n.up).count() > 1 {
        let left = w.nodes[now].e.record().cloned();
        w.nodes[now].up = false;
        w.run(HOLD * 2);
        if w.master().is_none_or(|m| m == now) {
            return Err(format!("{what}: a killed master was not replaced; it left {left:?}"));
        }
    }
    w.two.map_or(Ok(()), |two| Err(format!("{what}: {two}")))
}

#[test]
fn a_restored_or_emptied_etcd_gives_nobody_a_right_beside_the_master_and_failover_goes_on() {
    let wrong: Vec<String> = (1..=400).filter_map(|seed| one(seed, None).err()).collect();
    assert!(wrong.is_empty(), "{} of 400:\n{}", wrong.len(), wrong.join("\n"));
}

/// etcd is restored to a record of two nodes, and both learn of it before the present master, a third node.
fn two_against_one(fault: Option<Fault>) -> World {
    let mut w = World::new(3, fault);
    w.run(8_000);
    let m = w.master().expect("a master");
    let s = w.nodes[m].e.record().and_then(|r| r.successor.clone()).expect("a successor");
    let s = NAMES.iter().position(|n| **n == *s).expect("one of the nodes");
    let third = 3 - m - s;
    let former = w.etcd.clone();
    w.nodes[m].e.switchover(Some(NAMES[third].to_owned()), Time::from_millis(w.now));
    // Avoid the moment of its own read of etcd.
    w.run(1_300);
    assert_eq!(w.master(), Some(third));
    w.restore(former);
    for i in 0..3 {
        w.nodes[i].probe_at = w.now + if i == third { PROBE - STEP } else { 0 };
    }
    w.run(3_000);
    w
}

#[test]
fn believing_the_restored_record_makes_two_masters() {
    assert_eq!(two_against_one(None).two, None);
    assert!(two_against_one(Some(Fault::RestoredBelieved)).two.is_some());
}
