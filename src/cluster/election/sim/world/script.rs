//! Sequences of faults at random times, each aimed at one rule, that chance alone would rarely produce.

mod records;

use super::super::plan::MS;
use super::node::Leaving;
use super::{Event, World};

/// One fault, or its repair.
pub(super) enum Step {
    /// Nothing passes between the two, in either direction.
    Cut(usize, usize),
    /// Nothing passes from the first to the second.
    CutOne(usize, usize),
    Heal(usize, usize),
    EtcdCut(usize),
    EtcdHeal(usize),
    HealAll,
    Kill(usize),
    PowerOff(usize),
    Start(usize),
    Freeze(usize, u64),
    Stop(usize, Leaving),
    Switch(usize),
    /// Delay of this node's next change of the record.
    Late(usize, u64),
    /// This node's next change of the record goes to two members of etcd: delay of the first copy, and arrival of the
    /// second from the start of the sequence.
    Copies(usize, u64, u64),
    /// This node's reads are lost from now on; none's, without a node.
    Unread(Option<usize>),
    /// An operator pauses or resumes the cluster.
    Pause(bool),
    /// etcd has no leader for this time.
    Leaderless(u64),
    Disk(u64),
    SlowAnswers(u64),
    Forget(usize, usize),
    LoseRecord,
    /// As soon as the second node has seen the first one's key gone, freezes the second for this time and lets the
    /// first return. The last part says how and when the first leaves again.
    Flicker(usize, usize, u64, Gone),
}

/// How a briefly returned successor leaves again.
#[derive(Clone, Copy)]
pub(super) enum Gone {
    Cut(u64),
    Stop(u64),
}

type Steps = Vec<(u64, Step)>;

impl World {
    /// The holder, its successor and a third node, as far as known.
    fn cast(&mut self) -> (usize, usize, usize) {
        let k = self.nodes.len();
        let by_name = |n: &Option<String>| n.as_ref().and_then(|n| self.nodes.iter().position(|m| m.name == *n));
        let r = self.etcd.record.as_ref().map(|(_, r)| r);
        let h = by_name(&r.map(|r| r.master.clone())).unwrap_or(0);
        let s = by_name(&r.and_then(|r| r.successor.clone())).filter(|s| *s != h).unwrap_or((h + 1) % k);
        let others: Vec<usize> = (0..k).filter(|i| *i != h && *i != s).collect();
        // Prefer a node that has not started yet: it is the most interesting.
        let idle = others.iter().copied().find(|i| self.nodes[*i].election.is_none());
        let t = idle.unwrap_or_else(|| *self.r.one(&others));
        (h, s, t)
    }

    pub(super) fn script(&mut self) {
        let (h, s, t) = self.cast();
        let twice = self.plan.twice;
        let rising = self.plan.holds[0] != self.plan.holds[1] && self.unlike.chance(40);
        let steps = match self.r.below(17) {
            _ if twice => self.deleted_twice(h, s, t),
            _ if rising => self.rising_hold(h, s),
            _ if self.copies.chance(10) => self.refused_copy(h, s),
            _ if self.copies.chance(10) => self.copy_of_a_first_record(h),
            _ if self.copies.chance(15) => self.returning_master(h, s, t),
            0 | 1 | 8 | 14 => self.isolation(h, s, t),
            2 => self.stale_epoch(h, s, t),
            3 => self.late_takeover(h, s, t),
            4 => self.inherit(h, s),
            5 => self.successor_leaves(h, s, t),
            6 => self.broken_handover(h, s, t),
            7 => self.passed_over(h, s, t),
            9 | 15 | 16 => self.flicker(h, s, t),
            11..14 => self.lost_record(h, s, t),
            _ => self.operator(h, s, t),
        };
        let last = steps.iter().map(|s| s.0).max().unwrap_or(0);
        for (at, step) in steps {
            self.at(at * MS, Event::Step(step));
        }
        self.at(last * MS, Event::Step(Step::HealAll));
        let d = self.r.between(500, 1500);
        self.at((last + d) * MS, Event::Fault);
    }

    fn ms(&mut self, low: u64, high: u64) -> u64 {
        self.r.between(low, high)
    }

