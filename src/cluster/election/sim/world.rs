//! A cluster of agents with its network, its etcd and its faults, driven by one queue of events.

mod check;
mod faults;
mod lease;
mod network;
mod node;
mod script;

use super::etcd::{Etcd, TICK};
use super::plan::{MS, Mode, Plan};
use super::random::Random;
use crate::cluster::election::types::{Fault, Message};
use crate::time::Time;
use check::Watched;
use lease::LeaseAnswer;
use network::{Ask, Network};
use node::{Node, Stored};
use script::Step;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

enum Event {
    Wake {
        node: usize,
        boot: u64,
        at: Time,
    },
    Message {
        from: usize,
        to: usize,
        message: Message,
    },
    /// A request reaches etcd.
    Serve {
        node: usize,
        boot: u64,
        ask: Box<Ask>,
    },
    /// etcd's answer reaches the driver; `None` means certainly not executed.
    Stored {
        node: usize,
        boot: u64,
        id: u64,
        answer: Option<Box<Stored>>,
    },
    /// The driver's time-out for an answer.
    Expired {
        node: usize,
        boot: u64,
        id: u64,
    },
    /// Events of the lease keeper: an answer, a time-out, or the end of its pause.
    LeaseDone {
        node: usize,
        boot: u64,
        seq: u64,
        answer: LeaseAnswer,
    },
    LeaseExpired {
        node: usize,
        boot: u64,
        seq: u64,
    },
    LeaseNext {
        node: usize,
        boot: u64,
        seq: u64,
    },
    /// The agent has taken the addresses down.
    Released {
        node: usize,
        boot: u64,
        epoch: u64,
    },
    /// A stopping or parking agent checks whether it is done.
    Leave {
        node: usize,
        boot: u64,
        since: u64,
    },
    Hint {
        node: usize,
        boot: u64,
    },
    /// The driver takes an operator's wish back.
    GivenUp {
        node: usize,
        boot: u64,
    },
    Start {
        node: usize,
    },
    Resume {
        node: usize,
        boot: u64,
    },
    /// etcd's lease check.
    Tick,
    /// etcd has a leader again, after the outage with this number.
    Elected(u64),
    Fault,
    Step(Step),
    Calm,
}

struct Entry {
    t: u64,
    n: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.t, self.n).cmp(&(other.t, other.n))
    }
}

pub(in super::super) struct World {
    plan: Plan,
    r: Random,
    /// Chooses each process's hold.
    unlike: Random,
    /// Chooses the commits that go to two members of etcd, and the second copy's arrival.
    copies: Random,
    /// Whether a deletion takes all keys.
    whole: Random,
    fault: Option<Fault>,
    /// World time in nanoseconds.
    t: u64,
    n: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    nodes: Vec<Node>,
    etcd: Etcd,
    /// Nanoseconds of the world in a nanosecond of etcd's clock.
    etcd_rate: f64,
    net: Network,
    /// Number of etcd's newest outage; elections of an older one are skipped.
    outage: u64,
    watched: Watched,
    /// Prints every action; `KEEPCALL_TRACE` sets it for a replay.
    trace: bool,
}

/// Result of a run.
pub(in super::super) struct Outcome {
    pub(in super::super) bad: Option<String>,
    pub(in super::super) mode: Mode,
    pub(in super::super) masters: u64,
    pub(in super::super) handovers: u64,
    pub(in super::super) restarts: u64,
    /// Time from the end of the faults to the last instant without the final holder, in milliseconds.
    pub(in super::super) back_ms: u64,
    pub(in super::super) bound_ms: u64,
}

