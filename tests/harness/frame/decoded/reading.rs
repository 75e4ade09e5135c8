//! From etherparse's slices to a [`Decoded`], checking on the way.

use super::{Decoded, Fragment, Ip, Net, Transport, Tunnel};
use crate::frame::packet::Checksum;
use crate::frame::{Station, tunnel};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    ArpPacketSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv6FragmentHeaderSlice, LaxIpPayloadSlice, LaxIpv4Slice,
    LaxIpv6Slice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpOptionElement, TcpSlice, TransportSlice, UdpSlice,
    ip_number,
};
use std::net::{IpAddr, Ipv4Addr};

/// weft's port, the one of the RFC, and the one that Linux had before there was an RFC.
const TUNNEL_PORTS: [u16; 3] = [tunnel::PORT, 4789, 8472];

impl Decoded {
    pub(super) fn take(&mut self, sliced: &LaxSlicedPacket<'_>) {
        if let Some(LinkSlice::Ethernet2(ether)) = &sliced.link {
            (self.src_mac, self.dst_mac) = (ether.source(), ether.destination());
        }
        self.vlans = sliced.vlan_ids().iter().map(|id| id.value()).collect();
        if let Some(payload) = sliced.ether_payload() {
            self.ethertype = payload.ether_type.0;
            self.payload = payload.payload.to_vec();
        }
        if let Some((error, layer)) = &sliced.stop_err {
            self.faults.push(format!("{layer}: {error}"));
        }
        match &sliced.net {
            Some(LaxNetSlice::Arp(arp)) => self.take_arp(arp),
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                self.check("ip", header.header_checksum, header.calc_header_checksum());
                self.take_ip_payload(ipv4(ip), ip.payload(), sliced.transport.as_ref());
            }
            Some(LaxNetSlice::Ipv6(ip)) => self.take_ip_payload(ipv6(ip), ip.payload(), sliced.transport.as_ref()),
            None => {}
        }
    }

    fn take_arp(&mut self, arp: &ArpPacketSlice<'_>) {
        match arp.to_packet().try_eth_ipv4() {
            Ok(arp) => {
                let station = |mac, ip| Station::new(mac, Ipv4Addr::from(ip).into());
                self.net = Net::Arp {
                    operation: arp.operation.0,
                    sender: station(arp.sender_mac, arp.sender_ipv4),
                    target: station(arp.target_mac, arp.target_ipv4),
                };
                self.payload.clear();
            }
            Err(error) => self.faults.push(format!("arp: {error}")),
        }
    }

    fn take_ip_payload(&mut self, ip: Ip, payload: &LaxIpPayloadSlice<'_>, whole: Option<&TransportSlice<'_>>) {
        if payload.incomplete {
            self.faults.push("shorter than its IP length".into());
        }
        self.payload = payload.payload.to_vec();
        match whole {
            Some(transport) => {
                let checksum = self.check_transport(&ip, transport);
                self.take_transport(transport, checksum);
            }
            // The checksum of a first fragment is that of the whole packet.
            None if ip.fragment.is_some_and(|fragment| fragment.offset == 0) => {
                if let Some(transport) = first_fragment(ip.protocol, payload.payload) {
                    self.take_transport(&transport, Checksum::Right);
                }
            }
            None => {}
        }
        self.net = Net::Ip(ip);
    }

    fn take_transport(&mut self, transport: &TransportSlice<'_>, checksum: Checksum) {
        let (header, payload) = match transport {
            TransportSlice::Tcp(tcp) => {
                let header = Transport::Tcp {
                    ports: [tcp.source_port(), tcp.destination_port()],
                    flags: tcp.slice()[13],
                    sequence: tcp.sequence_number(),
                    acknowledgment: tcp.acknowledgment_number(),
                    window: tcp.window_size(),
                    mss: tcp.options_iterator().find_map(|option| match option {
                        Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                        _ => None,
                    }),
                };
                (header, tcp.payload())
            }
            TransportSlice::Udp(udp) => {
                self.take_tunnel(udp);
                (Transport::Udp { ports: [udp.source_port(), udp.destination_port()], checksum }, udp.payload())
            }
            TransportSlice::Icmpv4(icmp) => {
                // Etherparse counts more to the header where the type has more fields.
                (icmp_header(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), &icmp.slice()[8..])
            }
            TransportSlice::Icmpv6(icmp) => {
                (icmp_header(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), &icmp.slice()[8..])
            }
            TransportSlice::Igmp(_) => return,
        };
        self.transport = header;
        self.payload = payload.to_vec();
    }

    fn take_tunnel(&mut self, udp: &UdpSlice<'_>) {
        if !TUNNEL_PORTS.contains(&udp.destination_port()) {
            return;
        }
        let Some((header, inner)) = udp.payload().split_first_chunk::<8>() else { return };
        let [flags, _, group @ .., _, _, _, _] = *header;
        let [_, _, _, _, vni @ .., _] = *header;
        let inner = Box::new(Self::read(inner));
        self.faults.extend(inner.faults.iter().map(|fault| format!("inner: {fault}")));
        let vni = vni.iter().fold(0, |vni, &byte| vni << 8 | u32::from(byte));
        let group = u16::from_be_bytes(group);
        self.tunnel = Some(Box::new(Tunnel { flags, group, vni, header: *header, inner }));
    }

    fn check_transport(&mut self, ip: &Ip, transport: &TransportSlice<'_>) -> Checksum {
        // A length that no checksum can cover is one that etherparse has not accepted.
        match (transport, ip.src, ip.dst) {
            (TransportSlice::Tcp(tcp), IpAddr::V4(src), IpAddr::V4(dst)) => {
                let right = tcp.calc_checksum_ipv4(src.octets(), dst.octets());
                self.check("tcp", tcp.checksum(), right.unwrap_or_default())
            }
            (TransportSlice::Tcp(tcp), IpAddr::V6(src), IpAddr::V6(dst)) => {
                let right = tcp.calc_checksum_ipv6(src.octets(), dst.octets());
                self.check("tcp", tcp.checksum(), right.unwrap_or_default())
            }
            (TransportSlice::Udp(udp), src, dst) => self.check_udp(udp, src, dst),
            (TransportSlice::Icmpv4(icmp), ..) => {
                let sum = Sum16BitWords::new().add_slice(icmp.slice()).ones_complement();
                self.check("sum over icmp", sum, 0)
            }
            (TransportSlice::Icmpv6(icmp), IpAddr::V6(src), IpAddr::V6(dst)) => {
                let right = icmp.icmp_type().calc_checksum(src.octets(), dst.octets(), icmp.payload());
                self.check("icmpv6", icmp.checksum(), right.unwrap_or_default())
            }
            _ => Checksum::Right,
        }
    }

    fn check_udp(&mut self, udp: &UdpSlice<'_>, src: IpAddr, dst: IpAddr) -> Checksum {
        if usize::from(udp.length()) != udp.slice().len() {
            self.faults.push(format!("udp length is {}, there are {} bytes", udp.length(), udp.slice().len()));
        }
        let header = udp.to_header();
        let right = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), udp.payload()).unwrap_or_default()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), udp.payload()).unwrap_or_default()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("a packet has one family"),
        };
        if udp.checksum() != 0 {
            return self.check("udp", udp.checksum(), right);
        }
        // RFC 6935 lets a tunnel's outer header do what RFC 8200 forbids.
        if src.is_ipv6() && !TUNNEL_PORTS.contains(&udp.destination_port()) {
            self.check("udp", 0, right);
        }
        Checksum::Absent
    }

    fn check(&mut self, what: &str, found: u16, right: u16) -> Checksum {
        if found == right {
            return Checksum::Right;
        }
        self.faults.push(format!("{what} checksum is {found:04x}, should be {right:04x}"));
        Checksum::Wrong
    }
}

