//! The policy compiler: rules and defaults become the tables that [`weft_common::policy::decide`] reads.
//!
//! # What rules mean
//!
//! A packet passes when the rules of its source let it out and the rules of its destination let it in.
//! - A rule `X -> Y` is one of the egress rules of every subject that `X` matches, about peers `Y`, and one of
//!   the ingress rules of every subject that `Y` matches, about peers `X`; `on ingress` or `on egress` it is only the one.
//! - A prefix matches peers by their address, whoever has it; it matches no subject, because an address does not
//!   say who somebody is. So `shop -> 10.2.0.9/32` lets shop out, and whether blog, whose address it is, lets it
//!   in is for blog's own rules to say.
//! - Labels select roles: the endpoints of a role have the same labels. A named port is the port that the receiving
//!   role has under that name; who has none, and a prefix, has no such port.
//! - Of the rules that match, the greatest rank wins: precedence, then reject over deny over allow over pass. Where none
//!   matches the default holds. Of equal ranks, the one reported is the one that names the peer most closely
//!   (role, app, `any`, longer prefix, in this order), then the subject, then the traffic, then the first.
//! - A pass in the upper tier hands the question to the rules below that tier, one below 0 to the defaults.
//! - A rule that has ended says nothing. It still has its number and its name.
//! - Defaults: who may come in is the receiving app's to say (`inside`, `from_apps`, `from_host`; from outside
//!   nobody), who may go out to the outside and to the hosts is the sending app's (`to_outside`); towards
//!   endpoints it is open. Hosts and the outside have no defaults of their own: they are open.
//! - [`weft_common::id::RoleId::UNKNOWN`] is an endpoint that may have any role of its app. A rule about some roles says of it that it
//!   may pass, whatever it says of them, but for a deny, which says nothing of it: the host that has the endpoint
//!   decides with the role, and answers what is to be rejected.
//!
//! What is neither IP nor ARP no rule can speak of. It passes inside an app that is open inside
//! ([`RuleSet::FRAMES_INSIDE`]) when no rule speaks of that inside at all, and nowhere else. Rules that end, which only
//! ever allow, do not count there.
//!
//! - A rule or an app in shadow is only tried: what is in force is what there would be without the rule, and with the
//!   app open to everyone. While any are, each subject has a second set, under [`SetKey::SHADOW`], with all of them.
//!
//! # How
//!
//! What a rule matches is a number of classes: an app with a role, with any, every app, the hosts, the outside. Lists
//! hold the rules of a subject about one class; defaults are flags of a set. Equal lists are one list, equal sets one
//! set; see [`super::ids`] for their numbers.
//!
//! A subject with rules that end has a set for each stretch of time, the next without those that have ended by then:
//! every set is whole, and how rules beat each other is settled here and not in the programs. There is room for
//! [`RuleSet::STAGES`] of them. What would end later than all those but the last ends with them, unless a daemon makes
//! another plan in time, as it does at every end.

mod classes;
pub mod list;
mod prefixes;
pub mod set;
mod subjects;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_common::{
    id::{AppId, Identity},
    policy::{Direction, PeerKey, PrefixKey, Rule, RuleKey, RuleSet, SetKey},
};

use crate::model::{
    app::{App, Gate},
    cluster::Cluster,
    name::AppName,
    rule,
    time::Until,
};

use super::{
    facts::Clock,
    ids::{Ids, PolicyIds},
};
use classes::{Class, Prepared, Side, prepare};
use list::{Candidate, List, Merit};
use set::Set;

/// The tables of policy, and what they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Table SETS for slot 0, with [`SetKey::SHADOW`] where rules are tried; slot 1 has the same.
    pub sets: BTreeMap<SetKey, RuleSet>,
    /// Table PEER_LISTS.
    pub peer_lists: BTreeMap<PeerKey, u32>,
    /// Table PREFIX_LISTS, with the bits of the key that count.
    pub prefix_lists: BTreeMap<(u32, PrefixKey), u32>,
    /// Table RULES, with the bits of the key that count.
    pub rules: BTreeMap<(u32, RuleKey), Rule>,
    /// What the numbers of rules mean.
    pub names: BTreeMap<u32, rule::Rule>,
    /// What it is a function of, beside the numbers before. Tables that were read back do not know.
    pub made_of: Option<MadeOf>,
}

