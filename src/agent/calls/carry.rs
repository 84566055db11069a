//! Carries out the decisions of tracker and engine.

use super::{CallsSide, Role};
use crate::os::clock;
use crate::recovery::engine::Action;
use crate::recovery::media::kernel::Wish;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{debug, info};

/// Calls whose counters are read in one request, which takes some tenths of a millisecond.
const COUNTED_AT_ONCE: usize = 100;
/// Longest wait for one such answer.
const COUNTED_WITHIN: Duration = Duration::from_millis(100);

/// One SIP message: our address, the receiver's address, and the bytes.
pub(super) type Message = (SocketAddr, SocketAddr, Vec<u8>);

impl CallsSide {
    /// Carries out all pending decisions of tracker and engine.
    pub(super) async fn carry_out(&mut self) {
        let messages = self.decide();
        self.send(messages).await;
        self.count().await;
    }

    /// Reads the counters that the engine asked for. Without an answer the engine asks again.
    async fn count(&mut self) {
        if self.uncounted.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut self.uncounted);
        let mut found = BTreeMap::new();
        for some in calls.chunks(COUNTED_AT_ONCE) {
            let ids: Vec<&str> = some.iter().map(String::as_str).collect();
            match tokio::time::timeout(COUNTED_WITHIN, self.relay.counts_of(&ids)).await {
                Ok(Ok(counts)) => found.extend(counts),
                Ok(Err(e)) => debug!(instance = self.instance, "cannot read the packets of relayed calls: {e}"),
                Err(_) => {
                    // Nothing else of this part may wait for the rest as well.
                    debug!(instance = self.instance, "the kernel does not tell the packets of relayed calls");
                    break;
                }
            }
        }
        let now = clock::now();
        for (call, counts) in found {
            let counts: Vec<_> = counts.into_iter().map(|c| (c.flow, c.packets)).collect();
            self.engine.handle_counts(&call, &counts, now);
        }
        let messages = self.decide();
        self.send(messages).await;
    }

    /// Carries out the pending decisions, except for SIP messages. Returns those messages to send.
    pub(super) fn decide(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut wishes = Vec::new();
        let now = clock::now();
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { from, to, payload } => messages.push((from, to, payload)),
                Action::Store(event) => self.store.apply(event),
                Action::Flows { call, flows } => {
                    let emergency = self.custody.stored().get(&call).is_some_and(|stored| stored.emergency);
                    wishes.push(Wish { call, flows, emergency });
                }
                Action::HandOn { call, flows } => {
                    self.table.adopt(&call, now);
                    let followed = self.table.get(&call.id).is_some();
                    if let Some(flows) = self.handed_on.add(&call, flows, followed, &self.ground) {
                        wishes.push(Wish { call: call.id.clone(), flows, emergency: call.emergency });
                    }
                }
                Action::Count { call } => self.uncounted.push(call),
                Action::Outcome { call, outcome, .. } => {
                    info!(instance = self.instance, call, ?outcome, "call settled");
                    if let Some(takeover) = &mut self.takeover {
                        takeover.outcome(&outcome);
                    }
                }
                Action::Listened { call, counted } => {
                    info!(instance = self.instance, call, ?counted, "audio counted");
                    if let Some(takeover) = &mut self.takeover {
                        takeover.listened(counted);
                    }
                }
            }
        }
        while let Some(event) = self.table.poll_event() {
            if let Some((call, flows)) = self.handed_on.handle(&event, &self.ground) {
                let emergency = self.custody.stored().get(&call).is_some_and(|stored| stored.emergency);
                wishes.push(Wish { call, flows, emergency });
            }
            self.store.apply(event);
        }
        self.relay.set(wishes);
        self.ears.set_holds(self.custody.role() == Role::Master);
        self.ears.sample(if self.custody.role() == Role::Master { self.table.wants_one_in() } else { None });
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
