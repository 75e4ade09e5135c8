//! From drafts of sets to the tables: each content once, under a number, for as long as somebody has it.

use std::{collections::HashMap, sync::Arc};

use weft_common::policy::RuleSet;

use crate::shared::Shared;

use super::{
    super::ids::PolicyIds,
    Policy,
    draft::{Drafts, Stage},
    list::List,
    set::Set,
    work::Kept,
};

/// Gives subjects the sets of their drafts in the place of those they have.
pub(super) fn fill(policy: &mut Policy, ids: &mut PolicyIds, drafts: Drafts) {
    let Drafts { of, distinct, lists } = drafts;
    ids.lists.take(lists.iter().filter(|list| !list.is_empty()).cloned());
    let numbers: Vec<u32> = lists.iter().map(|list| ids.lists.of(list).unwrap_or_default()).collect();
    let sets: Vec<Arc<Set>> = distinct.iter().map(|draft| Arc::new(draft.fill(&numbers))).collect();
    ids.sets.take(sets.iter().filter(|set| ***set != Set::default()).cloned());
    let lists = numbers.into_iter().zip(lists).collect();
    // What comes is there before anything goes: what both have stays.
    let mut gone = Vec::new();
    for (subject, stages) in of {
        let mut key = subject;
        for Stage { at, until } in stages.iter() {
            let (draft, set) = (&distinct[*at], &sets[*at]);
            let id = ids.sets.of(set).unwrap_or_default();
            policy.use_set(id, set, &lists);
            let flags = set.flags() | draft.flags;
            gone.extend(policy.sets.insert(key, RuleSet { id, flags, until: *until }));
            key.stage += 1;
        }
        while let Some(more) = policy.sets.remove(&key) {
            gone.push(more);
            key.stage += 1;
        }
    }
    for RuleSet { id, .. } in gone {
        policy.drop_set(id, ids);
    }
}

impl Policy {
    fn use_set(&mut self, number: u32, set: &Arc<Set>, lists: &HashMap<u32, List>) {
        // Nothing has no number and no entries.
        if number == 0 {
            return;
        }
        let kept = self.work.sets.entry_or(number, || Kept { content: Arc::clone(set), uses: 0 });
        kept.uses += 1;
        if kept.uses > 1 {
            return;
        }
        self.peer_lists.extend(set.peer_entries(number));
        self.prefix_lists.extend(set.prefix_entries(number));
        for list in set.lists() {
            if let Some(content) = lists.get(&list) {
                self.use_list(list, content);
            }
        }
    }

    fn use_list(&mut self, number: u32, list: &List) {
        if number == 0 {
            return;
        }
        let kept = self.work.lists.entry_or(number, || Kept { content: Arc::clone(list), uses: 0 });
        kept.uses += 1;
        if kept.uses == 1 {
            self.rules.extend(list.iter().map(|line| line.entry(number)));
        }
    }

    fn drop_set(&mut self, number: u32, ids: &mut PolicyIds) {
        let Some(set) = unused(&mut self.work.sets, number) else { return };
        ids.sets.give_up(&set);
        for (key, _) in set.peer_entries(number) {
            self.peer_lists.remove(&key);
        }
        for (key, _) in set.prefix_entries(number) {
            self.prefix_lists.remove(&key);
        }
        for list in set.lists() {
            let Some(lines) = unused(&mut self.work.lists, list) else { continue };
            ids.lists.give_up(&lines);
            for line in lines.iter() {
                self.rules.remove(&line.entry(list).0);
            }
        }
    }
}

/// Counts a use less, and gives what nobody uses any more.
fn unused<C: Clone>(all: &mut Shared<u32, Kept<C>>, number: u32) -> Option<C> {
    let kept = all.get_mut(&number)?;
    kept.uses -= 1;
    if kept.uses > 0 { None } else { all.remove(&number).map(|kept| kept.content) }
}
