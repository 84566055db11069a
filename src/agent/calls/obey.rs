//! The mode: how far this node goes with calls, and what it would do in the modes beyond.
//!
//! The fence is the same in every mode, because it belongs to the addresses and not to the calls. A host without the
//! addresses never speaks from them, whatever happens to its calls.

use super::CallsSide;
use crate::time::Time;
use tracing::info;

impl CallsSide {
    /// Applies the mode in force.
    pub(super) fn obey(&mut self, now: Time) {
        let mode = self.modes.borrow_and_update().mode();
        let Some(mode) = mode.filter(|_| mode != self.mode) else { return };
        self.mode = Some(mode);
        // The next confirmation looks at the new mode.
        self.former.handle_confirmed(false, now);
        self.engine.set_mode(mode, now);
        self.custody.handle_mode(mode.relays());
        self.act(now);
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
