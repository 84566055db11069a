//! The observer: sees each host's kernel in the world's time, and etcd's record.

use super::super::plan::{MS, Mode};
use super::World;
use crate::cluster::election::types::{Fault, HoldKind};

/// A switchover requested longer ago has been carried out, refused or withdrawn (after 5 s), with the latest of its
/// copies.
const WISH: u64 = 10_000 * MS;

#[derive(Default)]
pub(super) struct Watched {
    pub(super) bad: Option<String>,
    pub(super) masters: u64,
    pub(super) handovers: u64,
    pub(super) restarts: u64,
    /// Since when no host answers.
    dark: Option<u64>,
    /// The last instant after the faults without a holder, or with a new one.
    pub(super) last_trouble: u64,
    /// The newest epoch of a takeover, and its node.
    top: Option<(u64, usize)>,
    /// Epoch, master and members of the last record.
    record: Option<(u64, String, Vec<String>)>,
    /// When an operator last requested a switchover or the stop of an agent.
    pub(super) asked: Option<u64>,
    /// An operator deleted the record, and no new one exists yet.
    pub(super) deleted: bool,
    /// When an operator last deleted it.
    pub(super) lost_at: Option<u64>,
}

impl World {
    /// Fails only with all rules in force. A missing rule must show by a second holder, not by a lesser fault.
    fn fail_softly(&mut self, why: &str) {
        if self.fault.is_none() {
            self.fail(why);
        }
    }

    fn fail(&mut self, why: &str) {
        if self.watched.bad.is_some() {
            return;
        }
        let t = self.t;
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|n| {
                let state = match (&n.election, n.frozen) {
                    (None, _) => "down".to_owned(),
                    (Some(_), true) => "frozen".to_owned(),
                    (Some(e), _) => {
                        format!(
                            "{:?}, hold {:?}, may become {:?}",
                            e.role(),
                            e.hold(),
                            e.requests.maybe.as_ref().map(|r| r.epoch)
                        )
                    }
                };
                format!(
                    "  {} kernel {} ms of epoch {}, {state}, cut from etcd: {}",
                    n.name,
                    n.kernel.saturating_sub(t) / MS,
                    n.kernel_epoch,
                    self.net.ecut.iter().any(|i| self.nodes[*i].name == n.name)
                )
            })
            .collect();
        self.watched.bad = Some(format!(
            "{why}, at {}.{:06} ms of {:?}\n{}\n  cut: {:?}, etcd down: {}\n  etcd: {:?} alive {:?}",
            t / MS,
            t % MS,
            self.plan,
            nodes.join("\n"),
            self.net.cut,
            self.etcd.down,
            self.etcd.record,
            self.etcd.alive
        ));
    }

    fn must_be_still(&self) -> bool {
        let healthy = matches!(self.plan.mode, Mode::Etcd | Mode::Agent) && self.t >= self.plan.first_fault;
        healthy || self.t > self.plan.steady
    }

    fn trouble(&mut self) {
        if self.t > self.plan.calm {
            self.watched.last_trouble = self.t;
        }
    }

    /// Sets how long a host's kernel answers. Only this call can prolong it, so a check of the other hosts here finds
    /// every instant with two.
    pub(super) fn set_kernel(&mut self, node: usize, hold: Option<(u64, u64)>) {
        let t = self.t;
        let last = self.nodes.iter().map(|n| n.kernel).max().unwrap_or(0);
        if last <= t {
            self.watched.dark.get_or_insert(last);
        }
        let (epoch, mut until) = hold.unwrap_or_default();
        let n = &mut self.nodes[node];
        if self.fault == Some(Fault::KernelLate) && hold.is_some() {
            until = until.max(n.kernel);
        }
        let longer = until > n.kernel || epoch != n.kernel_epoch;
        (n.kernel, n.kernel_epoch) = (until, epoch);
        if until > t && longer {
            if self.nodes.iter().enumerate().any(|(i, n)| i != node && n.kernel > t) {
                self.fail("two hosts answer");
            }
            self.check_rights();
        }
        if self.nodes.iter().any(|n| n.kernel > t) {
            if let Some(since) = self.watched.dark.take() {
                self.trouble();
                if self.must_be_still() {
                    self.fail_softly(&format!("no host answered since {} ms", since / MS));
                }
            }
        } else {
            self.watched.dark.get_or_insert(t);
        }
    }

    /// Every answering host must match etcd's record. A change of the record that leaves another host answering is a
    /// second holder in waiting: the new master may learn of it at once.
    fn check_rights(&mut self) {
        let Some((_, r)) = &self.etcd.record else { return };
        let wrong = self.nodes.iter().find(|n| {
            let own = n.kernel_epoch == r.epoch && r.master == n.name;
            let leaving = n.kernel_epoch + 1 == r.epoch && r.handover.as_deref() == Some(n.name);
            n.kernel > self.t && !own && !leaving
        });
        if let Some(n) = wrong {
            let why = format!("{} answers under epoch {}, and by the record it must not", n.name, n.kernel_epoch);
            self.fail(&why);
        }
    }

    /// Checks the record after a transaction changed it.
    pub(super) fn check_record(&mut self) {
        let Some((_, record)) = &self.etcd.record else { return };
        let (epoch, master, members) = (record.epoch, record.master.clone(), record.members.clone());
        if let Some((before, old, were)) = &self.watched.record {
            let moved = *old != master;
            let dropped = were.iter().find(|m| !members.contains(m) && self.etcd.has_key(m)).cloned();
            // Even if the record was deleted meanwhile: only the same master writes the same one again.
            if epoch < *before || (moved && epoch == *before) {
                self.fail("the epoch did not rise");
            }
            if moved && self.etcd.paused.is_some() && self.watched.asked.is_none_or(|at| at + WISH < self.t) {
                self.fail("the master changed in a pause, and nobody had asked for it");
            }
            if !self.watched.deleted {
                if let Some(m) = dropped {
                    self.fail(&format!("{m} was forgotten, and its key is there"));
                }
                if moved {
                    self.trouble();
                    if self.must_be_still() {
                        self.fail_softly("the master changed, and nothing called for it");
                    }
                }
            }
        }
        self.watched.record = Some((epoch, master, members));
        self.watched.deleted = false;
        self.check_rights();
    }

    /// An agent must take the addresses.
    pub(super) fn check_take(&mut self, node: usize, epoch: u64) {
        self.watched.masters += 1;
        let n = &self.nodes[node];
        if n.kernel <= self.t || n.kernel_epoch != epoch {
            self.fail("addresses are taken without a right");
        }
        if self.watched.top.is_some_and(|(e, by)| epoch < e || (epoch == e && by != node)) {
            self.fail("addresses are taken under an old epoch");
        }
        self.watched.top = Some((epoch, node));
    }

    /// At the end of a run, one node must hold and another must be ready to follow.
    pub(super) fn check_end(&mut self) {
        let t = self.t;
        let Some(holder) = self.nodes.iter().position(|n| n.kernel > t) else {
            return self.fail_softly("no host answers at the end");
        };
        let up = self.nodes.iter().filter(|n| n.election.is_some()).count();
        if up < 2 {
            return;
        }
        let successor = self.etcd.record.as_ref().and_then(|(_, r)| r.successor.clone());
        let ready = successor.is_some_and(|s| self.nodes.iter().any(|n| n.name == s && n.election.is_some()));
        let kind = self.nodes[holder].election.as_ref().and_then(|e| e.hold()).map(|h| h.2);
        if !ready || kind != Some(HoldKind::Paired) {
            self.fail_softly("no successor is ready at the end");
        }
    }
}
