//! State and inputs of one election. The roles are in `lead.rs` and `follow.rs`, deadlines in `rights.rs`, requests to
//! etcd in `machine/asking.rs`, its answers in `machine/learning.rs`.

pub(super) mod follow;
pub(super) mod lead;
pub(super) mod restored;
pub(super) mod rights;
pub(super) mod terms;

mod asking;
mod learning;
mod messages;
mod wishes;

pub(super) use asking::Unless;
#[cfg(test)]
#[path = "explore/fingerprint.rs"]
mod fingerprint;

use asking::Requests;
use lead::{Handover, Leading};
use learning::{EtcdState, LostRecord};
use messages::{Peer, Promises};
use rights::Right;
use wishes::Wishes;

use super::types::{Action, Candidate, HoldKind, Inherited, Kind, LeaseState, Message, Role, Settings};
use crate::cluster::record::{Alive, MAX_EPOCH, Record};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Number of heartbeats with a remembered send time. An ack of an older one extends no hold, at any sane heartbeat and
/// hold.
pub(super) const REMEMBERED_BEATS: usize = 64;
/// Pause after an error or a refusal by etcd before the next request.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// Interval of reads without a watch event: watches are only hints.
const POLL: Duration = Duration::from_secs(2);
/// A node stops vouching when its last read was sent longer ago: another master may exist since. Reads come each
/// [`POLL`], and a failed one again after [`RETRY`], so that only a node without a successful read for two seconds
/// loses its vote.
pub(super) const FRESH: Duration = Duration::from_secs(4);
/// Limit on peers; further names are ignored. It is far above any cluster, and it bounds the cost of etcd's content.
const MAX_PEERS: usize = 64;

/// One instance's election on one node. The module documents the order of calls.
///
/// Each part of the state is in the file whose methods use it most.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Election {
    pub(super) s: Settings,
    pub(super) node: NodeState,
    pub(in crate::cluster::election) etcd: EtcdState,
    pub(super) lost: LostRecord,
    /// etcd was restored or exchanged, and its record is still out of date.
    pub(super) restored: Option<restored::Restored>,
    pub(super) requests: Requests,
    pub(super) peers: BTreeMap<String, Peer>,
    /// All other nodes known by name: the members, and the nodes with a key. Derived from record and view.
    pub(super) others: Vec<Arc<str>>,
    pub(super) promises: Promises,
    pub(super) right: Right,
    pub(super) leading: Leading,
    pub(super) handover: Handover,
    pub(super) wishes: Wishes,
    actions: VecDeque<Action>,
    wake: Time,
    now: Time,
    last_role: Role,
}

/// What the driver tells about this node. The setters in `machine.rs` change it; `restored.rs` drops the lease when etcd
/// was exchanged.
#[derive(Clone, Debug)]
pub(super) struct NodeState {
    pub(super) lease: Option<LeaseState>,
    /// Longest life of a lease that this node had.
    pub(super) lease_life: Duration,
    pub(super) fit: bool,
    /// Whether `fit` was ever set: after a restart, a process must not hand over before its checks have reported.
    pub(super) fit_known: bool,
    pub(super) priority: u16,
    /// Whether this node has everything it needs to hold the addresses. Without that it takes no role.
    pub(super) ready: bool,
    pub(super) started: Time,
}

impl NodeState {
    const fn new(now: Time) -> Self {
        Self {
            lease: None,
            lease_life: Duration::ZERO,
            fit: false,
            fit_known: false,
            priority: 0,
            ready: true,
            started: now,
        }
    }

    /// The longest lease in the whole seconds that etcd grants. `lease_life` is less by the allowance for the clocks.
    const fn lease_seconds(&self) -> Duration {
        Duration::from_secs(self.lease_life.as_secs() + (self.lease_life.subsec_nanos() > 0) as u64)
    }
}

impl Election {
    /// Starts an election. It neither promises nor contends before it has voided its predecessor's transactions.
    #[must_use]
    pub fn new(s: Settings, now: Time) -> Self {
        let mut e = Self {
            node: NodeState::new(now),
            etcd: EtcdState::new(now),
            lost: LostRecord::new(now),
            restored: None,
            requests: Requests::new(now),
            peers: BTreeMap::new(),
            others: Vec::new(),
            promises: Promises::new(now),
            right: Right::default(),
            leading: Leading::new(now),
            handover: Handover::default(),
            wishes: Wishes::default(),
            actions: VecDeque::new(),
            wake: now,
            now,
            last_role: Role::Unknown,
            s,
        };
        #[cfg(test)]
        if e.broken(super::types::Fault::NoRestartSilence) {
            e.promises.last_ack = Time::ZERO;
        }
        e.advance(now);
        e
    }

