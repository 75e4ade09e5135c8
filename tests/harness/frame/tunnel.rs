//! VXLAN (RFC 7348) with the group-policy extension, as weft and the kernel's own device speak it.

use super::packet::{Checksum, Packet};
use super::{Frame, Station, udp};
use std::net::IpAddr;

/// The UDP port of weft's tunnel.
pub const PORT: u16 = 6784;

/// The VNI is valid.
pub const FLAG_VNI: u8 = 0x08;

/// The group policy id is valid (draft-smith-vxlan-group-policy).
pub const FLAG_GROUP: u8 = 0x80;

/// The outside of a tunnelled frame.
#[derive(Clone, Debug)]
pub struct Vxlan {
    src: Station,
    dst: Station,
    ports: [u16; 2],
    traffic_class: u8,
    header: [u8; 8],
    checksum: Checksum,
}

impl Vxlan {
    /// From one host to another, in the app that the VNI stands for, without a group. The UDP checksum is absent on an
    /// IPv4 underlay and right on an IPv6 one.
    #[track_caller]
    pub fn new(src: Station, dst: Station, vni: u32) -> Self {
        let [0, high, middle, low] = vni.to_be_bytes() else { panic!("VNI {vni} has more than 24 bits") };
        let checksum = match src.ip {
            IpAddr::V4(_) => Checksum::Absent,
            IpAddr::V6(_) => Checksum::Right,
        };
        let header = [FLAG_VNI, 0, 0, 0, high, middle, low, 0];
        Self { src, dst, ports: [49152, PORT], traffic_class: 0, header, checksum }
    }

    /// Adds the group policy id: the role of the sender.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.header[0] |= FLAG_GROUP;
        self.header[2..4].copy_from_slice(&group.to_be_bytes());
        self
    }

    /// Source and destination port; 49152 and [`PORT`] unless told otherwise.
    #[must_use]
    pub fn ports(self, src: u16, dst: u16) -> Self {
        Self { ports: [src, dst], ..self }
    }

    /// DSCP and ECN of the outer header.
    #[must_use]
    pub fn traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    /// What is in the outer UDP checksum.
    #[must_use]
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// Any eight bytes in place of the VXLAN header: reserved bits, missing flags.
    #[must_use]
    pub fn header(self, header: [u8; 8]) -> Self {
        Self { header, ..self }
    }

    /// The tunnelled frame.
    pub fn wrap(&self, inner: &Frame) -> Frame {
        self.packet(inner).frame()
    }

    /// The outer packet, for those who want to change more of it.
    pub fn packet(&self, inner: &Frame) -> Packet {
        let [src, dst] = self.ports;
        let payload = [&self.header[..], inner.bytes()].concat();
        let outer = udp(self.src, self.dst).ports(src, dst).dont_fragment().traffic_class(self.traffic_class);
        outer.checksum(self.checksum).payload(&payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::stations::PAIRS;
    use crate::frame::tcp;
    use crate::underlay::{Family, UPLINK, Underlay};
    use crate::wire::{Capture, Injector};
    use std::time::Duration;

    #[test]
    fn what_is_wrapped_is_read_back() {
        for [h1, h2] in PAIRS {
            for [a, b] in PAIRS {
                let inner = tcp(a, b).syn();
                let wire = Vxlan::new(h1, h2, 0x00ab_cdef).group(0x1234).traffic_class(0xb8).wrap(&inner);
                let read = wire.decode();
                let tunnel = read.tunnel();
                assert_eq!((tunnel.flags, tunnel.vni, tunnel.group), (0x88, 0x00ab_cdef, 0x1234));
                assert_eq!((&*tunnel.inner, read.ip().traffic_class), (&inner.decode(), 0xb8));
                assert_eq!(read.faults.len(), 0, "{read}");
                assert_eq!(Vxlan::new(h1, h2, 7).wrap(&inner).decode().tunnel().flags, FLAG_VNI);
            }
        }
    }

    #[test]
    fn a_fault_inside_is_told_as_one_inside() {
        let [h1, h2] = PAIRS[1];
        let inner = tcp(h1, h2).checksum(Checksum::Wrong).syn();
        let read = Vxlan::new(h1, h2, 7).wrap(&inner).decode();
        assert!(matches!(&read.faults[..], [fault] if fault.starts_with("inner: tcp checksum")), "{read}");
        let read = Vxlan::new(h1, h2, 7).checksum(Checksum::Wrong).wrap(&tcp(h1, h2).syn()).decode();
        assert!(matches!(&read.faults[..], [fault] if fault.starts_with("udp checksum")), "{read}");
    }

    #[test]
    fn the_kernels_device_unwraps_what_is_wrapped_here() {
        let underlay = Underlay::bridged(2);
        for (family, [a, b]) in Family::BOTH.into_iter().zip(PAIRS) {
            let (from, to) = (underlay.station(0, family), underlay.station(1, family));
            let host = underlay.host(1);
            host.ip(&format!("link add vx type vxlan id 99 local {} dstport {PORT} gbp nolearning", to.ip));
            host.ip("link set vx up");
            let capture = Capture::start(host, "vx");
            let inner = tcp(a, b).syn();
            Injector::on(underlay.host(0), UPLINK).send(Vxlan::new(from, to, 99).group(5).wrap(&inner));
            assert!(capture.wait_for(Duration::from_secs(5), |seen| seen.frame == inner).is_some(), "{family:?}");
            host.ip("link delete vx");
        }
    }
}
