//! Reads a frame: which flow it belongs to, and where its headers are.
//!
//! The same code reads packet memory in the kernel and slices in tests, the slow path and `weft why`.
//! It knows nothing of tables. Invariant: what it returns was read within the bounds the packet's own
//! lengths give, and anything that could hide the transport header is refused by name.

use crate::addr::Ip;
use crate::flow::{FlowKey, Leg};
use crate::header::{Bytes, Ether, Header, Icmp, Ipv4Hdr, Ipv6Extension, Ipv6Fragment, Ipv6Hdr, Tcp, UdpHdr, protocol};
use crate::verdict::DropReason;

/// How many IPv6 extension headers are read before the packet is refused.
const EXTENSIONS_MAX: usize = 6;

/// What a frame is, as far as forwarding and policy care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source of this packet.
    pub src: Ip,
    /// Destination of this packet.
    pub dst: Ip,
    /// The flow, the same for both directions. Of an ICMP error: the flow it quotes.
    pub key: FlowKey,
    /// Which side of the flow sent this packet. Of an ICMP error: the side that sent the quoted one.
    pub leg: Leg,
    /// What it is, beyond its addresses.
    pub kind: Kind,
    /// The transport protocol, after any extension headers.
    pub protocol: u8,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// The traffic class or TOS byte: DSCP and ECN.
    pub tos: u8,
    /// IPv4: whether routers may not fragment it. Always so in IPv6.
    pub dont_fragment: bool,
    /// What policy compares with a rule's port: the destination port, or ICMP type and code.
    pub policy_port: u16,
    /// Where the transport header starts in the frame.
    pub l4: u16,
    /// Where the network header's own length says that the packet ends in the frame.
    pub end: u32,
    /// Bytes that the TCP segment takes of the sequence space.
    pub seq_len: u32,
    /// TCP sequence number, or the id of a fragment's datagram.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
}

/// What a packet is, beyond its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a flow or belongs to one.
    #[default]
    Whole,
    /// May belong to a flow and never opens one: an ICMP answer, a TCP reset.
    Reply,
    /// An ICMP error about a packet of [`Packet::key`].
    IcmpError,
    /// The first fragment of a datagram: it has the transport header, and says where it ends.
    FirstFragment,
    /// Likewise, of what is a [`Kind::Reply`].
    FirstOfReply,
    /// A later fragment: the ports in [`Packet::key`] are not known.
    LaterFragment {
        /// Offset of its first byte in the datagram.
        offset: u16,
    },
}

/// Reads the IP packet at `at`: behind an untagged Ethernet header, or behind a tunnel's. An `ethertype`
/// that is not IP is malformed: the caller has told other frames apart.
pub fn parse<B: Bytes + ?Sized>(frame: &B, at: u32, ethertype: [u8; 2]) -> Result<Packet, DropReason> {
    let mut packet = Packet::default();
    parse_into(&mut packet, frame, at, ethertype)?;
    Ok(packet)
}

/// As [`parse`], into memory of the caller: the kernel's stack has no room for a packet. After an error
/// `packet` is not to be used.
#[inline(always)]
pub fn parse_into<B: Bytes + ?Sized>(
    packet: &mut Packet,
    frame: &B,
    at: u32,
    ethertype: [u8; 2],
) -> Result<(), DropReason> {
    let network = match ethertype {
        Ether::IPV4 => ipv4(frame, at)?,
        Ether::IPV6 => ipv6(frame, at)?,
        _ => return Err(DropReason::Malformed),
    };
    if network.end > frame.frame_len() {
        return Err(DropReason::Malformed);
    }
    if network.src.is_multicast() || network.src.is_broadcast() || network.dst.is_host_only() {
        return Err(DropReason::Martian);
    }
    // Who asks whether an address is free does not have it yet (RFC 4862 §5.4).
    let asks = network.src == Ip::NONE && network.protocol == protocol::ICMPV6;
    if network.src.is_host_only() && !asks {
        return Err(DropReason::Martian);
    }
    transport(packet, frame, &network)
}

struct Network {
    src: Ip,
    dst: Ip,
    protocol: u8,
    tos: u8,
    dont_fragment: bool,
    fragment: Fragment,
    l4: u32,
    end: u32,
}

/// The fragment fields of either family, in one form.
#[derive(Clone, Copy)]
struct Fragment {
    offset: u16,
    more: bool,
    id: u32,
}

