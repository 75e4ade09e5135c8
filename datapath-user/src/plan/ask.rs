//! Asks [`decide`] about everything that two parties could exchange, exactly: once for each part of addresses and ports
//! that the compiled tables tell apart.
//!
//! Invariant: what is asked in one part is answered for all of it. Lists and prefixes change their answer only at the
//! edges of their entries, and every edge that is in the question is asked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{ControlFlow, RangeInclusive},
    sync::Arc,
};

use weft_common::{
    addr::Ip,
    header::protocol,
    id::{AppId, Epoch, Identity, RoleId},
    policy::{Decision, Direction, PeerKey, PrefixKey, Query, RuleSet, Rules as _, SetKey, decide},
};

use crate::model::{
    app::{App, Defaults, Gate},
    cluster::Cluster,
    prefix::Prefix,
    rule,
    traffic::{Region, protocol_name},
};

use super::{
    NodePlan,
    parties::{self, Addresses, Party, key_range},
    rules::{self, Policy},
};

/// What can be asked about one cluster.
pub struct Asker<'a> {
    cluster: &'a Cluster,
    policy: Arc<Policy>,
    parties: Vec<Party<'a>>,
    /// Where the lists change, by number and protocol. Under `None` nothing: the list speaks of all protocols.
    lists: HashMap<u32, BTreeMap<u8, Vec<u16>>>,
    /// Where the sets' prefixes start and end, by number.
    prefixes: HashMap<u32, Vec<u128>>,
}

/// One end of a question.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// Who.
    pub party: &'a Party<'a>,
    /// Where.
    pub at: &'a Addresses,
}

/// One part of an answer.
#[derive(Clone, Debug)]
pub struct Part {
    /// The addresses, which stand for all of the part.
    pub addrs: (Ip, Ip),
    /// Whether others of the same ends may meet something else.
    pub parted: (bool, bool),
    /// The protocol; none stands for all that no rule tells apart.
    pub protocol: Option<u8>,
    /// The protocols that rules tell apart, where it stands for the rest.
    pub beside: BTreeSet<u8>,
    /// The ports, or ICMP types and codes.
    pub ports: RangeInclusive<u16>,
    /// What it meets.
    pub decision: Decision,
}

/// A protocol that no rule names: IANA keeps it for experiments (RFC 3692).
const OTHER: u8 = 253;
/// How many bits are in front of an IPv4 address where tables hold it.
const V4_AT: u32 = 96;

