//! A host with its kernel and its agent: the driver's part around an election.

use super::super::plan::{FLAP_WINDOW, MS, Mode, PREEMPT_DELAY, RPC_TIMEOUT};
use super::lease::Keeper;
use super::network::Ask;
use super::{Event, World};
use crate::cluster::election::types::{
    Action, Commit, Failure, Fault, Inherited, LeaseState, ReportedSettings, Request, Settings,
};
use crate::cluster::election::{Election, Outcome};
use crate::cluster::record::{Terms, View};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A stopping driver waits this long for a handover, and this long in total.
const HANDOVER_TIME: u64 = 2500 * MS;
const LEAVE_TIME: u64 = 5000 * MS;
/// How long the driver waits for a switchover.
const SWITCH_TIME: u64 = 5000 * MS;
/// When a parking driver no longer waits.
const PARK_TIME: u64 = 2000 * MS;

pub(super) type Stored = (bool, View);

/// How an agent ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    Stop,
    Park,
}

pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) rate: f64,
    pub(super) offset: u64,
    pub(super) boot: u64,
    pub(super) election: Option<Box<Election>>,
    pub(super) lease: Option<LeaseState>,
    pub(super) keeper: Keeper,
    /// The name is ours in etcd; before that the node neither sends nor writes.
    pub(super) named: bool,
    pub(super) frozen: bool,
    /// Events that arrived while the process was frozen, in order.
    pub(super) waiting: Vec<Event>,
    open: BTreeSet<u64>,
    /// Open requests that went to two members of etcd.
    pub(super) copied: BTreeMap<u64, Commit>,
    /// How long the kernel lets the host answer, in the world's time, and under which epoch. Outlives the agent.
    pub(super) kernel: u64,
    pub(super) kernel_epoch: u64,
    pub(super) woken: Time,
    /// The epoch whose addresses may be up.
    up: Option<u64>,
    pub(super) leaving: Leaving,
    pub(super) fit: bool,
    /// The node is without power for good.
    pub(super) dead: bool,
    /// When an operator last asked it to hand over.
    asked: u64,
}

const NAMES: [&str; 5] = ["n0", "n1", "n2", "n3", "n4"];

impl Node {
    pub(super) fn new(i: usize, rate: f64, offset: u64) -> Self {
        Self {
            name: NAMES[i],
            rate,
            offset,
            boot: 0,
            election: None,
            lease: None,
            keeper: Keeper::default(),
            named: false,
            frozen: false,
            waiting: Vec::new(),
            open: BTreeSet::new(),
            copied: BTreeMap::new(),
            kernel: 0,
            kernel_epoch: 0,
            woken: Time::FAR,
            up: None,
            leaving: Leaving::No,
            fit: true,
            dead: false,
            asked: 0,
        }
    }
}

impl World {
    pub(super) fn clock(&self, node: usize) -> Time {
        let n = &self.nodes[node];
        Time::from_nanos(n.offset + (self.t as f64 * n.rate) as u64)
    }

    pub(super) fn world_time(&self, node: usize, at: Time) -> u64 {
        let n = &self.nodes[node];
        // Rounded up, so that a timer never fires before its deadline on the node's own clock.
        (at.as_nanos().saturating_sub(n.offset) as f64 / n.rate).ceil() as u64
    }

    pub(super) fn present(&self, node: usize, boot: u64) -> bool {
        self.nodes[node].boot == boot && self.nodes[node].election.is_some()
    }