impl Fragment {
    const NONE: Self = Self { offset: 0, more: false, id: 0 };
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(frame: &B, at: u32) -> Result<Network, DropReason> {
    let ip: Ipv4Hdr = frame.get(at).ok_or(DropReason::Malformed)?;
    if ip.vihl >> 4 != 4 {
        return Err(DropReason::Malformed);
    }
    let header = match ip.vihl & 0xf {
        5 => 20,
        0..5 => return Err(DropReason::Malformed),
        // IGMP carries the router alert option always (RFC 2236 §2), and has no ports that options could hide.
        6 if ip.proto == protocol::IGMP && frame.get(at + 20) == Some([0x94, 4, 0, 0]) => 24,
        _ => return Err(DropReason::Ipv4Options),
    };
    let total = u32::from(u16::from_be_bytes(ip.tot_len));
    if total < header {
        return Err(DropReason::Malformed);
    }
    let bits = u16::from_be_bytes(ip.frags);
    let fragment =
        Fragment { offset: (bits & 0x1fff) << 3, more: bits & 0x2000 != 0, id: u32::from(u16::from_be_bytes(ip.id)) };
    Ok(Network {
        src: Ip::from_v4(ip.src_addr),
        dst: Ip::from_v4(ip.dst_addr),
        protocol: ip.proto,
        tos: ip.tos,
        dont_fragment: bits & 0x4000 != 0,
        fragment,
        l4: at + header,
        end: at + total,
    })
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(frame: &B, at: u32) -> Result<Network, DropReason> {
    let ip: Ipv6Hdr = frame.get(at).ok_or(DropReason::Malformed)?;
    if ip.vcf[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let end = at + 40 + u32::from(u16::from_be_bytes(ip.payload_len));
    let (protocol, l4, fragment) = extensions(frame, ip.next_hdr, at + 40)?;
    Ok(Network {
        src: Ip::from_v6(ip.src_addr),
        dst: Ip::from_v6(ip.dst_addr),
        protocol,
        tos: (ip.vcf[0] << 4) | (ip.vcf[1] >> 4),
        dont_fragment: true,
        fragment,
        l4,
        end,
    })
}

/// Walks the extension headers (RFC 8200 §4.1) up to the transport header.
#[inline(always)]
fn extensions<B: Bytes + ?Sized>(frame: &B, first: u8, start: u32) -> Result<(u8, u32, Fragment), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const NO_NEXT: u8 = 59;
    const DESTINATION: u8 = 60;

    let (mut next, mut at, mut fragment, mut fragmented) = (first, start, Fragment::NONE, false);
    for _ in 0..EXTENSIONS_MAX {
        match next {
            // What follows a fragment header belongs to the datagram: only its transport header is expected
            // there, so that a fragment's offset counts from where policy looked.
            HOP_BY_HOP | FRAGMENT | DESTINATION if fragmented => return Err(DropReason::Ipv6Extension),
            HOP_BY_HOP | DESTINATION => {
                let header: Ipv6Extension = frame.get(at).ok_or(DropReason::Malformed)?;
                next = header.next;
                at += 8 + u32::from(header.len) * 8;
            }
            FRAGMENT => {
                let header: Ipv6Fragment = frame.get(at).ok_or(DropReason::Malformed)?;
                let bits = u16::from_be_bytes(header.offset);
                fragment = Fragment { offset: bits & 0xfff8, more: bits & 1 != 0, id: u32::from_be_bytes(header.id) };
                next = header.next;
                at += 8;
                fragmented = true;
                if fragment.offset != 0 {
                    return Ok((next, at, fragment));
                }
            }
            // A routing header steers a packet past the destination that policy looked at (RFC 5095).
            ROUTING | NO_NEXT => return Err(DropReason::Ipv6Extension),
            _ => return if is_extension(next) { Err(DropReason::Ipv6Extension) } else { Ok((next, at, fragment)) },
        }
    }
    Err(DropReason::Ipv6Extension)
}

/// Extension headers that are not walked: authentication, mobility, HIP, shim6, and the two for experiments.
/// ESP (50) is not here: nothing behind it can be read, so it is a transport like any other.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 59 | 60 | 135 | 139 | 140 | 253 | 254)
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(packet: &mut Packet, frame: &B, network: &Network) -> Result<(), DropReason> {
    let Network { src, dst, protocol, tos, dont_fragment, fragment, l4, end } = *network;
    if l4 > end {
        return Err(DropReason::Malformed);
    }
    packet.src = src;
    packet.dst = dst;
    packet.kind = Kind::Whole;
    packet.protocol = protocol;
    packet.tcp_flags = 0;
    packet.tos = tos;
    packet.dont_fragment = dont_fragment;
    packet.policy_port = 0;
    packet.l4 = l4 as u16;
    packet.end = end;
    packet.seq_len = 0;
    packet.seq = 0;
    packet.ack = 0;
    if fragment.offset != 0 {
        packet.kind = Kind::LaterFragment { offset: fragment.offset };
        packet.seq = fragment.id;
        packet.set_flow(Ports::NONE);
        return Ok(());
    }
    let missing = if fragment.more { DropReason::FragmentShort } else { DropReason::Malformed };
    let ports = match protocol {
        protocol::TCP => tcp(packet, frame).ok_or(missing)?,
        protocol::UDP | protocol::UDP_LITE => {
            let udp: UdpHdr = within(frame, l4, end, 8).ok_or(missing)?;
            Ports::from_bytes(udp.src, udp.dst)
        }
        protocol::SCTP => {
            let common: [u8; 12] = within(frame, l4, end, 12).ok_or(missing)?;
            Ports::from_bytes([common[0], common[1]], [common[2], common[3]])
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if (protocol == protocol::ICMP) != src.is_v4() {
                return Err(DropReason::Malformed);
            }
            let icmp: Icmp = within(frame, l4, end, Icmp::LEN).ok_or(missing)?;
            packet.policy_port = u16::from_be_bytes([icmp.kind, icmp.code]);
            if is_icmp_error(protocol, icmp.kind) {
                if fragment.more || is_refused(protocol, icmp.kind) {
                    return Err(DropReason::IcmpUnrelated);
                }
                packet.kind = Kind::IcmpError;
                return quoted(packet, frame, l4 + Icmp::LEN);
            }
            let (ports, kind) = icmp_ports(&icmp, protocol);
            packet.kind = kind;
            ports
        }
        _ => Ports::NONE,
    };
    if !matches!(protocol, protocol::ICMP | protocol::ICMPV6) {
        packet.policy_port = ports.dst;
    }
    packet.set_flow(ports);
    if src == dst {
        return Err(DropReason::Martian);
    }
    if fragment.more {
        packet.kind = if matches!(packet.kind, Kind::Reply) { Kind::FirstOfReply } else { Kind::FirstFragment };
        packet.seq = fragment.id;
    }
    Ok(())
}

#[inline(always)]
fn tcp<B: Bytes + ?Sized>(packet: &mut Packet, frame: &B) -> Option<Ports> {
    let (l4, end) = (u32::from(packet.l4), packet.end);
    let tcp: Tcp = within(frame, l4, end, Tcp::LEN)?;
    let data = l4 + tcp.header_len();
    if tcp.header_len() < Tcp::LEN || data > end {
        return None;
    }
    packet.tcp_flags = tcp.flags;
    packet.seq = u32::from_be_bytes(tcp.seq);
    packet.ack = u32::from_be_bytes(tcp.ack);
    packet.seq_len = end - data + u32::from(tcp.flags & Tcp::SYN != 0) + u32::from(tcp.flags & Tcp::FIN != 0);
    if tcp.flags & Tcp::RST != 0 {
        packet.kind = Kind::Reply;
    }
    Some(Ports::from_bytes(tcp.source, tcp.destination))
}

impl Packet {
    /// The flow of a packet between its own addresses.
    #[inline(always)]
    fn set_flow(&mut self, ports: Ports) {
        self.leg = self.key.set(self.src, self.dst, self.protocol, ports);
    }

    /// Gives a later fragment the ports that its first one had.
    #[inline(always)]
    pub fn complete(&mut self, ports: Ports) {
        self.set_flow(ports);
        self.policy_port = self.port_of(ports);
    }

    /// What policy compared when a flow was opened by a packet with these ports: of ICMP the query's type, with
    /// the code that queries have.
    #[inline(always)]
    pub const fn port_of(&self, opener: Ports) -> u16 {
        if matches!(self.protocol, protocol::ICMP | protocol::ICMPV6) { opener.dst << 8 } else { opener.dst }
    }

    /// Whether it is a piece of a datagram.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        matches!(self.kind, Kind::FirstFragment | Kind::FirstOfReply | Kind::LaterFragment { .. })
    }

    /// Whether, when it finds no flow, it may open one. An answer or an error could not have, and a later
    /// fragment does not say of what.
    #[inline(always)]
    pub const fn may_open(&self) -> bool {
        matches!(self.kind, Kind::Whole | Kind::FirstFragment)
    }
}

/// The header at `at`, when the packet's own length says that `len` bytes of it are there.
#[inline(always)]
fn within<T: Header, B: Bytes + ?Sized>(frame: &B, at: u32, end: u32, len: u32) -> Option<T> {
    if at + len > end { None } else { frame.get(at) }
}

/// The two ports of a packet, in its own direction. What has none has zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The sender's.
    pub src: u16,
    /// The receiver's.
    pub dst: u16,
}

