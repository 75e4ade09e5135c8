//! The only diff: what has to be put and what has to go so that a table of the kernel, or of the state database, is as
//! it should be.

use std::{cmp::Ordering, collections::BTreeMap};

/// The difference of two tables, over the union of their keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delta<'a, K, V> {
    /// What is missing or different.
    pub(crate) put: Vec<(&'a K, &'a V)>,
    /// What should not be there.
    pub(crate) del: Vec<&'a K>,
}

/// What makes `have` into `want`.
pub(crate) fn delta<'a, K: Ord, V: PartialEq>(want: &'a BTreeMap<K, V>, have: &'a BTreeMap<K, V>) -> Delta<'a, K, V> {
    let mut delta = Delta { put: Vec::new(), del: Vec::new() };
    // Both are in order: side by side every key is looked at once.
    let (mut want, mut have) = (want.iter().peekable(), have.iter().peekable());
    loop {
        let order = match (want.peek(), have.peek()) {
            (Some((want, _)), Some((have, _))) => want.cmp(have),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return delta,
        };
        let wanted = if order.is_le() { want.next() } else { None };
        match (wanted, if order.is_ge() { have.next() } else { None }) {
            (Some((_, value)), Some((_, there))) if value == there => {}
            (Some(put), _) => delta.put.push(put),
            (None, Some((key, _))) => delta.del.push(key),
            (None, None) => {}
        }
    }
}

impl<K, V> Delta<'_, K, V> {
    /// How many things differ.
    pub(crate) fn len(&self) -> usize {
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
