//! Sequences about the whole record: deleted, written twice, or changed by an operator.

use super::super::node::{Leaving, Node};
use super::super::{MS, World};
use super::{Step, Steps};
use crate::cluster::election::Election;

/// Least time between two deletions of which a node may have missed the record in between. It sees both as one if its
/// reads are no further apart than four seconds. The fifth second covers a late answer and the clocks.
const TWICE: u64 = 5000 * MS;

impl World {
    /// A takeover goes to two members of etcd. One refuses it because of a pause, and the pause ends before the other
    /// copy arrives.
    pub(super) fn refused_copy(&mut self, h: usize, s: usize) -> Steps {
        // The promise to the old master has run out, and the takeover is in flight.
        let asked = (self.plan.holds[1] as f64 * (1.0 + self.plan.drift)) as u64 / MS;
        let first = self.ms(250, 600);
        let paused = asked + self.ms(10, first);
        let heal = paused + self.ms(0, 300);
        let resumed = asked + first + self.ms(50, 500);
        let second = resumed + self.ms(1, 1200);
        vec![
            (0, Step::Cut(h, s)),
            (0, Step::Copies(s, first, second)),
            (paused, Step::Pause(true)),
            (heal, Step::Heal(h, s)),
            (resumed, Step::Pause(false)),
            (second + 300, Step::HealAll),
        ]
    }

    /// A master rewrites its deleted record, and a copy of that write arrives when another master's record is deleted.
    pub(super) fn copy_of_a_first_record(&mut self, h: usize) -> Steps {
        let again = self.ms(2700, 3200);
        let second = again + self.ms(1, 400);
        vec![
            (0, Step::Copies(h, 1, second)),
            (1, Step::LoseRecord),
            // By then the record has been read, even without a hint.
            (self.ms(2100, 2400), Step::Switch(h)),
            (again, Step::LoseRecord),
            (second + 1000, Step::HealAll),
        ]
    }

    /// A master stalls after its record was deleted, until another node is elected. Then it returns to a successor that
    /// has read nothing since. The other node started after the deletion.
    pub(super) fn returning_master(&mut self, h: usize, s: usize, t: usize) -> Steps {
        // The master's `alive` key has expired by then.
        let lost = self.plan.ttl / MS + self.ms(600, 1500);
        let hold = self.plan.holds[1] / MS;
        let start = lost + self.ms(2, 2 * hold);
        // Long enough for a first election, or for one that waits because of a deleted record.
        let patience = ((4000 + self.plan.ttl / MS) as f64 * (1.0 + 2.0 * self.plan.drift)) as u64 + 2 * hold;
        let away = self.ms(2 * hold, 2 * hold + 1500) + if self.r.chance(50) { 0 } else { patience };
        vec![
            (0, Step::EtcdCut(h)),
            // The successor believes that the cluster is paused, so it does not contend for the record either.
            (0, Step::Pause(true)),
            (lost - 1, Step::Unread(Some(s))),
            (lost, Step::Pause(false)),
            (lost, Step::LoseRecord),
            (lost + 1, Step::Cut(s, t)),
            (lost + 1, Step::Freeze(h, away)),
            (lost + 1, Step::Kill(t)),
            (start, Step::Start(t)),
            (lost + away + 1000, Step::HealAll),
        ]
    }

    /// A record is deleted, and the next one as well, while a node cannot read. That node sees no record before and
    /// after; the second master then holds on a successor that cannot read either.
    pub(super) fn deleted_twice(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let ttl = self.plan.ttl / MS;
        // Without a hint, nodes read that the record is missing after up to two seconds. The pause keeps all from
        // contending until then, and the node that cannot read until the end.
        let read = self.ms(2100, 2300);
        let elected = read + (self.plan.patience() as f64 * (1.0 + self.plan.drift)) as u64 / MS;
        let cut = elected + self.ms(300, 1200);
        let lost = cut + ttl + self.ms(600, 1200);
        let (d, back) = (self.ms(0, 800), self.ms(5, 300));
        let others = (0..self.nodes.len()).filter(|i| ![s, t].contains(i));
        let mut v: Steps = others.map(|i| (0, Step::PowerOff(i))).collect();
        v.extend([
            (0, Step::Pause(true)),
            (1, Step::LoseRecord),
            (read, Step::Unread(Some(t))),
            (read, Step::Cut(s, t)),
            (read + 1, Step::Pause(false)),
            (read + 2, Step::Start(h)),
            (cut, Step::EtcdCut(s)),
            (lost - d, Step::EtcdCut(h)),
            (lost, Step::LoseRecord),
            (lost + back, Step::Unread(None)),
            (lost + back + 2500, Step::HealAll),
        ]);
        v
    }

