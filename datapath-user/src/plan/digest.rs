//! One number for all of policy: two hosts that have the same enforce the same.
//!
//! Tables hold numbers that depend on what a host had before, so the digest is of what the numbers mean. It knows nothing
//! of files, of the names of rules and of their order: those change no verdict. Only where rules are equal, and the first of
//! them is the one that is reported, it tells which that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use weft_common::policy::{RuleSet, SetKey};

use crate::model::app::{App, Defaults, Role};

use super::rules::{MadeOf, Policy};

/// The digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Of tables, and of the apps and rules that they were made of. The tables may be the kernel's: see
    /// [`Policy::with_tables_of`].
    pub fn of(policy: &Policy) -> Self {
        let mut all = Hasher::default();
        if let Some(MadeOf { apps, rules, ends: _ }) = &policy.made_of {
            for app in apps.values() {
                all.app(app);
            }
            all.texts("rule", &rules.iter().map(|rule| rule.statement().to_string()).collect());
        }
        all.number(tables(policy));
        Self(all.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What tables say, whatever their numbers.
fn tables(policy: &Policy) -> u128 {
    let Policy { sets, peer_lists, prefix_lists, rules, names, .. } = policy;
    let said: BTreeMap<u32, u128> = names
        .iter()
        .map(|(id, rule)| {
            let mut hash = Hasher::default();
            hash.text(&rule.statement().to_string());
            (*id, hash.0)
        })
        .collect();
    let said = |id: u32| said.get(&id).copied().unwrap_or_else(|| id.into());
    let mut lists: BTreeMap<u32, Hasher> = BTreeMap::new();
    for ((len, key), rule) in rules {
        let list = lists.entry(key.list).or_default();
        list.numbers([*len, key.protocol.into(), u16::from_be_bytes(key.port).into()]);
        for winner in [rule.top, rule.under] {
            list.number(winner.rank.0);
            list.number(said(winner.id));
        }
    }
    let list = |number: u32| lists.get(&number).map_or(0, |list| list.0);
    let mut contents: BTreeMap<u32, Hasher> = BTreeMap::new();
    for (key, number) in peer_lists {
        let set = contents.entry(key.set).or_default();
        set.numbers([1, key.app.0, key.role.0.into()]);
        set.number(list(*number));
    }
    for ((len, key), number) in prefix_lists {
        let set = contents.entry(key.set).or_default();
        set.numbers([2, *len]);
        set.number(u128::from_be_bytes(key.addr.bytes()));
        set.number(list(*number));
    }
    let mut all = Hasher::default();
    for (SetKey { app, role, direction, slot, stage }, RuleSet { id, flags, until }) in sets {
        all.numbers([app.0, role.0.into(), (*direction).into(), (*slot).into(), *stage, *flags]);
        // When that is each host says by a clock of its own; the rules say it for all.
        all.number(u32::from(*until != 0));
        all.number(contents.get(id).map_or(0, |set| set.0));
    }
    all.0
}

/// FNV-1a of 128 bits: the same on every host and for ever, and nobody gains by a collision but who may change the
/// cluster anyway.
#[derive(Clone, Copy)]
struct Hasher(u128);

impl Default for Hasher {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hasher {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn number(&mut self, number: impl Into<u128>) {
        self.bytes(&number.into().to_be_bytes());
    }

    fn numbers<const N: usize>(&mut self, numbers: [u32; N]) {
        for number in numbers {
            self.bytes(&number.to_be_bytes());
        }
    }

    /// Ended by a byte that no text has.
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0xff]);
    }

    fn texts(&mut self, kind: &str, texts: &BTreeSet<String>) {
        self.text(kind);
        for text in texts {
            self.text(text);
        }
        self.bytes(&[0xfe]);
    }

    fn app(&mut self, app: &App) {
        let App { name, number, prefixes, labels, roles, defaults, shadow } = app;
        let Defaults { inside, from_apps, from_host, to_outside } = defaults;
        self.text(name.as_str());
        self.numbers([number.0]);
        self.text(&labels.to_string());
        for gate in [inside, from_apps, from_host, to_outside] {
            self.text(gate.name());
        }
        self.numbers([u32::from(*shadow)]);
        self.texts("prefix", &prefixes.iter().map(ToString::to_string).collect());
        for (name, Role { number, labels, ports }) in roles {
            self.text(name.as_str());
            self.numbers([number.0.into()]);
            self.text(&labels.to_string());
            self.text(&ports.to_string());
        }
        self.bytes(&[0xfd]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{cluster::Cluster, example};
    use crate::plan::{
        ids::PolicyIds,
        rules::{Read, compile},
    };

    fn cluster(rules: &[&str]) -> Cluster {
        Cluster { rules: example::rules(rules), ..example::cluster() }
    }

    fn digest(rules: &[&str]) -> Digest {
        Digest::of(&Policy::of(&cluster(rules)))
    }

    const RULES: [&str; 3] = ["allow shop -> blog tcp/80", "deny shop -> 203.0.113.0/24", "allow shop/web -> blog/db"];

    #[test]
    fn it_changes_with_what_is_enforced_and_with_nothing_else() {
        let base = digest(&RULES);
        assert_eq!(digest(&[RULES[2], RULES[0], RULES[1]]), base);
        assert_eq!(digest(&["allow shop -> blog tcp/80 as web", RULES[1], RULES[2]]), base);
        assert_ne!(digest(&RULES[..2]), base);
        assert_ne!(digest(&["allow shop -> blog tcp/81", RULES[1], RULES[2]]), base);
        let mut other = cluster(&RULES);
        for app in Arc::make_mut(&mut other.apps).values_mut() {
            app.defaults.from_apps = crate::model::app::Gate::Open;
        }
        assert_ne!(Digest::of(&Policy::of(&other)), base);
    }

    #[test]
    fn numbers_that_a_host_had_before_do_not_count() {
        // A list and a set that are there already take the numbers that others would start from.
        let before = cluster(&["allow blog -> shop udp", "allow shop -> blog tcp"]);
        let (_, ids) = compile(&before, None, (&Policy::default(), &PolicyIds::default()));
        let (policy, _) = compile(&cluster(&RULES), None, (&Policy::default(), &ids));
        assert_eq!(Digest::of(&policy), digest(&RULES));
        let renumbered = policy.with_tables_of(Read {
            sets: policy.sets.iter().map(|(key, set)| (*key, RuleSet { id: set.id ^ 1 << 31, ..*set })).collect(),
            peer_lists: policy
                .peer_lists
                .iter()
                .map(|(key, list)| (weft_common::policy::PeerKey { set: key.set ^ 1 << 31, ..*key }, list ^ 1 << 30))
                .collect(),
            prefix_lists: policy
                .prefix_lists
                .iter()
                .map(|((len, key), list)| {
                    ((*len, weft_common::policy::PrefixKey { set: key.set ^ 1 << 31, ..*key }), list ^ 1 << 30)
                })
                .collect(),
            rules: policy
                .rules
                .iter()
                .map(|((len, key), rule)| {
                    ((*len, weft_common::policy::RuleKey { list: key.list ^ 1 << 30, ..*key }), *rule)
                })
                .collect(),
        });
        assert_eq!(Digest::of(&renumbered), digest(&RULES));
        // An entry that is not there, or another, is told.
        let mut damaged = policy.clone();
        let last = *damaged.rules.keys().last().unwrap();
        damaged.rules.remove(&last);
        assert_ne!(Digest::of(&damaged), digest(&RULES));
        let mut nothing = Policy::default();
        nothing.made_of.clone_from(&policy.made_of);
        assert_ne!(Digest::of(&nothing), digest(&RULES));
    }
}