    pub(super) fn up(&self, node: usize) -> bool {
        self.nodes[node].election.is_some() && !self.nodes[node].frozen
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].election.is_some() || self.nodes[node].dead {
            return;
        }
        self.n += 1;
        let (boot, now) = (self.n, self.clock(node));
        let hold = Duration::from_nanos(*self.unlike.one(&self.plan.holds));
        let reported = ReportedSettings { terms: Terms::new(hold, self.plan.drift), vips: 0, others: 0 };
        let s = Settings {
            me: self.nodes[node].name.to_owned(),
            boot,
            heartbeat: Duration::from_nanos(self.plan.heartbeat),
            hold,
            drift: self.plan.drift,
            preempt: self.plan.preempt,
            preempt_delay: Duration::from_nanos(PREEMPT_DELAY),
            flap_budget: 4,
            flap_window: Duration::from_nanos(FLAP_WINDOW),
            vips: BTreeSet::new(),
            reported,
            fault: self.fault,
        };
        let mut e = Box::new(Election::new(s, now));
        if self.nodes[node].kernel > self.t {
            // Round the kernel's deadline down: it must never be later than the truth.
            let left = Duration::from_nanos(self.nodes[node].kernel - self.t).mul_f64(self.nodes[node].rate);
            let until = now + left.saturating_sub(Duration::from_millis(1));
            let until = if self.broken(Fault::AdoptFull) { now + hold } else { until };
            e.adopt(Inherited { epoch: self.nodes[node].kernel_epoch, until }, now);
            self.watched.restarts += 1;
        }
        let (fit, priority) = (self.nodes[node].fit, 100 + node as u16);
        let n = &mut self.nodes[node];
        (n.boot, n.election, n.lease, n.named, n.leaving, n.woken) =
            (boot, Some(e), None, false, Leaving::No, Time::FAR);
        (n.up, n.frozen) = (None, false);
        n.open.clear();
        n.copied.clear();
        n.waiting.clear();
        self.with(node, |e, now| e.set_fitness(fit, priority, now));
        self.register(node);
    }

    /// The process ends; the kernel keeps its last setting.
    pub(super) fn kill(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        (n.election, n.lease, n.frozen, n.up) = (None, None, false, None);
        n.waiting.clear();
    }

    /// The host ends, and its clock restarts at another time.
    pub(super) fn power_off(&mut self, node: usize) {
        self.kill(node);
        self.set_kernel(node, None);
        self.nodes[node].offset = self.r.between(1, 1000) * MS;
    }

    pub(super) fn freeze(&mut self, node: usize, time: u64) {
        if self.up(node) {
            self.nodes[node].frozen = true;
            let boot = self.nodes[node].boot;
            self.at(time, Event::Resume { node, boot });
        }
    }

    pub(super) fn resume(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot || !self.nodes[node].frozen {
            return;
        }
        self.nodes[node].frozen = false;
        let mut waiting = std::mem::take(&mut self.nodes[node].waiting);
        // A resumed process handles sockets, timers and answers in no certain order.
        if self.r.chance(50) {
            for i in (1..waiting.len()).rev() {
                let j = self.r.below(i as u64 + 1) as usize;
                waiting.swap(i, j);
            }
        }
        for e in waiting {
            self.handle(e);
        }
    }

    /// Applies one input, brings the hold into the kernel, then executes the actions: the order that drivers must keep.
    pub(super) fn with(&mut self, node: usize, f: impl FnOnce(&mut Election, Time)) {
        let now = self.clock(node);
        let Some(mut e) = self.nodes[node].election.take() else { return };
        f(&mut e, now);
        let boot = self.nodes[node].boot;
        let hold = e.hold().map(|(epoch, until, _)| (epoch, self.world_time(node, until)));
        self.set_kernel(node, hold);
        while let Some(a) = e.poll_action() {
            if self.trace {
                println!("{} {} kernel {} {a:?}", self.t / MS, self.nodes[node].name, self.nodes[node].kernel / MS);
            }
            match a {
                Action::Send { to, message } => {
                    if self.nodes[node].named {
                        self.send(node, &to, message);
                    }
                }
                Action::Store { id, request } => {
                    self.nodes[node].open.insert(id);
                    if !self.nodes[node].named && request != Request::Read {
                        self.at(0, Event::Stored { node, boot, id, answer: None });
                        continue;
                    }
                    self.at(RPC_TIMEOUT, Event::Expired { node, boot, id });
                    self.ask(node, Ask::Store { id, request: Box::new(request) });
                }
                Action::Take(change) => {
                    self.nodes[node].up = Some(change.epoch);
                    self.check_take(node, change.epoch);
                }
                Action::Drop { epoch, handover, .. } => {
                    self.watched.handovers += u64::from(handover);
                    let d = self.r.below(20) * MS;
                    self.at(d, Event::Released { node, boot, epoch });
                }
                Action::Changed | Action::Switched(_) | Action::Forgot(_) => {}
            }
        }
        let at = e.next_deadline();
        self.nodes[node].election = Some(e);
        // A postponed deadline is rechecked at its old time: most deadlines move with each message.
        if at < self.nodes[node].woken {
            self.wake(node, at);
        }
    }

    fn wake(&mut self, node: usize, at: Time) {
        self.nodes[node].woken = at;
        let (boot, when) = (self.nodes[node].boot, self.world_time(node, at).max(self.t + 1));
        self.at(when - self.t, Event::Wake { node, boot, at });
    }

    /// A node's noted deadline has come.
    pub(super) fn woken(&mut self, node: usize, boot: u64, at: Time) {
        if !self.present(node, boot) || self.nodes[node].woken != at {
            return;
        }
        self.nodes[node].woken = Time::FAR;
        match self.nodes[node].election.as_ref().map(|e| e.next_deadline()) {
            Some(due) if due > at && due != Time::FAR => self.wake(node, due),
            _ => self.with(node, Election::handle_timeout),
        }
    }

    pub(super) fn stored(&mut self, node: usize, boot: u64, id: u64, answer: Option<Stored>) {
        if !self.present(node, boot) || !self.nodes[node].open.remove(&id) {
            return;
        }
        let copied = self.nodes[node].copied.remove(&id);
        let outcome = |ok: bool, view: &View| match &copied {
            Some(c) if !self.broken(Fault::CopyRefusal) => c.outcome(ok, true, view),
            _ if ok => Outcome::Done,
            _ => Outcome::Refused,
        };
        let answer = match answer {
            Some((ok, view)) => outcome(ok, &view).answer(view),
            None if copied.is_some() => Err(Failure::InDoubt),
            None => Err(Failure::Definite),
        };
        self.with(node, |e, now| match answer {
            Ok((ok, view)) => e.handle_reply(id, ok, view, now),
            Err(failure) => e.handle_failure(id, failure, now),
        });
    }

    pub(super) fn expired(&mut self, node: usize, boot: u64, id: u64) {
        if self.present(node, boot) && self.nodes[node].open.remove(&id) {
            self.nodes[node].copied.remove(&id);
            self.with(node, |e, now| e.handle_failure(id, Failure::InDoubt, now));
        }
    }

    pub(super) fn released(&mut self, node: usize, boot: u64, epoch: u64) {
        if self.present(node, boot) {
            self.nodes[node].up = self.nodes[node].up.filter(|up| *up > epoch);
            self.with(node, |e, now| e.released(epoch, now));
        }
    }

    /// An operator asks the node to hand over.
    pub(super) fn switchover(&mut self, node: usize, to: Option<String>) {
        if self.up(node) {
            (self.watched.asked, self.nodes[node].asked) = (Some(self.t), self.t);
            let boot = self.nodes[node].boot;
            self.at(SWITCH_TIME, Event::GivenUp { node, boot });
            self.with(node, |e, now| e.switchover(to, now));
        }
    }

    /// Whoever asked for a switchover waits no longer, and the driver takes the wish back.
    pub(super) fn given_up(&mut self, node: usize, boot: u64) {
        if self.present(node, boot) && self.t >= self.nodes[node].asked + SWITCH_TIME {
            self.with(node, |e, _| e.cancel_switchover());
        }
    }

    pub(super) fn stop(&mut self, node: usize, how: Leaving) {
        if !self.up(node) || self.nodes[node].leaving != Leaving::No {
            return;
        }
        self.watched.asked = Some(self.t);
        self.nodes[node].leaving = how;
        match how {
            Leaving::No => return,
            Leaving::Stop => self.with(node, Election::stop),
            Leaving::Park => self.with(node, Election::park),
        }
        let (boot, since) = (self.nodes[node].boot, self.t);
        self.at(1, Event::Leave { node, boot, since });
    }

    pub(super) fn leave(&mut self, node: usize, boot: u64, since: u64) {
        if !self.present(node, boot) {
            return;
        }
        let park = self.nodes[node].leaving == Leaving::Park;
        if !park && self.t >= since + HANDOVER_TIME {
            self.with(node, Election::stop_at_once);
        }
        let (now, up) = (self.clock(node), self.nodes[node].up);
        let Some(e) = self.nodes[node].election.as_ref() else { return };
        let done = if park {
            e.parked() || self.t >= since + PARK_TIME
        } else {
            (e.may_leave(now) && up.is_none()) || self.t >= since + LEAVE_TIME
        };
        if !done {
            self.at(20 * MS, Event::Leave { node, boot, since });
            return;
        }
        let lease = self.nodes[node].lease;
        if let Some(l) = lease.filter(|_| !park) {
            self.ask(node, Ask::Revoke { lease: l.id });
        }
        self.kill(node);
        if !park {
            // A clean stop clears the kernel's deadline.
            self.set_kernel(node, None);
        }
        let d = match (self.plan.mode, park) {
            (Mode::Agent, true) => self.r.between(1, 600),
            (_, true) => self.r.between(1, 3000),
            (_, false) => self.r.between(1, 3000),
        };
        self.at(d * MS, Event::Start { node });
    }
}
