//! Maps that share what they have in common: a copy costs next to nothing, and two copies are compared only where one
//! of them was changed.
//!
//! A map is cut into parts, each behind a counted pointer; what is changed is copied first if another map has it too.
//! Invariant: a key is in the part that its [`Spread::hash`] names, so maps differ only in parts that differ.
//!
//! Why not a library: those with a difference of two maps keep nodes by `unsafe`, and a difference that is lost here is a
//! rule that is not enforced. What this leaves to others is the map of a part.

use std::{
    collections::{BTreeMap, btree_map},
    iter,
    sync::Arc,
};

use crate::delta::{Delta, delta};

/// A key that says where in a map it is.
pub trait Spread: Ord + Clone {
    /// The same for equal keys, on every host and for ever. Keys with the same lowest byte are together, in order.
    fn hash(&self) -> u64;
}

/// A map. Parts come one after the other, keys in order within each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared<K, V>(Arc<[Part<K, V>]>);

type Part<K, V> = Arc<BTreeMap<K, V>>;

/// As many as values of a byte.
const PARTS: usize = 256;

impl<K: Spread, V: Clone> Shared<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.beside(key).get(key)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.beside(key).contains_key(key)
    }

    /// The part that a key is in, with all that are together with it.
    pub fn beside(&self, key: &K) -> &BTreeMap<K, V> {
        &self.0[place(key)]
    }

    /// Puts a value, and gives what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.part_of(&key).insert(key, value)
    }

    /// Takes a key out, and gives what was there.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // What is not there is no reason to copy what is beside it.
        if self.contains_key(key) { self.part_of(key).remove(key) } else { None }
    }

    /// The value of a key, to be changed; put there first if it is missing.
    pub fn entry_or(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        self.part_of(&key).entry(key).or_insert_with(value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if self.contains_key(key) { self.part_of(key).get_mut(key) } else { None }
    }

    fn part_of(&mut self, key: &K) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place(key)])
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|part| part.is_empty())
    }

    /// All keys and values.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.into_iter()
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All of it in the order of keys, for those who read it from the first to the last.
    pub fn in_order(&self) -> BTreeMap<K, V> {
        self.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Takes out what is not to stay.
    pub fn retain(&mut self, stays: impl Fn(&K, &V) -> bool) {
        for part in Arc::make_mut(&mut self.0) {
            if part.iter().any(|(key, value)| !stays(key, value)) {
                Arc::make_mut(part).retain(|key, value| stays(key, value));
            }
        }
    }

    /// What makes `have` into this.
    pub(crate) fn delta<'a>(&'a self, have: &'a Self) -> Delta<'a, K, V>
    where
        V: PartialEq,
    {
        let mut all = Delta { put: Vec::new(), del: Vec::new() };
        for (want, have) in self.0.iter().zip(have.0.iter()).filter(|(want, have)| !Arc::ptr_eq(want, have)) {
            let Delta { put, del } = delta(want, have);
            all.put.extend(put);
            all.del.extend(del);
        }
        all
    }
}

fn place(key: &impl Spread) -> usize {
    let [.., lowest] = key.hash().to_be_bytes();
    lowest.into()
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        let empty = Part::default();
        Self(iter::repeat_with(|| Arc::clone(&empty)).take(PARTS).collect())
    }
}

impl<K: Spread, V: Clone> From<BTreeMap<K, V>> for Shared<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K: Spread, V: Clone> FromIterator<(K, V)> for Shared<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        map.extend(pairs);
        map
    }
}

impl<K: Spread, V: Clone> Extend<(K, V)> for Shared<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

/// Goes over all keys and values of a map.
pub struct Iter<'a, K, V> {
    parts: std::slice::Iter<'a, Part<K, V>>,
    part: btree_map::Iter<'a, K, V>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pair) = self.part.next() {
                return Some(pair);
            }
            self.part = self.parts.next()?.iter();
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Shared<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        Iter { parts: self.0.iter(), part: btree_map::Iter::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Spread for u16 {
        fn hash(&self) -> u64 {
            u64::from(*self) >> 2
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, u8),
        Take(u16),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..2_000_u16;
        prop_oneof![
            (key.clone(), 0..3_u8).prop_map(|(key, value)| Step::Put(key, value)),
            key.prop_map(Step::Take),
            Just(Step::Keep),
        ]
    }

    proptest! {
        /// Against the map of the standard library, and against every copy that was kept.
        #[test]
        fn it_is_a_map_and_its_copies_stay_what_they_were(steps in prop::collection::vec(step(), 0..80)) {
            let (mut map, mut model) = (Shared::default(), BTreeMap::new());
            let mut kept = vec![(map.clone(), model.clone())];
            for step in steps {
                match step {
                    Step::Put(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Step::Take(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::Keep => kept.push((map.clone(), model.clone())),
                }
            }
            prop_assert_eq!(map.in_order(), model.clone());
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            for (copy, was) in &kept {
                prop_assert_eq!(&copy.in_order(), was);
                let sorted = |Delta { mut put, mut del }: Delta<'_, u16, u8>| {
                    put.sort_unstable();
                    del.sort_unstable();
                    (put.into_iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>(),
                     del.into_iter().copied().collect::<Vec<_>>())
                };
                prop_assert_eq!(sorted(map.delta(copy)), sorted(delta(&model, was)));
                prop_assert_eq!(*copy == map, *was == model);
            }
        }
    }
}