impl Ports {
    /// Of a protocol without ports, and of a later fragment.
    pub const NONE: Self = Self { src: 0, dst: 0 };

    /// Read from the wire.
    #[inline(always)]
    const fn from_bytes(src: [u8; 2], dst: [u8; 2]) -> Self {
        Self { src: u16::from_be_bytes(src), dst: u16::from_be_bytes(dst) }
    }
}

/// Source quench and redirects quote a packet, and are not errors that a host should heed (RFC 6633, and the
/// CVE class of rogue routers). The redirect of ICMPv6 quotes in an option and is no error.
#[inline(always)]
const fn is_refused(protocol: u8, kind: u8) -> bool {
    protocol == protocol::ICMP && matches!(kind, 4 | 5)
}

/// ICMP messages that quote the packet they are about.
#[inline(always)]
const fn is_icmp_error(protocol: u8, kind: u8) -> bool {
    if protocol == protocol::ICMP { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 }
}

/// A query and its answer make one flow: the asker's port is the identifier, the other's is the query's
/// type. So the key itself says who asked, and an answer can never open the way for a query.
#[inline(always)]
fn icmp_ports(icmp: &Icmp, protocol: u8) -> (Ports, Kind) {
    let id = u16::from_be_bytes([icmp.rest[0], icmp.rest[1]]);
    let query = match (protocol, icmp.kind) {
        (protocol::ICMP, 0) => 8,
        (protocol::ICMP, 14) => 13,
        (protocol::ICMP, 16) => 15,
        (protocol::ICMP, 18) => 17,
        (protocol::ICMPV6, 129) => 128,
        (_, other) => return (Ports { src: id, dst: u16::from(other) }, Kind::Whole),
    };
    (Ports { src: query, dst: id }, Kind::Reply)
}

