//! Kubernetes' objects as values, as their API has them, and as the text that people apply. Nothing of weft is in here.
//!
//! `None` is a field that is left out or null, which is not the same as an empty list.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// Who is there: what policies are about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) network: Vec<NetworkPolicy>,
    pub(crate) admin: Vec<AdminPolicy>,
}

pub(crate) type Labels = Vec<(&'static str, &'static str)>;

#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    /// Without the one that Kubernetes gives it.
    pub(crate) labels: Labels,
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// By position.
    pub(crate) namespace: usize,
    pub(crate) labels: Labels,
    /// One of each family, IPv4 first.
    pub(crate) addrs: [IpAddr; 2],
    /// Name, protocol and number of the ports of its containers.
    pub(crate) ports: Vec<(&'static str, &'static str, u16)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    pub(crate) labels: Option<Labels>,
    pub(crate) expressions: Option<Vec<Expression>>,
}

/// Key, operator and values.
#[derive(Clone, Debug)]
pub(crate) struct Expression(pub(crate) &'static str, pub(crate) &'static str, pub(crate) Option<Vec<&'static str>>);

#[derive(Clone, Debug)]
pub(crate) struct NetworkPolicy {
    pub(crate) name: String,
    pub(crate) namespace: &'static str,
    pub(crate) subject: Option<Selector>,
    pub(crate) types: Option<Vec<&'static str>>,
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Its `from` or `to`.
    pub(crate) peers: Option<Vec<Peer>>,
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// At least one of `podSelector` and `namespaceSelector`.
    Selected(Option<Selector>, Option<Selector>),
    /// `ipBlock`, with `except`.
    Block(Cidr, Option<Vec<Cidr>>),
}

/// As it is written: host bits may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cidr(pub(crate) IpAddr, pub(crate) u8);

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) protocol: Option<&'static str>,
    pub(crate) port: Option<PortRef>,
    pub(crate) end: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PortRef {
    Number(u16),
    Name(&'static str),
}

/// What the three kinds of `policy.networking.k8s.io` say.
#[derive(Clone, Debug)]
pub(crate) struct AdminPolicy {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) subject: Pods,
    pub(crate) ingress: Option<Vec<AdminRule>>,
    pub(crate) egress: Option<Vec<AdminRule>>,
}

/// With the priority, if it has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Admin(u16),
    Baseline,
    /// A ClusterNetworkPolicy of this tier.
    Cluster(&'static str, u16),
}

#[derive(Clone, Debug)]
pub(crate) enum Pods {
    Namespaces(Selector),
    /// `namespaceSelector` and `podSelector`.
    Pods(Option<Selector>, Selector),
}

#[derive(Clone, Debug)]
pub(crate) struct AdminRule {
    pub(crate) action: &'static str,
    pub(crate) peers: Vec<AdminPeer>,
    pub(crate) ports: Option<Vec<AdminPort>>,
}

#[derive(Clone, Debug)]
pub(crate) enum AdminPeer {
    Pods(Pods),
    Networks(Vec<Cidr>),
    Nodes,
}

/// The protocol is TCP where it is left out.
#[derive(Clone, Debug)]
pub(crate) enum AdminPort {
    Number(Option<&'static str>, u16),
    Range(Option<&'static str>, u16, u16),
    Name(&'static str),
}

impl Cluster {
    /// All policies, each as a JSON value. `null` says of each field that is left out whether it is written as null.
    pub(crate) fn policies(&self, mut null: impl FnMut() -> bool) -> Vec<Value> {
        let mut all: Vec<_> = self.network.iter().map(NetworkPolicy::object).collect();
        all.extend(self.admin.iter().map(AdminPolicy::object));
        all.iter_mut().for_each(|object| omit(object, &mut null));
        all
    }
}

/// Takes fields that are null away, but for those that stay.
fn omit(value: &mut Value, null: &mut impl FnMut() -> bool) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null() || null());
            fields.values_mut().for_each(|value| omit(value, null));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| omit(item, null)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `then` of each, or null.
fn each<T>(list: Option<&Vec<T>>, then: impl Fn(&T) -> Value) -> Value {
    list.map_or(Value::Null, |list| list.iter().map(then).collect())
}

/// Its text, or null.
fn selector(of: Option<&Selector>) -> Value {
    of.map_or(Value::Null, Selector::value)
}

impl Selector {
    fn value(&self) -> Value {
        let Self { labels, expressions } = self;
        let labels = labels.as_ref().map(|labels| labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let expression = |Expression(key, operator, values): &Expression| json!({ "key": key, "operator": operator, "values": values });
        json!({
            "matchLabels": labels.map(|labels| Value::Object(labels.collect())),
            "matchExpressions": each(expressions.as_ref(), expression),
        })
    }
}

impl Cidr {
    fn text(self) -> String {
        format!("{}/{}", self.0, self.1)
    }
}

impl NetworkPolicy {
    fn object(&self) -> Value {
        let Self { name, namespace, subject, types, ingress, egress } = self;
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "podSelector": selector(subject.as_ref()),
                "policyTypes": types,
                "ingress": each(ingress.as_ref(), |rule| rule.value("from")),
                "egress": each(egress.as_ref(), |rule| rule.value("to")),
            },
        })
    }
}