    /// Cuts every node except these two from `h`.
    fn island(&self, h: usize, s: usize, at: u64) -> Steps {
        (0..self.nodes.len()).filter(|i| *i != h && *i != s).map(|i| (at, Step::Cut(h, i))).collect()
    }

    /// Holder and successor hear only each other, and not etcd: the right rests on a successor whose key expires.
    fn isolation(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = self.island(h, s, 0);
        let slow = self.r.chance(40);
        if slow {
            // Shorter than the time-out for an answer.
            v.push(if self.r.chance(40) { (0, Step::Disk(500)) } else { (0, Step::SlowAnswers(650)) });
        }
        let at = self.ms(100, 900);
        v.push((at, Step::EtcdCut(h)));
        let d = self.ms(0, 400);
        v.push(((at + d).saturating_sub(200), Step::EtcdCut(s)));
        let end = self.plan.ttl / MS;
        if self.r.chance(30) {
            let (at, late) = (self.ms(100, end), self.ms(1, 1500));
            v.push((at, Step::Late(t, late)));
        }
        if self.r.chance(25) {
            let at = self.ms(end, end + 500);
            v.push((at, Step::Stop(s, Leaving::Stop)));
        }
        if slow {
            // After both have had their last answer.
            v.push((at + 250, Step::Disk(1)));
            v.push((at + 250, Step::SlowAnswers(0)));
        }
        let back = at + end + self.ms(0, 1800);
        v.push((back, Step::EtcdHeal(s)));
        let d = self.ms(100, 1500);
        v.push((back + d, Step::EtcdHeal(h)));
        v
    }

    /// An old master without etcd returns among nodes that have moved on, to one that it did not know.
    fn stale_epoch(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = self.island(h, s, 0);
        v.push((0, Step::EtcdCut(h)));
        let at = self.ms(100, 400);
        if self.r.chance(50) {
            v.push((at, Step::Cut(h, s)));
        } else {
            let d = self.ms(800, 1500);
            v.push((at, Step::Freeze(h, d)));
        }
        let begun = at + self.plan.holds[1] / MS * 2;
        v.push((begun, Step::Start(t)));
        let admitted = begun + self.ms(400, 900);
        v.push((admitted, Step::Switch(s)));
        let d = self.ms(50, 400);
        v.push((admitted + d, Step::Heal(h, s)));
        let d = self.ms(800, 1500);
        v.push((admitted + d, Step::EtcdHeal(h)));
        v
    }

    /// A takeover request arrives long after its sender has made new promises.
    fn late_takeover(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let hold = self.plan.holds[1] / MS;
        let late = self.ms(300, 2400);
        let mut v = vec![(0, Step::Late(s, late)), (0, Step::Cut(h, s))];
        if self.r.chance(40) {
            v.push((0, Step::EtcdCut(h)));
        }
        let heal = hold + self.ms(20, 500);
        v.push((heal, Step::Heal(h, s)));
        if self.r.chance(30) {
            let (d, away) = (self.ms(0, 300), self.ms(1, 600));
            v.push((heal + d, Step::Kill(s)));
            v.push((heal + d + away, Step::Start(s)));
        }
        if self.r.chance(30) {
            v.push((heal, Step::Cut(h, t)));
        }
        v.push((late + 300, Step::HealAll));
        v
    }

    /// A new process replaces a master that rests on its lease alone, and arms a successor at once.
    fn inherit(&mut self, h: usize, s: usize) -> Steps {
        let hold = self.plan.holds[1] / MS;
        let mut v: Steps = (0..self.nodes.len()).filter(|i| *i != h).map(|i| (0, Step::Cut(h, i))).collect();
        let at = self.ms(hold / 2, hold);
        if self.r.chance(30) {
            v = vec![(at, Step::Stop(h, Leaving::Park))];
        } else {
            let away = self.ms(1, 400);
            v.push((at, Step::Kill(h)));
            v.push((at + away, Step::Start(h)));
        }
        let heal = at + self.ms(1, 400);
        v.push((heal, Step::Heal(h, s)));
        if self.r.chance(50) {
            let (d, late) = (self.ms(0, 200), self.ms(1, 900));
            v.push((at + d, Step::Late(h, late)));
        }
        if self.r.chance(50) {
            let d = self.ms(1, 400);
            v.push((heal + d, Step::Leaderless(600)));
        }
        let cut = heal + self.ms(1, 700);
        v.push((cut, Step::Cut(h, s)));
        if self.r.chance(50) {
            v.push((cut, Step::EtcdCut(h)));
        }
        let d = self.ms(0, 200);
        if self.r.chance(30) {
            v.push((cut + d, Step::Kill(h)));
            v.push((cut + 2 * d, Step::Start(h)));
        }
        v.push((cut + 2 * hold, Step::HealAll));
        v
    }

