//! The tables as they are, beside what they should be.

use std::{collections::BTreeMap, fmt::Debug};

use anyhow::Result;
use weft_common::{
    id::Epoch,
    policy::SetKey,
    table::{self, Shape, Table},
};

use crate::front::api::{
    dto::maps::{Compared, Entry, Map as Shown, MapList, ShowMaps},
    refusal::Refusal,
};
use crate::kernel::tables::{Keyed as _, Map, Trie};

use super::Service;

/// How many entries of a table are shown unless more are asked for.
const ENTRIES: usize = 200;

impl Service {
    pub(super) fn maps(&self, request: &ShowMaps) -> Result<MapList, Refusal> {
        let limit = request.limit.map_or(ENTRIES, |limit| usize::try_from(limit).unwrap_or(ENTRIES));
        let (plan, pins) = (self.plan(), &self.pins);
        let slot = Epoch(self.board.read().epoch).slot();
        let sets: BTreeMap<SetKey, _> =
            plan.policy.sets.iter().map(|(key, set)| (SetKey { slot, ..*key }, *set)).collect();
        let wanted = |name: &str| request.name.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name));
        let mut maps = Vec::new();
        macro_rules! show {
            ($table:ty, $handle:ident, $want:expr) => {
                if wanted(<$table>::NAME) {
                    let have = $handle::<$table>::open(pins)?.entries().map_err(anyhow::Error::from)?;
                    maps.push(shown::<$table, _, _>(&have, $want, limit));
                }
            };
        }
        show!(table::Endpoints, Map, Some(&plan.endpoints));
        show!(table::Routes, Trie, Some(&plan.routes));
        show!(table::Peers, Map, Some(&plan.peers));
        show!(table::PeerAddresses, Map, Some(&plan.peer_addresses));
        show!(table::Members, Map, Some(&plan.members));
        show!(table::PeerLists, Map, Some(&plan.policy.peer_lists));
        show!(table::PrefixLists, Trie, Some(&plan.policy.prefix_lists));
        show!(table::RuleLists, Trie, Some(&plan.policy.rules));
        if wanted(table::Sets::NAME) {
            // The other slot holds what was in force before, and is nobody's.
            let have = Map::<table::Sets>::open(pins)?.entries().map_err(anyhow::Error::from)?;
            let have = have.into_iter().filter(|(key, _)| key.slot == slot).collect();
            maps.push(shown::<table::Sets, _, _>(&have, Some(&sets), limit));
        }
        show!(table::Flows, Map, None);
        show!(table::Datagrams, Map, None);
        show!(table::Groups, Map, None);
        if maps.is_empty() {
            let name = request.name.as_deref().unwrap_or_default();
            return Err(Refusal::not_found(format!("there is no table {name:?}: see weft maps for their names")));
        }
        Ok(MapList { maps })
    }
}

fn shown<T: Table, K: Ord + Debug, V: PartialEq + Debug>(
    have: &BTreeMap<K, V>,
    want: Option<&BTreeMap<K, V>>,
    limit: usize,
) -> Shown {
    let mut entries = Vec::new();
    for (key, value) in have {
        let (compared, desired) = match want.map(|want| want.get(key)) {
            None => (Compared::Unplanned, None),
            Some(None) => (Compared::Extra, None),
            Some(Some(wanted)) if wanted == value => (Compared::Same, None),
            Some(Some(wanted)) => (Compared::Different, Some(format!("{wanted:?}"))),
        };
        entries.push(Entry { key: format!("{key:?}"), value: format!("{value:?}"), compared, desired });
    }
    for (key, value) in want.into_iter().flatten().filter(|(key, _)| !have.contains_key(*key)) {
        let (key, desired) = (format!("{key:?}"), Some(format!("{value:?}")));
        entries.push(Entry { key, value: String::new(), compared: Compared::Missing, desired });
    }
    // What is not as it should be comes first, and is never left out for what is.
    entries.sort_by_key(|entry| matches!(entry.compared, Compared::Same | Compared::Unplanned));
    let left_out = entries.len().saturating_sub(limit);
    entries.truncate(limit);
    Shown {
        name: T::NAME.to_owned(),
        shape: shape(T::SHAPE).to_owned(),
        used: have.len() as u64,
        max: u64::from(T::MAX),
        desired: want.map(|want| want.len() as u64),
        entries,
        left_out: left_out as u64,
    }
}

fn shape(shape: Shape) -> &'static str {
    match shape {
        Shape::Hash => "hash",
        Shape::Array => "array",
        Shape::PerCpuHash => "hash per CPU",
        Shape::PerCpuArray => "array per CPU",
        Shape::LruHash => "hash, least recently used first out",
        Shape::LpmTrie => "longest prefix",
    }
}
