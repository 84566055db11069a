//! The mode: how far this node goes with calls, and what it would do in the modes beyond.
//!
//! The fence is the same in every mode, because it belongs to the addresses and not to the calls. A host without the
//! addresses never speaks from them, whatever happens to its calls.

use super::{CallsSide, Role};
use crate::config::Mode;
use crate::time::Time;
use tracing::info;

impl CallsSide {
    /// Applies the mode in force.
    pub(super) fn obey(&mut self, now: Time) {
        let mode = self.modes.borrow_and_update().mode();
        let Some(mode) = mode.filter(|_| mode != self.mode) else { return };
        self.mode = Some(mode);
        self.engine.set_mode(mode, now);
        if self.role == Role::Backup {
            self.arm_all();
        }
        self.own_relay();
    }

    /// Takes over the relay's table once its right contents are known. A former process may have carried calls. Their
    /// audio continues until then, and for as long as the mode relays no new audio.
    pub(super) fn own_relay(&mut self) {
        let waits = self.role == Role::Master && !self.mode.is_some_and(Mode::relays);
        if self.inherited && self.synced && !waits {
            self.inherited = false;
            self.relay.refresh();
        }
    }

    /// Reports, in the log and in history, what this takeover does with its calls and what other modes would have done.
    /// It runs after the calls are handled, because no audio may wait for figures.
    pub(super) fn tell_forecast(&mut self) {
        let calls = std::mem::take(&mut self.untold);
        let (Some(takeover), Some(mode), false) = (&mut self.takeover, self.mode, calls.is_empty()) else { return };
        for f in takeover.forecast(&calls, mode, &self.ground) {
            info!(
                instance = self.instance,
                mode = f.mode,
                in_force = f.mode == mode.name(),
                calls = f.total,
                reinvited = f.reinvited,
                proxied = f.proxied,
                relayed = f.relayed,
                left = f.left,
                "plan for the calls"
            );
        }
        takeover.save();
    }
}