/// The part of a cluster that policy depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeOf {
    pub(super) apps: Arc<BTreeMap<AppName, App>>,
    pub(super) rules: Arc<Vec<rule::Rule>>,
    pub(super) ends: Ends,
}

/// What [`Clock`] shows when rules end, of those that have not ended.
pub(super) type Ends = BTreeMap<Until, u64>;

/// When rules end that have not.
pub(super) fn ends(cluster: &Cluster, clock: Clock) -> Ends {
    let ends = cluster.rules.iter().filter_map(|rule| rule.until).map(|until| (until, clock.at(until)));
    ends.filter(|(_, end)| *end > clock.now).collect()
}

/// The tables of a cluster's policy and the numbers they have.
pub(super) fn compile(cluster: &Cluster, ends: Ends, before: &Ids) -> (Policy, PolicyIds) {
    let statements: Vec<String> = cluster.rules.iter().map(|rule| rule.statement().to_string()).collect();
    let rules = before.policy.rules.next(statements.iter().cloned());
    let numbers: Vec<u32> = statements.iter().map(|text| rules.of(text).unwrap_or_default()).collect();
    let names = numbers.iter().copied().zip(cluster.rules.iter().cloned()).collect();

    let prepared = prepare(cluster, &numbers, &ends);
    let mut compiler = Compiler::new(&prepared);
    let drafts = subjects::drafts(cluster, &prepared, &mut compiler);

    let contents = compiler.lists;
    let lists = before.policy.lists.next(contents.iter().filter(|list| !list.is_empty()).cloned());
    let list_numbers: Vec<u32> = contents.iter().map(|list| lists.of(list).unwrap_or_default()).collect();
    let entries =
        contents.iter().zip(&list_numbers).flat_map(|(list, number)| list.iter().map(|line| line.entry(*number)));
    let entries = entries.collect();

    let filled: Vec<Set> = drafts.distinct.iter().map(|draft| draft.fill(&list_numbers)).collect();
    let sets = before.policy.sets.next(filled.iter().filter(|set| **set != Set::default()).cloned());
    let set_numbers: Vec<u32> = filled.iter().map(|set| sets.of(set).unwrap_or_default()).collect();
    let each = || filled.iter().zip(&set_numbers);
    let frames_inside = frames_inside(cluster, &prepared);
    let policy = Policy {
        sets: drafts
            .of
            .iter()
            .map(|(key, stage)| {
                let inside = if frames_inside.contains(&key.app) { RuleSet::FRAMES_INSIDE } else { 0 };
                let flags = filled[stage.at].flags() | drafts.distinct[stage.at].open | inside;
                (*key, RuleSet { id: set_numbers[stage.at], flags, until: stage.until })
            })
            .collect(),
        peer_lists: each().flat_map(|(set, number)| set.peer_entries(*number)).collect(),
        prefix_lists: each().flat_map(|(set, number)| set.prefix_entries(*number)).collect(),
        rules: entries,
        names,
        made_of: Some(MadeOf { apps: Arc::clone(&cluster.apps), rules: Arc::clone(&cluster.rules), ends }),
    };
    (policy, PolicyIds { rules, lists, sets })
}

impl Policy {
    /// Whether there are sets for rules that are tried.
    pub(super) fn is_tried(&self) -> bool {
        // Then every subject has one.
        self.sets.contains_key(&SetKey::new(Identity::HOST, Direction::Egress, SetKey::SHADOW))
    }

    /// Whether the rules and apps it was made of are those of `cluster`. Equal parts of two clusters are mostly
    /// the same part, which `Arc` sees at once.
    pub fn is_of(&self, cluster: &Cluster) -> bool {
        self.made_of.as_ref().is_some_and(|of| of.apps == cluster.apps && of.rules == cluster.rules)
    }

