//! Makes faults happen, and ends them.

use super::field::{Field, Order};
use super::plan::{Fault, Member, Step, Who};
use crate::etcd::Etcd;
use crate::proc::Proc;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// The faults of one round, with the hosts that they hit.
pub(crate) struct Strike<'a> {
    field: &'a mut Field,
    order: &'a Order,
    leader: usize,
    /// Remove the kernel lease with each agent that is killed or frozen: the witness must then see two hosts.
    without_lease: bool,
    /// The command of a switchover, which runs while the round goes on.
    pub(crate) switchover: Option<Proc>,
    /// Faults that did not go as planned.
    pub(crate) notes: Vec<String>,
}

/// How long an agent may take to stop after the end of its fault.
const STOPPED: Duration = Duration::from_secs(5);

impl<'a> Strike<'a> {
    pub(crate) fn new(field: &'a mut Field, order: &'a Order, without_lease: bool) -> Result<Self> {
        let leader = field.etcd.leader(&field.lan)?;
        Ok(Self { field, order, leader, without_lease, switchover: None, notes: Vec::new() })
    }

    /// The node, and the index of its agent.
    pub(crate) fn place(&self, who: Who) -> usize {
        match who {
            Who::Master => self.order.master,
            Who::Successor => self.order.successor,
            Who::Third => self.order.third.unwrap_or(self.order.successor),
        }
    }

    fn node(&self, who: Who) -> String {
        self.field.agents[self.place(who)].node.clone()
    }

    const fn member(&self, m: Member) -> usize {
        match m {
            Member::Leader => self.leader,
            Member::Follower => (self.leader + 1) % 3,
        }
    }

    /// The hosts that a fault hits, for the report.
    pub(crate) fn in_words(&self, step: &Step) -> String {
        let hit = match (step.fault, step.fault.hits()) {
            (Fault::KillEtcd(m) | Fault::FreezeEtcd(m), _) => Etcd::host(self.member(m)).to_owned(),
            (_, Some((w, Some(other)))) => format!("{}, {}", self.node(w), self.node(other)),
            (_, Some((w, None))) => self.node(w),
            (_, None) => String::new(),
        };
        format!("{step} ({hit})")
    }

    /// Carries the steps out, each at its time. Returns after the end of the last one.
    pub(crate) fn carry_out(&mut self, steps: &[Step]) -> Result<()> {
        let mut moments: Vec<(Duration, usize, bool)> = Vec::new();
        for (i, s) in steps.iter().enumerate() {
            moments.push((s.at, i, true));
            moments.push((s.at + s.lasts, i, false));
        }
        moments.sort();
        let start = Instant::now();
        for (at, i, begins) in moments {
            // A moment of the plan, not a wait for an event.
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            let what = if begins { self.begin(i, steps[i].fault) } else { self.end(i, steps[i].fault) };
            what.with_context(|| format!("{} of {}", if begins { "the start" } else { "the end" }, steps[i]))?;
        }
        Ok(())
    }

    fn begin(&mut self, i: usize, fault: Fault) -> Result<()> {
        let (there, back) = (format!("f{i}"), format!("f{i}back"));
        let members: Vec<&str> = (0..3).map(Etcd::host).collect();
        match fault {
            Fault::Kill(w) => {
                let place = self.place(w);
                self.field.agents[place].proc.kill();
                self.take_lease_away(place)
            }
            Fault::Stop(w) | Fault::Restart(w) => {
                let place = self.place(w);
                let how = if matches!(fault, Fault::Stop(_)) { Signal::SIGTERM } else { Signal::SIGUSR2 };
                signal(&mut self.field.agents[place].proc, how)
            }
            Fault::Freeze(w) => {
                let place = self.place(w);
                signal(&mut self.field.agents[place].proc, Signal::SIGSTOP)?;
                self.take_lease_away(place)
            }
            Fault::Cut(w) => self.field.lan.cut(&self.node(w)),
            Fault::Deaf(w) => self.field.lan.lose(&there, &[], &[&self.node(w)], 100),
            Fault::Mute(w) => self.field.lan.lose(&there, &[&self.node(w)], &[], 100),
            Fault::Lossy(a, b, percent) => self.field.lan.lose(&there, &[&self.node(a)], &[&self.node(b)], percent),
            Fault::Apart(a, b) => {
                let (a, b) = (self.node(a), self.node(b));
                self.field.lan.lose(&there, &[&a], &[&b], 100)?;
                self.field.lan.lose(&back, &[&b], &[&a], 100)
            }
            Fault::NoEtcd(w) => {
                let node = self.node(w);
                self.field.lan.lose(&there, &[&node], &members, 100)?;
                self.field.lan.lose(&back, &members, &[&node], 100)
            }
            Fault::KillEtcd(m) => {
                let member = self.member(m);
                self.field.etcd.kill(member);
                Ok(())
            }
            Fault::FreezeEtcd(m) => {
                let member = self.member(m);
                signal(&mut self.field.etcd.members[member], Signal::SIGSTOP)
            }
            Fault::Switchover => {
                self.switchover = Some(self.field.agents[self.order.master].start_command(&["switchover", "--yes"])?);
                Ok(())
            }
        }
    }

    fn end(&mut self, i: usize, fault: Fault) -> Result<()> {
        let (there, back) = (format!("f{i}"), format!("f{i}back"));
        match fault {
            Fault::Kill(w) => {
                let place = self.place(w);
                self.field.agents[place].start_again()
            }
            Fault::Stop(w) | Fault::Restart(w) => {
                let place = self.place(w);
                let agent = &mut self.field.agents[place];
                // The agent hands over or waits for its lease in its own time. If another fault keeps it from ending,
                // it is killed.
                if !agent.proc.stop(STOPPED)? {
                    self.notes.push(format!("the agent on {} did not stop within {STOPPED:?}", agent.node));
                }
                agent.start_again()
            }
            Fault::Freeze(w) => {
                let place = self.place(w);
                signal(&mut self.field.agents[place].proc, Signal::SIGCONT)
            }
            Fault::Cut(w) => self.field.lan.heal(&self.node(w)),
            Fault::Deaf(_) | Fault::Mute(_) | Fault::Lossy(..) => self.field.lan.pass(&there),
            Fault::Apart(..) | Fault::NoEtcd(_) => {
                self.field.lan.pass(&there)?;
                self.field.lan.pass(&back)
            }
            Fault::KillEtcd(m) => {
                let member = self.member(m);
                self.field.etcd.start_again(&self.field.lan, member)
            }
            Fault::FreezeEtcd(m) => {
                let member = self.member(m);
                signal(&mut self.field.etcd.members[member], Signal::SIGCONT)
            }
            Fault::Switchover => Ok(()),
        }
    }

    fn take_lease_away(&self, place: usize) -> Result<()> {
        if self.without_lease { self.field.agents[place].take_kernel_lease_away().map(drop) } else { Ok(()) }
    }
}

/// Another fault of the round may have ended the process already, and the pid may belong to another one by now.
fn signal(proc: &mut Proc, signal: Signal) -> Result<()> {
    if proc.ended()?.is_some() { Ok(()) } else { proc.signal(signal) }
}
