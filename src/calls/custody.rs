//! Who has each stored call: the local server (then the tracker follows the call), this agent (then the recovery engine
//! carries it), or another node (then the relay is armed for it). Pure.
//!
//! The driver hands in the role, the store's events, what the checks say of the local server, and the time. The actions
//! say what to do with which calls. Three rules hold at every moment, and `custody/simulation.rs` tries them:
//!
//! - A call has one keeper on this node at most. Two would answer the same phone.
//! - A standby changes nothing: it neither stores, adopts nor recovers a call.
//! - A master loses no stored call: each is recovered or adopted once its keeper is known, and is removed from etcd only
//!   after nobody has had it for longer than any call without signalling may last.

mod action;
mod follow;
mod own;

pub use action::{Action, News};
pub use own::LocalServer;

use crate::calls::mirror::Stored;
use crate::calls::model::{Call, CallEvent};
use crate::calls::sweep::{self, Sweep, Verdict};
use crate::time::{OnceAMinute, Time};
use std::collections::{HashSet, VecDeque};

/// Who has calls on this node.
pub trait Keepers {
    /// Ids of the calls that the tracker follows.
    fn followed(&self) -> HashSet<&str>;
    /// The tracker's state of a call that it follows.
    fn state(&self, id: &str) -> Option<Call>;
    /// Whether the engine carries the call.
    fn carries(&self, id: &str) -> bool;
}

/// Whether this node holds the instance's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does not.
    Backup,
    /// It does.
    Master,
}

/// The stored calls of one instance, and who has them.
#[derive(Debug)]
pub struct Custody {
    node: String,
    role: Role,
    epoch: u64,
    /// The calls in etcd. On a standby: the calls that a takeover would recover.
    stored: Stored,
    /// Whether the first read of the stored calls is done.
    synced: bool,
    /// The local server's stored calls are neither adopted nor recovered yet; see [`Custody::settle_own`].
    own_open: bool,
    server: LocalServer,
    orphans: own::Orphans,
    sweep: Sweep,
    /// When the master next looks for abandoned stored calls.
    sweep_at: Time,
    /// The relay's table is a predecessor's, which may have carried other calls than etcd holds now.
    inherited: bool,
    /// Whether the mode lets this node relay audio.
    relays: bool,
    left_out_told: OnceAMinute,
    read_again: OnceAMinute,
    actions: VecDeque<Action>,
    #[cfg(test)]
    fault: Option<Fault>,
}

/// Rules that tests take away, to see that the simulation notices.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A master that comes back recovers its working server's calls as well.
    OwnRecoveredToo,
    /// A call that is read late is not recovered.
    LateForgotten,
    /// A deletion by a stranger is believed.
    DeletionBelieved,
    /// What a stranger writes over a call that the agent carries is believed.
    StrangersBelieved,
    /// Calls of a dead process are recovered although a handover has come in time.
    StandbyRecovers,
    /// Abandoned calls are removed before the first read is done and before their keeper is known.
    SweptTooEarly,
}

impl Custody {
    /// No calls yet, as a standby. `max_calls`: see [`Stored::new`]. `inherited`: a former process may have left the
    /// relay's table behind.
    #[must_use]
    pub fn new(node: &str, max_calls: usize, inherited: bool) -> Self {
        Self {
            node: node.to_owned(),
            role: Role::Backup,
            epoch: 0,
            stored: Stored::new(max_calls),
            synced: false,
            own_open: false,
            server: LocalServer::default(),
            orphans: own::Orphans::default(),
            sweep: Sweep::default(),
            sweep_at: Time::FAR,
            inherited,
            relays: false,
            left_out_told: OnceAMinute::default(),
            read_again: OnceAMinute::default(),
            actions: VecDeque::new(),
            #[cfg(test)]
            fault: None,
        }
    }

    #[cfg(test)]
    fn lacks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// The stored calls.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Whether this node holds the addresses.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The epoch of the present or last time as master.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let sweep = Some(self.sweep_at).filter(|at| *at < Time::FAR);
        sweep.into_iter().chain(self.orphans.due()).min()
    }

    /// This node holds the addresses from now on.
    ///
    /// `resumed`: this node was the last master, and no other node took over since. Its server may still have its
    /// calls, so these wait for [`Self::settle_own`].
    pub fn take(&mut self, epoch: u64, resumed: bool, now: Time) {
        self.role = Role::Master;
        self.epoch = epoch;
        self.own_open = resumed;
        self.sweep.clear();
        self.sweep_at = now + sweep::EVERY;
        let waits = |call: &&Call| {
            #[cfg(test)]
            if self.lacks(Fault::OwnRecoveredToo) {
                return false;
            }
            resumed && self.is_own(call)
        };
        let lost: Vec<Call> = self.stored.values().filter(|call| !waits(call)).cloned().collect();
        self.actions.push_back(Action::Recover(lost));
    }

    /// This node holds the addresses no more. What was to be done as master is left undone.
    pub fn drop_role(&mut self) {
        self.role = Role::Backup;
        self.sweep_at = Time::FAR;
        #[cfg(test)]
        let kept = self.lacks(Fault::StandbyRecovers).then(|| std::mem::take(&mut self.orphans));
        self.orphans = own::Orphans::default();
        #[cfg(test)]
        kept.into_iter().for_each(|kept| self.orphans = kept);
        self.actions.clear();
        self.arm_all();
    }

    /// Whether the mode in force lets this node relay audio.
    pub fn handle_mode(&mut self, relays: bool) {
        self.relays = relays;
        if self.role == Role::Backup {
            self.arm_all();
        }
        self.take_relay();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, keepers: &impl Keepers, now: Time) {
        if self.sweep_at <= now {
            self.sweep_at = now + sweep::EVERY;
            self.sweep(keepers, now);
        }
        self.recover_orphans(now);
    }

    fn arm_all(&mut self) {
        let all = self.stored.ids().map(str::to_owned).collect();
        self.actions.push_back(Action::Arm(all));
    }

    /// Takes over the relay's table once its right contents are known. A former process may have carried calls. Their
    /// audio continues until then, and for as long as the mode relays no new audio.
    fn take_relay(&mut self) {
        let waits = self.role == Role::Master && !self.relays;
        if self.inherited && self.synced && !waits {
            self.inherited = false;
            self.actions.push_back(Action::TakeRelay);
        }
    }

    /// Removes or adopts abandoned stored calls.
    fn sweep(&mut self, keepers: &impl Keepers, now: Time) {
        // Former calls belong to nobody until the tracker or the engine has them.
        let unsure = self.role != Role::Master || !self.synced || self.own_open;
        #[cfg(test)]
        let unsure = unsure && !self.lacks(Fault::SweptTooEarly);
        if unsure {
            return;
        }
        let followed = keepers.followed();
        let kept = |id: &str| followed.contains(id) || keepers.carries(id);
        let verdicts = self.sweep.look(&self.stored, kept, now);
        let removed = verdicts.iter().filter(|v| matches!(v, Verdict::Remove(_))).count();
        if removed > 0 {
            self.tell(News::Abandoned { calls: removed });
        }
        for verdict in verdicts {
            match verdict {
                Verdict::Adopt(id) => self.actions.extend(self.stored.get(&id).cloned().map(Action::Adopt)),
                Verdict::Remove(id) => self.remove(id, "neither the server nor the agent carries the call any more"),
            }
        }
        self.find_orphans();
    }

    fn remove(&mut self, id: String, reason: &'static str) {
        self.actions.push_back(Action::Store(CallEvent::Delete { id, reason }));
    }

    fn tell(&mut self, news: News) {
        self.actions.push_back(Action::Tell(news));
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
