//! What the engine lends to a call for one step.

use super::rng::Rng;
use super::types::{Action, Settings};
use crate::config::Mode;
use crate::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The engine's state lent to a call for one step.
pub(super) struct Context<'e> {
    pub(super) settings: &'e Settings,
    pub(super) rng: &'e mut Rng,
    pub(super) actions: &'e mut VecDeque<Action>,
    pub(super) epoch: u64,
    pub(super) mode: Mode,
    pub(super) now: Time,
}

impl Context<'_> {
    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        // Last check before sending: the mode always decides.
        if self.mode.signals() {
            self.actions.push_back(Action::Send { from, to, payload });
        }
    }
}
