//! The policies of administrators: AdminNetworkPolicy and BaselineAdminNetworkPolicy, and ClusterNetworkPolicy, which is
//! both (`policy.networking.k8s.io`, <https://network-policy-api.sigs.k8s.io>).
//!
//! The first rule that matches in a tier decides; tiers are asked in this order: admin, NetworkPolicy, baseline, the defaults
//! of apps. Each rule speaks for its subject only, so it is on one direction. Its precedence, with `index` from 0 in the
//! order of the direction's rules:
//!
//! | | precedence |
//! |---|---|
//! | AdminNetworkPolicy, ClusterNetworkPolicy of tier Admin | upper tier + (1000 - priority) * 1000 + (999 - index) |
//! | ClusterNetworkPolicy of tier Baseline | -1 - (priority * 1000 + index) |
//! | BaselineAdminNetworkPolicy | the same, with priority 0 |
//!
//! Allow or Accept is `allow`, Deny `deny`, Pass `pass`. Where policies of one tier and priority both have a rule that matches,
//! Kubernetes lets an implementation apply either. Here it is the one whose rule comes first in its list; at the same index
//! deny beats allow beats pass.
//!
//! | field | |
//! |---|---|
//! | `subject` | one of `namespaces` (a label selector) and `pods` (`namespaceSelector` and `podSelector`) |
//! | `priority` | 0 to 1000, the lower wins |
//! | `tier` | Admin or Baseline |
//! | `ingress`, `egress` | rules with `action`, `from` or `to`, and `name`, which nothing is made of; left out: none |
//! | `from`, `to` | a list of at least one, each one of `namespaces`, `pods` and, in `to`, `networks` and `nodes` |
//! | `ports` (v1alpha1) | each one of `portNumber`, `portRange`, `namedPort`; left out: all traffic |
//! | `protocols` (v1alpha2) | each one of `tcp`, `udp`, `sctp`, `destinationNamedPort`; left out: all traffic |
//!
//! `nodes` selects hosts, which have no labels here, so only `{}` is understood; `domainNames` is not. A port by name of `nodes`
//! or `networks` is a fault, as the API has it.

use weft_common::policy::{Action, Direction};

use crate::model::{
    invalid::{Invalid, Quoted},
    labels::LabelSelector,
    name::PortName,
    rule::Precedence,
    selector::{Apps, Net, Selector},
    traffic::{Ports, Ranges, Traffic},
};

use super::{
    super::{
        Faults,
        fields::{Fields, Form, list, listed, number, parsed, text},
        traffic::joined,
        tree::Node,
    },
    Identity, Line, Meant, TRANSPORTS, Transport, cidr, form, labels, only, port, protocol, words,
};

const SUBJECT: Form = form("a subject", &["namespaces", "pods"]);
const PODS: Form = form("pods", &["namespaceSelector", "podSelector"]);
const FROM: Form = form("a peer", &["namespaces", "pods"]);
const TO: Form = form("a peer", &["namespaces", "pods", "networks", "nodes", "domainNames"]);
const PORT: Form = form("a port", &["portNumber", "portRange", "namedPort"]);
const PORT_NUMBER: Form = form("a portNumber", &["protocol", "port"]);
const PORT_RANGE: Form = form("a portRange", &["protocol", "start", "end"]);
const PROTOCOL: Form = form("a protocol", &["tcp", "udp", "sctp", "destinationNamedPort"]);
const TRANSPORT: Form = form("a transport protocol", &["destinationPort"]);
const DESTINATION: Form = form("a destinationPort", &["number", "range"]);
const RANGE: Form = form("a range", &["start", "end"]);

/// Reads an item that names ports.
type Item = fn(&Node, &mut Faults) -> Option<Vec<Traffic>>;

/// What the three kinds differ in.
struct Kind {
    name: &'static str,
    /// The name that an object of it has, if there can be only one.
    called: Option<&'static str>,
    spec: Form,
    ingress: Form,
    egress: Form,
    actions: &'static [(&'static str, Action)],
    /// The field with ports, and what an item of it means.
    traffic: (&'static str, Item),
    /// How many rules each direction can have, and how many peers or ports a rule.
    most: usize,
    /// Whether `pods` can be without `namespaceSelector`, which is then every namespace.
    any_namespace: bool,
}

