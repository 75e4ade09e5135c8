//! An IP packet in an Ethernet frame, put together field by field.

use super::flags;
use super::ipv6::{self, Extension};
use super::{Frame, Station, raw};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};
use std::net::IpAddr;

/// A packet that is being described. [`Packet::frame`], or one of the TCP verbs, makes it a [`Frame`].
#[derive(Clone, Debug)]
pub struct Packet {
    src: Station,
    dst: Station,
    hops: u8,
    traffic_class: u8,
    flow_label: u32,
    identification: u16,
    dont_fragment: bool,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    length: Option<u16>,
    ip_checksum: Checksum,
    transport: Transport,
    transport_checksum: Checksum,
    payload: Vec<u8>,
}

/// What is in a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// What belongs there.
    Right,
    /// Something else.
    Wrong,
    /// Zero: nobody computed it.
    Absent,
}

#[derive(Clone, Debug)]
pub(super) enum Transport {
    Tcp { ports: [u16; 2], flags: u8, sequence: u32, acknowledgment: u32, window: u16, options: Vec<u8> },
    Udp { ports: [u16; 2] },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    Other(u8),
}

impl Packet {
    #[track_caller]
    pub(super) fn new(src: Station, dst: Station, transport: Transport) -> Self {
        assert_eq!(src.ip.is_ipv4(), dst.ip.is_ipv4(), "{} and {} are of different families", src.ip, dst.ip);
        Self {
            src,
            dst,
            hops: 64,
            traffic_class: 0,
            flow_label: 0,
            identification: 1,
            dont_fragment: false,
            options: Vec::new(),
            extensions: Vec::new(),
            length: None,
            ip_checksum: Checksum::Right,
            transport,
            transport_checksum: Checksum::Right,
            payload: Vec::new(),
        }
    }

    /// The bytes after the last header.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// So many bytes of payload, each different from its neighbours.
    #[must_use]
    pub fn payload_length(self, length: usize) -> Self {
        Self { payload: (0..length).map(|at| at.to_le_bytes()[0]).collect(), ..self }
    }

    /// Source and destination port of TCP or UDP.
    #[must_use]
    #[track_caller]
    pub fn ports(mut self, src: u16, dst: u16) -> Self {
        match &mut self.transport {
            Transport::Tcp { ports, .. } | Transport::Udp { ports } => *ports = [src, dst],
            Transport::Icmp { .. } | Transport::Other(_) => panic!("{:?} has no ports", self.transport),
        }
        self
    }

