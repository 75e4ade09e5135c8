//! What Kubernetes' text says of policies, over pods with labels: who may send what to whom. It was written from
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>, the reference of NetworkPolicy, and the
//! comments of the API at <https://network-policy-api.sigs.k8s.io>, and has nothing of weft.
//!
//! Where weft is knowingly otherwise, or the text leaves it open, is said in one place each: [`open`]. `docs/policy.md`
//! says the same.

use std::net::IpAddr;

use super::objects::{
    AdminPeer, AdminPolicy, AdminPort, AdminRule, Cidr, Cluster, Expression, Kind, NetworkPolicy, Peer, Pod, Pods,
    Port, PortRef, Rule, Selector,
};

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Party {
    /// By position.
    Pod(usize),
    /// A node: the one of the pods, or another.
    Node,
    /// What is outside of the cluster.
    Outside,
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) from_addr: IpAddr,
    pub(crate) to_addr: IpAddr,
    /// `TCP`, `UDP` or `SCTP`; of any other only that it is.
    pub(crate) protocol: Option<&'static str>,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// What decided on one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// No policy can select this end.
    NoPod,
    Admin,
    /// Selected by a NetworkPolicy, and allowed by one or by none.
    NetworkPolicy,
    Baseline,
    /// Nothing selects it, or nothing that does speaks of this.
    Default,
}

/// What a rule of an administrator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Deny,
    Allow,
    Pass,
}

/// Where weft is not Kubernetes, or where Kubernetes leaves it open.
mod open {
    use super::{Action, Direction};

    /// "Traffic to and from the node where a Pod is running is always allowed." weft has one word for all hosts. So from
    /// every host isolated pods are reached, as the app's default `from_host` says, and they reach none without a rule:
    /// else they would reach those of others, too.
    pub(super) fn isolated_and_a_node(direction: Direction) -> bool {
        direction == Direction::Ingress
    }

    /// "The implementation can apply any of the matching policies" of equal priority. weft applies the one whose rule is
    /// the first in its list, and of rules at the same place one that denies, then one that allows.
    pub(super) fn of_equal_priority(matching: impl Iterator<Item = (usize, Action)>) -> Option<Action> {
        matching.min().map(|(_, action)| action)
    }

    /// Which number two rules of Baseline have that are of two kinds, one of which has no priority.
    pub(super) const PRIORITY_OF_BASELINE: u16 = 0;

    /// A name is one of a port of a pod's container, and `ipBlock` is for "cluster-external IPs": weft finds no pod by it.
    pub(super) const BLOCKS_HAVE_PORTS_WITH_NAMES: bool = false;
}

impl Cluster {
    /// Whether it may be sent, by both ends.
    pub(crate) fn allows(&self, flow: &Flow) -> (bool, [Why; 2]) {
        let (out, out_why) = self.one_way(Direction::Egress, flow);
        let (into, into_why) = self.one_way(Direction::Ingress, flow);
        (out && into, [out_why, into_why])
    }

    fn one_way(&self, direction: Direction, flow: &Flow) -> (bool, Why) {
        let subject = if direction == Direction::Egress { flow.from } else { flow.to };
        let Party::Pod(subject) = subject else { return (true, Why::NoPod) };
        let subject = &self.pods[subject];
        match self.tier("Admin", subject, direction, flow) {
            Some(Action::Allow) => return (true, Why::Admin),
            Some(Action::Deny) => return (false, Why::Admin),
            Some(Action::Pass) | None => {}
        }
        if let Some(allowed) = self.network_policies(subject, direction, flow) {
            return (allowed, Why::NetworkPolicy);
        }
        match self.tier("Baseline", subject, direction, flow) {
            Some(Action::Allow) => (true, Why::Baseline),
            Some(Action::Deny) => (false, Why::Baseline),
            // "By default, a pod is non-isolated."
            Some(Action::Pass) | None => (true, Why::Default),
        }
    }

