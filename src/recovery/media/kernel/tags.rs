//! A number for each instance of this process, so that the marks of two instances never collide.

use crate::sync::Locked as _;
use std::collections::BTreeMap;
use std::sync::Mutex;

static TAGS: Mutex<BTreeMap<String, u8>> = Mutex::new(BTreeMap::new());

/// The number of an instance. It keeps its current number. Otherwise it gets `before` (its predecessor's), if that is
/// free, or else one derived from its name, which is the same after most restarts. `None` if all 255 are taken.
pub(super) fn of(instance: &str, before: Option<u8>) -> Option<u8> {
    choose(&mut TAGS.locked(), instance, before)
}

fn choose(tags: &mut BTreeMap<String, u8>, instance: &str, before: Option<u8>) -> Option<u8> {
    if let Some(tag) = tags.get(instance) {
        return Some(*tag);
    }
    let first = instance.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let all = before.into_iter().chain((0..=u8::MAX).map(|n| first.wrapping_add(n)));
    // Zero is reserved.
    let tag = all.into_iter().find(|tag| *tag != 0 && !tags.values().any(|taken| taken == tag))?;
    tags.insert(instance.to_owned(), tag);
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessors_number_is_kept_unless_another_instance_has_it() {
        let mut tags = BTreeMap::new();
        assert_eq!(choose(&mut tags, "a", Some(7)), Some(7));
        assert_eq!(choose(&mut tags, "a", Some(9)), Some(7));
        assert_ne!(choose(&mut tags, "b", Some(7)), Some(7));
        // The same number in another process with other instances.
        assert_eq!(choose(&mut BTreeMap::new(), "b", None), tags.get("b").copied());
    }

    #[test]
    fn numbers_are_unique_and_end() {
        let mut tags = BTreeMap::new();
        for n in 0..255 {
            assert!(choose(&mut tags, &format!("i{n}"), None).is_some());
        }
        let all: std::collections::BTreeSet<u8> = tags.values().copied().collect();
        assert_eq!(all.len(), 255);
        assert_eq!(choose(&mut tags, "one more", None), None);
    }
}
