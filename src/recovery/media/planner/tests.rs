use super::*;
use crate::recovery::media::table::{SETS, ends, of_mark};
use crate::vip::nfnl::Found;
use proptest::prelude::*;

fn flow(from: u16, at: u16, to: u16, source: u16) -> Flow {
    let phone = |n: u16| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 4000));
    let ours = |n: u16| SocketAddr::from(([10, 0, 0, 9], 10_000 + n));
    Flow { from: phone(from), at: ours(at), to: phone(to), source: ours(source), udptl: false }
}

/// Both directions between phones `2n` and `2n + 1`.
fn call(n: u16) -> [Flow; 2] {
    [flow(2 * n, 0, 2 * n + 1, 2), flow(2 * n + 1, 2, 2 * n, 0)]
}

/// The sets as in the kernel. Adding an existing key with another value fails, and so does deleting a missing key.
#[derive(Clone, Debug, Default)]
struct Kernel {
    sets: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Kernel {
    fn new() -> Self {
        Self { sets: vec![BTreeMap::new(); SETS.len()] }
    }

    fn index(name: &str) -> usize {
        SETS.iter().position(|(set, ..)| *set == name).unwrap()
    }

    fn commit(&mut self, piece: &Piece) {
        for (set, key) in &piece.strays {
            assert!(self.sets[*set].remove(key.as_bytes()).is_some(), "a stray that is not there");
        }
        piece.out.each(|set, key, _| {
            assert!(self.sets[Self::index(set)].remove(key.as_bytes()).is_some(), "{set}: deleted what is not there");
        });
        piece.put.each(|set, key, value| {
            let value = value.map(|v| v.as_bytes().to_vec()).unwrap_or_default();
            let before = self.sets[Self::index(set)].insert(key.as_bytes().to_vec(), value.clone());
            assert!(before.is_none_or(|before| before == value), "{set}: added what is there otherwise");
        });
        assert!(self.sets.iter().all(|set| set.len() <= MAX_FLOWS));
    }

    fn listed(&self) -> Vec<Vec<Found>> {
        let found =
            |(key, value): (&Vec<u8>, &Vec<u8>)| Found { key: key.clone(), value: value.clone(), ..Found::default() };
        self.sets.iter().map(|set| set.iter().map(found).collect()).collect()
    }

    /// The result of the rules for each packet: its destination, its apparent source, and whether it may be UDPTL.
    fn forwards(&self) -> BTreeMap<Key, (SocketAddr, SocketAddr, bool)> {
        let ip = |set: &BTreeMap<Vec<u8>, Vec<u8>>, mark: &Vec<u8>| {
            std::net::IpAddr::from(<[u8; 4]>::try_from(&*set[mark]).unwrap())
        };
        let port = |set: &BTreeMap<Vec<u8>, Vec<u8>>, mark: &Vec<u8>| u16::from_be_bytes([set[mark][0], set[mark][1]]);
        let mut all = BTreeMap::new();
        for (key, mark) in &self.sets[Self::index("flow4")] {
            let to = (ip(&self.sets[Self::index("daddr4")], mark), port(&self.sets[Self::index("dport")], mark));
            let source = (ip(&self.sets[Self::index("saddr4")], mark), port(&self.sets[Self::index("sport")], mark));
            let udptl = self.sets[Self::index("udptl")].contains_key(mark);
            all.insert(ends(key).unwrap(), (to.into(), source.into(), udptl));
        }
        all
    }

    /// Pairs of our port and phone that this host must not send on.
    fn silent(&self) -> BTreeSet<Key> {
        self.sets[Self::index("local4")].keys().map(|key| ends(key).unwrap()).collect()
    }
}

fn run(planner: &mut Planner, kernel: &mut Kernel) -> usize {
    let mut pieces = 0;
    while let Some(action) = planner.poll_action() {
        match action {
            Action::Read => planner.handle_present(Present::of(&kernel.listed()), 1),
            Action::Commit(piece) => {
                kernel.commit(&piece);
                planner.handle_done(Duration::from_millis(1));
                pieces += 1;
            }
        }
    }
    assert!(planner.is_settled());
    pieces
}

fn started(kernel: &Kernel) -> Planner {
    let mut planner = Planner::default();
    assert!(matches!(planner.poll_action(), Some(Action::Read)));
    planner.handle_present(Present::of(&kernel.listed()), 1);
    planner
}

fn piece(planner: &mut Planner) -> Piece {
    match planner.poll_action() {
        Some(Action::Commit(piece)) => piece,
        other => panic!("{other:?} instead of a piece"),
    }
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let mut kernel = Kernel::new();
    let mut planner = started(&kernel);
    planner.handle_set("a", &call(1), false).unwrap();
    assert_eq!(run(&mut planner, &mut kernel), 1);
    planner.handle_set("a", &[call(1)[1], call(1)[0]], true).unwrap();
    assert!(planner.poll_action().is_none());
    // A successor finds the flows and changes nothing.
    let before = kernel.sets.clone();
    let mut next = Planner::default();
    next.handle_set("a", &call(1), false).unwrap();
    assert_eq!((run(&mut next, &mut kernel), &kernel.sets), (0, &before));
    // One flow of the call moves, and only that flow is changed.
    next.handle_set("a", &[call(1)[0], flow(3, 2, 7, 0)], false).unwrap();
    let piece = piece(&mut next);
    assert_eq!((piece.out.flows.len(), piece.put.flows.len()), (1, 1));
}

#[test]
fn emergency_calls_come_first_and_what_is_wrong_before_what_is_new() {
    let mut kernel = Kernel::new();
    let mut planner = started(&kernel);
    planner.handle_set("moves", &call(9000), false).unwrap();
    run(&mut planner, &mut kernel);
    for n in 0..1000 {
        planner.handle_set(&format!("c{n}"), &call(n), false).unwrap();
    }
    planner.handle_set("moves", &call(9001), false).unwrap();
    planner.handle_set("help", &call(9002), true).unwrap();
    let first = piece(&mut planner);
    let put: Vec<Flow> = first.put.flows.iter().map(|(flow, _)| *flow).take(4).collect();
    assert_eq!(put, [call(9002), call(9001)].concat());
    assert!(first.put.flows.len() <= LARGEST);
    planner.handle_done(Duration::from_millis(1));
    // The rest in the order of the requests.
    assert_eq!(piece(&mut planner).put.flows[0].0, call(197)[0]);
}

#[test]
fn pieces_are_as_large_as_the_kernel_is_fast() {
    let mut planner = started(&Kernel::new());
    for n in 0..10_000 {
        planner.handle_set(&format!("c{n}"), &call(n), false).unwrap();
    }
    assert_eq!(piece(&mut planner).put.flows.len(), 400);
    planner.handle_done(Duration::from_millis(16));
    assert_eq!(piece(&mut planner).put.flows.len(), 100);
    planner.handle_done(Duration::from_millis(1));
    assert_eq!(piece(&mut planner).put.flows.len(), 126, "whole calls");
    planner.handle_done(Duration::from_secs(9));
    assert_eq!(piece(&mut planner).put.flows.len(), SMALLEST);
}

#[test]
fn a_number_that_is_given_up_rests_before_it_is_used_again() {
    let mut kernel = Kernel::new();
    let mut planner = started(&kernel);
    let mut last = None;
    for n in 0..100 {
        planner.handle_set("a", &[flow(1, 0, n + 2, 2)], false).unwrap();
        let piece = piece(&mut planner);
        kernel.commit(&piece);
        planner.handle_done(Duration::ZERO);
        let slot = of_mark(piece.put.flows[0].1).unwrap().1;
        assert!(last.is_none_or(|last: u16| last + 1 == slot));
        last = Some(slot);
    }
}

#[test]
fn the_table_is_bounded_and_full_it_still_changes() {
    let mut planner = Planner::default();
    let many = |n: usize| -> Vec<Flow> {
        (0..64_u16)
            .map(|i| Flow { from: SocketAddr::from(([10, 2, (n >> 8) as u8, n as u8], 4000 + i)), ..flow(0, 0, 1, 2) })
            .collect()
    };
    // All flows of a predecessor are unrequested, and as many others are requested.
    let flows = (0..MOST / 64).flat_map(many).zip(0..).collect();
    planner.handle_present(Present { tag: Some(1), flows, strays: Vec::new() }, 1);
    for n in 0..MOST / 64 {
        planner.handle_set(&format!("c{n}"), &many(n + 2000), false).unwrap();
    }
    assert_eq!(planner.handle_set("one more", &call(1), false), Err(NoRoom::Table));
    assert_eq!(planner.handle_set("odd", &[many(0), call(2).to_vec()].concat(), false), Err(NoRoom::Call));
    let mut there: BTreeMap<u32, Flow> =
        (0..MOST / 64).flat_map(many).zip(0..).map(|(flow, slot)| (mark(1, slot), flow)).collect();
    while let Some(Action::Commit(piece)) = planner.poll_action() {
        for (flow, mark) in &piece.out.flows {
            assert_eq!(there.remove(mark), Some(*flow));
        }
        for (flow, mark) in &piece.put.flows {
            assert_eq!(there.insert(*mark, *flow), None);
        }
        assert!(there.len() <= MAX_FLOWS);
        planner.handle_done(Duration::ZERO);
    }
    let wanted: BTreeSet<Flow> = (0..MOST / 64).flat_map(|n| many(n + 2000)).collect();
    assert_eq!(there.into_values().collect::<BTreeSet<_>>(), wanted);
}

/// The requested flows in the plainest form.
#[derive(Clone, Debug, Default)]
struct Oracle {
    owners: BTreeMap<Key, (Flow, u8)>,
    /// Every flow that was ever requested.
    ever: BTreeSet<Flow>,
}

impl Oracle {
    fn set(&mut self, call: u8, flows: &[Flow]) {
        self.owners.retain(|_, (_, owner)| *owner != call);
        for flow in flows {
            self.owners.insert((flow.from, flow.at), (*flow, call));
            self.ever.insert(*flow);
        }
    }

