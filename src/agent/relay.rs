//! Changes the kernel relay outside of the instance's loop. A change waits for the kernel's nftables lock, which
//! another program's large change may hold, and ten thousand calls go in pieces over a second or two. The loop's SIP
//! must not wait for that.

use crate::recovery::media::kernel::{FlowCount, KernelRelay, RefusedPackets, RelayError, Wish};
use crate::sync::Locked as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

/// Pause before the next try after nftables refused.
const AGAIN: Duration = Duration::from_secs(1);

/// The wanted changes that are not in the kernel yet.
#[derive(Debug, Default)]
struct PendingChanges {
    /// By call id: one entry per call, so the number of calls limits it.
    wishes: BTreeMap<String, Wish>,
    /// Counts the requests.
    version: u64,
}

/// The relay of one instance and its task. A request that arrives during a change is merged in after the current piece,
/// so an emergency call does not wait for a thousand others.
#[derive(Debug)]
pub(super) struct Relay {
    kernel: Arc<KernelRelay>,
    wanted: Arc<Mutex<PendingChanges>>,
    bell: mpsc::Sender<()>,
    /// The version up to which everything is done.
    done: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(instance: &str, kernel: KernelRelay) -> Self {
        let (kernel, wanted) = (Arc::new(kernel), Arc::<Mutex<PendingChanges>>::default());
        // One ring is enough, because the task reads all wanted changes.
        let (bell, rung) = mpsc::channel(1);
        let (tell, done) = watch::channel(0);
        let task = tokio::spawn(work(instance.to_owned(), Arc::clone(&kernel), Arc::clone(&wanted), rung, tell));
        Self { kernel, wanted, bell, done, task }
    }

    /// Forwards exactly these flows for these calls, soon. The newest request for a call counts.
    pub(super) fn set(&self, wishes: Vec<Wish>) {
        if wishes.is_empty() {
            return;
        }
        {
            let mut wanted = self.wanted.locked();
            wanted.wishes.extend(wishes.into_iter().map(|wish| (wish.call.clone(), wish)));
            wanted.version += 1;
        }
        // A full channel already holds a ring.
        let _ = self.bell.try_send(());
    }

    /// Brings the kernel to exactly the requested flows, even without a new request: the table may be a predecessor's.
    pub(super) fn refresh(&self) {
        self.wanted.locked().version += 1;
        let _ = self.bell.try_send(());
    }

    /// Returns once every earlier request is in force or was refused.
    pub(super) async fn settled(&self) {
        let version = self.wanted.locked().version;
        // An error means that the task has ended, so nothing will change any more.
        let _ = self.done.clone().wait_for(|done| *done >= version).await;
    }

    /// Restores the table if somebody deleted it. Returns whether the table was gone.
    pub(super) async fn renew(&self) -> Result<bool, RelayError> {
        let deleted = self.kernel.is_deleted().await?;
        if deleted {
            self.refresh();
        }
        Ok(deleted)
    }

    /// The packets that the current table refused to forward; zero without a table.
    pub(super) async fn refused(&self) -> RefusedPackets {
        self.kernel.refused().await.unwrap_or_default()
    }

    /// The packets that the relay has forwarded for these calls.
    pub(super) async fn counts_of(&self, calls: &[&str]) -> Result<BTreeMap<String, Vec<FlowCount>>, RelayError> {
        self.kernel.counts_of(calls).await
    }

    /// Stops the changes. The table stays as it is.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    /// Stops the changes and removes the whole table.
    pub(super) async fn clear(&self) -> Result<(), RelayError> {
        self.wanted.locked().wishes.clear();
        self.task.abort();
        self.kernel.clear().await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn work(
    instance: String,
    kernel: Arc<KernelRelay>,
    wanted: Arc<Mutex<PendingChanges>>,
    mut rung: mpsc::Receiver<()>,
    done: watch::Sender<u64>,
) {
    while rung.recv().await.is_some() {
        let mut told = false;
        loop {
            let (wishes, version) = {
                let mut wanted = wanted.locked();
                (std::mem::take(&mut wanted.wishes), wanted.version)
            };
            for refused in kernel.want(wishes.into_values()).await {
                warn!(instance, "cannot relay the audio of a call: {refused}");
            }
            match kernel.step().await {
                Ok(true) => {}
                Ok(false) => {
                    done.send_replace(version);
                    break;
                }
                Err(e) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(instance, "cannot change the audio relay: {e}; retrying every second");
                    }
                    // A waiter must not wait for a change that may never succeed.
                    done.send_replace(version);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}
