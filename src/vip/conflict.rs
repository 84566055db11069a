//! Detects, reports and answers another host that claims one of our addresses, at a limited rate (RFC 5227, RFC 4862
//! section 5.4).
//!
//! No takeover waits for conflict detection. The kernel of another keepcall node silences that node, so any other
//! claimant is a stranger and would be contested in any case. A probe before the announcement would cost each takeover
//! its milliseconds. So the announcement goes first, and the probe follows right behind it.
//!
//! A claim is an ARP packet with the address as its sender, or a neighbour advertisement for the address. While this
//! node holds the address, it also probes from time to time, because a host without traffic may stay silent for hours.
//! A probe changes no neighbour's cache.

pub mod frame;
pub mod watch;

use crate::time::Time;
use frame::Claim;
use pnet_base::MacAddr;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Late frames of the former master may still be in a switch, or in the queue of a stalled host, when this node takes
/// over. The node answers them and does not report a conflict yet.
const GRACE: Duration = Duration::from_secs(2);
/// At most one announcement per interval in answer to claims. Two hosts that answer each other must not flood the LAN
/// (`DEFEND_INTERVAL`, RFC 5227 section 1.1).
const DEFEND: Duration = Duration::from_secs(10);
/// Time between two probes without a conflict: one small broadcast frame per address.
const PROBE: Duration = Duration::from_secs(30);
/// Time between two probes during a conflict.
const PROBE_AGAIN: Duration = Duration::from_secs(10);
/// A conflict ends after this long without a claim: three unanswered probes (`PROBE_NUM`, RFC 5227 section 1.1) plus a
/// margin.
const OVER: Duration = Duration::from_secs(35);
/// Minimum time before another claimant replaces the reported one. A host that sends each frame with a new hardware
/// address must not fill the log.
const RENAME: Duration = Duration::from_secs(60);

/// An action to take, or a conflict event to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Probe this address.
    Probe(IpAddr),
    /// Announce this address once.
    Defend(IpAddr),
    /// Another host now claims the address.
    Begun(Claim),
    /// The claimant has been silent for a while.
    Over(Claim),
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    defended: Option<Time>,
    /// A claim arrived too soon after the takeover to be reported.
    early: bool,
    /// The reported claimant, and when it was reported.
    told: Option<(MacAddr, Time)>,
    last: Time,
}

/// The conflict state of one instance's addresses.
#[derive(Debug)]
pub struct Conflicts {
    addresses: Vec<Address>,
    own: Vec<MacAddr>,
    /// The time at which this node took the addresses.
    held: Option<Time>,
    probe_at: Time,
    actions: VecDeque<Action>,
}

impl Conflicts {
    /// The state of a node without the addresses.
    #[must_use]
    pub fn new(addresses: &[IpAddr]) -> Self {
        let fresh = |ip: &IpAddr| Address { ip: *ip, defended: None, early: false, told: None, last: Time::ZERO };
        Self {
            addresses: addresses.iter().map(fresh).collect(),
            own: Vec::new(),
            held: None,
            probe_at: Time::FAR,
            actions: VecDeque::new(),
        }
    }

    /// The hardware addresses of all interfaces of this host: Linux may answer for an address on any of them.
    pub fn set_own(&mut self, own: Vec<MacAddr>) {
        self.own = own;
    }

    /// The addresses are here and announced. A repeated call for held addresses changes nothing.
    pub fn taken(&mut self, now: Time) {
        if self.held.is_none() {
            self.held = Some(now);
            self.probe(now);
        }
    }

    /// This node dropped the addresses, so other claimants no longer matter.
    pub fn dropped(&mut self) {
        self.held = None;
        self.probe_at = Time::FAR;
        self.actions.clear();
        for a in &mut self.addresses {
            (a.defended, a.early, a.told) = (None, false, None);
        }
    }

    /// The reported claimants of our addresses.
    pub fn others(&self) -> impl Iterator<Item = Claim> + '_ {
        self.addresses.iter().filter_map(|a| a.told.map(|(mac, _)| Claim { address: a.ip, mac }))
    }

    /// Handles a claim by a host.
    pub fn handle_claim(&mut self, claim: Claim, now: Time) {
        let Some(since) = self.held.filter(|_| !self.own.contains(&claim.mac)) else { return };
        let Some(a) = self.addresses.iter_mut().find(|a| a.ip == claim.address) else { return };
        a.last = now;
        // Neighbours believe the claim until they hear another one, so early claims get an answer too.
        if a.defended.is_none_or(|at| now >= at + DEFEND) {
            a.defended = Some(now);
            self.actions.push_back(Action::Defend(claim.address));
        }
        if now < since + GRACE {
            // A host that really keeps the address answers the probe at the end of the grace time.
            if !std::mem::replace(&mut a.early, true) {
                self.probe_at = self.probe_at.min(since + GRACE);
            }
            return;
        }
        match a.told {
            Some((mac, _)) if mac == claim.mac => {}
            Some((_, at)) if now < at + RENAME => {}
            _ => {
                a.told = Some((claim.mac, now));
                self.probe_at = self.probe_at.min(now + PROBE_AGAIN);
                self.actions.push_back(Action::Begun(claim));
            }
        }
    }

    /// Handles the passing of time.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.held.is_none() {
            return;
        }
        for a in &mut self.addresses {
            if let Some((mac, _)) = a.told.filter(|_| now >= a.last + OVER) {
                a.told = None;
                self.actions.push_back(Action::Over(Claim { address: a.ip, mac }));
            }
        }
        if now >= self.probe_at {
            self.probe(now);
        }
    }

    /// When [`Conflicts::handle_timeout`] must be called; [`Time::FAR`] if never.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let over = self.addresses.iter().filter(|a| a.told.is_some()).map(|a| a.last + OVER);
        over.fold(self.probe_at, Time::min)
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn probe(&mut self, now: Time) {
        self.actions.extend(self.addresses.iter().map(|a| Action::Probe(a.ip)));
        let pause = if self.addresses.iter().any(|a| a.told.is_some()) { PROBE_AGAIN } else { PROBE };
        self.probe_at = now + pause;
        // The first probe may have met the queue of a stalled host. The second probe goes out at the end of the grace
        // time.
        if let Some(end) = self.held.map(|since| since + GRACE).filter(|end| now < *end) {
            self.probe_at = end;
        }
    }
}

#[cfg(test)]
mod tests;
