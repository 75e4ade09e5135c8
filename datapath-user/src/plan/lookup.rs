//! Reads a plan's tables as the programs read the kernel's: by exact key, and by longest prefix. For `why`, and
//! for the proof that the tables mean what the rules say.

use std::collections::BTreeMap;

use weft_common::{
    addr::Ip,
    policy::{PeerKey, PrefixKey, Rule, RuleKey, RuleSet, Rules, SetKey},
    route::Route,
};

use super::{NodePlan, rules::Policy};

/// What tables say at a time.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    policy: &'a Policy,
    now: u64,
}

impl Policy {
    /// What it says when [`super::facts::Clock`] shows `now`.
    pub fn at(&self, now: u64) -> At<'_> {
        At { policy: self, now }
    }
}

impl At<'_> {
    /// How many bits the longest prefix of a set that holds an address has, and where it starts.
    pub fn prefix(&self, key: &PrefixKey) -> Option<(u32, Ip)> {
        let (len, _) = self.longest_prefix(key)?;
        Some((len.saturating_sub(32), cut(key.addr, len.saturating_sub(32))))
    }

    fn longest_prefix(&self, key: &PrefixKey) -> Option<(u32, u32)> {
        let cut = |len: u32| PrefixKey { set: key.set, addr: cut(key.addr, len.saturating_sub(32)) };
        longest(self.policy.prefix_lists.beside(&(0, *key)), cut).map(|(len, list)| (len, *list))
    }
}

impl Rules for At<'_> {
    fn set(&self, key: &SetKey) -> Option<RuleSet> {
        self.policy.sets.get(&SetKey { slot: key.slot & SetKey::SHADOW, ..*key }).copied()
    }

    fn peer_list(&self, key: &PeerKey) -> Option<u32> {
        self.policy.peer_lists.get(key).copied()
    }

    fn prefix_list(&self, key: &PrefixKey) -> Option<u32> {
        self.longest_prefix(key).map(|(_, list)| list)
    }

    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        let port = u16::from_be_bytes(key.port);
        let cut = |len: u32| {
            let protocol = if len >= 40 { key.protocol } else { 0 };
            let mask = u16::MAX.checked_shl(56_u32.saturating_sub(len)).unwrap_or(0);
            RuleKey { list: key.list, protocol, port: (port & mask).to_be_bytes(), reserved: 0 }
        };
        longest(self.policy.rules.beside(&(0, *key)), cut).map(|(_, rule)| *rule)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

impl NodePlan {
    /// What is known of an address.
    pub fn route(&self, addr: Ip) -> Route {
        longest(&self.routes, |len| cut(addr, len)).map_or(Route::OUTSIDE, |(_, route)| *route)
    }
}

/// The entry with the longest key that `cut` to that length finds, and that length. No key is less than the default one.
fn longest<K: Ord + Default, V>(table: &BTreeMap<(u32, K), V>, cut: impl Fn(u32) -> K) -> Option<(u32, &V)> {
    let mut last = table.last_key_value();
    while let Some(((len, _), _)) = last {
        if let Some(value) = table.get(&(*len, cut(*len))) {
            return Some((*len, value));
        }
        last = table.range(..(*len, K::default())).next_back();
    }
    None
}

/// The first `len` bits of an address.
fn cut(addr: Ip, len: u32) -> Ip {
    let bits = u128::from_be_bytes(addr.bytes());
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0);
    Ip::from_v6((bits & mask).to_be_bytes())
}
