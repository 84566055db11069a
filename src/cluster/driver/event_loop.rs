//! The loop between sockets, timers and etcd on one side and the pure elections on the other.

mod asking;
mod commands;
mod ending;
mod learning;
mod report;

use super::enforcer::Enforced;
use super::{ClusterEvent, Command, ForgetError, PARK_TIME, Shared, SwitchoverError};
use crate::cluster::election::{Action, Election, Failure, Inherited, LeaseState, ReportedSettings, Settings};
use crate::cluster::heartbeat::{Codec, MAX_DATAGRAM, Rejected};
use crate::cluster::lease::Name;
use crate::cluster::record::{Terms, View};
use crate::cluster::settings::{self, Unlike};
use crate::cluster::stalls::{Kind, Stalls};
use crate::config::Config;
use crate::etcd::{Changes, EtcdError, Keys, WatchEvent};
use crate::os::clock;
use crate::time::Time;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Queue of etcd's answers: each election has at most two open requests.
const ANSWERS: usize = 256;
/// A stop waits this long for a handover.
const HANDOVER_TIME: Duration = Duration::from_millis(2500);
/// A stop waits this long for `released` and for promises to run out.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// Limit on keys with remembered bad values, each reported once.
const MAX_WARNED: usize = 256;
/// Interval between warnings about one kind of bad datagram.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What the loop needs, besides the configuration, to start.
pub(super) struct Setup {
    /// Address that receives heartbeats.
    pub(super) address: SocketAddr,
    pub(super) codec: Codec,
    pub(super) keys: Keys,
    pub(super) boot: u64,
    pub(super) lease: watch::Receiver<Option<LeaseState>>,
    pub(super) name: watch::Receiver<Name>,
    pub(super) register_again: Arc<Notify>,
    pub(super) lease_task: JoinHandle<()>,
    pub(super) events: mpsc::Sender<ClusterEvent>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) enforced: Enforced,
    pub(super) outside: Handle,
    /// Whether instances may be elected before the agent says so.
    pub(super) ready: bool,
}

/// The election of one instance, and what the agent asked of it.
struct InstanceElection {
    name: String,
    election: Election,
    /// The epoch whose addresses may still be up.
    up: Option<u64>,
    asked: Option<oneshot::Sender<Result<u64, SwitchoverError>>>,
    forget: Option<oneshot::Sender<Result<(), ForgetError>>>,
    summary: String,
    /// The server's health from the agent, and whether the election knows of a kernel failure.
    fitness: Option<(bool, u16)>,
    kernel_fails: bool,
}

struct Answer {
    index: usize,
    id: u64,
    result: Result<(bool, View), (Failure, EtcdError)>,
}

pub(super) struct EventLoop {
    me: String,
    /// `None` only before `run`.
    socket: Option<UdpSocket>,
    shared: Arc<Shared>,
    /// Address that receives heartbeats.
    address: SocketAddr,
    codec: Codec,
    keys: Keys,
    lease: watch::Receiver<Option<LeaseState>>,
    name: watch::Receiver<Name>,
    register_again: Arc<Notify>,
    lease_task: JoinHandle<()>,
    events: mpsc::Sender<ClusterEvent>,
    commands: mpsc::Receiver<Command>,
    enforced: Enforced,
    outside: Handle,
    elections: Vec<InstanceElection>,
    peers: BTreeMap<String, SocketAddr>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    pending: VecDeque<ClusterEvent>,
    rejected: u64,
    /// Kinds of bad datagrams with the time of their warning; at most one entry for each kind.
    complained: Vec<(Rejected, Time)>,
    warned: HashMap<String, String>,
    unlike: Unlike,
    stopping: Option<(Time, Option<oneshot::Sender<()>>)>,
    parking: Option<(Time, oneshot::Sender<bool>)>,
    /// Earliest time to rebuild the status.
    status_at: Time,
    /// The state has changed since the last status.
    status_due: bool,
    stalls: Stalls,
    changes: watch::Receiver<Changes>,
}

