//! Changes of the kernel relay, off the instance's loop: a change waits for the kernel's own lock on nftables, which another
//! program's large change may hold, and ten thousand calls come in pieces for a second or two. The loop's SIP must not wait for that.

use crate::recovery::media::kernel::{KernelRelay, RefusedPackets, RelayError, Wish};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

/// Pause before what nftables refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is wanted and not yet asked of the kernel.
#[derive(Debug, Default)]
struct Wanted {
    /// By call id: one entry for each call, so the number of calls bounds it.
    wishes: BTreeMap<String, Wish>,
    /// Counts what was asked for.
    version: u64,
}

/// The relay of one instance and the task that changes it. What comes while a change is under way is sorted in after
/// the piece that it is at: an emergency call does not wait for a thousand others.
#[derive(Debug)]
pub(super) struct Relay {
    kernel: Arc<KernelRelay>,
    wanted: Arc<Mutex<Wanted>>,
    bell: mpsc::Sender<()>,
    /// Up to which version all is done.
    done: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(instance: &str, kernel: KernelRelay) -> Self {
        let (kernel, wanted) = (Arc::new(kernel), Arc::<Mutex<Wanted>>::default());
        // One ring is enough: the task looks at all that is wanted.
        let (bell, rung) = mpsc::channel(1);
        let (tell, done) = watch::channel(0);
        let task = tokio::spawn(work(instance.to_owned(), Arc::clone(&kernel), Arc::clone(&wanted), rung, tell));
        Self { kernel, wanted, bell, done, task }
    }

    /// Forwards exactly these flows for these calls, soon; the newest word for a call counts.
    pub(super) fn set(&self, wishes: Vec<Wish>) {
        if wishes.is_empty() {
            return;
        }
        {
            let mut wanted = lock(&self.wanted);
            wanted.wishes.extend(wishes.into_iter().map(|wish| (wish.call.clone(), wish)));
            wanted.version += 1;
        }
        // Full means that a ring is waiting already.
        let _ = self.bell.try_send(());
    }

    /// Brings the kernel to what was set and nothing else, also if nothing was: the table may be a predecessor's.
    pub(super) fn refresh(&self) {
        lock(&self.wanted).version += 1;
        let _ = self.bell.try_send(());
    }

    /// Returns once all that was set before is in force, or was refused.
    pub(super) async fn settled(&self) {
        let version = lock(&self.wanted).version;
        // An error means that the task has ended: then nothing more will change.
        let _ = self.done.clone().wait_for(|done| *done >= version).await;
    }

    /// Puts the table back if somebody deleted it; whether that was so.
    pub(super) async fn renew(&self) -> Result<bool, RelayError> {
        let deleted = self.kernel.is_deleted().await?;
        if deleted {
            self.refresh();
        }
        Ok(deleted)
    }

    /// Packets that were not forwarded since the table was made; none while there is no table.
    pub(super) async fn refused(&self) -> RefusedPackets {
        self.kernel.refused().await.unwrap_or_default()
    }

    /// Ends the changes; the table stays as it is.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    /// Ends the changes and removes the whole table.
    pub(super) async fn clear(&self) -> Result<(), RelayError> {
        lock(&self.wanted).wishes.clear();
        self.task.abort();
        self.kernel.clear().await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// No code panics while it holds the lock, and the state is whole after each statement; so a poisoned lock is still good.
fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(
    instance: String,
    kernel: Arc<KernelRelay>,
    wanted: Arc<Mutex<Wanted>>,
    mut rung: mpsc::Receiver<()>,
    done: watch::Sender<u64>,
) {
    while rung.recv().await.is_some() {
        let mut told = false;
        loop {
            let (wishes, version) = {
                let mut wanted = lock(&wanted);
                (std::mem::take(&mut wanted.wishes), wanted.version)
            };
            for refused in kernel.want(wishes.into_values()).await {
                warn!(instance, "a call's audio is not relayed: {refused}");
            }
            match kernel.step().await {
                Ok(true) => {}
                Ok(false) => {
                    done.send_replace(version);
                    break;
                }
                Err(e) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(
                            instance,
                            "the relay of calls' audio is not as it should be: {e}; trying again each second"
                        );
                    }
                    // Nobody waits for what may never be.
                    done.send_replace(version);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}
