//! Explores everything possible from a start state with this many faults in this many ticks, each state once, earliest
//! first.

use super::choices::{Choice, apply, between, faults};
use super::items::is_dead;
use super::kinds::Kinds;
use super::reached::Reached;
use super::world::World;
use std::collections::{HashMap, VecDeque};

/// The space to explore.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Most faults on any path.
    pub(super) faults: u8,
    /// Number of ticks from the start.
    pub(super) ticks: u32,
    pub(super) kinds: Kinds,
    /// Number of states beyond which the search gives up, and reports it.
    pub(super) limit: usize,
}

/// Result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Different states between ticks.
    pub(super) states: usize,
    /// Steps taken, each checked.
    pub(super) steps: u64,
    pub(super) reached: Reached,
    /// A path to two holders at one instant, with the fewest ticks.
    pub(super) bad: Option<Vec<Choice>>,
    /// Whether the search covered the whole space.
    pub(super) complete: bool,
    /// Completely covered ticks from the start.
    pub(super) ticks: u32,
}

struct Search {
    plan: Plan,
    found: Found,
    /// Most faults left at a visit of the state. No earlier visit was at a later tick than the next.
    met: HashMap<u128, u8>,
    /// Each state's origin: the state before, and the steps from there.
    paths: Vec<(u32, Box<[Choice]>)>,
    end: u32,
}

/// A state in the middle of a tick.
struct Open {
    world: World,
    left: u8,
    steps: Vec<Choice>,
}

type State = (World, u8, u32);

pub(super) fn search(start: &World, plan: Plan) -> Found {
    let mut s = Search {
        plan,
        found: Found { complete: true, ..Found::default() },
        met: HashMap::new(),
        paths: vec![(0, Box::new([]))],
        end: start.tick + plan.ticks,
    };
    let mut now: VecDeque<State> = VecDeque::new();
    let mut next: VecDeque<State> = VecDeque::new();
    let first = Open { world: start.clone(), left: plan.faults, steps: Vec::new() };
    s.finish_tick(first, 0, &start.reached, &mut now);
    let mut options = Vec::new();
    while s.found.bad.is_none() && s.found.complete {
        let Some((world, left, id)) = now.pop_front() else {
            if next.is_empty() {
                break;
            }
            s.found.ticks += 1;
            std::mem::swap(&mut now, &mut next);
            continue;
        };
        between(&world, plan.kinds, left, &mut options);
        for choice in options.drain(..) {
            let last = choice == Choice::Tick;
            if last && world.tick >= s.end {
                continue;
            }
            let mut w = world.clone();
            apply(&mut w, choice);
            s.found.steps += 1;
            let open = Open { world: w, left: left - choice.cost(), steps: vec![choice] };
            s.finish_tick(open, id, &world.reached, if last { &mut next } else { &mut now });
        }
    }
    s.found.states = s.met.len();
    s.found
}

impl Search {
    /// Empties the queue in each way that the budget allows, and keeps the new states.
    fn finish_tick(&mut self, first: Open, from: u32, before: &Reached, out: &mut VecDeque<State>) {
        let (mut stack, mut options) = (vec![first], Vec::new());
        while let Some(mut o) = stack.pop() {
            loop {
                if o.world.is_bad() {
                    let mut path = self.path(from);
                    path.append(&mut o.steps);
                    // Breadth first over ticks, so no other path is shorter in time. Of one tick's paths, the one with
                    // fewer steps is kept.
                    if self.found.bad.as_ref().is_none_or(|b| path.len() < b.len()) {
                        self.found.bad = Some(path);
                    }
                    break;
                }
                if o.world.queue.is_empty() {
                    self.keep(o, from, before, out);
                    break;
                }
                if o.left > 0 {
                    faults(&o.world, self.plan.kinds, &mut options);
                    for choice in options.drain(..) {
                        let mut branch =
                            Open { world: o.world.clone(), left: o.left - choice.cost(), steps: o.steps.clone() };
                        apply(&mut branch.world, choice);
                        branch.steps.push(choice);
                        self.found.steps += 1;
                        stack.push(branch);
                    }
                }
                apply(&mut o.world, Choice::Happens(1));
                self.found.steps += 1;
                match o.steps.last_mut() {
                    Some(Choice::Happens(n)) if *n < u8::MAX => *n += 1,
                    _ => o.steps.push(Choice::Happens(1)),
                }
            }
        }
    }

    fn keep(&mut self, mut o: Open, from: u32, before: &Reached, out: &mut VecDeque<State>) {
        self.found.reached.add(&o.world.reached, before);
        let deletable = self.plan.kinds.deletion && o.left > 0;
        prune(&mut o.world);
        let best = self.met.entry(o.world.fingerprint(deletable)).or_insert(u8::MAX);
        if *best != u8::MAX && *best >= o.left {
            return;
        }
        *best = o.left;
        if self.met.len() > self.plan.limit {
            self.found.complete = false;
        }
        let Ok(id) = u32::try_from(self.paths.len()) else {
            self.found.complete = false;
            return;
        };
        self.paths.push((from, o.steps.into_boxed_slice()));
        out.push_back((o.world, o.left, id));
    }

    fn path(&self, mut id: u32) -> Vec<Choice> {
        let mut parts = Vec::new();
        while id != 0 {
            let (before, steps) = &self.paths[id as usize];
            parts.push(steps);
            id = *before;
        }
        parts.into_iter().rev().flat_map(|s| s.iter().copied()).collect()
    }
}

/// Drops delayed items without any further effect.
fn prune(w: &mut World) {
    let stuck = std::mem::take(&mut w.stuck);
    w.stuck = stuck.into_iter().filter(|(since, item)| !is_dead(w, *since, item)).collect();
}

/// Replays the path and describes it in words.
pub(super) fn tell(start: &World, path: &[Choice]) -> String {
    let mut w = start.clone();
    w.log = Some(Vec::new());
    for choice in path {
        apply(&mut w, *choice);
        if w.queue.is_empty() {
            prune(&mut w);
        }
    }
    let holders: Vec<_> = w.holders().map(|n| super::world::NAMES[n]).collect();
    let lines = w.log.unwrap_or_default().join("\n");
    format!("{lines}\nholders now: {holders:?}, wrong: {:?}\nto replay: {path:?}", w.wrong)
}
