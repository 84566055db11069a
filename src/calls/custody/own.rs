//! The calls of the local server: whether it still has them after this node became master again, and which of them died
//! with its process.

use super::{Action, Custody, Keepers, News, Role};
use crate::calls::model::Call;
use crate::time::Time;
use std::time::Duration;

/// Wait for a handover to a fit node. It takes milliseconds, and as long as etcd's disk needs for a commit. Re-INVITEs
/// from here would collide with those of the next master.
const HANDOVER: Duration = Duration::from_secs(3);

/// What the checks say of the local server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalServer {
    /// Whether it works; `None` until its checks decide.
    pub working: Option<bool>,
    /// Calls confirmed before this moment (wall-clock milliseconds since 1970) were those of a process that has ended.
    /// `None` if no check watches a process.
    pub since_ms: Option<u64>,
    /// No other node can take over now, or may.
    pub stays: bool,
}

/// Calls of a dead process, and when this node recovers them.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    ids: Vec<String>,
    at: Time,
}

impl Orphans {
    pub(super) fn due(&self) -> Option<Time> {
        (!self.ids.is_empty()).then_some(self.at)
    }
}

impl Custody {
    /// What the checks say of the local server now.
    pub fn handle_server(&mut self, server: LocalServer, keepers: &impl Keepers) {
        let other_process = self.server.since_ms != server.since_ms;
        self.server = server;
        self.settle_own(keepers);
        if other_process {
            self.find_orphans();
        }
    }

    /// Settles the local server's former calls after this node became master again. A working server still has them, so
    /// the tracker learns them again. Otherwise the engine recovers them. Until the calls and the server's health are
    /// known, an armed relay keeps carrying their audio.
    pub fn settle_own(&mut self, keepers: &impl Keepers) {
        let (true, true, Some(working)) =
            (self.own_open && self.role == Role::Master, self.synced, self.server.working)
        else {
            return;
        };
        self.own_open = false;
        // The tracker already has the calls that the server began since, and the engine may have one that was read late.
        let followed = keepers.followed();
        let kept = |id: &str| followed.contains(id) || keepers.carries(id);
        let ours = |call: &&Call| self.is_own(call) && !kept(&call.id);
        let own: Vec<Call> = self.stored.values().filter(ours).cloned().collect();
        self.tell(News::OwnCalls { calls: own.len(), working });
        if working {
            let ids = own.iter().map(|call| call.id.clone()).collect();
            self.actions.extend(own.into_iter().map(Action::Adopt));
            if !self.inherited {
                self.actions.push_back(Action::Release(ids));
            }
        } else {
            self.actions.push_back(Action::Recover(own));
        }
        self.find_orphans();
    }

    /// Whether a stored call is the local server's own, not carried by an agent.
    pub(super) fn is_own(&self, call: &Call) -> bool {
        call.node == self.node && call.legs.iter().all(|leg| !leg.carried)
    }

    /// Asks which calls died with the server's process. The answer must look at their ports at once: a new process may
    /// have them soon.
    pub(super) fn find_orphans(&mut self) {
        let Some(since_ms) = self.server.since_ms else { return };
        if self.role == Role::Master && self.synced && !self.own_open && self.orphans.ids.is_empty() {
            self.actions.push_back(Action::FindOrphans { since_ms });
        }
    }

    /// The calls that died with the server's process. They wait for a handover, if one may come.
    pub fn handle_orphans(&mut self, ids: Vec<String>, now: Time) {
        if self.role == Role::Master {
            self.orphans = Orphans { ids, at: if self.server.stays { now } else { now + HANDOVER } };
        }
    }

    /// Recovers the calls of a dead process, once no handover has come.
    pub(super) fn recover_orphans(&mut self, now: Time) {
        if self.orphans.due().is_some_and(|at| at <= now) {
            self.actions.push_back(Action::RecoverOrphans(std::mem::take(&mut self.orphans.ids)));
        }
    }
}