/// Longest rest of the loop: a check twice a second sees it turn each time.
const ROUND: Duration = Duration::from_millis(250);
/// Shortest interval between rebuilds of the status: a rebuild costs more memory than all the rest of a heartbeat.
const STATUS_PAUSE: Duration = Duration::from_millis(20);

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    match socket {
        Some(s) => s.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

enum Hint {
    Instance(usize),
    Nodes(WatchEvent),
}

impl EventLoop {
    pub(super) fn new(cfg: &Config, shared: Arc<Shared>, setup: Setup, inherited: Vec<(String, Inherited)>) -> Self {
        let now = clock::now();
        let Setup {
            address,
            codec,
            keys,
            boot,
            lease,
            name,
            register_again,
            lease_task,
            events,
            commands,
            mut enforced,
            outside,
            ready,
        } = setup;
        let described = settings::describe(cfg);
        let reported = |i: &crate::config::Instance| ReportedSettings {
            terms: Terms::new(cfg.timing.hold, cfg.timing.drift),
            vips: settings::digest_of_vips(&settings::vips(i)),
            others: described.digest(&i.name),
        };
        let all_reported = cfg.instances.iter().map(|i| (i.name.clone(), reported(i))).collect();
        let election = |i: &crate::config::Instance| InstanceElection {
            name: i.name.clone(),
            election: Election::new(
                Settings {
                    me: cfg.node.name.clone(),
                    boot,
                    heartbeat: cfg.timing.heartbeat,
                    hold: cfg.timing.hold,
                    drift: cfg.timing.drift,
                    preempt: i.preempt,
                    preempt_delay: i.preempt_delay,
                    flap_budget: cfg.timing.flap_budget,
                    flap_window: cfg.timing.flap_window,
                    vips: settings::vips(i),
                    reported: reported(i),
                    #[cfg(test)]
                    fault: None,
                },
                now,
            ),
            up: None,
            asked: None,
            forget: None,
            summary: String::new(),
            fitness: None,
            kernel_fails: false,
        };
        let mut elections: Vec<InstanceElection> = cfg.instances.iter().map(election).collect();
        if !ready {
            elections.iter_mut().for_each(|it| it.election.set_ready(false, now));
        }
        for (of, right) in inherited {
            if let Some(it) = elections.iter_mut().find(|it| it.name == of) {
                enforced.inherited(&of, right.epoch, right.until);
                it.election.adopt(right, now);
            }
        }
        Self {
            me: cfg.node.name.clone(),
            socket: None,
            changes: shared.etcd.changes(),
            shared,
            elections,
            address,
            codec,
            keys,
            lease,
            name,
            register_again,
            lease_task,
            events,
            commands,
            enforced,
            outside,
            peers: BTreeMap::new(),
            answers: mpsc::channel(ANSWERS),
            pending: VecDeque::new(),
            rejected: 0,
            complained: Vec::new(),
            warned: HashMap::new(),
            unlike: Unlike::new(described, all_reported, env!("CARGO_PKG_VERSION")),
            stopping: None,
            parking: None,
            status_at: now,
            status_due: true,
            stalls: Stalls::new(cfg.timing.hold),
        }
    }

    /// Starts one task per watch that turns its events into hints.
    fn watches(&self) -> (mpsc::Receiver<Hint>, Vec<JoinHandle<()>>) {
        let (tx, rx) = mpsc::channel(64);
        let mut tasks = Vec::new();
        let _outside = self.outside.enter();
        let mut follow = |prefix: String, index: Option<usize>| {
            let (tx, mut events) = (tx.clone(), self.shared.etcd.watch(&prefix));
            tasks.push(tokio::spawn(async move {
                while let Some(e) = events.recv().await {
                    let hint = index.map_or_else(|| Hint::Nodes(e), Hint::Instance);
                    if tx.send(hint).await.is_err() {
                        return;
                    }
                }
            }));
        };
        for (i, instance) in self.elections.iter().enumerate() {
            follow(self.keys.record(&instance.name), Some(i));
            follow(self.keys.alive(&instance.name), Some(i));
        }
        follow(self.keys.nodes(), None);
        follow(self.keys.paused(), None);
        (rx, tasks)
    }

    pub(super) async fn run(mut self, socket: std::net::UdpSocket) {
        match UdpSocket::from_std(socket) {
            Ok(s) => self.socket = Some(s),
            Err(e) => {
                tracing::error!("cannot wait for heartbeats: {e}; restart the agent");
                return;
            }
        }
        let (mut hints, tasks) = self.watches();
        let shared = Arc::clone(&self.shared);
        let mut buffer = [0_u8; MAX_DATAGRAM + 1];
        for i in 0..self.elections.len() {
            self.with(i, Election::handle_timeout);
        }
        let mut woke = clock::now();
        loop {
            let deadline = self.elections.iter().map(|it| it.election.next_deadline()).min().unwrap_or(Time::FAR);
            // While stopping or parking, check progress often; it lasts a second or two.
            let deadline = if self.stopping.is_some() || self.parking.is_some() {
                deadline.min(clock::now() + Duration::from_millis(20))
            } else {
                deadline
            };
            let deadline = if self.status_due { deadline.min(self.status_at) } else { deadline };
            let rests = clock::now();
            self.stood_still(Kind::Working, rests.since(woke));
            let deadline = deadline.min(rests + ROUND);
            shared.rounds.fetch_add(1, Relaxed);
            // When this thread last ran, noted before it handles the input.
            let polled = Cell::new(rests);
            tokio::select! {
                biased;
                () = poll_fn(|_| { polled.set(clock::now()); Poll::Pending }) => {}
                r = receive(self.socket.as_ref(), &mut buffer) => match r {
                    Ok((n, from)) => self.datagram(&buffer[..n], from),
                    // An ICMP error of an earlier send; the next receive works.
                    Err(e) => tracing::trace!(error = %e, "cannot receive a heartbeat"),
                },
                Ok(()) = self.changes.changed() => self.etcd_changed(),
                Some(a) = self.answers.1.recv() => self.answer(a),
                () = shared.news.notified() => self.inbox(),
                // Each use reads the name itself; this branch only refreshes the status.
                Ok(()) = self.name.changed() => { self.name.borrow_and_update(); }
                changed = self.lease.changed() => {
                    // The outer runtime has ended. Lease renewals and address changes ended with it.
                    if changed.is_err() {
                        return;
                    }
                    let lease = *self.lease.borrow_and_update();
                    self.each(|e, now| e.set_lease(lease, now));
                }
                Some(h) = hints.recv() => self.hint(h),
                c = self.commands.recv() => match c {
                    Some(c) => self.command(c),
                    None => break,
                },
                () = tokio::time::sleep_until(clock::tokio_at(deadline)) => {}
            }
            woke = polled.get();
            self.stood_still(Kind::Late, woke.since(deadline));
            // Check deadlines after every wake-up: a stalled process must see that its right has expired before it
            // acts.
            let now = clock::now();
            for i in 0..self.elections.len() {
                if self.elections[i].election.next_deadline() <= now {
                    self.with(i, Election::handle_timeout);
                }
            }
            self.look_at_kernel(now);
            self.flush_events();
            self.publish_status(now);
            if self.parked(now) {
                // Leave lease, keys and kernel alone: they keep this node's place until the next process starts.
                return;
            }
            if self.stopped(now) {
                break;
            }
        }
        tasks.iter().for_each(JoinHandle::abort);
        self.leave().await;
    }

    /// Records a stall, and logs a long one.
    fn stood_still(&mut self, kind: Kind, lasted: Duration) {
        if let Some(told) = self.stalls.note(kind, lasted, clock::now()) {
            tracing::warn!("{told}");
        }
    }

    fn each(&mut self, f: impl Fn(&mut Election, Time)) {
        for i in 0..self.elections.len() {
            self.with(i, &f);
        }
    }

    /// Applies one input, publishes the hold, brings it into the kernel, and only then executes the actions.
    fn with(&mut self, i: usize, f: impl FnOnce(&mut Election, Time)) {
        f(&mut self.elections[i].election, clock::now());
        let instance = &self.elections[i];
        // The host answers while the agent drops the addresses, so calls in progress keep their audio until the
        // addresses are gone.
        let hold = instance.election.hold().map(|(epoch, until, _)| (epoch, until));
        self.shared.holds.set(&instance.name, hold);
        self.enforced.set(&instance.name, hold, clock::now());
        while let Some(a) = self.elections[i].election.poll_action() {
            self.act(i, a);
        }
    }

    fn act(&mut self, i: usize, a: Action) {
        let instance = self.elections[i].name.clone();
        if matches!(a, Action::Changed | Action::Switched(_) | Action::Forgot(_)) {
            // The receiver of this event reads the status next.
            self.status_at = Time::ZERO;
        }
        match a {
            Action::Send { to, message } => {
                // Two hosts under one name would each hold on promises made to the other.
                if !self.is_named() {
                    return;
                }
                let Some(address) = self.peers.get(&*to).copied() else { return };
                let bytes = self.codec.seal(&instance, &message);
                // A full socket buffer drops a heartbeat; the protocol tolerates lost heartbeats.
                let sent = self.socket.as_ref().map(|s| s.try_send_to(&bytes, address));
                if let Some(Err(e)) = sent {
                    tracing::trace!(error = %e, %to, "cannot send a heartbeat");
                }
            }
            Action::Store { id, request } => self.ask(i, id, request),
            Action::Take(change) => {
                self.elections[i].up = Some(change.epoch);
                tracing::info!(%instance, epoch = change.epoch, cause = ?change.cause, "master");
                self.pending.push_back(ClusterEvent::Take { instance, change });
            }
            Action::Drop { epoch, reason, handover } => {
                tracing::info!(%instance, epoch, %reason, "no longer master");
                self.pending.push_back(ClusterEvent::Drop { instance, epoch, reason, handover });
            }
            Action::Changed => {
                self.learn_addresses(i);
                if let Some(why) = self.elections[i].election.unreadable() {
                    tracing::error!(%instance, "{why}");
                }
                // Never queue this event: the agent reads the status when it gets to it.
                let _ = self.events.try_send(ClusterEvent::Changed { instance });
            }
            Action::Forgot(r) => {
                if let Some(tx) = self.elections[i].forget.take() {
                    let _ = tx.send(r.map_err(ForgetError::Refused));
                }
            }
            Action::Switched(r) => {
                if let Some(tx) = self.elections[i].asked.take() {
                    let _ = tx.send(r.map_err(|candidates| SwitchoverError::NoCandidate { candidates }));
                }
            }
        }
    }

    /// Whether this node's name in etcd belongs to this host.
    fn is_named(&self) -> bool {
        *self.name.borrow() == Name::Ours
    }

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        match self.codec.open(bytes) {
            Ok((sender, instance, message)) if sender != self.me && self.is_named() => {
                if let Some(i) = self.elections.iter().position(|it| it.name == instance) {
                    self.peers.entry(sender.clone()).or_insert(from);
                    let changes = self.unlike.heard(&sender, &instance, message.reported);
                    self.tell(&changes);
                    self.with(i, |e, now| e.handle_message(&sender, message, now));
                }
            }
            Ok(_) => {}
            Err(why) => {
                self.rejected += 1;
                let now = clock::now();
                self.complained.retain(|(_, at)| now < *at + COMPLAIN);
                if self.complained.iter().all(|(kind, _)| *kind != why) {
                    self.complained.push((why, now));
                    tracing::warn!(%from, %why, total = self.rejected, "heartbeat refused");
                }
            }
        }
    }

    fn look_at_kernel(&mut self, now: Time) {
        for i in 0..self.elections.len() {
            let instance = &mut self.elections[i];
            let fails = self.enforced.is_unfit(&instance.name, now);
            if std::mem::replace(&mut instance.kernel_fails, fails) != fails {
                self.tell_fitness(i);
            }
        }
    }

    fn flush_events(&mut self) {
        while let Some(e) = self.pending.pop_front() {
            // Do not announce a right that has expired since; its `Drop` follows anyway.
            if let ClusterEvent::Take { instance, change } = &e {
                let held = self.shared.holds.get(instance);
                if held.is_none_or(|(e, until)| e != change.epoch || until <= clock::now()) {
                    continue;
                }
            }
            match self.events.try_send(e) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(e)) => return self.pending.push_front(e),
                Err(mpsc::error::TrySendError::Closed(_)) => return self.pending.clear(),
            }
        }
    }
}
