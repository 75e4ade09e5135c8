//! Which packets between two parties: protocol, and ports or ICMP types.
//!
//! `icmp` in a rule is what an operator means by it in both families: ICMP and ICMPv6, all types. With a type
//! it is ICMP's number; the two types that both families have under different numbers, echo request and echo
//! reply, stand for both: `icmp/8` is also ICMPv6 type 128, `icmp/0` also 129. Every other type of ICMPv6 is
//! only reached by `icmpv6/TYPE`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    str::FromStr,
};

use weft_common::header::protocol;

use super::{invalid::Invalid, name::PortName};

/// What a rule says of the transport header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Every protocol, known or not.
    Any,
    /// TCP to these ports.
    Tcp(Ports),
    /// UDP to these ports.
    Udp(Ports),
    /// SCTP to these ports.
    Sctp(Ports),
    /// ICMP, and the same in ICMPv6.
    Icmp(Types),
    /// ICMPv6 alone.
    Icmpv6(Types),
}

/// Destination ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every port.
    All,
    /// Some, by number, by the name that the receiving endpoint has for one, or both. At least one.
    Only(Ranges, BTreeSet<PortName>),
}

/// Ranges of ports, in order, neither touching nor overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u16, u16)>);

/// The ports that endpoints have names for, by name and protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPorts(BTreeMap<(PortName, u8), u16>);

/// ICMP types and codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Types {
    /// Every type.
    All,
    /// One type with every code.
    Type(u8),
    /// One type with one code.
    Code(u8, u8),
}

/// A part of the space that policy looks up in: a protocol's number, and ports. Of ICMP the port is
/// the type in the upper byte and the code in the lower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Number in the IP header.
    pub protocol: u8,
    /// From and to, both included.
    pub ports: RangeInclusive<u16>,
}

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

impl Ranges {
    /// The ports of `ranges`, each from and to, both included.
    pub fn new(ranges: impl IntoIterator<Item = (u16, u16)>) -> Result<Self, Invalid> {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
        for (from, to) in sorted {
            if from == 0 || from > to {
                let text = format!("{from}-{to}");
                return Err(Invalid::new("port range", &text, "use 1 to 65535, the lower one first"));
            }
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        Ok(Self(merged))
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.0.iter().map(|&(from, to)| from..=to)
    }
}

impl NamedPorts {
    /// The number of a port, if there is one of this name and protocol.
    pub fn get(&self, name: &PortName, protocol: u8) -> Option<u16> {
        self.0.get(&(name.clone(), protocol)).copied()
    }

    /// Names a port. The number that had the name before.
    pub fn set(&mut self, name: PortName, protocol: u8, port: u16) -> Option<u16> {
        self.0.insert((name, protocol), port)
    }

    /// Names the ports of `list`, as `tcp/80` or `tcp/53,udp/53`: one of each protocol.
    pub fn add(&mut self, name: &str, list: &str) -> Result<(), Invalid> {
        for port in list.split(',') {
            let (name, protocol, port) = named_port(&format!("{name}={}", port.trim()))?;
            if self.set(name.clone(), protocol, port).is_some_and(|before| before != port) {
                return Err(Invalid::new("named port", list, format!("{name} is there twice for a protocol")));
            }
        }
        Ok(())
    }

    /// Each name with its ports as [`Self::add`] reads them.
    pub fn lists(&self) -> BTreeMap<&PortName, String> {
        let mut lists: BTreeMap<&PortName, String> = BTreeMap::new();
        for (name, number, port) in self.iter() {
            let list = lists.entry(name).or_default();
            let separator = if list.is_empty() { "" } else { "," };
            list.extend([separator, &protocol_name(number), "/", &port.to_string()]);
        }
        lists
    }