impl World {
    pub(in super::super) fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut r = Random::new(seed);
        let plan = Plan::of(seed, &mut r);
        let trace = std::env::var_os("KEEPCALL_TRACE").is_some();
        if trace {
            println!("seed {seed}: {plan:?}");
        }
        // Of any two clocks, etcd's included, one runs at most 1 + drift times as fast as the other. Most differing
        // pairs are at that bound.
        let rate = |r: &mut Random| {
            let x = if r.chance(70) { *r.one(&[0.0, 1.0]) } else { r.below(101) as f64 / 100.0 };
            1.0 + x * plan.drift
        };
        let etcd_rate = 1.0 / rate(&mut r);
        let nodes: Vec<Node> =
            (0..plan.nodes).map(|i| Node::new(i, rate(&mut r), r.between(1, 1_000_000) * MS)).collect();
        let (blind, forgetful) = (fault == Some(Fault::SlowUncompared), fault == Some(Fault::ReturnUnseen));
        let ttl = (plan.ttl as f64 * etcd_rate) as u64;
        let mut w = Self {
            etcd: Etcd::new(ttl, blind, forgetful),
            net: Network::new(&plan),
            outage: 0,
            watched: Watched::default(),
            plan,
            r,
            unlike: Random::new(!seed ^ 1),
            copies: Random::new(!seed ^ 2),
            whole: Random::new(!seed ^ 3),
            fault,
            t: 0,
            n: 0,
            queue: BinaryHeap::new(),
            nodes,
            etcd_rate,
            trace,
        };
        let late = w.plan.mode == Mode::Script && w.r.chance(40);
        for i in 0..w.plan.nodes {
            // Most agents start together; a script may want a node that is no member yet.
            if !(late && i == w.plan.nodes - 1) {
                let d = w.r.below(100) * MS;
                w.at(d, Event::Start { node: i });
            }
        }
        let phase = w.r.below(TICK);
        w.at(phase, Event::Tick);
        w.at(w.plan.first_fault, Event::Fault);
        w.at(w.plan.calm, Event::Calm);
        w
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.n += 1;
        self.queue.push(Reverse(Entry { t: self.t + delay, n: self.n, event }));
    }

    fn broken(&self, f: Fault) -> bool {
        self.fault == Some(f)
    }

    pub(in super::super) fn run(mut self) -> Outcome {
        while let Some(Reverse(e)) = self.queue.pop() {
            if e.t > self.plan.end || self.watched.bad.is_some() {
                break;
            }
            self.t = e.t;
            self.handle(e.event);
        }
        self.t = self.plan.end;
        self.check_end();
        Outcome {
            mode: self.plan.mode,
            masters: self.watched.masters,
            handovers: self.watched.handovers,
            restarts: self.watched.restarts,
            back_ms: self.watched.last_trouble.saturating_sub(self.plan.calm) / MS,
            bound_ms: self.plan.bound() / MS,
            bad: self.watched.bad,
        }
    }

    /// Events for a frozen process wait for it.
    fn handle(&mut self, e: Event) {
        let to = match &e {
            Event::Wake { node, .. }
            | Event::Stored { node, .. }
            | Event::Expired { node, .. }
            | Event::LeaseDone { node, .. }
            | Event::LeaseExpired { node, .. }
            | Event::LeaseNext { node, .. }
            | Event::Released { node, .. }
            | Event::Leave { node, .. }
            | Event::Hint { node, .. }
            | Event::GivenUp { node, .. }
            | Event::Message { to: node, .. } => Some(*node),
            _ => None,
        };
        if let Some(n) = to.filter(|n| self.nodes[*n].frozen) {
            self.nodes[n].waiting.push(e);
            return;
        }
        match e {
            Event::Wake { node, boot, at } => self.woken(node, boot, at),
            Event::Message { from, to, message } => self.receive(from, to, message),
            Event::Serve { node, boot, ask } => self.serve(node, boot, *ask),
            Event::Stored { node, boot, id, answer } => self.stored(node, boot, id, answer.map(|a| *a)),
            Event::Expired { node, boot, id } => self.expired(node, boot, id),
            Event::LeaseDone { node, boot, seq, answer } => self.lease_done(node, boot, seq, answer),
            Event::LeaseExpired { node, boot, seq } => self.lease_done(node, boot, seq, LeaseAnswer::Failed),
            Event::LeaseNext { node, boot, seq } => self.lease_next(node, boot, seq),
            Event::Released { node, boot, epoch } => self.released(node, boot, epoch),
            Event::Leave { node, boot, since } => self.leave(node, boot, since),
            Event::Hint { node, boot } => {
                if self.present(node, boot) {
                    self.with(node, crate::cluster::election::Election::hint);
                }
            }
            Event::GivenUp { node, boot } => self.given_up(node, boot),
            Event::Start { node } => self.start(node),
            Event::Resume { node, boot } => self.resume(node, boot),
            Event::Tick => {
                if self.etcd.tick(self.t) {
                    self.hint_all();
                }
                let next = (TICK as f64 * self.etcd_rate) as u64;
                self.at(next, Event::Tick);
            }
            Event::Elected(outage) if outage == self.outage => self.etcd.elected(self.t),
            Event::Elected(_) => {}
            Event::Fault => self.next_fault(),
            Event::Step(s) => self.step(&s),
            Event::Calm => self.calm(),
        }
    }
}
