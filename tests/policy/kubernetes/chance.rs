//! Random namespaces, pods, policies and flows: few words of each kind, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_tests::dice::Dice;

use super::{
    model::{Flow, Party},
    objects::{
        AdminPeer, AdminPolicy, AdminPort, AdminRule, Cidr, Cluster, Expression, Kind, Labels, Namespace,
        NetworkPolicy, Peer, Pod, Pods, Port, PortRef, Rule, Selector,
    },
};

const NAMESPACES: [&str; 3] = ["shop", "blog", "ops"];
const NAME_OF_NAMESPACE: &str = "kubernetes.io/metadata.name";
const KEYS: [&str; 3] = ["tier", "env", "example.org/team"];
const VALUES: [&str; 3] = ["a", "b", ""];
const PORT_NAMES: [&str; 3] = ["web", "dns", "admin"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// What ports are named by and sent to.
pub(crate) const NUMBERS: [u16; 9] = [1, 53, 79, 80, 81, 443, 8000, 8080, 65535];

/// As [`Dice::pick`] of a hundred, none or what `of` gives.
fn maybe<T>(dice: &mut Dice, percent: u64, of: impl FnOnce(&mut Dice) -> T) -> Option<T> {
    dice.chance(percent).then(|| of(dice))
}

/// From `least` to `most` of what `of` gives.
fn some<T>(dice: &mut Dice, (least, most): (u64, u64), of: impl Fn(&mut Dice) -> T) -> Vec<T> {
    (0..least + dice.roll(most - least + 1)).map(|_| of(dice)).collect()
}

/// None, an empty list, or from one to `most`.
fn list<T>(dice: &mut Dice, most: u64, of: impl Fn(&mut Dice) -> T) -> Option<Vec<T>> {
    match dice.roll(10) {
        0 | 1 => None,
        2 => Some(Vec::new()),
        _ => Some(some(dice, (1, most), of)),
    }
}

impl Cluster {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let labels = |dice: &mut Dice| -> Labels {
            let has = KEYS.map(|key| maybe(dice, 50, |dice| (key, dice.pick(&VALUES))));
            has.into_iter().flatten().collect()
        };
        let namespaces = NAMESPACES.map(|name| Namespace { name, labels: labels(dice) }).to_vec();
        let mut pods: Vec<Pod> = Vec::new();
        for at in 0..4 + dice.below(4) {
            let [b, c] = [dice.below(2), dice.below(2)];
            // The first parts of addresses are those that outside ones have, too; the last tell pods apart.
            let addrs =
                [address([dice.below(4), b, c * 16 + at], false), address([dice.below(4), b, c * 16 + at], true)];
            let mut ports = Vec::new();
            for name in PORT_NAMES {
                ports.extend(maybe(dice, 50, |dice| (name, dice.pick(&PROTOCOLS), dice.pick(&NUMBERS))));
            }
            let namespace = usize::try_from(dice.roll(NAMESPACES.len() as u64)).unwrap();
            pods.push(Pod { name: format!("p{at}"), namespace, labels: labels(dice), addrs, ports });
        }
        let mut cluster = Self { namespaces, pods, ..Self::default() };
        // In many worlds one kind is missing, so that what is under it shows.
        let most = dice.pick(&[0, 4, 6]);
        for at in 0..dice.roll(most + 1) {
            cluster.network.push(network_policy(dice, format!("n{at}")));
        }
        let most = dice.pick(&[0, 3, 5]);
        let has_baseline = dice.chance(40);
        let kinds = (0..dice.roll(most + 1)).map(|_| kind(dice)).chain(has_baseline.then_some(Kind::Baseline));
        let kinds: Vec<_> = kinds.collect();
        for (at, kind) in kinds.into_iter().enumerate() {
            cluster.admin.push(admin_policy(dice, kind, at));
        }
        cluster
    }

    /// A flow with a pod on one end at least, and not from a pod to itself.
    pub(crate) fn flow(&self, dice: &mut Dice) -> Flow {
        let party = |dice: &mut Dice| match dice.roll(10) {
            0 => Party::Node,
            1 => Party::Outside,
            _ => Party::Pod(usize::try_from(dice.roll(self.pods.len() as u64)).unwrap()),
        };
        let v6 = dice.chance(50);
        let (from, to) = loop {
            let (from, to) = (party(dice), party(dice));
            if from != to && (matches!(from, Party::Pod(_)) || matches!(to, Party::Pod(_))) {
                break (from, to);
            }
        };
        let mut addr = |party| match party {
            Party::Pod(pod) => self.pods[pod].addrs[usize::from(v6)],
            Party::Node | Party::Outside => loop {
                let addr = random_address(dice, v6);
                if self.pods.iter().all(|pod| !pod.addrs.contains(&addr)) {
                    break addr;
                }
            },
        };
        let (from_addr, to_addr) = (addr(from), addr(to));
        let protocol = maybe(dice, 90, |dice| dice.pick(&PROTOCOLS));
        // Of the ports that the receiver has names for many are asked.
        let named: Vec<_> = match to {
            Party::Pod(pod) => self.pods[pod].ports.clone(),
            Party::Node | Party::Outside => Vec::new(),
        };
        let (protocol, port) = match protocol {
            Some(_) if !named.is_empty() && dice.chance(30) => {
                let (_, protocol, port) = dice.pick(&named);
                (Some(protocol), port)
            }
            other => (other, dice.pick(&NUMBERS)),
        };
        Flow { from, to, from_addr, to_addr, protocol, port }
    }
}

