//! Nodes, network, faults and the observer.

use super::etcd::{Etcd, TTL};
use crate::cluster::election::Election;
use crate::cluster::election::types::{Action, Failure, Fault, LeaseState, Message, Request, Settings};
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

const MS: u64 = 1_000_000;
const DRIFT: f64 = 0.01;
/// Faults end here; then a holder must come back before `END`.
const CALM: u64 = 30_000 * MS;
const END: u64 = 45_000 * MS;
const RPC_TIMEOUT: u64 = 800 * MS;

enum Event {
    Wake { node: usize, boot: u64, at: Time },
    Message { from: usize, to: usize, message: Message },
    Serve { node: usize, boot: u64, id: u64, request: Request },
    Served { node: usize, boot: u64, id: u64, answer: Option<(bool, crate::cluster::record::View)> },
    Expired { node: usize, boot: u64, id: u64 },
    Keep { node: usize, boot: u64 },
    KeepServe { node: usize, boot: u64, sent: Time, lease: Option<i64>, base: i64 },
    KeepDone { node: usize, boot: u64, sent: Time, asked: Option<i64>, lease: Option<i64> },
    Released { node: usize, boot: u64, epoch: u64 },
    Start { node: usize },
    Resume { node: usize },
    Chaos,
}

struct Node {
    name: String,
    rate: f64,
    offset: u64,
    boot: u64,
    election: Option<Election>,
    lease: Option<LeaseState>,
    paused: bool,
    /// What arrived while it was paused, in order.
    waiting: Vec<Event>,
    open: BTreeSet<u64>,
    /// Until when (in the world's time) the kernel lets it answer.
    kernel: u64,
    woken: Time,
    keep_sent: Time,
    stopping: bool,
}

pub(super) struct World {
    seed: u64,
    fault: Option<Fault>,
    t: u64,
    n: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    nodes: Vec<Node>,
    etcd: Etcd,
    cut: BTreeSet<(usize, usize)>,
    ecut: BTreeSet<usize>,
    loss: u64,
    /// Prints every action; set by `KEEPCALL_TRACE` when a seed is replayed.
    trace: bool,
    pub(super) bad: Option<String>,
    pub(super) takes: u64,
    pub(super) handovers: u64,
}

