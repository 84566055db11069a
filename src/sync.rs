//! Locks that outlive a panic.
//!
//! A part that panics is caught at its thread's border, and the other parts go on with the values that it shared. So
//! every value behind a [`Mutex`] is consistent after each statement, and a poisoned lock is still good.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The lock of a mutex, poisoned or not.
pub(crate) trait Locked<T: ?Sized> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;

    /// Takes the lock; `None` while another thread has it.
    fn try_locked(&self) -> Option<MutexGuard<'_, T>>;
}

impl<T: ?Sized> Locked<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_locked(&self) -> Option<MutexGuard<'_, T>> {
        match self.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_take_the_value_away() {
        let value = Mutex::new(1);
        let panicked = std::thread::scope(|s| {
            let held = s.spawn(|| {
                let mut value = value.locked();
                *value = 2;
                panic!("with the lock");
            });
            held.join()
        });
        assert!(panicked.is_err() && value.is_poisoned());
        assert_eq!(*value.locked(), 2);
        let held = value.try_locked();
        assert_eq!(held.as_deref(), Some(&2));
        assert!(std::thread::scope(|s| s.spawn(|| value.try_locked().is_none()).join().unwrap()));
    }
}
