//! Watches the interface and the addresses of an instance, and restores addresses that others remove.

use super::{Instance, PUT_BACK_PAUSE, REFRESH};
use crate::agent::kernel_leases::mend_one;
use crate::agent::kernel_settings;
use crate::os::{clock, interface};
use crate::time::Time;
use crate::vip::address::AddressEvent;
use tracing::{error, info, warn};

impl Instance {
    /// Checks whether the interface disappeared or came back.
    pub(super) async fn look_for_interface(&mut self) {
        let name = &self.config.interface;
        let missing =
            interface::index(&self.config.interface).is_none().then(|| format!("there is no interface {name}"));
        if missing == self.missing {
            return;
        }
        match &missing {
            Some(why) => warn!(instance = self.config.name, "not ready, and not elected until ready: {why} any more"),
            None => {
                // A new interface has the kernel's default settings and none of the former addresses.
                kernel_settings::set(&self.router, &self.config).await;
                info!(instance = self.config.name, "ready: the interface {name} is back");
            }
        }
        self.missing = missing;
        self.report_fitness().await;
    }

    pub(super) async fn address_event(&mut self, event: AddressEvent) {
        self.look_for_interface().await;
        if let AddressEvent::LinkUp { .. } = &event
            && let Err(e) = self.conflicts.look_again()
        {
            warn!(instance = self.config.name, "cannot detect other hosts that answer for the addresses: {e}");
        }
        if let (AddressEvent::LinkUp { .. }, Some(lease)) = (&event, self.lease.clone()) {
            // On most kernels an interface takes its rules with it when it goes.
            let name = self.config.name.clone();
            tokio::spawn(async move { mend_one(&name, &lease).await });
        }
        let name = &self.config.name;
        // At the end of a right the addresses go before the drop order arrives.
        if !self.held.is_some_and(|epoch| self.cluster.holds(name, epoch)) {
            return;
        }
        match event {
            // The address disappeared with its interface.
            AddressEvent::Vanished { .. } if self.missing.is_some() => {}
            AddressEvent::Vanished { interface, prefix } => {
                warn!(
                    instance = name,
                    interface,
                    %prefix,
                    "another program removed the address; restoring it. If systemd-networkd manages {interface}, set \
                     KeepConfiguration=static for it"
                );
                self.lacks(format!("another program removed {prefix} from {interface}; the agent restores it"));
            }
            AddressEvent::LinkUp { .. } => {
                self.announce_again();
                // A recreated interface comes back without its addresses, and an interface that was down comes back
                // without its IPv6 addresses.
                self.put_back_soon();
            }
            AddressEvent::LinkDown { interface } => warn!(instance = name, interface, "the interface is down"),
            AddressEvent::Missed => self.put_back_soon(),
        }
    }

    /// The kernel closed the monitor's connection: opens a new one and checks everything.
    pub(super) async fn watch_again(&mut self) {
        let watched: Vec<_> = self.config.addresses.iter().map(|p| (self.config.interface.clone(), *p)).collect();
        match self.addresses.watch(&watched) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.put_back_soon();
                self.look_for_interface().await;
            }
            Err(e) => {
                error!(
                    instance = self.config.name,
                    "cannot watch the addresses for changes by other programs: {e}; retrying"
                );
                tokio::time::sleep(PUT_BACK_PAUSE).await;
            }
        }
    }

    /// Notes that this master lacks an address on its interface.
    pub(super) fn lacks(&mut self, why: String) {
        self.absent = Some(why);
        self.put_back_soon();
    }

    // Two programs that undo each other must not overload the machine, so the second restore waits.
    pub(super) fn put_back_soon(&mut self) {
        let earliest = self.put_back.map_or(Time::ZERO, |last| last + PUT_BACK_PAUSE);
        self.put_back_at = Some(earliest.max(clock::now()));
    }

    pub(super) async fn put_back(&mut self) {
        self.put_back_at = None;
        // Without the interface, wait for its link-up event, which triggers the next restore.
        let Some(epoch) = self.held.filter(|_| self.missing.is_none()) else { return };
        if !self.cluster.holds(&self.config.name, epoch) {
            return;
        }
        self.put_back = Some(clock::now());
        let added = self.addresses.add(&self.config.interface, &self.config.addresses).await;
        let before = self.absent.take();
        if let Err(e) = added {
            let why = format!("not all of the addresses are on {}: {e}; retrying every second", self.config.interface);
            self.lacks(why.clone());
            if before.as_ref() == Some(&why) {
                return;
            }
            error!(instance = self.config.name, "{why}");
        }
        self.announce_again();
    }

    /// Gives the addresses a fresh lifetime.
    pub(super) async fn refresh(&mut self) {
        self.refresh_at = clock::now() + REFRESH;
        if !self.held.is_some_and(|epoch| self.cluster.holds(&self.config.name, epoch)) {
            return;
        }
        // If the right ends during this call, the drop order comes later and removes the addresses.
        if let Err(e) = self.addresses.add(&self.config.interface, &self.config.addresses).await {
            warn!(instance = self.config.name, "cannot refresh the lifetime of the addresses: {e}");
        }
    }
}
