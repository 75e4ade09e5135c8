//! NetworkPolicy, `networking.k8s.io/v1`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).
//!
//! A policy isolates the pods it selects in the directions of its `policyTypes` and allows what its rules say; policies add
//! up. So it becomes, each on the one direction only, because it speaks for its subject and not for the peer:
//!
//! | | precedence |
//! |---|---|
//! | isolation in: `deny any -> SUBJECT`, `deny outside -> SUBJECT` | 500 |
//! | isolation out: `deny SUBJECT -> everyone` | 500 |
//! | each rule, for each peer and protocol: `allow PEER -> SUBJECT` or `allow SUBJECT -> PEER` | 501 |
//!
//! Kubernetes always allows what goes to and from the node where a pod runs. Here `host` is every host. What hosts send is
//! for the app's own default to say (`from-host`). What goes out to them isolation denies as the rest, or an isolated pod
//! could reach other hosts: `weft allow shop host any --precedence 501` opens it for those that want it.
//!
//! Of what is neither TCP nor UDP nor SCTP Kubernetes says nothing: it is isolated too, and allowed by rules without `ports`.
//!
//! | field | left out, or null | empty |
//! |---|---|---|
//! | `podSelector` | all pods of the namespace | all pods of the namespace |
//! | `policyTypes` | Ingress, and Egress if there are rules in `egress` | the same |
//! | `ingress`, `egress` | nothing is allowed | nothing is allowed |
//! | `from`, `to` | everyone | everyone |
//! | a peer's `namespaceSelector` | the policy's own namespace | every namespace |
//! | a peer's `podSelector` | all pods of the namespaces | all pods of the namespaces |
//! | a peer without any field | a fault | a fault |
//! | `ports` | all traffic | all traffic |
//! | a port's `protocol` | TCP | a fault |
//! | a port's `port` | every port of the protocol | a fault |
//! | a port's `endPort` | the one port | |
//! | `ipBlock.except` | no exception | no exception |
//!
//! An item of a list that is null is a fault, as kubectl has it. A port by name is the receiving pod's. To an `ipBlock`, which
//! is for addresses outside of the cluster, it means no port, and is no fault: the rest of the rule holds.

use weft_common::policy::{Action, Direction};

use crate::model::{
    invalid::{Invalid, Quoted},
    labels::LabelSelector,
    name::{AppName, PolicyName},
    rule::{Precedence, Rule},
    selector::{Apps, Net, Selector},
    traffic::{Ports, Ranges, Traffic},
};

use super::{
    super::{
        Faults,
        fields::{Fields, Form, list, parsed, text},
        traffic::joined,
        tree::{Node, Value},
    },
    Identity, Line, Meant, cidr, form, labels, only, port, protocol, words,
};

const SPEC: Form = form("the spec of a NetworkPolicy", &["podSelector", "policyTypes", "ingress", "egress"]);
const INGRESS: Form = form("an ingress rule", &["from", "ports"]);
const EGRESS: Form = form("an egress rule", &["to", "ports"]);
const PEER: Form = form("a peer", &["podSelector", "namespaceSelector", "ipBlock"]);
const IP_BLOCK: Form = form("an ipBlock", &["cidr", "except"]);
const PORT: Form = form("a port", &["protocol", "port", "endPort"]);

/// Of what isolates; what is allowed is one above it.
const ISOLATION: i32 = 500;

pub(super) fn policy(object: &Fields<'_>, faults: &mut Faults) -> Option<Meant> {
    let identity = Identity::of(object, faults);
    let name = identity.as_ref().and_then(|identity| {
        let app = identity.app(faults)?;
        let name = format!("networkpolicy/{app}/{}", identity.name).parse::<PolicyName>();
        Some((faults.check(identity.at, name)?, app))
    });
    // What is wrong with the spec is said also if the name is wrong.
    let app = name.as_ref().map_or_else(|| "default".parse().ok(), |(_, app)| Some(app.clone()))?;
    let rules = rules(object, &app, faults)?;
    let (identity, (name, app)) = identity.zip(name)?;
    let field = match identity.namespace {
        Some(_) => "metadata.namespace".to_owned(),
        None => format!("metadata has no namespace, so it is {app}"),
    };
    let at = identity.namespace.map_or(identity.at, |(at, _)| at);
    let said = format!("NetworkPolicy {}: {field}", identity.name);
    Some(Meant { name, rules, namespace: Some((at, said)) })
}