    /// Takes over an inherited right; call it right after [`Election::new`], if the kernel still lets this host answer.
    /// The addresses stay until the right ends or the record shows another epoch. Meanwhile this process acquires its
    /// own rights.
    pub fn adopt(&mut self, inherited: Inherited, now: Time) {
        if inherited.epoch > MAX_EPOCH
            || inherited.until <= now
            || self.right.held.is_some()
            || self.etcd.view.is_some()
        {
            return;
        }
        self.right.inherited = Some(inherited);
        self.promises.top_epoch = self.promises.top_epoch.max(inherited.epoch);
        self.take(inherited.epoch, inherited.until, HoldKind::Inherited, now);
        self.advance(now);
    }

    #[cfg(test)]
    pub(super) fn broken(&self, f: super::types::Fault) -> bool {
        self.s.fault == Some(f)
    }

    /// Returns the next action, in order of execution.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Latest time for the next [`Election::handle_timeout`]; always after the `now` of the last call.
    #[must_use]
    pub const fn next_deadline(&self) -> Time {
        self.wake
    }

    /// Epoch, end and basis of this node's hold. Compare the end with the clock at each use.
    #[must_use]
    pub fn hold(&self) -> Option<(u64, Time, HoldKind)> {
        self.right.held.map(|h| (h.epoch, h.until, h.kind))
    }

