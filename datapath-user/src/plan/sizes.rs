//! Whether a plan fits into the tables, asked before anything is changed.
//!
//! During a change the new entries stand beside the old ones, so what counts is both together.

use std::{collections::BTreeMap, fmt};

use weft_common::table::{self, Table};

use crate::shared::{Shared, Spread};

use super::{NodePlan, rules::Policy};

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
        let mut sizes = vec![
            size::<table::Endpoints>(union(&self.endpoints, &running.endpoints)),
            size::<table::Routes>(union(&self.routes, &running.routes)),
            peers(self.ids.peers.iter().count() + self.unnumbered.len()),
            size::<table::PeerAddresses>(union(&self.peer_addresses, &running.peer_addresses)),
            size::<table::Members>(union(&self.members, &running.members)),
        ];
        sizes.extend(self.policy.sizes(&running.policy));
        sizes
    }

    /// Whether everything fits while this plan takes the place of `running`.
    pub fn admit(&self, running: &Self) -> Result<(), TooLarge> {
        admit(self.sizes(running))
    }
}

impl Policy {
    /// How full the tables of policy would be if this took the place of `running`.
    pub fn sizes(&self, running: &Self) -> [Size; 4] {
        let (new, old) = (self, running);
        [
            // Both slots.
            size::<table::Sets>(new.sets.len() + old.sets.len().max(new.sets.len())),
            size::<table::PeerLists>(both(&new.peer_lists, &old.peer_lists)),
            size::<table::PrefixLists>(both(&new.prefix_lists, &old.prefix_lists)),
            size::<table::RuleLists>(both(&new.rules, &old.rules)),
        ]
    }
}

/// Whether all of these fit.
pub(super) fn admit(sizes: impl IntoIterator<Item = Size>) -> Result<(), TooLarge> {
    let over: Vec<_> = sizes.into_iter().filter(|size| size.needed > size.max).collect();
    if over.is_empty() { Ok(()) } else { Err(TooLarge(over)) }
}

impl TooLarge {
    /// Whether no table needs more than in `before`: what repairs is not to be stopped by what is not repaired yet.
    pub fn is_no_worse_than(&self, before: &Self) -> bool {
        let was = |size: &Size| before.0.iter().any(|old| old.table == size.table && old.needed >= size.needed);
        self.0.iter().all(was)
    }
}

impl Size {
    /// What makes the table less full.
    pub fn help(&self) -> &'static str {
        match self.table {
            table::Sets::NAME => {
                "every role has two sets, two for each time at which rules about it end, and all of that twice while \
                 anything is tried: let rules end at the same times, promote what is tried, or use fewer roles"
            }
            table::PeerLists::NAME => "name an app, or any, where rules name each of many roles",
            table::PrefixLists::NAME => {
                "every role with rules of its own has all of the prefixes about it: use wider prefixes and fewer \
                 exceptions, or write such rules about fewer roles"
            }
            table::RuleLists::NAME => "use wider ranges of ports, or the same ports in many rules",
            table::Endpoints::NAME => "attach on another host",
            table::Routes::NAME => "give hosts few wide blocks instead of many narrow ones",
            table::Members::NAME => "give blocks of an app to fewer hosts, or attach on another host",
            _ => "describe fewer hosts, or fewer addresses of each",
        }
    }
}

fn size<T: Table>(needed: usize) -> Size {
    Size { table: T::NAME, needed, max: max::<T>() }
}

/// [`Table::MAX`].
pub(super) fn max<T: Table>() -> usize {
    usize::try_from(T::MAX).unwrap_or(usize::MAX)
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
