//! Finds stored calls that no agent carries: a former master or a dead process wrote them, and nobody saw their end.
//! Pure.
//!
//! Only a master looks, and only at calls that neither its tracker nor its engine has. Age alone proves nothing, since
//! a call may last for days. The sweep therefore first hands a call without a carrier to the tracker, as a restarted
//! agent does. There the tracker's rules apply (its session timer, or a day without signalling), and the tracker sees
//! the end of a live call. If the tracker refuses a call, the sweep removes it once it has had no carrier, without a
//! break, for as long as the tracker would have waited.

use crate::calls::mirror::Stored;
use crate::calls::tracker::MAX_SILENT;
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time between two looks.
pub const EVERY: Duration = Duration::from_secs(60);
/// Most calls that one look covers. The next look continues behind them.
const PER_LOOK: usize = 4096;
/// Most calls that one look hands to the tracker, because the tracker compares each with all of its calls.
const ADOPTIONS: usize = 256;
/// Most calls without a carrier in memory. Further ones wait their turn.
const MAX_ORPHANS: usize = 16_384;
/// Time without a carrier before the tracker gets the call. Longer than a takeover, during which calls change hands.
const ADOPT_AFTER: Duration = Duration::from_secs(110);
/// Time without a carrier before a call that the tracker refuses is removed: the tracker's wait for a silent call plus
/// an hour.
const REMOVE_AFTER: Duration = Duration::from_secs(MAX_SILENT.as_secs() + 3600);

/// What to do with a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Let the tracker follow it.
    Adopt(String),
    /// Remove it from etcd.
    Remove(String),
}

/// Walks the stored calls of a master, a batch per look.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Id of the last call looked at.
    cursor: String,
    /// Calls without a carrier, and since when.
    orphans: BTreeMap<String, Time>,
}

impl Sweep {
    /// One look. `carried` says whether the tracker or the engine has a call, or will get it.
    pub fn look(&mut self, stored: &Stored, carried: impl Fn(&str) -> bool, now: Time) -> Vec<Verdict> {
        let seen: Vec<&str> = stored.ids_after(&self.cursor).take(PER_LOOK).collect();
        // An orphan inside the range of this look that is absent from `seen` is no longer stored.
        let end = if seen.len() < PER_LOOK { None } else { seen.last().map(|id| (*id).to_owned()) };
        let passed = |id: &String| *id > self.cursor && end.as_ref().is_none_or(|end| id <= end);
        self.orphans.retain(|id, _| !passed(id) || (seen.binary_search(&id.as_str()).is_ok() && !carried(id)));
        self.cursor = end.unwrap_or_default();
        let (mut verdicts, mut adoptions) = (Vec::new(), 0);
        for id in seen {
            if let Some(since) = self.orphans.get(id) {
                let alone = now.since(*since);
                if alone >= REMOVE_AFTER {
                    verdicts.push(Verdict::Remove(id.to_owned()));
                } else if alone >= ADOPT_AFTER && adoptions < ADOPTIONS {
                    adoptions += 1;
                    verdicts.push(Verdict::Adopt(id.to_owned()));
                }
            } else if self.orphans.len() < MAX_ORPHANS && !carried(id) {
                self.orphans.insert(id.to_owned(), now);
            }
        }
        verdicts
    }

    /// Forgets everything, because this node is no longer master or has just become it again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