impl Rule {
    fn value(&self, word: &str) -> Value {
        let peer = |peer: &Peer| match peer {
            Peer::Selected(pods, namespaces) => {
                json!({ "podSelector": selector(pods.as_ref()), "namespaceSelector": selector(namespaces.as_ref()) })
            }
            Peer::Block(cidr, except) => {
                let except = each(except.as_ref(), |hole| json!(hole.text()));
                json!({ "ipBlock": { "cidr": cidr.text(), "except": except } })
            }
        };
        let port = |Port { protocol, port, end }: &Port| {
            let port = port.map(|port| match port {
                PortRef::Number(number) => json!(number),
                PortRef::Name(name) => json!(name),
            });
            json!({ "protocol": protocol, "port": port, "endPort": end })
        };
        json!({ word: each(self.peers.as_ref(), peer), "ports": each(self.ports.as_ref(), port) })
    }
}

impl AdminPolicy {
    fn object(&self) -> Value {
        let Self { kind, name, subject, ingress, egress } = self;
        let (version, kind, tier, priority) = match *kind {
            Kind::Admin(priority) => ("v1alpha1", "AdminNetworkPolicy", None, Some(priority)),
            Kind::Baseline => ("v1alpha1", "BaselineAdminNetworkPolicy", None, None),
            Kind::Cluster(tier, priority) => ("v1alpha2", "ClusterNetworkPolicy", Some(tier), Some(priority)),
        };
        let rule = |word: &'static str| move |rule: &AdminRule| rule.value(word, version);
        let mut spec = json!({
            "subject": subject.value(),
            "ingress": each(ingress.as_ref(), rule("from")),
            "egress": each(egress.as_ref(), rule("to")),
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(tier.map(|tier| ("tier".to_owned(), json!(tier))));
        fields.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
        json!({
            "apiVersion": format!("policy.networking.k8s.io/{version}"),
            "kind": kind,
            "metadata": { "name": name },
            "spec": spec,
        })
    }
}

impl Pods {
    fn value(&self) -> Value {
        match self {
            Self::Namespaces(of) => json!({ "namespaces": of.value() }),
            Self::Pods(namespaces, pods) => {
                json!({ "pods": { "namespaceSelector": selector(namespaces.as_ref()), "podSelector": pods.value() } })
            }
        }
    }
}

impl AdminRule {
    fn value(&self, word: &str, version: &str) -> Value {
        let Self { action, peers, ports } = self;
        let peer = |peer: &AdminPeer| match peer {
            AdminPeer::Pods(pods) => pods.value(),
            AdminPeer::Networks(nets) => json!({ "networks": nets.iter().map(|net| net.text()).collect::<Vec<_>>() }),
            AdminPeer::Nodes => json!({ "nodes": {} }),
        };
        let (field, port): (_, fn(&AdminPort) -> Value) = match version {
            "v1alpha1" => ("ports", AdminPort::first_form),
            _ => ("protocols", AdminPort::second_form),
        };
        json!({
            "action": action,
            word: peers.iter().map(peer).collect::<Vec<_>>(),
            field: each(ports.as_ref(), port),
        })
    }
}

impl AdminPort {
    fn first_form(&self) -> Value {
        match self {
            Self::Number(protocol, port) => json!({ "portNumber": { "protocol": protocol, "port": port } }),
            Self::Range(protocol, start, end) => {
                json!({ "portRange": { "protocol": protocol, "start": start, "end": end } })
            }
            Self::Name(name) => json!({ "namedPort": name }),
        }
    }

    fn second_form(&self) -> Value {
        let of = |protocol: Option<&str>, ports: Value| {
            let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
            json!({ protocol: { "destinationPort": ports } })
        };
        match self {
            Self::Number(protocol, port) => of(*protocol, json!({ "number": port })),
            Self::Range(protocol, start, end) => of(*protocol, json!({ "range": { "start": start, "end": end } })),
            Self::Name(name) => json!({ "destinationNamedPort": name }),
        }
    }
}

/// A value as people write it: in lines, with spaces in front.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) => lines_of(fields, 0, &mut text),
        other => text = other.to_string(),
    }
    text
}

fn lines_of(fields: &Map<String, Value>, indent: usize, text: &mut String) {
    for (key, value) in fields {
        text.extend([" ".repeat(indent).as_str(), key.as_str(), ":"]);
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                text.push('\n');
                lines_of(fields, indent + 2, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                for item in items {
                    let start = text.len() + indent;
                    match item {
                        Value::Object(fields) if !fields.is_empty() => lines_of(fields, indent + 2, text),
                        other => text.extend([" ".repeat(indent + 2), other.to_string(), "\n".to_owned()]),
                    }
                    text.replace_range(start..start + 2, "- ");
                }
            }
            other => text.extend([" ", &other.to_string(), "\n"]),
        }
    }
}
