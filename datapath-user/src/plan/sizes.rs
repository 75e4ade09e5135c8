//! Whether a plan fits into the tables, asked before anything is changed.
//!
//! During a change the new entries stand beside the old ones, so what counts is both together.

use std::{collections::BTreeMap, fmt};

use weft_common::table::{self, Table};

use crate::shared::{Shared, Spread};

use super::NodePlan;

/// A table, and how full it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// [`Table::NAME`].
    pub table: &'static str,
    /// Entries that are there at once during the change.
    pub needed: usize,
    /// [`Table::MAX`].
    pub max: usize,
}

/// The tables that a plan does not fit into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge(pub Vec<Size>);

impl NodePlan {
    /// How full each table would be if this plan took the place of `running`.
    pub fn sizes(&self, running: &Self) -> Vec<Size> {
        let (new, old) = (&self.policy, &running.policy);
        vec![
            size::<table::Endpoints>(union(&self.endpoints, &running.endpoints)),
            size::<table::Routes>(union(&self.routes, &running.routes)),
            peers(self.ids.peers.iter().count() + self.unnumbered.len()),
            size::<table::PeerAddresses>(union(&self.peer_addresses, &running.peer_addresses)),
            size::<table::Members>(union(&self.members, &running.members)),
            // Both slots.
            size::<table::Sets>(new.sets.len() + old.sets.len().max(new.sets.len())),
            size::<table::PeerLists>(both(&new.peer_lists, &old.peer_lists)),
            size::<table::PrefixLists>(both(&new.prefix_lists, &old.prefix_lists)),
            size::<table::RuleLists>(both(&new.rules, &old.rules)),
        ]
    }

    /// Whether everything fits while this plan takes the place of `running`.
    pub fn admit(&self, running: &Self) -> Result<(), TooLarge> {
        let over: Vec<_> = self.sizes(running).into_iter().filter(|size| size.needed > size.max).collect();
        if over.is_empty() { Ok(()) } else { Err(TooLarge(over)) }
    }
}

fn size<T: Table>(needed: usize) -> Size {
    Size { table: T::NAME, needed, max: usize::try_from(T::MAX).unwrap_or(usize::MAX) }
}

/// Element 0 of the array is no peer.
fn peers(needed: usize) -> Size {
    let Size { table, needed, max } = size::<table::Peers>(needed);
    Size { table, needed, max: max - 1 }
}

fn union<K: Ord, V>(new: &BTreeMap<K, V>, old: &BTreeMap<K, V>) -> usize {
    new.len() + old.keys().filter(|key| !new.contains_key(*key)).count()
}

fn both<K: Spread, V: Clone + PartialEq>(new: &Shared<K, V>, old: &Shared<K, V>) -> usize {
    new.len() + new.delta(old).del.len()
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, needed, max } = self;
        write!(f, "{table} needs {} of {} entries", grouped(*needed), grouped(*max))
    }
}

/// `18 432`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == first {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, size) in self.0.iter().enumerate() {
            write!(f, "{}{size}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let check = |number, expect: &str| assert_eq!(grouped(number), expect);
        check(0, "0");
        check(999, "999");
        check(1000, "1 000");
        check(18_432, "18 432");
        check(2_097_152, "2 097 152");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut plan = NodePlan::default();
        plan.admit(&NodePlan::default()).unwrap();
        plan.endpoints = (0..18_432).map(|link| (link, weft_common::route::Endpoint::default())).collect();
        let error = plan.admit(&NodePlan::default()).unwrap_err();
        assert_eq!(error.to_string(), "ENDPOINTS needs 18 432 of 16 384 entries");
    }

    #[test]
    fn what_goes_counts_until_it_is_gone() {
        let with = |links: std::ops::Range<u32>| NodePlan {
            endpoints: links.map(|link| (link, weft_common::route::Endpoint::default())).collect(),
            ..NodePlan::default()
        };
        with(0..10_000).admit(&with(0..10_000)).unwrap();
        with(0..10_000).admit(&with(10_000..20_000)).unwrap_err();
    }
}
