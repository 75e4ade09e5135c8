//! Which rules and defaults each subject has, and about whom.
//!
//! Every identity that can occur gets a set for both directions: every app with every role, without one and
//! with one that is not known, the hosts and the outside. What has no set is denied.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use weft_common::{
    addr::Ip,
    id::{AppId, Identity, RoleId},
    policy::{Direction, RuleSet, SetKey},
};

use crate::model::app::{App, Defaults, Gate};

use super::{
    classes::{ANY, Class, HOST, OUTSIDE, Prepared, Side},
    list::{self, Candidate, List, Merit},
    places::Part,
    prefixes,
    set::Set,
    work::Work,
};

/// The sets of some subjects.
#[derive(Default)]
pub(super) struct Drafts {
    /// By the key of the first stage. No stage: there is to be no set.
    pub(super) of: Vec<(SetKey, Rc<[Stage]>)>,
    /// Each content once.
    pub(super) distinct: Vec<Draft>,
    /// Each content once.
    pub(super) lists: Vec<List>,
}

/// A set for a stretch of time.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    /// Position in [`Drafts::distinct`].
    pub(super) at: usize,
    /// As [`RuleSet::until`].
    pub(super) until: u64,
}

/// A set whose lists have no numbers yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Draft {
    /// Of a [`RuleSet`]: what holds where no rule speaks, and what is said of frames.
    pub(super) flags: u32,
    /// Positions in [`Drafts::lists`].
    peers: Vec<(Class, usize)>,
    prefixes: Vec<((u32, Ip), usize)>,
}

impl Draft {
    /// With the numbers of the lists.
    pub(super) fn fill(&self, numbers: &[u32]) -> Set {
        Set {
            peers: self.peers.iter().map(|&(key, at)| (key, numbers[at])).collect(),
            prefixes: self.prefixes.iter().map(|&(key, at)| (key, numbers[at])).collect(),
        }
    }
}

/// Of whom there are rules that are tried: of all, or of nobody.
#[derive(Clone, Copy)]
pub(super) struct Tried {
    pub(super) before: bool,
    pub(super) now: bool,
}

/// What the sets of the subjects that are `touched` come to.
pub(super) fn drafts(
    apps: &BTreeMap<AppId, &App>,
    work: &Work,
    touched: &BTreeSet<(Direction, Class)>,
    tried: Tried,
) -> Drafts {
    let mut drafter = Drafter::new(apps, work);
    let subjects: BTreeSet<(Direction, Class)> = touched
        .iter()
        .flat_map(|(direction, class)| subjects(apps, *class).into_iter().map(|class| (*direction, class)))
        .collect();
    drafter.all(&subjects, View::InForce);
    if tried.now {
        drafter.all(&subjects, View::Tried);
    } else if tried.before {
        let none = |(direction, (app, role)): &(Direction, Class)| {
            (SetKey::new(Identity::new(*app, *role), *direction, SetKey::SHADOW), Rc::from([]))
        };
        drafter.drafts.of.extend(subjects.iter().map(none));
    }
    drafter.drafts
}

/// The subjects of a class.
fn subjects(apps: &BTreeMap<AppId, &App>, class: Class) -> Vec<Class> {
    let of = |app: &App| roles(app).map(|role| (app.number, role)).collect::<Vec<_>>();
    match class {
        ANY => apps.values().flat_map(|app| of(app)).collect(),
        HOST | OUTSIDE => vec![class],
        (app, RoleId::ANY) => apps.get(&app).map(|app| of(app)).unwrap_or_default(),
        one => vec![one],
    }
}

/// Those that an app's endpoints can have: its own, none, and one that is not known.
fn roles(app: &App) -> impl Iterator<Item = RoleId> + use<'_> {
    app.roles.values().map(|role| role.number).chain([RoleId::NONE, RoleId::UNKNOWN])
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

/// A rule of a subject.
type OneOf<'a> = (Part, &'a Prepared);

/// Makes drafts and lists, each content once.
struct Drafter<'a> {
    apps: &'a BTreeMap<AppId, &'a App>,
    work: &'a Work,
    drafts: Drafts,
    known: HashMap<Draft, usize>,
    known_lists: HashMap<List, usize>,
    /// The lists that were made already, of one rule and of several. Of one nothing depends on the direction.
    single: HashMap<Part, usize>,
    several: [HashMap<Vec<Part>, usize>; 2],
}

impl<'a> Drafter<'a> {
    fn new(apps: &'a BTreeMap<AppId, &'a App>, work: &'a Work) -> Self {
        Self {
            apps,
            work,
            drafts: Drafts::default(),
            known: HashMap::new(),
            known_lists: HashMap::new(),
            single: HashMap::new(),
            several: [HashMap::new(), HashMap::new()],
        }
    }

    fn all(&mut self, subjects: &BTreeSet<(Direction, Class)>, view: View) {
        // Roles that no rule names have the rules of an endpoint without one.
        let mut plain: HashMap<(Direction, AppId), Rc<[Stage]>> = HashMap::new();
        for &(direction, (app, role)) in subjects {
            let has_own = !self.work.rules(direction, (app, role)).is_empty();
            let shared = plain.get(&(direction, app)).filter(|_| !has_own).cloned();
            let stages = shared.unwrap_or_else(|| self.subject(direction, (app, role), view));
            if !has_own {
                plain.insert((direction, app), Rc::clone(&stages));
            }
            let key = SetKey::new(Identity::new(app, role), direction, view.slot());
            self.drafts.of.push((key, stages));
        }
    }

