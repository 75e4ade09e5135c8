//! Rules with numbers in the place of names: which classes of identities each speaks of.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_common::{
    id::{AppId, Identity, RoleId},
    policy::{Action, Direction, Rank},
};

use crate::{
    model::{
        app::{App, Role},
        cluster::Cluster,
        rule::Rule,
        selector::{Net, Selector},
        traffic::{NamedPorts, Region},
    },
    shared::Spread,
};

use super::{super::facts::Clock, end, width};

/// An app and a role of it, as [`weft_common::policy::PeerKey`] has them: both may be any.
pub(super) type Class = (AppId, RoleId);

/// The classes of an app are together.
impl Spread for Class {
    fn hash(&self) -> u64 {
        self.0.0.into()
    }
}

/// Every app.
pub(super) const ANY: Class = (AppId::ANY, RoleId::ANY);
/// The hosts.
pub(super) const HOST: Class = (Identity::HOST.app, Identity::HOST.role);
/// The outside.
pub(super) const OUTSIDE: Class = (Identity::OUTSIDE.app, Identity::OUTSIDE.role);

/// A rule, or the part of it that says one thing of some classes.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) id: u32,
    pub(super) rank: Rank,
    pub(super) from: Side,
    pub(super) to: Side,
    /// Whose it is: of both directions if it is none.
    on: Option<Direction>,
    /// How closely it names the subject, by direction.
    pub(super) closeness: [u8; 2],
    pub(super) regions: Option<Arc<[Region]>>,
    pub(super) width: u64,
    /// Whether it is only tried.
    pub(super) shadow: bool,
    /// As [`weft_common::policy::RuleSet::until`].
    pub(super) until: u64,
}

/// Whom one side of a rule matches.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// Identities. None: nobody.
    Classes(Arc<[Class]>),
    /// Addresses.
    Net(Arc<Net>),
}

impl Prepared {
    /// Whose rule set of `direction` it is in, and about whom.
    pub(super) fn sides(&self, direction: Direction) -> (&Side, &Side) {
        match direction {
            Direction::Egress => (&self.from, &self.to),
            Direction::Ingress => (&self.to, &self.from),
        }
    }

    /// Whether it is one of the rules of `direction`.
    pub(super) fn is_on(&self, direction: Direction) -> bool {
        self.on.is_none_or(|on| on == direction)
    }

    /// The apps of whose inside it speaks, whatever it says and of whichever traffic.
    pub(super) fn insides(&self, apps: &BTreeMap<AppId, &App>) -> Vec<AppId> {
        let sides = [&self.from, &self.to];
        // One side often names few.
        let candidates: Vec<&App> = match sides.iter().find_map(|side| side.named()) {
            Some(named) => named.iter().filter_map(|app| apps.get(app).copied()).collect(),
            None => apps.values().copied().collect(),
        };
        let is_inside = |app: &&App| sides.iter().all(|side| side.may_be_of(app));
        candidates.into_iter().filter(is_inside).map(|app| app.number).collect()
    }
}

impl Side {
    /// Whether it matches some endpoint of an app, or some address that one may have.
    fn may_be_of(&self, app: &App) -> bool {
        match self {
            Self::Classes(classes) => classes.iter().any(|class| *class == ANY || class.0 == app.number),
            Self::Net(net) => app
                .prefixes
                .iter()
                .any(|own| net.prefix().overlaps(own) && !net.except().iter().any(|hole| hole.covers(own))),
        }
    }

    /// The apps that it names, if there is an end of them.
    fn named(&self) -> Option<BTreeSet<AppId>> {
        match self {
            Self::Classes(classes) if !classes.contains(&ANY) => Some(classes.iter().map(|class| class.0).collect()),
            Self::Classes(_) | Self::Net(_) => None,
        }
    }

    fn is_nobody(&self) -> bool {
        matches!(self, Self::Classes(classes) if classes.is_empty())
    }
}

/// Makes rules of a cluster into what the tables can say. Whom a selector means it finds once.
pub(super) struct Preparer<'a> {
    cluster: &'a Cluster,
    clock: Option<Clock>,
    known: HashMap<&'a Selector, Meant>,
}

impl<'a> Preparer<'a> {
    /// `clock` says which rules have ended; without one all that end have.
    pub(super) fn new(cluster: &'a Cluster, clock: Option<Clock>) -> Self {
        Self { cluster, clock, known: HashMap::new() }
    }

    /// What a rule comes to, which has this number: nothing if it has ended.
    pub(super) fn prepare(&mut self, rule: &'a Rule, id: u32) -> Vec<Prepared> {
        let mut prepared = Vec::new();
        let Some(until) = rule.until.map_or(Some(0), |until| end(self.clock, until)) else { return prepared };
        let (from, to) = (self.meant(&rule.from), self.meant(&rule.to));
        if rule.traffic.names_ports() {
            for (regions, to) in by_ports(self.cluster, rule, &to) {
                add(&mut prepared, rule, (id, until), (&from, &to), Some(regions));
            }
        } else {
            let regions = rule.traffic.regions(&NamedPorts::default());
            add(&mut prepared, rule, (id, until), (&from, &to), regions);
        }
        prepared
    }

    fn meant(&mut self, selector: &'a Selector) -> Meant {
        self.known.entry(selector).or_insert_with(|| meant(self.cluster, selector)).clone()
    }
}

/// Whom a selector means.
#[derive(Clone)]
struct Meant {
    side: Side,
    /// Endpoints whose role is not known, which may be meant too.
    maybe: Side,
}

