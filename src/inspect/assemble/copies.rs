//! Records that are one leg: the same INVITE on other addresses, and the branches of a fork. Pure.

use super::super::observer::Observer;
use super::super::record::Record;
use super::super::report::LegDirection;
use super::{callee_end, caller_end};
use crate::time::Time;
use std::collections::HashMap;

/// Most other address pairs reported for one leg.
const MAX_ALSO: usize = 8;

/// The same INVITE on other addresses is not another hop, whose topmost Via would differ. It was captured on both sides
/// of an address translation. One of these records is reported: the one at the report's server, if there is one.
pub(super) fn mark(o: &mut Observer) {
    // Call-ID, branch and CSeq.
    type Key = (Box<[u8]>, Box<[u8]>, u32);
    let mut seen: HashMap<Key, u32> = HashMap::new();
    for n in 0..o.records.len() {
        let r = &o.records[n];
        if r.side == LegDirection::Unknown || r.branch.is_empty() {
            continue;
        }
        let id = u32::try_from(n).unwrap_or(u32::MAX);
        let first = *seen.entry((r.call_id.clone(), r.branch.clone(), r.cseq)).or_insert(id);
        let other = &o.records[first as usize];
        let pair = |r: &Record| [caller_end(r), callee_end(r)];
        // Forks of one hop have the same addresses.
        if first == id || other.view == r.view || pair(other) == pair(r) {
            continue;
        }
        let (keep, copy) = if o.views[r.view as usize].main { (n, first as usize) } else { (first as usize, n) };
        let told = pair(&o.records[copy]);
        o.records[copy].copy_of = Some(u32::try_from(keep).unwrap_or(u32::MAX));
        let k = &mut o.records[keep];
        if k.also_seen.len() < MAX_ALSO && !k.also_seen.contains(&told) {
            k.also_seen.push(told);
        }
    }
}

/// An answer on one branch of a fork ends the other early dialogs.
pub(super) fn lose_forks(records: &mut [Record]) {
    // Viewpoint, Call-ID and branch.
    type Key = (u32, Box<[u8]>, Box<[u8]>);
    let mut answered: HashMap<Key, Time> = HashMap::new();
    for r in records.iter() {
        if let Some(at) = r.answered {
            answered.entry((r.view, r.call_id.clone(), r.branch.clone())).or_insert(at);
        }
    }
    for r in records.iter_mut().filter(|r| r.is_inviting() || r.answered.is_none() && r.code.is_none()) {
        if r.side == LegDirection::Unknown {
            continue;
        }
        if let Some(at) = answered.get(&(r.view, r.call_id.clone(), r.branch.clone())) {
            r.lost_to_fork(*at);
        }
    }
}