    fn subject(&mut self, direction: Direction, class: Class, view: View) -> Rc<[Stage]> {
        let work = self.work;
        let (flags, classes) = match self.apps.get(&class.0) {
            Some(app) if app.shadow && view == View::InForce => {
                let flags = RuleSet::OPEN | RuleSet::FRAMES_INSIDE;
                return Rc::from([Stage { at: self.add(Draft { flags, ..Draft::default() }), until: 0 }]);
            }
            Some(app) => (open(app, direction) | self.frames(app), vec![ANY, (app.number, RoleId::ANY), class]),
            None => (RuleSet::OPEN, vec![class]),
        };
        let counts = |rule: &Prepared| !rule.shadow || view == View::Tried;
        let rules = classes.into_iter().flat_map(|class| work.rules(direction, class));
        let rules = rules.map(|(part, rule)| (*part, rule.as_ref())).filter(|(_, rule)| counts(rule));
        let mut rules: Vec<OneOf<'_>> = rules.collect();
        rules.sort_unstable_by_key(|(part, _)| *part);
        self.stages(direction, &rules, flags)
    }

    /// Whether what no rule can speak of passes inside an app: it is open there, and no rule speaks of it.
    fn frames(&self, app: &App) -> u32 {
        let is_spoken_of = self.work.insides.get(&app.number).is_some_and(|count| *count > 0);
        let is_open = app.shadow || (app.defaults.inside == Gate::Open && !is_spoken_of);
        if is_open { RuleSet::FRAMES_INSIDE } else { 0 }
    }

    /// The sets of a subject, which has these rules: one until each of them ends, and the last without all that do.
    fn stages(&mut self, direction: Direction, rules: &[OneOf<'_>], flags: u32) -> Rc<[Stage]> {
        let ends: BTreeSet<u64> = rules.iter().map(|(_, rule)| rule.until).filter(|end| *end != 0).collect();
        let stages = ends.into_iter().take(RuleSet::STAGES as usize - 1).chain([0]);
        let stage = |until: u64| {
            let holds = |end: u64| end == 0 || (until != 0 && end >= until);
            let rules: Vec<_> = rules.iter().copied().filter(|(_, rule)| holds(rule.until)).collect();
            let draft = self.draft(direction, &rules, flags);
            Stage { at: self.add(draft), until }
        };
        stages.map(stage).collect()
    }

    fn add(&mut self, draft: Draft) -> usize {
        *self.known.entry(draft).or_insert_with_key(|draft| {
            self.drafts.distinct.push(draft.clone());
            self.drafts.distinct.len() - 1
        })
    }

    fn draft(&mut self, direction: Direction, rules: &[OneOf<'_>], flags: u32) -> Draft {
        let (mut peers, mut nets) = (Vec::new(), Vec::new());
        for &(part, rule) in rules {
            match rule.sides(direction).1 {
                Side::Classes(classes) => peers.extend(classes.iter().map(|class| (*class, part, rule))),
                Side::Net(net) => nets.push((net.as_ref(), (part, rule))),
            }
        }
        peers.sort_unstable_by_key(|(class, part, _)| (*class, *part));
        let classes = peers.chunk_by(|(a, ..), (b, ..)| a == b).map(|class| {
            let rules: Vec<_> = class.iter().map(|(_, part, rule)| (*part, *rule)).collect();
            (class[0].0, self.list(direction, &rules))
        });
        let peers = classes.collect();
        let covered = prefixes::cover(&nets).into_iter();
        let mut prefixes: Vec<_> =
            covered.map(|(prefix, rules)| (prefix.key(), self.list(direction, &rules))).collect();
        prefixes.sort_unstable();
        Draft { flags, peers, prefixes }
    }

    /// The position of the list that rules come to.
    fn list(&mut self, direction: Direction, rules: &[OneOf<'_>]) -> usize {
        let several = direction as usize;
        let parts: Vec<Part> = rules.iter().map(|(part, _)| *part).collect();
        let done = match parts.as_slice() {
            [part] => self.single.get(part),
            parts => self.several[several].get(parts),
        };
        if let Some(at) = done {
            return *at;
        }
        let candidates: Vec<_> = rules.iter().map(|(part, rule)| candidate(direction, *part, rule)).collect();
        let list: List = list::flatten(&candidates).into();
        let at = *self.known_lists.entry(list).or_insert_with_key(|list| {
            self.drafts.lists.push(Arc::clone(list));
            self.drafts.lists.len() - 1
        });
        match parts.as_slice() {
            [part] => self.single.insert(*part, at),
            _ => self.several[several].insert(parts, at),
        };
        at
    }
}

fn candidate(direction: Direction, part: Part, rule: &Prepared) -> Candidate<'_> {
    let peer_bits = match rule.sides(direction).1 {
        Side::Net(net) => net.prefix().len(),
        Side::Classes(_) => 0,
    };
    let subject = rule.closeness[direction as usize];
    let regions = rule.regions.as_deref();
    let merit = Merit { rank: rule.rank, peer_bits, subject, width: Reverse(rule.width), at: Reverse(part) };
    Candidate { merit, id: rule.id, regions }
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
