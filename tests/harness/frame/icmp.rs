//! ICMP and ICMPv6: echo, and errors that quote a packet.

use super::packet::{Packet, Transport};
use super::{Frame, Station};
use std::net::IpAddr;

/// What an ICMP error says. The family of the sender decides how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nobody routes there.
    NoRoute,
    /// The router knows the link but not the host.
    HostUnreachable,
    /// A filter says no.
    Prohibited,
    /// Nobody listens at this port.
    PortUnreachable,
    /// Too long for the next link, whose MTU is this.
    TooBig(u32),
    /// It has crossed too many routers.
    TimeExceeded,
    /// The byte at this place makes no sense.
    Parameter(u8),
}

/// The longest errors are: 576 bytes with the IPv4 header (RFC 1812), 1280 with the IPv6 header (RFC 4443).
const QUOTE_V4: usize = 576 - 20 - 8;
const QUOTE_V6: usize = 1280 - 40 - 8;

/// An echo request with identifier and sequence number.
pub fn echo_request(src: Station, dst: Station, [identifier, sequence]: [u16; 2]) -> Packet {
    let kind = by_family(src, 8, 128);
    Packet::new(src, dst, Transport::Icmp { kind, code: 0, rest: pair(identifier, sequence) })
}

/// An echo reply with identifier and sequence number.
pub fn echo_reply(src: Station, dst: Station, [identifier, sequence]: [u16; 2]) -> Packet {
    let kind = by_family(src, 0, 129);
    Packet::new(src, dst, Transport::Icmp { kind, code: 0, rest: pair(identifier, sequence) })
}

/// An error about the packet that `about` carries, quoted as far as the protocol lets it be.
///
/// The quote is the payload: [`Packet::payload`] puts a shorter or a forged one in its place.
pub fn error(src: Station, dst: Station, problem: Problem, about: &Frame) -> Packet {
    let (kind, code, rest) = match src.ip {
        IpAddr::V4(_) => match problem {
            Problem::NoRoute => (3, 0, [0; 4]),
            Problem::HostUnreachable => (3, 1, [0; 4]),
            Problem::Prohibited => (3, 13, [0; 4]),
            Problem::PortUnreachable => (3, 3, [0; 4]),
            Problem::TooBig(mtu) => (3, 4, mtu.to_be_bytes()),
            Problem::TimeExceeded => (11, 0, [0; 4]),
            Problem::Parameter(at) => (12, 0, [at, 0, 0, 0]),
        },
        IpAddr::V6(_) => match problem {
            Problem::NoRoute => (1, 0, [0; 4]),
            Problem::HostUnreachable => (1, 3, [0; 4]),
            Problem::Prohibited => (1, 1, [0; 4]),
            Problem::PortUnreachable => (1, 4, [0; 4]),
            Problem::TooBig(mtu) => (2, 0, mtu.to_be_bytes()),
            Problem::TimeExceeded => (3, 0, [0; 4]),
            Problem::Parameter(at) => (4, 0, [0, 0, 0, at]),
        },
    };
    let quote = about.l3();
    let longest = by_family(src, QUOTE_V4, QUOTE_V6);
    message(src, dst, [kind, code], rest).payload(&quote[..quote.len().min(longest)])
}

/// Any message: type and code, the four bytes after the checksum; the payload follows.
pub fn message(src: Station, dst: Station, [kind, code]: [u8; 2], rest: [u8; 4]) -> Packet {
    Packet::new(src, dst, Transport::Icmp { kind, code, rest })
}

fn by_family<T>(station: Station, v4: T, v6: T) -> T {
    match station.ip {
        IpAddr::V4(_) => v4,
        IpAddr::V6(_) => v6,
    }
}

fn pair(high: u16, low: u16) -> [u8; 4] {
    ((u32::from(high) << 16) | u32::from(low)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::packet::Checksum;
    use crate::frame::stations::PAIRS;
    use crate::frame::{decoded, tcp};

    #[test]
    fn an_echo_is_read_back() {
        for ([a, b], kinds) in PAIRS.into_iter().zip([(8, 0), (128, 129)]) {
            let there = echo_request(a, b, [7, 1]).payload(b"odd").frame().decode();
            let back = echo_reply(b, a, [7, 1]).frame().decode();
            assert_eq!((there.icmp(), back.icmp()), (Some((kinds.0, 0)), Some((kinds.1, 0))));
            assert_eq!((there.faults.len(), back.faults.len()), (0, 0), "{there} {back}");
            let broken = echo_request(a, b, [7, 1]).checksum(Checksum::Wrong).frame().decode();
            assert_eq!(broken.faults.len(), 1, "{broken}");
        }
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        for ([a, b], longest) in PAIRS.into_iter().zip([576, 1280]) {
            let about = tcp(a, b).payload_length(1400).ack();
            let error = error(b, a, Problem::TooBig(1300), &about).frame();
            assert_eq!(error.l3().len(), longest);
            let read = error.decode();
            assert_eq!(read.faults.len(), 0, "{read}");
            assert!(about.l3().starts_with(&read.payload));
            let decoded::Transport::Icmp { rest, .. } = read.transport else { panic!("{read}") };
            assert_eq!(rest, 1300_u32.to_be_bytes());
        }
    }
}
