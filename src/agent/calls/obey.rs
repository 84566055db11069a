//! The mode: how far this node goes with calls, and what it would do if it went further.
//!
//! The fence is the same in every mode. It belongs to the addresses, not to the calls: a host without them does not speak from
//! them, whatever becomes of its calls.

use super::{CallsSide, Role};
use crate::config::Mode;
use crate::time::Time;
use tracing::info;

impl CallsSide {
    /// Brings what is done with calls to the mode that is in force now.
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

    /// Makes the relay this process's own, once it is known what it should carry. A process before this one may have carried calls:
    /// their audio goes on meanwhile, and as long as the mode is one in which no audio is relayed anew.
    pub(super) fn own_relay(&mut self) {
        let waits = self.role == Role::Master && !self.mode.is_some_and(Mode::relays);
        if self.inherited && self.synced && !waits {
            self.inherited = false;
            self.relay.refresh();
        }
    }

    /// Tells, in the log and in history, what is done with the calls of this takeover and what other modes would have done. After the
    /// calls have got what they get: no audio waits for figures.
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
                relayed = f.relayed,
                left = f.left,
                ended = f.ended,
                "what becomes of the calls"
            );
        }
        takeover.save();
    }
}
