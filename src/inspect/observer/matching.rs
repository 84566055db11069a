//! The record to which a message belongs. Pure.

use super::super::report::LegDirection;
use super::{Observer, Sighting};
use crate::sip::message::Method;
use smallvec::SmallVec;
use std::hash::BuildHasher as _;

impl Observer {
    /// The records with this Call-ID, oldest first.
    pub(super) fn same(&self, view: usize, call_id: &[u8]) -> SmallVec<[u32; 4]> {
        let ids = self.views[view].by_call.get(&self.hasher.hash_one(call_id));
        ids.into_iter().flatten().copied().filter(|r| *self.records[*r as usize].call_id == *call_id).collect()
    }

    /// The newest record of the message's INVITE transaction.
    pub(super) fn family(&self, seen: Sighting<'_>) -> Option<u32> {
        let m = seen.m;
        let branch = m.branch().unwrap_or_default();
        let caller_is_local = seen.out == m.is_request();
        self.same(seen.view, m.call_id()).into_iter().rev().find(|r| {
            let r = &self.records[*r as usize];
            let side = if caller_is_local { LegDirection::Outbound } else { LegDirection::Inbound };
            r.side == side && *r.branch == *branch && r.cseq == m.cseq().0
        })
    }

    /// The record of a response's own branch of the INVITE, though the table had given it up.
    pub(super) fn branch(&self, seen: Sighting<'_>) -> Option<u32> {
        let tag = seen.m.to_tag().unwrap_or_default();
        self.find(seen).filter(|r| {
            let r = &self.records[*r as usize];
            let far = r.far_tag();
            r.is_of_invite(seen.m) && r.side != LegDirection::Unknown && (far.is_empty() || far == tag)
        })
    }

    /// The record of a message's leg.
    pub(super) fn find(&self, seen: Sighting<'_>) -> Option<u32> {
        let Sighting { m, p, out, .. } = seen;
        let (from, to) = (m.from_tag().unwrap_or_default(), m.to_tag().unwrap_or_default());
        let (local, remote) = if out == m.is_request() { (from, to) } else { (to, from) };
        let peer = if out { p.dst } else { p.src };
        let branch = m.branch().unwrap_or_default();
        let mut best: Option<(u8, u32)> = None;
        for id in self.same(seen.view, m.call_id()) {
            let r = &self.records[id as usize];
            // CANCEL names one INVITE by its branch (RFC 3261 section 9.1).
            if m.method() == Method::Cancel && !r.is_of_invite(m) {
                continue;
            }
            let tags = (&*r.local_tag, &*r.remote_tag) == (local, remote);
            let open = (*r.local_tag == *local || r.local_tag.is_empty())
                && (*r.remote_tag == *remote || r.remote_tag.is_empty());
            let near = if out == m.is_request() { local } else { remote };
            let from_caller = r.side != LegDirection::Unknown
                && (out == m.is_request()) == (r.side == LegDirection::Outbound)
                && r.near_tag() == near;
            let same_transaction = from_caller && *r.branch == *branch && r.cseq == m.cseq().0;
            let fit = match (tags, open, same_transaction) {
                (true, _, true) => 6,
                (true, _, false) => 4,
                // A response belongs to its transaction, even if another copy of the INVITE has its tags.
                (false, true, true) => 5,
                // An early dialog that answered under another tag, or the refusal of a fork: any record of the
                // transaction will do.
                (false, false, true) => 2,
                (false, true, false) if !to.is_empty() || m.method() == Method::Cancel => 1,
                _ => continue,
            };
            let fit = fit * 2 + u8::from(r.remote_addr == peer);
            if best.is_none_or(|(b, _)| fit >= b) {
                best = Some((fit, id));
            }
        }
        best.map(|(_, id)| id)
    }
}
