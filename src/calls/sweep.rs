//! Finds calls that are stored and that nobody carries any more: written by a former master, or by a process that is no more, and
//! their end was never seen. Pure.
//!
//! Only a master looks, and only at calls that neither its tracker nor its engine has. Age alone says nothing, since a call may
//! last for days; so a call without a carrier is first handed to the tracker, like those that a restarted agent finds. There it
//! lives by the tracker's rules (its session timer, or a day without any signalling), and its end is noticed if it lives. What
//! the tracker does not take is removed when it had no carrier for as long as the tracker would have waited, without a break.

use crate::calls::mirror::Stored;
use crate::calls::tracker::MAX_SILENT;
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time between two looks.
pub const EVERY: Duration = Duration::from_secs(60);
/// Most calls that one look covers; the next goes on behind them.
const PER_LOOK: usize = 4096;
/// Most calls that one look hands to the tracker, which has to compare each with all that it has.
const ADOPTIONS: usize = 256;
/// Most calls without a carrier that are remembered. Beyond it the others wait their turn.
const MAX_ORPHANS: usize = 16_384;
/// How long a call must have had no carrier before the tracker is asked: longer than a takeover, in which calls change hands.
const ADOPT_AFTER: Duration = Duration::from_secs(110);
/// How long a call that the tracker does not take must have had no carrier before it is removed: as long as the tracker waits for
/// a silent one, and an hour.
const REMOVE_AFTER: Duration = Duration::from_secs(MAX_SILENT.as_secs() + 3600);

/// What is to be done with a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Let the tracker follow it.
    Adopt(String),
    /// Remove it from etcd.
    Remove(String),
}

/// Looks through the stored calls of a master, some at a time.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The last id that was looked at.
    cursor: String,
    /// Calls without a carrier, and since when.
    orphans: BTreeMap<String, Time>,
}

impl Sweep {
    /// One look; `carried` says whether the tracker or the engine has a call, or will get it.
    pub fn look(&mut self, stored: &Stored, carried: impl Fn(&str) -> bool, now: Time) -> Vec<Verdict> {
        let seen: Vec<&str> = stored.ids_after(&self.cursor).take(PER_LOOK).collect();
        // What was passed by is no longer stored.
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

    /// Forgets everything: this node is no longer master, or is one anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
