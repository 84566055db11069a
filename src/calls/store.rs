//! Calls in etcd: written by the master, followed by everyone. The driver around `queue` and `value`.

mod queue;
mod value;

pub use value::{BadValue, prefix};

use super::model::{Call, CallEvent};
use crate::etcd::{Compare, Etcd, EtcdError, KeyValue, Op, WatchEvent};
use queue::{Change, Queue};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long changes are collected before they are written: well under the 50 ms that the stored state may be behind, and long enough
/// that the messages of one call set-up make one write.
const COLLECT: Duration = Duration::from_millis(10);
/// Pause after a failed write: the first, and the longest; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Bad values of one full read that are named one by one; who wrote so many knows where they are.
const NAMED: usize = 10;
/// Events that wait for a slow reader; beyond it the watch waits, and etcd keeps the rest.
const EVENTS: usize = 256;

/// What the store tells.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEvent {
    /// A call was stored, or its stored state changed.
    Put(Box<Call>),
    /// A call was removed.
    Delete {
        /// [`Call::id`].
        id: String,
    },
    /// The stored value cannot be used any more: somebody else wrote it.
    Spoiled {
        /// [`Call::id`].
        id: String,
    },
    /// A full read: these calls replace everything that was told before.
    Synced(Vec<Call>),
}

/// Why not everything is known to be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushError {
    /// It took too long.
    #[error("{pending} changed calls could not be written to etcd in time{}", last_error.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Late {
        /// Calls whose newest state is not known to be written.
        pending: usize,
        /// What etcd said last, if it failed.
        last_error: Option<String>,
    },
    /// The guard did not hold: this node may not write any more.
    #[error("this node is no longer allowed to write the calls of the instance")]
    Refused,
    /// The store's task has ended.
    #[error("the call store has stopped")]
    Stopped,
}

/// Numbers for status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Calls whose newest state is not known to be written.
    pub pending: usize,
    /// Changes that found no room while etcd was away.
    pub dropped: u64,
    /// Values that are in etcd and cannot be used.
    pub bad_values: usize,
    /// Writes that etcd refused because the guard did not hold.
    pub refused: u64,
    /// What etcd said last, if the last write failed.
    pub last_error: Option<String>,
}

struct State {
    queue: Queue,
    guard: Vec<Compare>,
    /// Counts changes of the guard: a batch that an older guard refused says nothing of the new one.
    guard_version: u64,
    refused_now: bool,
    status: StoreStatus,
}

/// Writes and follows the calls of one instance.
pub struct Store;

/// The way to write. Clones write to the same queue; when the last is dropped, what is pending is tried once more and the writer ends.
#[derive(Clone)]
pub struct StoreHandle {
    state: Arc<Mutex<State>>,
    bell: mpsc::Sender<()>,
    /// Bumped after each batch, written or not.
    progress: watch::Receiver<u64>,
}

impl Store {
    /// Starts following and writing the calls of `instance`; at most `max_calls` changed calls are kept while etcd is away. Must be called inside a
    /// tokio runtime.
    #[must_use]
    pub fn start(etcd: Etcd, cluster: &str, instance: &str, max_calls: usize) -> (StoreHandle, mpsc::Receiver<StoreEvent>) {
        let state = Arc::new(Mutex::new(State {
            queue: Queue::new(max_calls),
            guard: Vec::new(),
            guard_version: 0,
            refused_now: false,
            status: StoreStatus::default(),
        }));
        let prefix = prefix(cluster, instance);
        // One ring is enough: the writer looks at the whole queue.
        let (bell, rung) = mpsc::channel(1);
        let (done, progress) = watch::channel(0);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(follow(etcd.watch(&prefix), Arc::clone(&state), prefix.clone(), instance.to_owned(), tell));
        tokio::spawn(write(etcd, Arc::clone(&state), prefix, rung, done));
        (StoreHandle { state, bell, progress }, events)
    }
}

impl StoreHandle {
    /// Takes a change to write; never waits. Changes of the same call replace each other until they are written.
    pub fn apply(&self, event: CallEvent) {
        let kept = lock(&self.state).queue.push(event);
        if !kept {
            tracing::warn!("a changed call was not stored: too many wait for etcd; raise max_calls or check etcd");
        }
        // Full means that a ring is waiting already.
        let _ = self.bell.try_send(());
    }

    /// Conditions under which this node may write: they go into every transaction from now on. While one does not hold, nothing
    /// is written, so that a master that was replaced cannot overwrite its successor's state; what is pending waits for another
    /// guard, or for [`StoreHandle::forget_pending`].
    pub fn guard(&self, compares: Vec<Compare>) {
        let mut state = lock(&self.state);
        state.guard = compares;
        state.guard_version += 1;
        state.refused_now = false;
        drop(state);
        let _ = self.bell.try_send(());
    }

    /// Whether etcd refused the last write because the guard did not hold.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        lock(&self.state).refused_now
    }

    /// Throws away what is not written yet: this node has lost the instance. How many changes that were. A write that is under way
    /// may still succeed, if the guard holds; it is not repeated.
    pub fn forget_pending(&self) -> usize {
        lock(&self.state).queue.clear()
    }

    /// Waits until everything was written, at most for `within`.
    ///
    /// # Errors
    /// See [`FlushError`]; what is pending is still tried afterwards.
    pub async fn flush(&self, within: Duration) -> Result<(), FlushError> {
        let mut progress = self.progress.clone();
        let _ = self.bell.try_send(());
        let all = async {
            loop {
                // Marked seen before the look, so that a batch that ends in between is not missed.
                progress.borrow_and_update();
                {
                    let state = lock(&self.state);
                    if state.refused_now {
                        return Err(FlushError::Refused);
                    }
                    if state.queue.len() == 0 {
                        return Ok(());
                    }
                }
                progress.changed().await.map_err(|_| FlushError::Stopped)?;
            }
        };
        match tokio::time::timeout(within, all).await {
            Ok(result) => result,
            Err(_) => {
                let status = self.status();
                Err(FlushError::Late { pending: status.pending, last_error: status.last_error })
            }
        }
    }

    /// Numbers for status.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let state = lock(&self.state);
        StoreStatus { pending: state.queue.len(), dropped: state.queue.dropped, ..state.status.clone() }
    }
}

