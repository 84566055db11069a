//! Handles messages from other nodes: their heartbeats, which this node acks with a promise, and their acks of ours.

use super::{Election, FRESH, MAX_PEERS};
use crate::cluster::election::types::{Kind, LeaseState, Message, ReportedSettings};
use crate::cluster::record::{MAX_EPOCH, Record, Terms};
use crate::time::Time;

/// Known state of another node.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster::election) struct Peer {
    /// Send time of the newest heartbeat that the peer acked.
    pub(super) acked: Option<Time>,
    /// Send time of the newest heartbeat that the peer acked and vouched for.
    pub(super) vouched: Option<Time>,
    pub(super) fit: bool,
    pub(super) priority: u16,
    pub(super) heard: Option<Time>,
    /// The peer's settings.
    pub(super) reported: Option<ReportedSettings>,
}

/// What this node has promised to others, and which silence and epoch bind it. `messages.rs` changes it;
/// `learning.rs` and `terms.rs` raise epoch and terms, and `machine.rs` starts the silence again after a gap.
#[derive(Clone, Debug)]
pub(in crate::cluster::election) struct Promises {
    /// Time of this node's last ack, or of its start: it may have promised just before.
    pub(super) last_ack: Time,
    /// Start of the present silence: no heartbeat of any epoch since, although this process would have received it.
    pub(super) silence: Time,
    /// Longest terms that a record or a master named.
    pub(super) known_terms: Option<Terms>,
    /// Highest epoch ever read or heard: a deleted record must not restart the epochs.
    pub(in crate::cluster::election) top_epoch: u64,
}

impl Promises {
    pub(super) const fn new(now: Time) -> Self {
        Self { last_ack: now, silence: now, known_terms: None, top_epoch: 0 }
    }
}

impl Election {
    /// Handles an authenticated, new message from another node.
    pub fn handle_message(&mut self, from: &str, m: Message, now: Time) {
        if m.epoch > MAX_EPOCH {
            return;
        }
        if !self.peers.contains_key(from) {
            if self.peers.len() >= MAX_PEERS {
                return;
            }
            self.peers.insert(from.to_owned(), Peer::default());
        }
        if let Some(peer) = self.peers.get_mut(from) {
            (peer.fit, peer.priority, peer.heard, peer.reported) = (m.fit, m.priority, Some(now), m.reported);
        }
        match m.kind {
            Kind::Beat { beat, boot } => self.handle_beat(from, m.epoch, beat, boot, now),
            Kind::Ack { beat, boot, vouch } => self.handle_ack(from, beat, boot, vouch, now),
            Kind::Claimed => self.handover.claimed = self.handover.claimed.max(Some(m.epoch)),
            Kind::Go => {
                let ours =
                    self.etcd.record.as_ref().is_some_and(|r| {
                        self.designated(r) && r.epoch == m.epoch && r.handover.as_deref() == Some(from)
                    });
                if ours {
                    self.handover.go_ok = Some(m.epoch);
                }
            }
        }
        self.advance(now);
    }

    fn handle_ack(&mut self, from: &str, beat: u64, boot: u64, vouch: bool, now: Time) {
        if boot != self.s.boot {
            return;
        }
        let Some(at) = self.leading.sent.iter().find(|s| s.0 == beat).map(|s| s.1) else { return };
        #[cfg(test)]
        let at = if self.broken(crate::cluster::election::types::Fault::ReceiveTime) { now } else { at };
        let _ = now;
        if let Some(p) = self.peers.get_mut(from) {
            p.acked = p.acked.max(Some(at));
            if vouch {
                p.vouched = p.vouched.max(Some(at));
            }
        }
    }

    fn handle_beat(&mut self, from: &str, epoch: u64, beat: u64, boot: u64, now: Time) {
        self.promises.silence = now;
        if epoch > self.promises.top_epoch {
            // The sender has read this epoch from etcd.
            self.promises.top_epoch = epoch;
            self.requests.want_read = true;
        }
        if self.wishes.stopping || (self.requests.ticket.is_none() && !self.ack_in_doubt()) {
            return;
        }
        let handed = |r: &Record| {
            self.designated(r)
                && r.handover.as_deref() == Some(from)
                && (self.promises.top_epoch <= r.epoch || self.acks_old())
        };
        if self.etcd.record.as_deref().is_some_and(handed) {
            // The old master may hold on our acks while it flushes, but only for a limited time if it never sends Go.
            let patient = self
                .handover
                .claim_at
                .is_none_or(|t| now < t + crate::cluster::election::machine::follow::CLAIM_PATIENCE);
            if patient {
                self.ack(from, beat, boot, self.vouches(now), now);
                return;
            }
        }
        if self.nobody_is_master() {
            return;
        }
        // A deleted record, or one not read for long, must not revive a former master.
        if epoch < self.promises.top_epoch && !self.acks_old() {
            return;
        }
        // A transaction of ours that may still succeed would break the promise.
        if (self.requests.inflight.is_some() || self.requests.doubt) && !self.ack_in_doubt() {
            return;
        }
        let master = self.etcd.record.as_ref().map(|r| r.master.as_str());
        if master == Some(&self.s.me) {
            return;
        }
        let vouch = self.vouches(now) && master == Some(from);
        self.ack(from, beat, boot, vouch, now);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn acks_old(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn acks_old(&self) -> bool {
        use crate::cluster::election::types::Fault::{AckOldEpoch, RestoredBelieved};
        // A node that believes an outdated record also accepts its epoch.
        self.broken(AckOldEpoch) || self.broken(RestoredBelieved)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn ack_in_doubt(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn ack_in_doubt(&self) -> bool {
        self.broken(crate::cluster::election::types::Fault::AckInDoubt)
    }

    fn ack(&mut self, to: &str, beat: u64, boot: u64, vouch: bool, now: Time) {
        self.learn_terms(self.peers.get(to).and_then(|p| p.reported).map(|t| t.terms));
        self.promises.last_ack = self.promises.last_ack.max(now);
        let epoch = self.etcd.record.as_ref().map_or(0, |r| r.epoch);
        let to = self.known(to);
        self.send(to, Kind::Ack { beat, boot, vouch }, epoch);
    }

    /// Whether etcd has no record, and no node that could write it again. A master that still sends heartbeats then
    /// cannot know that it lost its role. Its epoch may be unknown to this process, if this process started since.
    fn nobody_is_master(&self) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::AckNoRecord) {
            return false;
        }
        self.etcd.record.is_none() && self.etcd.view.as_ref().is_some_and(|v| v.alive.is_none())
    }

    fn vouches(&self, now: Time) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::StaleVouch) {
            return self.node.lease.is_some_and(|l| now < l.until);
        }
        let fresh = |sent: Time| now < sent + FRESH;
        #[cfg(test)]
        let fresh = |sent: Time| fresh(sent) || self.broken(crate::cluster::election::types::Fault::OldVouch);
        let read = |l: &LeaseState| self.etcd.last_read.is_some_and(|r| r.lease == Some(l.id) && fresh(r.sent));
        self.node.lease.is_some_and(|l| now < l.until && read(&l)) && self.etcd.unreadable.is_none()
    }
}
