//! Brings the tables into accord with a plan.
//!
//! Policy is swapped whole: lists are written beside those in use, the rule sets go into the slot that is not in
//! force, and one store of the epoch puts them in force. Only when no program can still be reading what was in
//! force before is it taken away.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use weft_common::{
    id::Epoch,
    policy::{PeerKey, PrefixKey, RuleKey, RuleSet, SetKey},
    table,
};

use crate::delta::{Delta, delta};
use crate::kernel::{
    config::{ConfigCell, grace},
    pins::Pins,
    tables::{Keyed, Map, TableError, Trie},
};
use crate::plan::{
    NodePlan,
    rules::{Policy, Read},
};
use crate::shared::{Shared, Spread};

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
    /// What is to be taken away since an epoch was put in force.
    late: Option<Late>,
    /// Whether the tables were changed and no epoch says so yet.
    owes_epoch: bool,
    /// What the slots of the rule sets hold, where that need not be read.
    slots: [Option<Sets>; 2],
}

/// Table SETS of one slot, with its keys as a plan has them.
type Sets = Shared<SetKey, RuleSet>;

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

/// Keys of what only an earlier epoch names.
#[derive(Debug, Default)]
struct Late {
    rules: Vec<(u32, RuleKey)>,
    prefix_lists: Vec<(u32, PrefixKey)>,
    peer_lists: Vec<PeerKey>,
}

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
            // An earlier daemon may have died before it waited for programs that still ran.
            late: Some(Late::default()),
            owes_epoch: false,
            slots: [None, None],
        })
    }

    /// The epoch in force.
    pub(super) fn epoch(&self) -> Epoch {
        self.config.load().epoch
    }

    /// What the tables hold, as far as a plan after a restart has to know: numbers in use keep their meaning.
    pub(super) fn read(&self) -> Result<NodePlan> {
        let policy = Policy::default().with_tables_of(Read {
            sets: self.slot(self.epoch().slot())?,
            peer_lists: self.peer_lists.entries()?,
            prefix_lists: self.prefix_lists.entries()?,
            rules: self.rules.entries()?,
        });
        Ok(NodePlan { peers: self.peers.entries()?, policy: policy.into(), ..NodePlan::default() })
    }

    /// Makes the tables as the plan has them. Those of policy have to be looked at when the plan has another policy
    /// than the one before. `known` is what all hold, where that need not be read.
    pub(super) fn apply(&mut self, plan: &NodePlan, look: Look, known: Option<&NodePlan>) -> Result<Applied> {
        // Programs that still run read what would be written over.
        let failures = self.finish()?;
        let mut applied = Applied { failures, ..Applied::default() };
        let policy = &plan.policy;
        let epoch = self.epoch();
        let peers = put(&self.peers, &plan.peers, known.map(|known| &known.peers), &mut applied);
        let addresses = known.map(|known| &known.peer_addresses);
        let peer_addresses = put(&self.peer_addresses, &plan.peer_addresses, addresses, &mut applied);
        let members = put(&self.members, &plan.members, known.map(|known| &known.members), &mut applied);
        let endpoints = put(&self.endpoints, &plan.endpoints, known.map(|known| &known.endpoints), &mut applied);
        let routes = put(&self.routes, &plan.routes, known.map(|known| &known.routes), &mut applied);
        // What is gone is gone before flows are decided anew.
        applied.remove(&self.peers, &peers);
        applied.remove(&self.peer_addresses, &peer_addresses);
        applied.remove(&self.members, &members);
        applied.remove(&self.endpoints, &endpoints);
        applied.remove(&self.routes, &routes);
        let whole = match look {
            Look::All => true,
            Look::Small => false,
            Look::SmallFirst => !applied.differences.is_empty(),
        };
        let mut late = Late::default();
        if whole {
            if known.is_none() {
                self.slots = [None, None];
            }
            let known = known.map(|known| known.policy.as_ref());
            late.rules = put_shared(&self.rules, &policy.rules, known.map(|known| &known.rules), &mut applied);
            let prefix_lists = known.map(|known| &known.prefix_lists);
            late.prefix_lists = put_shared(&self.prefix_lists, &policy.prefix_lists, prefix_lists, &mut applied);
            let peer_lists = known.map(|known| &known.peer_lists);
            late.peer_lists = put_shared(&self.peer_lists, &policy.peer_lists, peer_lists, &mut applied);
        }
        let sets_differ = whole && self.sets_differ(policy, epoch.slot(), &mut applied);
        let config = table::Config { epoch, ..plan.config };
        if self.config.load() != config {
            applied.note("CONFIG", 1);
        }
        let differs = !applied.differences.is_empty() || sets_differ;
        applied.changed = differs || epoch == Epoch::default() || self.owes_epoch;
        if !applied.changed {
            return Ok(applied);
        }
        let next = epoch.next();
        // The slot in force is whole; half of another one must not follow it.
        self.owes_epoch = !self.fill_slot(policy, next, &mut applied);
        if !self.owes_epoch {
            self.config.store(table::Config { epoch: next, ..config });
            self.late = Some(late);
        }
        Ok(applied)
    }

    /// Takes away what was in force before, once no program can still be reading it. Waits for that, some milliseconds.
    pub(super) fn finish(&mut self) -> Result<Vec<TableError>> {
        if self.late.is_none() {
            return Ok(Vec::new());
        }
        grace().context("take away what was in force before")?;
        let mut applied = Applied::default();
        if let Some(Late { rules, prefix_lists, peer_lists }) = self.late.take() {
            applied.remove(&self.rules, &rules);
            applied.remove(&self.prefix_lists, &prefix_lists);
            applied.remove(&self.peer_lists, &peer_lists);
        }
        Ok(applied.failures)
    }

    fn sets_differ(&self, policy: &Policy, slot: u8, applied: &mut Applied) -> bool {
        match self.slot(slot) {
            Ok(have) => {
                let differences = policy.sets.delta(&have).len();
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
    fn fill_slot(&mut self, policy: &Policy, epoch: Epoch, applied: &mut Applied) -> bool {
        let before = applied.failures.len();
        let slot = epoch.slot();
        let of_slot = |key: &SetKey| SetKey { slot: key.slot | slot, ..*key };
        match self.slot(slot) {
            Ok(have) => {
                let Delta { put, del } = policy.sets.delta(&have);
                let puts = put.iter().map(|(key, set)| self.sets.put(&of_slot(key), set));
                let dels = del.iter().map(|key| self.sets.delete(&of_slot(key)));
                applied.failures.extend(puts.chain(dels).filter_map(Result::err));
            }
            Err(error) => applied.failures.push(error),
        }
        let is_filled = applied.failures.len() == before;
        self.slots[usize::from(slot)] = is_filled.then(|| policy.sets.clone());
        is_filled
    }

    fn slot(&self, slot: u8) -> Result<Sets, TableError> {
        if let Some(known) = &self.slots[usize::from(slot)] {
            return Ok(known.clone());
        }
        let sets = self.sets.entries()?.into_iter().filter(|(key, _)| key.slot & !SetKey::SHADOW == slot);
        Ok(sets.map(|(key, set)| (SetKey { slot: key.slot & SetKey::SHADOW, ..key }, set)).collect())
    }
}

impl Applied {
    fn put<T: Keyed>(&mut self, table: &T, change: Delta<'_, T::Key, T::Value>) -> Vec<T::Key> {
        self.note(table.name(), change.len());
        self.failures.extend(change.put.iter().filter_map(|(key, value)| table.put(key, value).err()));
        change.del.into_iter().copied().collect()
    }

    fn read<T: Keyed>(&mut self, table: &T) -> Option<BTreeMap<T::Key, T::Value>> {
        table.entries().map_err(|error| self.failures.push(error)).ok()
    }

    fn remove<T: Keyed>(&mut self, table: &T, keys: &[T::Key]) {
        self.failures.extend(keys.iter().filter_map(|key| table.delete(key).err()));
    }

    fn note(&mut self, table: &'static str, differences: usize) {
        if differences > 0 {
            *self.differences.entry(table).or_default() += differences;
        }
    }
}

/// Puts what is missing or different, and gives the keys of the rest. `known` is what the table holds; else it is read.
fn put<T: Keyed>(
    table: &T,
    want: &BTreeMap<T::Key, T::Value>,
    known: Option<&BTreeMap<T::Key, T::Value>>,
    applied: &mut Applied,
) -> Vec<T::Key> {
    match known {
        Some(have) => applied.put(table, delta(want, have)),
        None => applied.read(table).map(|have| applied.put(table, delta(want, &have))).unwrap_or_default(),
    }
}

/// The same of a table that shares most of it with the one before.
fn put_shared<T: Keyed<Key: Spread>>(
    table: &T,
    want: &Shared<T::Key, T::Value>,
    known: Option<&Shared<T::Key, T::Value>>,
    applied: &mut Applied,
) -> Vec<T::Key> {
    let have = known.cloned().or_else(|| applied.read(table).map(Shared::from));
    have.map(|have| applied.put(table, want.delta(&have))).unwrap_or_default()
}
