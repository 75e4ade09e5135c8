//! The tables as they are, beside what they should be.

use std::collections::BTreeMap;

use weft_common::{
    event::sample::Bucket,
    id::Epoch,
    policy::SetKey,
    table::{self, Config, Counts, Shape, Table},
};

use crate::front::api::{
    dto::maps::{Compared, Entry, Map as Shown, MapList, ShowMaps},
    refusal::Refusal,
};
use crate::kernel::tables::{Keyed as _, Map, PerCpu, Trie};

use super::{Service, naming::Names, words::prefix};

/// How many entries of a table are shown unless more are asked for.
const ENTRIES: usize = 200;

impl Service {
    pub(super) fn maps(&self, request: &ShowMaps) -> Result<MapList, Refusal> {
        let limit = request.limit.map_or(ENTRIES, |limit| usize::try_from(limit).unwrap_or(ENTRIES));
        let (snapshot, plan, pins) = (self.snapshot(), self.plan(), &self.pins);
        let names = &Names { cluster: &snapshot.cluster, plan: &plan };
        let epoch = Epoch(self.board.read().epoch);
        let config: BTreeMap<u32, Config> = [(0, Config { epoch, ..plan.config })].into();
        let sets: BTreeMap<SetKey, _> = plan
            .policy
            .sets
            .iter()
            .map(|(key, set)| (SetKey { slot: key.slot | epoch.slot(), ..*key }, *set))
            .collect();
        let wanted = |name: &str| request.name.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name));
        let mut maps = Vec::new();
        macro_rules! show {
            ($table:ty, $have:expr, $want:expr, $key:expr, $value:expr) => {
                if wanted(<$table>::NAME) {
                    let have = $have.map_err(anyhow::Error::from)?;
                    maps.push(shown::<$table, _, _>(&have, $want, limit, ($key, $value)));
                }
            };
        }
        macro_rules! entries {
            ($handle:ident, $table:ty) => {
                $handle::<$table>::open(pins)?.entries()
            };
        }
        macro_rules! words {
            ($of:ident) => {
                |it| names.$of(it)
            };
        }
        show!(table::Configs, entries!(Map, table::Configs), Some(&config), |_| "all".to_owned(), words!(config));
        show!(table::Endpoints, entries!(Map, table::Endpoints), Some(&plan.endpoints), words!(link), words!(endpoint));
        let at = |(len, addr): &(u32, _)| prefix(*len, *addr);
        show!(table::Routes, entries!(Trie, table::Routes), Some(&plan.routes), at, words!(route));
        show!(table::Peers, entries!(Map, table::Peers), Some(&plan.peers), words!(peer_number), words!(peer_record));
        show!(
            table::PeerAddresses,
            entries!(Map, table::PeerAddresses),
            Some(&plan.peer_addresses),
            ToString::to_string,
            words!(peer_id)
        );
        // The other slot holds what was in force before, and is nobody's.
        let in_force = |sets: BTreeMap<SetKey, _>| {
            sets.into_iter().filter(|(key, _)| key.slot & !SetKey::SHADOW == epoch.slot()).collect()
        };
        show!(table::Sets, entries!(Map, table::Sets).map(in_force), Some(&sets), words!(set_key), words!(set));
        show!(
            table::PeerLists,
            entries!(Map, table::PeerLists),
            Some(&plan.policy.peer_lists.in_order()),
            words!(peer_key),
            words!(list)
        );
        show!(
            table::PrefixLists,
            entries!(Trie, table::PrefixLists),
            Some(&plan.policy.prefix_lists.in_order()),
            words!(prefix_key),
            words!(list)
        );
        show!(
            table::RuleLists,
            entries!(Trie, table::RuleLists),
            Some(&plan.policy.rules.in_order()),
            words!(rule_key),
            words!(rule_value)
        );
        show!(table::Flows, entries!(Map, table::Flows), None, words!(flow_key), words!(flow));
        show!(table::Datagrams, entries!(Map, table::Datagrams), None, words!(datagram_key), words!(datagram));
        show!(table::Members, entries!(Map, table::Members), Some(&plan.members), words!(member_key), words!(member));
        show!(table::Groups, entries!(Map, table::Groups), None, words!(group_key), words!(wish));
        let buckets = |a: Bucket, b: Bucket| Bucket {
            filled: a.filled.max(b.filled),
            tokens: a.tokens + b.tokens,
            skipped: a.skipped + b.skipped,
        };
        // Of an array all elements are there; those that nothing happened to say nothing.
        let used = |all: BTreeMap<u32, Bucket>| all.into_iter().filter(|(_, bucket)| bucket.filled > 0).collect();
        show!(
            table::Storms,
            PerCpu::<table::Storms>::open(pins)?.totals(buckets).map(used),
            None,
            words!(storm_key),
            words!(bucket)
        );
        let counted = |all: BTreeMap<u32, u64>| all.into_iter().filter(|(_, count)| *count > 0).collect();
        show!(
            table::Drops,
            PerCpu::<table::Drops>::open(pins)?.totals(|a, b| a + b).map(counted),
            None,
            words!(reason),
            words!(packets)
        );
        let traffic = PerCpu::<table::Traffic>::open(pins)?.totals(Counts::plus);
        show!(table::Traffic, traffic, None, words!(account), words!(counts));
        let uncounted = PerCpu::<table::Uncounted>::open(pins)?.totals(Counts::plus);
        let any =
            |all: BTreeMap<u32, Counts>| all.into_iter().filter(|(_, counts)| *counts != Counts::default()).collect();
        show!(table::Uncounted, uncounted.map(any), None, |_| "all".to_owned(), words!(counts));
        show!(
            table::Samples,
            PerCpu::<table::Samples>::open(pins)?.totals(buckets).map(used),
            None,
            words!(reason),
            words!(bucket)
        );
        if maps.is_empty() {
            let name = request.name.as_deref().unwrap_or_default();
            return Err(Refusal::not_found(format!("there is no table {name:?}: see weft maps for their names")));
        }
        Ok(MapList { maps })
    }
}

