//! The first packet of a connection, as a container, a peer or the host would send it. Pure.

use weft_common::{
    addr::Ip,
    checksum::Sum,
    header::{Ether, Icmp, Ipv4Hdr, Ipv6Hdr, Tcp, UdpHdr, as_bytes, protocol},
    id::Identity,
    tunnel::{Inner, Outer4, Outer6, Peer},
};

/// A port that clients have: of the range of RFC 6335 §6.
const CLIENT: u16 = 50_321;

const TTL: u8 = 64;

/// What is in front of and behind the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Who sends.
    pub(super) src: Ip,
    /// Who receives.
    pub(super) dst: Ip,
    /// Link header, with the addresses of the first hop.
    pub(super) ether: Ether,
}

/// The frame of a packet of `protocol` to `port`, which of ICMP is type and code.
pub(super) fn frame(ends: &Ends, protocol: u8, port: u16) -> Vec<u8> {
    let Ends { src, dst, ether } = *ends;
    let segment = transport(ends, protocol, port);
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
    let mut frame = as_bytes(&ether).to_vec();
    if src.is_v4() {
        let mut ip = Ipv4Hdr {
            vihl: 0x45,
            tos: 0,
            tot_len: (length + 20).to_be_bytes(),
            id: [0, 1],
            frags: [0x40, 0],
            ttl: TTL,
            proto: protocol,
            check: [0; 2],
            src_addr: src.v4(),
            dst_addr: dst.v4(),
        };
        ip.check = Sum::default().add_bytes(as_bytes(&ip)).field();
        frame.extend_from_slice(as_bytes(&ip));
    } else {
        let ip = Ipv6Hdr {
            vcf: [0x60, 0, 0, 0],
            payload_len: length.to_be_bytes(),
            next_hdr: protocol,
            hop_limit: TTL,
            src_addr: src.bytes(),
            dst_addr: dst.bytes(),
        };
        frame.extend_from_slice(as_bytes(&ip));
    }
    frame.extend_from_slice(&segment);
    frame
}

/// The frame in the tunnel, as `peer` would send it for an endpoint that is `identity`.
pub(super) fn tunnelled(frame: &[u8], ether: Ether, identity: Identity, (peer, port): (&Peer, u16)) -> Vec<u8> {
    // What is sent there is received here.
    let there = Peer { addr: peer.local, local: peer.addr, ..*peer };
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let inner = Inner { ether, len, tos: 0, entropy: u32::from(CLIENT), identity };
    let mut wrapped = if there.addr.is_v4() {
        as_bytes(&Outer4::new(&there, port, &inner)).to_vec()
    } else {
        as_bytes(&Outer6::new(&there, port, &inner)).to_vec()
    };
    // The headers end with the inner link header, with which the frame starts.
    wrapped.truncate(wrapped.len() - as_bytes(&ether).len());
    wrapped.extend_from_slice(frame);
    wrapped
}

/// The transport header with its checksum, and a word behind it where the protocol carries any.
fn transport(ends: &Ends, number: u8, port: u16) -> Vec<u8> {
    const WORD: &[u8] = b"weft";

    let (src, dst) = (CLIENT.to_be_bytes(), port.to_be_bytes());
    let [kind, code] = dst;
    // Where the checksum is, if it is the internet's.
    let (mut bytes, check) = match number {
        protocol::TCP => {
            let syn = Tcp {
                source: src,
                destination: dst,
                seq: [0, 0, 0, 1],
                offset: 5 << 4,
                flags: Tcp::SYN,
                window: [0xff; 2],
                ..Tcp::default()
            };
            (as_bytes(&syn).to_vec(), Some(16))
        }
        protocol::UDP | protocol::UDP_LITE => {
            let length = [0, 12];
            let header = UdpHdr { src, dst, len: length, check: [0; 2] };
            ([as_bytes(&header), WORD].concat(), Some(6))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let header = Icmp { kind, code, check: [0; 2], rest: [0, 1, 0, 1] };
            ([as_bytes(&header), WORD].concat(), Some(2))
        }
        // Ports, a tag, and no checksum that anybody on the way looks at.
        protocol::SCTP => ([src.as_slice(), &dst, &[0; 8], WORD].concat(), None),
        _ => (WORD.to_vec(), None),
    };
    if let Some(at) = check {
        let sum = sum(ends, number, &bytes);
        bytes[at..at + 2].copy_from_slice(&sum);
    }
    bytes
}

/// The checksum over the transport and, but for ICMP of IPv4, the pseudo header.
fn sum(ends: &Ends, number: u8, segment: &[u8]) -> [u8; 2] {
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    let pseudo =
        if number == protocol::ICMP { Sum::default() } else { Sum::pseudo(&ends.src, &ends.dst, number, length) };
    pseudo.add_bytes(segment).field()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_common::{
        header::Bytes,
        id::{AppId, RoleId},
        parse::{Kind, parse},
        tunnel::open,
    };

    const V4: [&str; 2] = ["10.1.1.2", "10.2.0.9"];
    const V6: [&str; 2] = ["fd00:1::2", "fd00:2::9"];

    fn ends([src, dst]: [&str; 2]) -> Ends {
        let ip = |text: &str| Ip::from(text.parse::<std::net::IpAddr>().unwrap());
        let ethertype = if src.contains(':') { Ether::IPV6 } else { Ether::IPV4 };
        Ends { src: ip(src), dst: ip(dst), ether: Ether { dst: [2; 6], src: [4; 6], ethertype } }
    }

    #[test]
    fn a_packet_is_read_as_what_was_asked_for() {
        for addresses in [V4, V6] {
            let ends = ends(addresses);
            let icmp = if ends.src.is_v4() { (protocol::ICMP, 8 << 8) } else { (protocol::ICMPV6, 128 << 8) };
            for (number, port) in [
                (protocol::TCP, 5432),
                (protocol::UDP, 53),
                (protocol::SCTP, 80),
                (protocol::UDP_LITE, 1),
                icmp,
                (47, 0),
            ] {
                let frame = frame(&ends, number, port);
                let packet = parse(frame.as_slice(), Ether::LEN, ends.ether.ethertype).unwrap();
                assert_eq!((packet.src, packet.dst, packet.protocol), (ends.src, ends.dst, number));
                assert_eq!((packet.policy_port, packet.kind, packet.end as usize), (port, Kind::Whole, frame.len()));
                let segment = &frame[packet.l4.into()..];
                if ![protocol::SCTP, 47].contains(&number) {
                    assert_eq!(sum(&ends, number, segment), [0, 0], "{number}");
                }
            }
        }
    }

    #[test]
    fn a_peer_sends_it_in_the_tunnel() {
        for outer in [V4, V6] {
            let [local, addr] = [ends(outer).src, ends(outer).dst];
            let peer = Peer { addr, local, ..Peer::default() };
            let identity = Identity::new(AppId(4711), RoleId(7));
            let ends = ends(V4);
            let inner = frame(&ends, protocol::TCP, 80);
            let wrapped = tunnelled(&inner, ends.ether, identity, (&peer, 6784));
            let tunnel = open(wrapped.as_slice(), 6784).unwrap().unwrap();
            assert_eq!((tunnel.src, tunnel.dst, tunnel.identity), (addr, local, identity));
            assert_eq!(wrapped[tunnel.inner as usize..], inner);
            assert_eq!(Bytes::get::<Ether>(wrapped.as_slice(), tunnel.inner), Some(ends.ether));
        }
    }
}
