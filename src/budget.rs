//! Counts memory that outsiders can fill against a limit in bytes. Pure.
//!
//! A limit on the number of things is void if a stranger chooses the size of each. Code that keeps strangers' bytes
//! counts them here. docs/learning.md has a table of all limits and of what happens beyond each.

/// A limit in bytes, and the bytes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    limit: usize,
    used: usize,
}

impl Budget {
    /// A free budget of `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }

    /// Bytes in use.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether `bytes` more fit.
    #[must_use]
    pub const fn fits(&self, bytes: usize) -> bool {
        self.used.saturating_add(bytes) <= self.limit
    }

    /// Whether the use exceeds the limit, so that something has to give way.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.used > self.limit
    }

    /// Adds bytes, even beyond the limit.
    pub const fn take(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    /// Returns bytes.
    pub const fn give(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Resets the use to nothing.
    pub const fn clear(&mut self) {
        self.used = 0;
    }
}

/// Heap cost of a shared allocation of `len` bytes: two reference counters, a word of the allocator, and sizes in steps
/// of 16.
#[must_use]
pub const fn allocated(len: usize) -> usize {
    const COUNTERS: usize = 16;
    const WORD: usize = 8;
    if len == 0 { 0 } else { (len + COUNTERS + WORD).next_multiple_of(16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let mut budget = Budget::new(100);
        budget.take(60);
        assert!(budget.fits(40) && !budget.fits(41) && !budget.is_over());
        budget.take(60);
        assert!(budget.is_over() && budget.used() == 120);
        budget.give(120);
        assert_eq!(budget, Budget::new(100));
        budget.give(1);
        assert_eq!(budget.used(), 0, "it never wraps around");
    }
}
