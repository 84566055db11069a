//! Which etcd answers, and whether it is the one that answered before. Pure.
//!
//! Every answer names its cluster and the revision that the store has. The revision of an answer to a linearizable request is never
//! below what was known when the request was sent, as long as etcd is the same: a backup that was restored, data that were lost, and
//! another cluster at the same addresses show by one of the two. What was read before says nothing then.
//!
//! The cluster that more than half of the endpoints belong to is the one that is believed. A member of another one, or one whose data
//! differ from the others', is named and not used: two nodes that asked two clusters would both be given the right to answer.

use crate::time::Time;
use std::fmt;
use std::time::Duration;

/// How long a member may be behind all others until it is believed that it is they who are gone: some probes.
const LONE: Duration = Duration::from_secs(3);

/// What an answer says of who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the cluster.
    pub(super) cluster: u64,
    /// The store's revision; `None` if the request was not linearizable, so that a member may be behind.
    pub(super) revision: Option<i64>,
}

/// What was known when a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    generation: u64,
    floor: i64,
    own: i64,
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be used.
    Good,
    /// It is not known yet which cluster is the right one.
    Unsettled,
    /// The request was sent before etcd was found to be another one.
    Stale,
    /// The member belongs to another cluster than the others.
    Stranger(String),
    /// The member's data are not those of the others.
    Behind(String),
    /// etcd is another one from now on; this answer was the first to tell.
    Changed(Change),
}

/// In what etcd differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Another cluster answers at the endpoints.
    OtherCluster { before: u64, now: u64 },
    /// The store's revision is lower than it was.
    WentBack { before: i64, now: i64 },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster { before, now } => {
                write!(f, "another etcd cluster answers at its addresses (cluster {now:x}, before {before:x})")
            }
            Self::WentBack { before, now } => {
                write!(
                    f,
                    "etcd went back from revision {before} to {now}: it was restored from a backup, or has lost its data"
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// The cluster that it named last.
    cluster: Option<u64>,
    /// The highest revision that it gave.
    revision: i64,
    /// When it last answered a linearizable request, as a member of the cluster that is believed.
    judged: Option<Time>,
}

/// The endpoints of one client, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Identity {
    members: Vec<Member>,
    believed: Option<u64>,
    /// The highest revision of all.
    revision: i64,
    /// Counts the times that etcd was found to be another one.
    generation: u64,
}

impl Identity {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { members: vec![Member::default(); endpoints], believed: None, revision: 0, generation: 0 }
    }

    /// Whether it is known which cluster is the right one.
    pub(super) const fn is_settled(&self) -> bool {
        self.believed.is_some()
    }

    /// Every endpoint was asked, and had time to answer: the cluster that most of those belong to which did is believed.
    pub(super) fn settle(&mut self) {
        if self.believed.is_none() {
            // The first of equals: the order is the operator's.
            let best = self.members.iter().filter_map(|m| m.cluster).rev().max_by_key(|c| self.votes(*c));
            self.believed = best;
        }
    }

    /// To be called right before a request leaves for the endpoint.
    pub(super) fn send(&self, endpoint: usize) -> Sent {
        Sent {
            generation: self.generation,
            floor: self.revision,
            own: self.members.get(endpoint).map_or(0, |m| m.revision),
        }
    }

    /// Whether this endpoint answered a linearizable request within the time.
    pub(super) fn judged_within(&self, endpoint: usize, span: Duration, now: Time) -> bool {
        self.members.get(endpoint).and_then(|m| m.judged).is_some_and(|t| now < t + span)
    }

    fn votes(&self, cluster: u64) -> usize {
        self.members.iter().filter(|m| m.cluster == Some(cluster)).count()
    }

    fn has_majority(&self, cluster: u64) -> bool {
        2 * self.votes(cluster) > self.members.len()
    }

    /// What an answer of the endpoint is worth.
    pub(super) fn handle_header(&mut self, endpoint: usize, sent: Sent, header: Header, now: Time) -> Verdict {
        if sent.generation != self.generation {
            return Verdict::Stale;
        }
        let Some(member) = self.members.get_mut(endpoint) else { return Verdict::Unsettled };
        member.cluster = Some(header.cluster);
        match self.believed {
            None if self.has_majority(header.cluster) => self.believed = Some(header.cluster),
            None => return Verdict::Unsettled,
            Some(before) if before == header.cluster => {}
            Some(before) if self.has_majority(header.cluster) => {
                return self.change(endpoint, header, Change::OtherCluster { before, now: header.cluster }, now);
            }
            Some(before) => {
                return Verdict::Stranger(format!(
                    "it belongs to another etcd cluster ({:x}) than most endpoints ({before:x}), and is not used; take it out of `endpoints`, \
                     or make it a member of their cluster. If the cluster is to be replaced, start more than half of the new members",
                    header.cluster
                ));
            }
        }
        let Some(revision) = header.revision else { return Verdict::Good };
        if revision < sent.floor {
            // Nobody else answers, and so nobody can say who is right.
            let recent = |m: &Member| m.judged.is_some_and(|t| now < t + LONE);
            let lone = !self.members.iter().any(recent);
            // A member that was never so far says nothing of the others; one that was, and had them agree to this read, does.
            if revision < sent.own || lone {
                return self.change(endpoint, header, Change::WentBack { before: self.revision, now: revision }, now);
            }
            return Verdict::Behind(format!(
                "its data end at revision {revision}, and other members have answered with {}; it is not used. Compare them with `etcdctl \
                 endpoint hashkv`; remove a member whose data differ, and add it anew",
                sent.floor
            ));
        }
        self.revision = self.revision.max(revision);
        if let Some(member) = self.members.get_mut(endpoint) {
            member.revision = member.revision.max(revision);
            member.judged = Some(now);
        }
        Verdict::Good
    }

    fn change(&mut self, endpoint: usize, header: Header, change: Change, now: Time) -> Verdict {
        self.generation += 1;
        self.believed = Some(header.cluster);
        self.revision = header.revision.unwrap_or(0);
        for (i, member) in self.members.iter_mut().enumerate() {
            *member = if i == endpoint {
                Member { cluster: member.cluster, revision: self.revision, judged: Some(now) }
            } else {
                Member { cluster: member.cluster, ..Member::default() }
            };
        }
        Verdict::Changed(change)
    }
}

#[cfg(test)]
mod tests;