    /// Name, protocol and number of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&PortName, u8, u16)> {
        self.0.iter().map(|((name, protocol), port)| (name, *protocol, *port))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a protocol is called, in rules too if they know it.
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".to_owned(),
        protocol::IGMP => "igmp".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// `http=tcp/80`.
pub fn named_port(text: &str) -> Result<(PortName, u8, u16), Invalid> {
    let refuse = || Invalid::new("named port", text, "write NAME=PROTOCOL/PORT, as http=tcp/80");
    let (name, traffic) = text.split_once('=').ok_or_else(refuse)?;
    let (protocol, ports) = match traffic.parse()? {
        Traffic::Tcp(ports) => (protocol::TCP, ports),
        Traffic::Udp(ports) => (protocol::UDP, ports),
        Traffic::Sctp(ports) => (protocol::SCTP, ports),
        Traffic::Any | Traffic::Icmp(_) | Traffic::Icmpv6(_) => return Err(refuse()),
    };
    let Ports::Only(Ranges(ranges), names) = ports else { return Err(refuse()) };
    match ranges.as_slice() {
        [(port, last)] if port == last && names.is_empty() => Ok((name.parse()?, protocol, *port)),
        _ => Err(refuse()),
    }
}

/// `dns=udp/53,http=tcp/80`; nothing for none.
impl FromStr for NamedPorts {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut ports = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (name, protocol, port) = named_port(part)?;
            if ports.set(name, protocol, port).is_some_and(|before| before != port) {
                return Err(Invalid::new("set of named ports", text, "the same name is there twice for a protocol"));
            }
        }
        Ok(ports)
    }
}

impl fmt::Display for NamedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, number, port)) in self.iter().enumerate() {
            write!(f, "{}{name}={}/{port}", if at > 0 { "," } else { "" }, protocol_name(number))?;
        }
        Ok(())
    }
}

impl Traffic {
    /// Whether it speaks of ports by name, so that what it covers depends on the receiving endpoint.
    pub fn names_ports(&self) -> bool {
        match self {
            Self::Tcp(ports) | Self::Udp(ports) | Self::Sctp(ports) => {
                matches!(ports, Ports::Only(_, names) if !names.is_empty())
            }
            Self::Any | Self::Icmp(_) | Self::Icmpv6(_) => false,
        }
    }

    /// What is left of it where ports have no names, if anything is.
    pub fn without_names(&self) -> Option<Self> {
        let only = |ports: &Ports| match ports {
            Ports::All => Some(Ports::All),
            Ports::Only(Ranges(ranges), _) if ranges.is_empty() => None,
            Ports::Only(ranges, _) => Some(Ports::Only(ranges.clone(), BTreeSet::new())),
        };
        match self {
            Self::Tcp(ports) => only(ports).map(Self::Tcp),
            Self::Udp(ports) => only(ports).map(Self::Udp),
            Self::Sctp(ports) => only(ports).map(Self::Sctp),
            Self::Any | Self::Icmp(_) | Self::Icmpv6(_) => Some(self.clone()),
        }
    }

    /// The parts of the look-up space it covers where the receiving endpoint has `named`; `None` is all of it. A name
    /// that the endpoint does not have is no port.
    pub fn regions(&self, named: &NamedPorts) -> Option<Vec<Region>> {
        match self {
            Self::Any => None,
            Self::Tcp(ports) => Some(ports.regions(protocol::TCP, named)),
            Self::Udp(ports) => Some(ports.regions(protocol::UDP, named)),
            Self::Sctp(ports) => Some(ports.regions(protocol::SCTP, named)),
            Self::Icmpv6(types) => Some(vec![types.region(protocol::ICMPV6)]),
            Self::Icmp(types) => {
                let v4 = types.region(protocol::ICMP);
                let v6 = types.of_v6().map(|types| types.region(protocol::ICMPV6));
                Some(std::iter::once(v4).chain(v6).collect())
            }
        }
    }
}

impl Ports {
    fn regions(&self, protocol: u8, named: &NamedPorts) -> Vec<Region> {
        match self {
            Self::All => vec![Region { protocol, ports: 0..=u16::MAX }],
            Self::Only(Ranges(ranges), names) => {
                let by_name = names.iter().filter_map(|name| named.get(name, protocol)).map(|port| (port, port));
                // A name may mean a port that is there by number, too: once is enough.
                let all = Ranges::new(ranges.iter().copied().chain(by_name)).unwrap_or_default();
                all.iter().map(|ports| Region { protocol, ports }).collect()
            }
        }
    }
}

