//! Memory of a leg, and what it can give up.

use super::evidence::{Clue, Evidence};
use super::leg::offer_answer::Pending;
use super::leg::{Known, Tracked};
use super::room::{Footprint, Stage};
use crate::budget::allocated;
use crate::calls::model::{Gap, Leg, LegState, Sdp, Verbatim};

/// Longest description kept for any leg, in bytes. Audio phones send 300 to 900, at most 2,000.
const SHORT: usize = 2048;
/// Bytes that the open transactions of one leg may hold together: two of the longest readable descriptions and their
/// answers.
const MAX_OPEN: usize = 64 << 10;
/// Bytes of a leg outside of itself: its slot, its places in lines and maps, and its pairing keys.
const AROUND: usize = 768;

impl Evidence {
    fn bytes(&self) -> usize {
        let replaces =
            self.replaces.as_ref().map_or(0, |r| 48 + r.call_id.len() + r.local_tag.len() + r.remote_tag.len());
        let one = |clue: &Clue| clue.as_ref().map_or(0, |c| allocated(c.len()));
        let all = self.caller.iter().chain(&self.callee).chain([&self.session_id, &self.header, &self.charging]);
        size_of::<Self>() + replaces + all.map(one).sum::<usize>()
    }
}

impl Pending {
    fn held(&self) -> impl Iterator<Item = &Verbatim> {
        [&self.offer, &self.reply, &self.early, &self.closing].into_iter().flatten()
    }

    /// Bytes of its collected descriptions and target.
    fn bytes(&self) -> usize {
        self.held().chain(&self.target).map(|d| allocated(d.len())).sum()
    }
}

fn is_long(body: &Verbatim) -> bool {
    body.len() > SHORT
}

impl Tracked {
    /// The leg as the tracker's room sees it.
    pub(super) fn footprint(&self) -> Footprint {
        let stage = match self.leg.state {
            LegState::Ended => Stage::Ended,
            _ if self.proof.known == Known::Claimed => Stage::Claimed,
            _ if !self.proof.spoken => Stage::Waiting,
            LegState::Confirmed => Stage::Up,
            LegState::Calling | LegState::Early => Stage::Early,
        };
        let long = match stage {
            Stage::Waiting => {
                self.offers.pending.iter().flat_map(Pending::held).filter(|d| is_long(d)).map(|d| d.len()).sum()
            }
            _ => 0,
        };
        // Long descriptions have a room of their own.
        Footprint { stage, urgent: self.emergency, source: self.leg.remote_addr.ip(), bytes: self.bytes() - long, long }
    }

    fn bytes(&self) -> usize {
        let pending = self.offers.pending.capacity() * size_of::<Pending>()
            + self.offers.pending.iter().map(Pending::bytes).sum::<usize>();
        let before = self
            .offers
            .before
            .as_ref()
            .map_or(0, |b| size_of_val(&**b) + b.bodies().map(|d| allocated(d.len())).sum::<usize>());
        let other = self.offers.first.as_ref().map_or(0, |d| allocated(d.len()));
        AROUND + size_of::<Self>() + self.leg.bytes() + self.clues.bytes() + pending + before + other
    }

    /// Drops the long descriptions. False if there are none. The loss is recorded as a gap, which the next complete
    /// exchange closes.
    pub(super) fn cut(&mut self) -> bool {
        let mut any = false;
        for open in &mut self.offers.pending {
            if open.offer.take_if(|d| is_long(d)).is_some() {
                any = true;
                // The request counts as unseen.
                open.asked = false;
            }
            for place in [&mut open.reply, &mut open.early, &mut open.closing] {
                any |= place.take_if(|d| is_long(d)).is_some();
            }
        }
        any |= self.offers.first.take_if(|d| is_long(d)).is_some();
        any |= self.offers.before.take_if(|b| b.bodies().any(is_long)).is_some();
        let Leg { sdp_sent, sdp_received, .. } = &*self.leg;
        if [sdp_sent, sdp_received].into_iter().flatten().any(|s| is_long(&s.body)) {
            any = true;
            let short = |sdp: &mut Option<Sdp>| drop(sdp.take_if(|s| is_long(&s.body)));
            short(&mut self.leg.sdp_sent);
            short(&mut self.leg.sdp_received);
        }
        if any {
            self.lack(Gap::Description);
        }
        any
    }

    /// Limits the bytes of the open transactions by dropping the oldest.
    pub(super) fn tighten(&mut self) -> bool {
        let mut changed = false;
        while self.offers.pending.len() > 1 && self.offers.pending.iter().map(Pending::bytes).sum::<usize>() > MAX_OPEN
        {
            let gone = self.drop_pending(0);
            changed |= !gone.settled && !gone.refused && self.lack(Gap::Description);
        }
        changed
    }

    /// Reduces an ended leg to what identifies late copies of its messages.
    pub(super) fn slim(&mut self) {
        self.leg.sdp_sent = None;
        self.leg.sdp_received = None;
        self.leg.route_set = Vec::new();
        *self.clues = Evidence::default();
    }
}
