//! A netlink socket for async tasks.

use super::{Batch, Chain, Data, Family, Found, Nfnl, NfnlError, Rule};
use crate::os::priority;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Batches up to this size (some 500 elements, about a millisecond) run on the calling thread: on a busy host a
/// handover to another thread costs several times more. Larger batches would block other tasks.
const AT_ONCE: usize = 32 * 1024;
/// Largest read on the calling thread, in elements, for the same reason.
const READ_AT_ONCE: usize = 128;

/// A netlink socket that opens at its first use, in the network namespace of the calling thread, and stays open.
/// Requests run one at a time. A request whose task was dropped still ends before the next one begins.
#[derive(Debug, Default)]
pub struct Link {
    socket: Arc<Mutex<Option<Nfnl>>>,
    ahead: bool,
}

impl Link {
    /// A link whose larger changes run at real-time priority where the system permits it. The kernel has one lock for
    /// all nftables changes. A lock holder that loses the processor to a compiler makes the kernel lease wait just as
    /// long.
    #[must_use]
    pub fn ahead() -> Self {
        Self { ahead: true, ..Self::default() }
    }

    /// Runs [`Nfnl::commit`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn commit(&self, batch: Batch) -> Result<(), NfnlError> {
        if batch.is_empty() {
            return Ok(());
        }
        let short = batch.size() <= AT_ONCE;
        let ahead = self.ahead;
        self.run(
            short,
            move |socket| if ahead && !short { priority::ahead(|| socket.commit(batch)) } else { socket.commit(batch) },
        )
        .await
    }

    /// Runs [`Nfnl::get`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn get(&self, family: Family, table: &str, set: &str, keys: Vec<Data>) -> Result<Vec<Found>, NfnlError> {
        let (table, set) = (table.to_owned(), set.to_owned());
        self.run(keys.len() <= READ_AT_ONCE, move |socket| socket.get(family, &table, &set, &keys)).await
    }

    /// Runs [`Nfnl::list`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn list(&self, family: Family, table: &str, set: &str) -> Result<Vec<Found>, NfnlError> {
        let (table, set) = (table.to_owned(), set.to_owned());
        self.run(false, move |socket| socket.list(family, &table, &set)).await
    }

    /// Runs [`Nfnl::list_own`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn list_own(&self, family: Family, table: &str, set: &str) -> Result<Vec<Found>, NfnlError> {
        let (table, set) = (table.to_owned(), set.to_owned());
        self.run(false, move |socket| socket.list_own(family, &table, &set)).await
    }

    /// Runs [`Nfnl::table`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn table(&self, family: Family, table: &str) -> Result<Option<u64>, NfnlError> {
        let table = table.to_owned();
        self.run(true, move |socket| socket.table(family, &table)).await
    }

    /// Runs [`Nfnl::rules`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn rules(&self, family: Family, table: &str) -> Result<Vec<Rule>, NfnlError> {
        let table = table.to_owned();
        self.run(false, move |socket| socket.rules(family, &table)).await
    }

    /// Runs [`Nfnl::chains`].
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn chains(&self) -> Result<Vec<Chain>, NfnlError> {
        self.run(false, Nfnl::chains).await
    }

    /// Waits for the end of a request whose task was dropped.
    pub async fn idle(&self) {
        drop(self.socket.lock().await);
    }

    async fn run<T: Send + 'static>(
        &self,
        short: bool,
        job: impl FnOnce(&mut Nfnl) -> Result<T, NfnlError> + Send + 'static,
    ) -> Result<T, NfnlError> {
        // The job owns the lock, not the task: a dropped task must not let the next request in early.
        let mut guard = Arc::clone(&self.socket).lock_owned().await;
        // Opened here, because a pool thread might be in another network namespace.
        if guard.is_none() {
            *guard = Some(Nfnl::open()?);
        }
        let work = move || {
            let mut guard: OwnedMutexGuard<Option<Nfnl>> = guard;
            match guard.as_mut() {
                Some(socket) => job(socket),
                None => Err(NfnlError::Stopping),
            }
        };
        if short { work() } else { tokio::task::spawn_blocking(work).await.unwrap_or(Err(NfnlError::Stopping)) }
    }
}
