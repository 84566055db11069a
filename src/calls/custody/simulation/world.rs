//! The model's world, and the rules that each decision is held against.

use super::*;
use crate::calls::custody::tests::{a_call, carried};
use crate::calls::store::{Keep, StoreEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest life of a call without signalling, in hours: nothing is removed before.
const SILENT_HOURS: u64 = 24;
const ME: &str = "a";
const OTHER: &str = "b";

/// What this node's tracker and engine have.
#[derive(Default)]
struct Kept {
    tracker: BTreeMap<String, Call>,
    engine: BTreeSet<String>,
}

impl Keepers for Kept {
    fn followed(&self) -> HashSet<&str> {
        self.tracker.keys().map(String::as_str).collect()
    }

    fn state(&self, id: &str) -> Option<Call> {
        self.tracker.get(id).cloned()
    }

    fn carries(&self, id: &str) -> bool {
        self.engine.contains(id)
    }
}

pub(super) struct World {
    custody: Custody,
    fault: Option<Fault>,
    kept: Kept,
    now: Time,
    etcd: BTreeMap<String, Call>,
    events: VecDeque<StoreEvent>,
    master: Option<&'static str>,
    last_master: Option<&'static str>,
    epoch: u64,
    begun: usize,
    process_ms: u64,
    /// Calls of the local server whose process has ended.
    dead: BTreeSet<String>,
    /// The server's verdict, as the checks said it last.
    working: Option<bool>,
    /// Since the take nobody has told whether the server works, or the calls are not read yet.
    own_unknown: bool,
    synced: bool,
    /// No other node was master between this node's last two times.
    resumed: bool,
    /// Calls that began and that nobody who may has ended: somebody must have each.
    owed: BTreeSet<String>,
    /// When a call was last with a keeper of this node, or became known to it.
    last_kept: BTreeMap<String, Time>,
    armed: BTreeSet<String>,
    /// The first rule that was broken.
    pub(super) wrong: Option<String>,
}

impl World {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        let mut world = Self {
            custody: Custody::new(ME, 1_000, false),
            fault,
            kept: Kept::default(),
            now: Time::from_millis(1_000),
            etcd: BTreeMap::new(),
            events: VecDeque::new(),
            master: None,
            last_master: None,
            epoch: 0,
            begun: 0,
            process_ms: 1,
            dead: BTreeSet::new(),
            working: None,
            own_unknown: false,
            synced: false,
            resumed: false,
            owed: BTreeSet::new(),
            last_kept: BTreeMap::new(),
            armed: BTreeSet::new(),
            wrong: None,
        };
        world.start();
        world
    }

    /// A new process: it reads all calls first.
    fn start(&mut self) {
        self.custody = Custody::new(ME, 1_000, false);
        self.custody.fault = self.fault;
        self.custody.handle_mode(true);
        self.kept = Kept::default();
        self.armed.clear();
        self.act();
        (self.synced, self.own_unknown, self.working) = (false, false, None);
        let calls = self.etcd.values().cloned().collect();
        self.events = VecDeque::from([StoreEvent::Synced { calls, keep: Keep::These(BTreeSet::new()) }]);
    }

    fn ms(&self) -> u64 {
        self.now.since(Time::ZERO).as_millis().try_into().unwrap()
    }

    fn rule(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn nth(set: impl ExactSizeIterator<Item = String>, n: usize) -> Option<String> {
        let len = set.len();
        set.into_iter().nth(n.checked_rem(len)?)
    }

    /// A write to etcd, and its event.
    fn write(&mut self, call: Call, own: bool) {
        self.etcd.insert(call.id.clone(), call.clone());
        self.events.push_back(StoreEvent::Put { call: Box::new(call), own });
    }

    fn erase(&mut self, id: &str, own: bool) {
        if self.etcd.remove(id).is_some() {
            self.events.push_back(StoreEvent::Delete { id: id.to_owned(), own });
        }
    }

    /// Carries the decisions out, and holds each against the rules.
    fn act(&mut self) {
        while let Some(action) = self.custody.poll_action() {
            let me = self.master == Some(ME);
            match action {
                Action::Adopt(call) => {
                    let id = call.id.clone();
                    self.rule(me, || format!("a standby adopts {id}"));
                    let unknown = self.own_unknown;
                    self.rule(!unknown, || format!("{id} is adopted before it is known who has it"));
                    let carried = self.kept.engine.contains(&id);
                    self.rule(!carried, || format!("{id} is adopted although the engine carries it"));
                    self.kept.tracker.entry(id).or_insert(call);
                }
                Action::Recover(calls) => calls.into_iter().for_each(|call| self.recover(call)),
                Action::RecoverOrphans(ids) => {
                    self.rule(me, || format!("a standby recovers {ids:?}"));
                    for id in ids {
                        let dead = self.dead.contains(&id);
                        self.rule(dead, || format!("{id} is recovered although its server lives"));
                        if let Some(call) = self.kept.tracker.remove(&id) {
                            self.recover(call);
                        }
                    }
                }
                Action::Store(event) => {
                    self.rule(me, || format!("a standby writes {event:?}"));
                    match event {
                        CallEvent::Put(call) => self.write(*call, true),
                        CallEvent::Delete { id, reason } => self.removed(&id, reason),
                    }
                }
                Action::Arm(ids) => {
                    self.rule(!me, || "a master arms like a standby".to_owned());
                    for id in ids {
                        if self.custody.stored().contains(&id) {
                            self.armed.insert(id)
                        } else {
                            self.armed.remove(&id)
                        };
                    }
                }
                Action::FindOrphans { since_ms } => {
                    let followed = self.kept.tracker.values().filter(|call| call.confirmed_ms < since_ms);
                    let found = followed.map(|call| call.id.clone()).filter(|id| self.dead.contains(id)).collect();
                    self.custody.handle_orphans(found, self.now);
                }
                Action::Release(_) | Action::TakeRelay | Action::Complete | Action::ReadAgain | Action::Tell(_) => {}
            }
        }
        let now = self.now;
        for id in self.kept.tracker.keys().chain(&self.kept.engine) {
            self.last_kept.insert(id.clone(), now);
        }
    }

    fn recover(&mut self, call: Call) {
        let id = call.id.clone();
        let own = self.resumed && call.node == ME && !call.legs[0].carried && !self.dead.contains(&id);
        let has = self.own_unknown || self.working == Some(true);
        self.rule(!(own && has), || format!("{id} is recovered although the local server may have it"));
        let (me, followed) = (self.master == Some(ME), self.kept.tracker.contains_key(&id));
        self.rule(me, || format!("a standby recovers {id}"));
        self.rule(!followed, || format!("{id} is recovered although the tracker follows it"));
        if self.kept.engine.insert(id) {
            // Both parties have answered, and the engine stores what it carries.
            self.write(Call { node: ME.into(), epoch: self.epoch, ..carried(call) }, true);
        }
    }

    fn removed(&mut self, id: &str, reason: &str) {
        let unknown = self.own_unknown || !self.synced;
        self.rule(!unknown, || format!("{id} is removed before its keeper is known: {reason}"));
        if reason.contains("carries") {
            let alone = self.last_kept.get(id).map_or(Duration::ZERO, |at| self.now.since(*at));
            let long = alone >= Duration::from_secs(SILENT_HOURS * 3600);
            self.rule(long, || format!("{id} is removed after {alone:?}"));
            self.owed.remove(id);
        }
        self.erase(id, true);
    }

    /// The other node holds the addresses: it recovers what is stored.
    fn other_takes(&mut self) {
        (self.master, self.last_master) = (Some(OTHER), Some(OTHER));
        self.epoch += 1;
        for call in self.etcd.clone().into_values() {
            self.write(Call { node: OTHER.into(), epoch: self.epoch, ..carried(call) }, false);
        }
    }

    fn deliver(&mut self, n: usize) {
        let events: Vec<_> = self.events.drain(..n.min(self.events.len())).collect();
        if events.is_empty() {
            return;
        }
        for event in &events {
            self.synced |= matches!(event, StoreEvent::Synced { .. });
            if let StoreEvent::Synced { calls, .. } = event {
                calls.iter().for_each(|call| _ = self.last_kept.insert(call.id.clone(), self.now));
            } else if let StoreEvent::Put { call, .. } = event {
                self.last_kept.insert(call.id.clone(), self.now);
            }
        }
        self.know();
        self.custody.handle_stored(events, &self.kept, self.now);
        self.act();
    }

    fn know(&mut self) {
        self.own_unknown &= !(self.synced && self.working.is_some());
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Take if self.master != Some(ME) => {
                let resumed = self.last_master == Some(ME);
                self.epoch += u64::from(!resumed);
                (self.master, self.last_master) = (Some(ME), Some(ME));
                (self.own_unknown, self.resumed) = (resumed, resumed);
                self.custody.take(self.epoch, resumed, self.now);
                self.act();
                self.know();
                self.custody.settle_own(&self.kept);
                self.act();
            }
            Step::Drop(taken) if self.master == Some(ME) => {
                self.master = None;
                self.kept = Kept::default();
                self.own_unknown = false;
                self.armed.clear();
                self.custody.drop_role();
                self.act();
                if taken {
                    self.other_takes();
                }
            }
            Step::Restart => {
                self.master = self.master.filter(|node| *node != ME);
                self.start();
            }
            Step::Begin => self.begin(),
            Step::End(n) => self.end(n),
            Step::Server { working, other_process } => {
                if other_process {
                    self.process_ms = self.ms();
                    let own = self.etcd.values().filter(|call| call.node == ME && !call.legs[0].carried);
                    self.dead.extend(own.map(|call| call.id.clone()));
                }
                self.working = Some(working);
                self.know();
                let server =
                    LocalServer { working: Some(working), since_ms: Some(self.process_ms), stays: other_process };
                self.custody.handle_server(server, &self.kept);
                self.act();
            }
            // Of a call that nobody here has, a stranger's deed cannot be told from the last one of a former process.
            Step::Delete(n) | Step::Spoil(n) | Step::Overwrite(n)
                if self.master == Some(ME) && self.events.is_empty() =>
            {
                let kept = self.owed.iter().filter(|id| self.kept.tracker.contains_key(*id) || self.kept.carries(id));
                let kept: Vec<String> = kept.cloned().collect();
                let Some(id) = Self::nth(kept.into_iter(), n) else { return };
                match step {
                    Step::Delete(_) => self.erase(&id, false),
                    Step::Spoil(_) => {
                        self.etcd.remove(&id);
                        self.events.push_back(StoreEvent::Spoiled { id });
                    }
                    _ => {
                        let mut call = Call { epoch: self.epoch + 7, ..a_call(&id) };
                        call.legs.truncate(1);
                        self.write(call, false);
                    }
                }
                // A master that is gone before it learns of this leaves nobody who knows better.
                self.deliver(1);
            }
            Step::Restore(n)
                if self.master == Some(ME)
                    && !self.own_unknown
                    && self.events.is_empty()
                    && self.owed.iter().all(|id| self.kept.tracker.contains_key(id) || self.kept.carries(id)) =>
            {
                let gone = Self::nth(self.etcd.keys().cloned().collect::<Vec<_>>().into_iter(), n);
                gone.into_iter().for_each(|id| _ = self.etcd.remove(&id));
                let former = Call { node: OTHER.into(), ..a_call(&format!("former{n}")) };
                self.etcd.insert(former.id.clone(), former);
                let calls = self.etcd.values().cloned().collect();
                self.events.push_back(StoreEvent::Synced { calls, keep: Keep::All });
                self.deliver(1);
            }
            Step::Deliver(n) => self.deliver(n),
            Step::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Step::Settle => self.settle(),
            _ => {}
        }
    }

    fn begin(&mut self) {
        let Some(master) = self.master else { return };
        self.begun += 1;
        let id = format!("c{:03}", self.begun);
        let call = Call { node: master.into(), epoch: self.epoch, confirmed_ms: self.ms(), ..a_call(&id) };
        self.owed.insert(id.clone());
        if master == ME {
            self.kept.tracker.insert(id, call.clone());
        }
        self.write(call, master == ME);
    }

    /// A party hangs up: whoever has the call removes it.
    fn end(&mut self, n: usize) {
        let Some(id) = Self::nth(self.owed.clone().into_iter(), n) else { return };
        let ours = self.kept.tracker.remove(&id).is_some() | self.kept.engine.remove(&id);
        if ours || self.master == Some(OTHER) {
            self.owed.remove(&id);
            self.erase(&id, ours);
        }
    }

    /// Time passes, and what is due is done.
    fn wait(&mut self, time: Duration) {
        // etcd's news may take a second, and not hours.
        while time > Duration::from_secs(2) && !self.events.is_empty() {
            self.deliver(usize::MAX);
        }
        let end = self.now + time;
        // Each look is due after a minute, so this is bounded.
        while let Some(due) = self.custody.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.custody.handle_timeout(&self.kept, self.now);
            self.act();
        }
        self.now = end;
        self.act();
    }

    /// Whatever is under way arrives. Then every owed call is stored, and is with one keeper; a standby has it armed.
    fn settle(&mut self) {
        if self.master == Some(ME) && self.working.is_none() {
            self.step(&Step::Server { working: true, other_process: false });
        }
        while !self.events.is_empty() {
            self.deliver(usize::MAX);
        }
        self.wait(Duration::from_secs(4));
        // A write that was under way when this node lost the addresses, and is master again before it hears of it: the
        // tracker follows the call again after two looks.
        self.books(|call| call.node != ME);
        self.wait(Duration::from_secs(240));
        self.books(|_| true);
    }

    fn books(&mut self, now: impl Fn(&Call) -> bool) {
        while !self.events.is_empty() {
            self.deliver(usize::MAX);
        }
        let master = self.master;
        for id in self.owed.clone() {
            let Some(call) = self.etcd.get(&id).cloned() else {
                return self.rule(false, || format!("{id} is lost; master {master:?}"));
            };
            let mirrored = self.custody.stored().contains(&id);
            self.rule(mirrored, || format!("{id} is not known; master {master:?}"));
            self.rule(call.legs.len() == 2, || format!("{id} is as a stranger left it"));
            let (kept, armed) =
                (self.kept.followed().contains(&*id) || self.kept.carries(&id), self.armed.contains(&id));
            match master {
                Some(ME) => self.rule(kept || !now(&call), || format!("nobody has {id}")),
                _ => self.rule(armed, || format!("{id} is not armed")),
            }
        }
    }
}
