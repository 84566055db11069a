//! Tells our own address removals from foreign ones. The kernel reports each removal without its author (for IPv6 not
//! even the request's number).
//!
//! The kernel handles requests one by one and reports each removal once, in that order. So each request of this process
//! that the kernel accepts accounts for exactly one reported removal. Any other removal is foreign. The request is
//! counted before it leaves, because the report may arrive before the answer.

use ipnet::IpNet;
use std::collections::BTreeMap;

/// An address on an interface, by the interface's index.
pub type Place = (u32, IpNet);

/// Our own removals that the kernel has not reported yet. Only watched addresses count, because no report arrives for
/// others.
#[derive(Debug, Default)]
pub struct Removals {
    watched: Vec<IpNet>,
    open: BTreeMap<Place, u32>,
}

impl Removals {
    /// Starts to track reports for these addresses.
    pub fn watch(&mut self, addresses: impl IntoIterator<Item = IpNet>) {
        self.watched.extend(addresses);
    }

    /// Stops tracking reports for these addresses.
    pub fn unwatch(&mut self, addresses: &[IpNet]) {
        self.watched.retain(|a| !addresses.contains(a));
        self.open.retain(|(_, a), _| !addresses.contains(a));
    }

    /// Counts a removal just before its request leaves.
    pub fn asked(&mut self, place: Place) {
        if self.watched.contains(&place.1) {
            *self.open.entry(place).or_default() += 1;
        }
    }

    /// The kernel refused the removal (the address was missing), so no report will come.
    pub fn refused(&mut self, place: Place) {
        self.settle(place);
    }

    /// Handles a reported removal. Returns whether it is our own.
    pub fn told(&mut self, place: Place) -> bool {
        self.settle(place)
    }

    /// Reports were lost, so no report is certain any more. Every removal from now on counts as foreign.
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
