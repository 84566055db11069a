//! The world of the exploration: nodes that run the real state machine, their kernels, the items in flight between
//! them, and etcd. Time runs in ticks. Within a tick everything happens at once, in a fixed order, unless a choice
//! (`choices.rs`) says otherwise.

use super::reached::Reached;
use super::store::Store;
use crate::cluster::election::Election;
use crate::cluster::election::types::{
    Failure, Fault, Inherited, LeaseState, Message, ReportedSettings, Request, Settings,
};
use crate::cluster::record::{Terms, View};
use crate::cluster::settings::digest_of_vips;
use crate::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

/// The nodes; a cluster of two omits the last.
pub(super) const NAMES: [&str; 3] = ["n0", "n1", "n2"];

/// A grain of time in nanoseconds. A slow clock runs 4 grains in a tick, a fast one 5: as far apart as a drift of a
/// quarter allows. So large a drift makes both waits whole ticks, and no rounding hides or creates an overlap.
const GRAIN: u64 = 125_000_000;
pub(super) const DRIFT: f64 = 0.25;
pub(super) const SLOW: u64 = 4;
pub(super) const FAST: u64 = 5;
/// 5 ticks of a slow clock, and 4 of a fast one: a promiser that ignored the drift would be free a tick too early. The
/// missing nanosecond offsets the extra nanosecond of a promise: a slow holder's right ends at exactly the tick at
/// which a fast promiser is free.
pub(super) const HOLD: Duration = Duration::from_nanos(20 * GRAIN - 1);
/// The hold of nodes with a different one: 3 ticks of a slow clock.
const SHORT: Duration = Duration::from_nanos(12 * GRAIN - 1);
const HEARTBEAT: Duration = Duration::from_nanos(4 * GRAIN);
/// etcd's clock is fast: leases end as early as they may.
pub(super) const TTL_TICKS: u32 = 7;
pub(super) const TTL: Duration = Duration::from_nanos(TTL_TICKS as u64 * FAST * GRAIN);
/// Ticks between two renewals of a lease.
const RENEW: u32 = 2;
/// Ticks until a node gives up on an answer of etcd.
pub(super) const PATIENCE: u32 = 2;
/// The clock's start, so that no distance reaches back before boot.
const BASE: u64 = 1_000_000_000_000;

pub(super) fn index(name: &str) -> Option<usize> {
    NAMES.iter().position(|n| *n == name)
}

/// The driver's reading of etcd's answer.
pub(super) type Answer = Result<(bool, Rc<View>), Failure>;

/// An imminent event. A `copied` request is one of two copies.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Wake { node: usize },
    Hint { node: usize },
    Keep { node: usize },
    GiveUp { node: usize, id: u64 },
    Released { node: usize, boot: u64, epoch: u64 },
    Message { from: usize, to: usize, message: Message },
    Serve { node: usize, boot: u64, id: u64, request: Rc<Request>, copied: bool },
    Served { node: usize, boot: u64, id: u64, answer: Answer },
    Renew { node: usize, boot: u64, sent: Time, lease: Option<i64>, base: i64 },
    Renewed { node: usize, boot: u64, sent: Time, asked: Option<i64>, lease: Option<i64> },
    Expire { lease: i64 },
}

/// How the nodes' settings differ. Each process has other settings than the process before it, as after a change in the
/// configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unlike {
    #[default]
    No,
    /// The first node has the long hold and the others the short one.
    LongFirst,
    /// The first node has the short hold and the others the long one.
    ShortFirst,
    /// This node has the instance's addresses at first, and others after its restart.
    Vips(usize),
    /// Every node has other addresses after its restart, the same on all.
    AllVips,
}

