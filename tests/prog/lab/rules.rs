//! Rules as people write them, made into tables: a compiler so small that it can be believed by reading.
//!
//! The real one is `weft::plan::rules`; here a rule names one port or none, and every subject has a set of its own.
//! What the defaults are is said there too: inside an app open, between apps closed, to the outside and from the host
//! open. `shop: from-host closed`, as a line among the rules, says otherwise.

use super::cast::{APPS, BLOG, ROLE_DB, ROLE_WEB, SHOP};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft::plan::rules::Policy;
use weft_common::addr::Ip;
use weft_common::header::protocol;
use weft_common::id::{AppId, Epoch, Identity, RoleId};
use weft_common::policy::{Action, Direction, PeerKey, PrefixKey, Rank, Rule, RuleKey, RuleSet, SetKey, Winner};

/// `allow shop/web -> blog/db tcp/5432`, read.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// Its line, counted from 1.
    id: u32,
    action: Action,
    from: Who,
    to: Who,
    traffic: Traffic,
    precedence: i32,
    /// Whether it ends, when the story says so.
    ends: bool,
    /// Whether it is only tried.
    shadow: bool,
}

/// What an app is told beside rules: `shop: from-host closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    FromHostClosed,
    ToOutsideClosed,
    /// All of its policy is only tried.
    Shadow,
}

/// Which rules count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    InForce,
    Tried,
}

/// When all ends that does, by the clock that counts from the boot: not in any story's time.
pub(crate) const END: u64 = u64::MAX;

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Any,
    App(AppId),
    Exactly(AppId, RoleId),
    Prefix(Ip, u32),
}

/// Protocol and port, as far as they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Traffic {
    bits: u32,
    protocol: u8,
    port: u16,
}

/// The tables of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) sets: Vec<(SetKey, RuleSet)>,
    pub(crate) peer_lists: Vec<(PeerKey, u32)>,
    pub(crate) prefix_lists: Vec<((u32, PrefixKey), u32)>,
    pub(crate) rules: Vec<((u32, RuleKey), Rule)>,
    /// As `Config::shadow`.
    pub(crate) shadow: u32,
}

/// What the real compiler made.
impl From<&Policy> for Compiled {
    fn from(policy: &Policy) -> Self {
        Self {
            sets: policy.sets.iter().map(|(key, set)| (*key, *set)).collect(),
            peer_lists: policy.peer_lists.iter().map(|(key, list)| (*key, *list)).collect(),
            prefix_lists: policy.prefix_lists.iter().map(|(key, list)| (*key, *list)).collect(),
            rules: policy.rules.iter().map(|(key, rule)| (*key, *rule)).collect(),
            // What is tried is shown by rules of the lab's own.
            shadow: 0,
        }
    }
}

/// All rules, and what apps are told beside them, one per line of text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    written: Vec<Written>,
    settings: Vec<(AppId, Setting)>,
}

impl Rules {
    /// Reads rules and settings. The number of a rule is its line, counted from 1.
    #[track_caller]
    pub(crate) fn new(lines: &[&str]) -> Self {
        let mut rules = Self::default();
        for (line, id) in lines.iter().zip(1..) {
            if let Some((name, said)) = line.split_once(": ") {
                let read = app(name).zip(setting(said));
                rules.settings.push(read.unwrap_or_else(|| panic!("not a setting: {line}")));
            } else {
                let read = read(line).unwrap_or_else(|| panic!("not a rule: {line}"));
                rules.written.push(Written { id, ..read });
            }
        }
        rules
    }

    /// The tables for the half that `epoch` names. Numbers of sets and lists are never used twice.
    pub(crate) fn compile(&self, epoch: Epoch) -> Compiled {
        let mut tables = Compiled { shadow: self.is_tried().into(), ..Compiled::default() };
        let roles = [RoleId::NONE, ROLE_WEB, ROLE_DB, RoleId::UNKNOWN];
        let apps = APPS.iter().flat_map(|app| roles.map(|role| Identity::new(*app, role)));
        let subjects: Vec<_> = apps.chain([Identity::HOST, Identity::OUTSIDE]).collect();
        let views = [(View::InForce, 0), (View::Tried, SetKey::SHADOW)];
        for (view, bit) in views.into_iter().take(if self.is_tried() { 2 } else { 1 }) {
            for (subject, direction) in subjects.iter().flat_map(|one| DIRECTIONS.map(|direction| (*one, direction))) {
                let flags = self.flags(subject.app, direction, view);
                let rules = self.rules_of(subject, direction, view);
                // In the second stage what ends has ended.
                let ends = rules.iter().any(|rule| rule.ends);
                let stages = if ends { &[(0, END), (1, 0)][..] } else { &[(0, 0)] };
                for &(stage, until) in stages {
                    let key = SetKey { stage, ..SetKey::new(subject, direction, epoch.slot() | bit) };
                    let id = u32::try_from(tables.sets.len() + 1).expect("few sets") + epoch.0 * 1000;
                    let holds = rules.iter().filter(|rule| stage == 0 || !rule.ends);
                    tables.compile_set(key, RuleSet { id, flags, until }, holds);
                }
            }
        }
        tables
    }

