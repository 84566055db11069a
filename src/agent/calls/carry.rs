//! Carries out the decisions of tracker and engine.

use super::CallsSide;
use super::Role;
use crate::os::clock;
use crate::recovery::engine::Action;
use crate::recovery::media::kernel::Wish;
use std::net::SocketAddr;
use tracing::{debug, info};

/// One SIP message: our address, the receiver's address, and the bytes.
pub(super) type Message = (SocketAddr, SocketAddr, Vec<u8>);

impl CallsSide {
    /// Carries out all pending decisions of tracker and engine.
    pub(super) async fn carry_out(&mut self) {
        let messages = self.decide();
        self.send(messages).await;
    }

    /// Carries out the pending decisions, except for SIP messages. Returns those messages to send.
    pub(super) fn decide(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut wishes = Vec::new();
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { from, to, payload } => messages.push((from, to, payload)),
                Action::Store(event) => self.store.apply(event),
                Action::Flows { call, flows } => {
                    let emergency = self.stored.get(&call).is_some_and(|stored| stored.emergency);
                    wishes.push(Wish { call, flows, emergency });
                }
                Action::Outcome { call, outcome, .. } => {
                    info!(instance = self.instance, call, ?outcome, "call settled");
                    if let Some(takeover) = &mut self.takeover {
                        takeover.outcome(&outcome);
                    }
                }
            }
        }
        while let Some(event) = self.table.poll_event() {
            self.store.apply(event);
        }
        self.relay.set(wishes);
        self.ears.set_holds(self.role == Role::Master);
        self.ears.sample(if self.role == Role::Master { self.table.wants_one_in() } else { None });
        messages
    }

    pub(super) async fn send(&mut self, messages: Vec<Message>) {
        for (from, to, payload) in messages {
            if let Some(takeover) = &mut self.takeover
                && payload.starts_with(b"INVITE ")
            {
                takeover.invited(clock::now());
            }
            let sent = match self.sockets.send(from, to, &payload, &self.turn.licence).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    let sent = self.turn.licence.act(|| self.raw.send(from, to, &payload));
                    sent.unwrap_or(Ok(())).map_err(|e| e.to_string())
                }
                Err(e) => Err(e.to_string()),
            };
            // SIP retransmits. A lasting failure ends as an unreachable party.
            if let Err(e) = sent {
                debug!(instance = self.instance, "cannot send a SIP message: {e}");
            }
        }
    }
}
