//! Which removals of an address are our own. The kernel tells of each, and does not say by whom (for IPv6 not even by number).
//!
//! The kernel handles one request after the other and tells of each removal once, in that order. So each removal that this process
//! asked for, and that the kernel did not refuse, accounts for exactly one of the removals that it tells of; any other one is somebody
//! else's. It is noted before the request leaves, since the news may be here before the answer.

use ipnet::IpNet;
use std::collections::BTreeMap;

/// An address on an interface, by the interface's index.
pub type Place = (u32, IpNet);

/// The removals of our own that the kernel has not told of yet, for the addresses that are watched: of others no news comes.
#[derive(Debug, Default)]
pub struct Removals {
    watched: Vec<IpNet>,
    open: BTreeMap<Place, u32>,
}

impl Removals {
    /// News of these addresses is read from now on.
    pub fn watch(&mut self, addresses: impl IntoIterator<Item = IpNet>) {
        self.watched.extend(addresses);
    }

    /// News of these addresses is no longer read.
    pub fn unwatch(&mut self, addresses: &[IpNet]) {
        self.watched.retain(|a| !addresses.contains(a));
        self.open.retain(|(_, a), _| !addresses.contains(a));
    }

    /// A removal is about to be asked for.
    pub fn asked(&mut self, place: Place) {
        if self.watched.contains(&place.1) {
            *self.open.entry(place).or_default() += 1;
        }
    }

    /// The kernel refused it (the address was not there): no news comes.
    pub fn refused(&mut self, place: Place) {
        self.settle(place);
    }

    /// The kernel tells of a removal: whether it is one of ours.
    pub fn told(&mut self, place: Place) -> bool {
        self.settle(place)
    }

    /// News was lost, so nothing more is expected for certain: from here on a removal counts as somebody else's.
    pub fn lost(&mut self) {
        self.open.clear();
    }

    fn settle(&mut self, place: Place) -> bool {
        let Some(open) = self.open.get_mut(&place) else { return false };
        *open -= 1;
        if *open == 0 {
            self.open.remove(&place);
        }
        true
    }
}

#[cfg(test)]
mod tests;
