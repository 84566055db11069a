//! What is heard of the audio: where phones send from, and that they send.

use super::Table;
use crate::calls::sources;
use crate::time::Time;
use std::net::SocketAddr;

impl Table {
    /// Handles one sampled RTP packet that came to the server: `src` is where the phone really sends from.
    pub fn handle_rtp(&mut self, src: SocketAddr, dst: SocketAddr, now: Time) {
        let legs = self.members.keys().filter_map(|id| Some((*id, &*self.tracker.get(*id)?.leg)));
        if let Some(seen) = self.sources.handle_sample(src, dst, legs, now) {
            self.tracker.observe_rtp(seen.leg, seen.media, seen.source, now);
            self.drain(now);
        }
        if let Some(leg) = self.sources.leg_of(src, dst) {
            self.tracker.hear_audio(leg, now);
        }
    }

    /// Of how many RTP packets to the server one should be handed to [`Table::handle_rtp`]; `None` if there is no call to learn of.
    #[must_use]
    pub fn wants_one_in(&self) -> Option<u32> {
        let seeking = self.sources.open() > 0 || self.sources.is_stale() || self.tracker.load().doubted > 0;
        (!self.members.is_empty()).then(|| sources::one_in(self.members.len(), seeking))
    }
}
