//! What was seen, as ports between selectors.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{
    prefix::Prefix,
    selector::{Net, Selector},
    traffic::{Ports, Ranges, Traffic, Types},
};

use super::ends::Flow;

/// So many prefixes are named for what goes to or comes from outside with one port. More are `outside`.
const PREFIXES: usize = 8;
/// So many prefixes are named between one role and the outside in all.
const PREFIXES_IN_ALL: usize = 16;
/// So many ranges of ports are named in a rule. Of more, those from [`HIGH`] on are one range.
const RANGES: usize = 16;
/// From here on ports are mostly handed out and not agreed upon (RFC 6335).
const HIGH: u16 = 1024;

/// What a rule says of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A protocol that rules have no name for: only `any` allows it.
    Any,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

/// Who opens to whom.
pub(super) type Key = (Selector, Selector, Kind);

/// Ports, or types of ICMP, by who opens to whom. A row of [`Kind::Any`] has port 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(pub(super) BTreeMap<Key, BTreeSet<u16>>);

/// A row whose other side is an address outside: which side that is, and the key without it.
type Near = (bool, Selector, Kind);

impl Table {
    pub(super) fn add(&mut self, flow: &Flow) {
        let Flow { from, to, kind, port } = flow;
        self.0.entry((from.selector.clone(), to.selector.clone(), *kind)).or_default().insert(*port);
    }

    /// Says at less length what rules could say only at great length. What is wider than what was seen is noted.
    pub(super) fn gather(&mut self, notes: &mut Vec<String>) {
        for (from, to, _) in self.0.keys().filter(|(_, _, kind)| *kind == Kind::Any) {
            notes.push(format!("{from} -> {to} any: it used a protocol that rules have no name for"));
        }
        self.gather_addresses(notes);
        for ((from, to, kind), ports) in &mut self.0 {
            if let Some(what) = gather_ports(*kind, ports) {
                notes.push(format!("{from} -> {to} {}: {what}", kind.name()));
            }
        }
    }

    fn gather_addresses(&mut self, notes: &mut Vec<String>) {
        let mut near: BTreeMap<Near, BTreeMap<u16, BTreeSet<IpAddr>>> = BTreeMap::new();
        let mut rest = BTreeMap::new();
        for ((from, to, kind), ports) in std::mem::take(&mut self.0) {
            let (at, addr) = match (&from, &to) {
                (Selector::Net(net), _) => ((true, to.clone(), kind), net.prefix().first()),
                (_, Selector::Net(net)) => ((false, from.clone(), kind), net.prefix().first()),
                _ => {
                    rest.insert((from, to, kind), ports);
                    continue;
                }
            };
            for port in ports {
                near.entry(at.clone()).or_default().entry(port).or_default().insert(addr);
            }
        }
        self.0 = rest;
        for ((is_from, own, kind), ports) in near {
            let key = |far| if is_from { (far, own.clone(), kind) } else { (own.clone(), far, kind) };
            let everywhere = self.0.get(&key(Selector::Outside)).cloned().unwrap_or_default();
            let (mut wide, mut far) = (BTreeSet::new(), BTreeMap::<Prefix, BTreeSet<u16>>::new());
            let addresses: BTreeSet<IpAddr> = ports.values().flatten().copied().collect();
            for (port, addresses) in ports {
                let prefixes = Prefix::gathered(addresses);
                if everywhere.contains(&port) || prefixes.len() > PREFIXES {
                    wide.insert(port);
                } else {
                    for prefix in prefixes {
                        far.entry(prefix).or_default().insert(port);
                    }
                }
            }
            if far.len() > PREFIXES_IN_ALL {
                wide.extend(std::mem::take(&mut far).into_values().flatten());
            }
            for (prefix, ports) in far {
                // A prefix without exceptions is one.
                if let Ok(net) = Net::new(prefix, []) {
                    self.0.entry(key(Selector::Net(net))).or_default().extend(ports);
                }
            }
            if !wide.is_empty() {
                let (from, to, _) = key(Selector::Outside);
                notes.push(format!("{from} -> {to} {}: {} addresses were seen", kind.name(), addresses.len()));
                self.0.entry((from, to, kind)).or_default().extend(wide);
            }
        }
    }

    /// How many rules it takes.
    pub(super) fn rules_needed(&self) -> usize {
        self.0.iter().map(|((_, _, kind), ports)| if kind.has_types() { ports.len() } else { 1 }).sum()
    }

    /// What each rule says.
    pub(super) fn traffic(&self) -> impl Iterator<Item = (&Selector, &Selector, Traffic)> {
        self.0.iter().flat_map(|((from, to, kind), ports)| kind.traffic(ports).into_iter().map(move |t| (from, to, t)))
    }
}

/// One range for ports that lie apart. What it comes to, in words.
fn gather_ports(kind: Kind, ports: &mut BTreeSet<u16>) -> Option<String> {
    if kind.has_types() || ranges(ports).len() <= RANGES {
        return None;
    }
    let mut high = ports.split_off(&HIGH);
    let apart = if ranges(ports).len() > RANGES {
        high.append(ports);
        high
    } else {
        high
    };
    let (first, last) = (*apart.first()?, *apart.last()?);
    ports.extend(first..=last);
    Some(format!("{} ports were seen, apart from each other: {first}-{last} stands for them", apart.len()))
}

fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

impl Kind {
    /// As rules call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
        }
    }

    fn has_types(self) -> bool {
        matches!(self, Self::Icmp | Self::Icmpv6)
    }

    fn traffic(self, ports: &BTreeSet<u16>) -> Vec<Traffic> {
        let only = || Ports::Only(Ranges::new(ranges(ports)).unwrap_or_default(), BTreeSet::new());
        let types = || ports.iter().filter_map(|kind| u8::try_from(*kind).ok()).map(Types::Type);
        match self {
            Self::Any => vec![Traffic::Any],
            Self::Tcp => vec![Traffic::Tcp(only())],
            Self::Udp => vec![Traffic::Udp(only())],
            Self::Sctp => vec![Traffic::Sctp(only())],
            Self::Icmp => types().map(Traffic::Icmp).collect(),
            Self::Icmpv6 => types().map(Traffic::Icmpv6).collect(),
        }
    }
}
