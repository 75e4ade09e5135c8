//! The policy compiler: rules and defaults become the tables that [`weft_common::policy::decide`] reads.
//!
//! # What rules mean
//!
//! A packet passes when the rules of its source let it out and the rules of its destination let it in.
//! - A rule `X -> Y` is one of the egress rules of every subject that `X` matches, about peers `Y`, and one of
//!   the ingress rules of every subject that `Y` matches, about peers `X`.
//! - A prefix matches peers by their address, whoever has it; it matches no subject, because an address does not
//!   say who somebody is. So `shop -> 10.2.0.9/32` lets shop out, and whether blog, whose address it is, lets it
//!   in is for blog's own rules to say.
//! - Of the rules that match, the greatest rank wins: precedence, then reject over deny over allow. Where none
//!   matches the default holds. Of equal ranks, the one reported is the one that names the peer most closely
//!   (role, app, `any`, longer prefix, in this order), then the subject, then the traffic, then the first.
//! - Defaults: who may come in is the receiving app's to say (`inside`, `from_apps`, `from_host`; from outside
//!   nobody), who may go out to the outside and to the hosts is the sending app's (`to_outside`); towards
//!   endpoints it is open. Hosts and the outside have no defaults of their own: they are open.
//! - [`RoleId::UNKNOWN`] is an endpoint that may have any role of its app: a rule about one role matches it if
//!   the rule allows, and does not if it denies or rejects. The host that has the endpoint decides with the role.
//!
//! What is neither IP nor ARP no rule can speak of. It passes inside an app that is open inside
//! ([`RuleSet::OPEN_INSIDE`]) when no rule speaks of that inside at all, and nowhere else.
//!
//! # How
//!
//! A default is the set's own where it can be, else an entry of rank 0: [`Rank::NONE`] is closed and below every
//! entry, an entry that allows at precedence 0 beats it, one that denies at precedence 0 beats that, and any
//! rule beats all three. Such entries have rule number 0.
//!
//! Equal lists are one list, equal sets one set; see [`super::ids`] for their numbers.

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
    id::{AppId, RoleId},
    policy::{Direction, PeerKey, PrefixKey, Rank, Rule, RuleKey, RuleSet, SetKey},
};

use crate::model::{
    app::{App, Gate},
    cluster::Cluster,
    name::AppName,
    rule,
    selector::{Net, Selector},
    traffic::Region,
};

use super::ids::{Ids, PolicyIds};
use list::{Candidate, List, Merit};
use set::Set;

/// The tables of policy, and what they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Table SETS for slot 0; slot 1 has the same.
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
    apps: Arc<BTreeMap<AppName, App>>,
    rules: Arc<Vec<rule::Rule>>,
}

/// The tables of a cluster's policy and the numbers they have.
pub(super) fn compile(cluster: &Cluster, before: &Ids) -> (Policy, PolicyIds) {
    let statements: Vec<String> = cluster.rules.iter().map(|rule| rule.statement().to_string()).collect();
    let rules = before.policy.rules.next(statements.iter().cloned());
    let numbers: Vec<u32> = statements.iter().map(|text| rules.of(text).unwrap_or_default()).collect();
    let names = numbers.iter().copied().zip(cluster.rules.iter().cloned()).collect();

    let regions: Vec<_> = cluster.rules.iter().map(|rule| rule.traffic.regions()).collect();
    let prepared = prepare(cluster, &numbers, &regions);
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
    let open_inside = open_inside(cluster, &prepared);
    let policy = Policy {
        sets: drafts
            .of
            .iter()
            .map(|(key, at)| {
                let inside = if open_inside.contains(&key.app) { RuleSet::OPEN_INSIDE } else { 0 };
                let (flags, default) = (filled[*at].flags() | inside, drafts.distinct[*at].default);
                (*key, RuleSet { id: set_numbers[*at], flags, default })
            })
            .collect(),
        peer_lists: each().flat_map(|(set, number)| set.peer_entries(*number)).collect(),
        prefix_lists: each().flat_map(|(set, number)| set.prefix_entries(*number)).collect(),
        rules: entries,
        names,
        made_of: Some(MadeOf { apps: Arc::clone(&cluster.apps), rules: Arc::clone(&cluster.rules) }),
    };
    (policy, PolicyIds { rules, lists, sets })
}

impl Policy {
    /// Whether the rules and apps it was made of are those of `cluster`. Equal parts of two clusters are mostly
    /// the same part, which `Arc` sees at once.
    pub(super) fn is_of(&self, cluster: &Cluster) -> bool {
        self.made_of.as_ref().is_some_and(|MadeOf { apps, rules }| *apps == cluster.apps && *rules == cluster.rules)
    }
}

/// A rule with numbers in the place of names.
struct Prepared<'a> {
    id: u32,
    rank: Rank,
    from: Side<'a>,
    to: Side<'a>,
    regions: Option<&'a [Region]>,
    width: u64,
}

