//! Brings the tables into accord with a plan.
//!
//! Policy is swapped whole: lists are written beside those in use, the rule sets go into the slot that is not in
//! force, and one store of the epoch puts them in force. Only when no program can still be reading what was in
//! force before is it taken away.

use std::collections::BTreeMap;

use anyhow::Result;
use weft_common::{
    id::Epoch,
    policy::{RuleSet, SetKey},
    table,
};

use crate::kernel::{
    config::{ConfigCell, grace},
    pins::Pins,
    tables::{Keyed, Map, TableError, Trie},
};
use crate::plan::{NodePlan, rules::Policy};

use super::delta::delta;

/// Handles of the tables that a plan fills.
#[derive(Debug)]
pub(super) struct Tables {
    config: ConfigCell,
    endpoints: Map<table::Endpoints>,
    routes: Trie<table::Routes>,
    peers: Map<table::Peers>,
    peer_addresses: Map<table::PeerAddresses>,
    members: Map<table::Members>,
    sets: Map<table::Sets>,
    peer_lists: Map<table::PeerLists>,
    prefix_lists: Trie<table::PrefixLists>,
    rules: Trie<table::RuleLists>,
}

/// Which tables are compared. Those of policy can be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All.
    All,
    /// All but those of policy.
    Small,
    /// Those of policy if there is a difference in the others, where there should be none.
    SmallFirst,
}

/// What bringing the tables into accord came to.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Whether programs have to decide anew.
    pub(super) changed: bool,
    /// How many elements were found otherwise, by table.
    pub(super) differences: BTreeMap<&'static str, usize>,
    /// What could not be done.
    pub(super) failures: Vec<TableError>,
}

/// Takes away what a table has too much.
type Removal<'a> = Box<dyn FnOnce(&mut Applied) + 'a>;