impl<'a> Asker<'a> {
    /// Of a cluster, by the tables that it comes to. Rules that end are left out: what is asked has to hold without them.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self::after(cluster, &NodePlan::default())
    }

    /// As [`Self::new`], with tables that are made of what is other than in those of a plan.
    pub fn after(cluster: &'a Cluster, running: &NodePlan) -> Self {
        let (policy, _) = rules::compile(cluster, None, (&running.policy, &running.ids.policy));
        Self::over(cluster, Arc::new(policy))
    }

    /// Of a cluster whose tables are known.
    pub fn over(cluster: &'a Cluster, policy: Arc<Policy>) -> Self {
        let mut edges: HashMap<u32, BTreeMap<u8, BTreeSet<u16>>> = HashMap::new();
        for (len, key) in policy.rules.keys() {
            // The list's 32 bits, 8 of the protocol, then those of the port.
            let Some(bits) = len.checked_sub(40) else { continue };
            let ports = edges.entry(key.list).or_default().entry(key.protocol).or_default();
            let from = u16::from_be_bytes(key.port);
            let last = from | u16::MAX.checked_shr(bits).unwrap_or(0);
            ports.extend([Some(from), last.checked_add(1)].into_iter().flatten());
        }
        let sorted = |ports: BTreeMap<u8, BTreeSet<u16>>| {
            ports.into_iter().map(|(protocol, ports)| (protocol, ports.into_iter().collect())).collect()
        };
        let lists = edges.into_iter().map(|(list, ports)| (list, sorted(ports))).collect();
        let mut prefixes: HashMap<u32, Vec<u128>> = HashMap::new();
        for (len, key) in policy.prefix_lists.keys() {
            let (first, last) = key_range(len.saturating_sub(32), key.addr);
            let edges = prefixes.entry(key.set).or_default();
            edges.extend([Some(first), last.checked_add(1)].into_iter().flatten());
        }
        for edges in prefixes.values_mut() {
            edges.sort_unstable();
            edges.dedup();
        }
        Self { cluster, policy, parties: parties::all(cluster), lists, prefixes }
    }

    /// Everybody.
    pub fn parties(&self) -> &[Party<'a>] {
        &self.parties
    }

    /// Asks about everything in `regions`, or about everything there is, until `found` has heard enough.
    pub fn ask<B>(
        &self,
        (from, to): (Spot<'_>, Spot<'_>),
        regions: Option<&[Region]>,
        mut found: impl FnMut(Part) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (src, dst) = (from.party.identity, to.party.identity);
        let (out, into) = (self.set(src, Direction::Egress), self.set(dst, Direction::Ingress));
        let src_addrs = from.at.samples(self.edges(into));
        let dst_addrs = to.at.samples(self.edges(out));
        let parted = |addrs: &[Ip], addr: Ip| addrs.iter().filter(|other| other.is_v4() == addr.is_v4()).count() > 1;
        for &src_addr in &src_addrs {
            for &dst_addr in dst_addrs.iter().filter(|addr| addr.is_v4() == src_addr.is_v4()) {
                let lists: Vec<u32> = self.about(out, dst, dst_addr).chain(self.about(into, src, src_addr)).collect();
                let stretches = self.stretches(&lists, regions, src_addr.is_v4());
                let told = || stretches.iter().filter_map(|(protocol, ..)| *protocol).collect::<BTreeSet<u8>>();
                for &(protocol, from, to) in &stretches {
                    let beside = if protocol.is_none() { told() } else { BTreeSet::new() };
                    let query = Query { src, dst, src_addr, dst_addr, protocol: protocol.unwrap_or(OTHER), port: from };
                    let decision = self.decide(&query);
                    let parted = (parted(&src_addrs, src_addr), parted(&dst_addrs, dst_addr));
                    found(Part { addrs: (src_addr, dst_addr), parted, protocol, beside, ports: from..=to, decision })?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Asks one question.
    pub fn decide(&self, query: &Query) -> Decision {
        decide(&self.policy.at(0), Epoch(0), query)
    }

    /// What decided, in words, and the rule if it was one.
    pub fn decider(&self, decision: &Decision, src: Identity, dst: Identity) -> Result<&rule::Rule, String> {
        let whose = if decision.verdict.is_ok() { closable(dst) } else { decision.direction };
        let by_default = || default_of(self.cluster, whose, src, dst);
        self.policy.names.get(&decision.rule).map(AsRef::as_ref).ok_or_else(by_default)
    }

    /// The longest prefix that holds an address, of those by which the rules of `subject` tell its peers apart.
    pub fn prefix(&self, subject: Identity, direction: Direction, addr: Ip) -> Option<Prefix> {
        let set = self.set(subject, direction)?.id;
        let (len, first) = self.policy.at(0).prefix(&PrefixKey { set, addr })?;
        let len = if first.is_v4() { len.checked_sub(V4_AT)? } else { len };
        Prefix::new(first.to_std(), u8::try_from(len).ok()?).ok()
    }

    fn set(&self, subject: Identity, direction: Direction) -> Option<RuleSet> {
        self.policy.at(0).set(&SetKey::new(subject, direction, 0))
    }

    /// Where a set's prefixes part the addresses.
    fn edges(&self, set: Option<RuleSet>) -> &[u128] {
        set.and_then(|set| self.prefixes.get(&set.id)).map_or(&[], Vec::as_slice)
    }

    /// The lists of a set that speak of a peer at an address.
    fn about(&self, set: Option<RuleSet>, peer: Identity, addr: Ip) -> impl Iterator<Item = u32> {
        let of = |set: RuleSet| {
            let key = |app, role| PeerKey { set: set.id, app, role, reserved: 0 };
            let keys = [key(peer.app, peer.role), key(peer.app, RoleId::ANY), key(AppId::ANY, RoleId::ANY)];
            let prefix = self.policy.at(0).prefix_list(&PrefixKey { set: set.id, addr });
            keys.into_iter().filter_map(|key| self.policy.at(0).peer_list(&key)).chain(prefix).collect::<Vec<_>>()
        };
        set.map(of).unwrap_or_default().into_iter()
    }

    /// What some lists tell apart of `regions`: protocol, first and last port.
    fn stretches(&self, lists: &[u32], regions: Option<&[Region]>, is_v4: bool) -> Vec<(Option<u8>, u16, u16)> {
        let known = || lists.iter().filter_map(|list| self.lists.get(list));
        // Each family has its own ICMP.
        let foreign = if is_v4 { protocol::ICMPV6 } else { protocol::ICMP };
        let mut found = Vec::new();
        let mut cut = |number: u8, from: u16, to: u16| {
            let inner = known().filter_map(|list| list.get(&number)).flatten();
            let mut starts: BTreeSet<u16> = inner.copied().filter(|port| (from..=to).contains(port)).collect();
            starts.insert(from);
            let ends = starts.iter().skip(1).map(|next| next - 1).chain([to]);
            found.extend(starts.iter().zip(ends).map(|(from, to)| (Some(number), *from, to)));
        };
        if let Some(regions) = regions {
            for Region { protocol, ports } in regions.iter().filter(|region| region.protocol != foreign) {
                cut(*protocol, *ports.start(), *ports.end());
            }
            return found;
        }
        // A list that tells a protocol apart without ports has no edge of a port, but the protocol.
        let protocols: BTreeSet<u8> = known().flat_map(BTreeMap::keys).copied().collect();
        for number in protocols.into_iter().filter(|number| *number != foreign) {
            cut(number, 0, u16::MAX);
        }
        found.push((None, 0, u16::MAX));
        found
    }
}

impl Part {
    /// What it is about, in words.
    pub fn what(&self) -> String {
        match self.protocol {
            Some(number) => words(number, *self.ports.start(), *self.ports.end()),
            None => rest(self.beside.iter().copied()),
        }
    }
}

/// All but the protocols that rules tell apart: `any`, `any protocol but tcp and udp`.
pub fn rest(told: impl Iterator<Item = u8>) -> String {
    let told: Vec<_> = told.map(protocol_name).collect();
    if told.is_empty() { "any".to_owned() } else { format!("any protocol but {}", told.join(" and ")) }
}

/// `tcp/80-81`, `icmp/8`.
pub fn words(number: u8, from: u16, to: u16) -> String {
    let name = protocol_name(number);
    match number {
        _ if (from, to) == (0, u16::MAX) => name,
        protocol::ICMP | protocol::ICMPV6 => {
            let ([kind, code], [last, end]) = (from.to_be_bytes(), to.to_be_bytes());
            match (kind == last, code, end) {
                (true, 0, u8::MAX) => format!("{name}/{kind}"),
                (true, _, _) if code == end => format!("{name}/{kind}/{code}"),
                (true, _, _) => format!("{name}/{kind}/{code}-{end}"),
                (false, 0, u8::MAX) => format!("{name}/{kind}-{last}"),
                (false, _, _) => format!("{name}/{kind}/{code}-{last}/{end}"),
            }
        }
        _ if from == to => format!("{name}/{from}"),
        _ => format!("{name}/{from}-{to}"),
    }
}

/// Whose default lets something pass to `dst` that both sides' do: that of the side which could be closed to it, for
/// neither hosts nor the outside can be.
pub fn closable(dst: Identity) -> Direction {
    if dst.app.is_application() { Direction::Ingress } else { Direction::Egress }
}

/// The default that holds from `src` to `dst` where no rule speaks, of the side whose set `direction` is, in words.
pub fn default_of(cluster: &Cluster, direction: Direction, src: Identity, dst: Identity) -> String {
    let subject = if direction == Direction::Egress { src } else { dst };
    match cluster.apps.values().find(|app| app.number == subject.app) {
        Some(App { name, shadow: true, .. }) => format!("default of {name}: open while it is in shadow"),
        Some(_) | None => tried_default_of(cluster, direction, src, dst),
    }
}

/// As [`default_of`], but of an app in shadow what would hold if it was not.
pub fn tried_default_of(cluster: &Cluster, direction: Direction, src: Identity, dst: Identity) -> String {
    let (subject, peer) = match direction {
        Direction::Egress => (src, dst),
        Direction::Ingress => (dst, src),
    };
    let Some(app) = cluster.apps.values().find(|app| app.number == subject.app) else {
        let whose = match subject.app {
            AppId::HOST => "host".to_owned(),
            AppId::OUTSIDE => "outside".to_owned(),
            AppId::ANY => "any".to_owned(),
            other => format!("#{}", other.0),
        };
        return format!("default of {whose}: open");
    };
    let App { name, defaults: Defaults { inside, from_apps, from_host, to_outside }, .. } = app;
    let (gate, whom) = match (direction, peer.app) {
        (Direction::Egress, AppId::HOST | AppId::OUTSIDE) => (*to_outside, "the outside and to hosts"),
        (Direction::Egress, _) => (Gate::Open, "endpoints"),
        (Direction::Ingress, AppId::OUTSIDE) => (Gate::Closed, "the outside"),
        (Direction::Ingress, AppId::HOST) => (*from_host, "hosts"),
        (Direction::Ingress, other) if other == app.number => (*inside, "its own endpoints"),
        (Direction::Ingress, _) => (*from_apps, "other apps"),
    };
    format!("default of {name}: {gate} to {whom}")
}
