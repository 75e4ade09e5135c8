//! Where rules are among all: numbers that grow along the rules, and stay while others come and go.

use std::{cmp::Ordering, iter, ops::Range, sync::Arc};

use crate::model::rule::Rule;

/// A part of a rule, of those that it was made into. Their order is that of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Part {
    pub(super) place: u64,
    pub(super) part: u32,
}

/// A rule's place, and the number that tables have for what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) number: u32,
}

/// Some rules that go, and those that come where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Positions among the old rules.
    pub(super) old: Range<usize>,
    /// Positions among the new ones.
    pub(super) new: Range<usize>,
}

/// How far apart rules are that come one after the other at first.
const FAR: u64 = 1 << 40;
/// The same of those that come between others: as a rule more come behind them, in front of the same one.
const NEAR: u64 = 1 << 20;

/// Places for `count` rules behind one and before another, if there is room.
pub(super) fn between(before: Option<u64>, after: Option<u64>, count: usize) -> Option<impl Iterator<Item = u64>> {
    let (start, count) = (before.unwrap_or(0), u64::try_from(count).ok()?);
    let step = after.map_or(FAR, |after| (after.saturating_sub(start) / (count + 1)).min(NEAR));
    start.checked_add(step.checked_mul(count)?)?;
    (step > 0 || count == 0).then(|| (1..=count).map(move |at| start + at * step))
}

/// Where the rules differ, from the last to the first.
///
/// Rules of a policy come and go together, so the runs are looked for in each policy of its own.
pub(super) fn runs(old: &[Arc<Rule>], new: &[Arc<Rule>]) -> Vec<Run> {
    let Some(whole) = trimmed((old, 0..old.len()), (new, 0..new.len())) else { return Vec::new() };
    let policy = |rules: &[Arc<Rule>], at: usize| rules[at].policy.clone();
    let ends = |rules: &[Arc<Rule>], run: &Range<usize>| {
        let groups = rules[run.clone()].chunk_by(|a, b| a.policy == b.policy).map(<[_]>::len);
        let ends = groups.scan(run.start, |end, len| {
            let start = *end;
            *end += len;
            Some(start..*end)
        });
        ends.collect::<Vec<_>>()
    };
    let (olds, news) = (ends(old, &whole.old), ends(new, &whole.new));
    let is_sorted = |rules: &[Arc<Rule>], groups: &[Range<usize>]| {
        groups.is_sorted_by(|a, b| policy(rules, a.start) < policy(rules, b.start))
    };
    if !is_sorted(old, &olds) || !is_sorted(new, &news) {
        return vec![whole];
    }
    let (mut olds, mut news) = (olds.into_iter().peekable(), news.into_iter().peekable());
    let (mut in_old, mut in_new) = (whole.old.start, whole.new.start);
    let mut runs: Vec<Run> = iter::from_fn(|| {
        let order = match (olds.peek(), news.peek()) {
            (Some(a), Some(b)) => policy(old, a.start).cmp(&policy(new, b.start)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let goes = if order.is_le() { olds.next() } else { None }.unwrap_or(in_old..in_old);
        let comes = if order.is_ge() { news.next() } else { None }.unwrap_or(in_new..in_new);
        (in_old, in_new) = (goes.end, comes.end);
        Some(trimmed((old, goes), (new, comes)))
    })
    .flatten()
    .collect();
    runs.reverse();
    runs
}

/// Without what is the same in front and behind. Nothing if all is.
fn trimmed((old, goes): (&[Arc<Rule>], Range<usize>), (new, comes): (&[Arc<Rule>], Range<usize>)) -> Option<Run> {
    let (a, b) = (&old[goes.clone()], &new[comes.clone()]);
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..], &b[front..]);
    let behind = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let run = Run { old: goes.start + front..goes.end - behind, new: comes.start + front..comes.end - behind };
    (!run.old.is_empty() || !run.new.is_empty()).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::PolicyName;

    /// Rules as `policy:port`; of no policy without the first.
    fn rules(text: &str) -> Vec<Arc<Rule>> {
        let rule = |text: &str| {
            let (policy, port) = text.split_once(':').unwrap_or(("", text));
            let rule: Rule = format!("allow shop -> blog tcp/{port}").parse().unwrap();
            let policy: Option<PolicyName> = (!policy.is_empty()).then(|| policy.parse().unwrap());
            Arc::new(Rule { policy, ..rule })
        };
        text.split_whitespace().map(rule).collect()
    }

    fn check(old: &str, new: &str, expect: &[(Range<usize>, Range<usize>)]) {
        let (old, new) = (rules(old), rules(new));
        let found = runs(&old, &new);
        let shown: Vec<_> = found.iter().rev().map(|run| (run.old.clone(), run.new.clone())).collect();
        assert_eq!(shown, expect);
        let mut made = old.clone();
        for run in found {
            made.splice(run.old, new[run.new].iter().cloned());
        }
        assert_eq!(made, new);
    }

    #[test]
    fn rules_are_compared_policy_by_policy() {
        check("1 2 3", "1 2 3", &[]);
        check("", "1", &[(0..0, 0..1)]);
        check("1 2 3", "1 3", &[(1..2, 1..1)]);
        check("1 2 a:1 a:2", "1 2 3 a:1 a:2", &[(2..2, 2..3)]);
        check("1 a:1 a:2 b:1 c:1 c:2", "1 a:1 a:3 b:1 c:1", &[(2..3, 2..3), (5..6, 5..5)]);
        check("1 a:1 c:1", "2 b:1 c:1", &[(0..1, 0..1), (1..2, 1..1), (2..2, 1..2)]);
        check("1 1 1", "1 1", &[(2..3, 2..2)]);
        // In no order they are told apart all the same.
        check("b:1 a:1 2", "b:1 3 a:1", &[(1..3, 1..3)]);
    }

    #[test]
    fn there_is_room_between_rules_for_many_more() {
        let places = |before, after, count| between(before, after, count).map(Iterator::collect::<Vec<_>>);
        assert_eq!(places(None, None, 2), Some(vec![FAR, 2 * FAR]));
        assert_eq!(places(Some(5), None, 1), Some(vec![5 + FAR]));
        assert_eq!(places(Some(FAR), Some(2 * FAR), 2), Some(vec![FAR + NEAR, FAR + 2 * NEAR]));
        assert_eq!(places(Some(10), Some(14), 3), Some(vec![11, 12, 13]));
        assert_eq!(places(Some(10), Some(13), 3), None);
        assert_eq!(places(Some(10), Some(11), 0), Some(vec![]));
        assert_eq!(places(Some(u64::MAX - 1), None, 1), None);
        let mut last = FAR;
        for _ in 0..1_000_000 {
            last = between(Some(last), Some(2 * FAR), 1).unwrap().next().unwrap();
        }
    }
}
