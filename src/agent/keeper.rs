//! The kernel leases of all instances: writes the election's holds into the kernel, and finds a predecessor's holds
//! there.

use crate::cluster::{Inherited, Keeper};
use crate::config::Config;
use crate::time::Time;
use crate::vip::address::{AddressError, Addresses};
use crate::vip::kernel_lease::KernelLease;
use crate::vip::nfnl::Family;
use crate::vip::nft::watch::TableWatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, error, warn};

/// Pause after restoring tables. Two programs that undo each other must not overload the machine.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after a failed restore.
const AGAIN: Duration = Duration::from_secs(1);

/// This node's leases, by instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<String, Arc<KernelLease>>,
    /// The instances whose tables this process created.
    new: Vec<String>,
}

impl Leases {
    /// Creates or takes over the tables of every instance that is ready now. The other instances do so once they are
    /// ready. Also returns the holds of a predecessor.
    pub(super) async fn install(config: &Config) -> (Self, Vec<(String, Inherited)>) {
        let mut leases = Self::default();
        let mut inherited = Vec::new();
        for instance in &config.instances {
            let ips: Vec<_> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
            let lease = KernelLease::new(&instance.name, &instance.interface, &ips);
            match lease.install().await {
                Ok(done) => {
                    inherited
                        .extend(done.left.map(|(epoch, until)| (instance.name.clone(), Inherited { epoch, until })));
                    if !done.found {
                        leases.new.push(instance.name.clone());
                    }
                }
                // The next try, which comes soon, reports the error.
                Err(e) => debug!(instance = instance.name, "cannot set up the kernel lease yet: {e}"),
            }
            leases.all.insert(instance.name.clone(), Arc::new(lease));
        }
        (leases, inherited)
    }

    /// The lease of an instance from the configuration.
    pub(super) fn of(&self, instance: &str) -> Option<Arc<KernelLease>> {
        self.all.get(instance).cloned()
    }

    /// Cleans up after a failed start. Existing tables stay, because they may belong to a running agent.
    pub(super) async fn undo(&self) {
        for lease in self.new.iter().filter_map(|name| self.all.get(name)) {
            if let Err(e) = lease.remove().await {
                warn!("{e}");
            }
        }
    }

    /// Removes the tables at a clean stop. If an address is still here, its tables stay, because nothing else would
    /// silence the host.
    pub(super) async fn remove(&self, config: &Config, addresses: &Addresses) {
        for instance in &config.instances {
            let Some(lease) = self.all.get(&instance.name) else { continue };
            let ips: Vec<_> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
            match addresses.present(&instance.interface, &ips).await {
                Ok(here) if !here.is_empty() => {
                    error!(
                        instance = instance.name,
                        "an address is still on this host; the nftables tables `{}` stay, so that this host does not \
                         answer for it",
                        lease.table_name()
                    );
                    continue;
                }
                // Without the interface there is no address.
                Ok(_) | Err(AddressError::NoInterface { .. }) => {}
                Err(e) => {
                    error!(
                        instance = instance.name,
                        "cannot check whether an address is still on this host ({e}); the nftables tables `{}` stay, \
                         so that this host does not answer for it",
                        lease.table_name()
                    );
                    continue;
                }
            }
            if let Err(e) = lease.remove().await {
                error!(instance = instance.name, "cannot remove the kernel lease: {e}");
            }
        }
    }

    /// The tables of every instance, each with its family.
    fn tables(&self) -> impl Iterator<Item = (Family, String)> {
        let all = self.all.values();
        all.flat_map(|lease| lease.families().into_iter().map(|family| (family, lease.table_name().to_owned())))
    }

    /// Restores tables that somebody deletes. If the table watch fails, it restores the tables each second.
    pub(super) async fn mend(self) {
        let mut watch: Option<TableWatch> = None;
        let mut told = false;
        loop {
            let names = match &mut watch {
                Some(open) => open.next().await.map(Some),
                None => TableWatch::open(self.tables()).map(|open| {
                    watch = Some(open);
                    // The watch does not report earlier deletions, so check every instance.
                    None
                }),
            };
            let names = names.unwrap_or_else(|e| {
                watch = None;
                if !std::mem::replace(&mut told, true) {
                    warn!("cannot watch the nftables tables of the kernel lease ({e}): rebuilding them every second");
                }
                None
            });
            if watch.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
            for (instance, lease) in &self.all {
                if names.as_ref().is_none_or(|names| names.iter().any(|n| n == lease.table_name())) {
                    tokio::time::sleep(mend_one(instance, lease).await).await;
                }
            }
        }
    }
}

/// Restores the tables of one instance if they are incomplete. Returns how long to leave them alone.
pub(super) async fn mend_one(instance: &str, lease: &KernelLease) -> Duration {
    let mut told = false;
    loop {
        match lease.put_back().await {
            Ok(false) => return Duration::ZERO,
            Ok(true) => {
                warn!(
                    instance,
                    "another program deleted the kernel lease from nftables; restored. If `nft flush ruleset` did \
                     this, let the firewall's reload delete only its own tables"
                );
                return PAUSE;
            }
            Err(e) => {
                if !std::mem::replace(&mut told, true) {
                    error!(instance, "cannot restore the kernel lease: {e}; retrying every second");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

impl Keeper for Leases {
    fn keep(&mut self, instance: &str, hold: Option<(u64, Time)>) -> Result<(), String> {
        #[cfg(feature = "faults")]
        if crate::faults::refuses("lease") {
            return Err("a fault was asked for".to_owned());
        }
        let lease = self.all.get(instance).ok_or("the instance has no kernel lease; restart the agent")?;
        match hold {
            Some((epoch, until)) => lease.renew(epoch, until),
            None => lease.end(),
        }
        .map_err(|e| e.to_string())
    }
}
