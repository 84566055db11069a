//! Keeps values that many calls have in common once.

use super::Verbatim;
use crate::sync::Locked as _;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex};

/// Most values in the pool: phones come in some hundred makes and releases. Without room, each call keeps its own copy.
const MAX_SHARED: usize = 1024;
/// Longest pooled value in bytes, which bounds the pool. Allow has about 120.
const MAX_LEN: usize = 1024;

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

/// `bytes`, in the memory of an equal value if there is one.
pub(super) fn shared(bytes: &[u8]) -> Verbatim {
    // The pool is a set and consistent after each statement, even if a thread panicked in between.
    Verbatim(POOL.locked().get(bytes))
}

#[derive(Default)]
struct Pool {
    values: HashSet<Arc<[u8]>>,
    /// Values refused since the last purge of unused ones. A purge walks the whole pool, so it runs only now and then.
    refused: usize,
}

impl Pool {
    fn get(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        if let Some(there) = self.values.get(bytes) {
            return Arc::clone(there);
        }
        let new: Arc<[u8]> = bytes.into();
        if new.is_empty() || new.len() > MAX_LEN {
            return new;
        }
        if self.values.len() >= MAX_SHARED {
            self.refused += 1;
            if self.refused < MAX_SHARED / 8 {
                return new;
            }
            self.refused = 0;
            self.values.retain(|v| Arc::strong_count(v) > 1);
            if self.values.len() >= MAX_SHARED {
                return new;
            }
        }
        self.values.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_and_unused_ones_make_room() {
        let mut pool = Pool::default();
        let held = pool.get(b"INVITE, ACK");
        assert!(Arc::ptr_eq(&held, &pool.get(b"INVITE, ACK")));
        assert!(!Arc::ptr_eq(&pool.get(&[b'x'; MAX_LEN + 1]), &pool.get(&[b'x'; MAX_LEN + 1])));
        // A flood of made-up values neither grows the pool nor keeps real ones out for good.
        for n in 0..10 * MAX_SHARED {
            pool.get(format!("flood {n}").as_bytes());
            assert!(pool.values.len() <= MAX_SHARED);
        }
        assert!(Arc::ptr_eq(&held, &pool.get(b"INVITE, ACK")));
        let later: Vec<_> = (0..MAX_SHARED / 4).map(|n| pool.get(format!("later {n}").as_bytes())).collect();
        let last = later.last().unwrap();
        assert!(Arc::ptr_eq(last, &pool.get(last)));
    }
}
