//! Maps with keys that the program itself makes: counters, and hashes with a secret seed. Outsiders cannot choose the
//! keys, so the hash need not withstand attacks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map with the fast hasher.
pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// Spreads numbers over all bits: multiplies by an odd constant and combines both halves of the product.
#[derive(Default)]
pub(super) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        /// 2^64 divided by the golden ratio: its multiples lie far apart.
        const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15;
        // The rotation gives each part of a key its own place.
        let product = u128::from(self.0.rotate_left(26) ^ n) * SPREAD;
        #[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.0 = low ^ high;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_in_a_row_fall_into_places_of_their_own() {
        // The bits that a map of this size uses: low bits for the place, high bits for the tag.
        let (mut low, mut high) = (HashSet::new(), HashSet::new());
        for n in 0..1024_u32 {
            let mut h = Quick::default();
            h.write_u32(n);
            h.write_u32(1);
            low.insert(h.finish() % 2048);
            high.insert(h.finish() >> 57);
        }
        assert!(low.len() > 700, "{} places", low.len());
        assert_eq!(high.len(), 128);
    }
}
