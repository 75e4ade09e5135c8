//! What a sender is told of a packet that does not pass: a TCP reset, or an ICMP error that quotes it. And what the
//! receiver is told, if the two had a connection: a reset too.
//!
//! Pure: builds the answer's network and transport headers from what was read of the packet. An error is
//! never answered, nor a reset, nor a later fragment, nor what was sent to many (RFC 1122 §3.2.2).

use crate::addr::{Ip, Mac};
use crate::checksum::Sum;
use crate::flow::Flow;
use crate::header::{Advertisement, Icmp, Ipv4Hdr, Ipv6Hdr, Tcp, protocol};
use crate::parse::{Kind, Packet, Ports};

/// Why the packet does not pass, as far as its sender may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Notice {
    /// A rule rejects it.
    #[default]
    Prohibited,
    /// Nobody has the address.
    Unreachable,
    /// It does not fit.
    TooBig,
}

/// What form the answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A TCP reset.
    Reset,
    /// An ICMP or ICMPv6 error.
    Error,
}

/// Whether and how the packet may be answered.
#[inline(always)]
pub fn form(packet: &Packet, notice: Notice) -> Option<Form> {
    if packet.dst.is_multicast() || packet.dst.is_broadcast() || packet.src.is_host_only() {
        return None;
    }
    match packet.kind {
        Kind::IcmpError | Kind::LaterFragment { .. } => None,
        Kind::Reply | Kind::FirstOfReply if packet.protocol == protocol::TCP => None,
        Kind::Whole | Kind::Reply | Kind::FirstFragment | Kind::FirstOfReply => {
            let reset = packet.protocol == protocol::TCP && !matches!(notice, Notice::TooBig);
            Some(if reset { Form::Reset } else { Form::Error })
        }
    }
}

/// A reset over IPv4.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reset4 {
    /// Network header.
    pub ip: Ipv4Hdr,
    /// Transport header.
    pub tcp: Tcp,
}

/// A reset over IPv6.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reset6 {
    /// Network header.
    pub ip: Ipv6Hdr,
    /// Transport header.
    pub tcp: Tcp,
}

/// An ICMP error about an IPv4 packet (RFC 792). The quote follows: the packet's network header and the
/// first eight bytes behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Error4 {
    /// Network header.
    pub ip: Ipv4Hdr,
    /// Type, code, checksum, and the MTU in the last two bytes (RFC 1191).
    pub icmp: Icmp,
}

/// An ICMPv6 error (RFC 4443). The quote follows, as in [`Error4`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Error6 {
    /// Network header.
    pub ip: Ipv6Hdr,
    /// Type, code, checksum, and the MTU in the last four bytes.
    pub icmp: Icmp,
}

/// How a reset ends a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ending {
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its flags.
    pub flags: u8,
    /// Whether it goes on to the receiver of the packet, in its place, and not back to the sender.
    pub is_onward: bool,
    /// Whether the packet's checksum is left to a device, which will write into what stands in its place.
    pub is_unfinished: bool,
}

impl Ending {
    /// Of a reset that `packet` is answered with (RFC 9293 §3.10.7.1).
    #[inline(always)]
    pub fn back(&mut self, packet: &Packet) {
        self.is_onward = false;
        (self.seq, self.ack, self.flags) = if packet.tcp_flags & Tcp::ACK != 0 {
            (packet.ack, 0, Tcp::RST)
        } else {
            (0, packet.seq.wrapping_add(packet.seq_len), Tcp::RST | Tcp::ACK)
        };
    }

    /// Of a reset for the other side of the flow of `packet`, which takes it when its number is the very next (RFC 9293
    /// §3.5.2, RFC 5961 §3.2).
    #[inline(always)]
    pub fn onward(&mut self, packet: &Packet, flow: &Flow) {
        self.is_onward = true;
        self.seq = flow.side[packet.leg.index()].seq_next;
        self.ack = flow.side[packet.leg.other().index()].seq_next;
        self.flags = Tcp::RST | Tcp::ACK;
    }