    /// The record from the last read.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.etcd.record.as_deref()
    }

    /// The fault of an unusable record in etcd.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.etcd.unreadable.as_deref()
    }

    /// When a node was last heard in this election, with its fitness and priority.
    #[must_use]
    pub fn heard(&self, node: &str) -> Option<(Time, bool, u16)> {
        self.peers.get(node).and_then(|p| p.heard.map(|t| (t, p.fit, p.priority)))
    }

    /// This node's fitness and priority, as last set.
    #[must_use]
    pub const fn own_fitness(&self) -> (bool, u16) {
        (self.node.fit, self.node.priority)
    }

    /// This node's current role.
    #[must_use]
    pub fn role(&self) -> Role {
        let Some(r) = &self.etcd.record else {
            return if self.right.held.is_some() { Role::Master } else { Role::Unknown };
        };
        match &self.right.held {
            Some(h) if h.epoch == r.epoch => Role::Master,
            _ if self.leaving(r) => Role::Leaving,
            _ if r.master == self.s.me => Role::Waiting,
            _ => Role::Backup,
        }
    }

    pub(super) fn leaving(&self, r: &Record) -> bool {
        r.handover.as_deref() == Some(&self.s.me) && self.handover.gone_epoch != Some(r.epoch)
    }

    pub(super) fn designated(&self, r: &Record) -> bool {
        r.master == self.s.me
            && r.handover.as_deref().is_some_and(|o| o != self.s.me)
            && self.handover.go_ok != Some(r.epoch)
    }

    /// Handles the passage of time.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
    }

    /// Sets the lease after a grant, a renewal or a loss. Set a new lease only when the node's key is bound to it.
    pub fn set_lease(&mut self, lease: Option<LeaseState>, now: Time) {
        if lease.map(|l| l.id) != self.node.lease.map(|l| l.id) {
            self.requests.want_read = true;
            // Other nodes send nothing until this node owns its name in etcd.
            if self.node.lease.is_none() {
                self.promises.silence = now;
            }
            // Requests refused for lack of a lease need not wait longer: a restarted process has only the rest of a
            // hold.
            self.requests.read_not_before = now;
            // `alive` may be bound to the lost lease, and only `alive` kept others from a slow takeover.
            if self.node.lease.is_some() {
                self.right.inherited = None;
            }
        }
        self.node.lease_life = self.node.lease_life.max(lease.map_or(Duration::ZERO, |l| l.until.since(now)));
        self.node.lease = lease;
        self.advance(now);
    }

    /// Requests a read of the view at once.
    pub(super) fn want_read(&mut self, now: Time) {
        self.requests.want_read = true;
        self.requests.read_not_before = now;
    }

    /// Sets the local server's health.
    pub fn set_fitness(&mut self, fit: bool, priority: u16, now: Time) {
        (self.node.fit, self.node.fit_known, self.node.priority) = (fit, true, priority);
        self.advance(now);
    }

    /// Sets whether this node has everything it needs to hold the addresses; the default is yes. Without that it
    /// neither contends nor takes over. It keeps a present hold until it can hand over, because no other node answers
    /// meanwhile.
    pub fn set_ready(&mut self, ready: bool, now: Time) {
        self.node.ready = ready;
        self.advance(now);
    }

    /// A key of the instance or of the nodes changed, or a watch reports a possible change.
    pub fn hint(&mut self, now: Time) {
        self.requests.want_read = true;
        self.advance(now);
    }

    /// Confirms that the addresses held under `epoch` are down.
    pub fn released(&mut self, epoch: u64, now: Time) {
        self.handover.released = self.handover.released.max(Some(epoch));
        self.advance(now);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn keeps_inherited(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn keeps_inherited(&self) -> bool {
        self.broken(super::types::Fault::KeepInherited)
    }

    /// Returns a node's name for an action; copies it only if record and etcd lack it.
    pub(super) fn known(&self, node: &str) -> Arc<str> {
        self.others.iter().find(|n| ***n == *node).cloned().unwrap_or_else(|| node.into())
    }

    pub(super) fn send(&mut self, to: Arc<str>, kind: Kind, epoch: u64) {
        let message =
            Message { kind, epoch, fit: self.node.fit, priority: self.node.priority, reported: Some(self.s.reported) };
        self.actions.push_back(Action::Send { to, message });
    }

    pub(super) fn push(&mut self, a: Action) {
        self.actions.push_back(a);
    }

    pub(super) fn wake_at(&mut self, t: Time) {
        // Work that is already due is in progress or waits for an answer; a wake-up in the past would only spin.
        if t > self.now {
            self.wake = self.wake.min(t);
        }
    }

    /// First instant after the end of every promise of this node.
    pub(super) fn quiet_at(&self) -> Time {
        self.promises.last_ack + self.long_hold()
    }

    /// The pause of automatic changes of master, if an operator set one.
    #[must_use]
    pub fn paused(&self) -> Option<&str> {
        #[cfg(test)]
        if self.broken(super::types::Fault::PauseForgotten) {
            return None;
        }
        self.etcd.view.as_ref().and_then(|v| v.paused.as_deref())
    }

    /// Whether `alive` is ours, in this epoch, with our present lease.
    pub(super) fn alive_is_ours(&self, r: &Record) -> bool {
        let alive: Option<Alive> = self.etcd.view.as_ref().and_then(|v| v.alive);
        self.node.lease.is_some_and(|l| alive == Some(Alive { epoch: r.epoch, lease: l.id }))
    }

    /// Updates the names of other nodes after a new record or view.
    pub(super) fn name_others(&mut self) {
        let members = self.etcd.record.iter().flat_map(|r| r.members.iter());
        let nodes = self.etcd.view.iter().flat_map(|v| v.nodes.iter());
        let names: BTreeSet<&String> = members.chain(nodes).filter(|n| **n != self.s.me).take(MAX_PEERS).collect();
        if !names.iter().map(|n| n.as_str()).eq(self.others.iter().map(|n| &**n)) {
            self.others = names.into_iter().map(|n| n.as_str().into()).collect();
        }
    }

    /// Derives everything from state and time. Each wait on the way sets its end with `wake_at`.
    pub(super) fn advance(&mut self, now: Time) {
        // After a stall, queued messages may still be unread.
        if now > self.wake + self.s.heartbeat {
            self.promises.silence = now;
        }
        (self.wake, self.now) = (Time::FAR, now);
        self.settle_hold(now);
        match self.etcd.record.clone() {
            Some(r) if self.leaving(&r) => self.hand_over(&r, now),
            Some(r) if self.designated(&r) => self.claim(&r, now),
            Some(r) if r.master == self.s.me => self.lead(&r, now),
            Some(r) => self.follow(&r, now),
            None => self.elect_first(now),
        }
        self.settle_hold(now);
        self.ask_store(now);
        if self.last_role != self.role() {
            self.last_role = self.role();
            self.actions.push_back(Action::Changed);
        }
    }

    /// All possible next masters, best first, with the reason against each, for `switchover` and status.
    #[must_use]
    pub fn candidates(&self, now: Time) -> Vec<Candidate> {
        let mut nodes: Vec<&str> = self.others.iter().map(|n| &**n).collect();
        nodes.sort_by_key(|n| {
            (self.against(n, now).is_some(), std::cmp::Reverse(self.peers.get(*n).map_or(0, |p| p.priority)))
        });
        nodes.into_iter().map(|n| Candidate { node: n.to_owned(), against: self.against(n, now) }).collect()
    }
}
