//! The possible next steps. The head of the queue happens normally, or a fault hits it. Between two ticks anything
//! delayed, cut, frozen or killed may return. A fault costs one of the budget; a return is free.

use super::kinds::Kinds;
use super::world::{Answer, Item, NAMES, PATIENCE, World, index};
use crate::cluster::election::Election;
use crate::cluster::election::types::{Action, Cause, Failure, Fault, Request};
use crate::cluster::record::View;
use std::rc::Rc;

/// One step. The numbers are nodes, or positions in [`World::stuck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The head of the queue happens, this many times.
    Happens(u8),
    /// It is delayed: it happens later or never.
    HeldUp,
    /// It happens, and a copy is delayed.
    Twice,
    /// Two copies of it are delayed.
    TwiceHeldUp,
    /// That direction of the network carries nothing any more.
    Cut,
    /// etcd refuses the request.
    Refused,
    /// The connection breaks: the node is in doubt at once, and the request is delayed.
    Broken,
    /// The node cannot reach etcd any more.
    Unplugged,
    /// etcd serves no node any more.
    Down,
    HostCrashes,
    AgentKilled,
    Frozen,
    /// One tick passes.
    Tick,
    /// A delayed item happens.
    Released(u8),
    Mended(u8),
    Plugged(u8),
    Up,
    Started(u8),
    Thawed(u8),
    Switchover(u8),
    Stopped(u8),
    /// An operator deletes the record, or pauses or resumes the cluster.
    Deleted,
    Paused,
    Resumed,
    /// A node's priority rises above the others'.
    Preferred(u8),
    /// The holder must forget the second node.
    Forgotten(u8, u8),
}

impl Choice {
    pub(super) const fn cost(self) -> u8 {
        use Choice::{
            AgentKilled, Broken, Cut, Deleted, Down, Forgotten, Frozen, HeldUp, HostCrashes, Paused, Preferred,
            Refused, Stopped, Switchover, Twice, TwiceHeldUp, Unplugged,
        };
        match self {
            HeldUp | Twice | TwiceHeldUp | Cut | Refused | Broken | Unplugged | Down | HostCrashes | AgentKilled
            | Frozen | Switchover(_) | Stopped(_) | Deleted | Paused | Preferred(_) | Forgotten(..) => 1,
            _ => 0,
        }
    }
}

/// Faults that may hit the head of the queue.
pub(super) fn faults(w: &World, kinds: Kinds, out: &mut Vec<Choice>) {
    use Choice::{AgentKilled, Broken, Cut, Down, Frozen, HeldUp, HostCrashes, Refused, Twice, TwiceHeldUp, Unplugged};
    out.clear();
    let Some(item) = w.queue.front() else { return };
    match item {
        Item::Message { .. } if kinds.network => out.extend([HeldUp, Twice, Cut]),
        Item::Released { .. } if kinds.process => out.push(HeldUp),
        Item::Serve { request, .. } if kinds.store => {
            out.extend([HeldUp, Refused, Broken, Unplugged, Down]);
            out.extend(
                (kinds.copies && may_be_copied(w, request)).then_some([Twice, TwiceHeldUp]).into_iter().flatten(),
            );
        }
        Item::Serve { request, .. } if kinds.copies && may_be_copied(w, request) => out.extend([Twice, TwiceHeldUp]),
        Item::Renew { .. } if kinds.store => out.extend([HeldUp, Unplugged, Down]),
        Item::Served { .. } | Item::Renewed { .. } | Item::Expire { .. } if kinds.store => out.push(HeldUp),
        Item::Hint { .. } if kinds.store => out.push(HeldUp),
        _ => {}
    }
    let at_process = !matches!(item, Item::Hint { .. } | Item::Keep { .. } | Item::Released { .. });
    if kinds.process && at_process && item.reader().is_some_and(|n| w.runs(n) && !w.nodes[n].frozen) {
        out.extend([HostCrashes, AgentKilled, Frozen]);
    }
}

