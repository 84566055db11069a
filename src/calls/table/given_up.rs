//! Gives calls to the agent.

use super::Table;
use crate::calls::model::Call;

impl Table {
    /// Forgets a call and its legs, without events: the agent carries the call from now on, and stores it. Returns its
    /// current state.
    pub fn give_up(&mut self, id: &str) -> Option<Call> {
        let key = self.calls.iter().find(|(_, slot)| slot.id == id).map(|(key, _)| *key)?;
        let slot = self.calls.remove(&key)?;
        let call = self.call(&slot);
        for leg in slot.legs {
            self.members.remove(&leg);
            self.pairer.remove(leg);
            self.tracker.let_go(leg);
        }
        self.sources.forget();
        call
    }
}
