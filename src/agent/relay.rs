//! Changes of the kernel relay, off the instance's loop: a change waits for the kernel's own lock on nftables, which another
//! program's large change may hold, and a thousand calls at once take tens of milliseconds. The loop's SIP must not wait for that.

use crate::calls::model::Flow;
use crate::recovery::media::kernel::{KernelRelay, RelayError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

/// What is wanted and not yet asked of the kernel.
#[derive(Debug, Default)]
struct Wanted {
    /// By call id: one entry for each call, so the number of calls bounds it.
    flows: BTreeMap<String, Vec<Flow>>,
    /// Counts what was asked for.
    version: u64,
}

/// The relay of one instance and the task that changes it. What comes while a change is under way becomes the next one.
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
    pub(super) fn set(&self, flows: Vec<(String, Vec<Flow>)>) {
        if flows.is_empty() {
            return;
        }
        {
            let mut wanted = lock(&self.wanted);
            wanted.flows.extend(flows);
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

    /// Name of its table in nftables.
    pub(super) fn table_name(&self) -> &str {
        self.kernel.table_name()
    }

    /// Puts the table back if somebody deleted it; whether that was so.
    pub(super) async fn renew(&self) -> Result<bool, RelayError> {
        self.kernel.renew().await
    }

    /// Ends the changes and removes the whole table.
    pub(super) async fn clear(&self) -> Result<(), RelayError> {
        lock(&self.wanted).flows.clear();
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
        let (flows, version) = {
            let mut wanted = lock(&wanted);
            (std::mem::take(&mut wanted.flows), wanted.version)
        };
        match kernel.set_many(flows.iter().map(|(call, flows)| (call.as_str(), flows.as_slice()))).await {
            Ok(refused) => refused.iter().for_each(|e| warn!(instance, "a call's audio is not relayed: {e}")),
            Err(e) => warn!(instance, "the relay of {} calls was not changed: {e}", flows.len()),
        }
        done.send_replace(version);
    }
}
