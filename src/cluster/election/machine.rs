//! The state of one election and its inputs. What the roles do is in `lead.rs` and `follow.rs`, deadlines in `rights.rs`, what is
//! asked of etcd in `machine/asking.rs`.

pub(super) mod follow;
pub(super) mod lead;
pub(super) mod restored;
pub(super) mod rights;
pub(super) mod terms;

mod asking;
mod messages;
mod wishes;

pub(super) use asking::Unless;
#[cfg(test)]
#[path = "explore/fingerprint.rs"]
mod fingerprint;

use super::types::{Action, Candidate, Cause, HoldKind, Inherited, Kind, LeaseState, Message, Role, Settings, Told};
use crate::cluster::record::{Alive, MAX_EPOCH, Record, Terms, View};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Heartbeats whose send time is remembered: an ack of an older one would extend nothing, at any sane heartbeat and hold.
pub(super) const REMEMBERED_BEATS: usize = 64;
/// Pause after etcd failed or refused, before it is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// The view is read again at this interval even if no watch spoke: watches are hints.
const POLL: Duration = Duration::from_secs(2);
/// A read that was sent longer ago vouches for nobody: there may be another master since. Reads come each [`POLL`], and again at once
/// when one fails, so that only a node which cannot read for two seconds loses its vote.
pub(super) const FRESH: Duration = Duration::from_secs(4);
/// Peers that are kept; names beyond it are ignored. Far above any cluster, and it bounds what etcd's content can cost.
const MAX_PEERS: usize = 64;

/// What is known of another node.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Send time of the newest heartbeat that it acked.
    pub(super) acked: Option<Time>,
    /// Send time of the newest heartbeat that it acked and vouched for.
    pub(super) vouched: Option<Time>,
    pub(super) fit: bool,
    pub(super) priority: u16,
    pub(super) heard: Option<Time>,
    /// Of its settings.
    pub(super) told: Option<Told>,
}

/// A transaction of ours that was sent and not answered.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) record: Arc<Record>,
}

/// A read that was sent and not answered, which may write a ticket.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    id: u64,
    lease: Option<i64>,
    ticket: Option<String>,
    sent: Time,
}

/// How this node came to be master, kept until it takes.
#[derive(Clone, Debug)]
pub(super) struct Won {
    pub(super) epoch: u64,
    pub(super) cause: Cause,
    pub(super) previous: Option<String>,
    pub(super) detected: Time,
    pub(super) committed: Option<Time>,
}

/// The addresses are ours until `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) until: Time,
    pub(super) kind: HoldKind,
    /// `Drop` was said: the agent is letting go.
    pub(super) dropping: bool,
}

