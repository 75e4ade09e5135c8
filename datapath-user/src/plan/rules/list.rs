//! Lists: what the rules about one class of peers come to, for every protocol and port.
//!
//! A list is searched by longest prefix, so a narrower entry hides every wider one. Invariant: the entry that
//! is found for a protocol and port carries the rules that win among all candidates that cover it, and among those of
//! them that are below the upper tier.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_common::policy::{Rank, Rule, RuleKey, Winner};

use crate::{
    model::traffic::Region,
    shared::{Shared, Spread},
};

use super::{
    super::ids::{Content, hash_words},
    places::Part,
};

/// One content of a list, in order. Empty is a list that says nothing.
pub type List = Arc<[Line]>;

/// An entry, without the number of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// As [`RuleKey::protocol`].
    pub protocol: u8,
    /// As [`RuleKey::port`], in host order.
    pub port: u16,
    /// How many bits of protocol and port count: 0, 8, or 8 and some of the port.
    pub bits: u8,
    /// The winners.
    pub rule: Rule,
}

/// A rule as a list sees it.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) merit: Merit,
    pub(super) id: u32,
    /// `None` is everything.
    pub(super) regions: Option<&'a [Region]>,
}

/// What makes a rule win: the greatest of several does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Merit {
    pub(super) rank: Rank,
    /// Bits of the prefix it names the peer by.
    pub(super) peer_bits: u8,
    /// How closely it names the subject.
    pub(super) subject: u8,
    /// How many protocols and ports it speaks of: the fewer the better.
    pub(super) width: Reverse<u64>,
    /// Its position: the earlier the better.
    pub(super) at: Reverse<Part>,
}

impl Line {
    /// Bits of a key in front of those that [`Line::bits`] counts: the list's number.
    const IN_FRONT: u32 = 32;

    /// As the table of rules holds it, in list `list`.
    pub(super) fn entry(&self, list: u32) -> ((u32, RuleKey), Rule) {
        let Self { protocol, port, bits, rule } = *self;
        let key = RuleKey { list, protocol, port: port.to_be_bytes(), reserved: 0 };
        ((Self::IN_FRONT + u32::from(bits), key), rule)
    }
}

/// Every list that a table of rules holds, with its number.
pub(in super::super) fn read(rules: &Shared<(u32, RuleKey), Rule>) -> impl Iterator<Item = (List, u32)> + use<> {
    let mut lists: BTreeMap<u32, Vec<Line>> = BTreeMap::new();
    for ((len, key), rule) in rules {
        // A length that no list has is drift: capped, it equals no content that a plan makes.
        let bits = u8::try_from(len.saturating_sub(Line::IN_FRONT)).unwrap_or(u8::MAX);
        let port = u16::from_be_bytes(key.port);
        lists.entry(key.list).or_default().push(Line { protocol: key.protocol, port, bits, rule: *rule });
    }
    lists.into_iter().map(|(number, mut list)| {
        list.sort_unstable();
        (list.into(), number)
    })
}

/// What belongs to one list is together.
impl Spread for (u32, RuleKey) {
    fn hash(&self) -> u64 {
        self.1.list.into()
    }
}

impl Content for List {}

impl Spread for List {
    fn hash(&self) -> u64 {
        let words = |line: &Line| {
            let Line { protocol, port, bits, rule: Rule { top, under } } = *line;
            let [high, low] = port.to_be_bytes();
            [u32::from_be_bytes([protocol, high, low, bits]), top.rank.0, top.id, under.rank.0, under.id]
        };
        hash_words(self.iter().flat_map(words))
    }
}

/// The best of some candidates: of all, and of those below the upper tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Best {
    top: Option<(Merit, u32)>,
    under: Option<(Merit, u32)>,
}

impl Best {
    fn of<'a, 'b: 'a>(candidates: impl IntoIterator<Item = &'a Candidate<'b>>) -> Self {
        candidates.into_iter().fold(Self::default(), |best, candidate| best.or(Self::one(candidate)))
    }

    fn one(candidate: &Candidate<'_>) -> Self {
        let top = Some((candidate.merit, candidate.id));
        Self { top, under: top.filter(|(merit, _)| !merit.rank.is_upper()) }
    }

    /// The better of both in each tier. Nobody is better than somebody.
    fn or(self, other: Self) -> Self {
        Self { top: self.top.max(other.top), under: self.under.max(other.under) }
    }

    fn line(self, protocol: u8, port: u16, bits: u8) -> Line {
        let winner = |best: Option<(Merit, u32)>| {
            best.map_or_else(Winner::default, |(Merit { rank, .. }, id)| Winner { rank, id })
        };
        Line { protocol, port, bits, rule: Rule { top: winner(self.top), under: winner(self.under) } }
    }
}