const ADMIN: Kind = Kind {
    name: "adminnetworkpolicy",
    called: None,
    spec: form("the spec of an AdminNetworkPolicy", &["priority", "subject", "ingress", "egress"]),
    ingress: form("an ingress rule", &["name", "action", "from", "ports"]),
    egress: form("an egress rule", &["name", "action", "to", "ports"]),
    actions: &[("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)],
    traffic: ("ports", one_port),
    most: 100,
    any_namespace: false,
};

const BASELINE: Kind = Kind {
    name: "baselineadminnetworkpolicy",
    called: Some("default"),
    spec: form("the spec of a BaselineAdminNetworkPolicy", &["subject", "ingress", "egress"]),
    actions: &[("Allow", Action::Allow), ("Deny", Action::Deny)],
    ..ADMIN
};

const CLUSTER: Kind = Kind {
    name: "clusternetworkpolicy",
    called: None,
    spec: form("the spec of a ClusterNetworkPolicy", &["tier", "priority", "subject", "ingress", "egress"]),
    ingress: form("an ingress rule", &["name", "action", "from", "protocols"]),
    egress: form("an egress rule", &["name", "action", "to", "protocols"]),
    actions: &[("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)],
    traffic: ("protocols", one_protocol),
    most: 25,
    any_namespace: true,
};

/// Priorities are from 0 to this.
const LOWEST: i32 = 1000;

/// Where the rules of a policy are among those of others.
#[derive(Clone, Copy)]
enum Tier {
    Admin(i32),
    Baseline(i32),
}

impl Tier {
    /// The precedence of the rule at `index`. There are less than 1000 in a direction.
    fn precedence(self, index: usize) -> Option<Precedence> {
        let index = i32::try_from(index).ok()?;
        Precedence::new(match self {
            Self::Admin(priority) => Precedence::UPPER.raw() + (LOWEST - priority) * 1000 + (999 - index),
            Self::Baseline(priority) => -1 - (priority * 1000 + index),
        })
    }
}

pub(super) fn admin(object: &Fields<'_>, faults: &mut Faults) -> Option<Meant> {
    policy(object, &ADMIN, |spec, faults| priority(spec, faults).map(Tier::Admin), faults)
}

pub(super) fn baseline(object: &Fields<'_>, faults: &mut Faults) -> Option<Meant> {
    policy(object, &BASELINE, |_, _| Some(Tier::Baseline(0)), faults)
}

pub(super) fn cluster(object: &Fields<'_>, faults: &mut Faults) -> Option<Meant> {
    let tier = |spec: &Fields<'_>, faults: &mut Faults| {
        let priority = priority(spec, faults);
        let node = spec.need("tier", faults)?;
        match text(node, "tier", faults)? {
            "Admin" => priority.map(Tier::Admin),
            "Baseline" => priority.map(Tier::Baseline),
            other => {
                faults.add(node.at, format!("{} is no tier: use Admin or Baseline", Quoted(other)));
                None
            }
        }
    };
    policy(object, &CLUSTER, tier, faults)
}

fn priority(spec: &Fields<'_>, faults: &mut Faults) -> Option<i32> {
    number(spec.need("priority", faults)?, "priority", (0, LOWEST), faults)
}

fn policy(
    object: &Fields<'_>,
    kind: &'static Kind,
    tier: impl Fn(&Fields<'_>, &mut Faults) -> Option<Tier>,
    faults: &mut Faults,
) -> Option<Meant> {
    let name = Identity::of(object, faults).and_then(|identity| {
        if let Some(only) = kind.called.filter(|only| *only != identity.name) {
            faults.add(identity.at, format!("this kind of policy is called {only}, because a cluster has one"));
        }
        identity.of_cluster(kind.name, faults)
    });
    let spec = Fields::of(object.need("spec", faults)?, &kind.spec, faults)?;
    let tier = tier(&spec, faults);
    let subject = spec.need("subject", faults).and_then(|node| {
        let fields = Fields::of(node, &SUBJECT, faults)?;
        match fields.one_of(SUBJECT.fields, faults)? {
            ("namespaces", node) => namespaces(node, faults),
            (_, node) => pods(node, kind, faults),
        }
    });
    let mut entries = Vec::new();
    for on in [Direction::Ingress, Direction::Egress] {
        let Some(node) = spec.get(words(on).0) else { continue };
        let items = at_most(node, words(on).0, kind.most, faults)?;
        entries.extend(items.iter().enumerate().map(|(index, item)| (index, entry(item, on, kind, faults))));
    }
    let (tier, subject) = (tier?, subject?);
    let mut made = Vec::new();
    for (index, entry) in entries {
        let Entry { action, on, at, peers, traffic } = entry?;
        let line = Line { action, on, precedence: tier.precedence(index)?, source: faults.source(at) };
        for peer in &peers {
            made.extend(traffic.iter().map(|traffic| line.rule(&subject, peer, traffic)));
        }
    }
    let rules = faults.check(spec.at, made.into_iter().collect::<Result<_, Invalid>>())?;
    Some(Meant { name: name?, rules, namespace: None })
}

/// One rule of a policy.
struct Entry {
    action: Action,
    on: Direction,
    at: crate::store::Position,
    peers: Vec<Selector>,
    traffic: Vec<Traffic>,
}

fn entry(node: &Node, on: Direction, kind: &'static Kind, faults: &mut Faults) -> Option<Entry> {
    let form = match on {
        Direction::Ingress => &kind.ingress,
        Direction::Egress => &kind.egress,
    };
    let fields = Fields::of(node, form, faults)?;
    if let Some(node) = fields.get("name") {
        text(node, "name", faults);
    }
    let action = fields.need("action", faults).and_then(|node| action(node, kind, faults));
    let word = words(on).1;
    let peers = fields.need(word, faults).and_then(|node| peers(node, on, kind, faults));
    let (word, one) = kind.traffic;
    let traffic = match fields.get(word) {
        None => Some(vec![Traffic::Any]),
        Some(node) => some_of(node, word, kind.most, faults).and_then(|items| {
            let found: Vec<_> = items.iter().map(|item| one(item, faults)).collect();
            Some(joined(found.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten()))
        }),
    };
    let (action, peers, traffic) = (action?, peers?, traffic?);
    if traffic.iter().any(Traffic::names_ports) && peers.iter().any(Selector::is_without_names) {
        faults.add(fields.key_at(word), "networks and nodes have no ports with names: write numbers");
        return None;
    }
    Some(Entry { action, on, at: node.at, peers, traffic })
}

fn action(node: &Node, kind: &Kind, faults: &mut Faults) -> Option<Action> {
    let word = text(node, "action", faults)?;
    let found = kind.actions.iter().find(|(known, _)| *known == word);
    if found.is_none() {
        let known: Vec<_> = kind.actions.iter().map(|(known, _)| *known).collect();
        faults.add(node.at, format!("{} is no action: use {}", Quoted(word), listed(&known)));
    }
    found.map(|(_, action)| *action)
}

fn peers(node: &Node, on: Direction, kind: &Kind, faults: &mut Faults) -> Option<Vec<Selector>> {
    let form = match on {
        Direction::Ingress => &FROM,
        Direction::Egress => &TO,
    };
    let mut peers = Vec::new();
    for item in some_of(node, words(on).1, kind.most, faults)? {
        peers.push(Fields::of(item, form, faults).and_then(|fields| peer(&fields, form, kind, faults)));
    }
    Some(peers.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

fn peer(fields: &Fields<'_>, form: &Form, kind: &Kind, faults: &mut Faults) -> Option<Vec<Selector>> {
    match fields.one_of(form.fields, faults)? {
        ("namespaces", node) => namespaces(node, faults).map(|peer| vec![peer]),
        ("pods", node) => pods(node, kind, faults).map(|peer| vec![peer]),
        ("nodes", node) => {
            if labels(node, faults)?.is_empty() {
                return Some(vec![Selector::Host]);
            }
            faults.add(node.at, "hosts have no labels: use nodes: {} for all of them, or networks");
            None
        }
        ("networks", node) => {
            let nets = some_of(node, "networks", kind.most, faults)?.iter().map(|node| {
                let prefix = cidr(node, "a network", faults)?;
                faults.check(node.at, Net::new(prefix, [])).map(Selector::Net)
            });
            let nets: Vec<_> = nets.collect();
            nets.into_iter().collect()
        }
        (_, node) => {
            faults.add(node.at, "names of domains are not understood: use networks");
            None
        }
    }
}

fn namespaces(node: &Node, faults: &mut Faults) -> Option<Selector> {
    Some(Selector::of(Apps::With(labels(node, faults)?), LabelSelector::default()))
}

fn pods(node: &Node, kind: &Kind, faults: &mut Faults) -> Option<Selector> {
    let fields = Fields::of(node, &PODS, faults)?;
    let apps = match fields.get("namespaceSelector") {
        None if kind.any_namespace => Some(LabelSelector::default()),
        _ => fields.need("namespaceSelector", faults).and_then(|node| labels(node, faults)),
    };
    let pods = fields.need("podSelector", faults).and_then(|node| labels(node, faults));
    Some(Selector::of(Apps::With(apps?), pods?))
}

/// An item of `ports`.
fn one_port(node: &Node, faults: &mut Faults) -> Option<Vec<Traffic>> {
    match Fields::of(node, &PORT, faults)?.one_of(PORT.fields, faults)? {
        ("portNumber", node) => {
            let fields = Fields::of(node, &PORT_NUMBER, faults)?;
            let transport = protocol(&fields, faults);
            let number = fields.need("port", faults).and_then(|node| port(node, "port", faults));
            let number = number?;
            let ports = faults.check(fields.at, only(number, number));
            Some(vec![transport?(ports?)])
        }
        ("portRange", node) => {
            let fields = Fields::of(node, &PORT_RANGE, faults)?;
            let transport = protocol(&fields, faults);
            let ports = range(&fields, faults);
            Some(vec![transport?(ports?)])
        }
        (_, node) => named(node, faults),
    }
}

/// An item of `protocols`.
fn one_protocol(node: &Node, faults: &mut Faults) -> Option<Vec<Traffic>> {
    let (word, node) = Fields::of(node, &PROTOCOL, faults)?.one_of(PROTOCOL.fields, faults)?;
    let transport = match word {
        "tcp" => Traffic::Tcp as Transport,
        "udp" => Traffic::Udp,
        "sctp" => Traffic::Sctp,
        _ => return named(node, faults),
    };
    let fields = Fields::of(node, &TRANSPORT, faults)?;
    let destination = Fields::of(fields.need("destinationPort", faults)?, &DESTINATION, faults)?;
    let ports = match destination.one_of(DESTINATION.fields, faults)? {
        ("number", node) => {
            let number = port(node, "number", faults)?;
            faults.check(node.at, only(number, number))
        }
        (_, node) => range(&Fields::of(node, &RANGE, faults)?, faults),
    };
    Some(vec![transport(ports?)])
}

/// From `start` to `end`.
fn range(fields: &Fields<'_>, faults: &mut Faults) -> Option<Ports> {
    let start = fields.need("start", faults).and_then(|node| port(node, "start", faults));
    let end = fields.need("end", faults).and_then(|node| port(node, "end", faults));
    let (start, end) = (start?, end?);
    if start >= end {
        faults.add(fields.at, format!("a range ends above its start, and {end} is not above {start}"));
        return None;
    }
    faults.check(fields.at, only(start, end))
}

/// The port of this name, of whichever protocol.
fn named(node: &Node, faults: &mut Faults) -> Option<Vec<Traffic>> {
    let name: PortName = parsed(node, "the name of a port", faults)?;
    let ports = || Ports::Only(Ranges::default(), [name.clone()].into());
    Some(TRANSPORTS.into_iter().map(|(_, transport)| transport(ports())).collect())
}

/// The items of a list that has at least one.
fn some_of<'a>(node: &'a Node, what: &str, most: usize, faults: &mut Faults) -> Option<&'a [std::rc::Rc<Node>]> {
    let items = at_most(node, what, most, faults)?;
    if items.is_empty() {
        faults.add(node.at, format!("{what} names none: write at least one"));
        return None;
    }
    Some(items)
}

fn at_most<'a>(node: &'a Node, what: &str, most: usize, faults: &mut Faults) -> Option<&'a [std::rc::Rc<Node>]> {
    let items = list(node, what, faults)?;
    if items.len() > most {
        faults.add(node.at, format!("{what} has {} items: at most {most} are understood", items.len()));
        return None;
    }
    Some(items)
}
