//! Kubernetes' policies: objects as people have them in files, and as `kubectl get -o yaml` prints them.
//!
//! | `apiVersion` | `kind` | becomes the policy |
//! |---|---|---|
//! | `networking.k8s.io/v1` | NetworkPolicy | `networkpolicy/NAMESPACE/NAME`, see [`network_policy`] |
//! | `policy.networking.k8s.io/v1alpha1` | AdminNetworkPolicy | `adminnetworkpolicy/NAME`, see [`tiers`] |
//! | `policy.networking.k8s.io/v1alpha1` | BaselineAdminNetworkPolicy | `baselineadminnetworkpolicy/NAME` |
//! | `policy.networking.k8s.io/v1alpha2` | ClusterNetworkPolicy | `clusternetworkpolicy/NAME` |
//! | `v1` | List | those of its `items` |
//!
//! A namespace is an app; one that is left out is `default`. Labels of namespaces are the app's labels, labels of pods those
//! of endpoints; every selector stays a selector, so a policy follows labels that change later. Every app has the label
//! `kubernetes.io/metadata.name` with its name, as namespaces have it, unless it was given one itself: rules in weft's own
//! form can select by it, too. Of `metadata` the name and the namespace count, `status` does not. As in Kubernetes a field
//! that is `null` is a field that is left out.

pub mod network_policy;
pub mod tiers;

use weft_common::policy::{Action, Direction};

use crate::{
    model::{
        cluster::Policy,
        invalid::{Invalid, Quoted},
        labels::LabelSelector,
        name::{AppName, PolicyName},
        prefix::Prefix,
        rule::{Precedence, Rule, Source},
        selector::Selector,
        traffic::{Ports, Ranges, Traffic},
    },
    store::Position,
};

use super::{
    Faults, Reader,
    fields::{Fields, Form, Null, list, number, text},
    selectors,
    tree::Node,
};

