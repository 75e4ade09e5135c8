//! From the rules that come and go to the subjects whose rules are other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use weft_common::{
    id::{AppId, RoleId},
    policy::Direction,
};

use crate::model::{app::App, cluster::Cluster, rule::Rule};

use super::{
    super::{facts::Clock, ids::PolicyIds},
    MadeOf, Policy,
    classes::{ANY, Class, HOST, OUTSIDE, Prepared, Preparer, Side},
    draft::{self, Tried},
    places::{self, Part, Place, Run},
    tables,
};

const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A policy on its way to another.
pub(super) struct Making<'a> {
    cluster: &'a Cluster,
    clock: Option<Clock>,
    apps: BTreeMap<AppId, &'a App>,
    preparer: Preparer<'a>,
    policy: Policy,
    ids: PolicyIds,
    /// Subjects whose rules are other.
    touched: BTreeSet<(Direction, Class)>,
    /// Numbers of rules that came or went, and where the rule of it is that came.
    came: HashMap<u32, Option<usize>>,
    /// What rules said that went.
    unsaid: Vec<String>,
}

impl<'a> Making<'a> {
    /// A policy that follows none.
    pub(super) fn anew(cluster: &'a Cluster, clock: Option<Clock>, ids: &PolicyIds) -> (Policy, PolicyIds) {
        let mut making = Self::new(cluster, clock, (Policy::default(), ids.clone()));
        making.touch_all();
        let all = Run { old: 0..0, new: 0..cluster.rules.len() };
        // Behind nothing there is room for more rules than memory has.
        let is_made = making.follow(&[], vec![all]).is_some();
        debug_assert!(is_made, "there is a place for every rule");
        let (policy, mut ids) = making.finish(false);
        ids.rules.keep(|number| policy.work.said.contains_key(&number));
        ids.lists.keep(|number| policy.work.lists.contains_key(&number));
        ids.sets.keep(|number| policy.work.sets.contains_key(&number));
        (policy, ids)
    }

    /// A policy that follows another of the same apps. None if there is no place for a rule among its rules.
    pub(super) fn after(
        cluster: &'a Cluster,
        clock: Option<Clock>,
        before: &Policy,
        ids: &PolicyIds,
    ) -> Option<(Policy, PolicyIds)> {
        let of = before.made_of.as_ref().filter(|of| of.apps == cluster.apps)?;
        // Tables that were read back do not know where their rules are.
        if before.work.places.len() != of.rules.len() {
            return None;
        }
        let mut making = Self::new(cluster, clock, (before.clone(), ids.clone()));
        making.follow(&of.rules, places::runs(&of.rules, &cluster.rules))?;
        making.end(of);
        let was_tried = before.is_tried();
        if was_tried != making.is_tried() {
            making.touch_all();
        }
        Some(making.finish(was_tried))
    }

    fn new(cluster: &'a Cluster, clock: Option<Clock>, (policy, ids): (Policy, PolicyIds)) -> Self {
        Self {
            cluster,
            clock,
            apps: cluster.apps.values().map(|app| (app.number, app)).collect(),
            preparer: Preparer::new(cluster, clock),
            policy,
            ids,
            touched: BTreeSet::new(),
            came: HashMap::new(),
            unsaid: Vec::new(),
        }
    }

    /// Every subject is to be made again.
    fn touch_all(&mut self) {
        self.touched.extend(BOTH.iter().flat_map(|direction| [ANY, HOST, OUTSIDE].map(|class| (*direction, class))));
    }

    /// Takes the old rules of some runs, from the last to the first, out, and puts the new ones in.
    fn follow(&mut self, old: &[Arc<Rule>], runs: Vec<Run>) -> Option<()> {
        let rules = &self.cluster.rules;
        let statements: Vec<Vec<String>> = runs
            .iter()
            .map(|run| rules[run.new.clone()].iter().map(|rule| rule.statement().to_string()).collect())
            .collect();
        self.ids.rules.take(statements.iter().flatten().cloned());
        for (Run { old: goes, new: comes }, statements) in runs.into_iter().zip(statements) {
            let places = &self.policy.work.places;
            let before = goes.start.checked_sub(1).map(|at| places[at].at);
            let after = places.get(goes.end).map(|place| place.at);
            let new = places::between(before, after, comes.len())?;
            let number = |text: &String| self.ids.rules.of(text).unwrap_or_default();
            let numbers = statements.iter().map(number);
            let new: Vec<Place> = new.zip(numbers).map(|(at, number)| Place { at, number }).collect();
            let gone: Vec<Place> = self.policy.work.places.splice(goes.clone(), new.iter().copied()).collect();
            for (place, rule) in gone.into_iter().zip(&old[goes]) {
                self.forget(place, rule);
            }
            for (place, at) in new.into_iter().zip(comes) {
                self.learn(place, at);
            }
        }
        Some(())
    }

