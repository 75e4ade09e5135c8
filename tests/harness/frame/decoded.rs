//! What a frame says, read by etherparse: code that shares nothing with weft's own parser.
//!
//! Every length and checksum is checked, outside and inside of a tunnel. What is wrong is told in
//! [`Decoded::faults`], in words; the rest is read as far as it makes sense.

mod reading;

use super::Station;
use super::flags;
use super::packet::Checksum;
use etherparse::LaxSlicedPacket;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Who sent it.
    pub src_mac: [u8; 6],
    /// Who shall have it.
    pub dst_mac: [u8; 6],
    /// VLAN tags, the outermost first.
    pub vlans: Vec<u16>,
    /// What follows the Ethernet header and the tags.
    pub ethertype: u16,
    /// The network header.
    pub net: Net,
    /// The transport header.
    pub transport: Transport,
    /// What follows the last header that was read. Padding of the link does not belong to it.
    pub payload: Vec<u8>,
    /// The frame inside, if this is one of a tunnel.
    pub tunnel: Option<Box<Tunnel>>,
    /// What is wrong; empty for a frame without blemish.
    pub faults: Vec<String>,
}

/// A network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// None that is known.
    Unknown,
    /// A question or an answer of ARP.
    Arp {
        /// 1 asks, 2 answers.
        operation: u16,
        /// Who speaks.
        sender: Station,
        /// Who is asked for, or told.
        target: Station,
    },
    /// IPv4 or IPv6.
    Ip(Ip),
}

/// An IP header of either family, with its options or extension headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where it comes from.
    pub src: IpAddr,
    /// Where it goes.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// DF; always true on IPv6.
    pub dont_fragment: bool,
    /// IPv4 options.
    pub options: Vec<u8>,
    /// The numbers of the IPv6 extension headers, in order.
    pub extensions: Vec<u8>,
    /// Which part of a packet this is, if it was cut, or if there is a fragment header.
    pub fragment: Option<Fragment>,
    /// The protocol after all of that.
    pub protocol: u8,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where it belongs, in bytes.
    pub offset: u16,
    /// Whether more follows.
    pub more: bool,
    /// What the parts have in common.
    pub identification: u32,
}

/// A transport header. Of fragments, only the first one has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// None, or none that is known.
    Unknown,
    /// TCP.
    Tcp {
        /// Source and destination.
        ports: [u16; 2],
        /// As in [`flags`].
        flags: u8,
        /// The number of the first byte.
        sequence: u32,
        /// The number of the byte that is expected.
        acknowledgment: u32,
        /// How much may be sent.
        window: u16,
        /// The MSS option.
        mss: Option<u16>,
    },
    /// UDP.
    Udp {
        /// Source and destination.
        ports: [u16; 2],
        /// What is in the checksum; an absent one is no fault on IPv4, and on IPv6 in a tunnel's outer header.
        checksum: Checksum,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
        /// The four bytes after the checksum.
        rest: [u8; 4],
    },
}

/// A VXLAN header and what it is in front of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The first byte: see [`super::tunnel::FLAG_VNI`] and [`super::tunnel::FLAG_GROUP`].
    pub flags: u8,
    /// The group policy id.
    pub group: u16,
    /// The network identifier.
    pub vni: u32,
    /// All eight bytes.
    pub header: [u8; 8],
    /// The frame inside.
    pub inner: Box<Decoded>,
}

impl Decoded {
    /// Reads a frame.
    pub fn read(bytes: &[u8]) -> Self {
        let mut read = Self {
            src_mac: [0; 6],
            dst_mac: [0; 6],
            vlans: Vec::new(),
            ethertype: 0,
            net: Net::Unknown,
            transport: Transport::Unknown,
            payload: Vec::new(),
            tunnel: None,
            faults: Vec::new(),
        };
        match LaxSlicedPacket::from_ethernet(bytes) {
            Ok(sliced) => read.take(&sliced),
            Err(error) => read.faults.push(error.to_string()),
        }
        read
    }

    /// The IP header. Panics when there is none.
    #[track_caller]
    pub fn ip(&self) -> &Ip {
        match &self.net {
            Net::Ip(ip) => ip,
            Net::Unknown | Net::Arp { .. } => panic!("no IP packet: {self}"),
        }
    }

