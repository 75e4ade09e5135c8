//! Which rules and defaults each subject has, and about whom.
//!
//! Every identity that can occur gets a set for both directions: every app with every role, without one and
//! with one that is not known, the hosts and the outside. What has no set is denied.

use std::collections::{BTreeMap, HashMap};

use weft_common::{
    id::{AppId, Identity, RoleId},
    policy::{Direction, RuleSet, SetKey},
};

use crate::model::{
    app::{App, Defaults, Gate},
    cluster::Cluster,
};

use super::{
    Compiler, Draft,
    classes::{ANY, HOST, OUTSIDE, Prepared, Side},
    prefixes,
};

/// The sets of all subjects.
pub(super) struct Drafts {
    /// Positions in `distinct`.
    pub(super) of: BTreeMap<SetKey, usize>,
    pub(super) distinct: Vec<Draft>,
}

pub(super) fn drafts(cluster: &Cluster, rules: &[Prepared<'_>], compiler: &mut Compiler<'_>) -> Drafts {
    let mut drafts = Drafts { of: BTreeMap::new(), distinct: Vec::new() };
    let mut known: HashMap<Draft, usize> = HashMap::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let index = Index::of(rules, direction);
        for app in cluster.apps.values() {
            // Roles that no rule names have the rules of an endpoint without one.
            let mut plain = None;
            let roles = app.roles.values().map(|role| role.number).chain([RoleId::NONE, RoleId::UNKNOWN]);
            for role in roles {
                let own = index.role.get(&(app.number, role)).map_or(&[][..], Vec::as_slice);
                let shared = plain.filter(|_| own.is_empty());
                let at = shared.unwrap_or_else(|| {
                    let mut subject: Vec<usize> = index.app(app.number).chain(own.iter().copied()).collect();
                    subject.sort_unstable();
                    drafts.add(&mut known, draft(rules, compiler, direction, &subject, open(app, direction)))
                });
                if own.is_empty() {
                    plain = Some(at);
                }
                drafts.name(Identity::new(app.number, role), direction, at);
            }
        }
        for (identity, subject) in [(Identity::HOST, &index.host), (Identity::OUTSIDE, &index.outside)] {
            let at = drafts.add(&mut known, draft(rules, compiler, direction, subject, RuleSet::OPEN));
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
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.is_on(direction)) {
            let Side::Classes(subjects) = rule.sides(direction).0 else { continue };
            for class in &**subjects {
                let positions = match *class {
                    ANY => &mut index.any,
                    HOST => &mut index.host,
                    OUTSIDE => &mut index.outside,
                    (app, RoleId::ANY) => index.app.entry(app).or_default(),
                    role => index.role.entry(role).or_default(),
                };
                positions.push(at);
            }
        }
        index
    }

    /// Those that every endpoint of an app has.
    fn app(&self, app: AppId) -> impl Iterator<Item = usize> {
        self.app.get(&app).into_iter().flatten().chain(&self.any).copied()
    }
}

fn draft(
    rules: &[Prepared<'_>],
    compiler: &mut Compiler<'_>,
    direction: Direction,
    subject: &[usize],
    open: u32,
) -> Draft {
    let (mut peers, mut nets) = (Vec::new(), Vec::new());
    for &at in subject {
        match rules[at].sides(direction).1 {
            Side::Classes(classes) => peers.extend(classes.iter().map(|class| (*class, at))),
            Side::Net(net) => nets.push((*net, at)),
        }
    }
    peers.sort_unstable();
    let classes = peers.chunk_by(|(a, _), (b, _)| a == b).map(|class| {
        let parts: Vec<usize> = class.iter().map(|(_, part)| *part).collect();
        (class[0].0, compiler.list(direction, parts))
    });
    let peers = classes.collect();
    let covered = prefixes::cover(&nets).into_iter();
    let mut prefixes: Vec<_> = covered.map(|(prefix, parts)| (prefix.key(), compiler.list(direction, parts))).collect();
    prefixes.sort_unstable();
    Draft { open, peers, prefixes }
}

/// What holds for an app where no rule speaks: flags of a [`RuleSet`].
fn open(app: &App, direction: Direction) -> u32 {
    let Defaults { inside, from_apps, from_host, to_outside } = app.defaults;
    let open = |gate, flag| if gate == Gate::Open { flag } else { 0 };
    match direction {
        Direction::Egress => {
            let outside = RuleSet::OPEN_OUTSIDE | RuleSet::OPEN_HOST;
            RuleSet::OPEN_INSIDE | RuleSet::OPEN_APPS | open(to_outside, outside)
        }
        Direction::Ingress => {
            let endpoints = open(inside, RuleSet::OPEN_INSIDE) | open(from_apps, RuleSet::OPEN_APPS);
            endpoints | open(from_host, RuleSet::OPEN_HOST)
        }
    }
}
