//! Another host that answers for an address of ours: noticed, told, and answered at a limited rate (RFC 5227, RFC 4862 section 5.4).
//!
//! No takeover waits for this. Another keepcall node is silenced by its kernel, so whoever else has the address is a stranger, who
//! would be contested in any case; and a question before the announcement would cost each takeover its milliseconds. So the address is
//! announced first, and the question goes out right behind it.
//!
//! Noticed is who claims an address: an ARP packet with the address as its sender, or a neighbour advertisement for it. While this
//! node holds the address, it also asks from now and then (a probe tells the neighbours nothing), since a host that is not spoken to
//! may stay silent for hours.

pub mod frame;
pub mod watch;

use crate::time::Time;
use frame::Claim;
use pnet_base::MacAddr;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// The former master's frames of the moment before may be under way when this node takes over: in a switch, or in the queue of a host
/// that stood still. They are answered, and are no conflict yet.
const GRACE: Duration = Duration::from_secs(2);
/// At most one announcement in answer to a claim in this time, however many claims there are: two hosts that both answer each
/// other's must not fill the LAN (`DEFEND_INTERVAL`, RFC 5227 section 1.1).
const DEFEND: Duration = Duration::from_secs(10);
/// Time between two probes while there is no conflict: one small broadcast frame for each address.
const PROBE: Duration = Duration::from_secs(30);
/// Time between two probes during a conflict.
const PROBE_AGAIN: Duration = Duration::from_secs(10);
/// A conflict is over when nobody has claimed the address for so long: three probes went without an answer (`PROBE_NUM`, RFC 5227
/// section 1.1), and a bit more.
const OVER: Duration = Duration::from_secs(35);
/// Another host of the same address takes the place of the one that was told at most so often: who sends frames with a new hardware
/// address each time must not fill the log.
const RENAME: Duration = Duration::from_secs(60);

/// What is to be done, or was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask who answers for this address.
    Probe(IpAddr),
    /// Announce this address once.
    Defend(IpAddr),
    /// Another host answers for the address, since now.
    Begun(Claim),
    /// That host has not been heard for a while.
    Over(Claim),
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    defended: Option<Time>,
    /// A claim that came too soon after the takeover to be told.
    early: bool,
    /// The host that was told, and when.
    told: Option<(MacAddr, Time)>,
    last: Time,
}

/// What is known of the addresses of one instance.
#[derive(Debug)]
pub struct Conflicts {
    addresses: Vec<Address>,
    own: Vec<MacAddr>,
    /// Since when this node holds the addresses.
    held: Option<Time>,
    probe_at: Time,
    actions: VecDeque<Action>,
}

impl Conflicts {
    /// Of a node that does not hold the addresses.
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

    /// The hardware addresses of this host, on all of its interfaces: Linux may answer for an address on any of them.
    pub fn set_own(&mut self, own: Vec<MacAddr>) {
        self.own = own;
    }

    /// The addresses are here and announced. An address that is held already goes on as it was.
    pub fn taken(&mut self, now: Time) {
        if self.held.is_none() {
            self.held = Some(now);
            self.probe(now);
        }
    }

    /// The addresses are no longer here: whoever answers for them now is nobody's business here.
    pub fn dropped(&mut self) {
        self.held = None;
        self.probe_at = Time::FAR;
        self.actions.clear();
        for a in &mut self.addresses {
            (a.defended, a.early, a.told) = (None, false, None);
        }
    }

    /// The hosts that are told to answer for an address of ours.
    pub fn others(&self) -> impl Iterator<Item = Claim> + '_ {
        self.addresses.iter().filter_map(|a| a.told.map(|(mac, _)| Claim { address: a.ip, mac }))
    }

    /// A host says that it has an address.
    pub fn handle_claim(&mut self, claim: Claim, now: Time) {
        let Some(since) = self.held.filter(|_| !self.own.contains(&claim.mac)) else { return };
        let Some(a) = self.addresses.iter_mut().find(|a| a.ip == claim.address) else { return };
        a.last = now;
        // The neighbours believe the claim until they hear otherwise, so this is for the early ones, too.
        if a.defended.is_none_or(|at| now >= at + DEFEND) {
            a.defended = Some(now);
            self.actions.push_back(Action::Defend(claim.address));
        }
        if now < since + GRACE {
            // Who has the address for good answers the question at the end of that time.
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

    /// Time passed.
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
        // The first question may have met the queue of a host that still stood still; the second one ends the time of grace.
        if let Some(end) = self.held.map(|since| since + GRACE).filter(|end| now < *end) {
            self.probe_at = end;
        }
    }
}

#[cfg(test)]
mod tests;
