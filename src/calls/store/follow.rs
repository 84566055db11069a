//! Follows the calls in etcd and tells what they are.

use super::value::{BadValue, Coder, Decoded, Stamp};
use super::{Keep, State, StoreEvent, WARN_EVERY};
use crate::calls::model::Call;
use crate::clock;
use crate::etcd::{Etcd, KeyValue, WatchEvent};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// After etcd was found to be another one, what was known of calls stands for so long: the master stores its calls again within
/// seconds, and if there is none, another node has taken over by then.
const REMEMBER: Duration = Duration::from_secs(30);
/// Bad values that are named one by one within [`WARN_EVERY`]; who wrote so many knows where they are.
const NAMED: usize = 10;

struct Follower {
    coder: Arc<Coder>,
    /// Values that are not used, by key, since a lost connection has every value read again.
    bad: BTreeMap<String, BadValue>,
    /// When each call's known state was written.
    stamps: HashMap<String, Stamp>,
    /// Calls whose values are to be written anew.
    outdated: HashSet<String>,
    /// The etcd that was read last, counted.
    change: Option<u64>,
    /// When what is known besides what etcd tells is no longer kept.
    forget_at: Time,
    /// Bad values that were met, and not named, since `since`.
    met: usize,
    since: Time,
}

pub(super) async fn run(
    etcd: Etcd,
    state: Arc<Mutex<State>>,
    coder: Arc<Coder>,
    mut again: mpsc::Receiver<()>,
    bell: mpsc::WeakSender<()>,
    tell: mpsc::Sender<StoreEvent>,
) {
    let mut watch = etcd.watch(&coder.prefix);
    let mut this = Follower::new(coder);
    loop {
        let event = tokio::select! {
            event = watch.recv() => event,
            Some(()) = again.recv() => {
                watch = etcd.watch(&this.coder.prefix);
                continue;
            }
            () = tokio::time::sleep_until(clock::tokio_at(this.forget_at)) => {
                this.forget_at = Time::FAR;
                watch = etcd.watch(&this.coder.prefix);
                continue;
            }
            () = tell.closed() => None,
        };
        let Some(event) = event else { return };
        let told = this.handle(event, &state);
        if matches!(told, Some(StoreEvent::Synced { .. }))
            && let Some(bell) = bell.upgrade()
        {
            // Full means that a ring is waiting already.
            let _ = bell.try_send(());
        }
        if let Some(event) = told
            && tell.send(event).await.is_err()
        {
            return;
        }
    }
}

impl Follower {
    fn new(coder: Arc<Coder>) -> Self {
        Self {
            coder,
            bad: BTreeMap::new(),
            stamps: HashMap::new(),
            outdated: HashSet::new(),
            change: None,
            forget_at: Time::FAR,
            met: 0,
            since: clock::now(),
        }
    }

