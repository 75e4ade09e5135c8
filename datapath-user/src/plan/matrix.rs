//! Who reaches whom, and with what: every party with every other, asked as [`super::ask`] asks.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use weft_common::{addr::Ip, header::protocol, id::AppId, policy::Direction};

use crate::model::{prefix::Prefix, traffic::Region};

use super::{
    ask::{Asker, Part, Spot, rest, words},
    parties::Party,
};

/// How many prefixes are named one by one.
const NAMED: usize = 4;

/// By which prefix of the other side's rules an address is told apart; none: no rule has one that holds it.
type Place = Option<Prefix>;

/// What passes from one to another, of what was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passes {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// Some of it, in words.
    Some(Vec<String>),
    /// Nobody asks: hosts among themselves, and the outside.
    Itself,
}

/// What passes from one to another of `regions`, or of everything.
pub fn between(asker: &Asker<'_>, from: &Party<'_>, to: &Party<'_>, regions: Option<&[Region]>) -> Passes {
    let is_nobody = |party: &Party<'_>| matches!(party.identity.app, AppId::HOST | AppId::OUTSIDE);
    if from.identity == to.identity && is_nobody(from) {
        return Passes::Itself;
    }
    let mut parts = Vec::new();
    let spots = (Spot { party: from, at: &from.at }, Spot { party: to, at: &to.at });
    let heard: ControlFlow<()> = asker.ask(spots, regions, |part| {
        parts.push(part);
        ControlFlow::Continue(())
    });
    debug_assert_eq!(heard, ControlFlow::Continue(()));
    let passes = |part: &Part| part.decision.verdict.is_ok();
    if parts.iter().all(passes) {
        // Nothing to ask about is nothing that passes.
        return if parts.is_empty() { Passes::Nothing } else { Passes::All };
    }
    if !parts.iter().any(passes) {
        return Passes::Nothing;
    }
    let places = |(src, dst): (Ip, Ip)| {
        let source = asker.prefix(to.identity, Direction::Ingress, src);
        (source, asker.prefix(from.identity, Direction::Egress, dst))
    };
    Passes::Some(some(&parts, places))
}

/// How much of a stretch passes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Share {
    None,
    /// At these pairs of addresses.
    Some(BTreeSet<usize>),
    All,
}

/// What of several answers passes, in words. Of two addresses `places` tells what rules tell them apart by.
fn some(parts: &[Part], places: impl Fn((Ip, Ip)) -> (Place, Place)) -> Vec<String> {
    let by_address = parts.chunk_by(|a, b| a.addrs == b.addrs);
    // For each pair of addresses its own parts, by protocol.
    let asked: Vec<BTreeMap<Option<u8>, Vec<&Part>>> = by_address
        .map(|parts| {
            let mut of: BTreeMap<Option<u8>, Vec<&Part>> = BTreeMap::new();
            for part in parts {
                of.entry(part.protocol).or_default().push(part);
            }
            of
        })
        .collect();
    let addresses = parts.chunk_by(|a, b| a.addrs == b.addrs).filter_map(|parts| parts.first());
    let places = LazyCell::new(|| addresses.map(|part| places(part.addrs)).collect::<Vec<_>>());
    let protocols: BTreeSet<Option<u8>> = asked.iter().flat_map(BTreeMap::keys).copied().collect();
    let mut said = Vec::new();
    // What is not told apart comes last.
    for number in protocols.iter().copied().flatten().map(Some).chain(protocols.contains(&None).then_some(None)) {
        // Where a pair of addresses does not tell it apart, it is one of the others there.
        let pairs: Vec<(usize, &[&Part])> =
            asked.iter().enumerate().filter_map(|(at, pair)| Some((at, of(pair, number)?))).collect();
        let all = || pairs.iter().flat_map(|(_, parts)| *parts);
        let mut starts: BTreeSet<u32> = all().map(|part| u32::from(*part.ports.start())).collect();
        starts.extend(all().map(|part| u32::from(*part.ports.end()) + 1));
        let starts: Vec<u32> = starts.into_iter().collect();
        let share = |port: u32| {
            let covers = |part: &&&Part| part.ports.contains(&u16::try_from(port).unwrap_or(u16::MAX));
            let answer = |parts: &[&Part]| parts.iter().find(covers).map(|part| part.decision.verdict.is_ok());
            let answers = pairs.iter().filter_map(|(at, parts)| Some((*at, answer(parts)?)));
            let (passing, stopped): (Vec<_>, Vec<_>) = answers.partition(|(_, passes)| *passes);
            match (passing.as_slice(), stopped.as_slice()) {
                ([], _) => Share::None,
                (_, []) => Share::All,
                (passing, _) => Share::Some(passing.iter().map(|(at, _)| *at).collect()),
            }
        };
        let mut stretches: Vec<(u32, u32, Share)> = Vec::new();
        for (from, behind) in starts.iter().zip(starts.iter().skip(1)) {
            match (stretches.last_mut(), share(*from)) {
                (Some((_, end, last)), now) if *last == now && end == from => *end = *behind,
                (_, now) => stretches.push((*from, *behind, now)),
            }
        }
        for (from, behind, share) in stretches {
            let ports = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
            let what = match number {
                Some(number) => words(number, ports(from), ports(behind - 1)),
                None => rest(protocols.iter().copied().flatten()),
            };
            match share {
                Share::None => {}
                Share::Some(passing) => {
                    let asked = pairs.iter().map(|(at, _)| (passing.contains(at), places[*at]));
                    said.push(format!("{what} {}", place(asked)));
                }
                Share::All => said.push(what),
            }
        }
    }
    said
}