    /// The same packet the other way: stations and ports change places.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        (self.src, self.dst) = (self.dst, self.src);
        match &mut self.transport {
            Transport::Tcp { ports, .. } | Transport::Udp { ports } => ports.reverse(),
            Transport::Icmp { .. } | Transport::Other(_) => {}
        }
        self
    }

    /// TTL or hop limit; 64 if not set.
    #[must_use]
    pub fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// DSCP and ECN in one byte, as they are on the wire.
    #[must_use]
    pub fn traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    /// The IPv6 flow label.
    #[must_use]
    pub fn flow_label(self, flow_label: u32) -> Self {
        Self { flow_label, ..self }
    }

    /// The IPv4 identification; 1 if not set.
    #[must_use]
    pub fn identification(self, identification: u16) -> Self {
        Self { identification, ..self }
    }

    /// Sets DF on IPv4. An IPv6 packet never leaves a choice.
    #[must_use]
    pub fn dont_fragment(self) -> Self {
        Self { dont_fragment: true, ..self }
    }

    /// IPv4 options, ended by zeros to a multiple of four bytes.
    #[must_use]
    pub fn ipv4_options(self, options: &[u8]) -> Self {
        let padding = vec![0; options.len().next_multiple_of(4) - options.len()];
        Self { options: [options, &padding].concat(), ..self }
    }

    /// One more IPv6 extension header, after those already there; any order, whether it is allowed or not.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// A lie about the length: IPv4 total length or IPv6 payload length.
    #[must_use]
    pub fn declared_length(self, length: u16) -> Self {
        Self { length: Some(length), ..self }
    }

    /// What is in the checksum of the IPv4 header.
    #[must_use]
    pub fn ip_checksum(self, ip_checksum: Checksum) -> Self {
        Self { ip_checksum, ..self }
    }

    /// What is in the checksum of TCP, UDP or ICMP.
    #[must_use]
    pub fn checksum(self, transport_checksum: Checksum) -> Self {
        Self { transport_checksum, ..self }
    }

    /// The TCP sequence number.
    #[must_use]
    #[track_caller]
    pub fn sequence(mut self, number: u32) -> Self {
        let Transport::Tcp { sequence, .. } = &mut self.transport else { panic!("not TCP") };
        *sequence = number;
        self
    }

    /// The TCP acknowledgment number.
    #[must_use]
    #[track_caller]
    pub fn acknowledgment(mut self, number: u32) -> Self {
        let Transport::Tcp { acknowledgment, .. } = &mut self.transport else { panic!("not TCP") };
        *acknowledgment = number;
        self
    }

    /// TCP options, ended by zeros to a multiple of four bytes.
    #[must_use]
    #[track_caller]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        let Transport::Tcp { options, .. } = &mut self.transport else { panic!("not TCP") };
        *options = bytes.to_vec();
        options.resize(bytes.len().next_multiple_of(4), 0);
        self
    }

    /// The TCP option that says how long segments may be.
    #[must_use]
    #[track_caller]
    pub fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.tcp_options(&[2, 4, high, low])
    }

    /// Opens a connection.
    #[track_caller]
    pub fn syn(self) -> Frame {
        self.flagged(flags::SYN)
    }

    /// Accepts a connection.
    #[track_caller]
    pub fn syn_ack(self) -> Frame {
        self.flagged(flags::SYN | flags::ACK)
    }

    /// Acknowledges, with the payload if there is one.
    #[track_caller]
    pub fn ack(self) -> Frame {
        let push = if self.payload.is_empty() { 0 } else { flags::PSH };
        self.flagged(flags::ACK | push)
    }

    /// Ends one direction.
    #[track_caller]
    pub fn fin(self) -> Frame {
        self.flagged(flags::FIN | flags::ACK)
    }

    /// Ends the connection at once.
    #[track_caller]
    pub fn rst(self) -> Frame {
        self.flagged(flags::RST | flags::ACK)
    }

    /// With any [`flags`], none and all included.
    #[track_caller]
    pub fn flagged(mut self, set: u8) -> Frame {
        let Transport::Tcp { flags, .. } = &mut self.transport else { panic!("not TCP") };
        *flags = set;
        self.frame()
    }

    /// The frame as it goes over the wire.
    pub fn frame(self) -> Frame {
        let transport = self.transport();
        let (ethertype, l3) = match (self.src.ip, self.dst.ip) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = self.ipv4(src.octets(), dst.octets(), transport.len());
                (EtherType::IPV4, [header, transport].concat())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (first, mut rest) = ipv6::chain(&self.extensions, self.number());
                rest.extend(transport);
                let mut header = self.ipv6(src.octets(), dst.octets(), rest.len());
                header.next_header = IpNumber(first);
                (EtherType::IPV6, [&header.to_bytes()[..], &rest].concat())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("a packet has one family"),
        };
        raw(self.src, self.dst, ethertype.0, &l3)
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
        assert!(self.extensions.is_empty(), "an IPv4 packet has options, not extension headers");
        let options = Ipv4Options::try_from(&self.options[..]).expect("at most 40 bytes of IPv4 options");
        let length = Ipv4Header::MIN_LEN + self.options.len() + payload;
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).expect("six bits"),
            ecn: IpEcn::try_new(self.traffic_class & 3).expect("two bits"),
            total_len: self.length.unwrap_or_else(|| u16::try_from(length).expect("a packet that IPv4 can describe")),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            time_to_live: self.hops,
            protocol: IpNumber(self.number()),
            source,
            destination,
            options,
            ..Ipv4Header::default()
        };
        header.header_checksum = self.ip_checksum.of(header.calc_header_checksum());
        header.to_bytes().to_vec()
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], payload: usize) -> Ipv6Header {
        assert!(self.options.is_empty(), "an IPv6 packet has extension headers, not options");
        let length = || u16::try_from(payload).expect("a packet that IPv6 can describe");
        Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
            payload_length: self.length.unwrap_or_else(length),
            hop_limit: self.hops,
            source,
            destination,
            ..Ipv6Header::default()
        }
    }

    /// Transport header and payload.
    fn transport(&self) -> Vec<u8> {
        let (header, checksum_at) = match &self.transport {
            &Transport::Tcp { ports: [src, dst], flags, sequence, acknowledgment, window, ref options } => {
                let mut header = TcpHeader::new(src, dst, sequence, window);
                header.acknowledgment_number = acknowledgment;
                header.set_options_raw(options).expect("at most 40 bytes of TCP options");
                let mut bytes = header.to_bytes().to_vec();
                bytes[13] = flags;
                (bytes, 16)
            }
            &Transport::Udp { ports: [source_port, destination_port] } => {
                let length = u16::try_from(8 + self.payload.len()).expect("a datagram that UDP can describe");
                (UdpHeader { source_port, destination_port, length, checksum: 0 }.to_bytes().to_vec(), 6)
            }
            &Transport::Icmp { kind, code, rest } => ([&[kind, code, 0, 0], &rest[..]].concat(), 2),
            Transport::Other(_) => return self.payload.clone(),
        };
        let mut bytes = [&header[..], &self.payload].concat();
        let sum = self.pseudo_header(bytes.len()).add_slice(&bytes);
        let right = match self.transport {
            Transport::Udp { .. } => sum.to_ones_complement_with_no_zero(),
            Transport::Tcp { .. } | Transport::Icmp { .. } | Transport::Other(_) => sum.ones_complement(),
        };
        let field = self.transport_checksum.of(u16::from_be(right)).to_be_bytes();
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&field);
        bytes
    }

    /// What a transport checksum covers besides its packet.
    fn pseudo_header(&self, length: usize) -> Sum16BitWords {
        let length = u32::try_from(length).expect("a length that IP can describe").to_be_bytes();
        let addresses = [self.src.ip, self.dst.ip].iter().fold(Sum16BitWords::new(), |sum, ip| match ip {
            IpAddr::V4(ip) => sum.add_slice(&ip.octets()),
            IpAddr::V6(ip) => sum.add_slice(&ip.octets()),
        });
        match (&self.transport, self.src.ip) {
            // ICMP covers only itself, on IPv4.
            (Transport::Icmp { .. }, IpAddr::V4(_)) => Sum16BitWords::new(),
            _ => addresses.add_slice(&length).add_2bytes([0, self.number()]),
        }
    }

    /// The protocol number of the transport.
    fn number(&self) -> u8 {
        match (&self.transport, self.src.ip) {
            (Transport::Tcp { .. }, _) => IpNumber::TCP.0,
            (Transport::Udp { .. }, _) => IpNumber::UDP.0,
            (Transport::Icmp { .. }, IpAddr::V4(_)) => IpNumber::ICMP.0,
            (Transport::Icmp { .. }, IpAddr::V6(_)) => IpNumber::IPV6_ICMP.0,
            (Transport::Other(number), _) => *number,
        }
    }
}

