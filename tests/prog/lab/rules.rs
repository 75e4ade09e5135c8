//! Rules as people write them, made into tables: a compiler so small that it can be believed by reading.
//!
//! The real one is `weft::plan::rules`; here a rule names one port or none, and every subject has a set of its own.
//! What the defaults are is said there too: inside an app open, between apps closed, to the outside and from the host
//! open.

use super::cast::{APPS, BLOG, ROLE_DB, ROLE_WEB, SHOP};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_common::addr::Ip;
use weft_common::header::protocol;
use weft_common::id::{AppId, Epoch, Identity, RoleId};
use weft_common::policy::{Action, Direction, PeerKey, PrefixKey, Rank, Rule, RuleKey, RuleSet, SetKey, Winner};

/// `allow shop/web -> blog/db tcp/5432`, read.
#[derive(Clone, Copy, Debug)]
struct Written {
    action: Action,
    from: Who,
    to: Who,
    traffic: Traffic,
    precedence: i32,
    /// Whether it ends, when the story says so.
    ends: bool,
}

/// When all ends that does, by the clock that counts from the boot: not in any story's time.
pub(crate) const END: u64 = u64::MAX;

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
}

/// All rules, one per line of text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Vec<Written>);

impl Rules {
    /// Reads rules; an empty line is none. The number of a rule is its line, counted from 1.
    #[track_caller]
    pub(crate) fn new(lines: &[&str]) -> Self {
        Self(lines.iter().map(|line| read(line).unwrap_or_else(|| panic!("not a rule: {line}"))).collect())
    }

    /// The tables for the half that `epoch` names. Numbers of sets and lists are never used twice.
    pub(crate) fn compile(&self, epoch: Epoch) -> Compiled {
        let mut tables = Compiled::default();
        let roles = [RoleId::NONE, ROLE_WEB, ROLE_DB, RoleId::UNKNOWN];
        let apps = APPS.iter().flat_map(|app| roles.map(|role| Identity::new(*app, role)));
        for subject in apps.chain([Identity::HOST, Identity::OUTSIDE]) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let concerns = |rule: &Written| {
                    let own = if direction == Direction::Ingress { rule.to } else { rule.from };
                    own.matches(subject, rule.action)
                };
                if self.0.iter().any(|rule| rule.ends && concerns(rule)) {
                    self.compile_set(&mut tables, epoch, (subject, direction), (0, END));
                    self.compile_set(&mut tables, epoch, (subject, direction), (1, 0));
                } else {
                    self.compile_set(&mut tables, epoch, (subject, direction), (0, 0));
                }
            }
        }
        tables
    }

    /// One stage, and until when it holds. In the second what ends has ended.
    fn compile_set(
        &self,
        tables: &mut Compiled,
        epoch: Epoch,
        (subject, direction): (Identity, Direction),
        (stage, until): (u32, u64),
    ) {
        let number = u32::try_from(tables.sets.len() + 1).expect("few sets") + epoch.0 * 1000;
        let mut lists: BTreeMap<Who, Vec<(Traffic, Rule)>> = BTreeMap::new();
        let is_closed = subject.app.is_application() && direction == Direction::Ingress;
        for (rule, id) in self.0.iter().zip(1..).filter(|(rule, _)| stage == 0 || !rule.ends) {
            let (own, peer) = match direction {
                Direction::Ingress => (rule.to, rule.from),
                Direction::Egress => (rule.from, rule.to),
            };
            if own.matches(subject, rule.action) {
                let rank = Rank::new(rule.precedence, rule.action);
                let under = if rule.precedence < Rank::UPPER { Winner { rank, id } } else { Winner::default() };
                for peer in [Some(peer), peer.unknown(rule.action)].into_iter().flatten() {
                    lists.entry(peer).or_default().push((rule.traffic, Rule { top: Winner { rank, id }, under }));
                }
            }
        }
        let is_prefix = |who: &Who| matches!(who, Who::Prefix(..));
        let has = |found, flag| if found { flag } else { 0 };
        let flags = has(lists.keys().any(|who| !is_prefix(who)), RuleSet::HAS_RULES)
            | has(lists.keys().any(is_prefix), RuleSet::HAS_PREFIXES)
            | has(self.is_open_inside(subject.app), RuleSet::FRAMES_INSIDE)
            | if is_closed { RuleSet::OPEN_INSIDE | RuleSet::OPEN_HOST } else { RuleSet::OPEN };
        let key = SetKey { stage, ..SetKey::new(subject, direction, epoch.slot()) };
        tables.sets.push((key, RuleSet { id: number, flags, until }));
        for (place, (peer, rules)) in (0..).zip(&lists) {
            let list = number * 100 + place;
            let peer_key = |app, role| PeerKey { set: number, app, role, reserved: 0 };
            match *peer {
                Who::Any => tables.peer_lists.push((peer_key(AppId::ANY, RoleId::ANY), list)),
                Who::App(app) => tables.peer_lists.push((peer_key(app, RoleId::ANY), list)),
                Who::Exactly(app, role) => tables.peer_lists.push((peer_key(app, role), list)),
                Who::Prefix(addr, len) => {
                    tables.prefix_lists.push(((32 + len, PrefixKey { set: number, addr }), list));
                }
            }
            for (traffic, _) in rules {
                tables.rules.push((traffic.key(list), winner(rules, *traffic)));
            }
        }
    }
}

impl Rules {
    /// Whether no rule speaks of an app's own endpoints on both sides. Every prefix might.
    fn is_open_inside(&self, app: AppId) -> bool {
        let may_be = |who: Who| match who {
            Who::Any | Who::Prefix(..) => true,
            Who::App(named) | Who::Exactly(named, _) => named == app,
        };
        app.is_application() && !self.0.iter().any(|rule| may_be(rule.from) && may_be(rule.to))
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
    let mut words = line.split_whitespace();
    let action = words.next()?;
    let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
    let from = who(words.next()?)?;
    if words.next()? != "->" {
        return None;
    }
    let to = who(words.next()?)?;
    let mut written = Written { action, from, to, traffic: Traffic::ANY, precedence: 10, ends: false };
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
    let app = |name| match name {
        "shop" => Some(SHOP),
        "blog" => Some(BLOG),
        _ => None,
    };
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
