//! Who reaches whom, and with what: every party with every other, asked as [`super::ask`] asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use weft_common::{header::protocol, id::AppId};

use crate::model::traffic::Region;

use super::{
    ask::{Asker, Part, Spot, words},
    parties::Party,
};

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
    Passes::Some(some(&parts))
}

/// How much of a stretch passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    None,
    Some,
    All,
}

/// What of several answers passes, in words.
fn some(parts: &[Part]) -> Vec<String> {
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
    let protocols: BTreeSet<Option<u8>> = asked.iter().flat_map(BTreeMap::keys).copied().collect();
    let mut said = Vec::new();
    // What is not told apart comes last.
    for number in protocols.iter().copied().flatten().map(Some).chain(protocols.contains(&None).then_some(None)) {
        // Where a pair of addresses does not tell it apart, it is one of the others there.
        let pairs: Vec<&[&Part]> = asked.iter().filter_map(|pair| of(pair, number)).collect();
        let all = || pairs.iter().copied().flatten();
        let mut starts: BTreeSet<u32> = all().map(|part| u32::from(*part.ports.start())).collect();
        starts.extend(all().map(|part| u32::from(*part.ports.end()) + 1));
        let starts: Vec<u32> = starts.into_iter().collect();
        let share = |port: u32| {
            let covers = |part: &&&Part| part.ports.contains(&u16::try_from(port).unwrap_or(u16::MAX));
            let answers = || all().filter(covers).map(|part| part.decision.verdict.is_ok());
            match (answers().any(|passes| passes), answers().all(|passes| passes)) {
                (false, _) => Share::None,
                (true, false) => Share::Some,
                (true, true) => Share::All,
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
            let what = words(number, ports(from), ports(behind - 1));
            match share {
                Share::None => {}
                Share::Some => said.push(format!("{what} at some addresses")),
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
