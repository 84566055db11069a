//! Random lives of a node: roles, servers that die, other masters, strangers in etcd, and time. The model's etcd,
//! tracker and engine are sets of their own (`world`), so the oracle uses nothing of what it judges.

mod world;

use super::*;
use proptest::prelude::*;
use world::World;

#[derive(Clone, Debug)]
enum Step {
    /// This node becomes master.
    Take,
    /// This node is no longer master; whether the other node becomes it.
    Drop(bool),
    /// The process ends, and a new one starts as standby.
    Restart,
    /// A call begins at the master's server, or one ends.
    Begin,
    End(usize),
    /// What the checks say; the server's process is another one.
    Server {
        working: bool,
        other_process: bool,
    },
    /// A stranger deletes, spoils or overwrites a call.
    Delete(usize),
    Spoil(usize),
    Overwrite(usize),
    /// etcd is restored from a copy that lacks this call and has a former one.
    Restore(usize),
    /// This many events of the store arrive.
    Deliver(usize),
    Wait(u64),
    /// Everything arrives and is settled: the books must be right.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Take),
        1 => any::<bool>().prop_map(Step::Drop),
        1 => Just(Step::Restart),
        5 => Just(Step::Begin),
        2 => any::<usize>().prop_map(Step::End),
        2 => any::<(bool, bool)>().prop_map(|(working, other_process)| Step::Server { working, other_process }),
        1 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::Spoil),
        1 => any::<usize>().prop_map(Step::Overwrite),
        1 => any::<usize>().prop_map(Step::Restore),
        4 => (1_usize..6).prop_map(Step::Deliver),
        3 => prop_oneof![Just(1_u64), Just(40), Just(130), Just(100_000)].prop_map(Step::Wait),
        3 => Just(Step::Settle),
    ]
}

/// The first rule that a life breaks.
fn live(steps: &[Step], fault: Option<Fault>) -> Option<String> {
    let mut world = World::new(fault);
    for step in steps {
        world.step(step);
        if world.wrong.is_some() {
            return world.wrong;
        }
    }
    world.step(&Step::Settle);
    world.wrong
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_call_is_lost_and_none_has_two_keepers(steps in proptest::collection::vec(step(), 1..60)) {
        prop_assert_eq!(live(&steps, None), None);
    }
}

#[test]
fn each_missing_rule_is_noticed() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    for fault in [
        Fault::OwnRecoveredToo,
        Fault::LateForgotten,
        Fault::DeletionBelieved,
        Fault::StrangersBelieved,
        Fault::StandbyRecovers,
        Fault::SweptTooEarly,
    ] {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let lives = proptest::collection::vec(step(), 60);
        // The same lives break no rule without the fault: see the property.
        let found = (0..2_000).find_map(|_| live(&lives.new_tree(&mut runner).unwrap().current(), Some(fault)));
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} is not noticed");
    }
}