impl Tables {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            config: ConfigCell::open(pins)?,
            endpoints: Map::open(pins)?,
            routes: Trie::open(pins)?,
            peers: Map::open(pins)?,
            peer_addresses: Map::open(pins)?,
            members: Map::open(pins)?,
            sets: Map::open(pins)?,
            peer_lists: Map::open(pins)?,
            prefix_lists: Trie::open(pins)?,
            rules: Trie::open(pins)?,
        })
    }

    /// The epoch in force.
    pub(super) fn epoch(&self) -> Epoch {
        self.config.load().epoch
    }

    /// What the tables hold, as far as a plan after a restart has to know: numbers in use keep their meaning.
    pub(super) fn read(&self) -> Result<NodePlan> {
        let slot = self.epoch().slot();
        let sets = self.sets.entries()?.into_iter().filter(|(key, _)| key.slot == slot);
        let policy = Policy {
            sets: sets.map(|(key, set)| (SetKey { slot: 0, ..key }, set)).collect(),
            peer_lists: self.peer_lists.entries()?,
            prefix_lists: self.prefix_lists.entries()?,
            rules: self.rules.entries()?,
            ..Policy::default()
        };
        Ok(NodePlan { peers: self.peers.entries()?, policy: policy.into(), ..NodePlan::default() })
    }

    /// Makes the tables as the plan has them. Those of policy have to be looked at when the plan has another policy
    /// than the one before.
    pub(super) fn apply(&self, plan: &NodePlan, look: Look) -> Applied {
        let mut applied = Applied::default();
        let policy = &plan.policy;
        let epoch = self.epoch();
        for finish in [
            Box::new(put(&self.peers, &plan.peers, &mut applied)) as Removal<'_>,
            Box::new(put(&self.peer_addresses, &plan.peer_addresses, &mut applied)),
            Box::new(put(&self.members, &plan.members, &mut applied)),
            Box::new(put(&self.endpoints, &plan.endpoints, &mut applied)),
            Box::new(put(&self.routes, &plan.routes, &mut applied)),
        ] {
            // What is gone is gone before flows are decided anew.
            finish(&mut applied);
        }
        let whole = match look {
            Look::All => true,
            Look::Small => false,
            Look::SmallFirst => !applied.differences.is_empty(),
        };
        let mut late: Vec<Removal<'_>> = Vec::new();
        if whole {
            late.push(Box::new(put(&self.rules, &policy.rules, &mut applied)));
            late.push(Box::new(put(&self.prefix_lists, &policy.prefix_lists, &mut applied)));
            late.push(Box::new(put(&self.peer_lists, &policy.peer_lists, &mut applied)));
        }
        let sets_differ = whole && self.sets_differ(policy, epoch, &mut applied);
        let config = table::Config { epoch, ..plan.config };
        if self.config.load() != config {
            applied.note("CONFIG", 1);
        }
        applied.changed = !applied.differences.is_empty() || sets_differ || epoch == Epoch::default();
        if !applied.changed {
            return applied;
        }
        let next = epoch.next();
        if !self.fill_slot(policy, next, &mut applied) {
            // The slot in force is whole; half of another one must not follow it.
            return applied;
        }
        self.config.store(table::Config { epoch: next, ..config });
        if let Err(error) = grace() {
            tracing::warn!("what was in force before stays in the tables: {error:#}");
            return applied;
        }
        for finish in late {
            finish(&mut applied);
        }
        applied
    }

    fn sets_differ(&self, policy: &Policy, epoch: Epoch, applied: &mut Applied) -> bool {
        match self.sets.entries() {
            Ok(have) => {
                let have = in_slot(have, epoch.slot());
                let want = with_slot(policy, epoch.slot());
                let differences = delta(&want, &have).len();
                applied.note("SETS", differences);
                differences > 0
            }
            Err(error) => {
                applied.failures.push(error);
                false
            }
        }
    }

    /// Writes the rule sets of an epoch that is not in force yet. Says whether all of them are there.
    fn fill_slot(&self, policy: &Policy, epoch: Epoch, applied: &mut Applied) -> bool {
        let before = applied.failures.len();
        match self.sets.entries() {
            Ok(have) => {
                let have = in_slot(have, epoch.slot());
                let want = with_slot(policy, epoch.slot());
                let change = delta(&want, &have);
                let puts = change.put.iter().map(|(key, set)| self.sets.put(key, set));
                let dels = change.del.iter().map(|key| self.sets.delete(key));
                applied.failures.extend(puts.chain(dels).filter_map(Result::err));
            }
            Err(error) => applied.failures.push(error),
        }
        applied.failures.len() == before
    }
}

impl Applied {
    fn note(&mut self, table: &'static str, differences: usize) {
        if differences > 0 {
            *self.differences.entry(table).or_default() += differences;
        }
    }
}

fn in_slot(sets: BTreeMap<SetKey, RuleSet>, slot: u8) -> BTreeMap<SetKey, RuleSet> {
    sets.into_iter().filter(|(key, _)| key.slot == slot).collect()
}

fn with_slot(policy: &Policy, slot: u8) -> BTreeMap<SetKey, RuleSet> {
    policy.sets.iter().map(|(key, set)| (SetKey { slot, ..*key }, *set)).collect()
}

/// Puts what is missing or different, and gives what takes away the rest.
fn put<'a, T: Keyed>(
    table: &'a T,
    want: &BTreeMap<T::Key, T::Value>,
    applied: &mut Applied,
) -> impl FnOnce(&mut Applied) + use<'a, T> {
    let mut surplus = Vec::new();
    match table.entries() {
        Ok(have) => {
            let change = delta(want, &have);
            applied.note(table.name(), change.len());
            applied.failures.extend(change.put.iter().filter_map(|(key, value)| table.put(key, value).err()));
            surplus.extend(change.del.into_iter().copied());
        }
        Err(error) => applied.failures.push(error),
    }
    move |applied| applied.failures.extend(surplus.iter().filter_map(|key| table.delete(key).err()))
}