impl World {
    pub(super) fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut w = Self {
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            fault,
            t: 0,
            n: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes: Vec::new(),
            etcd: Etcd::default(),
            cut: BTreeSet::new(),
            ecut: BTreeSet::new(),
            loss: 0,
            trace: std::env::var_os("KEEPCALL_TRACE").is_some(),
            bad: None,
            takes: 0,
            handovers: 0,
        };
        for i in 0..(2 + seed % 2) {
            let rate = 1.0 + (w.below(100) as f64 / 100.0 - 0.5) * DRIFT * 0.98;
            let (offset, name) = (w.below(1_000_000) * MS, format!("n{i}"));
            w.nodes.push(Node {
                name,
                rate,
                offset,
                boot: 0,
                election: None,
                lease: None,
                paused: false,
                waiting: Vec::new(),
                open: BTreeSet::new(),
                kernel: 0,
                woken: Time::FAR,
                keep_sent: Time::ZERO,
                stopping: false,
            });
            w.at(i, Event::Start { node: i as usize });
        }
        w.at(500 * MS, Event::Chaos);
        w
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: enough for a simulation, and the same on every machine.
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
    fn below(&mut self, n: u64) -> u64 {
        self.random() % n
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn pick(&mut self, list: &[u64]) -> u64 {
        let i = self.below(list.len() as u64);
        list[i as usize]
    }
    fn at(&mut self, delay: u64, e: Event) {
        self.n += 1;
        self.queue.push(Reverse((self.t + delay, self.n)));
        self.events.insert(self.n, e);
    }
    fn clock(&self, node: usize) -> Time {
        let n = &self.nodes[node];
        Time::from_nanos(n.offset + (self.t as f64 * n.rate) as u64)
    }
    fn world_time(&self, node: usize, at: Time) -> u64 {
        let n = &self.nodes[node];
        // Rounded up, so that a timer never fires before its deadline on the node's own clock.
        (at.as_nanos().saturating_sub(n.offset) as f64 / n.rate).ceil() as u64
    }

    pub(super) fn run(mut self) -> Self {
        let mut held_at_end = false;
        while let Some(Reverse((t, n))) = self.queue.pop() {
            if t > END || self.bad.is_some() {
                break;
            }
            self.t = t;
            self.etcd.expire(t.saturating_sub((t / MS % 5) * 100 * MS));
            if let Some(e) = self.events.remove(&n) {
                self.handle(e);
            }
            let live: Vec<&Node> = self.nodes.iter().filter(|n| n.kernel > self.t).collect();
            held_at_end = !live.is_empty();
            if live.len() > 1 {
                let all: Vec<_> = live
                    .iter()
                    .map(|n| (&n.name, n.kernel / MS, n.election.as_ref().map(|e| (e.record(), &e.maybe, e.hold()))))
                    .collect();
                self.bad = Some(format!("two holders at {} ms: {all:#?}", self.t / MS));
            }
        }
        if self.bad.is_none() && !held_at_end {
            let all: Vec<_> = self.nodes.iter().map(|n| &n.election).collect();
            self.bad = Some(format!(
                "no holder {} s after the faults ended: {:#?} {all:#?}",
                (END - CALM) / MS / 1000,
                self.etcd.record
            ));
        }
        self
    }

    fn present(&mut self, node: usize, boot: u64) -> bool {
        self.nodes[node].boot == boot && self.nodes[node].election.is_some()
    }

    fn handle(&mut self, e: Event) {
        let target = match &e {
            Event::Wake { node, .. }
            | Event::Served { node, .. }
            | Event::Expired { node, .. }
            | Event::Keep { node, .. }
            | Event::KeepDone { node, .. }
            | Event::Released { node, .. } => Some(*node),
            Event::Message { to, .. } => Some(*to),
            _ => None,
        };
        // A frozen process reads its sockets and timers when it runs again.
        if let Some(n) = target.filter(|n| self.nodes[*n].paused) {
            self.nodes[n].waiting.push(e);
            return;
        }
        match e {
            Event::Wake { node, boot, at } => {
                if self.present(node, boot) && self.nodes[node].woken == at {
                    self.nodes[node].woken = Time::FAR;
                    self.with(node, Election::handle_timeout);
                }
            }
            Event::Message { from, to, message } => {
                let name = self.nodes[from].name.clone();
                self.with(to, |e, now| e.handle_message(&name, message, now));
            }
            Event::Serve { node, boot, id, request } => {
                if !self.etcd.down && !self.ecut.contains(&node) {
                    let name = self.nodes[node].name.clone();
                    let before = self.etcd.revision;
                    let answer = self.etcd.serve(&name, &request);
                    if !self.chance(3) {
                        let d = self.rpc_delay();
                        self.at(d, Event::Served { node, boot, id, answer });
                    }
                    if before != self.etcd.revision && !matches!(request, Request::Ticket(_)) {
                        self.hint_all();
                    }
                }
            }
            Event::Served { node, boot, id, answer } => {
                if self.nodes[node].boot == boot && self.nodes[node].open.remove(&id) {
                    self.with(node, |e, now| match answer {
                        Some((ok, view)) => e.handle_reply(id, ok, view, now),
                        None => e.handle_failure(id, Failure::Definite, now),
                    });
                }
            }
            Event::Expired { node, boot, id } => {
                if self.nodes[node].boot == boot && self.nodes[node].open.remove(&id) {
                    self.with(node, |e, now| e.handle_failure(id, Failure::InDoubt, now));
                }
            }
            Event::Keep { node, boot } => self.keep(node, boot),
            Event::KeepServe { node, boot, sent, lease, base } => {
                if self.etcd.down || self.ecut.contains(&node) {
                    return;
                }
                let before = self.etcd.revision;
                let asked = lease;
                let lease = match lease {
                    Some(id) => self.etcd.keep_alive(id, self.t).then_some(id),
                    // A grant of a process that is gone would leave a key behind for two seconds; that happens, too.
                    None => self.etcd.grant(&self.nodes[node].name.clone(), base, self.t),
                };
                if !self.chance(3) {
                    let d = self.rpc_delay();
                    self.at(d, Event::KeepDone { node, boot, sent, asked, lease });
                }
                if before != self.etcd.revision {
                    self.hint_all();
                }
            }
            Event::KeepDone { node, boot, sent, asked, lease } => {
                // The driver waits for one answer at a time: one that it has given up on is never seen.
                let current =
                    self.nodes[node].lease.map(|l| l.id) == asked && (asked.is_some() || sent == self.nodes[node].keep_sent);
                if !current || !self.present(node, boot) {
                    return;
                }
                let until = sent + Duration::from_nanos(TTL).mul_f64(1.0 - DRIFT);
                let old = self.nodes[node].lease;
                let new =
                    lease.map(|id| LeaseState { id, until: old.filter(|o| o.id == id).map_or(until, |o| o.until.max(until)) });
                self.nodes[node].lease = new;
                self.with(node, |e, now| e.set_lease(new, now));
            }
            Event::Released { node, boot, epoch } => {
                if self.present(node, boot) {
                    self.with(node, |e, now| e.released(epoch, now));
                }
            }
            Event::Start { node } => self.start(node),
            Event::Resume { node } => {
                self.nodes[node].paused = false;
                for e in std::mem::take(&mut self.nodes[node].waiting) {
                    self.handle(e);
                }
            }
            Event::Chaos => self.chaos(),
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].election.is_some() {
            return;
        }
        self.n += 1;
        let (boot, now) = (self.n, self.clock(node));
        let s = Settings {
            me: self.nodes[node].name.clone(),
            boot,
            heartbeat: Duration::from_millis(100),
            hold: Duration::from_millis(400),
            drift: DRIFT,
            preempt: self.seed.is_multiple_of(3),
            preempt_delay: Duration::from_secs(2),
            flap_budget: 4,
            flap_window: Duration::from_secs(20),
            fault: self.fault,
        };
        let mut e = Election::new(s, now);
        e.set_fitness(true, 100 + node as u16, now);
        let n = &mut self.nodes[node];
        (n.boot, n.election, n.lease, n.stopping, n.woken) = (boot, Some(e), None, false, Time::FAR);
        n.open.clear();
        self.at(0, Event::Keep { node, boot });
        self.with(node, Election::handle_timeout);
    }

    fn keep(&mut self, node: usize, boot: u64) {
        if !self.present(node, boot) {
            return;
        }
        self.at(300 * MS, Event::Keep { node, boot });
        let (sent, lease) = (self.clock(node), self.nodes[node].lease.map(|l| l.id));
        self.nodes[node].keep_sent = sent;
        if !self.chance(2) {
            let d = self.rpc_delay();
            let base = self.etcd.bound(&self.nodes[node].name);
            self.at(d, Event::KeepServe { node, boot, sent, lease, base });
        }
        if self.nodes[node].stopping {
            let now = sent;
            let gone = self.nodes[node].election.as_ref().is_some_and(|e| e.may_leave(now));
            if gone {
                if let Some(id) = lease {
                    self.etcd.revoke(id);
                }
                self.kill(node);
                let d = self.below(3000) * MS;
                self.at(d, Event::Start { node });
            }
        }
    }

    fn kill(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        (n.election, n.lease, n.paused) = (None, None, false);
        n.waiting.clear();
    }

    /// A watch tells everybody that something changed, mostly.
    fn hint_all(&mut self) {
        for i in 0..self.nodes.len() {
            if !self.nodes[i].paused && !self.ecut.contains(&i) && self.chance(30) {
                self.with(i, Election::hint);
            }
        }
    }

    fn rpc_delay(&mut self) -> u64 {
        if self.chance(20) { self.pick(&[1, 2, 30, 300, 900, 2500]) * MS } else { MS }
    }

    /// Runs one input, publishes the hold, then carries out the actions: the order that drivers must keep.
    fn with(&mut self, node: usize, f: impl FnOnce(&mut Election, Time)) {
        let now = self.clock(node);
        let Some(mut e) = self.nodes[node].election.take() else { return };
        f(&mut e, now);
        let kernel = e.hold().map_or(0, |(_, until, _)| self.world_time(node, until));
        let boot = self.nodes[node].boot;
        self.nodes[node].kernel = kernel;
        while let Some(a) = e.poll_action() {
            if self.trace {
                println!("{} {} kernel {} {a:?}", self.t / MS, self.nodes[node].name, kernel / MS);
            }
            match a {
                Action::Send { to, message } => self.send(node, &to, message),
                Action::Store { id, request } => {
                    self.nodes[node].open.insert(id);
                    self.at(RPC_TIMEOUT, Event::Expired { node, boot, id });
                    if !self.chance(2) {
                        let d = self.rpc_delay();
                        self.at(d, Event::Serve { node, boot, id, request });
                    }
                }
                Action::Take { .. } => {
                    self.takes += 1;
                    assert!(kernel > self.t, "Take with no hold");
                }
                Action::Drop { epoch, handover, .. } => {
                    self.handovers += u64::from(handover);
                    let d = self.below(20) * MS;
                    self.at(d, Event::Released { node, boot, epoch });
                }
                Action::Changed | Action::Switched(_) | Action::Forgot(_) => {}
            }
        }
        let at = e.next_deadline();
        self.nodes[node].election = Some(e);
        if at != self.nodes[node].woken && at != Time::FAR {
            self.nodes[node].woken = at;
            let when = self.world_time(node, at).max(self.t + 1);
            self.at(when - self.t, Event::Wake { node, boot, at });
        }
    }

    fn send(&mut self, from: usize, to: &str, message: Message) {
        let Some(to) = self.nodes.iter().position(|n| n.name == to) else { return };
        if self.cut.contains(&(from, to)) || self.below(100) < self.loss {
            return;
        }
        let d = if self.chance(30) { self.pick(&[1, 1, 2, 5, 20, 150, 450]) } else { 1 } * MS;
        self.at(d, Event::Message { from, to, message });
        if self.chance(2) {
            self.at(d + 300 * MS, Event::Message { from, to, message });
        }
    }

    fn chaos(&mut self) {
        if self.t > CALM {
            self.cut.clear();
            self.ecut.clear();
            (self.loss, self.etcd.down) = (0, false);
            for i in 0..self.nodes.len() {
                self.with(i, |e, now| e.set_fitness(true, 100, now));
            }
            return;
        }
        let d = (50 + self.below(1450)) * MS;
        self.at(d, Event::Chaos);
        let k = self.nodes.len() as u64;
        let x = self.below(k) as usize;
        let up = self.nodes[x].election.is_some();
        let long = (10 + self.below(4000)) * MS;
        match self.below(100) {
            0..12 if up => {
                self.kill(x);
                self.at(long, Event::Start { node: x });
            }
            12..24 if up && !self.nodes[x].paused => {
                self.nodes[x].paused = true;
                self.at(long, Event::Resume { node: x });
            }
            24..34 => {
                let y = (x + 1 + self.below(k - 1) as usize) % k as usize;
                self.cut.insert((x, y));
                if self.chance(60) {
                    self.cut.insert((y, x));
                }
            }
            34..44 => drop(self.ecut.insert(x)),
            44..50 => self.etcd.down = true,
            50..55 => self.etcd.leader_change(self.t),
            55..60 if up && !self.nodes[x].paused && !self.nodes[x].stopping => {
                self.nodes[x].stopping = true;
                self.with(x, Election::stop);
                let boot = self.nodes[x].boot;
                self.at(3000 * MS, Event::Keep { node: x, boot });
            }
            60..66 => self.loss = self.pick(&[0, 5, 30]),
            66..74 if !self.nodes[x].paused => {
                let fit = self.chance(50);
                self.with(x, |e, now| e.set_fitness(fit, 100 + x as u16, now));
            }
            74..82 if !self.nodes[x].paused => self.with(x, |e, now| e.switchover(None, now)),
            _ => {
                if self.chance(60) {
                    self.cut.clear();
                }
                if self.chance(60) {
                    self.ecut.clear();
                }
                self.etcd.down = false;
            }
        }
    }
}
