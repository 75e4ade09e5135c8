//! What the text of docs/policy.md says of one packet between two endpoints. It shares nothing with the compiler and
//! with `decide`: it walks the list of rules.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Where the upper tier starts; the lower one ends below 0.
pub(super) const UPPER: i32 = 16_777_216;

pub(super) type Labels = BTreeMap<&'static str, &'static str>;

/// All that verdicts depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) apps: Vec<App>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct App {
    pub(super) name: &'static str,
    pub(super) labels: Labels,
    pub(super) roles: Vec<Role>,
    pub(super) inside: Gate,
    pub(super) from_apps: Gate,
    pub(super) from_host: Gate,
    pub(super) to_outside: Gate,
    /// Its policy is only tried.
    pub(super) shadow: bool,
}

/// A role with a name of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) labels: Labels,
    pub(super) ports: Vec<NamedPort>,
}

pub(super) type NamedPort = (&'static str, Protocol, u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Closed,
}

/// An endpoint, or a host itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) name: &'static str,
    /// A host is of none.
    pub(super) app: Option<usize>,
    pub(super) labels: Labels,
    pub(super) ports: Vec<NamedPort>,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
    /// As whom a host sends to each app, by the apps' places.
    pub(super) gateways: Vec<[IpAddr; 2]>,
    pub(super) attached: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// Of which policy, or which rule of none.
    pub(super) owner: String,
    pub(super) shadow: bool,
    pub(super) action: Action,
    pub(super) from: Who,
    pub(super) to: Who,
    pub(super) what: What,
    pub(super) on: Option<Direction>,
    pub(super) precedence: i32,
}