    fn forget(&mut self, Place { at, number }: Place, rule: &Rule) {
        self.unmake(at);
        if let Some(until) = rule.until {
            self.policy.work.ending.remove(&(until, at));
        }
        self.came.entry(number).or_default();
        let said = self.policy.work.said.entry_or(number, || 1);
        *said -= 1;
        if *said == 0 {
            self.policy.work.said.remove(&number);
            self.unsaid.push(rule.statement().to_string());
        }
    }

    /// Learns the rule at a position of the cluster's.
    fn learn(&mut self, place: Place, position: usize) {
        let rule = &self.cluster.rules[position];
        self.make(place, rule);
        if let Some(until) = rule.until {
            self.policy.work.ending.insert((until, place.at));
        }
        if place.number != 0 {
            self.came.insert(place.number, Some(position));
            *self.policy.work.said.entry_or(place.number, || 0) += 1;
        }
    }

    fn make(&mut self, Place { at, number }: Place, rule: &'a Rule) {
        let parts: Arc<[Arc<Prepared>]> = self.preparer.prepare(rule, number).into_iter().map(Arc::new).collect();
        if parts.is_empty() {
            return;
        }
        for (part, prepared) in (0..).zip(&*parts) {
            self.count((Part { place: at, part }, prepared), Counts::In);
        }
        self.policy.work.parts.insert(at, parts);
    }

    fn unmake(&mut self, place: u64) {
        let parts = self.policy.work.parts.remove(&place);
        for (part, prepared) in (0..).zip(parts.iter().flat_map(|parts| parts.iter())) {
            self.count((Part { place, part }, prepared), Counts::Out);
        }
    }

    fn count(&mut self, (part, rule): (Part, &Arc<Prepared>), counts: Counts) {
        let work = &mut self.policy.work;
        for direction in BOTH.into_iter().filter(|direction| rule.is_on(*direction)) {
            let Side::Classes(subjects) = rule.sides(direction).0 else { continue };
            for class in &**subjects {
                match counts {
                    Counts::In => work.add(direction, *class, (part, rule)),
                    Counts::Out => work.remove(direction, *class, part),
                }
                self.touched.insert((direction, *class));
            }
        }
        if rule.shadow {
            counts.to(&mut work.tried);
        } else if rule.until == 0 {
            for app in rule.insides(&self.apps) {
                let speaking = work.insides.entry(app).or_default();
                let was = mem::replace(speaking, counts.of(*speaking));
                if (was == 0) != (*speaking == 0) {
                    self.touched.extend(BOTH.map(|direction| (direction, (app, RoleId::ANY))));
                }
            }
        }
    }

    /// Makes the rules again that end at another time of the clock, or have ended.
    fn end(&mut self, before: &MadeOf) {
        let work = &self.policy.work;
        let ends = work.ends(self.clock);
        let other = work.ending.iter().filter(|(until, _)| ends.get(until) != before.ends.get(until));
        for at in other.map(|(_, at)| *at).collect::<Vec<_>>() {
            let Ok(position) = self.policy.work.places.binary_search_by_key(&at, |place| place.at) else { continue };
            let place = self.policy.work.places[position];
            self.unmake(at);
            self.make(place, &self.cluster.rules[position]);
        }
    }

    fn is_tried(&self) -> bool {
        self.policy.work.tried > 0 || self.cluster.apps.values().any(|app| app.shadow)
    }

    /// Names the rules, and makes the sets of whom they touched.
    fn finish(mut self, was_tried: bool) -> (Policy, PolicyIds) {
        for (number, position) in mem::take(&mut self.came) {
            match (self.policy.work.said.get(&number), position) {
                (None, _) => _ = self.policy.names.remove(&number),
                (Some(1), Some(position)) => self.name(number, position),
                // The last of those that say it.
                (Some(_), _) => {
                    if let Some(last) = self.policy.work.places.iter().rposition(|place| place.number == number) {
                        self.name(number, last);
                    }
                }
            }
        }
        let tried = Tried { before: was_tried, now: self.is_tried() };
        let drafts = draft::drafts(&self.apps, &self.policy.work, &self.touched, tried);
        let Self { cluster, clock, mut policy, mut ids, unsaid, .. } = self;
        tables::fill(&mut policy, &mut ids, drafts);
        let (apps, rules, ends) = (Arc::clone(&cluster.apps), Arc::clone(&cluster.rules), policy.work.ends(clock));
        policy.made_of = Some(MadeOf { apps, rules, ends });
        for text in unsaid {
            if ids.rules.of(&text).is_some_and(|number| !policy.work.said.contains_key(&number)) {
                ids.rules.give_up(&text);
            }
        }
        (policy, ids)
    }

    fn name(&mut self, number: u32, position: usize) {
        self.policy.names.insert(number, Arc::clone(&self.cluster.rules[position]));
    }
}

/// Whether something comes or goes.
#[derive(Clone, Copy)]
enum Counts {
    In,
    Out,
}

impl Counts {
    fn of(self, count: usize) -> usize {
        match self {
            Self::In => count + 1,
            Self::Out => count - 1,
        }
    }

    fn to(self, count: &mut usize) {
        *count = self.of(*count);
    }
}
