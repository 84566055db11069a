//! Follows the calls in etcd and reports them.

use super::value::{BadValue, Coder, Decoded, Stamp};
use super::{Keep, State, StoreEvent};
use crate::calls::model::Call;
use crate::etcd::{Etcd, KeyValue, WatchEvent};
use crate::os::clock;
use crate::sync::Locked as _;
use crate::time::{OnceAMinute, Time};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// How long known calls stay after etcd was replaced. The master stores its calls again within seconds, and without a
/// master another node has taken over by then.
const REMEMBER: Duration = Duration::from_secs(30);
/// Bad values named individually within a minute. Whoever wrote more knows where they are.
const NAMED: usize = 10;

struct Follower {
    coder: Arc<Coder>,
    /// Unusable values by key, because a lost connection makes the watch read every value again.
    bad: BTreeMap<String, BadValue>,
    /// Stamp of each call's known state.
    stamps: HashMap<String, Stamp>,
    /// Calls whose values need a rewrite.
    outdated: HashSet<String>,
    /// Counter of the etcd that was read last.
    change: Option<u64>,
    /// When calls missing from etcd are no longer kept.
    forget_at: Time,
    /// Bad values met in this minute.
    met: usize,
    minute: OnceAMinute,
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
            // A full channel means that a ring is already waiting.
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
            minute: OnceAMinute::new(),
        }
    }

    fn handle(&mut self, event: WatchEvent, state: &Mutex<State>) -> Option<StoreEvent> {
        let event = match event {
            WatchEvent::Snapshot { entries, change, .. } => {
                let mut known = std::mem::take(&mut self.stamps);
                if self.change.replace(change).is_some_and(|c| c != change) {
                    // Stamps count revisions, and a replaced etcd starts them again.
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
                        // The known state is better than the value there now.
                        None => drop(keep.insert(id)),
                    }
                }
                let mut state = state.locked();
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
                    let mut state = state.locked();
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
                    let mut state = state.locked();
                    if state.writing.is_none() {
                        state.queue.unseen(id);
                    }
                    StoreEvent::Delete { id: id.to_owned(), own: state.echo.delete(id) }
                })
            }
        };
        // Counted before the event is reported, because its receiver may look at the status.
        self.count(&mut state.locked());
        event
    }

    /// Queues the writer's copy of values that are in plain or under a former key.
    fn renew(&self, calls: &[Call], state: &mut State) {
        for call in calls.iter().filter(|c| self.outdated.contains(&c.id)) {
            // A change that waits or is in progress is newer.
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

    /// Skips a value, and names the first ones in the log.
    fn skip(&mut self, key: &str, why: BadValue) {
        if self.minute.take(clock::now()) {
            self.met = 0;
        }
        self.met += 1;
        if self.met <= NAMED {
            warn!(key, "skipping a value in etcd: {why}. `etcdctl del {key}` removes the value");
        } else if self.met == NAMED + 1 {
            warn!(prefix = self.coder.prefix, "skipping more values in etcd; `keepcall status` counts them");
        }
        self.bad.insert(key.to_owned(), why);
    }
}