/// In the order in which they beat each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Pass,
    Allow,
    Deny,
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Egress,
    Ingress,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Who {
    App(&'static str),
    Role(&'static str, &'static str),
    Labelled(Apps, Vec<Demand>),
    Any,
    Everyone,
    Host,
    Outside,
    Net(Net, Vec<Net>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Apps {
    Named(&'static str),
    Every,
    With(Vec<Demand>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Demand {
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    Absent(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Net {
    pub(super) addr: IpAddr,
    pub(super) len: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Any,
    Ports(Protocol, Vec<Port>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Port {
    Range(u16, u16),
    Named(&'static str),
}

/// The first packet of a flow. Endpoints are told by their places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) v6: bool,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// Whether each side lets a packet pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) out: bool,
    pub(super) into: bool,
}

impl State {
    /// What is said of a packet. Who is not attached neither sends nor receives.
    /// What a side of a verdict may be of while these take each other's place, in order. Who an endpoint is its own host knows
    /// and its packets tell, so of a state there may be the endpoints where the rules are still those of an earlier one.
    pub(super) fn mixed(states: &[Self]) -> Vec<Self> {
        let of = |(at, rules): (usize, &Self)| {
            let later = states[at + 1..].iter().filter(|later| later.endpoints != rules.endpoints);
            let mixed = later.map(|later| Self { endpoints: later.endpoints.clone(), ..rules.clone() });
            [rules.clone()].into_iter().chain(mixed).collect::<Vec<_>>()
        };
        states.iter().enumerate().flat_map(of).collect()
    }

    pub(super) fn verdict(&self, packet: Packet) -> Verdict {
        let side = |of: usize, direction| self.endpoints[of].attached && self.passes(packet, direction);
        Verdict { out: side(packet.from, Direction::Egress), into: side(packet.to, Direction::Ingress) }
    }

    fn passes(&self, packet: Packet, direction: Direction) -> bool {
        let [from, to] = [packet.from, packet.to].map(|at| self.endpoints[at].app.map(|app| &self.apps[app]));
        let keeper = if direction == Direction::Egress { from } else { to };
        if keeper.is_some_and(|app| app.shadow) {
            return true;
        }
        match self.decided_below(packet, direction, i32::MAX) {
            Some(Action::Allow) => true,
            Some(Action::Deny | Action::Reject) => false,
            Some(Action::Pass) | None => {
                let gate = match (direction, from, to) {
                    (Direction::Egress, Some(from), None) => from.to_outside,
                    // What endpoints may send to each other is for the receiver's defaults to say, and hosts have none.
                    (Direction::Egress, ..) | (Direction::Ingress, _, None) => Gate::Open,
                    (Direction::Ingress, None, Some(to)) => to.from_host,
                    (Direction::Ingress, Some(from), Some(to)) if from.name == to.name => to.inside,
                    (Direction::Ingress, Some(_), Some(to)) => to.from_apps,
                };
                gate == Gate::Open
            }
        }
    }

    /// What the rules with at most this precedence say.
    fn decided_below(&self, packet: Packet, direction: Direction, highest: i32) -> Option<Action> {
        let speaks = |rule: &&Rule| rule.precedence <= highest && self.speaks(rule, packet, direction);
        let first = self.rules.iter().filter(speaks).max_by_key(|rule| (rule.precedence, rule.action))?;
        if first.action == Action::Pass && first.precedence >= UPPER {
            return self.decided_below(packet, direction, UPPER - 1);
        }
        Some(first.action)
    }

    fn speaks(&self, rule: &Rule, packet: Packet, direction: Direction) -> bool {
        let keeper = if direction == Direction::Egress { &rule.from } else { &rule.to };
        // An address keeps no rules.
        let kept = rule.on.is_none_or(|on| on == direction) && !matches!(keeper, Who::Net(..));
        kept && !rule.shadow
            && self.means(&rule.from, packet.from, self.source(packet))
            && self.means(&rule.to, packet.to, self.endpoints[packet.to].addr(packet.v6))
            && self.carries(rule, packet)
    }

    /// From which address somebody sends: a host from that which it has in the receiver's app, or in the first.
    fn source(&self, packet: Packet) -> IpAddr {
        let sender = &self.endpoints[packet.from];
        let own = sender.gateways.get(self.endpoints[packet.to].app.unwrap_or(0));
        own.map_or(sender.addr(packet.v6), |own| own[usize::from(packet.v6)])
    }

    fn means(&self, who: &Who, at: usize, addr: IpAddr) -> bool {
        let endpoint = &self.endpoints[at];
        let Some(app) = endpoint.app.map(|app| &self.apps[app]) else {
            return match who {
                Who::Everyone | Who::Host => true,
                Who::Net(net, except) => net.has(addr) && !except.iter().any(|hole| hole.has(addr)),
                Who::App(_) | Who::Role(..) | Who::Labelled(..) | Who::Any | Who::Outside => false,
            };
        };
        match who {
            Who::App(name) => app.name == *name,
            Who::Role(of, name) => {
                let is_labelled = endpoint.labels.get("role") == Some(name);
                let same = |role: &Role| role.labels == endpoint.labels && role.ports == endpoint.ports;
                app.name == *of && (is_labelled || app.roles.iter().any(|role| role.name == *name && same(role)))
            }
            Who::Labelled(apps, demands) => {
                let of = match apps {
                    Apps::Named(name) => app.name == *name,
                    Apps::Every => true,
                    Apps::With(demands) => demands.iter().all(|demand| demand.holds(&app.labels)),
                };
                of && demands.iter().all(|demand| demand.holds(&endpoint.labels))
            }
            Who::Any | Who::Everyone => true,
            Who::Host | Who::Outside => false,
            Who::Net(net, except) => net.has(addr) && !except.iter().any(|hole| hole.has(addr)),
        }
    }

    fn carries(&self, rule: &Rule, packet: Packet) -> bool {
        let What::Ports(protocol, ports) = &rule.what else { return true };
        let receiver = &self.endpoints[packet.to];
        let is_it = |port: &Port| match *port {
            Port::Range(first, last) => (first..=last).contains(&packet.port),
            Port::Named(name) => receiver.ports.contains(&(name, packet.protocol, packet.port)),
        };
        *protocol == packet.protocol && (ports.is_empty() || ports.iter().any(is_it))
    }
}

impl Endpoint {
    fn addr(&self, v6: bool) -> IpAddr {
        if v6 { self.v6 } else { self.v4 }
    }
}

impl Demand {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
        }
    }
}

impl Net {
    fn has(self, addr: IpAddr) -> bool {
        let bits = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => (32, u128::from(u32::from(addr))),
            IpAddr::V6(addr) => (128, u128::from(addr)),
        };
        let ((whole, own), (other_whole, other)) = (bits(self.addr), bits(addr));
        let rest = u32::from(whole - self.len);
        whole == other_whole && own.checked_shr(rest) == other.checked_shr(rest)
    }
}

/// As the command line and manifests have it, without a name.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner: _, shadow, action, from, to, what, on, precedence } = self;
        write!(f, "{}{} {from} -> {to} {what}", if *shadow { "shadow " } else { "" }, action.word())?;
        match on {
            Some(Direction::Egress) => f.write_str(" on egress")?,
            Some(Direction::Ingress) => f.write_str(" on ingress")?,
            None => {}
        }
        write!(f, " precedence {precedence}")
    }
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

impl Gate {
    pub(super) fn word(self) -> &'static str {
        if self == Self::Open { "open" } else { "closed" }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => f.write_str(name),
            Self::Role(app, role) => write!(f, "{app}/{role}"),
            Self::Labelled(apps, demands) => {
                match apps {
                    Apps::Named(name) => f.write_str(name)?,
                    Apps::Every => f.write_str("any")?,
                    Apps::With(demands) => write!(f, "[{}]", joined(demands))?,
                }
                if demands.is_empty() { Ok(()) } else { write!(f, "{{{}}}", joined(demands)) }
            }
            Self::Any => f.write_str("any"),
            Self::Everyone => f.write_str("everyone"),
            Self::Host => f.write_str("host"),
            Self::Outside => f.write_str("outside"),
            Self::Net(net, except) if except.is_empty() => net.fmt(f),
            Self::Net(net, except) => write!(f, "{net} except {}", joined(except)),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
            Self::Exists(key) => f.write_str(key),
            Self::Absent(key) => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ports(protocol, ports) = self else { return f.write_str("any") };
        f.write_str(if *protocol == Protocol::Tcp { "tcp" } else { "udp" })?;
        if ports.is_empty() { Ok(()) } else { write!(f, "/{}", joined(ports)) }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) if first == last => first.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

fn joined<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
