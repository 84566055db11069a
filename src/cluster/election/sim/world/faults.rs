//! Faults, and their end.

use super::super::plan::{MS, Mode};
use super::node::Leaving;
use super::{Event, World};

impl World {
    pub(super) fn next_fault(&mut self) {
        if self.t >= self.plan.calm {
            return;
        }
        match self.plan.mode {
            Mode::Chaos => self.chaos(),
            Mode::Script => self.script(),
            Mode::Etcd => self.etcd_fault(),
            Mode::Agent => self.agent_fault(),
        }
    }

    fn fault_in(&mut self, low: u64, high: u64) {
        let d = self.r.between(low, high) * MS;
        self.at(d, Event::Fault);
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.r.below(self.nodes.len() as u64) as usize
    }

    /// etcd has no leader for a while; the next one restarts all leases.
    pub(super) fn leader_change(&mut self, time: u64) {
        self.etcd.down = true;
        self.outage += 1;
        self.at(time, Event::Elected(self.outage));
    }

    fn chaos(&mut self) {
        self.fault_in(50, 1000);
        let x = self.any_node();
        let y = (x + 1 + self.r.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        // Short, about a hold, or long.
        let high = self.r.pick(&[50, 400, 1000, 4000]);
        let long = self.r.between(1, high) * MS;
        match self.r.below(100) {
            0..9 => {
                if self.nodes[x].election.is_some() {
                    self.kill(x);
                    self.at(long, Event::Start { node: x });
                }
            }
            9..13 => {
                self.power_off(x);
                self.at(long + 500 * MS, Event::Start { node: x });
            }
            13..25 => self.freeze(x, long),
            25..35 => {
                self.net.cut.insert((x, y));
                if self.r.chance(60) {
                    self.net.cut.insert((y, x));
                }
            }
            35..45 => drop(self.net.ecut.insert(x)),
            45..49 => self.leader_change(long),
            49..51 => self.leader_change(long * 2),
            51..56 => {
                let how = *self.r.one(&[Leaving::Stop, Leaving::Stop, Leaving::Park]);
                self.stop(x, how);
            }
            56..61 => self.net.loss = self.r.pick(&[0, 5, 30]),
            61..64 => self.net.disk = self.r.pick(&[1, 1, 200, 600]) * MS,
            64..69 => self.net.rpc_late = self.r.pick(&[0, 15, 40]),
            69..75 => {
                if self.up(x) {
                    let fit = self.r.chance(50);
                    self.set_fit(x, fit);
                }
            }
            75..81 => {
                if self.up(x) {
                    let to = self.r.chance(50).then(|| self.nodes[y].name.to_owned());
                    self.switchover(x, to);
                }
            }
            81..83 => {
                let value = self.r.chance(40).then(|| "by an operator".to_owned());
                self.etcd.pause(value);
                self.hint_all();
            }
            83..85 => {
                if self.up(x) {
                    let name = self.nodes[y].name.to_owned();
                    self.with(x, |e, now| e.forget(name, now));
                }
            }
            85..87 => self.lose_record(),
            87..89 => self.net.unread = self.r.chance(60).then_some(x),
            _ => {
                if self.r.chance(60) {
                    self.net.cut.clear();
                }
                if self.r.chance(60) {
                    self.net.ecut.clear();
                }
            }
        }
    }

    fn set_fit(&mut self, node: usize, fit: bool) {
        self.nodes[node].fit = fit;
        self.with(node, |e, now| e.set_fitness(fit, 100 + node as u16, now));
    }

    fn etcd_fault(&mut self) {
        self.fault_in(100, 2500);
        let x = self.any_node();
        match self.r.below(12) {
            0 | 1 => {
                let d = self.r.between(300, 8000) * MS;
                self.leader_change(d);
            }
            2 => {
                let d = self.r.between(1, 1500) * MS;
                self.leader_change(d);
            }
            3 => self.net.ecut.extend(0..self.nodes.len()),
            4 | 5 => drop(self.net.ecut.insert(x)),
            6 => self.net.disk = self.r.pick(&[50, 200, 600]) * MS,
            7 => self.net.rpc_loss = self.r.pick(&[2, 20, 50]),
            8 => self.net.rpc_late = self.r.pick(&[10, 40]),
            9 => (self.net.disk, self.net.rpc_loss, self.net.rpc_late) = (MS, 0, 0),
            _ => self.net.ecut.clear(),
        }
    }

    /// A process is away for less than its hold lasts: a part of a hold, or the lease after a park.
    fn agent_fault(&mut self) {
        self.fault_in(3000, 4000);
        let x = self.any_node();
        // Half of an ack's lifetime, less the heartbeat that its age may be.
        let most = (self.plan.holds[0] / 2 - self.plan.heartbeat) / MS;
        let d = self.r.between(1, most) * MS;
        match self.r.below(4) {
            0 => self.freeze(x, d),
            1 => self.stop(x, Leaving::Park),
            _ => {
                self.kill(x);
                self.at(d, Event::Start { node: x });
            }
        }
    }

    /// The faults end: everything recovers, except perhaps one host.
    pub(super) fn calm(&mut self) {
        self.net.heal();
        if self.etcd.record.is_none() {
            // A node that could not read for a while waits as if a record had been deleted meanwhile.
            self.plan.deleted = true;
            self.plan.settle();
        }
        self.outage += 1;
        if self.etcd.down {
            self.etcd.elected(self.t);
        }
        if self.etcd.paused.is_some() {
            self.etcd.pause(None);
        }
        if self.plan.dead {
            let holder = self.nodes.iter().position(|n| n.kernel > self.t);
            let any = self.any_node();
            let x = holder.filter(|_| self.r.chance(60)).unwrap_or(any);
            self.power_off(x);
            self.nodes[x].dead = true;
        }
        for i in 0..self.nodes.len() {
            if self.nodes[i].leaving != Leaving::No {
                self.kill(i);
            }
            let boot = self.nodes[i].boot;
            self.resume(i, boot);
            if self.nodes[i].election.is_some() {
                self.set_fit(i, true);
            } else {
                self.nodes[i].fit = true;
                let d = self.r.below(100) * MS;
                self.at(d, Event::Start { node: i });
            }
        }
        self.hint_all();
    }
}