/// Possible steps when the tick's queue is empty; the next tick is always the last option.
pub(super) fn between(w: &World, kinds: Kinds, budget: u8, out: &mut Vec<Choice>) {
    use Choice::{
        Deleted, Forgotten, Mended, Paused, Plugged, Preferred, Released, Resumed, Started, Stopped, Switchover,
        Thawed, Tick, Up,
    };
    out.clear();
    let small = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    out.extend((0..w.stuck.len()).map(|i| Released(small(i))));
    out.extend((0..w.cut.len()).map(|i| Mended(small(i))));
    out.extend(w.down.then_some(Up));
    out.extend((kinds.deletion && budget > 0 && may_delete(w)).then_some(Deleted));
    out.extend((kinds.pause && budget > 0 && !w.store.paused).then_some(Paused));
    out.extend(w.store.paused.then_some(Resumed));
    for (i, n) in w.nodes.iter().enumerate() {
        let i = small(i);
        out.extend(n.unplugged.then_some(Plugged(i)));
        out.extend(n.frozen.then_some(Thawed(i)));
        match &n.election {
            None => out.push(Started(i)),
            Some(e) if budget > 0 && !n.frozen && !n.stopping && e.hold().is_some() => {
                if kinds.operator {
                    out.extend([Switchover(i), Stopped(i)]);
                }
                let others = || (0..w.nodes.len()).filter(|o| small(*o) != i);
                if kinds.preempt && !n.preferred {
                    out.extend(others().filter(|o| !w.nodes[*o].preferred).map(|o| Preferred(small(o))));
                }
                if kinds.forget {
                    // Requests that are refused at once are explored only on their own: elsewhere they would only widen
                    // the space.
                    let living = kinds == Kinds::FORGET;
                    out.extend(others().filter(|o| living || w.store.bound(*o) == 0).map(|o| Forgotten(i, small(o))));
                }
            }
            Some(_) => {}
        }
    }
    out.push(Tick);
}

/// Assumption 7 of `docs/election-proof.md`: each node was there before, so that none takes the next election for the
/// first.
fn may_delete(w: &World) -> bool {
    w.store.record.as_ref().is_some_and(|(_, r)| r.members.len() == w.nodes.len())
}

fn may_be_copied(w: &World, request: &Request) -> bool {
    matches!(request, Request::Commit(c) if c.may_be_copied() || w.fault() == Some(Fault::FirstCopied))
}

/// Executes one action of a node.
pub(super) fn carry_out(w: &mut World, node: usize, action: Action) {
    let boot = w.nodes[node].boot;
    match action {
        Action::Send { to, message } => {
            if let Some(to) = index(&to).filter(|to| *to < w.nodes.len()) {
                w.queue.push_back(Item::Message { from: node, to, message });
            }
        }
        Action::Store { id, request } => {
            w.nodes[node].open.push((id, w.tick + PATIENCE));
            w.queue.push_back(Item::Serve { node, boot, id, request: Rc::new(request), copied: false });
        }
        Action::Take { cause, .. } => {
            let r = &mut w.reached;
            *match cause {
                Cause::First => &mut r.first,
                Cause::Fast => &mut r.fast,
                Cause::Slow => &mut r.slow,
                Cause::Handover { .. } => &mut r.handover,
                Cause::Resumed => &mut r.resumed,
                Cause::Restarted => &mut r.restarted,
            } += 1;
        }
        Action::Drop { epoch, .. } => w.queue.push_back(Item::Released { node, boot, epoch }),
        Action::Changed | Action::Switched(_) | Action::Forgot(_) => {}
    }
}

