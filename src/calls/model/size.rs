//! Memory cost of a call.

use super::{Call, Leg, Verbatim};
use crate::budget::allocated;
use std::net::SocketAddr;

impl Leg {
    /// Bytes of the leg with everything that it holds. Shared memory counts as its own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.call_id,
            &self.local,
            &self.remote,
            &self.local_tag,
            &self.remote_tag,
            &self.remote_target,
            &self.local_target,
            &self.allow,
            &self.supported,
        ];
        let descriptions = [&self.sdp_sent, &self.sdp_received].into_iter().flatten().map(|s| &s.body);
        let all = texts.into_iter().chain(descriptions).chain(&self.route_set);
        let lists = self.route_set.capacity() * size_of::<Verbatim>()
            + self.rtp_sources.capacity() * size_of::<Option<SocketAddr>>();
        size_of::<Self>() + lists + all.map(|v| allocated(v.len())).sum::<usize>()
    }
}

impl Call {
    /// Bytes of the call, counted like [`Leg::bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.id, &self.instance, &self.node].into_iter().map(|s| allocated(s.len())).sum::<usize>();
        size_of::<Self>() + texts + self.legs.iter().map(|l| l.bytes()).sum::<usize>()
    }
}
