//! What the agent asks and reports: hand over, forget a node, park, stop; the server's health, addresses that are down.

use super::EventLoop;
use crate::cluster::driver::{Command, ForgetError, SwitchoverError};
use crate::cluster::election::{Election, Role};
use crate::os::clock;
use crate::sync::Locked as _;

impl EventLoop {
    pub(super) fn command(&mut self, c: Command) {
        match c {
            Command::Switchover(instance, to, tx) => {
                let Some(i) = self.elections.iter().position(|it| it.name == instance) else {
                    let _ = tx.send(Err(SwitchoverError::UnknownInstance(instance)));
                    return;
                };
                let role = self.elections[i].election.role();
                if self.stopping.is_some() || self.parking.is_some() {
                    let _ = tx.send(Err(SwitchoverError::Stopping));
                } else if role != Role::Master {
                    let master = self.elections[i].election.record().map(|r| r.master.clone());
                    let _ = tx.send(Err(SwitchoverError::NotMaster { master }));
                } else {
                    // A second request replaces the first. The first caller sees its channel close.
                    self.elections[i].asked = Some(tx);
                    self.with(i, |e, now| e.switchover(to, now));
                }
            }
            Command::Forget(instance, node, tx) => match self.elections.iter().position(|it| it.name == instance) {
                None => drop(tx.send(Err(ForgetError::UnknownInstance(instance)))),
                Some(_) if self.stopping.is_some() || self.parking.is_some() => {
                    drop(tx.send(Err(ForgetError::Stopping)))
                }
                Some(i) => {
                    self.elections[i].forget = Some(tx);
                    self.with(i, |e, now| e.forget(node, now));
                }
            },
            Command::Park(tx) => {
                self.parking = Some((clock::now(), tx));
                self.each(Election::park);
            }
            Command::Stop(tx) => {
                self.stopping = Some((clock::now(), Some(tx)));
                self.each(Election::stop);
            }
        }
    }
    pub(super) fn inbox(&mut self) {
        let (ready, fitness, released) = {
            // A writer may be preempted with the lock held. This thread does not wait, because the notification follows
            // the write.
            let Some(mut b) = self.shared.inbox.try_locked() else { return };
            (std::mem::take(&mut b.ready), std::mem::take(&mut b.fitness), std::mem::take(&mut b.released))
        };
        for i in 0..self.elections.len() {
            if let Some(ready) = ready.get(&self.elections[i].name) {
                self.with(i, |e, now| e.set_ready(*ready, now));
            }
            if let Some(f) = fitness.get(&self.elections[i].name) {
                self.elections[i].summary.clone_from(&f.summary);
                self.elections[i].fitness = Some((f.fit, f.priority));
                self.tell_fitness(i);
            }
            if let Some(epoch) = released.get(&self.elections[i].name) {
                self.elections[i].up = self.elections[i].up.filter(|up| up > epoch);
                self.with(i, |e, now| e.released(*epoch, now));
            }
        }
    }

    /// A host whose kernel does not answer for the addresses is no better than one with a dead server.
    pub(super) fn tell_fitness(&mut self, i: usize) {
        let Some((fit, priority)) = self.elections[i].fitness else { return };
        let fit = fit && !self.elections[i].kernel_fails;
        self.with(i, |e, now| e.set_fitness(fit, priority, now));
    }
}
