//! Which packets between two parties: protocol, and ports or ICMP types.
//!
//! `icmp` in a rule is what an operator means by it in both families: ICMP and ICMPv6, all types. With a type
//! it is ICMP's number; the two types that both families have under different numbers, echo request and echo
//! reply, stand for both: `icmp/8` is also ICMPv6 type 128, `icmp/0` also 129. Every other type of ICMPv6 is
//! only reached by `icmpv6/TYPE`.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use weft_common::header::protocol;

use super::invalid::Invalid;

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
    /// Some.
    Only(Ranges),
}

/// Ranges of ports, in order, neither touching nor overlapping, at least one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u16, u16)>);

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
        if merged.is_empty() {
            return Err(Invalid::new("list of ports", "", "name at least one, or leave out the '/'"));
        }
        Ok(Self(merged))
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.0.iter().map(|&(from, to)| from..=to)
    }
}

impl Traffic {
    /// The parts of the look-up space it covers; `None` is all of it.
    pub fn regions(&self) -> Option<Vec<Region>> {
        match self {
            Self::Any => None,
            Self::Tcp(ports) => Some(ports.regions(protocol::TCP)),
            Self::Udp(ports) => Some(ports.regions(protocol::UDP)),
            Self::Sctp(ports) => Some(ports.regions(protocol::SCTP)),
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
    fn regions(&self, protocol: u8) -> Vec<Region> {
        match self {
            Self::All => vec![Region { protocol, ports: 0..=u16::MAX }],
            Self::Only(ranges) => ranges.iter().map(|ports| Region { protocol, ports }).collect(),
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
        let ranges = text.split(',').map(|part| match part.split_once('-') {
            Some((from, to)) => Ok((port(from)?, port(to)?)),
            None => port(part).map(|port| (port, port)),
        });
        Ok(Self::Only(Ranges::new(ranges.collect::<Result<Vec<_>, _>>()?)?))
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
        let Self::Only(Ranges(ranges)) = self else { return Ok(()) };
        for (at, (from, to)) in ranges.iter().enumerate() {
            f.write_str(if at == 0 { "/" } else { "," })?;
            if from == to { write!(f, "{from}")? } else { write!(f, "{from}-{to}")? }
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
            "tcp/http",
        ] {
            let error = text.parse::<Traffic>().unwrap_err().to_string();
            assert!(error.contains(" is no "), "{text}: {error}");
        }
    }

    #[test]
    fn echo_is_one_thing_in_both_families() {
        let check = |text: &str, expect: &[(u8, u16, u16)]| {
            let regions = text.parse::<Traffic>().unwrap().regions().unwrap();
            let found: Vec<_> = regions.iter().map(|r| (r.protocol, *r.ports.start(), *r.ports.end())).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("icmp", &[(1, 0, 0xffff), (58, 0, 0xffff)]);
        check("icmp/8", &[(1, 0x0800, 0x08ff), (58, 0x8000, 0x80ff)]);
        check("icmp/0/0", &[(1, 0, 0), (58, 0x8100, 0x8100)]);
        check("icmp/3", &[(1, 0x0300, 0x03ff)]);
        check("icmpv6/128", &[(58, 0x8000, 0x80ff)]);
        check("tcp/80,443", &[(6, 80, 80), (6, 443, 443)]);
        assert_eq!(Traffic::Any.regions(), None);
    }
}