fn rules(object: &Fields<'_>, app: &AppName, faults: &mut Faults) -> Option<Vec<Rule>> {
    // Without a spec it is one in which every field is left out.
    let spec = match object.get("spec") {
        Some(node) => Some(Fields::of(node, &SPEC, faults)?),
        None => None,
    };
    let at = spec.as_ref().map_or(object.at, |spec| spec.at);
    let field = |name| spec.as_ref().and_then(|spec: &Fields<'_>| spec.get(name));
    let pods = match field("podSelector") {
        Some(node) => labels(node, faults),
        None => Some(LabelSelector::default()),
    };
    let ingress = entries(field("ingress"), Direction::Ingress, app, faults);
    let egress = entries(field("egress"), Direction::Egress, app, faults);
    let types = policy_types(field("policyTypes"), egress.as_ref().is_some_and(|rules| !rules.is_empty()), faults);
    let (pods, ingress, egress, types) = (pods?, ingress?, egress?, types?);

    let subject = Selector::of(Apps::Named(app.clone()), pods);
    let precedence = |above: i32| Precedence::new(ISOLATION + above);
    let source = faults.source(at);
    let mut made = Vec::new();
    for (on, entries) in [(Direction::Ingress, ingress), (Direction::Egress, egress)] {
        if !types.contains(&on) {
            continue;
        }
        let isolation = Line { action: Action::Deny, on, precedence: precedence(0)?, source: source.clone() };
        let isolated_from: &[Selector] = match on {
            Direction::Ingress => &[Selector::Any, Selector::Outside],
            Direction::Egress => &[Selector::Everyone],
        };
        made.extend(isolated_from.iter().map(|peer| isolation.rule(&subject, peer, &Traffic::Any)));
        for Entry { peers, traffic } in entries {
            for (peer, at) in peers {
                let source = faults.source(at);
                let line = Line { action: Action::Allow, on, precedence: precedence(1)?, source };
                // An address has no names for ports. With a block the API has them, and they mean no port there.
                let by_number = on == Direction::Egress && peer.is_without_names();
                for traffic in &traffic {
                    let traffic = if by_number { traffic.without_names() } else { Some(traffic.clone()) };
                    made.extend(traffic.map(|traffic| line.rule(&subject, &peer, &traffic)));
                }
            }
        }
    }
    faults.check(at, made.into_iter().collect::<Result<_, Invalid>>())
}

/// What one rule of a policy allows.
struct Entry {
    peers: Vec<(Selector, crate::store::Position)>,
    traffic: Vec<Traffic>,
}

/// The rules of a direction: none if the field is left out.
fn entries(node: Option<&Node>, on: Direction, app: &AppName, faults: &mut Faults) -> Option<Vec<Entry>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let items = list(node, words(on).0, faults)?;
    let found: Vec<_> = items.iter().map(|item| entry(item, on, app, faults)).collect();
    found.into_iter().collect()
}

fn entry(node: &Node, on: Direction, app: &AppName, faults: &mut Faults) -> Option<Entry> {
    let form = match on {
        Direction::Ingress => &INGRESS,
        Direction::Egress => &EGRESS,
    };
    let fields = Fields::of(node, form, faults)?;
    let word = words(on).1;
    let named = match fields.get(word) {
        Some(node) => list(node, word, faults)?,
        None => &[],
    };
    let peers: Vec<_> = named.iter().map(|node| Some((peer(node, app, faults)?, node.at))).collect();
    let traffic = traffic(fields.get("ports"), faults);
    let mut peers: Vec<_> = peers.into_iter().collect::<Option<_>>()?;
    if named.is_empty() {
        peers.push((Selector::Everyone, node.at));
    }
    Some(Entry { peers, traffic: traffic? })
}