    /// From whom to whom, of `packet`'s ends.
    #[inline(always)]
    pub fn ends<'a>(&self, packet: &'a Packet) -> (&'a Ip, &'a Ip) {
        if self.is_onward { (&packet.src, &packet.dst) } else { (&packet.dst, &packet.src) }
    }
}

impl Reset4 {
    /// The reset that ends the connection of `packet` like this.
    #[inline(always)]
    pub fn new(packet: &Packet, ending: &Ending) -> Self {
        let (src, dst) = ending.ends(packet);
        Self { ip: ipv4(src, dst, 40, protocol::TCP), tcp: reset(packet, ending) }
    }
}

impl Reset6 {
    /// What its network header has before the addresses.
    pub const START: [u8; 8] = [0x60, 0, 0, 0, 0, Tcp::LEN as u8, protocol::TCP, 64];
}

/// A neighbour advertisement that answers a solicitation (RFC 4861 §7.2.4).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Advertisement6 {
    /// Network header.
    pub ip: Ipv6Hdr,
    /// The message, with the option that says the hardware address.
    pub message: Advertisement,
}

impl Advertisement6 {
    /// Tells `to` that `target` is at `mac`.
    #[inline(always)]
    pub fn new(target: Ip, mac: Mac, to: Ip) -> Self {
        const SOLICITED_OVERRIDE: u8 = 0x60;
        const LEN: u16 = size_of::<Advertisement>() as u16;

        let Ip([a, b, c, d]) = target;
        let Ip([e, f, g, h]) = to;
        let Mac([x, y, z]) = mac;
        // The target is summed twice: it is the source address, and in the message.
        let sum = Sum::default().add_u32(a).add_u32(b).add_u32(c).add_u32(d);
        let sum = Sum(sum.0 * 2).add_u32(e).add_u32(f).add_u32(g).add_u32(h);
        let sum = sum.add(LEN.to_be_bytes()).add([0, protocol::ICMPV6]).add([136, 0]).add([SOLICITED_OVERRIDE, 0]);
        let sum = sum.add([2, 1]).add(x.to_ne_bytes()).add(y.to_ne_bytes()).add(z.to_ne_bytes());
        let ip = Ipv6Hdr {
            vcf: [0x60, 0, 0, 0],
            payload_len: LEN.to_be_bytes(),
            next_hdr: protocol::ICMPV6,
            hop_limit: 255,
            src_addr: target.bytes(),
            dst_addr: to.bytes(),
        };
        let message = Advertisement {
            kind: 136,
            code: 0,
            check: sum.field(),
            flags: [SOLICITED_OVERRIDE, 0, 0, 0],
            target: target.bytes(),
            option: [2, 1],
            mac: mac.bytes(),
        };
        Self { ip, message }
    }
}

/// The transport header of a reset that ends the connection of `packet` like this.
///
/// When the packet's checksum was left to the device it leaves by, so is that of what is written in its place.
#[inline(always)]
pub fn reset(packet: &Packet, ending: &Ending) -> Tcp {
    let Ports { src, dst } = packet.key.ports(packet.leg);
    let (source, destination) = if ending.is_onward { (src, dst) } else { (dst, src) };
    let mut tcp = Tcp {
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
        seq: ending.seq.to_be_bytes(),
        ack: ending.ack.to_be_bytes(),
        offset: 5 << 4,
        flags: ending.flags,
        window: [0; 2],
        check: [0; 2],
        urgent: [0; 2],
    };
    let sum = Sum::pseudo(&packet.src, &packet.dst, protocol::TCP, Tcp::LEN);
    tcp.check = if ending.is_unfinished {
        sum.unfinished()
    } else {
        sum.add(tcp.source)
            .add(tcp.destination)
            .add_u32(u32::from_ne_bytes(tcp.seq))
            .add_u32(u32::from_ne_bytes(tcp.ack))
            .add([tcp.offset, tcp.flags])
            .field()
    };
    tcp
}