    /// Source and destination port, of TCP or UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { ports: [src, dst], .. } | Transport::Udp { ports: [src, dst], .. } => Some((src, dst)),
            Transport::Icmp { .. } | Transport::Unknown => None,
        }
    }

    /// The TCP flags, as in [`flags`].
    pub fn tcp_flags(&self) -> Option<u8> {
        match self.transport {
            Transport::Tcp { flags, .. } => Some(flags),
            Transport::Udp { .. } | Transport::Icmp { .. } | Transport::Unknown => None,
        }
    }

    /// Type and code of an ICMP message.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        match self.transport {
            Transport::Icmp { kind, code, .. } => Some((kind, code)),
            Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Unknown => None,
        }
    }

    /// The tunnel that the frame came through. Panics when there is none.
    #[track_caller]
    pub fn tunnel(&self) -> &Tunnel {
        self.tunnel.as_ref().unwrap_or_else(|| panic!("not a frame of a tunnel: {self}"))
    }

    /// Panics when anything is wrong with the frame.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.faults.is_empty(), "{self}");
    }
}

impl Display for Decoded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { src_mac, dst_mac, vlans, ethertype, net, transport, payload, tunnel, faults } = self;
        write!(f, "{}>{}", mac(*src_mac), mac(*dst_mac))?;
        vlans.iter().try_for_each(|id| write!(f, " vlan {id}"))?;
        match net {
            Net::Unknown => write!(f, " ethertype {ethertype:#06x}")?,
            Net::Arp { operation, sender, target } => write!(
                f,
                " arp {operation} {} at {} for {} at {}",
                sender.ip,
                mac(sender.mac),
                target.ip,
                mac(target.mac)
            )?,
            Net::Ip(ip) => write!(f, " {ip}")?,
        }
        match transport {
            Transport::Unknown => {}
            Transport::Tcp { ports: [src, dst], flags, sequence, acknowledgment, window, mss } => {
                write!(f, " tcp {src}>{dst} {} seq {sequence} ack {acknowledgment} win {window}", letters(*flags))?;
                mss.iter().try_for_each(|mss| write!(f, " mss {mss}"))?;
            }
            Transport::Udp { ports: [src, dst], checksum } => write!(f, " udp {src}>{dst} checksum {checksum:?}")?,
            Transport::Icmp { kind, code, rest } => write!(f, " icmp {kind}/{code} {rest:02x?}")?,
        }
        match tunnel {
            Some(tunnel) => write!(f, " {tunnel}")?,
            None => write!(f, " payload {}", payload.len())?,
        }
        faults.iter().try_for_each(|fault| write!(f, " !! {fault}"))
    }
}