/// Takes a step.
pub(super) fn apply(w: &mut World, choice: Choice) {
    match choice {
        Choice::Happens(n) => return (0..n).for_each(|_| happen(w)),
        Choice::Tick => {
            w.tick();
            return w.say(|_| "--".to_owned());
        }
        _ => {}
    }
    w.say(|w| match (choice, w.queue.front()) {
        (Choice::Released(i), _) => format!("{choice:?}: {}", w.stuck[usize::from(i)].1.tell()),
        (_, Some(item)) => format!("{choice:?} instead of: {}", item.tell()),
        _ => format!("{choice:?}"),
    });
    if let Some(item) = (choice.cost() > 0).then(|| w.queue.pop_front()).flatten() {
        befall(w, choice, item);
        return;
    }
    match choice {
        Choice::Released(i) => {
            let (_, item) = w.stuck.remove(usize::from(i));
            w.queue.push_back(item);
            happen(w);
        }
        Choice::Mended(i) => drop(w.cut.remove(usize::from(i))),
        Choice::Up => {
            w.down = false;
            let tick = w.tick;
            Rc::make_mut(&mut w.store).new_leader(tick);
        }
        Choice::Plugged(n) => w.nodes[usize::from(n)].unplugged = false,
        Choice::Started(n) => w.start(usize::from(n)),
        Choice::Thawed(n) => {
            let n = usize::from(n);
            w.nodes[n].frozen = false;
            let backlog = std::mem::take(&mut w.nodes[n].backlog);
            w.queue.extend(backlog);
            w.queue.push_back(Item::Hint { node: n });
            w.due(n);
        }
        Choice::Deleted | Choice::Paused | Choice::Resumed => {
            let before = w.store.revision;
            let store = Rc::make_mut(&mut w.store);
            store.revision += 1;
            match choice {
                Choice::Deleted => store.record = None,
                _ => store.paused = choice == Choice::Paused,
            }
            watched(w, before);
        }
        Choice::Preferred(n) => {
            let n = usize::from(n);
            w.nodes[n].preferred = true;
            let priority = w.nodes[n].priority();
            w.input(n, |e, now| e.set_fitness(true, priority, now));
        }
        Choice::Forgotten(by, whom) => {
            w.input(usize::from(by), |e, now| e.forget(NAMES[usize::from(whom)].to_owned(), now))
        }
        Choice::Switchover(n) => {
            w.asked = true;
            w.input(usize::from(n), |e, now| e.switchover(None, now));
        }
        Choice::Stopped(n) => {
            w.asked = true;
            w.nodes[usize::from(n)].stopping = true;
            w.input(usize::from(n), Election::stop);
        }
        _ => {}
    }
}

/// A fault hits the next item.
fn befall(w: &mut World, choice: Choice, item: Item) {
    let tick = w.tick;
    let reader = item.reader();
    match (choice, &item) {
        (Choice::Cut, Item::Message { from, to, .. }) => w.cut.push((*from, *to)),
        (Choice::Refused, Item::Serve { node, boot, id, .. }) => {
            w.queue.push_back(Item::Served { node: *node, boot: *boot, id: *id, answer: Err(Failure::Definite) });
        }
        (Choice::Broken, Item::Serve { node, id, .. }) => {
            let (node, id) = (*node, *id);
            w.stuck.push((tick, item));
            w.queue.push_back(Item::GiveUp { node, id });
        }
        (Choice::Unplugged, Item::Serve { node, .. } | Item::Renew { node, .. }) => w.nodes[*node].unplugged = true,
        (Choice::Down, _) => w.down = true,
        (Choice::Twice | Choice::TwiceHeldUp, _) => {
            let mut item = item;
            if let Item::Serve { copied, .. } = &mut item {
                *copied = true;
            }
            w.stuck.push((tick, item.clone()));
            if choice == Choice::TwiceHeldUp {
                w.stuck.push((tick, item));
            } else {
                w.queue.push_front(item);
                happen(w);
            }
        }
        // A late hint equals the next poll.
        (Choice::HeldUp, Item::Hint { .. }) => {}
        (Choice::HeldUp, _) => w.stuck.push((tick, item)),
        (Choice::HostCrashes | Choice::AgentKilled, _) => {
            if let Some(n) = reader {
                w.kill(n, choice == Choice::HostCrashes);
            }
        }
        (Choice::Frozen, _) => {
            if let Some(n) = reader {
                w.nodes[n].frozen = true;
                w.queue.push_front(item);
                happen(w);
            }
        }
        _ => {}
    }
}

