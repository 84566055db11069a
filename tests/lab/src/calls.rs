//! Calls between the two phone hosts, and checks of them.

use super::lan::{Lan, VIP4};
use super::phone::{Command, Manner, Phase, Phone};
use super::unix_us;
use super::wait;
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Pairs of phones, each with one call.
pub struct Calls {
    /// Caller and called party of each call.
    pub pairs: Vec<(Phone, Phone)>,
    /// Time between the starts of two calls. One core can set up a call every 20 ms.
    pace: Duration,
}

impl Calls {
    /// Makes `n` pairs of phones.
    pub fn new(lan: &Lan, rt: &Runtime, n: usize, manner: Manner) -> Result<Self> {
        Self::new_from(lan, rt, 0, n, manner)
    }

    /// Makes `n` pairs of phones beside others: their numbers begin at `first`.
    pub fn new_from(lan: &Lan, rt: &Runtime, first: usize, n: usize, manner: Manner) -> Result<Self> {
        if n == 0 || first + n > 999 {
            bail!("the lab has phone numbers for 1 to 999 calls, not {n} from {first}");
        }
        let _in_runtime = rt.enter();
        let server = SocketAddr::from((VIP4, 5060));
        let (p1, p2) = (lan.host("p1")?, lan.host("p2")?);
        let pairs: Result<Vec<_>> = (first..first + n)
            .map(|i| Ok((Phone::new(p1, 0, i, server, manner)?, Phone::new(p2, 1, i, server, manner)?)))
            .collect();
        Ok(Self::of(pairs?))
    }

    /// The given pairs of phones, caller first.
    pub const fn of(pairs: Vec<(Phone, Phone)>) -> Self {
        Self { pairs, pace: Duration::from_millis(20) }
    }

    /// Sets all calls up, and waits until each party has heard a whole second of the other's tone.
    pub fn set_up(&self, limit: Duration) -> Result<()> {
        for (caller, called) in &self.pairs {
            caller.tell(Command::Call(called.number.clone()))?;
            std::thread::sleep(self.pace);
        }
        wait::until("all calls to be up with audio both ways", limit, || {
            for p in self.phones() {
                let s = p.state();
                if s.phase != Phase::Up || s.right.is_empty() {
                    return Err(format!(
                        "phone {} is {:?}, {} s of the right tone; {:?}",
                        p.number,
                        s.phase,
                        s.right.len(),
                        s.violations
                    ));
                }
            }
            Ok(())
        })
    }

    /// All phones.
    pub fn phones(&self) -> impl Iterator<Item = &Phone> {
        self.pairs.iter().flat_map(|(a, b)| [a, b])
    }

    /// Waits until `good` holds for every call or the time is over. Returns the number of calls for which `good` holds.
    pub fn wait_for(&self, limit: Duration, good: impl Fn(&(Phone, Phone)) -> bool) -> usize {
        let end = Instant::now() + limit;
        loop {
            let n = self.pairs.iter().filter(|p| good(p)).count();
            if n == self.pairs.len() || Instant::now() >= end {
                return n;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Hangs up each call on one side, callers and called parties in turn, and waits until the other side has seen a
    /// BYE too. Returns the number of calls that ended with 200 on one side and a BYE on the other.
    pub fn hang_up(&self, limit: Duration) -> Result<usize> {
        for (i, (a, b)) in self.pairs.iter().enumerate() {
            let one = if i % 2 == 0 { a } else { b };
            if one.state().phase == Phase::Up {
                one.tell(Command::Hangup)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.wait_for(limit, ended))
    }

    /// Breaches of the RFCs that the phones saw.
    pub fn violations(&self) -> Vec<String> {
        self.phones().flat_map(|p| p.state().violations.clone()).collect()
    }

    /// What the phones saw that is odd, but allowed.
    pub fn notes(&self) -> Vec<String> {
        self.phones().flat_map(|p| p.state().notes.clone()).collect()
    }

    /// The longest silence of each direction of each call around an event, in microseconds.
    pub fn gaps(&self, event: u64) -> Vec<u64> {
        let now = unix_us();
        self.phones().map(|p| p.longest_gap_us(event, now)).collect()
    }
}

/// Whether each party has heard two whole seconds of the other's tone that began after `since` (microseconds).
pub fn has_audio((a, b): &(Phone, Phone), since: u64) -> bool {
    let good = |p: &Phone| p.state().right.iter().filter(|&&t| t >= since + 1_000_000).count() >= 2;
    good(a) && good(b)
}

/// Whether each party has answered a re-INVITE since `since` with 200, and got the ACK.
pub fn is_reinvited((a, b): &(Phone, Phone), since: u64) -> bool {
    let done = |p: &Phone| p.state().reinvites.iter().any(|r| r.at >= since && r.code == 200 && r.acked_at.is_some());
    done(a) && done(b)
}

/// Whether the call ended correctly: 200 for one party's BYE, and a BYE for the other party.
pub fn ended((a, b): &(Phone, Phone)) -> bool {
    let one = |x: &Phone, y: &Phone| {
        x.state().bye_answered.is_some_and(|(code, _)| code == 200) && y.state().bye_received.is_some()
    };
    one(a, b) || one(b, a)
}