    fn flows(&self, call: u8) -> Vec<Flow> {
        self.owners.values().filter(|(_, owner)| *owner == call).map(|(flow, _)| *flow).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A call gets these flows, out of a few that calls compete for.
    Set(u8, Vec<Flow>, bool),
    /// The next piece comes into force after this many milliseconds.
    Piece(u64),
    /// The kernel refuses the next piece, or does not answer.
    Refused,
    /// The process ends with a piece that did or did not come into force. The next process reads the kernel's state.
    Crash(bool),
    /// The ruleset is flushed from outside.
    Flush,
    /// An element from outside.
    Stray(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = (0..6_u16, 0..2_u16, 0..6_u16, 0..2_u16, any::<bool>())
        .prop_map(|(from, at, to, source, udptl)| Flow { udptl, ..flow(from, at, 10 + to, source) });
    let set = (0..5_u8, prop::collection::vec(flow, 0..5), any::<bool>())
        .prop_map(|(call, flows, first)| Step::Set(call, flows, first));
    let step = prop_oneof![
        8 => set,
        8 => (0..30_u64).prop_map(Step::Piece),
        1 => Just(Step::Refused),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => Just(Step::Flush),
        1 => (0..10_u8, 0..40_u8).prop_map(|(set, n)| Step::Stray(set, n)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn any_interleaving_ends_at_what_is_wanted_and_passes_nothing_else(steps in steps()) {
        let (mut kernel, mut oracle) = (Kernel::new(), Oracle::default());
        // Small pieces, so that there are many.
        let small = || Planner { size: Some(2), ..Planner::default() };
        let mut planner = small();
        let mut spoilt = false;
        for step in steps {
            match step {
                Step::Set(call, flows, first) => {
                    oracle.set(call, &flows);
                    planner.handle_set(&call.to_string(), &flows, first).unwrap();
                }
                Step::Piece(ms) => match planner.poll_action() {
                    Some(Action::Read) => {
                        planner.handle_present(Present::of(&kernel.listed()), 1);
                        spoilt = false;
                    }
                    Some(Action::Commit(_)) if spoilt => planner.handle_unknown(),
                    Some(Action::Commit(piece)) => {
                        kernel.commit(&piece);
                        planner.handle_done(Duration::from_millis(ms));
                        planner.size = Some(2);
                    }
                    None => {}
                },
                Step::Refused => {
                    let _ = planner.poll_action();
                    planner.handle_unknown();
                }
                Step::Crash(done) => {
                    if let Some(Action::Commit(piece)) = planner.poll_action() && done && !spoilt {
                        kernel.commit(&piece);
                    }
                    planner = small();
                    for call in 0..5 {
                        planner.handle_set(&call.to_string(), &oracle.flows(call), call == 3).unwrap();
                    }
                }
                Step::Flush => {
                    kernel = Kernel::new();
                    spoilt = true;
                }
                Step::Stray(set, n) => {
                    // Only elements that change no packet. The flow map decides what is forwarded, and only we write
                    // it.
                    let set = usize::from(set);
                    if (2..8).contains(&set) && set % 2 == 0 || set >= 6 {
                        let key = if set < 8 { mark(1, 200 + u16::from(n)).to_ne_bytes().to_vec() } else { vec![n; if set == 8 { 16 } else { 40 }] };
                        let value = if set < 6 { vec![9; 4] } else if set < 8 { vec![9; 2] } else { Vec::new() };
                        kernel.sets[set].insert(key, value);
                    }
                }
            }
            // Each forwarded packet follows one flow that was once requested for it, completely. This host is silent
            // wherever the relay sends.
            let silent = kernel.silent();
            for ((from, at), (to, source, udptl)) in kernel.forwards() {
                let flow = Flow { from, at, to, source, udptl };
                prop_assert!(oracle.ever.contains(&flow));
                prop_assert!(silent.contains(&(source, to)));
            }
        }
        // In the end exactly the requested flows are in force.
        planner.handle_unknown();
        run(&mut planner, &mut kernel);
        let wanted: BTreeMap<Key, _> = oracle.owners.iter().map(|(key, (flow, _))| (*key, (flow.to, flow.source, flow.udptl))).collect();
        prop_assert_eq!(kernel.forwards(), wanted);
        let silent: BTreeSet<Key> = oracle.owners.values().map(|(flow, _)| (flow.source, flow.to)).collect();
        prop_assert_eq!(kernel.silent(), silent);
        let marks = oracle.owners.len();
        prop_assert!(kernel.sets[..8].iter().all(|set| set.is_empty() || set.len() == marks));
    }
}
