//! The data about an instance's calls for `status` and `calls`.

use super::{CallsSide, Role};
use crate::agent::call_view;
use crate::calls::model::Call;
use crate::config::Mode;
use crate::control::api;
use crate::pbx::driver::ServerStatus;
use crate::recovery::engine::{CallState, CallStatus};
use crate::recovery::plan;
use crate::recovery::tally::Tally;
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl CallsSide {
    /// The phones of all stored calls. A server that lost these calls must not speak to them. Empty in a mode without
    /// relayed audio.
    pub(in crate::agent) fn stored_phones(&self) -> Vec<SocketAddr> {
        let relays = self.mode.is_some_and(Mode::relays);
        self.custody.stored().values().filter(|_| relays).flat_map(call_view::phones).collect()
    }

    pub(in crate::agent) async fn counts(&self) -> api::CallCounts {
        let with_us = |c: &&CallStatus| !matches!(c.state, CallState::Left | CallState::Over);
        let carried = self.engine.status().iter().filter(with_us).count();
        api::CallCounts {
            stored: self.custody.stored().len(),
            tracked: self.table.ids().count(),
            carried,
            takeover: self.mode.map(|mode| Tally::of(self.custody.stored().values(), &self.ground, mode)),
            store: {
                let s = self.store.status();
                api::StoreCounts {
                    waiting: s.pending,
                    dropped: s.dropped,
                    unreadable: s.bad_values.saturating_sub(s.plain_refused + s.foreign_refused),
                    plain_refused: s.plain_refused,
                    foreign_refused: s.foreign_refused,
                    outdated: s.outdated,
                }
            },
            capture: self.ears.capture_counts(),
            media: self.table.media_counters(),
            hep: self.ears.hep_counts(),
            former: self.former.status(),
            relay: Some(self.relay_counts().await),
            learning: (self.custody.role() == Role::Master).then(|| self.table.learning()),
        }
    }

    async fn relay_counts(&self) -> api::RelayCounts {
        let refused = |call: &&Call| plan::paths_of(call, &self.ground).is_ok_and(|paths| !paths.refused.is_empty());
        let packets = self.relay.refused().await;
        api::RelayCounts {
            refused_calls: self.custody.stored().values().filter(refused).count(),
            not_media: packets.payload,
            parts: packets.parts,
            this_host: packets.this_host,
        }
    }

    /// The state of the connection to the server; `None` while the agent does not ask for bridges.
    pub(in crate::agent) fn server_status(&self) -> Option<ServerStatus> {
        self.ears.server_status()
    }

    /// The stored calls as rows for `calls`.
    pub(in crate::agent) fn rows(&self) -> Vec<api::CallRow> {
        let carried: BTreeMap<String, CallStatus> =
            self.engine.status().into_iter().map(|s| (s.call.clone(), s)).collect();
        self.custody
            .stored()
            .values()
            .map(|call| call_view::row(call, carried.get(&call.id), &self.ground, self.mode))
            .collect()
    }
}
