use std::collections::HashMap;

/// A map of at most `max` entries; when full, the one unused for longest makes room.
///
/// Entries are linked by their slots' numbers from the latest used to the earliest, so that every
/// operation takes constant time whatever the keys are.
#[derive(Debug)]
pub(crate) struct Lru<V> {
    max: usize,
    by_key: HashMap<Box<[u8]>, usize>,
    slots: Vec<Slot<V>>,
    latest: usize,
    earliest: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: Box<[u8]>,
    value: V,
    later: usize,
    earlier: usize,
}

const NONE: usize = usize::MAX;

impl<V> Lru<V> {
    /// `max` of 0 is read as 1.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            by_key: HashMap::new(),
            slots: Vec::new(),
            latest: NONE,
            earliest: NONE,
        }
    }

    /// The value of `key`, made if it is not there.
    pub(crate) fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> &V {
        let slot = match self.by_key.get(key) {
            Some(&slot) => {
                self.unlink(slot);
                slot
            }
            None => self.insert(key, make()),
        };
        self.link_latest(slot);
        &self.slots[slot].value
    }

    /// How many entries there are, at most the maximum.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Puts the entry into a slot of its own that is not linked yet.
    fn insert(&mut self, key: &[u8], value: V) -> usize {
        let (key, mut new) = (Box::<[u8]>::from(key), self.slots.len());
        let entry = Slot {
            key: key.clone(),
            value,
            later: NONE,
            earlier: NONE,
        };
        if new < self.max {
            self.slots.push(entry);
        } else {
            new = self.earliest;
            self.unlink(new);
            let old = std::mem::replace(&mut self.slots[new], entry);
            self.by_key.remove(&old.key);
        }
        self.by_key.insert(key, new);
        new
    }

    fn unlink(&mut self, slot: usize) {
        let (later, earlier) = (self.slots[slot].later, self.slots[slot].earlier);
        match self.slots.get_mut(later) {
            Some(later) => later.earlier = earlier,
            None => self.latest = earlier,
        }
        match self.slots.get_mut(earlier) {
            Some(earlier) => earlier.later = later,
            None => self.earliest = later,
        }
    }

    fn link_latest(&mut self, slot: usize) {
        self.slots[slot].later = NONE;
        self.slots[slot].earlier = self.latest;
        match self.slots.get_mut(self.latest) {
            Some(latest) => latest.later = slot,
            None => self.earliest = slot,
        }
        self.latest = slot;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Lru;

    proptest! {
        #[test]
        fn model_it_forgets_what_was_unused_for_longest(
            max in 1usize..6,
            keys in prop::collection::vec(0u8..12, 0..200),
        ) {
            let mut lru = Lru::new(max);
            // The naive one: a list, the latest used last.
            let mut naive: Vec<(u8, usize)> = Vec::new();
            for (turn, key) in keys.into_iter().enumerate() {
                let value = match naive.iter().position(|(k, _)| *k == key) {
                    Some(at) => naive.remove(at).1,
                    None => {
                        if naive.len() == max {
                            naive.remove(0);
                        }
                        turn
                    }
                };
                naive.push((key, value));
                prop_assert_eq!(*lru.get_or_insert_with(&[key], || turn), value);
                prop_assert_eq!(lru.len(), naive.len());
            }
        }
    }
}
