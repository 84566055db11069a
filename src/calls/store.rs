//! Calls in etcd: the master writes them, every node follows them. The driver around `queue`, `echo` and `value`.

mod echo;
mod follow;
mod queue;
mod seal;
mod value;
mod write;

pub use value::BadValue;

use crate::calls::model::{Call, CallEvent};
use crate::etcd::{Etcd, Keys};
use crate::os::clock;
use crate::sync::Locked as _;
use crate::time::OnceAMinute;
use echo::Echo;
use queue::Queue;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use value::{Coder, Trust};

/// Events that may wait for a slow reader. Beyond it the watch waits, and etcd keeps the rest.
const EVENTS: usize = 256;

/// Settings of the store for its instance.
#[derive(Clone)]
pub struct StoreSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the instance.
    pub instance: String,
    /// Most calls followed at a time. As many two-leg calls, or twice as many single legs, may wait for their write.
    pub max_calls: usize,
    /// The cluster's shared key, which encrypts calls.
    pub cluster_key: Vec<u8>,
    /// Further keys accepted for reading during a change of key. The writer encrypts those calls again.
    pub accepted_keys: Vec<Vec<u8>>,
    /// Whether calls are encrypted.
    pub encrypt: bool,
    /// Whether unencrypted calls are read. Anyone who can write etcd can then steer their audio.
    pub accept_plain: bool,
}

/// A report of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEvent {
    /// A call was stored, or its stored state changed.
    Put {
        /// The call. For this node's own write it shares memory with the call given to [`StoreHandle::apply`].
        call: Box<Call>,
        /// This node is known to have written it.
        own: bool,
    },
    /// A call was removed.
    Delete {
        /// [`Call::id`].
        id: String,
        /// This node removed it.
        own: bool,
    },
    /// The stored value has become unusable: somebody else wrote it.
    Spoiled {
        /// [`Call::id`].
        id: String,
    },
    /// A full read: these calls replace everything reported before.
    Synced {
        /// The stored calls.
        calls: Vec<Call>,
        /// Earlier calls that stay.
        keep: Keep,
    },
}

/// Calls that a reader keeps although a full read does not contain them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The calls of these ids, whose stored values are unusable.
    These(BTreeSet<String>),
    /// Every call: etcd has lost its data, and its master has not stored the calls again yet.
    All,
}

impl Keep {
    /// Whether the call stays.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        match self {
            Self::These(ids) => ids.contains(id),
            Self::All => true,
        }
    }
}

/// Why some changes are not known to be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushError {
    /// Time-out.
    #[error("etcd did not store {pending} changed calls in time{}", last_error.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Late {
        /// Calls whose newest state is not known to be written.
        pending: usize,
        /// etcd's last error, if it failed.
        last_error: Option<String>,
    },
    /// etcd names another node as the writer, so this one may no longer write.
    #[error("this node may no longer write the calls of the instance: etcd names another node as the writer")]
    Refused,
    /// The store's task has ended.
    #[error("the call store has stopped")]
    Stopped,
}

/// Status figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Calls whose newest state is not known to be written.
    pub pending: usize,
    /// Changes dropped for lack of room, or refused by etcd.
    pub dropped: u64,
    /// Unusable values in etcd, for whatever reason.
    pub bad_values: usize,
    /// Of these: unencrypted although encryption is required.
    pub plain_refused: usize,
    /// Of these: encrypted without this cluster's key, or altered, moved, or replayed.
    pub foreign_refused: usize,
    /// Usable calls that are unencrypted or under a former key. The next writer encrypts them again.
    pub outdated: usize,
    /// Number of times that etcd named another node as the writer.
    pub refused: u64,
    /// Puts and deletes confirmed by etcd.
    pub written: u64,
    /// etcd's last error, if the last write failed.
    pub last_error: Option<String>,
}

struct State {
    queue: Queue,
    echo: Echo,
    /// The epoch in which this node writes. `None` means no writing.
    writing: Option<u64>,
    /// Counts changes of `writing`. A result for an older version says nothing about the new one.
    version: u64,
    refused_now: bool,
    warned: OnceAMinute,
    status: StoreStatus,
}

