//! The licence of one run of a part. The run checks it before each action that leaves the run.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

/// Whether a run may still act. All clones share one licence.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Licence(Arc<RwLock<bool>>);

impl Default for Licence {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(true)))
    }
}

impl Licence {
    /// Runs `deed` unless the licence is revoked. A revocation waits for `deed`, so `deed` must end in an instant.
    pub(in crate::agent) fn act<T>(&self, deed: impl FnOnce() -> T) -> Option<T> {
        // The lock guards only the flag, so a panic in `deed` leaves the state consistent.
        let valid = self.0.read().unwrap_or_else(PoisonError::into_inner);
        valid.then(deed)
    }

    /// Revokes the licence. After the return nothing acts by it any more.
    pub(in crate::agent) fn revoke(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Runs `future` only while the licence is valid; `None` once it is revoked.
    pub(in crate::agent) async fn bind<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            // Poll without the lock, because a step may take long or hang.
            if self.act(|| ()).is_none() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}
