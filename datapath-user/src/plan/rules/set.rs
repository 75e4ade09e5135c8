//! Rule sets: all lists of one subject and direction.

use std::{collections::BTreeMap, sync::Arc};

use weft_common::{
    addr::Ip,
    id::{AppId, RoleId},
    policy::{PeerKey, PrefixKey, RuleSet},
};

use crate::shared::Spread;

use super::{
    super::ids::{Content, hash_words},
    Policy,
};

/// One content of a set: which list speaks of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// In order.
    pub peers: Vec<((AppId, RoleId), u32)>,
    /// Bits that count and the address, in order.
    pub prefixes: Vec<((u32, Ip), u32)>,
}

/// Bits of a key in front of the address: the set's number.
const IN_FRONT: u32 = 32;

impl Set {
    /// What [`RuleSet::flags`] says of it.
    pub(super) fn flags(&self) -> u32 {
        let flag = |is_empty, flag| if is_empty { 0 } else { flag };
        flag(self.peers.is_empty(), RuleSet::HAS_RULES) | flag(self.prefixes.is_empty(), RuleSet::HAS_PREFIXES)
    }

    /// The numbers of its lists, one for each entry.
    pub(super) fn lists(&self) -> impl Iterator<Item = u32> {
        let peers = self.peers.iter().map(|(_, list)| *list);
        peers.chain(self.prefixes.iter().map(|(_, list)| *list))
    }

    /// As the table of lists by peer holds it, as set `set`.
    pub(super) fn peer_entries(&self, set: u32) -> impl Iterator<Item = (PeerKey, u32)> {
        self.peers.iter().map(move |&((app, role), list)| (PeerKey { set, app, role, reserved: 0 }, list))
    }

    /// As the table of lists by prefix holds it, as set `set`.
    pub(super) fn prefix_entries(&self, set: u32) -> impl Iterator<Item = ((u32, PrefixKey), u32)> {
        self.prefixes.iter().map(move |&((len, addr), list)| ((IN_FRONT + len, PrefixKey { set, addr }), list))
    }

    /// Every set that tables hold, with its number.
    pub(in super::super) fn read(policy: &Policy) -> impl Iterator<Item = (Arc<Self>, u32)> + use<> {
        let mut sets: BTreeMap<u32, Self> = BTreeMap::new();
        for (key, list) in &policy.peer_lists {
            sets.entry(key.set).or_default().peers.push(((key.app, key.role), *list));
        }
        for ((len, key), list) in &policy.prefix_lists {
            let at = (len.saturating_sub(IN_FRONT), key.addr);
            sets.entry(key.set).or_default().prefixes.push((at, *list));
        }
        sets.into_iter().map(|(number, mut set)| {
            set.peers.sort_unstable();
            set.prefixes.sort_unstable();
            (Arc::new(set), number)
        })
    }
}

impl Spread for Arc<Set> {
    fn hash(&self) -> u64 {
        let peers = self.peers.iter().flat_map(|&((app, role), list)| [app.0, u32::from(role.0), list]);
        let prefixes = self.prefixes.iter().flat_map(|&((len, addr), list)| {
            let [a, b, c, d] = addr.0.map(u32::from_be);
            [len, a, b, c, d, list]
        });
        // The two parts are told apart by what is between them: no app has this number.
        hash_words(peers.chain([u32::MAX]).chain(prefixes))
    }
}

impl Content for Arc<Set> {}

/// What belongs to one set is together.
impl Spread for PeerKey {
    fn hash(&self) -> u64 {
        self.set.into()
    }
}

impl Spread for (u32, PrefixKey) {
    fn hash(&self) -> u64 {
        self.1.set.into()
    }
}