impl Types {
    fn region(self, protocol: u8) -> Region {
        let ports = match self {
            Self::All => 0..=u16::MAX,
            Self::Type(kind) => u16::from_be_bytes([kind, 0])..=u16::from_be_bytes([kind, u8::MAX]),
            Self::Code(kind, code) => u16::from_be_bytes([kind, code])..=u16::from_be_bytes([kind, code]),
        };
        Region { protocol, ports }
    }

    /// What ICMPv6 calls the same, if it has it.
    fn of_v6(self) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Type(ECHO_REQUEST) => Some(Self::Type(ECHO_REQUEST_V6)),
            Self::Type(ECHO_REPLY) => Some(Self::Type(ECHO_REPLY_V6)),
            Self::Code(ECHO_REQUEST, code) => Some(Self::Code(ECHO_REQUEST_V6, code)),
            Self::Code(ECHO_REPLY, code) => Some(Self::Code(ECHO_REPLY_V6, code)),
            Self::Type(_) | Self::Code(..) => None,
        }
    }
}

impl FromStr for Traffic {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, rest) = match text.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        match (name, rest) {
            ("any", None) => Ok(Self::Any),
            ("any", Some(_)) => Err(Invalid::new("protocol", text, "ports need tcp, udp or sctp in front, as tcp/80")),
            ("tcp", rest) => Ok(Self::Tcp(rest.try_into()?)),
            ("udp", rest) => Ok(Self::Udp(rest.try_into()?)),
            ("sctp", rest) => Ok(Self::Sctp(rest.try_into()?)),
            ("icmp", rest) => Ok(Self::Icmp(rest.try_into()?)),
            ("icmpv6", rest) => Ok(Self::Icmpv6(rest.try_into()?)),
            _ => {
                Err(Invalid::new("protocol", text, "use tcp, udp, sctp, icmp, icmpv6 or any, with ports as tcp/80,443"))
            }
        }
    }
}

impl TryFrom<Option<&str>> for Ports {
    type Error = Invalid;

    fn try_from(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else { return Ok(Self::All) };
        let refuse = |part: &str| {
            Invalid::new("port", part, "use a number from 1 to 65535, a range as 8000-8100, or a list with ','")
        };
        let port = |part: &str| number(part).filter(|&port: &u16| port > 0).ok_or_else(|| refuse(part));
        let (mut ranges, mut names) = (Vec::new(), BTreeSet::new());
        for part in text.split(',') {
            // A name may have a '-' too, but has a letter.
            if part.bytes().any(|b| b.is_ascii_alphabetic()) {
                names.insert(part.parse()?);
                continue;
            }
            ranges.push(match part.split_once('-') {
                Some((from, to)) => (port(from)?, port(to)?),
                None => port(part).map(|port| (port, port))?,
            });
        }
        Ok(Self::Only(Ranges::new(ranges)?, names))
    }
}

impl TryFrom<Option<&str>> for Types {
    type Error = Invalid;

    fn try_from(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else { return Ok(Self::All) };
        let byte = |part: &str| {
            number(part)
                .ok_or_else(|| Invalid::new("ICMP type", part, "use icmp/TYPE or icmp/TYPE/CODE, each 0 to 255"))
        };
        match text.split_once('/') {
            None => Ok(Self::Type(byte(text)?)),
            Some((kind, code)) => Ok(Self::Code(byte(kind)?, byte(code)?)),
        }
    }
}

/// Digits only: `parse` would take "+80" and "080" too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if digits && (text == "0" || !text.starts_with('0')) { text.parse().ok() } else { None }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Tcp(ports) => write!(f, "tcp{ports}"),
            Self::Udp(ports) => write!(f, "udp{ports}"),
            Self::Sctp(ports) => write!(f, "sctp{ports}"),
            Self::Icmp(types) => write!(f, "icmp{types}"),
            Self::Icmpv6(types) => write!(f, "icmpv6{types}"),
        }
    }
}

