//! The faults, with their times. The same seed gives the same plan.
//!
//! Only the plan can be repeated exactly. The machine's scheduler, the agents' random numbers and etcd's elections
//! vary.

use std::fmt;
use std::time::Duration;

/// A node, by its role at the start of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Master,
    Successor,
    /// The third node; with only two nodes, the successor.
    Third,
}

/// An etcd member, by its role at the start of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Leader,
    Follower,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The agent is killed (SIGKILL), and started again at the end.
    Kill(Who),
    /// The agent gets SIGTERM, and is started again at the end.
    Stop(Who),
    /// The agent is restarted: SIGUSR2 announces the restart, and the agent is started again at the end.
    Restart(Who),
    /// The agent is frozen (SIGSTOP), and continues at the end.
    Freeze(Who),
    /// The host's link is down.
    Cut(Who),
    /// The host receives nothing.
    Deaf(Who),
    /// Nobody receives what the host sends.
    Mute(Who),
    /// A part (in percent) of the packets from one node to another is lost.
    Lossy(Who, Who, u8),
    /// Two nodes cannot reach each other; both reach etcd.
    Apart(Who, Who),
    /// A node cannot reach etcd.
    NoEtcd(Who),
    /// An etcd member is killed, and started again at the end.
    KillEtcd(Member),
    /// An etcd member is frozen, and continues at the end.
    FreezeEtcd(Member),
    /// The operator orders a switchover. This has no end.
    Switchover,
}

/// A fault in its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Time from the start of the round to the fault.
    pub(crate) at: Duration,
    /// Duration of the fault.
    pub(crate) lasts: Duration,
    /// The fault.
    pub(crate) fault: Fault,
}

impl Fault {
    /// The kind, for the summary.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill-agent",
            Self::Stop(_) => "stop-agent",
            Self::Restart(_) => "restart-agent",
            Self::Freeze(_) => "freeze-agent",
            Self::Cut(_) => "cut-link",
            Self::Deaf(_) => "deaf",
            Self::Mute(_) => "mute",
            Self::Lossy(..) => "lossy",
            Self::Apart(..) => "apart",
            Self::NoEtcd(_) => "no-etcd",
            Self::KillEtcd(_) => "kill-etcd",
            Self::FreezeEtcd(_) => "freeze-etcd",
            Self::Switchover => "switchover",
        }
    }

    /// The node that the fault hits, and the other node in it.
    pub(crate) const fn hits(self) -> Option<(Who, Option<Who>)> {
        match self {
            Self::Kill(w) | Self::Stop(w) | Self::Restart(w) | Self::Freeze(w) => Some((w, None)),
            Self::Cut(w) | Self::Deaf(w) | Self::Mute(w) | Self::NoEtcd(w) => Some((w, None)),
            Self::Lossy(w, other, _) | Self::Apart(w, other) => Some((w, Some(other))),
            Self::Switchover => Some((Who::Master, None)),
            Self::KillEtcd(_) | Self::FreezeEtcd(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms {:?} for {} ms", self.at.as_millis(), self.fault, self.lasts.as_millis())
    }
}

/// SplitMix64: small, and the same on every machine and in every version.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or(0)]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The faults of round `round`: one, and now and then two or three that overlap. A round does not depend on the rounds
/// before it, so any round can be repeated alone.
pub(crate) fn round(seed: u64, round: u64, nodes: usize, hold: Duration) -> Vec<Step> {
    let mut dice = Dice::new(seed ^ round.wrapping_mul(0xd6e8_feb8_6659_fd93));
    // Skips a number, because neighbouring rounds begin with similar states.
    dice.next();
    let n = [1, 1, 1, 2, 2, 3][usize::try_from(dice.below(6)).unwrap_or(0)];
    let mut steps: Vec<Step> = Vec::new();
    while steps.len() < n {
        let fault = fault(&mut dice, nodes);
        // Of two faults of a kind, one would end the other.
        if steps.iter().any(|s| s.fault.name() == fault.name()) {
            continue;
        }
        let at = if steps.is_empty() { Duration::ZERO } else { dice.millis(0, 1500) };
        let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        let lasts = match fault {
            Fault::Switchover => Duration::ZERO,
            // As a service manager does: the restart ends before the lease expires.
            Fault::Restart(_) => dice.millis(hold / 10, hold * 8 / 10),
            // Only in the long run does a deaf host show whether others wait for it without end.
            Fault::Deaf(_) if dice.below(4) == 0 => dice.millis(10_000, 15_000),
            // Shorter than the hold: all earlier promises are still in force when the fault ends.
            _ if dice.below(3) == 0 => dice.millis(hold / 10, hold * 8 / 10),
            // Now and then long enough for the lease to expire.
            _ => dice.millis(hold, hold * 2 + 5000),
        };
        steps.push(Step { at, lasts, fault });
    }
    steps
}

fn fault(dice: &mut Dice, nodes: usize) -> Fault {
    let all: &[Who] =
        if nodes > 2 { &[Who::Master, Who::Successor, Who::Third] } else { &[Who::Master, Who::Successor] };
    // Mostly the master: there a fault does most.
    let who = if dice.below(3) > 0 { Who::Master } else { dice.one_of(all) };
    let other = dice.one_of(&all.iter().copied().filter(|w| *w != who).collect::<Vec<_>>());
    let member = dice.one_of(&[Member::Leader, Member::Follower]);
    match dice.below(16) {
        // Faults that only the kernel lease makes safe come twice as often.
        0 | 1 => Fault::Kill(who),
        2 | 3 => Fault::Freeze(who),
        4 | 5 => Fault::Cut(who),
        6 => Fault::Deaf(who),
        7 => Fault::Mute(who),
        8 => Fault::Lossy(who, other, dice.one_of(&[30, 60, 100])),
        9 => Fault::Apart(who, other),
        10 => Fault::NoEtcd(who),
        11 => Fault::KillEtcd(member),
        12 => Fault::FreezeEtcd(member),
        13 => Fault::Stop(who),
        14 => Fault::Restart(who),
        _ => Fault::Switchover,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOLD: Duration = Duration::from_secs(1);

    #[test]
    fn a_seed_gives_the_same_rounds_and_another_seed_others() {
        let all = |seed| (0..50).map(|r| round(seed, r, 3, HOLD)).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn every_kind_of_fault_comes_up_within_a_hundred_rounds() {
        let kinds: BTreeSet<_> = (0..100).flat_map(|r| round(1, r, 2, HOLD)).map(|s| s.fault.name()).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
    }

    #[test]
    fn with_two_nodes_nothing_happens_to_a_third() {
        for step in (0..300).flat_map(|r| round(3, r, 2, HOLD)) {
            assert!(!format!("{:?}", step.fault).contains("Third"), "{step}");
        }
    }
}