#[derive(Clone)]
pub(super) struct Node {
    /// Grains of its clock in a tick.
    pub(super) rate: u64,
    pub(super) boot: u64,
    /// Processes before this one.
    pub(super) starts: u64,
    /// `None` without a running process.
    pub(super) election: Option<Rc<Election>>,
    /// The kernel's setting: epoch, and deadline by the node's clock. It outlives the process.
    pub(super) kernel: Option<(u64, Time)>,
    pub(super) frozen: bool,
    /// Items that arrived while the process was frozen.
    pub(super) backlog: Vec<Item>,
    /// Open requests, each with the tick of its time-out.
    pub(super) open: Vec<(u64, u32)>,
    pub(super) lease: Option<LeaseState>,
    pub(super) keep_at: u32,
    /// The renewal in flight.
    pub(super) keeping: Option<Time>,
    pub(super) unplugged: bool,
    pub(super) stopping: bool,
    pub(super) preferred: bool,
}

impl Node {
    pub(super) const fn priority(&self) -> u16 {
        if self.preferred { 200 } else { 100 }
    }
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) tick: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) store: Rc<Store>,
    pub(super) down: bool,
    /// Next items in this tick.
    pub(super) queue: VecDeque<Item>,
    /// Delayed items, with the tick of the delay: they may happen later, or never.
    pub(super) stuck: Vec<(u32, Item)>,
    /// Directions of the network that carry nothing: (from, to).
    pub(super) cut: Vec<(usize, usize)>,
    pub(super) reached: Reached,
    boots: u64,
    /// An operator has requested a switchover, or the end of an agent.
    pub(super) asked: bool,
    /// Epoch, master and members of the newest record.
    pub(super) newest: Option<(u64, String, Vec<String>)>,
    /// A forbidden change of the record, if one happened.
    pub(super) wrong: Option<&'static str>,
    pub(super) unlike: Unlike,
    fault: Option<Fault>,
    /// Events in words; kept only while a path is replayed.
    pub(super) log: Option<Vec<String>>,
}

impl World {
    /// A cluster whose clocks have these rates; no process runs yet.
    pub(super) fn new(rates: &[u64], unlike: Unlike, fault: Option<Fault>) -> Self {
        let node = |rate: &u64| Node {
            rate: *rate,
            boot: 0,
            starts: 0,
            election: None,
            kernel: None,
            frozen: false,
            backlog: Vec::new(),
            open: Vec::new(),
            lease: None,
            keep_at: 0,
            keeping: None,
            unplugged: false,
            stopping: false,
            preferred: false,
        };
        Self {
            tick: 0,
            nodes: rates.iter().map(node).collect(),
            store: Rc::default(),
            down: false,
            queue: VecDeque::new(),
            stuck: Vec::new(),
            cut: Vec::new(),
            reached: Reached::default(),
            boots: 0,
            asked: false,
            newest: None,
            wrong: None,
            unlike,
            fault,
            log: None,
        }
    }

    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub(super) fn clock(&self, node: usize) -> Time {
        Time::from_nanos(BASE + self.nodes[node].rate * GRAIN * u64::from(self.tick))
    }

