//! What is heard of the audio: where phones send from, and that they send.

use super::Table;
use crate::calls::latching::{self, MediaCounters, Unbelieved};
use crate::time::Time;
use std::net::SocketAddr;

impl Table {
    /// Handles one sampled datagram that came to the server: `src` is where the phone really sends from.
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

    /// Samples of RTP that were not believed, if it is time to tell somebody.
    pub fn poll_unbelieved(&mut self, now: Time) -> Option<Unbelieved> {
        self.sources.poll_unbelieved(now)
    }

    /// What became of the samples of RTP.
    #[must_use]
    pub fn media_counters(&self) -> MediaCounters {
        self.sources.counters()
    }

    /// Of how many RTP packets to the server one should be handed to [`Table::handle_rtp`]; `None` if there is no call to learn of.
    #[must_use]
    pub fn wants_one_in(&self) -> Option<u32> {
        let seeking = self.sources.open() > 0 || self.sources.is_stale() || self.tracker.load().doubted > 0;
        (!self.members.is_empty()).then(|| latching::one_in(self.members.len(), seeking))
    }
}