fn ipv4(ip: &LaxIpv4Slice<'_>) -> Ip {
    let header = ip.header();
    let fragment = Fragment {
        offset: header.fragments_offset().byte_offset(),
        more: header.more_fragments(),
        identification: header.identification().into(),
    };
    Ip {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        hops: header.ttl(),
        traffic_class: header.slice()[1],
        dont_fragment: header.dont_fragment(),
        options: header.options().to_vec(),
        extensions: Vec::new(),
        fragment: header.is_fragmenting_payload().then_some(fragment),
        protocol: ip.payload_ip_number().0,
    }
}

fn ipv6(ip: &LaxIpv6Slice<'_>) -> Ip {
    let header = ip.header();
    let (mut extensions, mut fragment) = (Vec::new(), None);
    // Etherparse's own iterator reads beyond the end of a chain that it has found faulty (0.21.0).
    let mut next = ip.extensions().first_header();
    let mut rest = ip.extensions().slice();
    while let (Some(number), &[following, length, ..]) = (next, rest) {
        extensions.push(number.0);
        let length = match number {
            ip_number::IPV6_FRAG => 8,
            ip_number::AUTH => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if number == ip_number::IPV6_FRAG {
            fragment = Ipv6FragmentHeaderSlice::from_slice(rest).ok().map(|found| Fragment {
                offset: found.fragment_offset().byte_offset(),
                more: found.more_fragments(),
                identification: found.identification(),
            });
        }
        next = Some(IpNumber(following));
        rest = rest.get(length..).unwrap_or_default();
    }
    Ip {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        hops: header.hop_limit(),
        traffic_class: header.traffic_class(),
        dont_fragment: true,
        options: Vec::new(),
        extensions,
        fragment,
        protocol: ip.payload().ip_number.0,
    }
}

fn first_fragment(protocol: u8, payload: &[u8]) -> Option<TransportSlice<'_>> {
    match IpNumber(protocol) {
        ip_number::TCP => TcpSlice::from_slice(payload).ok().map(TransportSlice::Tcp),
        ip_number::UDP => UdpSlice::from_slice_lax(payload).ok().map(TransportSlice::Udp),
        ip_number::ICMP => Icmpv4Slice::from_slice(payload).ok().map(TransportSlice::Icmpv4),
        ip_number::IPV6_ICMP => Icmpv6Slice::from_slice(payload).ok().map(TransportSlice::Icmpv6),
        _ => None,
    }
}

fn icmp_header(kind: u8, code: u8, rest: [u8; 4]) -> Transport {
    Transport::Icmp { kind, code, rest }
}