fn peer(node: &Node, app: &AppName, faults: &mut Faults) -> Option<Selector> {
    let fields = Fields::of(node, &PEER, faults)?;
    let (pods, namespaces) = (fields.get("podSelector"), fields.get("namespaceSelector"));
    if let Some(block) = fields.get("ipBlock") {
        if pods.or(namespaces).is_some() {
            faults.add(fields.key_at("ipBlock"), "a peer with ipBlock has no selectors: write two peers");
            return None;
        }
        return Some(Selector::Net(ip_block(block, faults)?));
    }
    if pods.or(namespaces).is_none() {
        if fields.is_whole {
            faults.add(fields.at, "this peer names nobody: write podSelector, namespaceSelector or ipBlock");
        }
        return None;
    }
    let apps = match namespaces {
        Some(node) => labels(node, faults).map(Apps::With),
        None => Some(Apps::Named(app.clone())),
    };
    let pods = match pods {
        Some(node) => labels(node, faults),
        None => Some(LabelSelector::default()),
    };
    Some(Selector::of(apps?, pods?))
}

fn ip_block(node: &Node, faults: &mut Faults) -> Option<Net> {
    let fields = Fields::of(node, &IP_BLOCK, faults)?;
    let prefix = fields.need("cidr", faults).and_then(|node| cidr(node, "cidr", faults));
    let mut except = Vec::new();
    for node in fields.get("except").and_then(|node| list(node, "except", faults)).into_iter().flatten() {
        let hole = cidr(node, "an exception", faults);
        // One at a time, so that the fault has the place of the exception.
        let fits = prefix.zip(hole).map(|(prefix, hole)| faults.check(node.at, Net::new(prefix, [hole])));
        except.push(fits.flatten().and(hole));
    }
    let except = except.into_iter().collect::<Option<Vec<_>>>()?;
    faults.check(fields.at, Net::new(prefix?, except))
}

/// Which traffic: all if no port is named.
fn traffic(node: Option<&Node>, faults: &mut Faults) -> Option<Vec<Traffic>> {
    let items = match node {
        Some(node) => list(node, "ports", faults)?,
        None => &[],
    };
    let found: Vec<_> = items.iter().map(|item| one_port(item, faults)).collect();
    let found = found.into_iter().collect::<Option<Vec<_>>>()?;
    Some(if found.is_empty() { vec![Traffic::Any] } else { joined(found) })
}

fn one_port(node: &Node, faults: &mut Faults) -> Option<Traffic> {
    let fields = Fields::of(node, &PORT, faults)?;
    let transport = protocol(&fields, faults);
    let end = fields.get("endPort").map(|node| (node.at, port(node, "endPort", faults)));
    let ports = match (fields.get("port"), end) {
        (None, None) => Some(Ports::All),
        (None, Some((at, _))) => {
            faults.add(at, "endPort needs port, where the range starts");
            None
        }
        (Some(Node { value: Value::Text(_), .. }), Some((at, _))) => {
            faults.add(at, "a port with a name has no endPort: take it away, or write port as a number");
            None
        }
        (Some(node @ Node { value: Value::Text(_), .. }), None) => {
            parsed(node, "port", faults).map(|name| Ports::Only(Ranges::default(), [name].into()))
        }
        (Some(node), end) => {
            let first = port(node, "port", faults)?;
            match end {
                None => faults.check(node.at, only(first, first)),
                Some((at, last)) => {
                    let last = last?;
                    if last < first {
                        faults.add(at, format!("endPort {last} is below port {first}"));
                        return None;
                    }
                    faults.check(at, only(first, last))
                }
            }
        }
    };
    Some(transport?(ports?))
}

/// The directions in which a policy isolates.
fn policy_types(node: Option<&Node>, has_egress: bool, faults: &mut Faults) -> Option<Vec<Direction>> {
    let items = match node {
        Some(node) => list(node, "policyTypes", faults)?,
        None => &[],
    };
    let usual = [Direction::Ingress].into_iter().chain(has_egress.then_some(Direction::Egress));
    if items.is_empty() {
        return Some(usual.collect());
    }
    let mut direction = |node: &Node| match text(node, "a policy type", faults)? {
        "Ingress" => Some(Direction::Ingress),
        "Egress" => Some(Direction::Egress),
        other => {
            faults.add(node.at, format!("{} is no policy type: use Ingress or Egress", Quoted(other)));
            None
        }
    };
    let found: Vec<_> = items.iter().map(|item| direction(item)).collect();
    found.into_iter().collect()
}
