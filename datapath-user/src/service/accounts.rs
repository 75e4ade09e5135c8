//! What this host has counted: by pair of apps, and by the rule or default that decided.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use weft_common::{
    id::AppId,
    policy::BY_DEFAULT,
    table::{self, Account, Counts},
};

use crate::front::api::dto::{
    flows::{Pair, TrafficList},
    rules::{ByDefault, Hits, Tried},
    side::Volume,
};
use crate::kernel::{config, tables::PerCpu};

use super::{Service, naming::Names};

/// The accounts at one moment, of all CPUs together.
pub(super) struct Accounts {
    all: BTreeMap<Account, Counts>,
    now: u64,
}

impl Service {
    pub(super) fn accounts(&self) -> Result<Accounts> {
        let all = PerCpu::<table::Traffic>::open(&self.pins)?.totals(Counts::plus)?;
        Ok(Accounts { all, now: config::now() })
    }

    pub(super) fn traffic(&self) -> Result<TrafficList> {
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let names = Names { cluster: &snapshot.cluster, plan: &plan };
        let mut pairs: Vec<_> = self.accounts()?.sums(|account| Some((account.src, account.dst))).into_iter().collect();
        pairs.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.bytes));
        let pairs = pairs.into_iter().map(|((src, dst), counts)| Pair {
            from: names.app_name(src),
            to: names.app_name(dst),
            volume: Volume { packets: counts.packets, bytes: counts.bytes },
            flows: counts.flows,
            drops: counts.drops,
        });
        Ok(TrafficList { pairs: pairs.collect() })
    }
}

impl Accounts {
    /// By number of the rule. 0 is all defaults together.
    pub(super) fn by_rule(&self) -> BTreeMap<u32, Hits> {
        let sums = self.sums(|account| Some(account.rule)).into_iter();
        sums.map(|(rule, counts)| (rule, self.hits(&counts))).collect()
    }

    /// By number of the rule that is only tried, or [`BY_DEFAULT`].
    pub(super) fn by_tried(&self) -> BTreeMap<u32, Tried> {
        let sums = self.sums(|account| (account.shadow != 0).then_some(account.shadow)).into_iter();
        sums.map(|(rule, counts)| (rule, self.tried(&counts))).collect()
    }

    /// Flows that were allowed, by the apps of the opener and of the other side.
    pub(super) fn flows_by_pair(&self) -> BTreeMap<(AppId, AppId), u64> {
        let sums = self.sums(|account| Some((account.src, account.dst))).into_iter();
        sums.map(|(pair, counts)| (pair, counts.flows)).collect()
    }

    /// What defaults of an app whose policy is only tried would have changed of what it sent and was sent.
    pub(super) fn tried_by_default(&self, app: AppId) -> Option<Tried> {
        let of_app = |account: &Account| account.shadow == BY_DEFAULT && (account.src == app || account.dst == app);
        let sums = self.sums(|account| of_app(account).then_some(()));
        sums.get(&()).map(|counts| self.tried(counts))
    }

    fn tried(&self, counts: &Counts) -> Tried {
        let Hits { packets, bytes: _, flows, drops, last } = self.hits(counts);
        Tried { would_drop: packets, would_drop_flows: flows, would_pass: drops, last }
    }

    /// What defaults have decided on what an app sent or was sent.
    pub(super) fn by_default(&self, app: AppId, names: &Names<'_>) -> Vec<ByDefault> {
        let of_app = |account: &Account| account.rule == 0 && (account.src == app || account.dst == app);
        let sums = self.sums(|account| of_app(account).then_some((account.src, account.dst))).into_iter();
        let shown = sums.map(|((src, dst), counts)| ByDefault {
            from: names.app_name(src),
            to: names.app_name(dst),
            hits: self.hits(&counts),
        });
        shown.collect()
    }

    fn sums<K: Ord>(&self, of: impl Fn(&Account) -> Option<K>) -> BTreeMap<K, Counts> {
        let mut sums: BTreeMap<K, Counts> = BTreeMap::new();
        for (account, counts) in &self.all {
            if let Some(key) = of(account) {
                sums.entry(key).or_default().add(*counts);
            }
        }
        sums
    }

    fn hits(&self, counts: &Counts) -> Hits {
        let Counts { packets, bytes, flows, drops, last } = *counts;
        let ago = Duration::from_nanos(self.now.saturating_sub(last));
        Hits { packets, bytes, flows, drops, last: (SystemTime::now() - ago).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_what_all_pairs_of_apps_were_counted_under_it() {
        let (shop, blog) = (AppId(100), AppId(200));
        let counts = |packets, last| Counts { packets, bytes: packets * 100, flows: 1, drops: 2, last };
        let account = |src, dst, rule, counts| (Account::new(src, dst, rule), counts);
        let all = [
            account(shop, blog, 7, counts(5, 1_000_000_000)),
            account(blog, shop, 7, counts(3, 4_000_000_000)),
            account(shop, blog, 0, counts(1, 0)),
            account(shop, blog, Account::NO_RULE, counts(9, 9)),
        ];
        let accounts = Accounts { all: all.into(), now: 10_000_000_000 };
        let by_rule = accounts.by_rule();
        let Hits { packets, bytes, flows, drops, last } = by_rule[&7].clone();
        assert_eq!((packets, bytes, flows, drops), (8, 800, 2, 4));
        let ago = last.age(SystemTime::now().into());
        assert!((6000..7000).contains(&ago.as_millis()), "{ago:?}");
        let pairs = accounts.sums(|account| Some((account.src, account.dst)));
        assert_eq!(pairs.values().map(|counts| counts.packets).collect::<Vec<_>>(), [15, 3]);
    }
}
