//! Rules: who may, or may not, send what to whom.
//!
//! The text form is the one of the CLI and of files:
//! `[shadow] ACTION FROM -> TO [TRAFFIC] [on ingress|egress] [precedence N] [until TIME] [as NAME]`. Invariant: at least
//! one side is an identity. An address says nothing of who has it, so a rule with a prefix is kept by the identity on its
//! other side.

use std::{fmt, str::FromStr, sync::Arc};

use weft_common::policy::{Action, Direction, Rank};

use super::{
    invalid::{Invalid, Quoted},
    name::{PolicyName, RuleName},
    selector::Selector,
    time::Until,
    traffic::Traffic,
    words,
};

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Who sends.
    pub from: Selector,
    /// Who receives.
    pub to: Selector,
    /// What is sent.
    pub traffic: Traffic,
    /// Whose rule it is: the receiver's on what comes in, or the sender's on what goes out. None: both have to keep it.
    pub on: Option<Direction>,
    /// Which rule wins.
    pub precedence: Precedence,
    /// Whether it is only tried: what it would change is counted, and nothing is changed.
    pub shadow: bool,
    /// When it ends, if it does. Then it says nothing any more.
    pub until: Option<Until>,
    /// What it is called, if it was given a name.
    pub name: Option<RuleName>,
    /// The set of rules that it comes and goes with, if it is of one.
    pub policy: Option<PolicyName>,
    /// Where it was written, if in a file.
    pub source: Option<Source>,
}

/// The greater wins; at the same precedence reject beats deny beats allow beats pass. Below all are the defaults of apps.
///
/// From [`Self::UPPER`] on is the upper tier and below 0 the lower one, where `pass` has a meaning: it ends its tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Precedence(i32);

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u32,
}

const HELP: &str = "write [shadow] ACTION FROM -> TO [TRAFFIC] [on ingress|egress] [precedence N] [until TIME] \
                    [as NAME], as: allow shop/web -> blog/db tcp/5432";

impl Precedence {
    /// The lowest that a rule can have.
    pub const MIN: Self = Self(Rank::PRECEDENCE_MIN);
    /// The highest.
    pub const MAX: Self = Self(Rank::PRECEDENCE_MAX);
    /// Where the upper tier starts.
    pub const UPPER: Self = Self(Rank::UPPER);
    /// Of a rule that names none.
    pub const DEFAULT: Self = Self(1000);

    /// A precedence from [`Self::MIN`] to [`Self::MAX`].
    pub fn new(raw: i32) -> Option<Self> {
        Some(Self(raw)).filter(|precedence| (Self::MIN..=Self::MAX).contains(precedence))
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Whether it is neither of the upper tier nor of the lower one.
    pub fn is_usual(self) -> bool {
        self.0 >= 0 && self < Self::UPPER
    }
}

impl Rule {
    /// A rule without name and source. Refuses one between two prefixes, and one that speaks of ports by name where nobody
    /// can have any.
    pub fn new(action: Action, from: Selector, to: Selector, traffic: Traffic) -> Result<Self, Invalid> {
        let (on, precedence) = (None, Precedence::DEFAULT);
        let (until, name, policy, source) = (None, None, None, None);
        let rule = Self { action, from, to, traffic, on, precedence, shadow: false, until, name, policy, source };
        if matches!((&rule.from, &rule.to), (Selector::Net(_), Selector::Net(_))) {
            return Err(Invalid::new("rule", &rule.to_string(), "one side has to be an app, host, outside or any"));
        }
        if rule.traffic.names_ports() && rule.to.is_without_names() {
            let help = "only endpoints have names for ports, and a prefix, host or outside has none: write numbers";
            return Err(Invalid::new("rule", &rule.to_string(), help));
        }
        Ok(rule)
    }

    /// This rule on one direction only and with a precedence. Refuses what would have no effect.
    pub fn placed(self, on: Option<Direction>, precedence: Precedence) -> Result<Self, Invalid> {
        let rule = Self { on, precedence, ..self };
        let keeper = match on {
            Some(Direction::Ingress) => Some(&rule.to),
            Some(Direction::Egress) => Some(&rule.from),
            None => None,
        };
        if matches!(keeper, Some(Selector::Net(_))) {
            let help =
                "an address keeps no rules: the side whose direction it is has to be an app, host, outside or any";
            return Err(Invalid::new("rule", &rule.to_string(), help));
        }
        if rule.action == Action::Pass && precedence.is_usual() {
            let help = format!("pass needs a precedence of {} or more, or below 0", Precedence::UPPER.0);
            return Err(Invalid::new("rule", &rule.to_string(), help));
        }
        Ok(rule)
    }