    /// Whether any rule, or an app's policy, is only tried.
    fn is_tried(&self) -> bool {
        self.written.iter().any(|rule| rule.shadow)
            || self.settings.iter().any(|(_, setting)| *setting == Setting::Shadow)
    }

    /// The rules of a subject. One whose app is only tried has none in force.
    fn rules_of(&self, subject: Identity, direction: Direction, view: View) -> Vec<Written> {
        if view == View::InForce && self.says(subject.app, Setting::Shadow) {
            return Vec::new();
        }
        let is_one = |rule: &&Written| {
            let own = if direction == Direction::Ingress { rule.to } else { rule.from };
            own.matches(subject, rule.action) && (view == View::Tried || !rule.shadow)
        };
        self.written.iter().filter(is_one).copied().collect()
    }

    /// The defaults of an app, and whether what is not IP passes inside it.
    fn flags(&self, app: AppId, direction: Direction, view: View) -> u32 {
        if view == View::InForce && self.says(app, Setting::Shadow) {
            return RuleSet::OPEN | RuleSet::FRAMES_INSIDE;
        }
        let frames = if self.is_open_inside(app) { RuleSet::FRAMES_INSIDE } else { 0 };
        let without = |setting, flags| if self.says(app, setting) { flags } else { 0 };
        let outside = RuleSet::OPEN_HOST | RuleSet::OPEN_OUTSIDE;
        let closed = match direction {
            _ if !app.is_application() => 0,
            Direction::Ingress => {
                RuleSet::OPEN_APPS | RuleSet::OPEN_OUTSIDE | without(Setting::FromHostClosed, RuleSet::OPEN_HOST)
            }
            Direction::Egress => without(Setting::ToOutsideClosed, outside),
        };
        frames | RuleSet::OPEN & !closed
    }

    fn says(&self, app: AppId, setting: Setting) -> bool {
        self.settings.contains(&(app, setting))
    }
}

impl Compiled {
    /// Adds a set of these rules, beside what else it says.
    fn compile_set<'a>(&mut self, key: SetKey, set: RuleSet, own: impl Iterator<Item = &'a Written>) {
        let mut lists: BTreeMap<Who, Vec<(Traffic, Rule)>> = BTreeMap::new();
        for &Written { id, action, from, to, traffic, precedence, .. } in own {
            let peer = if key.direction == Direction::Ingress as u8 { from } else { to };
            let rank = Rank::new(precedence, action);
            let under = if precedence < Rank::UPPER { Winner { rank, id } } else { Winner::default() };
            for peer in [Some(peer), peer.unknown(action)].into_iter().flatten() {
                lists.entry(peer).or_default().push((traffic, Rule { top: Winner { rank, id }, under }));
            }
        }
        let is_prefix = |who: &Who| matches!(who, Who::Prefix(..));
        let has = |found, flag| if found { flag } else { 0 };
        let flags = has(lists.keys().any(|who| !is_prefix(who)), RuleSet::HAS_RULES)
            | has(lists.keys().any(is_prefix), RuleSet::HAS_PREFIXES);
        let id = set.id;
        self.sets.push((key, RuleSet { flags: set.flags | flags, ..set }));
        for (place, (peer, rules)) in (0..).zip(&lists) {
            let list = id * 100 + place;
            let peer_key = |app, role| PeerKey { set: id, app, role, reserved: 0 };
            match *peer {
                Who::Any => self.peer_lists.push((peer_key(AppId::ANY, RoleId::ANY), list)),
                Who::App(app) => self.peer_lists.push((peer_key(app, RoleId::ANY), list)),
                Who::Exactly(app, role) => self.peer_lists.push((peer_key(app, role), list)),
                Who::Prefix(addr, len) => self.prefix_lists.push(((32 + len, PrefixKey { set: id, addr }), list)),
            }
            for (traffic, _) in rules {
                self.rules.push((traffic.key(list), winner(rules, *traffic)));
            }
        }
    }
}

impl Rules {
    /// Whether no rule in force speaks of an app's own endpoints on both sides. Every prefix might.
    fn is_open_inside(&self, app: AppId) -> bool {
        let may_be = |who: Who| match who {
            Who::Any | Who::Prefix(..) => true,
            Who::App(named) | Who::Exactly(named, _) => named == app,
        };
        let is_spoken_of = |rule: &Written| !rule.shadow && may_be(rule.from) && may_be(rule.to);
        app.is_application() && !self.written.iter().any(is_spoken_of)
    }
}

