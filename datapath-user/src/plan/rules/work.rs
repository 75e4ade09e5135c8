//! What a policy was made by way of: whose rules each is one of, and how often lists and sets are used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_common::{id::AppId, policy::Direction};

use crate::{
    model::time::Until,
    shared::{Shared, Spread},
};

use super::{
    Ends,
    classes::{Class, Prepared},
    end,
    list::List,
    places::{Part, Place},
    set::Set,
};
use crate::plan::facts::Clock;

/// Kept for the next policy. It says nothing that the tables and what they are made of do not: any two are equal.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Work {
    /// Of the rules, in order.
    pub(super) places: Vec<Place>,
    /// What rules were made into, by place.
    pub(super) parts: Shared<u64, Arc<[Arc<Prepared>]>>,
    /// The rules of each class of subjects, in order, by direction.
    subjects: [Shared<Class, Rules>; 2],
    /// The rules that end.
    pub(super) ending: BTreeSet<(Until, u64)>,
    /// How many rules in force for good speak of the inside of an app.
    pub(super) insides: BTreeMap<AppId, usize>,
    /// How many parts are only tried.
    pub(super) tried: usize,
    /// How many rules say what the number stands for.
    pub(super) said: Shared<u32, usize>,
    /// Lists by number, with how many entries of sets name each.
    pub(super) lists: Shared<u32, Kept<List>>,
    /// Sets by number, with how many subjects have each.
    pub(super) sets: Shared<u32, Kept<Arc<Set>>>,
}

/// Rules of a class of subjects.
type Rules = Arc<Vec<(Part, Arc<Prepared>)>>;

/// What tables have under a number.
#[derive(Clone, Debug)]
pub(super) struct Kept<C> {
    pub(super) content: C,
    pub(super) uses: usize,
}

impl Work {
    /// What a clock shows when rules end that have not.
    pub(super) fn ends(&self, clock: Option<Clock>) -> Ends {
        self.ending.iter().filter_map(|(until, _)| Some((*until, end(clock, *until)?))).collect()
    }

    /// The rules of a class of subjects.
    pub(super) fn rules(&self, direction: Direction, subjects: Class) -> &[(Part, Arc<Prepared>)] {
        self.subjects[direction as usize].get(&subjects).map_or(&[], |rules| rules.as_slice())
    }

    /// Makes a rule one of those of a class of subjects.
    pub(super) fn add(&mut self, direction: Direction, subjects: Class, (part, rule): (Part, &Arc<Prepared>)) {
        let rules = Arc::make_mut(self.subjects[direction as usize].entry_or(subjects, Arc::default));
        let at = rules.partition_point(|(other, _)| *other < part);
        rules.insert(at, (part, Arc::clone(rule)));
    }

    /// Takes it away again.
    pub(super) fn remove(&mut self, direction: Direction, subjects: Class, part: Part) {
        let index = &mut self.subjects[direction as usize];
        let rules = Arc::make_mut(index.entry_or(subjects, Arc::default));
        rules.retain(|(other, _)| *other != part);
        if rules.is_empty() {
            index.remove(&subjects);
        }
    }
}

impl PartialEq for Work {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Work {}

/// A place: a small multiple of one power of two or of another.
impl Spread for u64 {
    fn hash(&self) -> u64 {
        self ^ self >> 20 ^ self >> 40
    }
}