    /// Whether it has these ends.
    pub(super) fn has_ends(&self, ends: &Ends) -> bool {
        self.made_of.as_ref().is_some_and(|of| of.ends == *ends)
    }

    /// What [`Clock`] shows when the next rule ends after `now`.
    pub fn next_end(&self, now: u64) -> Option<u64> {
        self.made_of.iter().flat_map(|of| of.ends.values()).copied().filter(|end| *end > now).min()
    }
}

/// The apps that are open inside and whose inside no rule speaks of, whatever it says and of whichever traffic.
fn frames_inside(cluster: &Cluster, rules: &[Prepared<'_>]) -> BTreeSet<AppId> {
    let rules: Vec<_> = rules.iter().filter(|rule| !rule.shadow && rule.until == 0).collect();
    let speaks_of = |rule: &Prepared<'_>, app: &App| [&rule.from, &rule.to].iter().all(|side| side.may_be_of(app));
    let is_open = |app: &&App| {
        app.shadow || (app.defaults.inside == Gate::Open && !rules.iter().any(|rule| speaks_of(rule, app)))
    };
    cluster.apps.values().filter(is_open).map(|app| app.number).collect()
}

/// A set whose lists have no numbers yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Draft {
    /// Flags of a [`RuleSet`]: what holds where no rule speaks.
    open: u32,
    /// Positions in [`Compiler::lists`].
    peers: Vec<(Class, usize)>,
    prefixes: Vec<((u32, weft_common::addr::Ip), usize)>,
}

impl Draft {
    fn fill(&self, numbers: &[u32]) -> Set {
        Set {
            peers: self.peers.iter().map(|&(key, at)| (key, numbers[at])).collect(),
            prefixes: self.prefixes.iter().map(|&(key, at)| (key, numbers[at])).collect(),
        }
    }
}

/// Makes lists, each content once.
struct Compiler<'a> {
    rules: &'a [Prepared<'a>],
    lists: Vec<List>,
    known: HashMap<List, usize>,
    /// What was made already, of one rule and of several, by position. Of one nothing depends on the direction.
    single: HashMap<usize, usize>,
    several: [HashMap<Vec<usize>, usize>; 2],
}

impl<'a> Compiler<'a> {
    fn new(rules: &'a [Prepared<'a>]) -> Self {
        Self {
            rules,
            lists: Vec::new(),
            known: HashMap::new(),
            single: HashMap::new(),
            several: [HashMap::new(), HashMap::new()],
        }
    }

    /// The position of the list that the rules at `parts` come to.
    fn list(&mut self, direction: Direction, parts: Vec<usize>) -> usize {
        let several = direction as usize;
        let done = match parts.as_slice() {
            [part] => self.single.get(part),
            parts => self.several[several].get(parts),
        };
        if let Some(at) = done {
            return *at;
        }
        let candidates: Vec<_> = parts.iter().map(|part| self.candidate(direction, *part)).collect();
        let list = list::flatten(&candidates);
        let at = *self.known.entry(list).or_insert_with_key(|list| {
            self.lists.push(list.clone());
            self.lists.len() - 1
        });
        match parts.as_slice() {
            [part] => self.single.insert(*part, at),
            _ => self.several[several].insert(parts, at),
        };
        at
    }

    fn candidate(&self, direction: Direction, at: usize) -> Candidate<'_> {
        let rule = &self.rules[at];
        let peer_bits = match rule.sides(direction).1 {
            Side::Net(net) => net.prefix().len(),
            Side::Classes(_) => 0,
        };
        let subject = rule.closeness[direction as usize];
        let regions = rule.regions.as_deref();
        let merit = Merit { rank: rule.rank, peer_bits, subject, width: Reverse(rule.width), at: Reverse(at) };
        Candidate { merit, id: rule.id, regions }
    }
}

/// How many protocols and ports a rule speaks of.
fn width(regions: Option<&[crate::model::traffic::Region]>) -> u64 {
    let ports =
        |region: &crate::model::traffic::Region| u64::from(*region.ports.end()) - u64::from(*region.ports.start()) + 1;
    regions.map_or(u64::MAX, |regions| regions.iter().map(ports).sum())
}