/// The head of the queue happens.
fn happen(w: &mut World) {
    let Some(item) = w.queue.pop_front() else { return };
    if let Some(n) = item.reader().filter(|n| w.nodes[*n].frozen) {
        // Its timers are checked again when it runs again.
        if !matches!(item, Item::Wake { .. } | Item::Keep { .. } | Item::Hint { .. } | Item::GiveUp { .. }) {
            w.nodes[n].backlog.push(item);
        }
        return;
    }
    w.say(|_| format!("   {}", item.tell()));
    let reachable = |w: &World, node: usize| !w.down && !w.nodes[node].unplugged;
    let before = w.store.revision;
    match item {
        Item::Wake { node } => w.input(node, Election::handle_timeout),
        Item::Hint { node } => w.input(node, Election::hint),
        Item::Keep { node } if w.runs(node) => w.keep(node),
        Item::GiveUp { node, id } => answer(w, node, id, |e, now| e.handle_failure(id, Failure::InDoubt, now)),
        Item::Released { node, boot, epoch } if w.is_current(node, boot) => {
            w.input(node, |e, now| e.released(epoch, now))
        }
        Item::Message { from, to, .. } if w.cut.contains(&(from, to)) => {}
        Item::Message { from, to, message } => w.input(to, |e, now| e.handle_message(NAMES[from], message, now)),
        Item::Serve { node, boot, id, request, copied } if reachable(w, node) => {
            let ticket = matches!(*request, Request::Ticket(_));
            let reply = Rc::make_mut(&mut w.store).serve(node, &request);
            let answer = said(&request, reply, copied && w.fault() != Some(Fault::CopyRefusal));
            w.queue.push_back(Item::Served { node, boot, id, answer });
            w.watch_record();
            if !ticket {
                watched(w, before);
            }
        }
        Item::Served { node, boot, id, answer: reply } if w.is_current(node, boot) => {
            answer(w, node, id, |e, now| match reply {
                Ok((ok, view)) => e.handle_reply(id, ok, Rc::unwrap_or_clone(view), now),
                Err(failure) => e.handle_failure(id, failure, now),
            })
        }
        Item::Renew { node, boot, sent, lease: asked, base } if reachable(w, node) => {
            let tick = w.tick;
            let store = Rc::make_mut(&mut w.store);
            let lease = match asked {
                Some(id) => store.keep_alive(id, tick).then_some(id),
                None => store.grant(node, base, tick),
            };
            w.queue.push_back(Item::Renewed { node, boot, sent, asked, lease });
            watched(w, before);
        }
        Item::Renewed { node, boot, sent, asked, lease } if super::items::is_waited_for(w, node, boot, sent) => {
            w.renewed(node, sent, asked, lease);
        }
        Item::Expire { lease } if !w.down => {
            let tick = w.tick;
            if w.store.leases.iter().any(|l| l.0 == lease && l.1 <= tick) {
                Rc::make_mut(&mut w.store).revoke(lease);
                watched(w, before);
            }
        }
        _ => {}
    }
}

/// The driver's reading of etcd's answer. `copied`: another copy of the request may still arrive.
fn said(request: &Request, reply: Option<(bool, View)>, copied: bool) -> Answer {
    match (request, reply) {
        (Request::Commit(c), Some((ok, view))) if copied => {
            c.outcome(ok, true, &view).answer(view).map(|(ok, v)| (ok, Rc::new(v)))
        }
        (_, Some((ok, view))) => Ok((ok, Rc::new(view))),
        (_, None) => Err(if copied { Failure::InDoubt } else { Failure::Definite }),
    }
}

/// Delivers an answer, if the node still waits for it.
fn answer(w: &mut World, node: usize, id: u64, f: impl FnOnce(&mut Election, crate::time::Time)) {
    let open = &mut w.nodes[node].open;
    if let Some(at) = open.iter().position(|o| o.0 == id) {
        open.remove(at);
        w.input(node, f);
    }
}

/// Watches report a change to all nodes.
fn watched(w: &mut World, before: i64) {
    if w.store.revision != before {
        let told: Vec<usize> = (0..w.nodes.len()).filter(|n| w.runs(*n) && !w.nodes[*n].unplugged).collect();
        w.queue.extend(told.into_iter().map(|node| Item::Hint { node }));
    }
}
