//! Identifies the answering etcd, and detects a change. Pure.
//!
//! Every answer names its cluster and the store's revision. As long as etcd is the same, the revision in a linearizable
//! answer is never below the revision known at the time of the request. So one of the two reveals a restored backup,
//! lost data, or another cluster at the same addresses. Everything read before is then void.
//!
//! We believe the cluster of more than half of the endpoints. A member of another cluster, or one whose data differ, is
//! reported and not used: two nodes that asked two clusters would both get the right to answer.

use crate::time::Time;
use std::fmt;
use std::time::Duration;

/// After this silence of all other members, a lagging member is believed: several probes.
const LONE: Duration = Duration::from_secs(3);

/// What an answer says about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Cluster number.
    pub(super) cluster: u64,
    /// The store's revision; `None` after a request that was not linearizable, because the member may lag.
    pub(super) revision: Option<i64>,
}

/// Knowledge at the time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    generation: u64,
    floor: i64,
    own: i64,
}

/// Judgement of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is usable.
    Good,
    /// The right cluster is not known yet.
    Unsettled,
    /// The request was sent before a change of etcd was detected.
    Stale,
    /// The member belongs to another cluster than the others.
    Stranger(String),
    /// The member's data differ from the others'.
    Behind(String),
    /// etcd has changed; this answer was the first sign.
    Changed(Change),
}

/// How etcd differs from the former one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Another cluster answers at the endpoints.
    OtherCluster { before: u64, now: u64 },
    /// The store's revision went back.
    WentBack { before: i64, now: i64 },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster { before, now } => {
                write!(f, "another etcd cluster answers at the endpoints (cluster {now:x}, before {before:x})")
            }
            Self::WentBack { before, now } => {
                write!(
                    f,
                    "etcd went back from revision {before} to {now}: etcd was restored from a backup, or has lost \
                     its data"
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// The cluster in its last answer.
    cluster: Option<u64>,
    /// Its highest revision.
    revision: i64,
    /// Time of its last answer to a linearizable request as a member of the believed cluster.
    judged: Option<Time>,
}

/// Endpoints of one client, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Identity {
    members: Vec<Member>,
    believed: Option<u64>,
    /// Highest revision of all members.
    revision: i64,
    /// Number of detected changes of etcd.
    generation: u64,
}

impl Identity {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { members: vec![Member::default(); endpoints], believed: None, revision: 0, generation: 0 }
    }

    /// Whether the right cluster is known.
    pub(super) const fn is_settled(&self) -> bool {
        self.believed.is_some()
    }

    /// Every endpoint was asked and had time to answer: believe the cluster with the most endpoints among the answers.
    pub(super) fn settle(&mut self) {
        if self.believed.is_none() {
            // A tie goes to the first endpoint in the operator's order.
            let best = self.members.iter().filter_map(|m| m.cluster).rev().max_by_key(|c| self.votes(*c));
            self.believed = best;
        }
    }

    /// Call this right before a request leaves for the endpoint.
    pub(super) fn send(&self, endpoint: usize) -> Sent {
        Sent {
            generation: self.generation,
            floor: self.revision,
            own: self.members.get(endpoint).map_or(0, |m| m.revision),
        }
    }

    /// Whether this endpoint answered a linearizable request within the span.
    pub(super) fn judged_within(&self, endpoint: usize, span: Duration, now: Time) -> bool {
        self.members.get(endpoint).and_then(|m| m.judged).is_some_and(|t| now < t + span)
    }

    fn votes(&self, cluster: u64) -> usize {
        self.members.iter().filter(|m| m.cluster == Some(cluster)).count()
    }

    fn has_majority(&self, cluster: u64) -> bool {
        2 * self.votes(cluster) > self.members.len()
    }

    /// Judges an endpoint's answer.
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
                    "not used: this endpoint belongs to another etcd cluster ({:x}) than most endpoints \
                     ({before:x}); remove it from `endpoints`, or make it a member of that cluster. To replace the \
                     cluster, start more than half of the new members",
                    header.cluster
                ));
            }
        }
        let Some(revision) = header.revision else { return Verdict::Good };
        if revision < sent.floor {
            // No other member answers, so none can contradict this one.
            let recent = |m: &Member| m.judged.is_some_and(|t| now < t + LONE);
            let lone = !self.members.iter().any(recent);
            // A member that never reached this revision itself says nothing about the others. A member whose own
            // revision went back does: the others agreed to this read.
            if revision < sent.own || lone {
                return self.change(endpoint, header, Change::WentBack { before: self.revision, now: revision }, now);
            }
            return Verdict::Behind(format!(
                "not used: the member's data end at revision {revision}, and other members have answered with {}; \
                 compare the members with `etcdctl endpoint hashkv`, remove a member whose data differ, and add it \
                 again",
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