    /// What NetworkPolicies say, if any isolates the pod in this direction.
    fn network_policies(&self, subject: &Pod, direction: Direction, flow: &Flow) -> Option<bool> {
        let mut isolating = self.network.iter().filter(|policy| self.isolates(policy, subject, direction)).peekable();
        isolating.peek()?;
        let peer = if direction == Direction::Egress { flow.to } else { flow.from };
        if peer == Party::Node && open::isolated_and_a_node(direction) {
            return Some(true);
        }
        Some(isolating.any(|policy| {
            let rules = if direction == Direction::Egress { &policy.egress } else { &policy.ingress };
            rules.iter().flatten().any(|rule| self.rule_allows(rule, policy, direction, flow))
        }))
    }

    fn isolates(&self, policy: &NetworkPolicy, subject: &Pod, direction: Direction) -> bool {
        let in_types = match policy.types.as_deref().unwrap_or_default() {
            // "If no policyTypes are specified then by default Ingress will always be set and Egress will be set if the
            // NetworkPolicy has any egress rules."
            [] => direction == Direction::Ingress || policy.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
            types => types.contains(&if direction == Direction::Egress { "Egress" } else { "Ingress" }),
        };
        in_types
            && self.namespaces[subject.namespace].name == policy.namespace
            && policy.subject.as_ref().is_none_or(|selector| selects(selector, &subject.labels))
    }

    /// Both of peers and ports have to match; a list that is missing or empty matches all.
    fn rule_allows(&self, rule: &Rule, policy: &NetworkPolicy, direction: Direction, flow: &Flow) -> bool {
        let ports = rule.ports.as_deref().unwrap_or_default();
        let any_port = |names: bool| ports.is_empty() || ports.iter().any(|port| self.port_is(port, names, flow));
        let peers = rule.peers.as_deref().unwrap_or_default();
        if peers.is_empty() {
            return any_port(true);
        }
        let (peer, addr) = other_end(direction, flow);
        peers.iter().any(|of| match of {
            Peer::Selected(pods, namespaces) => {
                let Party::Pod(pod) = peer else { return false };
                let pod = &self.pods[pod];
                let in_namespace = match namespaces {
                    Some(selector) => self.namespace_is(selector, pod),
                    None => self.namespaces[pod.namespace].name == policy.namespace,
                };
                in_namespace && pods.as_ref().is_none_or(|selector| selects(selector, &pod.labels)) && any_port(true)
            }
            Peer::Block(cidr, except) => {
                let names = direction == Direction::Ingress || open::BLOCKS_HAVE_PORTS_WITH_NAMES;
                within(*cidr, addr) && !except.iter().flatten().any(|hole| within(*hole, addr)) && any_port(names)
            }
        })
    }

    /// Whether a port of a rule is the one that is sent to. `names`: whether it may be by its name.
    fn port_is(&self, Port { protocol, port, end }: &Port, names: bool, flow: &Flow) -> bool {
        let protocol = protocol.unwrap_or("TCP");
        flow.protocol == Some(protocol)
            && match port {
                None => true,
                Some(PortRef::Number(number)) => (*number..=end.unwrap_or(*number)).contains(&flow.port),
                Some(PortRef::Name(name)) => names && self.has_port(flow.to, name, flow),
            }
    }

    /// Whether the receiver has this port, with this protocol, under the name.
    fn has_port(&self, receiver: Party, name: &str, flow: &Flow) -> bool {
        let Party::Pod(pod) = receiver else { return false };
        let ports = &self.pods[pod].ports;
        ports
            .iter()
            .any(|(own, protocol, number)| *own == name && flow.protocol == Some(*protocol) && *number == flow.port)
    }