/// The list that candidates come to.
pub(super) fn flatten(candidates: &[Candidate<'_>]) -> Vec<Line> {
    let mut lines = Vec::new();
    let any = Best::of(candidates.iter().filter(|candidate| candidate.regions.is_none()));
    if any != Best::default() {
        lines.push(any.line(0, 0, 0));
    }
    let regions = || candidates.iter().filter_map(|candidate| Some((candidate, candidate.regions?)));
    let protocols: BTreeSet<u8> = regions().flat_map(|(_, regions)| regions).map(|region| region.protocol).collect();
    for protocol in protocols {
        let ports = |part: &Region| (part.protocol == protocol).then(|| part.ports.clone());
        let parts: Vec<_> = regions()
            .flat_map(|(candidate, regions)| regions.iter().filter_map(ports).map(move |ports| (ports, candidate)))
            .collect();
        let whole = parts.iter().filter(|(ports, _)| *ports == (0..=u16::MAX)).map(|(_, candidate)| *candidate);
        let base = Best::of(whole).or(any);
        if base != any {
            lines.push(base.line(protocol, 0, 8));
        }
        let adds = |candidate: &Candidate<'_>| base.or(Best::one(candidate)) != base;
        let mut edges: BTreeMap<u32, Vec<&Candidate<'_>>> = BTreeMap::new();
        for (ports, candidate) in parts.iter().filter(|(_, candidate)| adds(candidate)) {
            for edge in [u32::from(*ports.start()), u32::from(*ports.end()) + 1] {
                edges.entry(edge).or_default().push(candidate);
            }
        }
        segments(edges, base, |from, to, best| {
            lines.extend(blocks(from, to).map(|(port, bits)| best.line(protocol, port, 8 + bits)));
        });
    }
    lines.sort_unstable();
    lines
}

/// Calls `found` with each longest stretch of ports that is not decided by `base` alone: from, the port after its last,
/// and by whom. A candidate is at the edges where it starts and ends to cover.
fn segments(edges: BTreeMap<u32, Vec<&Candidate<'_>>>, base: Best, mut found: impl FnMut(u32, u32, Best)) {
    // Who covers, by merit: of all, and of those below the upper tier.
    let mut active: [BTreeMap<Merit, u32>; 2] = Default::default();
    let (mut start, mut best) = (0, base);
    for (edge, candidates) in edges {
        for candidate in candidates {
            let tiers = if candidate.merit.rank.is_upper() { 1 } else { 2 };
            for active in &mut active[..tiers] {
                if active.remove(&candidate.merit).is_none() {
                    active.insert(candidate.merit, candidate.id);
                }
            }
        }
        let [top, under] = &active;
        let last = |active: &BTreeMap<Merit, u32>| active.last_key_value().map(|(merit, id)| (*merit, *id));
        let now = base.or(Best { top: last(top), under: last(under) });
        if now != best {
            if best != base {
                found(start, edge, best);
            }
            (start, best) = (edge, now);
        }
    }
}

/// The fewest prefixes that are exactly the ports from `from` to before `to`, with their lengths.
fn blocks(from: u32, to: u32) -> impl Iterator<Item = (u16, u8)> {
    let mut next = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(next).filter(|left| *left > 0)?;
        // A block starts at a multiple of its size and is not larger than what is left.
        let exponent = next.trailing_zeros().min(left.ilog2()).min(u16::BITS);
        let port = u16::try_from(next).ok()?;
        next += 1 << exponent;
        Some((port, u8::try_from(u16::BITS - exponent).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use weft_common::policy::Action;

    use super::*;
    use crate::model::{rule::Rule as Written, traffic::NamedPorts};

    /// `expect` has a line for each entry: protocol, port/bits and the rule's position, from 1.
    fn check(rules: &[&str], expect: &[&str]) {
        let rules: Vec<Written> = rules
            .iter()
            .map(|text| {
                let text =
                    if text.contains("precedence") { (*text).to_owned() } else { format!("{text} precedence 5") };
                text.parse().unwrap()
            })
            .collect();
        let regions: Vec<_> = rules.iter().map(|rule| rule.traffic.regions(&NamedPorts::default())).collect();
        let candidates: Vec<_> = rules
            .iter()
            .zip(&regions)
            .enumerate()
            .map(|(at, (rule, regions))| {
                let regions = regions.as_deref();
                let merit = Merit {
                    rank: rule.rank(),
                    peer_bits: 0,
                    subject: 0,
                    width: Reverse(super::super::width(regions)),
                    at: Reverse(Part { place: at as u64, part: 0 }),
                };
                Candidate { merit, id: u32::try_from(at + 1).unwrap(), regions }
            })
            .collect();
        let found: Vec<_> = flatten(&candidates)
            .iter()
            .map(|line| {
                let place = match line.bits {
                    0 => String::from("any"),
                    8 => line.protocol.to_string(),
                    bits => format!("{}:{}/{}", line.protocol, line.port, bits - 8),
                };
                let Rule { top, under } = line.rule;
                if top == under {
                    format!("{place} {}", top.id)
                } else {
                    format!("{place} {} over {}", top.id, under.id)
                }
            })
            .collect();
        assert_eq!(found, expect, "{rules:?}");
    }

    #[test]
    fn the_narrower_entry_hides_the_wider() {
        check(&["allow a -> b tcp/5432"], &["6:5432/16 1"]);
        check(&["allow a -> b", "deny a -> b tcp/22"], &["any 1", "6:22/16 2"]);
        // Deny beats allow at the same precedence: the narrower allow says nothing.
        check(&["deny a -> b", "allow a -> b tcp/22"], &["any 1"]);
        check(&["deny a -> b", "allow a -> b tcp/22 precedence 9"], &["any 1", "6:22/16 2"]);
        check(&["deny a -> b tcp", "allow a -> b tcp/22", "allow a -> b udp"], &["6 1", "17 3"]);
    }

    #[test]
    fn a_wide_winner_is_pushed_below_a_narrow_loser() {
        check(&["allow a -> b tcp", "deny a -> b precedence 9"], &["any 2"]);
        check(
            &["allow a -> b tcp/80", "deny a -> b tcp/64-127", "reject a -> b tcp/80 precedence 9"],
            &["6:64/12 2", "6:80/16 3", "6:81/16 2", "6:82/15 2", "6:84/14 2", "6:88/13 2", "6:96/11 2"],
        );
    }

    #[test]
    fn the_narrower_of_two_equal_rules_is_the_one_reported_and_then_the_earlier() {
        check(&["allow a -> b", "allow a -> b tcp/80"], &["any 1", "6:80/16 2"]);
        check(&["allow a -> b tcp/80", "allow a -> b tcp/80-81"], &["6:80/16 1", "6:81/16 2"]);
        check(&["allow a -> b tcp/80", "allow c -> b tcp/80"], &["6:80/16 1"]);
    }

    #[test]
    fn icmp_types_are_ports_with_their_codes() {
        check(&["allow a -> b icmp/8", "deny a -> b icmpv6/135/0"], &["1:2048/8 1", "58:32768/8 1", "58:34560/16 2"]);
        check(&["allow a -> b icmp"], &["1 1", "58 1"]);
    }

    #[test]
    fn ranges_are_cut_into_the_fewest_blocks() {
        let check =
            |from: u32, to: u32, expect: &[(u16, u8)]| assert_eq!(blocks(from, to + 1).collect::<Vec<_>>(), expect);
        check(80, 80, &[(80, 16)]);
        check(0, 65535, &[(0, 0)]);
        check(1, 3, &[(1, 16), (2, 15)]);
        check(65534, 65535, &[(65534, 15)]);
        check(8000, 8100, &[(8000, 10), (8064, 11), (8096, 14), (8100, 16)]);
        assert_eq!(blocks(1, 65536).count(), 16);
        assert_eq!(blocks(5, 5).count(), 0);
    }

    #[test]
    fn what_is_below_the_upper_tier_is_known_beside_what_wins() {
        let upper = "precedence 16777216";
        let of = |rules: &[&str], expect: &[&str]| {
            let rules: Vec<_> = rules.iter().map(|rule| rule.replace("upper", upper)).collect();
            check(&rules.iter().map(String::as_str).collect::<Vec<_>>(), expect);
        };
        of(&["pass a -> b upper", "deny a -> b tcp"], &["any 1 over 0", "6 1 over 2"]);
        of(&["allow a -> b", "pass a -> b tcp/80 upper"], &["any 1", "6:80/16 2 over 1"]);
        of(&["allow a -> b tcp/80", "deny a -> b tcp/80-81 upper"], &["6:80/16 2 over 1", "6:81/16 2 over 0"]);
        // A winner above and another below cover different ports.
        of(
            &["pass a -> b tcp/80 upper", "deny a -> b tcp/80-81", "allow a -> b"],
            &["any 3", "6:80/16 1 over 2", "6:81/16 2"],
        );
    }

    fn rule(action: Action, id: u32) -> Rule {
        let winner = Winner { rank: Rank::new(5, action), id };
        Rule { top: winner, under: winner }
    }

    #[test]
    fn a_list_is_read_back_from_its_table() {
        let list = vec![
            Line { protocol: 0, port: 0, bits: 0, rule: rule(Action::Allow, 1) },
            Line { protocol: 6, port: 80, bits: 24, rule: rule(Action::Deny, 2) },
        ];
        let table = list.iter().map(|line| line.entry(77)).collect();
        assert_eq!(read(&table).collect::<Vec<_>>(), [(list.into(), 77)]);
    }
}
