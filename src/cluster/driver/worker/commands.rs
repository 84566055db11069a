//! Commands of the agent: hand over, forget a node, park, stop.

use super::Worker;
use crate::cluster::driver::{Command, ForgetError, SwitchoverError};
use crate::cluster::election::{Election, Role};
use crate::os::clock;

impl Worker {
    pub(super) fn command(&mut self, c: Command) {
        match c {
            Command::Switchover(instance, to, tx) => {
                let Some(i) = self.all.iter().position(|o| o.name == instance) else {
                    let _ = tx.send(Err(SwitchoverError::UnknownInstance(instance)));
                    return;
                };
                let role = self.all[i].election.role();
                if self.stopping.is_some() || self.parking.is_some() {
                    let _ = tx.send(Err(SwitchoverError::Stopping));
                } else if role != Role::Master {
                    let master = self.all[i].election.record().map(|r| r.master.clone());
                    let _ = tx.send(Err(SwitchoverError::NotMaster { master }));
                } else {
                    // A second request replaces the first. The first caller sees its channel close.
                    self.all[i].asked = Some(tx);
                    self.with(i, |e, now| e.switchover(to, now));
                }
            }
            Command::Forget(instance, node, tx) => match self.all.iter().position(|o| o.name == instance) {
                None => drop(tx.send(Err(ForgetError::UnknownInstance(instance)))),
                Some(_) if self.stopping.is_some() || self.parking.is_some() => {
                    drop(tx.send(Err(ForgetError::Stopping)))
                }
                Some(i) => {
                    self.all[i].forget = Some(tx);
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
}
