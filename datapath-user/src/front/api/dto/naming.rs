//! How operators name things in requests: namespaces, endpoints, rules, the two ends of a question, one packet.

use std::{fmt, net::IpAddr, str::FromStr};

use weft_common::header::protocol;

use super::text;
use crate::model::{
    endpoint::{DefaultRoute, EndpointKey, NetnsPath},
    invalid::Invalid,
    labels::{LabelKey, LabelValue, label},
    name::{AppName, EndpointName, RuleName},
    prefix::Family,
    rule::Rule,
    traffic::{NamedPorts, Region, Traffic},
};

/// The namespace that an interface is put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// That of a process.
    Pid(u32),
    /// A file that stands for it.
    Path(NetnsPath),
    /// A namespace of `ip netns`, or a container by name or id.
    Name(TargetName),
}

/// A name that is safe as one part of a path: no separator, and no dot in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName(String);

/// What is to be detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detachable {
    /// One endpoint.
    Endpoint(EndpointKey),
    /// An endpoint of this name; else whatever is in the namespace.
    Target(Target),
}

/// The namespace's default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gateway {
    /// To the app's gateway, if the namespace has no default route.
    #[default]
    Auto,
    /// To the app's gateway, in place of any other.
    Replace,
    /// Left as it is.
    None,
    /// To this address, in place of any other.
    Address(IpAddr),
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichRule {
    /// By its number: `#7`.
    Id(u32),
    /// By its name.
    Name(RuleName),
    /// By what it says.
    Says(Box<Rule>),
}

/// One end of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// Whoever has the address.
    Address(IpAddr),
    /// This host.
    Host,
    /// Whatever is neither an endpoint nor a host.
    Outside,
    /// An app, or else an endpoint that is called so.
    Name(EndpointName),
    /// A role of the app, or else its endpoint that is called so.
    Member(AppName, EndpointName),
    /// One of these that has the address, wherever it is.
    At(Box<Party>, IpAddr),
}

/// The first packet of a connection, as a question describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Transport protocol, and destination port or ICMP type and code.
    pub v4: (u8, u16),
    /// The same between IPv6 addresses.
    pub v6: (u8, u16),
}

/// A label that is to be there, or is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelChange {
    /// `KEY=VALUE`.
    Set(LabelKey, LabelValue),
    /// `KEY-`.
    Unset(LabelKey),
}

impl FromStr for LabelChange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_suffix('-').filter(|_| !text.contains('=')) {
            Some(key) => Ok(Self::Unset(key.parse()?)),
            None => label(text).map(|(key, value)| Self::Set(key, value)),
        }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl TargetName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        /// `NAME_MAX`.
        const LONGEST: usize = 255;
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let fits = !text.is_empty() && text.len() <= LONGEST && !text.starts_with(['.', '-']);
        if !fits || !text.bytes().all(inner) {
            let help = "give a process id, the absolute path of a namespace as /run/netns/x, or the name of a namespace or container";
            return Err(Invalid::new("target", text, help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Digits are a process, unless no process can have the number: then they are the start of a container's id.
impl FromStr for Target {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        /// `PID_MAX_LIMIT` of a 64-bit kernel.
        const PID_MAX: u32 = 1 << 22;
        if text.starts_with('/') {
            return Ok(Self::Path(text.parse()?));
        }
        let digits = !text.is_empty() && text.len() <= 7 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(0) if digits => Err(Invalid::new("process id", text, "no process has the number 0")),
            Ok(pid) if digits && pid <= PID_MAX => Ok(Self::Pid(pid)),
            _ => Ok(Self::Name(text.parse()?)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "{pid}"),
            Self::Path(path) => f.write_str(path.as_str()),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

impl FromStr for Detachable {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.contains('/') && !text.starts_with('/') {
            return Ok(Self::Endpoint(text.parse()?));
        }
        Ok(Self::Target(text.parse()?))
    }
}

impl fmt::Display for Detachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(key) => write!(f, "{key}"),
            Self::Target(target) => write!(f, "{target}"),
        }
    }
}

impl Gateway {
    /// What it means for the namespace's default route.
    pub fn default_route(self) -> DefaultRoute {
        match self {
            Self::Auto => DefaultRoute::IfNone,
            Self::Replace | Self::Address(_) => DefaultRoute::Replace,
            Self::None => DefaultRoute::Leave,
        }
    }
}

