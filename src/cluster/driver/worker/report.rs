//! The picture that the agent and people see.

use super::{STATUS_PAUSE, Worker};
use crate::cluster::driver::try_lock;
use crate::cluster::lease::Name;
use crate::cluster::record::describe_pause;
use crate::cluster::status::{ClusterStatus, InstanceStatus, NodeStatus};
use crate::time::Time;
use std::time::Duration;

impl Worker {
    pub(super) fn publish_status(&mut self, now: Time) {
        if now < self.status_at {
            self.status_due = true;
            return;
        }
        (self.status_at, self.status_due) = (now + STATUS_PAUSE, false);
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let taken = match &*self.p.name.borrow() {
            Name::Taken(why) => Some(why.clone()),
            Name::Unknown | Name::Ours => None,
        };
        let instances = self.all.iter().map(|o| {
            let (r, hold) = (o.election.record(), o.election.hold());
            InstanceStatus {
                name: o.name.clone(),
                role: o.election.role(),
                master: r.map(|r| r.master.clone()),
                successor: r.and_then(|r| r.successor.clone()),
                epoch: r.map_or(0, |r| r.epoch),
                since_ms: r.map_or(0, |r| r.since_ms),
                reason: r.map_or_else(String::new, |r| r.reason.clone()),
                hold: hold.map(|h| h.2),
                remaining_ms: hold.map_or(0, |h| ms(h.1.since(now))),
                members: r.map_or_else(Vec::new, |r| r.members.clone()),
                candidates: o.election.candidates(now),
                held_down_ms: o.election.held_down().map_or(0, |at| ms(at.since(now))),
                problem: taken
                    .clone()
                    .or_else(|| o.election.unreadable().map(str::to_owned))
                    .or_else(|| self.p.kept.error(&o.name).map(str::to_owned)),
            }
        });
        let own = NodeStatus {
            name: self.me.clone(),
            address: Some(self.p.socket.to_string()),
            fit: self.all.iter().map(|o| o.election.own_fitness().0).reduce(|a, b| a && b),
            summary: self.all.iter().map(|o| o.summary.as_str()).filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; "),
            last_heard_ms: Some(0),
            priority: self.all.first().map(|o| o.election.own_fitness().1),
            me: true,
        };
        let others = self.peers.iter().map(|(n, a)| {
            let heard = self.all.iter().filter_map(|o| o.election.heard(n)).max_by_key(|h| h.0);
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
            paused: self.all.iter().find_map(|o| o.election.paused()).map(describe_pause),
            rejected_datagrams: self.rejected,
        };
        // Somebody may read it, and be put aside meanwhile: then it waits for the next time, and this thread for nobody.
        match try_lock(&self.shared.status) {
            Some(mut shared) => *shared = status,
            None => self.status_due = true,
        }
    }
}
