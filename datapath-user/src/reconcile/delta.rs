//! The only diff: what has to be put and what has to go so that a table is as it should be.

use std::collections::BTreeMap;

/// The difference of two tables, over the union of their keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Delta<'a, K, V> {
    /// What is missing or different.
    pub put: Vec<(&'a K, &'a V)>,
    /// What should not be there.
    pub del: Vec<&'a K>,
}

/// What makes `have` into `want`.
pub fn delta<'a, K: Ord, V: PartialEq>(want: &'a BTreeMap<K, V>, have: &'a BTreeMap<K, V>) -> Delta<'a, K, V> {
    Delta {
        put: want.iter().filter(|&(key, value)| have.get(key) != Some(value)).collect(),
        del: have.keys().filter(|&key| !want.contains_key(key)).collect(),
    }
}

impl<K, V> Delta<'_, K, V> {
    /// How many things differ.
    pub fn len(&self) -> usize {
        self.put.len() + self.del.len()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            prop_assert!(delta(&want, &have).is_empty());
        }
    }
}
