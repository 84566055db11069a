//! Hands what etcd says of the calls to custody, and carries out custody's decisions.

use super::{CallsSide, hash};
use crate::agent::part::Activity;
use crate::calls::custody::{Action, Keepers, News};
use crate::calls::model::Call;
use crate::calls::store::StoreEvent;
use crate::calls::table::Table;
use crate::config::Mode;
use crate::recovery::engine::Engine;
use crate::recovery::media::kernel::Wish;
use crate::recovery::recoverability;
use crate::time::Time;
use std::collections::HashSet;
use tracing::{debug, info, warn};

/// Store events handled in one go, so that a thousand calls make one change of the relay.
const BATCH: usize = 1024;

/// Who has calls on this node.
pub(super) struct View<'a> {
    pub(super) table: &'a Table,
    pub(super) engine: &'a Engine,
}

impl Keepers for View<'_> {
    fn followed(&self) -> HashSet<&str> {
        self.table.ids().collect()
    }

    fn state(&self, id: &str) -> Option<Call> {
        self.table.get(id)
    }

    fn carries(&self, id: &str) -> bool {
        self.engine.carries(id)
    }
}

impl CallsSide {
    pub(super) fn follow(&mut self, first: StoreEvent, now: Time) {
        let mut events = vec![first];
        while events.len() < BATCH {
            match self.store_events.try_recv() {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        self.custody.handle_stored(events, &View { table: &self.table, engine: &self.engine }, now);
        self.act(now);
    }

    /// Carries out custody's decisions.
    pub(super) fn act(&mut self, now: Time) {
        while let Some(action) = self.custody.poll_action() {
            match action {
                Action::Adopt(call) => self.table.adopt(&call, now),
                Action::Recover(calls) => self.expect(calls, now),
                Action::RecoverOrphans(ids) => self.recover_orphans(&ids, now),
                Action::Store(event) => self.store.apply(event),
                Action::Arm(ids) => self.arm(ids),
                Action::Release(ids) => {
                    let none = |call| Wish { call, flows: Vec::new(), emergency: false };
                    self.relay.set(ids.into_iter().map(none).collect());
                }
                Action::TakeRelay => self.relay.refresh(),
                Action::Complete => self.engine.set_complete(),
                Action::ReadAgain => self.store.read_again(),
                Action::FindOrphans { since_ms } => {
                    let ids = self.orphans(since_ms);
                    self.custody.handle_orphans(ids, now);
                }
                Action::Tell(news) => self.tell(&news),
            }
        }
    }

    fn tell(&self, news: &News) {
        let instance = &self.instance;
        match news {
            News::OwnCalls { calls, working } => {
                info!(instance, calls, working, "found stored calls of the local server");
            }
            News::PutBack { call } => {
                warn!(instance, call, "another etcd client deleted or changed this call; storing the call again");
            }
            News::Replaced { missing, former } => warn!(
                instance,
                missing,
                former,
                "etcd was replaced or restored: storing the calls that are up again, and removing outdated calls"
            ),
            News::Abandoned { calls } => {
                info!(instance, calls, "removing stored calls that neither the server nor the agent carries any more")
            }
            News::LeftOut { calls } => warn!(
                instance,
                left_out = calls,
                "etcd has more calls than this node keeps, and this node would not recover the calls left out; raise \
                 max_calls"
            ),
        }
    }

    /// Makes a standby's relay carry exactly the stored flows of these calls, if the mode allows it.
    fn arm(&self, ids: Vec<String>) {
        let relays = self.mode.is_some_and(Mode::relays);
        self.turn.pulse.does(Activity::Recovery);
        let wishes = ids
            .into_iter()
            .filter(|id| self.turn.begins(hash(id.as_bytes())))
            .map(|id| {
                #[cfg(feature = "faults")]
                crate::faults::at_stored(&id);
                let call = self.custody.stored().get(&id).filter(|_| relays);
                let emergency = call.is_some_and(|call| call.emergency);
                let paths = call.map(|call| recoverability::of(call, &self.ground).1).unwrap_or_default();
                if let Some(why) = recoverability::refusal(&paths) {
                    debug!(call = id, "{why}");
                }
                let flows = paths.flows;
                Wish { call: id, flows, emergency }
            })
            .collect();
        self.turn.ends();
        self.relay.set(wishes);
    }
}
