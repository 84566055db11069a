//! Memory that others can fill, counted in bytes against a limit. Pure.
//!
//! A limit on how many things are kept is none while a stranger chooses how large each of them is. What keeps strangers' bytes counts them
//! here; docs/learning.md has a table of all limits, and of what happens beyond each.

/// How many bytes may be kept, and how many are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    limit: usize,
    used: usize,
}

impl Budget {
    /// Room for `limit` bytes, all of it free.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }

    /// Bytes that are kept.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether so many bytes more have room.
    #[must_use]
    pub const fn fits(&self, bytes: usize) -> bool {
        self.used.saturating_add(bytes) <= self.limit
    }

    /// Whether more is kept than may be: somebody has to give way.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.used > self.limit
    }

    /// Counts so many bytes more, also beyond the limit.
    pub const fn take(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    /// Counts so many bytes less.
    pub const fn give(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Nothing is kept any more.
    pub const fn clear(&mut self) {
        self.used = 0;
    }
}

/// What `len` bytes cost in memory of their own: two counters of their sharers, a word of the allocator, and sizes in steps of 16.
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
