//! Which rules and defaults each subject has, and about whom.
//!
//! Every identity that can occur gets a set for both directions: every app with every role, without one and
//! with one that is not known, the hosts and the outside. What has no set is denied.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

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
    pub(super) of: BTreeMap<SetKey, Stage>,
    pub(super) distinct: Vec<Draft>,
    known: HashMap<Draft, usize>,
}

/// A set for a stretch of time.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    /// Position in [`Drafts::distinct`].
    pub(super) at: usize,
    /// As [`RuleSet::until`].
    pub(super) until: u64,
}

pub(super) fn drafts(cluster: &Cluster, rules: &[Prepared<'_>], compiler: &mut Compiler<'_>) -> Drafts {
    let mut drafts = Drafts { of: BTreeMap::new(), distinct: Vec::new(), known: HashMap::new() };
    drafts.all(cluster, rules, compiler, View::InForce);
    if rules.iter().any(|rule| rule.shadow) || cluster.apps.values().any(|app| app.shadow) {
        drafts.all(cluster, rules, compiler, View::Tried);
    }
    drafts
}

/// Which rules count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Those in force; an app in shadow is open.
    InForce,
    /// Those that are tried, too.
    Tried,
}

impl View {
    fn slot(self) -> u8 {
        match self {
            Self::InForce => 0,
            Self::Tried => SetKey::SHADOW,
        }
    }
}

impl Drafts {
    fn all(&mut self, cluster: &Cluster, rules: &[Prepared<'_>], compiler: &mut Compiler<'_>, view: View) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let index = Index::of(rules, direction, view);
            for app in cluster.apps.values() {
                if app.shadow && view == View::InForce {
                    let stages = [Stage { at: self.add(Draft { open: RuleSet::OPEN, ..Draft::default() }), until: 0 }];
                    roles(app).for_each(|role| self.name(Identity::new(app.number, role), direction, view, &stages));
                    continue;
                }
                // Roles that no rule names have the rules of an endpoint without one.
                let mut plain: Option<Rc<[Stage]>> = None;
                for role in roles(app) {
                    let own = index.role.get(&(app.number, role)).map_or(&[][..], Vec::as_slice);
                    let shared = plain.clone().filter(|_| own.is_empty());
                    let stages = shared.unwrap_or_else(|| {
                        let mut subject: Vec<usize> = index.app(app.number).chain(own.iter().copied()).collect();
                        subject.sort_unstable();
                        self.stages((rules, compiler), direction, &subject, open(app, direction))
                    });
                    self.name(Identity::new(app.number, role), direction, view, &stages);
                    if own.is_empty() {
                        plain = Some(stages);
                    }
                }
            }
            for (identity, subject) in [(Identity::HOST, &index.host), (Identity::OUTSIDE, &index.outside)] {
                let stages = self.stages((rules, compiler), direction, subject, RuleSet::OPEN);
                self.name(identity, direction, view, &stages);
            }
        }
    }

    /// The sets of a subject, which has these rules: one until each of them ends, and the last without all that do.
    fn stages(
        &mut self,
        (rules, compiler): (&[Prepared<'_>], &mut Compiler<'_>),
        direction: Direction,
        subject: &[usize],
        open: u32,
    ) -> Rc<[Stage]> {
        let ends: BTreeSet<u64> = subject.iter().map(|at| rules[*at].until).filter(|end| *end != 0).collect();
        let stages = ends.into_iter().take(RuleSet::STAGES as usize - 1).chain([0]);
        let stage = |until: u64| {
            let holds = |end: u64| end == 0 || (until != 0 && end >= until);
            let subject: Vec<usize> = subject.iter().copied().filter(|at| holds(rules[*at].until)).collect();
            Stage { at: self.add(draft(rules, compiler, direction, &subject, open)), until }
        };
        stages.map(stage).collect()
    }

    fn add(&mut self, draft: Draft) -> usize {
        *self.known.entry(draft).or_insert_with_key(|draft| {
            self.distinct.push(draft.clone());
            self.distinct.len() - 1
        })
    }

    fn name(&mut self, subject: Identity, direction: Direction, view: View, stages: &[Stage]) {
        for (stage, found) in (0..).zip(stages) {
            self.of.insert(SetKey { stage, ..SetKey::new(subject, direction, view.slot()) }, *found);
        }
    }
}

/// Those that an app's endpoints can have: its own, none, and one that is not known.
fn roles(app: &App) -> impl Iterator<Item = RoleId> + use<'_> {
    app.roles.values().map(|role| role.number).chain([RoleId::NONE, RoleId::UNKNOWN])
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
    fn of(rules: &[Prepared<'_>], direction: Direction, view: View) -> Self {
        let mut index = Self::default();
        let counts = |rule: &Prepared<'_>| rule.is_on(direction) && (!rule.shadow || view == View::Tried);
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| counts(rule)) {
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