/// Writes and follows the calls of one instance.
pub struct Store;

/// The write side. Clones share one queue. When the last one is dropped, the writer tries the pending changes once more
/// and ends.
#[derive(Clone)]
pub struct StoreHandle {
    state: Arc<Mutex<State>>,
    bell: mpsc::Sender<()>,
    again: mpsc::Sender<()>,
    /// Incremented after each batch, written or not.
    progress: watch::Receiver<u64>,
}

impl Store {
    /// Starts to follow the calls of an instance. Writing starts with [`StoreHandle::write_as`]. Must be called inside
    /// a tokio runtime.
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
            warned: OnceAMinute::new(),
            status: StoreStatus::default(),
        }));
        let coder =
            Arc::new(Coder::new(&cluster, &instance, &Trust { cluster_key, accepted_keys, encrypt, accept_plain }));
        // One ring is enough: the writer checks the whole queue.
        let (bell, rung) = mpsc::channel(1);
        let (again, reread) = mpsc::channel(1);
        let (done, progress) = watch::channel(0);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(follow::run(etcd.clone(), Arc::clone(&state), Arc::clone(&coder), reread, bell.downgrade(), tell));
        tokio::spawn(write::run(etcd, Arc::clone(&state), coder, Keys::new(&cluster).writer(&instance), rung, done));
        (StoreHandle { state, bell, again, progress }, events)
    }
}

impl StoreHandle {
    /// Queues a change; never waits. Changes of one call replace each other until they are written.
    pub fn apply(&self, event: CallEvent) {
        let mut state = self.state.locked();
        if !state.queue.push(event) && state.warned.take(clock::now()) {
            let dropped = state.queue.dropped;
            tracing::warn!(dropped, "dropping changed calls: too many wait for etcd; check etcd, or raise max_calls");
        }
        drop(state);
        // A full channel means that a ring is already waiting.
        let _ = self.bell.try_send(());
    }

    /// Starts writing as the master of `epoch`. The store first names this node as the writer. It writes nothing before
    /// that, and nothing after another node was named. `write` explains why no late write can undo a newer one.
    pub fn write_as(&self, epoch: u64) {
        let mut state = self.state.locked();
        state.writing = Some(epoch);
        state.version += 1;
        state.refused_now = false;
        let outdated = state.status.outdated > 0;
        drop(state);
        let _ = self.bell.try_send(());
        if outdated {
            // The writer re-encrypts calls stored in plain or under a former key, and that starts with a new read.
            self.read_again();
        }
    }

    /// Stops writing because this node is no longer master, and discards the waiting changes. Returns their number. A
    /// write in progress may still succeed if nobody else was named as the writer yet; it is not repeated.
    pub fn stop_writing(&self) -> usize {
        let mut state = self.state.locked();
        state.writing = None;
        state.version += 1;
        state.refused_now = false;
        state.queue.clear()
    }

    /// Reads everything again. A [`StoreEvent::Synced`] reports the result.
    pub fn read_again(&self) {
        let _ = self.again.try_send(());
    }

    /// Whether etcd names another node as the writer.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.state.locked().refused_now
    }

    /// Waits until everything is written, at most for `within`.
    ///
    /// # Errors See [`FlushError`]. The writer keeps trying the pending changes afterwards.
    pub async fn flush(&self, within: Duration) -> Result<(), FlushError> {
        let mut progress = self.progress.clone();
        let _ = self.bell.try_send(());
        let all = async {
            loop {
                // Marked as seen before the check, so that a batch that ends in between is not missed.
                progress.borrow_and_update();
                {
                    let state = self.state.locked();
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

    /// Status figures.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let state = self.state.locked();
        StoreStatus {
            pending: state.queue.len(),
            dropped: state.queue.dropped + state.status.dropped,
            ..state.status.clone()
        }
    }
}

#[cfg(test)]
mod tests;