    /// This rule with an end. Refuses one whose end would open what it closed.
    pub fn ending(self, until: Option<Until>) -> Result<Self, Invalid> {
        let rule = Self { until, ..self };
        if until.is_some() && rule.action != Action::Allow {
            let help = "only allow can end: of any other rule the end might let something pass";
            return Err(Invalid::new("rule", &rule.to_string(), help));
        }
        Ok(rule)
    }

    /// Its number in the order of ranks.
    pub fn rank(&self) -> Rank {
        Rank::new(self.precedence.0, self.action)
    }

    /// Whether both say the same, wherever they are written and whatever they are called.
    pub fn says_same(&self, other: &Self) -> bool {
        let said = |rule: &Self| (rule.action, rule.on, rule.precedence, rule.shadow, rule.until);
        said(self) == said(other) && (&self.from, &self.to, &self.traffic) == (&other.from, &other.to, &other.traffic)
    }

    /// What it says, without its name: two rules are the same if this is.
    pub fn statement(&self) -> Statement<'_> {
        Statement(self)
    }
}

impl FromStr for Rule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let spaced = words::join_lists(&text.replace("->", " -> "));
        let refuse = || Invalid::new("rule", text, HELP);
        let words = words::split(&spaced).ok_or_else(|| Invalid::new("rule", text, "close every bracket"))?;
        let (shadow, words) = match words.as_slice() {
            ["shadow", rest @ ..] => (true, rest),
            words => (false, words),
        };
        let [action, words @ ..] = words else { return Err(refuse()) };
        let action = action_of(action)?;
        let arrow = words.iter().position(|word| *word == "->").ok_or_else(refuse)?;
        let (from, words) = (words[..arrow].join(" "), &words[arrow + 1..]);
        let to_len = match words {
            [_, "except", _, ..] => 3,
            [_, ..] => 1,
            [] => return Err(refuse()),
        };
        let (to, mut options) = words.split_at(to_len);
        let traffic = match options {
            [] | ["on" | "precedence" | "until" | "as", ..] => Traffic::Any,
            [traffic, rest @ ..] => {
                options = rest;
                traffic.parse()?
            }
        };
        let rule = Self::new(action, from.parse()?, to.join(" ").parse()?, traffic)?;
        let (mut on, mut precedence, mut until, mut name) = (None, None, None, None);
        while let [option, rest @ ..] = options {
            let strange = || Invalid::new("rule", text, format!("{} is not understood; {HELP}", Quoted(option)));
            let [value, rest @ ..] = rest else { return Err(strange()) };
            let twice = match *option {
                "on" => on.replace(direction_of(value)?).is_some(),
                "precedence" => precedence.replace(value.parse()?).is_some(),
                "until" => until.replace(value.parse()?).is_some(),
                "as" => name.replace(value.parse()?).is_some(),
                _ => return Err(strange()),
            };
            if twice {
                return Err(Invalid::new("rule", text, format!("{option:?} is there twice")));
            }
            options = rest;
        }
        let rule = rule.placed(on, precedence.unwrap_or(Precedence::DEFAULT))?.ending(until)?;
        Ok(Self { shadow, name, ..rule })
    }
}

fn action_of(word: &str) -> Result<Action, Invalid> {
    let found = Action::ALL.into_iter().find(|action| action.name() == word);
    found.ok_or_else(|| Invalid::new("action", word, "a rule starts with allow, deny, reject or pass"))
}

fn direction_of(word: &str) -> Result<Direction, Invalid> {
    let found = [Direction::Ingress, Direction::Egress].into_iter().find(|direction| direction.name() == word);
    found.ok_or_else(|| Invalid::new("direction", word, "use ingress or egress"))
}

impl FromStr for Precedence {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = text.strip_prefix('-').unwrap_or(text);
        let digits = number.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !number.starts_with('0'));
        let raw = if digits { text.parse().ok() } else { None };
        let help = || Invalid::new("precedence", text, format!("use {} to {}", Self::MIN.0, Self::MAX.0));
        raw.and_then(Self::new).ok_or_else(help)
    }
}