    /// The first rule that matches of the policy that is asked first.
    fn tier(&self, tier: &str, subject: &Pod, direction: Direction, flow: &Flow) -> Option<Action> {
        let of = |policy: &AdminPolicy| match policy.kind {
            Kind::Admin(priority) => ("Admin", priority),
            Kind::Baseline => ("Baseline", open::PRIORITY_OF_BASELINE),
            Kind::Cluster(tier, priority) => (tier, priority),
        };
        let found = self.admin.iter().filter(|policy| of(policy).0 == tier).filter_map(|policy| {
            if !self.pods_are(&policy.subject, subject) {
                return None;
            }
            let rules = if direction == Direction::Egress { &policy.egress } else { &policy.ingress };
            let mut rules = rules.iter().flatten().enumerate();
            let (index, rule) = rules.find(|(_, rule)| self.admin_rule_is(rule, direction, flow))?;
            let action = match rule.action {
                "Allow" | "Accept" => Action::Allow,
                "Deny" => Action::Deny,
                "Pass" => Action::Pass,
                other => panic!("{other}"),
            };
            Some((of(policy).1, index, action))
        });
        let found: Vec<_> = found.collect();
        let first = found.iter().map(|(priority, ..)| *priority).min()?;
        let first = found.into_iter().filter(|(priority, ..)| *priority == first);
        open::of_equal_priority(first.map(|(_, index, action)| (index, action)))
    }

    fn admin_rule_is(&self, rule: &AdminRule, direction: Direction, flow: &Flow) -> bool {
        let (peer, addr) = other_end(direction, flow);
        let peer_is = |of: &AdminPeer| match (of, peer) {
            (AdminPeer::Pods(pods), Party::Pod(pod)) => self.pods_are(pods, &self.pods[pod]),
            (AdminPeer::Networks(nets), _) => nets.iter().any(|net| within(*net, addr)),
            (AdminPeer::Nodes, _) => peer == Party::Node,
            (AdminPeer::Pods(_), _) => false,
        };
        let port_is = |port: &AdminPort| match port {
            AdminPort::Number(protocol, number) => {
                flow.protocol == Some(protocol.unwrap_or("TCP")) && flow.port == *number
            }
            AdminPort::Range(protocol, start, end) => {
                flow.protocol == Some(protocol.unwrap_or("TCP")) && (*start..=*end).contains(&flow.port)
            }
            AdminPort::Name(name) => self.has_port(flow.to, name, flow),
        };
        rule.peers.iter().any(peer_is) && rule.ports.as_ref().is_none_or(|ports| ports.iter().any(port_is))
    }

    fn pods_are(&self, pods: &Pods, pod: &Pod) -> bool {
        match pods {
            Pods::Namespaces(selector) => self.namespace_is(selector, pod),
            Pods::Pods(namespaces, pods) => {
                namespaces.as_ref().is_none_or(|selector| self.namespace_is(selector, pod))
                    && selects(pods, &pod.labels)
            }
        }
    }

    fn namespace_is(&self, selector: &Selector, pod: &Pod) -> bool {
        let namespace = &self.namespaces[pod.namespace];
        let mut labels = namespace.labels.clone();
        // "The control plane sets an immutable label" on all namespaces.
        labels.push(("kubernetes.io/metadata.name", namespace.name));
        selects(selector, &labels)
    }
}

fn other_end(direction: Direction, flow: &Flow) -> (Party, IpAddr) {
    match direction {
        Direction::Egress => (flow.to, flow.to_addr),
        Direction::Ingress => (flow.from, flow.from_addr),
    }
}

/// All requirements are "ANDed"; an empty selector matches everything.
fn selects(Selector { labels, expressions }: &Selector, has: &[(&str, &str)]) -> bool {
    let value = |key: &str| has.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
    let holds = |Expression(key, operator, values): &Expression| {
        let among = |value: &str| values.iter().flatten().any(|one| *one == value);
        match *operator {
            "In" => value(key).is_some_and(among),
            "NotIn" => !value(key).is_some_and(among),
            "Exists" => value(key).is_some(),
            "DoesNotExist" => value(key).is_none(),
            other => panic!("{other}"),
        }
    };
    labels.iter().flatten().all(|(key, wanted)| value(key) == Some(*wanted)) && expressions.iter().flatten().all(holds)
}

fn within(Cidr(net, len): Cidr, addr: IpAddr) -> bool {
    let same = |differ: u128, bits: u8| len == 0 || differ >> (bits - len) == 0;
    match (net, addr) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => same((u32::from(net) ^ u32::from(addr)).into(), 32),
        (IpAddr::V6(net), IpAddr::V6(addr)) => same(u128::from(net) ^ u128::from(addr), 128),
        _ => false,
    }
}
