//! Probes for another host that answers for an instance's address, defends the address, and reports the conflict.

use super::instance::Instance;
use crate::control::api;
use crate::os::clock;
use crate::vip::conflict::Action;
use crate::vip::conflict::frame::Claim;
use tracing::{debug, info, warn};

impl Instance {
    pub(super) fn rival(&mut self, action: Action) {
        let instance = &self.config.name;
        let Some(epoch) = self.held.filter(|epoch| self.cluster.holds(instance, *epoch)) else { return };
        let sent = match action {
            Action::Probe(address) => {
                // A new network card may be present, or a new interface with the same name.
                if let Err(e) = self.conflicts.look_again() {
                    debug!(instance, "cannot listen to neighbours at the moment: {e}");
                }
                self.announcer.probe(address)
            }
            Action::Defend(address) => self.announcer.defend(address),
            Action::Begun(Claim { address, mac }) => {
                warn!(
                    instance,
                    %address,
                    %mac,
                    "another host also answers for the address, so some phones reach that host: find the host by its \
                     hardware address (the switch knows the port) and remove the address there. Until then, this \
                     node announces the address against it, at most every 10 s"
                );
                self.history.write(api::HistoryEntry {
                    instance: instance.clone(),
                    epoch,
                    master: self.node.name.clone(),
                    cause: "conflict".to_owned(),
                    reason: format!("{mac} also answers for {address}"),
                    at_ms: clock::unix_ms(),
                    ..api::HistoryEntry::default()
                });
                Ok(())
            }
            Action::Over(Claim { address, mac }) => {
                info!(instance, %address, %mac, "the other host no longer answers for the address");
                Ok(())
            }
        };
        if let Err(e) = sent {
            debug!(instance, "cannot send a probe or announcement: {e}");
        }
    }

    /// For `status`.
    pub(super) fn rivals(&self) -> Vec<api::Conflict> {
        let told = self.conflicts.others().into_iter();
        told.map(|Claim { address, mac }| api::Conflict { address, mac: mac.to_string() }).collect()
    }
}