/// Whether the packet's checksum is left to the device it leaves by, when `check` stands in its place. The kernel says
/// so by putting the pseudo header's sum there (`CHECKSUM_PARTIAL`, include/linux/skbuff.h), and will add to whatever
/// is there.
#[inline(always)]
pub fn is_left_to_device(packet: &Packet, check: [u8; 2]) -> bool {
    let len = packet.end.wrapping_sub(u32::from(packet.l4));
    Sum::pseudo(&packet.src, &packet.dst, packet.protocol, len).unfinished() == check
}

impl Error4 {
    /// Bytes of the quote.
    pub const QUOTE: usize = 28;

    /// The error that `packet` is answered with, when `quote` is the sum of what it quotes. `mtu` is the size
    /// of IP packet that fits, where that is what is told.
    #[inline(always)]
    pub fn new(packet: &Packet, notice: Notice, mtu: u32, quote: Sum) -> Self {
        let (code, mtu) = match notice {
            Notice::Unreachable => (1, 0),
            Notice::TooBig => (4, mtu as u16),
            Notice::Prohibited => (13, 0),
        };
        let [high, low] = mtu.to_be_bytes();
        let check = quote.add([3, code]).add([high, low]).field();
        let total = 28 + Self::QUOTE as u16;
        Self {
            ip: ipv4(&packet.dst, &packet.src, total, protocol::ICMP),
            icmp: Icmp { kind: 3, code, check, rest: [0, 0, high, low] },
        }
    }
}

impl Error6 {
    /// Bytes of the quote.
    pub const QUOTE: usize = 48;

    /// The error that `packet` is answered with, when `quote` is the sum of what it quotes. `mtu` is the size
    /// of IP packet that fits, where that is what is told.
    #[inline(always)]
    pub fn new(packet: &Packet, notice: Notice, mtu: u32, quote: Sum) -> Self {
        let (kind, code, mtu) = match notice {
            Notice::Unreachable => (1, 3, 0),
            Notice::Prohibited => (1, 1, 0),
            Notice::TooBig => (2, 0, mtu),
        };
        let rest = mtu.to_be_bytes();
        let len = 8 + Self::QUOTE as u16;
        let sum = Sum::pseudo(&packet.src, &packet.dst, protocol::ICMPV6, len.into())
            .add([kind, code])
            .add_u32(u32::from_ne_bytes(rest));
        let check = Sum(sum.0 + quote.0).field();
        Self { ip: ipv6(&packet.dst, &packet.src, len, protocol::ICMPV6), icmp: Icmp { kind, code, check, rest } }
    }
}

/// A network header. The address of an answer is the one the sender asked for: a container knows no other of ours, and
/// its own tables say nothing more of it.
#[inline(always)]
fn ipv4(src: &Ip, dst: &Ip, total: u16, protocol: u8) -> Ipv4Hdr {
    let mut ip = Ipv4Hdr {
        vihl: 0x45,
        tos: 0,
        tot_len: total.to_be_bytes(),
        id: [0; 2],
        frags: [0x40, 0],
        ttl: 64,
        proto: protocol,
        check: [0; 2],
        src_addr: src.v4(),
        dst_addr: dst.v4(),
    };
    ip.check = Sum::default()
        .add([0x45, 0])
        .add(ip.tot_len)
        .add(ip.frags)
        .add([64, protocol])
        .add_u32(src.0[3])
        .add_u32(dst.0[3])
        .field();
    ip
}

#[inline(always)]
fn ipv6(src: &Ip, dst: &Ip, payload: u16, protocol: u8) -> Ipv6Hdr {
    Ipv6Hdr {
        vcf: [0x60, 0, 0, 0],
        payload_len: payload.to_be_bytes(),
        next_hdr: protocol,
        hop_limit: 64,
        src_addr: src.bytes(),
        dst_addr: dst.bytes(),
    }
}