/// With the '/' that goes in front.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Only(Ranges(ranges), names) = self else { return Ok(()) };
        let mut separator = "/";
        for (from, to) in ranges {
            f.write_str(separator)?;
            if from == to {
                write!(f, "{from}")?;
            } else {
                write!(f, "{from}-{to}")?;
            }
            separator = ",";
        }
        for name in names {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// With the '/' that goes in front.
impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Type(kind) => write!(f, "/{kind}"),
            Self::Code(kind, code) => write!(f, "/{kind}/{code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_only_numbers_are_left() {
        let check = |text: &str, expect: Option<&str>| {
            let left = text.parse::<Traffic>().unwrap().without_names().map(|left| left.to_string());
            assert_eq!(left.as_deref(), expect, "{text}");
        };
        check("tcp/80,http", Some("tcp/80"));
        check("sctp/http", None);
        check("udp", Some("udp"));
        check("icmp/8", Some("icmp/8"));
        check("any", Some("any"));
    }

    #[test]
    fn ports_are_normalised() {
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Traffic>().unwrap().to_string(), expect);
        check("any", "any");
        check("tcp", "tcp");
        check("tcp/443,80", "tcp/80,443");
        check("udp/8000-8100,8101,53,53", "udp/53,8000-8101");
        check("sctp/1-65535", "sctp/1-65535");
        check("tcp/10-20,15-17,1-9", "tcp/1-20");
        check("icmp", "icmp");
        check("icmp/8/0", "icmp/8/0");
        check("icmpv6/135", "icmpv6/135");
        check("tcp/web,80,http-alt,8080-8081", "tcp/80,8080-8081,http-alt,web");
    }

    #[test]
    fn named_ports_are_read_and_printed() {
        let ports: NamedPorts = "http=tcp/80,dns=udp/53,dns=tcp/53".parse().unwrap();
        assert_eq!(ports.to_string(), "dns=tcp/53,dns=udp/53,http=tcp/80");
        for text in
            ["http", "http=80", "http=tcp", "http=tcp/80-81", "http=tcp/80,81", "80=tcp/80", "a=tcp/b", "a=icmp/8"]
        {
            text.parse::<NamedPorts>().unwrap_err();
        }
        for (name, list) in ports.lists() {
            let mut read = NamedPorts::default();
            read.add(name.as_str(), &list).unwrap();
            assert_eq!(read.lists()[name], list);
        }
        assert_eq!(ports.lists().into_values().collect::<Vec<_>>(), ["tcp/53,udp/53", "tcp/80"]);
        assert!(NamedPorts::default().add("a", "tcp/1, tcp/2").unwrap_err().to_string().contains("twice"));
        assert!("a=tcp/1,a=tcp/2".parse::<NamedPorts>().unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn what_is_no_traffic_is_refused_by_name() {
        for text in [
            "",
            "TCP",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/80-",
            "tcp/-80",
            "tcp/9-8",
            "tcp/80,,81",
            "tcp/ 80",
            "tcp/+80",
            "tcp/080",
            "any/80",
            "icmp/256",
            "icmp/8/",
            "icmp/8/0/0",
            "icmp/",
            "gre",
            "tcp/80/81",
            "tcp/-http",
            "tcp/Http",
        ] {
            let error = text.parse::<Traffic>().unwrap_err().to_string();
            assert!(error.contains(" is no "), "{text}: {error}");
        }
    }

    #[test]
    fn echo_is_one_thing_in_both_families() {
        let check = |text: &str, expect: &[(u8, u16, u16)]| {
            let regions = text.parse::<Traffic>().unwrap().regions(&"web=tcp/80".parse().unwrap()).unwrap();
            let found: Vec<_> = regions.iter().map(|r| (r.protocol, *r.ports.start(), *r.ports.end())).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("icmp", &[(1, 0, 0xffff), (58, 0, 0xffff)]);
        check("icmp/8", &[(1, 0x0800, 0x08ff), (58, 0x8000, 0x80ff)]);
        check("icmp/0/0", &[(1, 0, 0), (58, 0x8100, 0x8100)]);
        check("icmp/3", &[(1, 0x0300, 0x03ff)]);
        check("icmpv6/128", &[(58, 0x8000, 0x80ff)]);
        check("tcp/80,443", &[(6, 80, 80), (6, 443, 443)]);
        check("tcp/web,81", &[(6, 80, 81)]);
        // The name is one of TCP.
        check("udp/web", &[]);
        assert_eq!(Traffic::Any.regions(&NamedPorts::default()), None);
    }
}
