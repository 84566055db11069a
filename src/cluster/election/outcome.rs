//! What an answer of etcd says about a commit of which copies went to several members.

use super::types::{Commit, Failure};
use crate::cluster::record::{Recorded, View};

/// What is known of a commit once one of its copies was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is not done, and no copy of it will be.
    Refused,
    /// It is not done, but a copy that is still under way may be.
    InDoubt,
}

impl Outcome {
    /// What the election is told: whether the commit is done, with what etcd had afterwards, or that nobody knows.
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
    /// Whether copies of it are safe: one that arrives after another finds the record's revision moved for good. A first record has no
    /// revision; were it deleted later on, a copy that went astray could create it again.
    #[must_use]
    pub const fn may_be_copied(&self) -> bool {
        self.base != 0
    }

    /// What the answer to one copy says. `succeeded`: the conditions held; `copies`: others may still arrive at etcd; `view`: what etcd
    /// had afterwards.
    #[must_use]
    pub fn outcome(&self, succeeded: bool, copies: bool, view: &View) -> Outcome {
        match &view.record {
            _ if succeeded => Outcome::Done,
            // Refused for something else than the record's revision, which may hold again when another copy arrives.
            Recorded::Good { revision, .. } | Recorded::Unreadable { revision, .. }
                if copies && *revision == self.base =>
            {
                Outcome::InDoubt
            }
            // The conditions no longer hold because another copy is done: nobody else writes this record under this ticket.
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
        // The race was lost.
        assert_eq!(commit().outcome(false, true, &at(12, record("a", 3))), Outcome::Refused);
        // Somebody else has written our ticket since: whose record it is cannot be said.
        let other = View { ticket: Some("u".into()), ..at(12, record("b", 3)) };
        assert_eq!(commit().outcome(false, true, &other), Outcome::Refused);
    }

    #[test]
    fn a_refusal_is_in_doubt_only_while_another_copy_could_be_done() {
        let old = at(10, record("a", 2));
        assert_eq!(commit().outcome(false, true, &old), Outcome::InDoubt);
        assert_eq!(commit().outcome(false, false, &old), Outcome::Refused);
        // The same text that was there before, put again to go with `alive`, was not put.
        assert_eq!(commit().outcome(false, false, &at(10, record("b", 3))), Outcome::Refused);
        // No copy is done any more once the record is another, or none.
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
