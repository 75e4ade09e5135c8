//! Closes the accounts of rules and apps that are no more, so that the table has room for those that are.
//!
//! It is done when nothing was counted for a while: where the tables could not take a change the rules before it go on
//! counting. What a rule has counted stays in the sum of its two apps.

use std::collections::BTreeSet;

use anyhow::Result;
use weft_common::{
    id::AppId,
    policy::BY_DEFAULT,
    table::{self, Account, Counts},
};

use crate::kernel::{
    config::now,
    pins::Pins,
    tables::{PerCpu, TableError},
};
use crate::plan::rules::Policy;

/// Nothing has been counted for so long, in nanoseconds: flows that an earlier epoch allowed were decided anew since.
const QUIET: u64 = 5 * 60 * 1_000_000_000;

/// All accounts.
#[derive(Debug)]
pub(super) struct Accounts(PerCpu<table::Traffic>);

/// What is to be done about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays open.
    Stays,
    /// Its rule is gone: what it has counted goes to this one.
    Ends(Account),
    /// One of its apps is gone, and nobody can ask for it.
    Goes,
}

impl Accounts {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        PerCpu::open(pins).map(Self)
    }

    /// Closes those that are of nothing in `policy`. Gives what could not be done.
    pub(super) fn close(&self, policy: &Policy) -> Vec<TableError> {
        let accounts = match self.0.entries() {
            Ok(accounts) => accounts,
            Err(error) => return vec![error],
        };
        let apps: BTreeSet<AppId> = policy.sets.keys().map(|set| set.app).collect();
        let now = now();
        let closed = accounts.iter().map(|(account, counts)| {
            let last = counts.iter().map(|counts| counts.last).max().unwrap_or_default();
            if now.saturating_sub(last) < QUIET {
                return Ok(());
            }
            match fate(account, policy, &apps) {
                Fate::Stays => Ok(()),
                Fate::Ends(to) => self.end(account, counts, &to),
                Fate::Goes => self.0.delete(account),
            }
        });
        closed.filter_map(Result::err).collect()
    }

    fn end(&self, account: &Account, counts: &[Counts], to: &Account) -> Result<(), TableError> {
        let mut sums = self.0.get(to)?.unwrap_or_else(|| vec![Counts::default(); counts.len()]);
        sums.iter_mut().zip(counts).for_each(|(sum, counts)| sum.add(*counts));
        // Killed in between, the daemon has lost what it else would have counted twice.
        self.0.delete(account)?;
        self.0.put(to, &sums)
    }
}

fn fate(account: &Account, policy: &Policy, apps: &BTreeSet<AppId>) -> Fate {
    let Account { src, dst, rule, shadow } = *account;
    let is_known = matches!(rule, 0 | Account::NO_RULE | Account::PAST) || policy.names.contains_key(&rule);
    let is_tried = matches!(shadow, 0 | BY_DEFAULT) || policy.names.contains_key(&shadow);
    match (apps.contains(&src) && apps.contains(&dst), is_known, is_tried) {
        (false, ..) => Fate::Goes,
        (true, true, true) => Fate::Stays,
        (true, true, false) => Fate::Ends(Account::new(src, dst, rule)),
        (true, false, _) => Fate::Ends(Account::new(src, dst, Account::PAST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use weft_common::policy::{RuleSet, SetKey};

    use crate::model::rule::Rule;

    #[test]
    fn accounts_end_with_their_rule_and_go_with_their_apps() {
        let (shop, blog, gone) = (AppId(100), AppId(200), AppId(300));
        let set = |app| (SetKey { app, ..SetKey::default() }, RuleSet::default());
        let rule: Rule = "allow shop -> blog".parse().unwrap();
        let mut policy = Policy::default();
        policy.sets.extend([shop, blog, AppId::HOST].map(set));
        policy.names.insert(7, rule.into());
        let apps = policy.sets.keys().map(|set| set.app).collect();
        let check = |src, dst, rule, expect| {
            let account = Account::new(src, dst, rule);
            assert_eq!(fate(&account, &policy, &apps), expect, "{account:?}");
        };
        for rule in [0, 7, Account::NO_RULE, Account::PAST] {
            check(shop, blog, rule, Fate::Stays);
            check(AppId::HOST, shop, rule, Fate::Stays);
            check(gone, blog, rule, Fate::Goes);
            check(blog, gone, rule, Fate::Goes);
        }
        check(shop, blog, 8, Fate::Ends(Account::new(shop, blog, Account::PAST)));
        check(blog, shop, 8, Fate::Ends(Account::new(blog, shop, Account::PAST)));
        check(gone, gone, 8, Fate::Goes);
    }
}