    fn handle(&mut self, event: WatchEvent, state: &Mutex<State>) -> Option<StoreEvent> {
        let event = match event {
            WatchEvent::Snapshot { entries, change, .. } => {
                let mut known = std::mem::take(&mut self.stamps);
                if self.change.replace(change).is_some_and(|c| c != change) {
                    // Stamps count revisions, and these begin anew.
                    known.clear();
                    self.forget_at = clock::now() + REMEMBER;
                }
                self.bad.clear();
                self.outdated.clear();
                let mut keep = BTreeSet::new();
                let mut calls = Vec::with_capacity(entries.len());
                for kv in &entries {
                    let Some(id) = self.coder.id_in(&kv.key).map(str::to_owned) else {
                        self.skip(&kv.key, BadValue::Key);
                        continue;
                    };
                    if let Some(stamp) = known.get(&id) {
                        self.stamps.insert(id.clone(), *stamp);
                    }
                    match self.read(&id, kv) {
                        Some(call) => calls.push(call),
                        // What was known of it is better than what stands there now.
                        None => drop(keep.insert(id)),
                    }
                }
                let mut state = super::lock(state);
                if state.writing.is_some() {
                    self.renew(&calls, &mut state);
                }
                let exact = state.writing.is_none();
                state.queue.seen_all(entries.iter().filter_map(|kv| self.coder.id_in(&kv.key)), exact);
                state.echo.clear();
                let keep = if self.forget_at < Time::FAR { Keep::All } else { Keep::These(keep) };
                Some(StoreEvent::Synced { calls, keep })
            }
            WatchEvent::Put(kv) if self.coder.id_in(&kv.key).is_none() => {
                self.skip(&kv.key, BadValue::Key);
                None
            }
            WatchEvent::Put(kv) => self.coder.id_in(&kv.key).map(str::to_owned).map(|id| {
                let own = {
                    let mut state = super::lock(state);
                    state.queue.seen(&id);
                    state.echo.put(&id, &kv.value)
                };
                if let Some((call, stamp)) = own {
                    self.bad.remove(&kv.key);
                    self.outdated.remove(&id);
                    self.stamps.insert(id, stamp);
                    return StoreEvent::Put { call, own: true };
                }
                match self.read(&id, &kv) {
                    Some(call) => StoreEvent::Put { call: Box::new(call), own: false },
                    None => StoreEvent::Spoiled { id },
                }
            }),
            WatchEvent::Delete { key, .. } => {
                self.bad.remove(&key);
                self.coder.id_in(&key).map(|id| {
                    self.stamps.remove(id);
                    self.outdated.remove(id);
                    let mut state = super::lock(state);
                    if state.writing.is_none() {
                        state.queue.unseen(id);
                    }
                    StoreEvent::Delete { id: id.to_owned(), own: state.echo.delete(id) }
                })
            }
        };
        // Before the event is told: who hears of it may look at the status.
        self.count(&mut super::lock(state));
        event
    }

    /// Queues the writer's own copy of values that are not as they should be: in plain, or under a former key.
    fn renew(&self, calls: &[Call], state: &mut State) {
        for call in calls.iter().filter(|c| self.outdated.contains(&c.id)) {
            // What is under way, or waits, is newer.
            if !state.echo.contains(&call.id) {
                state.queue.renew(call);
            }
        }
    }

    fn count(&self, state: &mut State) {
        let status = &mut state.status;
        status.bad_values = self.bad.len();
        status.plain_refused = self.bad.values().filter(|why| **why == BadValue::Plain).count();
        let foreign = |why: &BadValue| matches!(why, BadValue::OtherKey | BadValue::Forged | BadValue::Replayed);
        status.foreign_refused = self.bad.values().filter(|why| foreign(why)).count();
        status.outdated = self.outdated.len();
    }

    fn read(&mut self, id: &str, kv: &KeyValue) -> Option<Call> {
        let known = self.stamps.get(id).copied();
        let decoded = self.coder.decode(&kv.key, &kv.value).and_then(|d| match d.stamp {
            Some(stamp) if known.is_some_and(|k| stamp < k) => Err(BadValue::Replayed),
            _ => Ok(d),
        });
        match decoded {
            Ok(Decoded { call, stamp, outdated }) => {
                self.bad.remove(&kv.key);
                stamp.map(|s| self.stamps.insert(id.to_owned(), s));
                if outdated {
                    self.outdated.insert(id.to_owned());
                } else {
                    self.outdated.remove(id);
                }
                Some(call)
            }
            Err(e) => {
                self.skip(&kv.key, e);
                None
            }
        }
    }

    /// Leaves a value out, and tells of the first ones.
    fn skip(&mut self, key: &str, why: BadValue) {
        let now = clock::now();
        if now.since(self.since) >= WARN_EVERY {
            (self.met, self.since) = (0, now);
        }
        self.met += 1;
        if self.met <= NAMED {
            warn!(key, "a value in etcd is skipped: {why}. `etcdctl del {key}` removes it");
        } else if self.met == NAMED + 1 {
            warn!(prefix = self.coder.prefix, "more values in etcd are skipped; status counts them");
        }
        self.bad.insert(key.to_owned(), why);
    }
}
