//! Rules between nodes with different settings: by which hold a promise counts, and which node may be master of which
//! addresses.
//!
//! The record names the terms. Its master counts by them or by less, and every contender waits for all of them. Each
//! takeover compares the record's revision, so the terms of the wait are the terms in force. Only a leading master
//! changes them: at that time no other node has a right that could rest on the old ones.

use super::Election;
use crate::cluster::record::{Record, Terms};
use crate::cluster::settings::digest_of_vips;
use std::time::Duration;

impl Election {
    /// Length of the right that an ack gives this node under this record.
    pub(in crate::cluster::election) fn counted(&self, r: &Record) -> Duration {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::OwnHold) {
            return self.s.hold;
        }
        r.terms.map_or(self.s.hold, |t| self.s.hold.min(t.hold()))
    }

    /// The terms that bind this node by its ack. A record of an older release names none, and that release counts by
    /// its own hold. The longest known terms apply then, as for a missing record.
    fn bound(&self) -> Terms {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::OwnWait) {
            return self.s.reported.terms;
        }
        let known = || self.promises.known_terms.map_or(self.s.reported.terms, |t| t.max(self.s.reported.terms));
        self.etcd.record.as_ref().and_then(|r| r.terms).unwrap_or_else(known)
    }

    /// How long an ack binds this node, on the master's clock.
    pub(in crate::cluster::election) fn bound_hold(&self) -> Duration {
        self.bound().hold()
    }

    /// How long a promise binds this node, with room for another node's clock.
    pub(in crate::cluster::election) fn long_hold(&self) -> Duration {
        let bound = self.bound();
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::NoDrift) {
            return bound.hold();
        }
        bound.hold().mul_f64(1.0 + bound.drift().max(self.s.drift)) + Duration::from_nanos(1)
    }

    /// Keeps the longest terms that a record or a master names.
    pub(in crate::cluster::election) fn learn_terms(&mut self, terms: Option<Terms>) {
        if let Some(t) = terms {
            self.promises.known_terms = Some(self.promises.known_terms.map_or(t, |k| k.max(t)));
        }
    }

    /// Whether the record's addresses are this node's. A node with other addresses must not become master of the
    /// instance.
    pub(in crate::cluster::election) fn agrees(&self, r: &Record) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::StrangerTakes) {
            return true;
        }
        r.vips.is_empty() || r.vips == self.s.vips
    }

    /// The record, if this node has other addresses.
    #[must_use]
    pub fn estranged(&self) -> Option<&Record> {
        self.record().filter(|r| !self.agrees(r))
    }

    /// Whether a peer has the record's addresses; yes for a peer that does not report them.
    pub(in crate::cluster::election) fn has_vips_of(&self, node: &str, r: &Record) -> bool {
        #[cfg(test)]
        if self.broken(crate::cluster::election::types::Fault::StrangerArmed) {
            return true;
        }
        let reported = self.peers.get(node).and_then(|p| p.reported);
        let wanted = || if r.vips == self.s.vips { self.s.reported.vips } else { digest_of_vips(&r.vips) };
        r.vips.is_empty() || reported.is_none_or(|t| t.vips == wanted())
    }

    /// The record with this node's own terms, for a leading master: no other right rests on the old ones.
    pub(in crate::cluster::election) fn with_own_terms(&self, r: &Record) -> Record {
        let mut r = Record { terms: Some(self.s.reported.terms), handover: None, ..r.clone() };
        if r.vips.is_empty() {
            r.vips.clone_from(&self.s.vips);
        }
        r
    }

    /// This node is master by the record, but the record's addresses are not its own: its configuration changed, or is
    /// about to change on every node. It does not hold in this state. A node with the record's addresses takes over
    /// (`wants_handover`). Once every other member reports this node's addresses, the record adopts them.
    pub(in crate::cluster::election) fn estranged_record(&self, r: &Record) -> Option<Record> {
        let alike =
            |m: &String| self.peers.get(m).and_then(|p| p.reported).is_some_and(|t| t.vips == self.s.reported.vips);
        let all = r.members.iter().filter(|m| **m != self.s.me).all(alike);
        all.then(|| Record { vips: self.s.vips.clone(), successor: None, ..self.with_own_terms(r) })
    }
}
