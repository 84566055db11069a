//! Calls whose server died while this node stays master, because no other node can take over: the agent recovers them
//! here, and the restarted server takes new ones beside them.

use super::{CallsSide, Role};
use crate::agent::takeover::Takeover;
use crate::os::udp_ports::BoundUdp;
use crate::recovery::orphaned::is_orphaned;
use crate::time::Time;
use std::time::Duration;
use tracing::warn;

/// Wait for a handover to a fit node. It takes milliseconds, and as long as etcd's disk needs for a commit. Re-INVITEs
/// from here would collide with those of the next master.
const HANDOVER: Duration = Duration::from_secs(3);

/// What the checks say of the local server.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::agent) struct LocalServer {
    /// Whether it works; `None` until its checks decide.
    pub(in crate::agent) working: Option<bool>,
    /// Calls confirmed before this moment were those of a process that has ended. `None` if no check watches a process.
    pub(in crate::agent) since_ms: Option<u64>,
    /// No other node can take over now, or may.
    pub(in crate::agent) stays: bool,
}

/// Calls of a dead process, and when this node recovers them.
#[derive(Default)]
pub(super) struct Orphans {
    ids: Vec<String>,
    at: Time,
}

impl Orphans {
    pub(super) fn due(&self) -> Option<Time> {
        (!self.ids.is_empty()).then_some(self.at)
    }
}

impl CallsSide {
    /// Looks for calls that died with the server's process. Their ports are looked at now: a new process may have them
    /// soon.
    pub(super) fn look_for_orphans(&mut self, now: Time) {
        let Some(since_ms) = self.server.since_ms else { return };
        if self.role != Role::Master || !self.synced || self.own_open || !self.orphans.ids.is_empty() {
            return;
        }
        let old: Vec<_> = self.table.calls().filter(|call| call.confirmed_ms < since_ms).collect();
        if old.is_empty() {
            return;
        }
        let bound = match BoundUdp::now() {
            Ok(bound) => bound,
            Err(e) => {
                warn!(
                    instance = self.instance,
                    "cannot tell which calls the server has lost, so none is recovered: {e}"
                );
                return;
            }
        };
        let lost = old.into_iter().filter(|call| is_orphaned(call, since_ms, &self.ground, |at| bound.has(at)));
        self.orphans.ids = lost.map(|call| call.id).collect();
        self.orphans.at = if self.server.stays { now } else { now + HANDOVER };
    }

    /// Recovers the calls of a dead process, once no handover has come.
    pub(super) fn recover_orphans(&mut self, now: Time) {
        if self.orphans.due().is_none_or(|at| now < at) {
            return;
        }
        let ids = std::mem::take(&mut self.orphans.ids);
        let calls: Vec<_> = ids.iter().filter_map(|id| self.table.give_up(id)).collect();
        if calls.is_empty() {
            return;
        }
        warn!(
            instance = self.instance,
            calls = calls.len(),
            "the server's process ended, and no other node took over: recovering its calls on this node"
        );
        if let Some(former) = &self.takeover {
            former.save();
        }
        self.takeover = Some(Takeover::here(
            &self.instance,
            &self.node,
            self.epoch,
            "server",
            "the server's process ended, and no other node took over".to_owned(),
            self.history.clone(),
        ));
        self.expect(calls, now);
        self.tell_forecast();
    }
}
