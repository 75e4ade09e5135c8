//! Which rules and defaults each subject has, and about whom.
//!
//! Every identity that can occur gets a set for both directions: every app with every role, without one and
//! with one that is not known, the hosts and the outside. What has no set is denied.

use std::collections::{BTreeMap, HashMap};

use weft_common::{
    id::{AppId, Identity, RoleId},
    policy::{Action, Direction, Rank, SetKey},
};

use crate::model::{
    app::{App, Gate},
    cluster::Cluster,
};

use super::{Compiler, Draft, Part, Prepared, Side, prefixes};

/// The sets of all subjects.
pub(super) struct Drafts {
    /// Positions in `distinct`.
    pub(super) of: BTreeMap<SetKey, usize>,
    pub(super) distinct: Vec<Draft>,
}

/// Every app, as a peer.
const ANY: (AppId, RoleId) = (AppId::ANY, RoleId::ANY);
/// The hosts, as a peer.
const HOST: (AppId, RoleId) = (Identity::HOST.app, Identity::HOST.role);
/// The outside, as a peer.
const OUTSIDE: (AppId, RoleId) = (Identity::OUTSIDE.app, Identity::OUTSIDE.role);

pub(super) fn drafts(cluster: &Cluster, rules: &[Prepared<'_>], compiler: &mut Compiler<'_>) -> Drafts {
    let mut drafts = Drafts { of: BTreeMap::new(), distinct: Vec::new() };
    let mut known: HashMap<Draft, usize> = HashMap::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let index = Index::of(rules, direction);
        for app in cluster.apps.values() {
            // Roles that no rule names have the rules of an endpoint without one.
            let mut plain = None;
            let roles = app.roles.values().copied().chain([RoleId::NONE, RoleId::UNKNOWN]);
            for role in roles {
                let own = index.role(rules, app.number, role);
                let shared = plain.filter(|_| own.is_empty());
                let at = shared.unwrap_or_else(|| {
                    let mut subject: Vec<usize> = index.app(app.number).chain(own.iter().copied()).collect();
                    subject.sort_unstable();
                    let defaults = Defaults::of(app, direction);
                    drafts.add(&mut known, draft(rules, compiler, direction, &subject, &defaults))
                });
                if own.is_empty() {
                    plain = Some(at);
                }
                drafts.name(Identity::new(app.number, role), direction, at);
            }
        }
        for (identity, subject) in [(Identity::HOST, &index.host), (Identity::OUTSIDE, &index.outside)] {
            let at = drafts.add(&mut known, draft(rules, compiler, direction, subject, &Defaults::OPEN));
            drafts.name(identity, direction, at);
        }
    }
    drafts
}

impl Drafts {
    fn add(&mut self, known: &mut HashMap<Draft, usize>, draft: Draft) -> usize {
        *known.entry(draft).or_insert_with_key(|draft| {
            self.distinct.push(draft.clone());
            self.distinct.len() - 1
        })
    }

    fn name(&mut self, subject: Identity, direction: Direction, at: usize) {
        let key = SetKey { app: subject.app, role: subject.role, direction: direction as u8, slot: 0 };
        self.of.insert(key, at);
    }
}

/// The positions of the rules of a direction, by subject, each in order.
#[derive(Default)]
struct Index {
    app: BTreeMap<AppId, Vec<usize>>,
    role: BTreeMap<(AppId, RoleId), Vec<usize>>,
    any: Vec<usize>,
    host: Vec<usize>,
    outside: Vec<usize>,
}

impl Index {
    fn of(rules: &[Prepared<'_>], direction: Direction) -> Self {
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            match rule.sides(direction).0 {
                Side::App(app) => index.app.entry(app).or_default().push(at),
                Side::Role(app, role) => index.role.entry((app, role)).or_default().push(at),
                Side::Any => index.any.push(at),
                Side::Host => index.host.push(at),
                Side::Outside => index.outside.push(at),
                Side::Net(_) | Side::Nobody => {}
            }
        }
        index
    }

