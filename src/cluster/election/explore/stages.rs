//! Start states of explorations: few faults suffice for an event.

use super::choices::{Choice, apply};
use super::world::{FAST, Item, SLOW, Unlike, World};
use crate::cluster::election::types::{Fault, Request};

/// A start state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No record yet; every node waits for the silence before a first election.
    Boot,
    /// The first node is master, and the others never ran.
    Solo,
    /// The first node is master, all are members, a successor is armed.
    Settled,
    /// Settled, and an operator has just asked for a switchover.
    Switchover,
    /// Settled, and the master was just told to stop.
    Stopping,
    /// Settled, and the master's agent was killed a tick ago; its kernel holds on.
    Killed,
    /// Settled, and etcd has been away for two ticks.
    StoreDown,
    /// Settled, and the master has been frozen for so long that the successor is about to take over.
    Silent,
    /// The successor has taken over from a frozen master that does not know it.
    TakenOver,
    /// The successor has taken over. The old master runs again and cannot learn of it, because it cannot reach etcd.
    Stale,
    /// Settled, and the master cannot reach etcd. Its lease has run out, and it holds on its successor's acks alone.
    Leaseless,
    /// As `Leaseless`, but no heartbeat reaches the third node any more, and an operator has just deleted the record.
    Lost,
    /// Settled, and the other nodes are frozen; the master rests on its lease.
    Alone,
    /// The first node rewrote its deleted record, and has handed over since. A driver that copies such a write has a
    /// copy in flight.
    Rewritten,
    /// Settled, and the master's agent has ended for an upgrade: the kernel holds on until its lease would have run
    /// out.
    Parked,
}

impl Stage {
    pub(super) const ALL: [Self; 13] = [
        Self::Boot,
        Self::Solo,
        Self::Settled,
        Self::Switchover,
        Self::Stopping,
        Self::Killed,
        Self::StoreDown,
        Self::Silent,
        Self::TakenOver,
        Self::Stale,
        Self::Leaseless,
        Self::Alone,
        Self::Parked,
    ];

    /// The world at this stage, with this many nodes. `slow_first`: the first node's clock is slow and the others' are
    /// fast.
    pub(super) fn world(self, nodes: usize, slow_first: bool, fault: Option<Fault>) -> World {
        self.world_of(nodes, slow_first, Unlike::No, fault)
    }

    /// As [`Stage::world`], with nodes whose settings differ.
    pub(super) fn world_of(self, nodes: usize, slow_first: bool, unlike: Unlike, fault: Option<Fault>) -> World {
        let rate = |i: usize| if (i == 0) == slow_first { SLOW } else { FAST };
        let rates: Vec<u64> = (0..nodes).map(rate).collect();
        let mut w = World::new(&rates, unlike, fault);
        w.start(0);
        if self == Self::Boot {
            (1..nodes).for_each(|n| w.start(n));
            run(&mut w, 2);
            return rebased(w);
        }
        run(&mut w, 9);
        assert_eq!(w.holders().collect::<Vec<_>>(), [0], "the first node is master");
        if self == Self::Solo {
            return rebased(w);
        }
        (1..nodes).for_each(|n| w.start(n));
        run(&mut w, 8);
        let settled = w.store.record.as_ref().is_some_and(|r| r.1.members.len() == nodes && r.1.successor.is_some());
        assert!(settled && w.holders().eq([0]), "settled: {:?}", w.store.record);
        match self {
            Self::Boot | Self::Solo | Self::Settled => {}
            Self::Switchover => apply(&mut w, Choice::Switchover(0)),
            Self::Stopping => apply(&mut w, Choice::Stopped(0)),
            Self::Killed => {
                w.kill(0, false);
                run(&mut w, 1);
            }
            Self::StoreDown => {
                w.down = true;
                run(&mut w, 2);
            }
            Self::Silent => {
                w.nodes[0].frozen = true;
                run(&mut w, 4);
            }
            Self::TakenOver | Self::Stale => {
                w.nodes[0].frozen = true;
                run(&mut w, 7);
                assert!(w.holders().all(|n| n != 0) && w.holders().count() == 1, "another node is master");
                if self == Self::Stale {
                    w.nodes[0].unplugged = true;
                    apply(&mut w, Choice::Thawed(0));
                }
            }
            Self::Leaseless | Self::Lost => {
                w.nodes[0].unplugged = true;
                if self == Self::Lost && nodes > 2 {
                    w.cut.push((0, 2));
                }
                run(&mut w, 8);
                assert!(w.store.leases.len() < nodes && w.holders().eq([0]), "only the lease is gone");
                if self == Self::Lost {
                    apply(&mut w, Choice::Deleted);
                }
            }
            Self::Alone => {
                w.nodes.iter_mut().skip(1).for_each(|n| n.frozen = true);
                run(&mut w, 6);
                assert!(w.holders().eq([0]), "the first node holds alone");
            }
            Self::Rewritten => {
                apply(&mut w, Choice::Deleted);
                while !matches!(w.queue.front(), Some(Item::Serve { request, .. }) if matches!(**request, Request::Commit(_)))
                {
                    apply(&mut w, Choice::Happens(1));
                }
                let copies = fault == Some(Fault::FirstCopied);
                apply(&mut w, if copies { Choice::Twice } else { Choice::Happens(1) });
                run(&mut w, 2);
                apply(&mut w, Choice::Switchover(0));
                run(&mut w, 5);
                assert!(w.holders().eq([1]), "the second node is master");
                w.asked = false;
            }
            Self::Parked => {
                w.input(0, crate::cluster::election::Election::park);
                settle(&mut w);
                assert!(w.nodes[0].election.as_ref().is_some_and(|e| e.parked()), "it may end");
                w.kill(0, false);
                assert!(w.holders().eq([0]), "the kernel holds on");
            }
        }
        rebased(w)
    }
}

/// Lets time pass without faults.
pub(super) fn run(w: &mut World, ticks: u32) {
    for _ in 0..ticks {
        settle(w);
        apply(w, Choice::Tick);
    }
    settle(w);
}

fn settle(w: &mut World) {
    // Far more than a tick produces: beyond it nodes would answer each other forever.
    for _ in 0..1000 {
        if w.queue.is_empty() {
            return;
        }
        apply(w, Choice::Happens(1));
    }
    let rest: Vec<&Item> = w.queue.iter().collect();
    assert!(rest.is_empty(), "no end of it: {rest:?}");
}

/// Restarts the counts of reached cases here.
fn rebased(mut w: World) -> World {
    w.reached = super::reached::Reached::default();
    w
}
