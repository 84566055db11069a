//! Records of one dialog: copies of its INVITE, and what went past the server. Pure.

use super::super::observer::Observer;
use super::super::record::Record;
use super::super::report::LegDirection;
use crate::time::Time;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Most records of one Call-ID that are compared with each other.
const MAX_ALIKE: usize = 64;
/// A message this long after the BYE of its dialog is no retransmission (RFC 3261 section 17.1.2.2): that BYE did not
/// reach the hop.
const LATE: Duration = Duration::from_secs(32);

/// Joins the records of each dialog.
pub(super) fn join(o: &mut Observer) {
    let mut by_id: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (n, r) in o.records.iter().enumerate().filter(|(_, r)| r.copy_of.is_none()) {
        by_id.entry(&r.call_id).or_default().push(n);
    }
    let groups: Vec<Vec<usize>> = by_id.into_values().filter(|g| (2..=MAX_ALIKE).contains(&g.len())).collect();
    for group in groups {
        for (n, later) in group.iter().enumerate() {
            for earlier in &group[..n] {
                let Some((keep, copy)) = one_leg(&o.records, &group, *earlier, *later) else { continue };
                fold(&mut o.records, keep, copy);
            }
        }
        end_together(&mut o.records, &group);
    }
}

/// Which record of two that are one leg is kept, and which is part of it.
fn one_leg(records: &[Record], group: &[usize], earlier: usize, later: usize) -> Option<(usize, usize)> {
    let (a, b) = (&records[earlier], &records[later]);
    if a.copy_of.is_some() || b.copy_of.is_some() {
        return None;
    }
    let same_dialog = a.has_tags(&b.local_tag, &b.remote_tag) && !a.local_tag.is_empty() && !a.remote_tag.is_empty();
    let known = |r: &Record| r.side != LegDirection::Unknown;
    match (known(a), known(b)) {
        // What went past the server, from phone to phone. Another hop has a server at one of its ends.
        (true, false) if same_dialog && a.view != b.view => {
            let is_phone = |ip: IpAddr| {
                let mut hops = group.iter().map(|n| &records[*n]).filter(|r| r.view == a.view && known(r));
                hops.any(|r| r.remote_addr.ip() == ip)
            };
            (is_phone(b.local_addr.ip()) && is_phone(b.remote_addr.ip())).then_some((earlier, later))
        }
        (true, true) if a.view == b.view && a.side == b.side && a.remote_addr.ip() == b.remote_addr.ip() => {
            if a.near_tag() != b.near_tag() || a.cseq == b.cseq {
                // Branches of a fork.
                None
            } else if same_dialog && a.answered.is_some() && b.answered.is_some() {
                // Two copies of the INVITE, and the server took them for one (RFC 3261 section 8.2.2.2).
                Some((earlier, later))
            } else if a.is_open() && a.cseq < b.cseq && a.last <= b.started {
                // The refusal of the first attempt is not in the file.
                Some((later, earlier))
            } else {
                None
            }
        }
        // Responses only: the caller was asked for credentials, and called again.
        (false, false) if a.view == b.view && a.remote_addr.ip() == b.remote_addr.ip() => {
            let caller = a.local_tag == b.local_tag || a.remote_tag == b.remote_tag;
            (caller && !same_dialog && a.is_challenged() && a.cseq < b.cseq).then_some((later, earlier))
        }
        _ => None,
    }
}

/// Makes one record a part of another.
fn fold(records: &mut [Record], keep: usize, copy: usize) {
    let c = &mut records[copy];
    c.copy_of = Some(u32::try_from(keep).unwrap_or(u32::MAX));
    let part = c.part();
    let passed_by = c.side == LegDirection::Unknown;
    let end = c.hangup();
    let k = &mut records[keep];
    k.add(&part);
    k.passed_by |= passed_by;
    if let Some((at, sender)) = end.filter(|_| passed_by) {
        k.hung_up_by(at, &sender);
    }
}

/// BYE ends the dialog on each of its hops, whether it was captured there or not.
fn end_together(records: &mut [Record], group: &[usize]) {
    let ends: Vec<(usize, Time, Box<[u8]>)> =
        group.iter().filter_map(|n| records[*n].hangup().map(|(at, sender)| (*n, at, sender))).collect();
    for (from, at, sender) in ends {
        let (local, remote) = (records[from].local_tag.clone(), records[from].remote_tag.clone());
        for n in group {
            let r = &mut records[*n];
            let heard = r.last > at + LATE;
            if *n != from && r.has_tags(&local, &remote) && r.answered.is_some() && !heard {
                r.hung_up_by(at, &sender);
            }
        }
    }
}