/// The flow of the packet that an ICMP error quotes. Eight bytes of its transport are enough (RFC 792).
#[inline(always)]
fn quoted<B: Bytes + ?Sized>(packet: &mut Packet, frame: &B, at: u32) -> Result<(), DropReason> {
    let unrelated = DropReason::IcmpUnrelated;
    let end = packet.end;
    let v4 = packet.src.is_v4();
    let (src, dst, protocol, l4) = if v4 {
        let ip: Ipv4Hdr = within(frame, at, end, 20).ok_or(unrelated)?;
        if ip.vihl != 0x45 || u16::from_be_bytes(ip.frags) & 0x1fff != 0 {
            return Err(unrelated);
        }
        (Ip::from_v4(ip.src_addr), Ip::from_v4(ip.dst_addr), ip.proto, at + 20)
    } else {
        let ip: Ipv6Hdr = within(frame, at, end, 40).ok_or(unrelated)?;
        if ip.vcf[0] >> 4 != 6 || is_extension(ip.next_hdr) {
            return Err(unrelated);
        }
        (Ip::from_v6(ip.src_addr), Ip::from_v6(ip.dst_addr), ip.next_hdr, at + 40)
    };
    let ports = match protocol {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP => {
            let first: [u8; 4] = within(frame, l4, end, 4).ok_or(unrelated)?;
            Ports::from_bytes([first[0], first[1]], [first[2], first[3]])
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let icmp: Icmp = within(frame, l4, end, Icmp::LEN).ok_or(unrelated)?;
            if is_icmp_error(protocol, icmp.kind) {
                return Err(unrelated);
            }
            icmp_ports(&icmp, protocol).0
        }
        _ => Ports::NONE,
    };
    packet.leg = packet.key.set(src, dst, protocol, ports);
    Ok(())
}