/// No code panics while it holds the lock, and the state is whole after each statement; so a poisoned lock is still good.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(etcd: Etcd, state: Arc<Mutex<State>>, prefix: String, mut rung: mpsc::Receiver<()>, done: watch::Sender<u64>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let open = rung.recv().await.is_some();
        if open {
            tokio::time::sleep(COLLECT).await;
        }
        loop {
            let (batch, guard, version) = {
                let mut state = lock(&state);
                // A call's size is not known before it is encoded; its descriptions are nearly all of it, and base64 or escapes may double them.
                let batch = state.queue.take(|c| match c {
                    Change::Put(call) => 4096 + 2 * call.legs.iter().map(|leg| descriptions(leg)).sum::<usize>(),
                    Change::Delete => 128,
                });
                (batch, state.guard.clone(), state.guard_version)
            };
            if batch.is_empty() {
                done.send_modify(|n| *n += 1);
                break;
            }
            let ops = batch.iter().filter_map(|(id, change)| op(&prefix, id, change)).collect();
            let result = etcd.txn(guard, ops, Vec::new()).await;
            let failed = settle(&state, batch, version, result);
            done.send_modify(|n| *n += 1);
            if !failed {
                pause = FIRST_PAUSE;
            } else if !open {
                // Nobody waits any more; the backups keep what was stored.
                break;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
        if !open {
            return;
        }
    }
}

fn descriptions(leg: &super::model::Leg) -> usize {
    leg.sdp_sent.iter().chain(&leg.sdp_received).map(|s| s.body.0.len()).sum()
}

fn op(prefix: &str, id: &str, change: &Change) -> Option<Op> {
    let key = format!("{prefix}{id}");
    Some(match change {
        Change::Delete => Op::Delete(key),
        // Encoding plain structs with string keys does not fail; were it to, one call would be missing and the others not.
        Change::Put(call) => Op::Put { key, value: serde_json::to_vec(call).ok()?, lease: 0 },
    })
}

/// Books the result of a batch; `true` if it has to be tried again.
fn settle(
    state: &Mutex<State>,
    batch: Vec<(String, Change)>,
    version: u64,
    result: Result<crate::etcd::TxnReply, EtcdError>,
) -> bool {
    let mut state = lock(state);
    match result {
        Ok(reply) if reply.succeeded => {
            state.queue.done();
            state.status.last_error = None;
            false
        }
        Ok(_) if version != state.guard_version => {
            state.queue.put_back(batch);
            false
        }
        Ok(_) => {
            state.status.refused += 1;
            if !state.refused_now {
                tracing::warn!(
                    changes = batch.len(),
                    "etcd no longer lets this node write the calls of the instance: another node is named as their writer"
                );
            }
            state.refused_now = true;
            state.queue.put_back(batch);
            true
        }
        Err(e) => {
            if state.status.last_error.is_none() {
                tracing::warn!(error = %e, "cannot store calls; their newest state is kept and tried again");
            }
            state.status.last_error = Some(e.to_string());
            state.queue.put_back(batch);
            true
        }
    }
}

async fn follow(
    mut watch: mpsc::Receiver<WatchEvent>,
    state: Arc<Mutex<State>>,
    prefix: String,
    instance: String,
    tell: mpsc::Sender<StoreEvent>,
) {
    // By key, since a lost connection has every value read again.
    let mut bad_keys = BTreeSet::new();
    let read =
        |bad: &mut BTreeSet<String>, kv: &KeyValue, complain: bool| match value::decode(&prefix, &instance, &kv.key, &kv.value) {
            Ok(call) => {
                bad.remove(&kv.key);
                Some(call)
            }
            Err(e) => {
                bad.insert(kv.key.clone());
                if complain {
                    tracing::warn!(key = ?kv.key, "a value in etcd is skipped: {e}; remove it with `etcdctl del {}`", kv.key);
                }
                None
            }
        };
    loop {
        let event = tokio::select! {
            event = watch.recv() => event,
            () = tell.closed() => None,
        };
        let Some(event) = event else { return };
        let event = match event {
            WatchEvent::Snapshot { entries, .. } => {
                let mut calls = Vec::with_capacity(entries.len());
                bad_keys.clear();
                for kv in &entries {
                    let complain = bad_keys.len() < NAMED;
                    calls.extend(read(&mut bad_keys, kv, complain));
                }
                if bad_keys.len() > NAMED {
                    tracing::warn!(%prefix, "{} more values in etcd are skipped", bad_keys.len() - NAMED);
                }
                Some(StoreEvent::Synced(calls))
            }
            WatchEvent::Put(kv) => match read(&mut bad_keys, &kv, true) {
                Some(call) => Some(StoreEvent::Put(Box::new(call))),
                None => value::id_in(&prefix, &kv.key).map(|id| StoreEvent::Spoiled { id: id.to_owned() }),
            },
            WatchEvent::Delete { key, .. } => {
                bad_keys.remove(&key);
                value::id_in(&prefix, &key).map(|id| StoreEvent::Delete { id: id.to_owned() })
            }
        };
        // Before the event is told: who hears of it may look at the status.
        lock(&state).status.bad_values = bad_keys.len();
        if let Some(event) = event
            && tell.send(event).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