const fn form(what: &'static str, fields: &'static [&'static str]) -> Form {
    Form { what, fields, null: Null::Missing }
}

const OBJECT: Form = form("an object", &["apiVersion", "kind", "metadata", "spec", "status"]);
const LIST: Form = form("a List", &["apiVersion", "kind", "metadata", "items"]);
/// `k8s.io/apimachinery/pkg/apis/meta/v1`, ObjectMeta.
const METADATA: Form = form(
    "metadata",
    &[
        "name",
        "namespace",
        "labels",
        "annotations",
        "generateName",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ],
);

/// What an object of one kind means.
type Meaning = fn(&Fields<'_>, &mut Faults) -> Option<Meant>;

/// What an object means.
struct Meant {
    name: PolicyName,
    rules: Vec<Rule>,
    /// Where the namespace is that its rules name; object and field, for messages.
    namespace: Option<(Position, String)>,
}

/// What is understood.
const KINDS: [(&str, &str, Meaning); 4] = [
    ("networking.k8s.io/v1", "NetworkPolicy", network_policy::policy),
    ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", tiers::admin),
    ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", tiers::baseline),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", tiers::cluster),
];

/// Reads an object. It has `apiVersion` or `kind`.
pub(super) fn document(node: &Node, reader: &mut Reader, faults: &mut Faults) {
    let word = |name: &str, faults: &mut Faults| {
        let Some(found) = node.field(name) else {
            faults.add(node.at, format!("an object needs {name}"));
            return None;
        };
        text(found, name, faults).map(|text| (found.at, text))
    };
    let (version, kind) = (word("apiVersion", faults), word("kind", faults));
    let (Some((version_at, version)), Some((kind_at, kind))) = (version, kind) else { return };
    if (version, kind) == ("v1", "List") {
        let Some(fields) = Fields::of(node, &LIST, faults) else { return };
        for item in fields.get("items").and_then(|items| list(items, "items", faults)).into_iter().flatten() {
            reader.document(item, faults);
        }
        return;
    }
    match KINDS.iter().find(|(_, known, _)| *known == kind) {
        None => {
            let text = format!("kind {} is no policy: only policies and lists of them are understood", Quoted(kind));
            faults.add(kind_at, text);
        }
        Some((known, ..)) if *known != version => {
            faults.add(version_at, format!("{kind} is understood in {known}, not in {}", Quoted(version)));
        }
        Some((.., meaning)) => {
            let Some(fields) = Fields::of(node, &OBJECT, faults) else { return };
            if let Some(Meant { name, rules, namespace }) = meaning(&fields, faults) {
                let place = namespace.map(|(at, field)| (faults.place(at), field));
                reader.manifest.written.namespaces.extend(place.map(|place| (name.clone(), place)));
                let rules = rules.into_iter().map(|rule| (node.at, rule)).collect();
                reader.policy((name, node.at), Policy::default(), rules, faults);
            }
        }
    }
}

/// An object's name, and the namespace that it names.
struct Identity<'a> {
    name: &'a str,
    at: Position,
    namespace: Option<(Position, &'a str)>,
}

impl<'a> Identity<'a> {
    fn of(object: &Fields<'a>, faults: &mut Faults) -> Option<Self> {
        let fields = Fields::of(object.need("metadata", faults)?, &METADATA, faults)?;
        let namespace = match fields.get("namespace") {
            Some(node) => Some((node.at, text(node, "namespace", faults)?)),
            None => None,
        };
        let node = fields.need("name", faults)?;
        let name = text(node, "name", faults)?;
        if name.contains('/') {
            faults.add(node.at, Invalid::new("name of an object", name, "use a-z, 0-9, '-' and '.'").to_string());
            return None;
        }
        Some(Self { name, at: node.at, namespace })
    }

    /// The app that is the namespace.
    fn app(&self, faults: &mut Faults) -> Option<AppName> {
        let (at, namespace) = self.namespace.unwrap_or((self.at, "default"));
        faults.check(at, namespace.parse())
    }

    /// The name of the policy that an object of the whole cluster is.
    fn of_cluster(&self, kind: &str, faults: &mut Faults) -> Option<PolicyName> {
        if let Some((at, _)) = self.namespace {
            faults.add(at, "the object is of the whole cluster: take the namespace away");
            return None;
        }
        faults.check(self.at, format!("{kind}/{}", self.name).parse())
    }
}

/// What the rules have in common that one entry of an object becomes.
struct Line {
    action: Action,
    on: Direction,
    precedence: Precedence,
    source: Source,
}

impl Line {
    fn rule(&self, subject: &Selector, peer: &Selector, traffic: &Traffic) -> Result<Rule, Invalid> {
        let (from, to) = match self.on {
            Direction::Ingress => (peer, subject),
            Direction::Egress => (subject, peer),
        };
        let rule = Rule::new(self.action, from.clone(), to.clone(), traffic.clone())?;
        Ok(Rule { source: Some(self.source.clone()), ..rule.placed(Some(self.on), self.precedence)? })
    }
}

/// The field of an object's rule that names peers, and the one of an object that has rules.
fn words(on: Direction) -> (&'static str, &'static str) {
    match on {
        Direction::Ingress => ("ingress", "from"),
        Direction::Egress => ("egress", "to"),
    }
}

fn labels(node: &Node, faults: &mut Faults) -> Option<LabelSelector> {
    selectors::selector(node, Null::Missing, faults)
}

/// A prefix, as the API server takes it: host bits that are set count for nothing.
fn cidr(node: &Node, what: &str, faults: &mut Faults) -> Option<Prefix> {
    let text = text(node, what, faults)?;
    let exact = text.parse::<Prefix>();
    let masked = || text.parse::<ipnet::IpNet>().map(|net| Prefix::new(net.trunc().addr(), net.prefix_len()));
    faults.check(node.at, exact.or_else(|error| masked().unwrap_or(Err(error))))
}

/// Makes traffic of ports.
type Transport = fn(Ports) -> Traffic;

/// The three that objects can name, with the word for each.
const TRANSPORTS: [(&str, Transport); 3] = [("TCP", Traffic::Tcp), ("UDP", Traffic::Udp), ("SCTP", Traffic::Sctp)];

/// The protocol of a port: TCP if none is named.
fn protocol(fields: &Fields<'_>, faults: &mut Faults) -> Option<Transport> {
    let Some(node) = fields.get("protocol") else { return Some(Traffic::Tcp) };
    let word = text(node, "protocol", faults)?;
    let found = TRANSPORTS.into_iter().find(|(known, _)| *known == word);
    if found.is_none() {
        faults.add(node.at, format!("{} is no protocol: use TCP, UDP or SCTP", Quoted(word)));
    }
    found.map(|(_, transport)| transport)
}

fn port(node: &Node, what: &str, faults: &mut Faults) -> Option<u16> {
    number(node, what, (1, u16::MAX.into()), faults).and_then(|number| u16::try_from(number).ok())
}

fn only(from: u16, to: u16) -> Result<Ports, Invalid> {
    Ok(Ports::Only(Ranges::new([(from, to)])?, [].into()))
}