/// Of the rules that cover all of `traffic`, those of the greatest rank, and of those the first.
fn winner(rules: &[(Traffic, Rule)], traffic: Traffic) -> Rule {
    let covering = rules.iter().filter(|(wide, _)| wide.covers(traffic)).map(|(_, rule)| *rule);
    let better = |best: Winner, other: Winner| if other.rank > best.rank { other } else { best };
    let both = |best: Rule, rule: Rule| Rule { top: better(best.top, rule.top), under: better(best.under, rule.under) };
    covering.reduce(both).expect("it covers itself")
}

impl Who {
    /// Whether a rule about these is one of the subject's own. A prefix says of nobody who he is; an unknown role is
    /// the most favourable one.
    fn matches(self, subject: Identity, action: Action) -> bool {
        match self {
            Self::Any => subject.app.is_application(),
            Self::App(app) => subject.app == app,
            Self::Exactly(..) if subject.role == RoleId::UNKNOWN => {
                self.unknown(action).is_some_and(|who| who.is(subject))
            }
            Self::Exactly(..) => self.is(subject),
            Self::Prefix(..) => false,
        }
    }

    fn is(self, identity: Identity) -> bool {
        self == Self::Exactly(identity.app, identity.role)
    }

    /// The members of the app whose role is not known, when what is said of one role is said of them too.
    fn unknown(self, action: Action) -> Option<Self> {
        match (self, action) {
            (Self::Exactly(app, _), Action::Allow) if app.is_application() => Some(Self::Exactly(app, RoleId::UNKNOWN)),
            _ => None,
        }
    }
}

impl Traffic {
    const ANY: Self = Self { bits: 0, protocol: 0, port: 0 };

    fn covers(self, other: Self) -> bool {
        self.bits <= other.bits
            && (self.bits == 0 || self.protocol == other.protocol)
            && (self.bits <= 8 || self.port == other.port)
    }

    fn key(self, list: u32) -> (u32, RuleKey) {
        let port = self.port.to_be_bytes();
        (32 + self.bits, RuleKey { list, protocol: self.protocol, port, reserved: 0 })
    }
}

fn read(line: &str) -> Option<Written> {
    let (shadow, line) = line.strip_prefix("shadow ").map_or((false, line), |line| (true, line));
    let mut words = line.split_whitespace();
    let action = words.next()?;
    let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
    let from = who(words.next()?)?;
    if words.next()? != "->" {
        return None;
    }
    let to = who(words.next()?)?;
    let mut written = Written { id: 0, action, from, to, traffic: Traffic::ANY, precedence: 10, ends: false, shadow };
    while let Some(word) = words.next() {
        if word == "ends" {
            written.ends = true;
        } else if word == "precedence" {
            written.precedence = words.next()?.parse().ok()?;
        } else {
            written.traffic = traffic(word)?;
        }
    }
    Some(written)
}

fn who(text: &str) -> Option<Who> {
    if let Some((addr, len)) = text.split_once('/')
        && let Ok(addr) = addr.parse::<IpAddr>()
    {
        let len: u32 = len.parse().ok()?;
        return Some(Who::Prefix(addr.into(), if addr.is_ipv4() { 96 + len } else { len }));
    }
    match text.split_once('/') {
        Some((name, "web")) => Some(Who::Exactly(app(name)?, ROLE_WEB)),
        Some((name, "db")) => Some(Who::Exactly(app(name)?, ROLE_DB)),
        Some(_) => None,
        None if text == "any" => Some(Who::Any),
        None if text == "host" => Some(Who::Exactly(AppId::HOST, RoleId::NONE)),
        None if text == "outside" => Some(Who::Exactly(AppId::OUTSIDE, RoleId::NONE)),
        None => Some(Who::App(app(text)?)),
    }
}

fn app(name: &str) -> Option<AppId> {
    match name {
        "shop" => Some(SHOP),
        "blog" => Some(BLOG),
        _ => None,
    }
}

fn setting(said: &str) -> Option<Setting> {
    match said {
        "from-host closed" => Some(Setting::FromHostClosed),
        "to-outside closed" => Some(Setting::ToOutsideClosed),
        "shadow on" => Some(Setting::Shadow),
        _ => None,
    }
}

/// `tcp`, `tcp/80`, `icmp/8` for one type with its code 0.
fn traffic(text: &str) -> Option<Traffic> {
    let (name, port) = text.split_once('/').map_or((text, None), |(name, port)| (name, Some(port)));
    let protocol = match name {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "sctp" => protocol::SCTP,
        "icmp" => protocol::ICMP,
        "icmpv6" => protocol::ICMPV6,
        _ => name.parse().ok()?,
    };
    let Some(port) = port else { return Some(Traffic { bits: 8, protocol, port: 0 }) };
    let number: u16 = port.parse().ok()?;
    let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
    Some(Traffic { bits: 24, protocol, port: if is_icmp { number << 8 } else { number } })
}