    /// The holder's agent returns with another hold, and etcd learns of it late or never.
    fn rising_hold(&mut self, h: usize, s: usize) -> Steps {
        let back = self.ms(1, 60);
        let mut v = vec![(0, Step::Kill(h)), (back, Step::Start(h))];
        // By then its `alive` key exists; its hold follows when the inherited right ends.
        let known = back + self.ms(15, 100);
        if self.r.chance(50) {
            v.push((known, Step::EtcdCut(h)));
        } else {
            let late = self.ms(800, 2400);
            v.push((known, Step::Late(h, late)));
        }
        let cut = known + self.ms(400, 900);
        v.push((cut, Step::Cut(h, s)));
        v.push((cut + 2500, Step::HealAll));
        v
    }

    /// The successor leaves while the holder rests on it.
    fn successor_leaves(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = self.island(h, s, 0);
        let ttl = self.plan.ttl / MS;
        v.push((0, Step::EtcdCut(h)));
        // The holder's `alive` key must be gone, so that only the successor's key is in the way.
        let gone = ttl + self.ms(0, 900);
        if self.r.chance(50) {
            // Its key is gone for a moment, and returns before the third node has waited: a node that saw it gone may
            // not have seen it return.
            v.push((ms_before(gone, ttl), Step::EtcdCut(s)));
            v.push((gone, Step::EtcdHeal(s)));
        }
        let d = self.ms(100, 900);
        v.push((gone + d, Step::Stop(s, Leaving::Stop)));
        if self.r.chance(30) {
            let away = self.ms(1, 2000);
            v.push((gone, Step::Freeze(t, away)));
        }
        v.push((gone + d + 1500, Step::EtcdHeal(h)));
        v
    }

    /// A handover with lost messages or dying partners.
    fn broken_handover(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = Vec::new();
        if self.r.chance(30) {
            let late = self.ms(1, 2000);
            v.push((0, Step::Late(h, late)));
        }
        v.push((1, Step::Switch(h)));
        let d = self.ms(0, 12);
        let cut = match self.r.below(6) {
            0 => Step::CutOne(h, s),
            1 => Step::CutOne(s, h),
            2 => Step::Cut(h, s),
            3 => Step::Kill(h),
            4 => Step::Freeze(s, 1500),
            _ => Step::Freeze(h, 1500),
        };
        v.push((d, cut));
        let at = self.ms(1, 800);
        if self.r.chance(50) {
            v.push((at, Step::EtcdCut(h)));
        }
        if self.r.chance(50) {
            v.push((at, Step::EtcdCut(s)));
        }
        if self.r.chance(40) {
            v.extend(self.island(h, s, 0));
        } else {
            v.push((at, Step::Cut(s, t)));
        }
        v.push((at, Step::Start(h)));
        let d = self.ms(500, 4000);
        v.push((at + d, Step::HealAll));
        v
    }

    /// The successor's key is gone for so long that another node takes over slowly, late, while the successor returns.
    fn passed_over(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = self.island(h, s, 0);
        let ttl = self.plan.ttl / MS;
        v.push((0, Step::EtcdCut(h)));
        v.push((0, Step::EtcdCut(s)));
        let wait = ttl + self.plan.holds[1] / MS;
        let late = self.ms(1, 1200);
        v.push((500, Step::Late(t, late)));
        let back = wait + self.ms(0, 900);
        v.push((back, Step::EtcdHeal(s)));
        if self.r.chance(30) {
            v.push((back + 100, Step::PowerOff(t)));
        }
        v.push((back + late + 400, Step::EtcdHeal(h)));
        v.push((back + late + 1000, Step::Start(t)));
        v
    }