/// One instance's election on one node. See the module for the order of calls.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Election {
    pub(super) s: Settings,
    pub(super) view: Option<View>,
    /// The record of `view`; the last good one if that is unreadable.
    pub(super) record: Option<Arc<Record>>,
    /// The record as it was before somebody deleted it: what was promised under it may still be held on.
    pub(super) lost: Option<Arc<Record>>,
    /// Since when this node knows that there is none.
    pub(super) lost_since: Time,
    /// This node held the addresses at that time.
    pub(super) held_at_loss: bool,
    pub(super) revision: i64,
    pub(super) unreadable: Option<String>,
    /// The highest epoch that was ever read or heard: a record that was deleted must not make epochs start again.
    pub(super) top_epoch: u64,
    /// The longest terms that a record or a master named.
    pub(super) known_terms: Option<Terms>,
    pub(super) lease: Option<LeaseState>,
    /// The lease under which the record was last read, and when that read was sent.
    read_under: Option<(i64, Time)>,
    /// A process of this name took part in this election before: it left its ticket.
    pub(super) was_here: bool,
    /// When this node last sent an ack, or started: it may have promised just before.
    pub(super) last_ack: Time,
    /// Since when this process would have heard a heartbeat of any epoch, and heard none.
    pub(super) silence: Time,
    pub(super) peers: BTreeMap<String, Peer>,
    /// All nodes that are known by name, but this one: the members, and who has a key. Follows from record and view.
    pub(super) others: Vec<Arc<str>>,
    pub(super) sent: VecDeque<(u64, Time)>,
    pub(super) beat: u64,
    pub(super) next_beat: Time,
    pub(super) ticket: Option<String>,
    tickets: u64,
    /// A transaction of ours, or of the process before us, may still arrive at etcd.
    pub(super) doubt: bool,
    /// What the record may be instead of `record`.
    pub(super) maybe: Option<Arc<Record>>,
    pub(super) inflight: Option<InFlight>,
    reading: Option<Reading>,
    want_read: bool,
    read_not_before: Time,
    pub(super) propose_not_before: Time,
    next_poll: Time,
    requests: u64,
    /// Since when the slow takeover's conditions hold.
    pub(super) gone: Option<Time>,
    /// Since when this node has been master by the record.
    pub(super) lead_since: Time,
    pub(super) claim_at: Option<Time>,
    pub(super) claimed: Option<u64>,
    pub(super) released: Option<u64>,
    /// The handover into this epoch is complete: the old master has let go, or its promises ran out.
    pub(super) go_ok: Option<u64>,
    /// The handover into this epoch is complete: we have let go.
    pub(super) gone_epoch: Option<u64>,
    pub(super) won: Option<Won>,
    pub(super) held: Option<Held>,
    /// The right of the process before this one. It stands on promises that were made under the record as that process left it,
    /// so it ends with the first change of the record that this process asks for.
    pub(super) inherited: Option<Inherited>,
    /// etcd is another one than before, and its record not as new yet.
    pub(super) restored: Option<restored::Restored>,
    /// The longest life of a lease that this node had.
    pub(super) lease_life: Duration,
    pub(super) fit: bool,
    /// Whether `fit` was ever told: a process that goes on for another one must not hand over before its checks have spoken.
    pub(super) fit_known: bool,
    pub(super) priority: u16,
    pub(super) better_since: Option<(String, Time)>,
    pub(super) switch: Option<Option<String>>,
    pub(super) forget: Option<String>,
    /// The member whose removal this node has asked etcd for.
    pub(super) forgot: Option<String>,
    /// Whether this node has all that it needs to hold the addresses. Without, it takes no role.
    pub(super) ready: bool,
    pub(super) stopping: bool,
    pub(super) parking: bool,
    /// Since when this process knows the present epoch.
    pub(super) epoch_since: Time,
    pub(super) started: Time,
    actions: VecDeque<Action>,
    wake: Time,
    now: Time,
    last_role: Role,
}

impl Election {
    /// An election that starts now. It promises nothing and contends for nothing before it has voided what its predecessor left.
    #[must_use]
    pub fn new(s: Settings, now: Time) -> Self {
        let mut e = Self {
            view: None,
            record: None,
            lost: None,
            lost_since: now,
            held_at_loss: false,
            revision: 0,
            unreadable: None,
            top_epoch: 0,
            known_terms: None,
            lease: None,
            read_under: None,
            was_here: false,
            last_ack: now,
            silence: now,
            peers: BTreeMap::new(),
            others: Vec::new(),
            sent: VecDeque::new(),
            beat: 0,
            next_beat: now,
            ticket: None,
            tickets: 0,
            doubt: true,
            maybe: None,
            inflight: None,
            reading: None,
            want_read: true,
            read_not_before: now,
            propose_not_before: now,
            next_poll: now,
            requests: 0,
            gone: None,
            lead_since: now,
            claim_at: None,
            claimed: None,
            released: None,
            go_ok: None,
            gone_epoch: None,
            won: None,
            held: None,
            inherited: None,
            restored: None,
            lease_life: Duration::ZERO,
            fit: false,
            fit_known: false,
            priority: 0,
            better_since: None,
            switch: None,
            forget: None,
            forgot: None,
            ready: true,
            stopping: false,
            parking: false,
            epoch_since: now,
            started: now,
            actions: VecDeque::new(),
            wake: now,
            now,
            last_role: Role::Unknown,
            s,
        };
        #[cfg(test)]
        if e.broken(super::types::Fault::NoRestartSilence) {
            e.last_ack = Time::ZERO;
        }
        e.advance(now);
        e
    }

