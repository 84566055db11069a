//! The licence of one run of a part: what leaves the run asks it first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

/// Whether a run may still act. Clones are one licence.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Licence(Arc<RwLock<bool>>);

impl Default for Licence {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(true)))
    }
}

impl Licence {
    /// Does it, unless the licence is gone. It is not taken away meanwhile, so this must be over in an instant.
    pub(in crate::agent) fn act<T>(&self, deed: impl FnOnce() -> T) -> Option<T> {
        // Nothing is changed under the lock but the flag itself: a panic in `deed` leaves it whole.
        let valid = self.0.read().unwrap_or_else(PoisonError::into_inner);
        valid.then(deed)
    }

    /// Takes it away. When this returns, nothing acts by it any more.
    pub(in crate::agent) fn revoke(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// The same future, which goes no step further once the licence is gone: then `None`.
    pub(in crate::agent) async fn bind<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            // Not under the lock: a step may take long, or for ever.
            if self.act(|| ()).is_none() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}
