//! The only diff: what has to be put and what has to go so that a table is as it should be.

use std::collections::BTreeMap;

/// The difference of two tables, over the union of their keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta<'a, K, V> {
    /// What is missing or different.
    pub(super) put: Vec<(&'a K, &'a V)>,
    /// What should not be there.
    pub(super) del: Vec<&'a K>,
}

/// What makes `have` into `want`.
pub(super) fn delta<'a, K: Ord, V: PartialEq>(want: &'a BTreeMap<K, V>, have: &'a BTreeMap<K, V>) -> Delta<'a, K, V> {
    Delta {
        put: want.iter().filter(|&(key, value)| have.get(key) != Some(value)).collect(),
        del: have.keys().filter(|&key| !want.contains_key(key)).collect(),
    }
}

impl<K, V> Delta<'_, K, V> {
    /// How many things differ.
    pub(super) fn len(&self) -> usize {
        self.put.len() + self.del.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn applied_once_it_is_empty(want: BTreeMap<u8, u8>, mut have: BTreeMap<u8, u8>) {
            let before = have.clone();
            let change = delta(&want, &before);
            for key in change.del { have.remove(key); }
            for (key, value) in change.put { have.insert(*key, *value); }
            prop_assert_eq!(&have, &want);
            prop_assert_eq!(delta(&want, &have).len(), 0);
        }
    }
}
