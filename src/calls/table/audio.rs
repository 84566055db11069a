//! Sampled audio: the phones' sources, and signs that the phones still send.

use super::Table;
use crate::calls::latching::{self, MediaCounters, Unbelieved};
use crate::time::Time;
use std::net::SocketAddr;

impl Table {
    /// Handles one sampled datagram to the server. `src` is the phone's real source.
    pub fn handle_rtp(&mut self, src: SocketAddr, dst: SocketAddr, datagram: &[u8], now: Time) {
        let one_in = self.wants_one_in().unwrap_or(1);
        let legs = self.members.keys().filter_map(|id| Some((*id, &*self.tracker.get(*id)?.leg)));
        if let Some(seen) = self.sources.handle_sample((src, dst, datagram), one_in, legs, now) {
            self.tracker.observe_rtp(seen.leg, seen.media, seen.source, now);
            self.drain(now);
        }
        if let Some(leg) = self.sources.leg_of(src, dst) {
            self.tracker.hear_audio(leg, now);
        }
    }

    /// RTP samples that were not believed, if a report is due.
    pub fn poll_unbelieved(&mut self, now: Time) -> Option<Unbelieved> {
        self.sources.poll_unbelieved(now)
    }

    /// Results of the RTP samples.
    #[must_use]
    pub fn media_counters(&self) -> MediaCounters {
        self.sources.counters()
    }

    /// Sampling ratio for [`Table::handle_rtp`]: one RTP packet to the server in this many. `None` if there is no call.
    #[must_use]
    pub fn wants_one_in(&self) -> Option<u32> {
        let seeking = self.sources.open() > 0 || self.sources.is_stale() || self.tracker.load().doubted > 0;
        (!self.members.is_empty()).then(|| latching::one_in(self.members.len(), seeking))
    }
}
