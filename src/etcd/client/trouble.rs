//! Why etcd does not serve us, for status.
//!
//! etcd may refuse reads or writes for long and go on renewing leases, which need no permission and no space. A refusal
//! therefore stands until a call of its own kind is served. Any other error stands until the next call.

use crate::etcd::error::EtcdError;

/// What a call needs from etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::etcd) enum Needs {
    /// Neither permission nor space: etcd looks at the user only.
    Lease,
    /// Permission to read the keys.
    Read,
    /// Permission to write the keys, and space.
    Write,
}

/// The troubles of the last calls.
#[derive(Debug, Default)]
pub(in crate::etcd) struct Troubles {
    last: Option<String>,
    reads: Option<String>,
    writes: Option<String>,
}

impl Troubles {
    /// Takes note of a call's outcome.
    pub(in crate::etcd) fn outcome(&mut self, needs: Needs, error: Option<&EtcdError>) {
        let told = match error {
            // These are answers to the request, not faults.
            None | Some(EtcdError::Refused { .. } | EtcdError::LeaseGone { .. } | EtcdError::Changed) => None,
            Some(e) => Some(e.to_string()),
        };
        let standing = match needs {
            Needs::Lease => None,
            Needs::Read => Some(&mut self.reads),
            Needs::Write => Some(&mut self.writes),
        };
        if let Some(standing) = standing {
            match error {
                None => *standing = None,
                Some(EtcdError::Denied { .. } | EtcdError::Full { .. }) => standing.clone_from(&told),
                Some(_) => {}
            }
        }
        self.last = told;
    }

    /// The trouble to tell: of the last call, or a refusal that stands.
    pub(in crate::etcd) fn told(&self) -> Option<String> {
        self.last.as_ref().or(self.reads.as_ref()).or(self.writes.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> EtcdError {
        EtcdError::Denied { message: "etcdserver: permission denied".to_owned() }
    }

    #[test]
    fn a_refusal_stands_while_leases_are_renewed() {
        let mut t = Troubles::default();
        t.outcome(Needs::Read, Some(&denied()));
        t.outcome(Needs::Lease, None);
        assert!(t.told().is_some_and(|t| t.contains("permission denied")));
        t.outcome(Needs::Write, None);
        assert!(t.told().is_some(), "a write proves nothing about reads");
        t.outcome(Needs::Read, None);
        assert_eq!(t.told(), None);
    }

    #[test]
    fn a_full_etcd_stands_until_a_write_is_served() {
        let mut t = Troubles::default();
        t.outcome(Needs::Write, Some(&EtcdError::Full { message: "space exceeded".to_owned() }));
        t.outcome(Needs::Read, None);
        t.outcome(Needs::Write, Some(&EtcdError::Changed));
        assert!(t.told().is_some_and(|t| t.contains("space exceeded")));
        t.outcome(Needs::Write, None);
        assert_eq!(t.told(), None);
    }

    #[test]
    fn another_error_is_over_with_the_next_answer_of_any_kind() {
        let mut t = Troubles::default();
        t.outcome(Needs::Read, Some(&EtcdError::Unreachable { tried: Vec::new() }));
        assert!(t.told().is_some());
        t.outcome(Needs::Lease, None);
        assert_eq!(t.told(), None);
        t.outcome(Needs::Lease, Some(&EtcdError::LeaseGone { id: 1 }));
        assert_eq!(t.told(), None, "an answer, not a fault");
    }
}