    /// To be called right after [`Election::new`], if the kernel still lets this host answer: the addresses stay, until the
    /// inherited right ends or the record tells of another epoch. This process goes on with rights of its own.
    pub fn adopt(&mut self, inherited: Inherited, now: Time) {
        if inherited.epoch > MAX_EPOCH || inherited.until <= now || self.held.is_some() || self.view.is_some() {
            return;
        }
        self.inherited = Some(inherited);
        self.top_epoch = self.top_epoch.max(inherited.epoch);
        self.take(inherited.epoch, inherited.until, HoldKind::Inherited, now);
        self.advance(now);
    }

    #[cfg(test)]
    pub(super) fn broken(&self, f: super::types::Fault) -> bool {
        self.s.fault == Some(f)
    }

    /// The next action, in the order in which they must be carried out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Election::handle_timeout`] must be called at the latest. Always after the `now` of the last call.
    #[must_use]
    pub const fn next_deadline(&self) -> Time {
        self.wake
    }

    /// The epoch under which this node holds the addresses, until when, and what that stands on. The end is to be compared
    /// with the clock at each use.
    #[must_use]
    pub fn hold(&self) -> Option<(u64, Time, HoldKind)> {
        self.held.map(|h| (h.epoch, h.until, h.kind))
    }

    /// The record as last read.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// What is wrong with the record in etcd, if it cannot be used.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// When a node was last heard in this election, and its fitness and priority.
    #[must_use]
    pub fn heard(&self, node: &str) -> Option<(Time, bool, u16)> {
        self.peers.get(node).and_then(|p| p.heard.map(|t| (t, p.fit, p.priority)))
    }

    /// This node's fitness and priority, as last set.
    #[must_use]
    pub const fn own_fitness(&self) -> (bool, u16) {
        (self.fit, self.priority)
    }

    /// This node's part now.
    #[must_use]
    pub fn role(&self) -> Role {
        let Some(r) = &self.record else { return if self.held.is_some() { Role::Master } else { Role::Unknown } };
        match &self.held {
            Some(h) if h.epoch == r.epoch => Role::Master,
            _ if self.leaving(r) => Role::Leaving,
            _ if r.master == self.s.me => Role::Waiting,
            _ => Role::Backup,
        }
    }

    pub(super) fn leaving(&self, r: &Record) -> bool {
        r.handover.as_deref() == Some(&self.s.me) && self.gone_epoch != Some(r.epoch)
    }

    pub(super) fn designated(&self, r: &Record) -> bool {
        r.master == self.s.me && r.handover.as_deref().is_some_and(|o| o != self.s.me) && self.go_ok != Some(r.epoch)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
    }

    /// The lease was granted, renewed or lost. Call with a new lease only when the node's key is bound to it.
    pub fn set_lease(&mut self, lease: Option<LeaseState>, now: Time) {
        if lease.map(|l| l.id) != self.lease.map(|l| l.id) {
            self.want_read = true;
            // A node whose name is not its own in etcd yet is told nothing.
            if self.lease.is_none() {
                self.silence = now;
            }
            // What was refused for want of a lease need not wait any longer: a restarted process has only what is left of a hold.
            self.read_not_before = now;
            // `alive` may be bound to the lease that is lost, and it was what kept others from taking over slowly.
            if self.lease.is_some() {
                self.inherited = None;
            }
        }
        self.lease_life = self.lease_life.max(lease.map_or(Duration::ZERO, |l| l.until.since(now)));
        self.lease = lease;
        self.advance(now);
    }

    /// The view is read again, at once.
    pub(super) fn want_read(&mut self, now: Time) {
        self.want_read = true;
        self.read_not_before = now;
    }