    /// Those that every endpoint of an app has.
    fn app(&self, app: AppId) -> impl Iterator<Item = usize> {
        self.app.get(&app).into_iter().flatten().chain(&self.any).copied()
    }

    /// Those that endpoints with this role have beside them.
    fn role(&self, rules: &[Prepared<'_>], app: AppId, role: RoleId) -> Vec<usize> {
        if role == RoleId::UNKNOWN {
            let all = self.role.range((app, RoleId::NONE)..=(app, RoleId::UNKNOWN)).flat_map(|(_, rules)| rules);
            return all.copied().filter(|at| favours(&rules[*at])).collect();
        }
        self.role.get(&(app, role)).cloned().unwrap_or_default()
    }
}

/// Whether a rule about one role is one about an endpoint that may have any.
fn favours(rule: &Prepared<'_>) -> bool {
    rule.rank.action() == Action::Allow
}

fn draft(
    rules: &[Prepared<'_>],
    compiler: &mut Compiler<'_>,
    direction: Direction,
    subject: &[usize],
    defaults: &Defaults,
) -> Draft {
    let mut peers: Vec<_> = defaults.entries.iter().map(|(peer, rank)| (*peer, Part::Default(*rank))).collect();
    let mut nets = Vec::new();
    for &at in subject {
        let rule = &rules[at];
        let mut add = |peer| peers.push((peer, Part::Rule(at)));
        match rule.sides(direction).1 {
            Side::App(app) => add((app, RoleId::ANY)),
            Side::Role(app, role) => {
                add((app, role));
                if favours(rule) {
                    add((app, RoleId::UNKNOWN));
                }
            }
            Side::Any => add(ANY),
            Side::Host => add(HOST),
            Side::Outside => add(OUTSIDE),
            Side::Net(net) => nets.push((net, Part::Rule(at))),
            Side::Nobody => {}
        }
    }
    peers.sort_unstable();
    let classes = peers.chunk_by(|(a, _), (b, _)| a == b).map(|class| {
        let parts: Vec<Part> = class.iter().map(|(_, part)| *part).collect();
        (class[0].0, compiler.list(direction, parts))
    });
    let peers = classes.collect();
    let covered = prefixes::cover(&nets).into_iter();
    let mut prefixes: Vec<_> = covered.map(|(prefix, parts)| (prefix.key(), compiler.list(direction, parts))).collect();
    prefixes.sort_unstable();
    Draft { default: defaults.rank, peers, prefixes }
}

/// What holds for a subject where no rule speaks.
struct Defaults {
    rank: Rank,
    entries: Vec<((AppId, RoleId), Rank)>,
}

const OPEN: Rank = Rank::new(0, Action::Allow);
const CLOSED: Rank = Rank::new(0, Action::Deny);

impl Defaults {
    const OPEN: Self = Self { rank: OPEN, entries: Vec::new() };

    fn of(app: &App, direction: Direction) -> Self {
        let crate::model::app::Defaults { inside, from_apps, from_host, to_outside } = app.defaults;
        let mut entries = Vec::new();
        match (direction, to_outside) {
            (Direction::Egress, Gate::Open) => return Self::OPEN,
            (Direction::Egress, Gate::Closed) => entries.push((ANY, OPEN)),
            (Direction::Ingress, _) => {
                if from_apps == Gate::Open {
                    entries.push((ANY, OPEN));
                }
                // The app's own endpoints are endpoints of any app too: only a difference needs an entry.
                match (inside, from_apps) {
                    (Gate::Open, Gate::Closed) => entries.push(((app.number, RoleId::ANY), OPEN)),
                    (Gate::Closed, Gate::Open) => entries.push(((app.number, RoleId::ANY), CLOSED)),
                    (Gate::Open, Gate::Open) | (Gate::Closed, Gate::Closed) => {}
                }
                if from_host == Gate::Open {
                    entries.push((HOST, OPEN));
                }
            }
        }
        Self { rank: Rank::NONE, entries }
    }
}
