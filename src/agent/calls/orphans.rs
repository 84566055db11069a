//! Calls whose server died while this node stays master, because no other node can take over: the agent recovers them
//! here, and the restarted server takes new ones beside them.

use super::CallsSide;
use crate::agent::takeover::Takeover;
use crate::os::udp_ports::BoundUdp;
use crate::recovery::orphaned::is_orphaned;
use crate::time::Time;
use tracing::warn;

impl CallsSide {
    /// The calls confirmed before `since_ms` that died with the server's process. Their ports are looked at now: a new
    /// process may have them soon.
    pub(super) fn orphans(&self, since_ms: u64) -> Vec<String> {
        let old: Vec<_> = self.table.calls().filter(|call| call.confirmed_ms < since_ms).collect();
        if old.is_empty() {
            return Vec::new();
        }
        match BoundUdp::now() {
            Ok(bound) => {
                let lost = old.into_iter().filter(|call| is_orphaned(call, since_ms, &self.ground, |at| bound.has(at)));
                lost.map(|call| call.id).collect()
            }
            Err(e) => {
                warn!(
                    instance = self.instance,
                    "cannot tell which calls the server has lost, so none is recovered: {e}"
                );
                Vec::new()
            }
        }
    }

    /// Recovers the calls of a dead process: the tracker gives them up, and history gets an entry of its own.
    pub(super) fn recover_orphans(&mut self, ids: &[String], now: Time) {
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
            self.custody.epoch(),
            "server",
            "the server's process ended, and no other node took over".to_owned(),
            self.history.clone(),
        ));
        self.expect(calls, now);
    }
}