impl Transport {
    pub(super) const fn tcp() -> Self {
        Self::Tcp {
            ports: [40000, 80],
            flags: flags::ACK,
            sequence: 1,
            acknowledgment: 0,
            window: 65535,
            options: Vec::new(),
        }
    }

    pub(super) const fn udp() -> Self {
        Self::Udp { ports: [40000, 80] }
    }
}

impl Checksum {
    fn of(self, right: u16) -> u16 {
        match self {
            Self::Right => right,
            // Zero would be an absent one.
            Self::Wrong => {
                if right == 1 {
                    2
                } else {
                    right ^ 1
                }
            }
            Self::Absent => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::stations::PAIRS;
    use crate::frame::{protocol, tcp, udp};
    use crate::traffic::tcp::TcpEcho;
    use crate::underlay::{Family, Offloads, UPLINK, Underlay};
    use crate::wire::{Capture, Injector};
    use std::net::SocketAddr;
    use std::time::Duration;

    #[test]
    fn every_field_is_read_back() {
        for [a, b] in PAIRS {
            let read = tcp(a, b).ports(1, 2).sequence(3).acknowledgment(4).hops(5).traffic_class(6).ack().decode();
            read.assert_sound();
            let ip = read.ip();
            assert_eq!((ip.src, ip.dst, ip.hops, ip.traffic_class), (a.ip, b.ip, 5, 6));
            assert_eq!((read.ports(), read.tcp_flags()), (Some((1, 2)), Some(flags::ACK)));
            let back = tcp(a, b).ports(1, 2).reversed().payload(b"x").ack().decode();
            assert_eq!((back.src_mac, back.ip().src, back.ports()), (b.mac, b.ip, Some((2, 1))));
            assert_eq!((back.tcp_flags(), &*back.payload), (Some(flags::ACK | flags::PSH), &b"x"[..]));
            for set in [0, flags::SYN | flags::FIN, 0x3f] {
                assert_eq!(tcp(a, b).flagged(set).decode().tcp_flags(), Some(set));
            }
            assert_eq!(protocol(a, b, 132).payload(b"sctp").frame().decode().ip().protocol, 132);
        }
    }

    #[test]
    fn ipv4_has_options_and_leave_to_fragment() {
        let [a, b] = PAIRS[0];
        let read = udp(a, b).ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).dont_fragment().identification(9).frame().decode();
        read.assert_sound();
        assert_eq!((&*read.ip().options, read.ip().dont_fragment), (&[7, 7, 4, 0, 0, 0, 0, 0][..], true));
        assert!(!udp(a, b).frame().decode().ip().dont_fragment);
    }

    #[test]
    fn a_declared_length_is_the_only_lie() {
        for [a, b] in PAIRS {
            let faults = udp(a, b).payload(b"abcdef").declared_length(200).frame().decode().faults;
            assert!(faults.iter().any(|fault| fault == "shorter than its IP length"), "{faults:?}");
        }
    }

    #[test]
    fn the_kernel_answers_a_syn_unless_its_checksum_is_wrong() {
        let underlay = Underlay::bridged(2);
        underlay.set_offloads(Offloads::Off);
        let injector = Injector::on(underlay.host(0), UPLINK);
        let capture = Capture::start(underlay.host(0), UPLINK);
        for family in Family::BOTH {
            let (near, far) = (underlay.station(0, family), underlay.station(1, family));
            let server = TcpEcho::start(underlay.host(1), SocketAddr::new(far.ip, 0));
            let syn = |port| tcp(near, far).ports(port, server.address().port()).mss(1000);
            injector.send(syn(1000).checksum(Checksum::Wrong).syn());
            injector.send(syn(2000).syn());
            let answer_to = |port| {
                move |seen: &crate::wire::Captured| {
                    let read = seen.frame.decode();
                    read.tcp_flags() == Some(flags::SYN | flags::ACK) && read.ports().is_some_and(|(_, to)| to == port)
                }
            };
            let answer = capture.wait_for(Duration::from_secs(5), answer_to(2000)).expect("the kernel answers");
            answer.frame.decode().assert_sound();
            assert!(!capture.frames().iter().any(answer_to(1000)));
            capture.clear();
        }
    }
}