/// A selector with numbers in the place of names.
#[derive(Clone, Copy)]
enum Side<'a> {
    Role(AppId, RoleId),
    App(AppId),
    Any,
    Host,
    Outside,
    Net(&'a Net),
    /// It names what there is not.
    Nobody,
}

fn prepare<'a>(cluster: &'a Cluster, numbers: &[u32], regions: &'a [Option<Vec<Region>>]) -> Vec<Prepared<'a>> {
    let each = cluster.rules.iter().zip(numbers).zip(regions);
    let prepared = each.map(|((rule, id), regions)| {
        let regions = regions.as_deref();
        let (from, to) = (Side::of(cluster, &rule.from), Side::of(cluster, &rule.to));
        Prepared { id: *id, rank: rule.rank(), from, to, regions, width: width(regions) }
    });
    prepared.collect()
}

/// The apps that are open inside and whose inside no rule speaks of, whatever it says and of whichever traffic.
fn open_inside(cluster: &Cluster, rules: &[Prepared<'_>]) -> BTreeSet<AppId> {
    let speaks_of = |rule: &Prepared<'_>, app: &App| [rule.from, rule.to].iter().all(|side| side.may_be_of(app));
    let is_open = |app: &&App| app.defaults.inside == Gate::Open && !rules.iter().any(|rule| speaks_of(rule, app));
    cluster.apps.values().filter(is_open).map(|app| app.number).collect()
}

/// How many protocols and ports a rule speaks of.
fn width(regions: Option<&[Region]>) -> u64 {
    let ports = |region: &Region| u64::from(*region.ports.end()) - u64::from(*region.ports.start()) + 1;
    regions.map_or(u64::MAX, |regions| regions.iter().map(ports).sum())
}

impl<'a> Side<'a> {
    fn of(cluster: &Cluster, selector: &'a Selector) -> Self {
        let app = |name: &AppName| cluster.apps.get(name);
        match selector {
            Selector::App(name) => app(name).map_or(Self::Nobody, |app| Self::App(app.number)),
            Selector::Role(name, role) => {
                let found = app(name).and_then(|app| Some(Self::Role(app.number, *app.roles.get(role)?)));
                found.unwrap_or(Self::Nobody)
            }
            Selector::Any => Self::Any,
            Selector::Host => Self::Host,
            Selector::Outside => Self::Outside,
            Selector::Net(net) => Self::Net(net),
        }
    }

    /// Whether it matches some endpoint of an app, or some address that one may have.
    fn may_be_of(self, app: &App) -> bool {
        match self {
            Self::Role(number, _) | Self::App(number) => number == app.number,
            Self::Any => true,
            Self::Net(net) => app
                .prefixes
                .iter()
                .any(|own| net.prefix().overlaps(own) && !net.except().iter().any(|hole| hole.covers(own))),
            Self::Host | Self::Outside | Self::Nobody => false,
        }
    }

    /// How closely it names a subject.
    fn closeness(self) -> u8 {
        match self {
            Self::Role(..) => 3,
            Self::App(_) | Self::Host | Self::Outside => 2,
            Self::Any => 1,
            Self::Net(_) | Self::Nobody => 0,
        }
    }
}

impl Prepared<'_> {
    /// Whose rule set of `direction` it is in, and about whom.
    fn sides(&self, direction: Direction) -> (Side<'_>, Side<'_>) {
        match direction {
            Direction::Egress => (self.from, self.to),
            Direction::Ingress => (self.to, self.from),
        }
    }
}

/// What a list is made of: a rule, by position, or a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Default(Rank),
    Rule(usize),
}

/// A set whose lists have no numbers yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Draft {
    default: Rank,
    /// Positions in [`Compiler::lists`].
    peers: Vec<((AppId, RoleId), usize)>,
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
    /// What was made already, of one part and of several. Of one nothing depends on the direction.
    single: HashMap<Part, usize>,
    several: [HashMap<Vec<Part>, usize>; 2],
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

    /// The position of the list that `parts` come to.
    fn list(&mut self, direction: Direction, parts: Vec<Part>) -> usize {
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

    fn candidate(&self, direction: Direction, part: Part) -> Candidate<'_> {
        let (merit, id, regions) = match part {
            Part::Default(rank) => {
                (Merit { rank, peer_bits: 0, subject: 0, width: Reverse(u64::MAX), at: Reverse(usize::MAX) }, 0, None)
            }
            Part::Rule(at) => {
                let rule = &self.rules[at];
                let (subject, peer) = rule.sides(direction);
                let peer_bits = match peer {
                    Side::Net(net) => net.prefix().len(),
                    Side::Role(..) | Side::App(_) | Side::Any | Side::Host | Side::Outside | Side::Nobody => 0,
                };
                let subject = subject.closeness();
                (
                    Merit { rank: rule.rank, peer_bits, subject, width: Reverse(rule.width), at: Reverse(at) },
                    rule.id,
                    rule.regions,
                )
            }
        };
        Candidate { merit, id, regions }
    }
}
