//! Calls in etcd: written by the master, followed by everyone. The driver around `queue`, `echo` and `value`.

mod echo;
mod follow;
mod queue;
mod seal;
mod value;
mod write;

pub use value::{BadValue, prefix};

use crate::calls::model::{Call, CallEvent};
use crate::clock;
use crate::etcd::Etcd;
use crate::time::Time;
use echo::Echo;
use queue::Queue;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use value::{Coder, Trust};

/// Events that wait for a slow reader; beyond it the watch waits, and etcd keeps the rest.
const EVENTS: usize = 256;
/// Least time between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What the store has to know of its instance.
#[derive(Clone)]
pub struct StoreSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the instance.
    pub instance: String,
    /// Most calls that are followed at a time; as many with two legs, and twice as many with one, may wait to be written.
    pub max_calls: usize,
    /// The cluster's shared key, under which calls are encrypted.
    pub cluster_key: Vec<u8>,
    /// Further keys under which calls are read, during a change of key. The writer encrypts those calls anew.
    pub accepted_keys: Vec<Vec<u8>>,
    /// Whether calls are encrypted.
    pub encrypt: bool,
    /// Whether calls that are not encrypted are read. Whoever can write etcd can then steer their audio.
    pub accept_plain: bool,
}

/// What the store tells.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEvent {
    /// A call was stored, or its stored state changed.
    Put {
        /// The call. What this node wrote itself shares its memory with what was handed to [`StoreHandle::apply`].
        call: Box<Call>,
        /// This node is known to have written it.
        own: bool,
    },
    /// A call was removed.
    Delete {
        /// [`Call::id`].
        id: String,
        /// This node did it.
        own: bool,
    },
    /// The stored value cannot be used any more: somebody else wrote it.
    Spoiled {
        /// [`Call::id`].
        id: String,
    },
    /// A full read: these calls replace everything that was told before.
    Synced {
        /// The calls that are stored.
        calls: Vec<Call>,
        /// What is known besides and stands.
        keep: Keep,
    },
}

/// What a reader keeps of calls that a full read does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The calls of these ids: their stored values cannot be used.
    These(BTreeSet<String>),
    /// Every call: etcd has forgotten what it held, and its master has not stored it again yet.
    All,
}

impl Keep {
    /// Whether the call stands.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        match self {
            Self::These(ids) => ids.contains(id),
            Self::All => true,
        }
    }
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
    /// Another node is named as the writer: this one may not write any more.
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
    /// Changes that found no room, or that etcd did not take.
    pub dropped: u64,
    /// Values that are in etcd and cannot be used, for whatever reason.
    pub bad_values: usize,
    /// Of these: not encrypted, which is not allowed.
    pub plain_refused: usize,
    /// Of these: encrypted by somebody without this cluster's key, or changed, moved, or put back from former times.
    pub foreign_refused: usize,
    /// Calls that are used although they are not encrypted, or under a former key. The next writer encrypts them anew.
    pub outdated: usize,
    /// Times that another node was found to be named as the writer.
    pub refused: u64,
    /// Puts and deletes that are known to be done.
    pub written: u64,
    /// What etcd said last, if the last write failed.
    pub last_error: Option<String>,
}

struct State {
    queue: Queue,
    echo: Echo,
    /// The epoch in which this node writes; without one nothing is written.
    writing: Option<u64>,
    /// Counts changes of `writing`: what was found for an older one says nothing of the new one.
    version: u64,
    refused_now: bool,
    warned: Option<Time>,
    status: StoreStatus,
}

/// Writes and follows the calls of one instance.
pub struct Store;

/// The way to write. Clones write to the same queue; when the last is dropped, what is pending is tried once more and the writer ends.
#[derive(Clone)]
pub struct StoreHandle {
    state: Arc<Mutex<State>>,
    bell: mpsc::Sender<()>,
    again: mpsc::Sender<()>,
    /// Bumped after each batch, written or not.
    progress: watch::Receiver<u64>,
}

impl Store {
    /// Starts following the calls of an instance; they are written once [`StoreHandle::write_as`] was called. Must be called
    /// inside a tokio runtime.
    #[must_use]
    pub fn start(etcd: Etcd, settings: StoreSettings) -> (StoreHandle, mpsc::Receiver<StoreEvent>) {
        let StoreSettings { cluster, instance, max_calls, cluster_key, accepted_keys, encrypt, accept_plain } =
            settings;
        let state = Arc::new(Mutex::new(State {
            queue: Queue::new(max_calls),
            echo: Echo::default(),
            writing: None,
            version: 0,
            refused_now: false,
            warned: None,
            status: StoreStatus::default(),
        }));
        let coder =
            Arc::new(Coder::new(&cluster, &instance, &Trust { cluster_key, accepted_keys, encrypt, accept_plain }));
        // One ring is enough: the writer looks at the whole queue.
        let (bell, rung) = mpsc::channel(1);
        let (again, reread) = mpsc::channel(1);
        let (done, progress) = watch::channel(0);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(follow::run(etcd.clone(), Arc::clone(&state), Arc::clone(&coder), reread, bell.downgrade(), tell));
        tokio::spawn(write::run(etcd, Arc::clone(&state), coder, value::writer_key(&cluster, &instance), rung, done));
        (StoreHandle { state, bell, again, progress }, events)
    }
}

impl StoreHandle {
    /// Takes a change to write; never waits. Changes of the same call replace each other until they are written.
    pub fn apply(&self, event: CallEvent) {
        let mut state = lock(&self.state);
        if !state.queue.push(event) && state.warned.is_none_or(|at| clock::now().since(at) >= WARN_EVERY) {
            state.warned = Some(clock::now());
            let dropped = state.queue.dropped;
            tracing::warn!(
                dropped,
                "changed calls are not stored: too many wait for etcd; raise max_calls or check etcd"
            );
        }
        drop(state);
        // Full means that a ring is waiting already.
        let _ = self.bell.try_send(());
    }

    /// From now on this node writes, as the master of `epoch`: it is named as the writer first, and nothing is written before
    /// that is done, or after another node was named. See `write` for why no late write of anybody can undo a newer one.
    pub fn write_as(&self, epoch: u64) {
        let mut state = lock(&self.state);
        state.writing = Some(epoch);
        state.version += 1;
        state.refused_now = false;
        let outdated = state.status.outdated > 0;
        drop(state);
        let _ = self.bell.try_send(());
        if outdated {
            // Who may write makes good what is stored in plain or under a former key, and that begins with a new read.
            self.read_again();
        }
    }

    /// This node is no longer master: nothing more is written, and what waits is thrown away. How many changes that were. A write
    /// that is under way may still succeed, if nobody else was named as the writer yet; it is not repeated.
    pub fn stop_writing(&self) -> usize {
        let mut state = lock(&self.state);
        state.writing = None;
        state.version += 1;
        state.refused_now = false;
        state.queue.clear()
    }

    /// Reads everything again; a [`StoreEvent::Synced`] tells it.
    pub fn read_again(&self) {
        let _ = self.again.try_send(());
    }

    /// Whether another node was found to be the writer.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        lock(&self.state).refused_now
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
        StoreStatus {
            pending: state.queue.len(),
            dropped: state.queue.dropped + state.status.dropped,
            ..state.status.clone()
        }
    }
}

/// No code panics while it holds the lock, and the state is whole after each statement; so a poisoned lock is still good.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