/// A rule without its name: [`Rule::statement`].
pub struct Statement<'a>(&'a Rule);

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { action, from, to, traffic, on, precedence, shadow, until, name: _, policy: _, source: _ } = self.0;
        write!(f, "{}{} {from} -> {to} {traffic}", if *shadow { "shadow " } else { "" }, action.name())?;
        if let Some(direction) = on {
            write!(f, " on {}", direction.name())?;
        }
        if *precedence != Precedence::DEFAULT {
            write!(f, " precedence {}", precedence.0)?;
        }
        if let Some(until) = until {
            write!(f, " until {until}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.statement())?;
        if let Some(name) = &self.name {
            write!(f, " as {name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.escape_debug(), self.line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        prefix::Prefix,
        selector::Net,
        traffic::{Ports, Ranges, Types},
    };

    #[test]
    fn rules_are_read_and_printed() {
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Rule>().unwrap().to_string(), expect);
        for text in [
            "allow shop/web -> blog/db tcp/5432",
            "deny shop -> outside any",
            "reject shop/web -> 203.0.113.0/24 except 203.0.113.7/32 tcp/80,443,8000-8100 precedence 2000",
            "allow host -> any icmp/8 precedence 1 as ping",
            "allow 192.0.2.0/24 -> shop sctp",
        ] {
            check(text, text);
        }
        check("allow shop->blog", "allow shop -> blog any");
        check("  deny\tshop  ->  outside ", "deny shop -> outside any");
        check("allow a -> b as x precedence 7", "allow a -> b any precedence 7 as x");
        check("allow a -> b precedence 1000", "allow a -> b any");
        for text in [
            "allow any{env in (prod,test),!old} -> blog{tier=db} tcp/5432,http on ingress precedence 501",
            "deny [team=a]{tier=web} -> everyone any on egress precedence -7",
            "pass shop -> blog any precedence 16777216",
            "allow 10.0.0.0/8 -> shop any on ingress",
            "allow 10.0.0.0/8 -> shop tcp/pgsql",
            "deny outside -> everyone tcp/pgsql",
            "shadow deny shop -> blog tcp/22 as try",
            "allow shop -> blog tcp/22 on egress precedence 7 until 2026-11-21T22:00:00Z as glass",
        ] {
            check(text, text);
        }
        check("allow a{ b = c } -> d{e in (f , g)} on ingress", "allow a{b=c} -> d{e in (f,g)} any on ingress");
        check(
            "allow a -> 10.0.0.0/8 except 10.1.0.0/16 , 10.2.0.0/16 tcp/80, 81",
            "allow a -> 10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16 tcp/80-81",
        );
        // Positions, not words, tell what is what.
        check("allow precedence -> as tcp precedence 3", "allow precedence -> as tcp precedence 3");
        check("allow except -> except", "allow except -> except any");
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.bytes().all(|b| (b' '..=b'~').contains(&b)), "{error}");
        };
        check("", "\"\" is no rule: write [shadow] ACTION");
        check("permit a -> b", "\"permit\" is no action");
        check("allow a b", "write [shadow] ACTION");
        check("allow -> b", "is no selector");
        check("allow a ->", "write [shadow] ACTION");
        check("allow a -> b tcp/99999", "\"99999\" is no port");
        check("allow a -> b tcp udp", "\"udp\" is not understood");
        check("allow a -> b precedence", "\"precedence\" is not understood");
        check("allow a -> b precedence 268435456", "is no precedence: use -268435456 to 268435455");
        check("allow a -> b precedence 01", "is no precedence");
        check("allow a -> b precedence -0", "is no precedence");
        check("pass a -> b", "pass needs a precedence of 16777216 or more, or below 0");
        check("deny a -> b until 2026-11-21T22:00:00Z", "only allow can end");
        check("allow a -> b until 10m", "\"10m\" is no time");
        check("allow a -> b until", "\"until\" is not understood");
        check("allow a -> b on both", "\"both\" is no direction");
        check("allow a -> 10.0.0.0/8 on ingress", "an address keeps no rules");
        check("allow 10.0.0.0/8 -> a on egress", "an address keeps no rules");
        check("allow a{b -> c", "close every bracket");
        check("allow a -> b precedence 1 precedence 2", "is there twice");
        check("allow a -> b as X", "\"X\" is no rule name");
        check("allow a -> b -> c", "\"->\" is no protocol");
        check("allow 10.0.0.0/8 -> 11.0.0.0/8", "one side has to be an app");
        for to in ["10.2.0.0/16", "host", "outside"] {
            check(&format!("deny shop -> {to} tcp/80,pgsql"), "only endpoints have names for ports");
        }
        check("allow a -> b\u{1b}[31m", "\\u{1b}");
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let name = "[a-z]{1,3}([a-z0-9.-]{0,3}[a-z0-9])?";
        prop_oneof![
            name.prop_filter_map("taken", |app| Some(Selector::App(app.parse().ok()?))),
            (name, name)
                .prop_filter_map("taken", |(app, role)| Some(Selector::Role(app.parse().ok()?, role.parse().ok()?))),
            Just(Selector::Host),
            Just(Selector::Outside),
            Just(Selector::Any),
            Just(Selector::Everyone),
            (
                prop_oneof!["[a-z]{1,3}", "any", "\\[[a-z]{1,3}(=[A-Z]{0,2})?\\]"],
                "[a-z]{1,3}( (in|notin) \\([a-z]{0,2},[A-Z]\\))?"
            )
                .prop_filter_map("taken", |(apps, labels)| format!("{apps}{{{labels}}}").parse().ok()),
            nets(),
        ]
    }

    fn nets() -> impl Strategy<Value = Selector> {
        let v4 = (any::<u32>(), 0..=32_u8, prop::collection::vec((any::<u32>(), 1..=8_u8), 0..3));
        let v6 = (any::<u128>(), 0..=128_u8, prop::collection::vec((any::<u128>(), 1..=8_u8), 0..3));
        let net = |addr: std::net::IpAddr, len: u8| {
            let net = ipnet::IpNet::new(addr, len).unwrap().trunc();
            Prefix::new(net.addr(), len)
        };
        let v4 = v4.prop_filter_map("too long", move |(bits, len, holes)| {
            let mask = |len: u8| u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let hole = |(low, more): (u32, u8)| {
                (len + more <= 32)
                    .then(|| net(((bits & mask(len)) | (low & !mask(len))).to_be_bytes().into(), len + more).unwrap())
            };
            Net::new(net(bits.to_be_bytes().into(), len).unwrap(), holes.into_iter().filter_map(hole)).ok()
        });
        let v6 = v6.prop_filter_map("v4-mapped", move |(bits, len, holes)| {
            let mask = |len: u8| u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            let hole = |(low, more): (u128, u8)| {
                (u32::from(len) + u32::from(more) <= 128)
                    .then(|| net(((bits & mask(len)) | (low & !mask(len))).to_be_bytes().into(), len + more).unwrap())
            };
            Net::new(net(bits.to_be_bytes().into(), len).ok()?, holes.into_iter().filter_map(hole)).ok()
        });
        prop_oneof![v4, v6].prop_map(Selector::Net)
    }

    fn traffic() -> impl Strategy<Value = Traffic> {
        let range = (1..=u16::MAX, 0..200_u16).prop_map(|(from, more)| (from, from.saturating_add(more)));
        let names = prop::collection::btree_set("[a-z]{1,9}".prop_map(|name| name.parse().unwrap()), 0..3);
        let ranges = (prop::collection::vec(range, 1..5), names)
            .prop_map(|(ranges, names)| Ports::Only(Ranges::new(ranges).unwrap(), names));
        let ports = prop_oneof![Just(Ports::All), ranges];
        let types = prop_oneof![
            Just(Types::All),
            any::<u8>().prop_map(Types::Type),
            any::<(u8, u8)>().prop_map(|(kind, code)| Types::Code(kind, code)),
        ];
        prop_oneof![
            Just(Traffic::Any),
            ports.clone().prop_map(Traffic::Tcp),
            ports.clone().prop_map(Traffic::Udp),
            ports.prop_map(Traffic::Sctp),
            types.clone().prop_map(Traffic::Icmp),
            types.prop_map(Traffic::Icmpv6),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            action in prop::sample::select(Action::ALL.to_vec()),
            from in selector(),
            to in selector(),
            traffic in traffic(),
            shadow in any::<bool>(),
            on in prop::option::of(prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]),
            precedence in Rank::PRECEDENCE_MIN..=Rank::PRECEDENCE_MAX,
            until in prop::option::of(0..200_000_000_000_u64),
            name in prop::option::of("[a-z0-9]{1,8}"),
        ) {
            let precedence = Precedence::new(precedence).unwrap();
            let placed = Rule::new(action, from, to, traffic).and_then(|rule| rule.placed(on, precedence));
            let until = until.map(|at| Until::after(std::time::UNIX_EPOCH, std::time::Duration::from_secs(at)));
            let Ok(mut rule) = placed.and_then(|rule| rule.ending(until)) else { return Ok(()) };
            rule.shadow = shadow;
            rule.name = name.map(|name| name.parse().unwrap());
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }

        #[test]
        fn no_text_can_break_the_reader(text in "\\PC{0,60}") {
            if let Err(error) = text.parse::<Rule>() {
                prop_assert!(error.to_string().is_ascii());
            }
        }
    }
}