/// A table beside what it should be, with words for keys and values.
fn shown<T: Table, K: Ord, V: PartialEq>(
    have: &BTreeMap<K, V>,
    want: Option<&BTreeMap<K, V>>,
    limit: usize,
    (key, value): (impl Fn(&K) -> String, impl Fn(&V) -> String),
) -> Shown {
    let compare = |(at, there): (_, _)| match want.map(|want| want.get(at)) {
        None => (at, Some(there), Compared::Unplanned, None),
        Some(None) => (at, Some(there), Compared::Extra, None),
        Some(Some(wanted)) if wanted == there => (at, Some(there), Compared::Same, None),
        Some(Some(wanted)) => (at, Some(there), Compared::Different, Some(wanted)),
    };
    let missing = want.into_iter().flatten().filter(|(at, _)| !have.contains_key(*at));
    let missing = missing.map(|(at, wanted)| (at, None, Compared::Missing, Some(wanted)));
    let mut entries: Vec<_> = have.iter().map(compare).chain(missing).collect();
    // What is not as it should be comes first, and is never left out for what is.
    entries.sort_by_key(|(_, _, compared, _)| matches!(compared, Compared::Same | Compared::Unplanned));
    let left_out = entries.len().saturating_sub(limit);
    entries.truncate(limit);
    let entry = |(at, there, compared, wanted): (&K, Option<&V>, Compared, Option<&V>)| Entry {
        key: key(at),
        value: there.map(&value).unwrap_or_default(),
        compared,
        desired: wanted.map(&value),
    };
    Shown {
        name: T::NAME.to_owned(),
        shape: shape(T::SHAPE).to_owned(),
        used: have.len() as u64,
        max: u64::from(T::MAX),
        desired: want.map(|want| want.len() as u64),
        entries: entries.into_iter().map(entry).collect(),
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