    /// The local server's health.
    pub fn set_fitness(&mut self, fit: bool, priority: u16, now: Time) {
        (self.fit, self.fit_known, self.priority) = (fit, true, priority);
        self.advance(now);
    }

    /// Whether this node has all that it needs to hold the addresses; it has until told otherwise. Without, it neither contends nor
    /// takes. What it holds goes on, until it can hand over: nobody else answers meanwhile.
    pub fn set_ready(&mut self, ready: bool, now: Time) {
        self.ready = ready;
        self.advance(now);
    }

    /// Something under the instance's or the nodes' keys changed, or a watch says that it may have.
    pub fn hint(&mut self, now: Time) {
        self.want_read = true;
        self.advance(now);
    }

    /// The addresses that were held under `epoch` are down.
    pub fn released(&mut self, epoch: u64, now: Time) {
        self.released = self.released.max(Some(epoch));
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

    /// A node's name to put into an action, copied only if it is new to the record and to etcd.
    pub(super) fn known(&self, node: &str) -> Arc<str> {
        self.others.iter().find(|n| ***n == *node).cloned().unwrap_or_else(|| node.into())
    }

    pub(super) fn send(&mut self, to: Arc<str>, kind: Kind, epoch: u64) {
        let message = Message { kind, epoch, fit: self.fit, priority: self.priority, told: Some(self.s.told) };
        self.actions.push_back(Action::Send { to, message });
    }

    pub(super) fn push(&mut self, a: Action) {
        self.actions.push_back(a);
    }

    pub(super) fn wake_at(&mut self, t: Time) {
        // What is due already is being done, or waits for an answer: a wake-up in the past would only spin.
        if t > self.now {
            self.wake = self.wake.min(t);
        }
    }

    /// The first instant after every promise that this node gave.
    pub(super) fn quiet_at(&self) -> Time {
        self.last_ack + self.long_hold()
    }

    /// Whether an operator has paused automatic changes of master.
    #[must_use]
    pub fn paused(&self) -> Option<&str> {
        #[cfg(test)]
        if self.broken(super::types::Fault::PauseForgotten) {
            return None;
        }
        self.view.as_ref().and_then(|v| v.paused.as_deref())
    }

    /// Whether `alive` speaks for us, in this epoch, with our present lease.
    pub(super) fn alive_is_ours(&self, r: &Record) -> bool {
        let alive: Option<Alive> = self.view.as_ref().and_then(|v| v.alive);
        self.lease.is_some_and(|l| alive == Some(Alive { epoch: r.epoch, lease: l.id }))
    }

    /// Notes who else there is, after a new record or view.
    pub(super) fn name_others(&mut self) {
        let members = self.record.iter().flat_map(|r| r.members.iter());
        let nodes = self.view.iter().flat_map(|v| v.nodes.iter());
        let names: BTreeSet<&String> = members.chain(nodes).filter(|n| **n != self.s.me).take(MAX_PEERS).collect();
        if !names.iter().map(|n| n.as_str()).eq(self.others.iter().map(|n| &**n)) {
            self.others = names.into_iter().map(|n| n.as_str().into()).collect();
        }
    }

    /// Everything that follows from the state and the time. Each wait on the way notes its end with `wake_at`.
    pub(super) fn advance(&mut self, now: Time) {
        // What came while the process was stalled waits to be heard yet.
        if now > self.wake + self.s.heartbeat {
            self.silence = now;
        }
        (self.wake, self.now) = (Time::FAR, now);
        self.settle_hold(now);
        match self.record.clone() {
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

    /// The nodes that could take over now or why not, best first; for `switchover` and status.
    #[must_use]
    pub fn candidates(&self, now: Time) -> Vec<Candidate> {
        let mut nodes: Vec<&str> = self.others.iter().map(|n| &**n).collect();
        nodes.sort_by_key(|n| {
            (self.against(n, now).is_some(), std::cmp::Reverse(self.peers.get(*n).map_or(0, |p| p.priority)))
        });
        nodes.into_iter().map(|n| Candidate { node: n.to_owned(), against: self.against(n, now) }).collect()
    }
}