fn selector(dice: &mut Dice, keys: &[&'static str]) -> Selector {
    let values = |dice: &mut Dice, key: &str| match key {
        NAME_OF_NAMESPACE => some(dice, (1, 2), |dice| dice.pick(&NAMESPACES)),
        _ => some(dice, (1, 2), |dice| dice.pick(&VALUES)),
    };
    let expression = |dice: &mut Dice| {
        let key = dice.pick(keys);
        match dice.pick(&["In", "NotIn", "Exists", "DoesNotExist"]) {
            operator @ ("In" | "NotIn") => Expression(key, operator, Some(values(dice, key))),
            operator => Expression(key, operator, maybe(dice, 30, |_| Vec::new())),
        }
    };
    let label = |dice: &mut Dice| {
        let key = dice.pick(keys);
        (key, values(dice, key)[0])
    };
    Selector {
        labels: maybe(dice, 40, |dice| vec![label(dice)]),
        expressions: list(dice, 2, expression).filter(|_| dice.chance(60)),
    }
}

fn of_pods(dice: &mut Dice) -> Selector {
    if dice.chance(30) { Selector::default() } else { selector(dice, &KEYS) }
}

fn of_namespaces(dice: &mut Dice) -> Selector {
    let [a, b, c] = KEYS;
    if dice.chance(30) { Selector::default() } else { selector(dice, &[NAME_OF_NAMESPACE, a, b, c]) }
}

fn network_policy(dice: &mut Dice, name: String) -> NetworkPolicy {
    let types = dice.pick::<Option<&[&str]>>(&[
        None,
        None,
        Some(&[]),
        Some(&["Ingress"]),
        Some(&["Egress"]),
        Some(&["Egress", "Ingress"]),
    ]);
    NetworkPolicy {
        name,
        namespace: dice.pick(&NAMESPACES),
        subject: maybe(dice, 80, of_pods),
        types: types.map(<[_]>::to_vec),
        ingress: list(dice, 2, rule),
        egress: list(dice, 2, rule),
    }
}

fn rule(dice: &mut Dice) -> Rule {
    Rule { peers: list(dice, 2, peer), ports: list(dice, 2, port) }
}

fn peer(dice: &mut Dice) -> Peer {
    match dice.roll(5) {
        0 => Peer::Selected(Some(of_pods(dice)), None),
        1 => Peer::Selected(None, Some(of_namespaces(dice))),
        2 => Peer::Selected(Some(of_pods(dice)), Some(of_namespaces(dice))),
        _ => {
            let cidr = cidr(dice);
            let holes = list(dice, 2, |dice| hole(dice, cidr));
            Peer::Block(cidr, holes.map(|holes| holes.into_iter().flatten().collect()))
        }
    }
}

fn port(dice: &mut Dice) -> Port {
    let protocol = maybe(dice, 60, |dice| dice.pick(&PROTOCOLS));
    match dice.roll(6) {
        0 => Port { protocol, port: None, end: None },
        1 | 2 => Port { protocol, port: Some(PortRef::Name(dice.pick(&PORT_NAMES))), end: None },
        _ => {
            let first = dice.pick(&NUMBERS);
            let end = maybe(dice, 40, |dice| dice.pick(&NUMBERS)).filter(|end| *end >= first);
            Port { protocol, port: Some(PortRef::Number(first)), end }
        }
    }
}

fn kind(dice: &mut Dice) -> Kind {
    // Of equal ones there are many.
    let priority = dice.pick(&[0, 1, 1, 1000]);
    match dice.roll(4) {
        0 | 1 => Kind::Admin(priority),
        2 => Kind::Cluster("Admin", priority),
        _ => Kind::Cluster("Baseline", priority),
    }
}

fn admin_policy(dice: &mut Dice, kind: Kind, at: usize) -> AdminPolicy {
    let rules = |dice: &mut Dice, is_egress| {
        let rules = list(dice, 3, |dice| admin_rule(dice, kind, is_egress));
        // It has at least one rule in a direction that it names.
        rules.filter(|rules| !rules.is_empty())
    };
    AdminPolicy {
        kind,
        name: if kind == Kind::Baseline { "default".to_owned() } else { format!("a{at}") },
        subject: pods(dice, kind),
        ingress: rules(dice, false),
        egress: rules(dice, true),
    }
}

fn pods(dice: &mut Dice, kind: Kind) -> Pods {
    if dice.chance(50) {
        return Pods::Namespaces(of_namespaces(dice));
    }
    // Only the newest form lets it be left out.
    let needed = if matches!(kind, Kind::Cluster(..)) { 70 } else { 100 };
    Pods::Pods(maybe(dice, needed, of_namespaces), of_pods(dice))
}

fn admin_rule(dice: &mut Dice, kind: Kind, is_egress: bool) -> AdminRule {
    let actions: &[&str] = match kind {
        Kind::Admin(_) => &["Allow", "Deny", "Pass"],
        Kind::Baseline => &["Allow", "Deny"],
        Kind::Cluster(..) => &["Accept", "Deny", "Pass"],
    };
    let peer = |dice: &mut Dice| match dice.roll(6) {
        0 if is_egress => AdminPeer::Nodes,
        1 | 2 if is_egress => AdminPeer::Networks(some(dice, (1, 2), cidr)),
        _ => AdminPeer::Pods(pods(dice, kind)),
    };
    let peers = some(dice, (1, 2), peer);
    // Networks and nodes have no ports with names.
    let names = peers.iter().all(|peer| matches!(peer, AdminPeer::Pods(_)));
    let port = |dice: &mut Dice| {
        let protocol = maybe(dice, 60, |dice| dice.pick(&PROTOCOLS));
        match dice.roll(4) {
            0 if names => AdminPort::Name(dice.pick(&PORT_NAMES)),
            0 | 1 => {
                let [start, end] = dice.pick(&[[1, 80], [79, 81], [80, 8080], [443, 65535]]);
                AdminPort::Range(protocol, start, end)
            }
            _ => AdminPort::Number(protocol, dice.pick(&NUMBERS)),
        }
    };
    AdminRule { action: dice.pick(actions), peers, ports: maybe(dice, 60, |dice| some(dice, (1, 3), port)) }
}

/// 10.A.B.C, or the same under fd00::.
fn address([a, b, c]: [u32; 3], v6: bool) -> IpAddr {
    let [a, b, c] = [a, b, c].map(|part| u8::try_from(part).unwrap());
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, a.into(), b.into(), c.into()).into()
    } else {
        Ipv4Addr::new(10, a, b, c).into()
    }
}

fn random_address(dice: &mut Dice, v6: bool) -> IpAddr {
    address([dice.below(4), dice.below(2), dice.below(2) * 16 + dice.below(8)], v6)
}

/// Its host bits may be set, as the API server lets them be.
fn cidr(dice: &mut Dice) -> Cidr {
    let v6 = dice.chance(50);
    let lengths: &[u8] = if v6 { &[0, 64, 94, 96, 111, 112, 122, 128] } else { &[0, 8, 14, 15, 16, 24, 26, 32] };
    Cidr(random_address(dice, v6), dice.pick(lengths))
}

/// A part of it that is not all of it.
fn hole(dice: &mut Dice, Cidr(addr, len): Cidr) -> Option<Cidr> {
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    let longer = (len + dice.pick(&[1, 2, 8, 16])).min(bits);
    let flipped = if len == 0 { random_address(dice, addr.is_ipv6()) } else { addr };
    (longer > len).then_some(Cidr(flipped, longer))
}