impl Display for Ip {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { src, dst, hops, traffic_class, dont_fragment, options, extensions, fragment, protocol } = self;
        write!(f, "{src}>{dst} hops {hops} proto {protocol}")?;
        if *traffic_class != 0 {
            write!(f, " class {traffic_class:#04x}")?;
        }
        if src.is_ipv4() && *dont_fragment {
            f.write_str(" DF")?;
        }
        if !options.is_empty() {
            write!(f, " options {options:02x?}")?;
        }
        if !extensions.is_empty() {
            write!(f, " extensions {extensions:?}")?;
        }
        if let Some(Fragment { offset, more, identification }) = fragment {
            write!(f, " fragment {identification:#x} at {offset}{}", if *more { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Tunnel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { flags, group, vni, header: _, inner } = self;
        write!(f, "vxlan {flags:02x} vni {vni} group {group} {{{inner}}}")
    }
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn letters(set: u8) -> String {
    let names = [
        (flags::SYN, 'S'),
        (flags::ACK, 'A'),
        (flags::PSH, 'P'),
        (flags::FIN, 'F'),
        (flags::RST, 'R'),
        (flags::URG, 'U'),
    ];
    let letters: String = names.iter().filter(|(flag, _)| set & flag != 0).map(|(_, letter)| letter).collect();
    format!("[{letters}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ipv6::Extension;
    use crate::frame::neighbour;
    use crate::frame::packet::Packet;
    use crate::frame::stations::PAIRS;
    use crate::frame::tunnel::Vxlan;
    use crate::frame::{Frame, icmp, tcp, udp};
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
    use proptest::sample::Index;

    #[test]
    fn a_frame_reads_as_one_line() {
        let [[a, b], [a6, b6]] = PAIRS;
        let check = |frame: &Frame, expect: &str| {
            assert_eq!(frame.decode().to_string(), format!("02:00:00:00:00:01>02:00:00:00:00:02 {expect}"));
        };
        check(
            &tcp(a, b).dont_fragment().mss(1460).syn().vlan(7),
            "vlan 7 10.0.0.1>10.0.0.2 hops 64 proto 6 DF tcp 40000>80 [S] seq 1 ack 0 win 65535 mss 1460 payload 0",
        );
        check(
            &udp(a6, b6).traffic_class(0xb8).payload(b"abc").frame(),
            "fd00::1>fd00::2 hops 64 proto 17 class 0xb8 udp 40000>80 checksum Right payload 3",
        );
        check(
            &Vxlan::new(a, b, 9).group(3).wrap(&icmp::echo_request(a6, b6, [1, 2]).frame()),
            "10.0.0.1>10.0.0.2 hops 64 proto 17 DF udp 49152>6784 checksum Absent vxlan 88 vni 9 group 3 \
             {02:00:00:00:00:01>02:00:00:00:00:02 fd00::1>fd00::2 hops 64 proto 58 icmp 128/0 [00, 01, 00, 02] \
             payload 0}",
        );
        check(
            &udp(a, b).payload_length(100).frame().fragment(8..16),
            "10.0.0.1>10.0.0.2 hops 64 proto 17 fragment 0x1 at 8+ payload 8",
        );
    }

    #[test]
    fn every_wrong_checksum_is_a_fault_and_names_itself() {
        for [a, b] in PAIRS {
            let check = |packet: Packet, name: &str| {
                packet.clone().frame().decode().assert_sound();
                let faults = packet.checksum(Checksum::Wrong).frame().decode().faults;
                assert!(matches!(&faults[..], [fault] if fault.contains(name)), "{faults:?}");
            };
            check(tcp(a, b).payload(b"odd"), "tcp checksum");
            check(udp(a, b).payload(b"odd"), "udp checksum");
            check(icmp::echo_request(a, b, [1, 1]).payload(b"odd"), "icmp");
        }
        let [a, b] = PAIRS[0];
        let faults = tcp(a, b).ip_checksum(Checksum::Wrong).syn().decode().faults;
        assert!(matches!(&faults[..], [fault] if fault.starts_with("ip checksum")), "{faults:?}");
    }

    #[test]
    fn an_absent_udp_checksum_is_a_fault_on_ipv6_outside_of_tunnels() {
        let [[a, b], [a6, b6]] = PAIRS;
        let faults = |packet: Packet| packet.checksum(Checksum::Absent).frame().decode().faults.len();
        assert_eq!((faults(udp(a, b)), faults(udp(a6, b6))), (0, 1));
        Vxlan::new(a6, b6, 1).checksum(Checksum::Absent).wrap(&tcp(a, b).syn()).decode().assert_sound();
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Etherparse reads without bounds checks of its own; a debug build aborts where it goes wrong.
        #[test]
        fn no_damage_to_a_frame_stops_the_reading(
            of in 0..4_usize,
            damage in vec((any::<Index>(), any::<u8>()), 0..6),
            length in any::<Index>(),
        ) {
            let [[a, b], [a6, b6]] = PAIRS;
            let chain = udp(a6, b6)
                .extension(Extension::HopByHop(vec![]))
                .extension(Extension::Routing { kind: 4, segments_left: 0, data: vec![0; 20] })
                .extension(Extension::ATOMIC_FRAGMENT)
                .extension(Extension::DestinationOptions(vec![1; 9]))
                .payload(b"abc")
                .frame();
            let frame = match of {
                0 => tcp(a, b).ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).mss(1460).syn().vlan(3).vlan(4),
                1 => Vxlan::new(a6, b6, 1).group(2).wrap(&chain),
                2 => neighbour::arp_reply(a, b),
                _ => chain,
            };
            let damaged = damage.iter().fold(frame, |frame, (at, byte)| {
                frame.with_bytes(at.index(frame.bytes().len()), &[*byte])
            });
            let cut = damaged.truncated(length.index(damaged.bytes().len() + 1));
            prop_assert!(!damaged.decode().to_string().is_empty());
            prop_assert!(!cut.decode().to_string().is_empty());
        }
    }

    #[test]
    fn no_beginning_of_a_frame_and_no_lie_about_lengths_stops_the_reading() {
        for [a, b] in PAIRS {
            let frame = Vxlan::new(a, b, 1).wrap(&tcp(a, b).mss(1460).payload(b"abc").syn());
            for length in 0..frame.bytes().len() {
                assert!(!frame.truncated(length).decode().faults.is_empty(), "{length} bytes");
            }
            for length in 0..200 {
                // Read without a panic, whatever it makes of it.
                assert!(!tcp(a, b).declared_length(length).syn().decode().to_string().is_empty());
            }
        }
    }
}