    /// The successor's key is gone, returns for its shortest life, and is gone again, while the slow contender does not
    /// look.
    fn flicker(&mut self, h: usize, s: usize, t: usize) -> Steps {
        let mut v = self.island(h, s, 0);
        let ttl = self.plan.ttl / MS;
        // The others would take over while this node is frozen.
        for i in (0..self.nodes.len()).filter(|i| ![h, s, t].contains(i)) {
            v.push((0, Step::EtcdCut(i)));
        }
        v.push((0, Step::EtcdCut(h)));
        v.push((0, Step::EtcdCut(s)));
        let (away, gone) = if self.r.chance(50) {
            let d = self.ms(20, 100);
            (self.ms(ttl - 100, ttl + 600), Gone::Cut(d))
        } else {
            let d = self.ms(20, 300);
            (self.ms(d + 10, d + 400), Gone::Stop(d))
        };
        v.push((ttl - 100, Step::Flicker(s, t, away, gone)));
        v.push((2 * ttl + 1500, Step::EtcdHeal(h)));
        v
    }

    /// Waits for the right moment.
    fn try_flicker(&mut self, s: usize, t: usize, away: u64, gone: Gone) {
        let seen = self.nodes[t].election.as_ref().is_some_and(|e| e.etcd.gone.is_some());
        if !seen {
            self.at(10 * MS, Event::Step(Step::Flicker(s, t, away, gone)));
            return;
        }
        self.freeze(t, away * MS);
        self.net.ecut.remove(&s);
        let (d, step) = match gone {
            Gone::Cut(d) => (d, Step::EtcdCut(s)),
            Gone::Stop(d) => (d, Step::Stop(s, Leaving::Stop)),
        };
        // Its keeper checks again within a pause.
        self.at((d + 250) * MS, Event::Step(step));
    }

    pub(super) fn step(&mut self, s: &Step) {
        if self.t >= self.plan.calm {
            return;
        }
        match *s {
            Step::Cut(a, b) => self.net.cut.extend([(a, b), (b, a)]),
            Step::CutOne(a, b) => drop(self.net.cut.insert((a, b))),
            Step::Heal(a, b) => {
                self.net.cut.remove(&(a, b));
                self.net.cut.remove(&(b, a));
            }
            Step::EtcdCut(a) => drop(self.net.ecut.insert(a)),
            Step::EtcdHeal(a) => drop(self.net.ecut.remove(&a)),
            Step::HealAll => {
                self.net.cut.clear();
                self.net.ecut.clear();
                (self.net.disk, self.net.slow_answers) = (MS, 0);
            }
            Step::Kill(a) => self.kill(a),
            Step::PowerOff(a) => self.power_off(a),
            Step::Start(a) => self.start(a),
            Step::Freeze(a, d) => self.freeze(a, d * MS),
            Step::Stop(a, how) => self.stop(a, how),
            Step::Switch(a) => self.switchover(a, None),
            Step::Late(a, d) => self.net.late_commit = Some((a, d * MS)),
            Step::Unread(a) => self.net.unread = a,
            Step::Copies(a, first, second) => self.net.two_copies = Some((a, first * MS, self.t + second * MS)),
            Step::Pause(on) => {
                self.etcd.pause(on.then(|| "by an operator".to_owned()));
                self.hint_all();
            }
            Step::Leaderless(d) => self.leader_change(d * MS),
            Step::Disk(d) => self.net.disk = d * MS,
            Step::SlowAnswers(d) => self.net.slow_answers = d * MS,
            Step::Flicker(s, t, away, gone) => self.try_flicker(s, t, away, gone),
            Step::Forget(by, whom) => {
                if self.up(by) {
                    let name = self.nodes[whom].name.to_owned();
                    self.with(by, |e, now| e.forget(name, now));
                }
            }
            Step::LoseRecord => self.lose_record(),
        }
    }
}

const fn ms_before(at: u64, by: u64) -> u64 {
    at.saturating_sub(by)
}
