//! Builds the status for the agent and for display.

use super::{EventLoop, STATUS_PAUSE};
use crate::cluster::election::Role;
use crate::cluster::lease::Name;
use crate::cluster::record::{Record, describe_pause};
use crate::cluster::settings::Change;
use crate::cluster::stalls::Kind;
use crate::cluster::status::{ClusterStatus, InstanceStatus, NodeStatus};
use crate::sync::Locked as _;
use crate::time::Time;
use std::time::Duration;

/// Explains why this node cannot become master of an instance with this record.
fn estranged(r: &Record) -> String {
    let all: Vec<String> = r.vips.iter().map(ToString::to_string).collect();
    format!(
        "the instance has the addresses {}, and this node has different ones, so this node cannot become master; \
         give every node the same `addresses`. If this node has the new addresses and a member is gone for good, \
         remove the member with `keepcall forget`",
        all.join(" ")
    )
}

impl EventLoop {
    /// Logs which settings of other nodes now differ and which no longer do.
    pub(super) fn tell(&mut self, changes: &[Change]) {
        for c in changes {
            let (Change::Differs(d) | Change::Agrees(d)) = c;
            let (node, setting, instance) = (&d.node, &d.setting, d.instance.as_deref().unwrap_or("-"));
            match c {
                Change::Agrees(_) => {
                    tracing::info!(
                        %node, instance, %setting,
                        "a setting no longer differs between this node and another"
                    )
                }
                Change::Differs(d) => {
                    let cure = d.meaning();
                    tracing::warn!(
                        %node, instance, %setting, here = %d.here, there = %d.there,
                        "a setting differs between this node and another: {cure}"
                    );
                }
            }
            self.status_due = true;
        }
    }

    pub(super) fn publish_status(&mut self, now: Time) {
        if now < self.status_at {
            self.status_due = true;
            return;
        }
        (self.status_at, self.status_due) = (now + STATUS_PAUSE, false);
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let taken = match &*self.name.borrow() {
            Name::Taken(why) => Some(why.clone()),
            Name::Unknown | Name::Ours => None,
        };
        let instances = self.elections.iter().map(|it| {
            let (r, hold) = (it.election.record(), it.election.hold());
            InstanceStatus {
                name: it.name.clone(),
                role: it.election.role(),
                master: r.map(|r| r.master.clone()),
                successor: r.and_then(|r| r.successor.clone()),
                epoch: r.map_or(0, |r| r.epoch),
                since_ms: r.map_or(0, |r| r.since_ms),
                reason: r.map_or_else(String::new, |r| r.reason.clone()),
                hold: hold.map(|h| h.2),
                promise_ms: r.and_then(|r| r.terms).map_or(0, |t| ms(t.hold())),
                remaining_ms: hold.map_or(0, |h| ms(h.1.since(now))),
                members: r.map_or_else(Vec::new, |r| r.members.clone()),
                candidates: it.election.candidates(now),
                held_down_ms: it.election.held_down().map_or(0, |at| ms(at.since(now))),
                problem: taken
                    .clone()
                    .or_else(|| it.election.unreadable().map(str::to_owned))
                    .or_else(|| it.election.forgotten())
                    .or_else(|| it.election.estranged().map(estranged))
                    .or_else(|| {
                        self.enforced.error(&it.name).map(|e| kernel_trouble(it.election.role() == Role::Master, e))
                    }),
            }
        });
        let own = NodeStatus {
            name: self.me.clone(),
            address: Some(self.address.to_string()),
            fit: self.elections.iter().map(|it| it.election.own_fitness().0).reduce(|a, b| a && b),
            summary: self
                .elections
                .iter()
                .map(|it| it.summary.as_str())
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
            last_heard_ms: Some(0),
            priority: self.elections.first().map(|it| it.election.own_fitness().1),
            me: true,
        };
        let others = self.peers.iter().map(|(n, a)| {
            let heard = self.elections.iter().filter_map(|it| it.election.heard(n)).max_by_key(|h| h.0);
            NodeStatus {
                name: n.clone(),
                address: Some(a.to_string()),
                fit: heard.map(|h| h.1),
                summary: String::new(),
                last_heard_ms: heard.map(|h| ms(now.since(h.0))),
                priority: heard.map(|h| h.2),
                me: false,
            }
        });
        let nodes = std::iter::once(own).chain(others).collect();
        let status = ClusterStatus {
            instances: instances.collect(),
            nodes,
            etcd: Vec::new(),
            paused: self.elections.iter().find_map(|it| it.election.paused()).map(describe_pause),
            differences: self.unlike.differences().cloned().collect(),
            rejected_datagrams: self.rejected,
            longest_late_ms: ms(self.stalls.longest(Kind::Late)),
            longest_round_ms: ms(self.stalls.longest(Kind::Working)),
        };
        // A reader may be preempted with the lock held. The status then waits for the next round; this thread never
        // waits.
        match self.shared.status.try_locked() {
            Some(mut shared) => {
                *shared = status;
                drop(shared);
                self.shared.status_news.notify_waiters();
            }
            None => self.status_due = true,
        }
    }
}

fn kernel_trouble(master: bool, why: &str) -> String {
    let what = if master {
        "master, but the kernel does not answer for the addresses"
    } else {
        "the kernel does not apply the hold"
    };
    format!("{what}: {why}; the agent retries, and hands over to a fit node if the fault stays")
}