    pub(super) fn say(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let line = format!("{:3} {}", self.tick, what(self));
            self.log.iter_mut().for_each(|l| l.push(line.clone()));
        }
    }

    /// The nodes that answer for the addresses now.
    pub(super) fn holders(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].kernel.is_some_and(|k| k.1 > self.clock(*n)))
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        self.nodes[node].election.is_some()
    }

    pub(super) fn is_current(&self, node: usize, boot: u64) -> bool {
        self.runs(node) && self.nodes[node].boot == boot
    }

    /// Hold and addresses of the next process.
    fn settings(&self, node: usize) -> (Duration, BTreeSet<IpAddr>) {
        let changed = !self.nodes[node].starts.is_multiple_of(2);
        let hold = match self.unlike {
            Unlike::LongFirst if (node == 0) == changed => SHORT,
            Unlike::ShortFirst if (node == 0) != changed => SHORT,
            _ => HOLD,
        };
        let moved = self.unlike == Unlike::AllVips || self.unlike == Unlike::Vips(node);
        let other = (changed && moved).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (hold, std::iter::once(IpAddr::V4(Ipv4Addr::BROADCAST)).chain(other).collect())
    }

    /// Checks the record after a request, whether or not it changed.
    pub(super) fn watch_record(&mut self) {
        let Some((_, r)) = &self.store.record else { return };
        if self.newest.as_ref().is_some_and(|n| n.0 == r.epoch && n.1 == r.master && n.2 == r.members) {
            return;
        }
        if let Some((epoch, master, members)) = &self.newest {
            let moved = *master != r.master;
            let living = |m: &String| index(m).is_some_and(|n| self.store.bound(n) != 0);
            if r.epoch < *epoch || (moved && r.epoch == *epoch) {
                self.wrong = Some("the epoch did not rise");
            } else if moved && self.store.paused && !self.asked {
                self.wrong = Some("the master changed in a pause, and nobody had asked for it");
            } else if r.epoch == *epoch && members.iter().any(|m| !r.members.contains(m) && living(m)) {
                self.wrong = Some("a member was forgotten, and its key is there");
            }
        }
        self.newest = Some((r.epoch, r.master.clone(), r.members.clone()));
    }

    /// Whether a holder matches the present record: a change of the record that leaves another host answering creates a
    /// second holder as soon as the new master learns of it.
    fn may_answer(&self, node: usize) -> bool {
        let (Some((_, r)), Some((epoch, _))) = (&self.store.record, self.nodes[node].kernel) else { return true };
        let own = epoch == r.epoch && r.master == NAMES[node];
        own || (epoch + 1 == r.epoch && r.handover.as_deref() == Some(NAMES[node]))
    }

    /// Whether a forbidden state is reached: two hosts answer, an answering host is not named by the record or lacks
    /// the instance's addresses, or a record breaks a rule.
    pub(super) fn is_bad(&self) -> bool {
        let vips = self.store.record.as_ref().map(|r| &r.1.vips);
        let stranger = |n: usize| {
            let own = self.nodes[n].election.as_ref().and_then(|e| e.hold().map(|_| &e.s.vips));
            own.is_some() && vips.is_some() && own != vips
        };
        if self.wrong.is_some() {
            return true;
        }
        let mut holders = self.holders();
        let first = holders.next();
        if first.is_some_and(|n| !self.may_answer(n)) {
            return true;
        }
        holders.next().is_some() || first.is_some_and(stranger)
    }

    /// Starts a process, which takes over its kernel's hold.
    pub(super) fn start(&mut self, node: usize) {
        self.boots += 1;
        let now = self.clock(node);
        let (hold, vips) = self.settings(node);
        self.nodes[node].starts += 1;
        let settings = Settings {
            me: NAMES[node].to_owned(),
            boot: self.boots,
            heartbeat: HEARTBEAT,
            hold,
            drift: DRIFT,
            preempt: true,
            preempt_delay: Duration::ZERO,
            // No change is held down: a hold-down only makes takeovers rarer.
            flap_budget: u32::MAX,
            flap_window: Duration::ZERO,
            reported: ReportedSettings { terms: Terms::new(hold, DRIFT), vips: digest_of_vips(&vips), others: 0 },
            vips,
            fault: self.fault,
        };
        // The kernel holds the former process's addresses. A process with other addresses drops them.
        let alike = self.unlike != Unlike::Vips(node) && self.unlike != Unlike::AllVips;
        let election = Election::new(settings, now);
        let priority = self.nodes[node].priority();
        let n = &mut self.nodes[node];
        (n.boot, n.election, n.keep_at) = (self.boots, Some(Rc::new(election)), self.tick);
        let inherited = n.kernel.filter(|k| k.1 > now && alike).map(|(epoch, until)| Inherited { epoch, until });
        self.queue.push_back(Item::Keep { node });
        self.input(node, |e, now| {
            if let Some(i) = inherited {
                e.adopt(i, now);
            }
            e.set_fitness(true, priority, now);
        });
    }

    /// Ends the process. Its kernel keeps running unless the host ends as well.
    pub(super) fn kill(&mut self, node: usize, host: bool) {
        let n = &mut self.nodes[node];
        (n.election, n.frozen, n.lease, n.keeping, n.stopping) = (None, false, None, None, false);
        n.backlog.clear();
        n.open.clear();
        if host {
            n.kernel = None;
        }
    }

    /// Applies one input, then sets the hold in the kernel, and only then executes the actions: the order that drivers
    /// keep.
    pub(super) fn input(&mut self, node: usize, f: impl FnOnce(&mut Election, Time)) {
        let now = self.clock(node);
        let Some(mut rc) = self.nodes[node].election.take() else { return };
        let e = Rc::make_mut(&mut rc);
        f(e, now);
        self.nodes[node].kernel = e.hold().map(|(epoch, until, _)| (epoch, until));
        while let Some(a) = e.poll_action() {
            self.say(|w| {
                let left = w.nodes[node].kernel.map(|k| k.1.since(now).as_nanos() / u128::from(GRAIN));
                format!("      {} (hold left: {left:?} grains) {a:?}", NAMES[node])
            });
            super::choices::carry_out(self, node, a);
        }
        let wake = e.next_deadline();
        self.nodes[node].election = Some(rc);
        // The machine requests another pass in the same instant by adding a nanosecond.
        if wake <= now + Duration::from_nanos(1) {
            self.queue.push_back(Item::Wake { node });
        }
    }

    /// Time advances by one tick: everything due then is queued.
    pub(super) fn tick(&mut self) {
        self.tick += 1;
        let t = self.tick;
        if !self.down {
            let late = |l: i64| self.stuck.iter().any(|s| matches!(s.1, Item::Expire { lease } if lease == l));
            let due = self.store.leases.iter().filter(|l| l.1 <= t && !late(l.0));
            let due: Vec<Item> = due.map(|l| Item::Expire { lease: l.0 }).collect();
            self.queue.extend(due);
        }
        for node in 0..self.nodes.len() {
            self.due(node);
        }
    }

    /// Queues the events of a node's timers.
    pub(super) fn due(&mut self, node: usize) {
        let (t, now) = (self.tick, self.clock(node));
        let n = &self.nodes[node];
        let Some(e) = n.election.as_ref().filter(|_| !n.frozen) else { return };
        if n.stopping && e.may_leave(now) {
            // A clean end revokes the lease.
            if let Some(l) = n.lease.filter(|_| !self.down && !n.unplugged) {
                Rc::make_mut(&mut self.store).revoke(l.id);
            }
            return self.kill(node, false);
        }
        if t >= n.keep_at {
            self.queue.push_back(Item::Keep { node });
        }
        let expired = n.open.iter().filter(|o| o.1 <= t);
        self.queue.extend(expired.map(|o| Item::GiveUp { node, id: o.0 }));
        if e.next_deadline() <= now {
            self.queue.push_back(Item::Wake { node });
        }
    }

    /// The driver's lease keeper: one renewal at a time.
    pub(super) fn keep(&mut self, node: usize) {
        let (sent, base, tick) = (self.clock(node), self.store.bound(node), self.tick);
        let n = &mut self.nodes[node];
        n.keep_at = tick + RENEW;
        n.keeping = Some(sent);
        let (boot, lease) = (n.boot, n.lease.map(|l| l.id));
        self.queue.push_back(Item::Renew { node, boot, sent, lease, base });
    }

    pub(super) fn renewed(&mut self, node: usize, sent: Time, asked: Option<i64>, lease: Option<i64>) {
        let until = sent + TTL.mul_f64(1.0 - DRIFT);
        let n = &mut self.nodes[node];
        n.keeping = None;
        let old = n.lease;
        n.lease =
            lease.map(|id| LeaseState { id, until: old.filter(|o| o.id == id).map_or(until, |o| o.until.max(until)) });
        if asked.is_some() && lease.is_none() {
            n.keep_at = self.tick + 1;
        }
        let new = n.lease;
        self.input(node, |e, now| e.set_lease(new, now));
    }
}