/// What one pair of addresses has about a protocol. Where it is not told apart it is one of the others.
fn of<'a>(pair: &'a BTreeMap<Option<u8>, Vec<&'a Part>>, number: Option<u8>) -> Option<&'a [&'a Part]> {
    let is_v4 = pair.values().flatten().next().is_some_and(|part| part.addrs.0.is_v4());
    let foreign = number == Some(if is_v4 { protocol::ICMPV6 } else { protocol::ICMP });
    pair.get(&number).or_else(|| pair.get(&None).filter(|_| !foreign)).map(Vec::as_slice)
}

/// Where something passes that does not pass everywhere: of the sides the one that tells it.
fn place(asked: impl Iterator<Item = (bool, (Place, Place))>) -> String {
    let (passing, stopped): (BTreeSet<_>, BTreeSet<_>) = asked.partition(|(passes, _)| *passes);
    let side = |of: fn(&(bool, (Place, Place))) -> Place| {
        let [passing, stopped]: [BTreeSet<Place>; 2] = [&passing, &stopped].map(|side| side.iter().map(of).collect());
        passing.is_disjoint(&stopped).then(|| among(&passing, &stopped))
    };
    let (from, to) = (side(|(_, (from, _))| *from), side(|(_, (_, to))| *to));
    if let Some(to) = to {
        return format!("to {to}");
    }
    if let Some(from) = from {
        return format!("from {from}");
    }
    let name = |place: &Place| place.map_or_else(|| "other addresses".to_owned(), |prefix| prefix.to_string());
    let pairs = passing.iter().map(|(_, (from, to))| format!("from {} to {}", name(from), name(to)));
    list(pairs)
}

/// Prefixes in words: those that pass, and what is left out of them.
fn among(passing: &BTreeSet<Place>, stopped: &BTreeSet<Place>) -> String {
    let [pass, stop] = [passing, stopped].map(|places| places.iter().flatten().collect::<Vec<_>>());
    let with_holes = |some: &[&Prefix], others: &[&Prefix]| {
        let holes = others.iter().filter(|other| some.iter().any(|one| one.covers(other)));
        let holes = holes.map(ToString::to_string).collect::<Vec<_>>();
        let except = if holes.is_empty() { String::new() } else { format!(" except {}", list(holes.into_iter())) };
        format!("{}{except}", list(some.iter().map(ToString::to_string)))
    };
    if passing.contains(&None) { format!("all but {}", with_holes(&stop, &pass)) } else { with_holes(&pass, &stop) }
}

/// The first of several, and how many more there are.
fn list(texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(NAMED);
    let named = texts.take(NAMED).collect::<Vec<_>>().join(" and ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}