impl Meant {
    fn classes(classes: Vec<Class>) -> Self {
        let mut apps: Vec<AppId> =
            classes.iter().filter(|(app, role)| is_one_role(*app, *role)).map(|class| class.0).collect();
        apps.dedup();
        let maybe = apps.into_iter().map(|app| (app, RoleId::UNKNOWN)).collect();
        Self { side: Side::Classes(classes.into()), maybe: Side::Classes(maybe) }
    }

    /// Both.
    fn all(&self) -> Side {
        match (&self.side, &self.maybe) {
            (Side::Classes(sure), Side::Classes(maybe)) if !maybe.is_empty() => {
                Side::Classes(sure.iter().chain(maybe.iter()).copied().collect())
            }
            (side, _) => side.clone(),
        }
    }
}

fn is_one_role(app: AppId, role: RoleId) -> bool {
    app.is_application() && role != RoleId::ANY
}

/// Adds what a rule says of those whom it means, and of those whom it may mean.
fn add(
    prepared: &mut Vec<Prepared>,
    rule: &Rule,
    (id, until): (u32, u64),
    (from, to): (&Meant, &Meant),
    regions: Option<Vec<Region>>,
) {
    let closeness = [closeness(&rule.to), closeness(&rule.from)];
    let regions: Option<Arc<[Region]>> = regions.map(Into::into);
    let width = width(regions.as_deref());
    let mut push = |from: Side, to: Side, rank| {
        if !from.is_nobody() && !to.is_nobody() {
            let (on, shadow, regions) = (rule.on, rule.shadow, regions.clone());
            prepared.push(Prepared { id, rank, from, to, on, closeness, regions, width, shadow, until });
        }
    };
    match rule.action {
        Action::Allow => push(from.all(), to.all(), rule.rank()),
        Action::Deny => push(from.side.clone(), to.side.clone(), rule.rank()),
        Action::Pass | Action::Reject => {
            let travels = Rank::new(rule.precedence.raw(), Action::Allow);
            push(from.side.clone(), to.side.clone(), rule.rank());
            push(from.maybe.clone(), to.all(), travels);
            push(from.side.clone(), to.maybe.clone(), travels);
        }
    }
}

/// How closely a selector names a subject. The numbers of [`Direction`] are the order of the sides.
fn closeness(selector: &Selector) -> u8 {
    match selector {
        Selector::Role(..) | Selector::Labelled(_) => 3,
        Selector::App(_) | Selector::Host | Selector::Outside => 2,
        Selector::Any | Selector::Everyone => 1,
        Selector::Net(_) => 0,
    }
}

fn meant(cluster: &Cluster, selector: &Selector) -> Meant {
    Meant::classes(match selector {
        Selector::Any => vec![ANY],
        Selector::Host => vec![HOST],
        Selector::Outside => vec![OUTSIDE],
        Selector::Everyone => vec![ANY, HOST, OUTSIDE],
        Selector::App(name) => cluster.apps.get(name).map(|app| (app.number, RoleId::ANY)).into_iter().collect(),
        Selector::Role(name, wanted) => {
            let roles =
                cluster.apps.get(name).into_iter().flat_map(|app| app.roles.iter().map(move |role| (app, role)));
            roles
                .filter(|(_, (own, role))| role.is_called(own, wanted))
                .map(|(app, (_, role))| (app.number, role.number))
                .collect()
        }
        Selector::Labelled(labelled) => {
            let apps = cluster.apps.values().filter(|app| labelled.apps.contain(app));
            let selected = |app: &App| {
                // Labels that select everybody select roles too that are not known here.
                if labelled.labels.is_empty() {
                    return vec![(app.number, RoleId::ANY)];
                }
                let with = app.roles.values().filter(|role| labelled.selects(Some(role))).map(|role| role.number);
                let without = labelled.selects(None).then_some(RoleId::NONE);
                without.into_iter().chain(with).map(|role| (app.number, role)).collect()
            };
            apps.flat_map(selected).collect()
        }
        Selector::Net(net) => {
            return Meant { side: Side::Net(Arc::new(net.clone())), maybe: Side::Classes(Arc::default()) };
        }
    })
}

/// Protocol, first and last port.
type Place = (u8, u16, u16);

/// The receivers of a rule that names ports, by what it comes to for them.
fn by_ports(cluster: &Cluster, rule: &Rule, to: &Meant) -> Vec<(Vec<Region>, Meant)> {
    let nothing = NamedPorts::default();
    let regions = |ports: &NamedPorts| rule.traffic.regions(ports).unwrap_or_default();
    let classes = match &to.side {
        Side::Classes(classes) => classes,
        Side::Net(_) => return vec![(regions(&nothing), to.clone())],
    };
    let mut found: BTreeMap<Vec<Place>, (Vec<Region>, Vec<Class>)> = BTreeMap::new();
    let mut note = |class: Class, ports: &NamedPorts| {
        let regions = regions(ports);
        let key = regions.iter().map(|region| (region.protocol, *region.ports.start(), *region.ports.end())).collect();
        found.entry(key).or_insert_with(|| (regions, Vec::new())).1.push(class);
    };
    for &(app, role) in &**classes {
        if !app.is_application() && (app, role) != ANY {
            note((app, role), &nothing);
            continue;
        }
        for known in cluster.apps.values().filter(|known| (app, role) == ANY || known.number == app) {
            let wanted = |number: RoleId| role == RoleId::ANY || role == number;
            if wanted(RoleId::NONE) {
                note((known.number, RoleId::NONE), &nothing);
            }
            for Role { number, ports, .. } in known.roles.values().filter(|known| wanted(known.number)) {
                note((known.number, *number), ports);
            }
        }
    }
    found
        .into_values()
        .filter(|(regions, _)| !regions.is_empty())
        .map(|(regions, classes)| (regions, Meant::classes(classes)))
        .collect()
}
