//! Random numbers that are the same on every machine.

/// xorshift64*: enough for a simulation.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        // Neighbouring seeds must start differently, and the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub(super) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// Draws from `low` to `high`, both included.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
    pub(super) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    pub(super) fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let i = self.below(list.len() as u64) as usize;
        &list[i]
    }
    pub(super) fn pick(&mut self, list: &[u64]) -> u64 {
        *self.one(list)
    }
}