impl FromStr for Gateway {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "auto" => Ok(Self::Auto),
            "replace" => Ok(Self::Replace),
            "none" => Ok(Self::None),
            _ => match text::address(text) {
                Ok(address) => Ok(Self::Address(address)),
                Err(_) => Err(Invalid::new("gateway", text, "use auto, replace, none, or an address")),
            },
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Replace => f.write_str("replace"),
            Self::None => f.write_str("none"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for WhichRule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(id) = text.strip_prefix('#') {
            let help = "write '#' and the number that policy ls shows, as #7";
            return id.parse().map(Self::Id).map_err(|_| Invalid::new("rule number", text, help));
        }
        if text.contains([' ', '\t', '>']) {
            return Ok(Self::Says(Box::new(text.parse()?)));
        }
        Ok(Self::Name(text.parse()?))
    }
}

impl fmt::Display for WhichRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "#{id}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Says(rule) => write!(f, "{rule}"),
        }
    }
}

const PARTY_HELP: &str = "use an address, an endpoint as shop/web-1, a role as shop/web, an app, host or outside; \
                          shop/web@10.1.2.7 is the role at an address";

impl FromStr for Party {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("end of a connection", text, PARTY_HELP);
        match text {
            "host" => return Ok(Self::Host),
            "outside" => return Ok(Self::Outside),
            "any" => return Err(Invalid::new("end of a connection", text, "name one of them: an app or an endpoint")),
            _ => {}
        }
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self::Address(text::address(text)?));
        }
        if let Some((who, address)) = text.split_once('@') {
            return match who.parse()? {
                who @ (Self::Name(_) | Self::Member(..)) => Ok(Self::At(Box::new(who), text::address(address)?)),
                Self::Address(_) | Self::Host | Self::Outside | Self::At(..) => Err(refuse()),
            };
        }
        match text.split_once('/') {
            Some((app, name)) => match (app.parse(), name.parse()) {
                (Ok(app), Ok(name)) => Ok(Self::Member(app, name)),
                _ => Err(refuse()),
            },
            None => text.parse().map(Self::Name).map_err(|_| refuse()),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host => f.write_str("host"),
            Self::Outside => f.write_str("outside"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Member(app, name) => write!(f, "{app}/{name}"),
            Self::At(party, address) => write!(f, "{party}@{address}"),
        }
    }
}

impl Probe {
    /// Transport protocol, and destination port or ICMP type and code, between addresses of a family.
    pub fn of(self, family: Family) -> (u8, u16) {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What a rule's traffic is, of which exactly one packet: `tcp/5432`. `icmp` alone is an echo request.
impl FromStr for Probe {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = match text {
            "icmp" => "icmp/8/0",
            "icmpv6" => "icmpv6/128/0",
            other => other,
        };
        let regions = text.parse::<Traffic>()?.regions(&NamedPorts::default()).unwrap_or_default();
        // A type without a code means the first.
        let first = |region: &Region| {
            let (from, to) = (*region.ports.start(), *region.ports.end());
            let icmp = matches!(region.protocol, protocol::ICMP | protocol::ICMPV6);
            (from == to || icmp).then_some((region.protocol, from))
        };
        match regions.as_slice() {
            [one] => first(one).map(|point| Self { v4: point, v6: point }),
            [v4, v6] if v4.protocol == protocol::ICMP && v6.protocol == protocol::ICMPV6 => {
                first(v4).zip(first(v6)).map(|(v4, v6)| Self { v4, v6 })
            }
            _ => None,
        }
        .ok_or_else(|| Invalid::new("packet", text, "name one protocol and one port, as tcp/5432, udp/53 or icmp"))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, port) = self.v4;
        let protocol = Protocol(number);
        match number {
            protocol::ICMP | protocol::ICMPV6 => write!(f, "{protocol}/{}/{}", port >> 8, port & 0xff),
            _ => write!(f, "{protocol}/{port}"),
        }
    }
}

impl Protocol {
    const NAMED: [(u8, &'static str); 5] = [
        (protocol::ICMP, "icmp"),
        (protocol::TCP, "tcp"),
        (protocol::UDP, "udp"),
        (protocol::ICMPV6, "icmpv6"),
        (protocol::SCTP, "sctp"),
    ];
}

impl FromStr for Protocol {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some((number, _)) = Self::NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(Self(*number));
        }
        let help = "use tcp, udp, sctp, icmp, icmpv6, or a number up to 255";
        text.parse().map(Self).map_err(|_| Invalid::new("protocol", text, help))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
