//! Follows the calls in etcd and tells what they are.

use super::value::Coder;
use super::{State, StoreEvent, WARN_EVERY};
use crate::calls::model::Call;
use crate::clock;
use crate::etcd::{Etcd, KeyValue, WatchEvent};
use crate::time::Time;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tracing::warn;

/// Bad values that are named one by one within [`WARN_EVERY`]; who wrote so many knows where they are.
const NAMED: usize = 10;

struct Follower {
    coder: Arc<Coder>,
    /// By key, since a lost connection has every value read again.
    bad: BTreeSet<String>,
    /// Bad values that were met, and not named, since `since`.
    met: usize,
    since: Time,
}

pub(super) async fn run(
    etcd: Etcd,
    state: Arc<Mutex<State>>,
    coder: Arc<Coder>,
    mut again: mpsc::Receiver<()>,
    tell: mpsc::Sender<StoreEvent>,
) {
    let mut watch = etcd.watch(&coder.prefix);
    let mut this = Follower { coder, bad: BTreeSet::new(), met: 0, since: clock::now() };
    loop {
        let event = tokio::select! {
            event = watch.recv() => event,
            Some(()) = again.recv() => {
                watch = etcd.watch(&this.coder.prefix);
                continue;
            }
            () = tell.closed() => None,
        };
        let Some(event) = event else { return };
        if let Some(event) = this.handle(event, &state)
            && tell.send(event).await.is_err()
        {
            return;
        }
    }
}

impl Follower {
    fn handle(&mut self, event: WatchEvent, state: &Mutex<State>) -> Option<StoreEvent> {
        let event = match event {
            WatchEvent::Snapshot { entries, .. } => {
                self.bad.clear();
                let calls: Vec<Call> = entries.iter().filter_map(|kv| self.read(kv)).collect();
                let mut state = super::lock(state);
                let exact = state.writing.is_none();
                state.queue.seen_all(entries.iter().filter_map(|kv| self.coder.id_in(&kv.key)), exact);
                state.echo.clear();
                Some(StoreEvent::Synced(calls))
            }
            WatchEvent::Put(kv) => self.coder.id_in(&kv.key).map(str::to_owned).map(|id| {
                let own = {
                    let mut state = super::lock(state);
                    state.queue.seen(&id);
                    state.echo.put(&id, &kv.value)
                };
                if let Some(call) = own {
                    self.bad.remove(&kv.key);
                    return StoreEvent::Put { call, own: true };
                }
                match self.read(&kv) {
                    Some(call) => StoreEvent::Put { call: Box::new(call), own: false },
                    None => StoreEvent::Spoiled { id },
                }
            }),
            WatchEvent::Delete { key, .. } => {
                self.bad.remove(&key);
                self.coder.id_in(&key).map(|id| {
                    let mut state = super::lock(state);
                    if state.writing.is_none() {
                        state.queue.unseen(id);
                    }
                    StoreEvent::Delete { id: id.to_owned(), own: state.echo.delete(id) }
                })
            }
        };
        // Before the event is told: who hears of it may look at the status.
        super::lock(state).status.bad_values = self.bad.len();
        event
    }

    fn read(&mut self, kv: &KeyValue) -> Option<Call> {
        match self.coder.decode(&kv.key, &kv.value) {
            Ok(call) => {
                self.bad.remove(&kv.key);
                Some(call)
            }
            Err(e) => {
                self.bad.insert(kv.key.clone());
                let now = clock::now();
                if now.since(self.since) >= WARN_EVERY {
                    (self.met, self.since) = (0, now);
                }
                self.met += 1;
                if self.met <= NAMED {
                    warn!(key = ?kv.key, "a value in etcd is skipped: {e}; or remove it with `etcdctl del {}`", kv.key);
                } else if self.met == NAMED + 1 {
                    warn!(prefix = self.coder.prefix, "more values in etcd are skipped; status counts them");
                }
                None
            }
        }
    }
}
