//! Judges etcd's answer to a commit whose copies went to several members.

use super::types::{Commit, Failure};
use crate::cluster::record::{Recorded, View};

/// Known state of a commit after the first answer to one of its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit is done.
    Done,
    /// The commit is not done, and no copy of it ever will be.
    Refused,
    /// The commit is not done, but a copy in flight may still succeed.
    InDoubt,
}

impl Outcome {
    /// Translates for the election: whether the commit is done, with etcd's content afterwards, or that its outcome is
    /// unknown.
    ///
    /// # Errors
    /// [`Failure::InDoubt`].
    pub fn answer(self, view: View) -> Result<(bool, View), Failure> {
        match self {
            Self::Done => Ok((true, view)),
            Self::Refused => Ok((false, view)),
            Self::InDoubt => Err(Failure::InDoubt),
        }
    }
}

impl Commit {
    /// Whether copies are safe: a copy that arrives after another one finds the record's revision moved for good. A
    /// first record has no revision, so a stray copy could create it again after a later deletion.
    #[must_use]
    pub const fn may_be_copied(&self) -> bool {
        self.base != 0
    }

    /// Judges the answer to one copy. `succeeded`: the conditions held. `copies`: other copies may still arrive at
    /// etcd. `view`: etcd's content afterwards.
    #[must_use]
    pub fn outcome(&self, succeeded: bool, copies: bool, view: &View) -> Outcome {
        match &view.record {
            _ if succeeded => Outcome::Done,
            // The refusal had another cause than the record's revision. That condition may hold again when another copy
            // arrives.
            Recorded::Good { revision, .. } | Recorded::Unreadable { revision, .. }
                if copies && *revision == self.base =>
            {
                Outcome::InDoubt
            }
            // The conditions fail because another copy succeeded: no other writer writes this record under this ticket.
            Recorded::Good { revision, record }
                if *revision != self.base && *record == self.record && view.ticket.as_ref() == Some(&self.ticket) =>
            {
                Outcome::Done
            }
            _ => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::{Record, SCHEMA};
    use std::collections::{BTreeMap, BTreeSet};

    fn record(master: &str, epoch: u64) -> Record {
        Record {
            schema: SCHEMA,
            epoch,
            master: master.into(),
            successor: None,
            members: vec!["a".into(), "b".into()],
            since_ms: 5,
            reason: "test".into(),
            handover: None,
            flaps: 0,
            addresses: BTreeMap::new(),
            terms: None,
            vips: BTreeSet::new(),
        }
    }

    fn commit() -> Commit {
        Commit {
            base: 10,
            ticket: "t".into(),
            nodes_gone: Vec::new(),
            runs: Vec::new(),
            alive_gone: false,
            automatic: false,
            record: record("b", 3).into(),
            alive: Some(1),
            drop_alive: false,
        }
    }

    fn seen(record: Recorded) -> View {
        View {
            revision: 20,
            record,
            alive: None,
            nodes: BTreeSet::new(),
            runs: BTreeMap::new(),
            ticket: Some("t".into()),
            rewritten: false,
            paused: None,
        }
    }

    fn at(revision: i64, record: Record) -> View {
        seen(Recorded::Good { revision, record: record.into() })
    }

    #[test]
    fn the_copy_that_came_second_does_not_look_like_a_lost_race() {
        assert_eq!(commit().outcome(false, true, &at(12, record("b", 3))), Outcome::Done);
        // A lost race.
        assert_eq!(commit().outcome(false, true, &at(12, record("a", 3))), Outcome::Refused);
        // Another process has replaced our ticket since, so the record's author is unknown.
        let other = View { ticket: Some("u".into()), ..at(12, record("b", 3)) };
        assert_eq!(commit().outcome(false, true, &other), Outcome::Refused);
    }

    #[test]
    fn a_refusal_is_in_doubt_only_while_another_copy_could_be_done() {
        let old = at(10, record("a", 2));
        assert_eq!(commit().outcome(false, true, &old), Outcome::InDoubt);
        assert_eq!(commit().outcome(false, false, &old), Outcome::Refused);
        // A put of an unchanged record (to go with `alive`) did not happen.
        assert_eq!(commit().outcome(false, false, &at(10, record("b", 3))), Outcome::Refused);
        // No copy can succeed once the record has changed or is missing.
        assert_eq!(commit().outcome(false, true, &seen(Recorded::Missing)), Outcome::Refused);
        let spoilt = seen(Recorded::Unreadable { revision: 11, why: String::new() });
        assert_eq!(commit().outcome(false, true, &spoilt), Outcome::Refused);
        assert_eq!(commit().outcome(true, true, &old), Outcome::Done);
    }

    #[test]
    fn a_first_record_is_not_copied() {
        assert!(commit().may_be_copied() && !Commit { base: 0, ..commit() }.may_be_copied());
    }
}