    pub(super) fn operator(&mut self, h: usize, s: usize, t: usize) -> Steps {
        match self.r.below(3) {
            0 => {
                // In normal operation: an operator resets an instance while its agents run.
                vec![(0, Step::LoseRecord), (3000, Step::HealAll)]
            }
            1 => {
                // A member is forgotten and returns at that moment.
                let d = self.ms(3000, 4500);
                vec![
                    (0, Step::PowerOff(t)),
                    (d, Step::Forget(h, t)),
                    (d + 3, Step::Start(t)),
                    (d + 1000, Step::HealAll),
                ]
            }
            _ => {
                let (a, b) = (self.ms(1, 20), self.ms(1, 800));
                vec![
                    (0, Step::Switch(h)),
                    (a, Step::Switch(s)),
                    (b, Step::Switch(s)),
                    (b + 5, Step::Stop(s, Leaving::Stop)),
                ]
            }
        }
    }

    /// The record is deleted while its master cannot see that, or while no master exists.
    pub(super) fn lost_record(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let ttl = self.plan.ttl / MS;
        let mut v = Vec::new();
        let hold = self.plan.holds[1] / MS;
        let lost = match self.r.below(5) {
            // Between the commit of a handover and its end, no `alive` key exists.
            0 => {
                let (d, lost) = (self.ms(0, 12), self.ms(1, 20));
                v.push((0, Step::Switch(h)));
                match self.r.below(6) {
                    0 => v.push((d, Step::Freeze(h, 1500))),
                    1 => v.push((d, Step::Freeze(s, 1500))),
                    2 => v.push((d, Step::EtcdCut(h))),
                    3 => v.push((d, Step::EtcdCut(s))),
                    4 => v.push((d, Step::Kill(s))),
                    _ => {}
                }
                lost
            }
            // The master holds on its successor's acks, and its `alive` key has expired.
            1 | 2 => {
                if self.r.chance(50) {
                    v.extend(self.island(h, s, 0));
                }
                v.push((0, Step::EtcdCut(h)));
                let lost = ttl + self.ms(600, 1500);
                if self.r.chance(60) {
                    let d = self.ms(0, 800);
                    v.push((lost.saturating_sub(d), Step::EtcdCut(s)));
                }
                if self.r.chance(40) {
                    let (d, away) = (self.ms(0, 1000), self.ms(1, 600));
                    v.push((lost + 500 - d, Step::Kill(t)));
                    v.push((lost + 500 - d + away, Step::Start(t)));
                }
                lost
            }
            // A master of an older epoch returns to nodes that do not remember a newer one.
            3 => {
                let lost = 2 * hold + self.ms(200, 900);
                v.push((0, Step::EtcdCut(h)));
                let away = lost + ttl + self.ms(500, 1200);
                v.push((0, Step::Freeze(h, away)));
                for i in (0..self.nodes.len()).filter(|i| *i != h) {
                    // The newer epoch's last `alive` key is gone when they start.
                    let (d, back) = (self.ms(0, 300), self.ms(300, 900));
                    v.push((lost + d, Step::Kill(i)));
                    v.push((lost + ttl + back, Step::Start(i)));
                }
                v.push((away + 3000, Step::EtcdHeal(h)));
                lost
            }
            // No node holds, and no process remembers.
            _ => {
                let lost = self.ms(0, 1000);
                for i in 0..self.nodes.len() {
                    let (d, away) = (self.ms(0, 500), self.ms(600, ttl + 1500));
                    v.push((d, if self.r.chance(50) { Step::Kill(i) } else { Step::PowerOff(i) }));
                    v.push((d + away, Step::Start(i)));
                }
                lost + if self.r.chance(50) { ttl } else { 0 }
            }
        };
        if self.r.chance(30) {
            let (who, late) = (*self.r.one(&[h, s, t]), self.ms(1, 2000));
            v.push((0, Step::Late(who, late)));
        }
        v.push((lost, Step::LoseRecord));
        let back = v.iter().map(|s| s.0).max().unwrap_or(0) + self.ms(500, 3000);
        v.push((back, Step::HealAll));
        for i in 0..self.nodes.len() {
            v.push((back, Step::Start(i)));
        }
        v
    }

    /// Deletes the record, if assumption 7 of `docs/election-proof.md` permits it.
    pub(in super::super) fn lose_record(&mut self) {
        let Some((_, r)) = &self.etcd.record else { return };
        // Every node is a member, so the master holds on nobody's word without this node's. Of the second deletion of
        // `deleted_twice` a node may have been a member before: nobody stays cut off from etcd for long after it.
        let apart = self.plan.twice && self.watched.lost_at.is_some_and(|at| self.t > at + TWICE);
        let knows = |n: &Node| {
            let was_here = |e: &Election| {
                e.etcd.record.is_some() || e.lost.record.is_some() || e.promises.top_epoch > 0 || e.lost.unseen
            };
            r.members.iter().any(|m| m == n.name)
                || (apart && self.etcd.has_ticket(n.name) && n.election.as_deref().is_none_or(was_here))
        };
        if self.nodes.iter().all(knows) {
            self.watched.lost_at = Some(self.t);
            self.watched.deleted = true;
            self.plan.deleted = true;
            self.plan.settle();
            // A process that has read nothing yet is in the case of one that starts after the deletion.
            let read = self.nodes.iter().all(|n| n.election.as_deref().is_none_or(|e| e.etcd.view.is_some()));
            if self.whole.chance(30) && read {
                self.etcd.lose_all();
            } else {
                self.etcd.lose_record();
            }
            self.hint_all();
        }
    }
}
