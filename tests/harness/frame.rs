//! Ethernet frames for packet stories: written by [`Packet`] and its neighbours, read by [`decoded::Decoded`].
//!
//! Everything comes out valid, lengths and checksums included, unless the story asks for a lie; then only that is wrong.
//! A [`Frame`] is bytes and nothing else, so what a program did to it can be compared with what it should have done.
//!
//! `tcp(WEB, DB).ports(40000, 5432).syn()` · `udp(A, B).payload(b"x").frame()` · `Vxlan::new(H1, H2, 7).wrap(&inner)`

pub mod autoconf;
pub mod decoded;
pub mod flags;
pub mod fragment;
pub mod icmp;
pub mod ipv6;
pub mod neighbour;
pub mod packet;
pub mod tunnel;

use decoded::Decoded;
use packet::{Packet, Transport};
use std::fmt::{self, Debug, Formatter};
use std::net::IpAddr;

/// Where a frame comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// The address on the link.
    pub mac: [u8; 6],
    /// The address on the network.
    pub ip: IpAddr,
}

impl Station {
    /// A station with both addresses.
    pub const fn new(mac: [u8; 6], ip: IpAddr) -> Self {
        Self { mac, ip }
    }

    /// The same network address behind another link address, for example that of a gateway.
    #[must_use]
    pub const fn behind(self, mac: [u8; 6]) -> Self {
        Self { mac, ..self }
    }
}

/// The bytes of a frame, from the destination MAC to the last byte of payload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Frame(Vec<u8>);

/// The destination of what everybody on the link shall hear.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The length of an Ethernet header without VLAN tag.
pub const ETHER: usize = 14;

const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];

/// A TCP segment. Ports 40000 and 80 unless told otherwise.
pub fn tcp(src: Station, dst: Station) -> Packet {
    Packet::new(src, dst, Transport::tcp())
}

/// A UDP datagram. Ports 40000 and 80 unless told otherwise.
pub fn udp(src: Station, dst: Station) -> Packet {
    Packet::new(src, dst, Transport::udp())
}

/// A packet of any other protocol, by its number; the payload follows the IP header.
pub fn protocol(src: Station, dst: Station, number: u8) -> Packet {
    Packet::new(src, dst, Transport::Other(number))
}

/// A frame of any ethertype, or of a length field when `ethertype` is less than 0x600.
pub fn raw(src: Station, dst: Station, ethertype: u16, payload: &[u8]) -> Frame {
    Frame([&dst.mac[..], &src.mac, &ethertype.to_be_bytes(), payload].concat())
}

impl Frame {
    /// Takes bytes for a frame.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes after the Ethernet header and its VLAN tags.
    pub fn l3(&self) -> &[u8] {
        let mut start = ETHER;
        while self.0[start - 2..start] == ETHERTYPE_VLAN {
            start += 4;
        }
        &self.0[start..]
    }

    /// Reads the frame.
    pub fn decode(&self) -> Decoded {
        Decoded::read(&self.0)
    }

    /// The same frame with a VLAN tag in front of any it has.
    #[must_use]
    pub fn vlan(&self, id: u16) -> Self {
        let (macs, rest) = self.0.split_at(12);
        Self([macs, &ETHERTYPE_VLAN, &id.to_be_bytes(), rest].concat())
    }

    /// The same frame between other MACs.
    #[must_use]
    pub fn between(&self, src: [u8; 6], dst: [u8; 6]) -> Self {
        Self([&dst[..], &src, &self.0[12..]].concat())
    }

    /// The first bytes of the frame; the lengths inside stay as they are.
    #[must_use]
    pub fn truncated(&self, length: usize) -> Self {
        Self(self.0[..length].to_vec())
    }

    /// The same frame with bytes after its end, as of a link that pads.
    #[must_use]
    pub fn padded(&self, padding: &[u8]) -> Self {
        Self([&self.0, padding].concat())
    }

    /// The same frame with other bytes from `at` on. No checksum is corrected.
    #[must_use]
    pub fn with_bytes(&self, at: usize, bytes: &[u8]) -> Self {
        let mut changed = self.0.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Self(changed)
    }

    /// As [`Frame::with_bytes`], counted from the start of [`Frame::l3`].
    #[must_use]
    pub fn with_l3_bytes(&self, at: usize, bytes: &[u8]) -> Self {
        self.with_bytes(self.0.len() - self.l3().len() + at, bytes)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Debug for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())?;
        if self.0.len() >= ETHER {
            write!(f, ": {}", self.decode())?;
        }
        for (row, bytes) in self.0.chunks(16).enumerate() {
            write!(f, "\n  {:04x} ", row * 16)?;
            bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
        }
        Ok(())
    }
}

/// Stations that the tests below this module use.
#[cfg(test)]
pub(crate) mod stations {
    use super::Station;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    /// Two stations of each family.
    pub(crate) const PAIRS: [[Station; 2]; 2] = [
        [
            Station::new(MACS[0], IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            Station::new(MACS[1], IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))),
        ],
        [
            Station::new(MACS[0], IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))),
            Station::new(MACS[1], IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2))),
        ],
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use stations::PAIRS;

    #[test]
    fn a_frame_is_changed_where_asked_and_nowhere_else() {
        for [a, b] in PAIRS {
            let frame = udp(a, b).payload(b"abc").frame();
            let tagged = frame.vlan(5).vlan(6);
            assert_eq!(tagged.decode().vlans, [6, 5]);
            assert_eq!(tagged.l3(), frame.l3());
            assert_eq!(tagged.between([9; 6], BROADCAST).decode().src_mac, [9; 6]);
            assert_eq!(frame.padded(&[0; 9]).decode(), frame.decode());
            assert_eq!(frame.with_l3_bytes(0, &[0xff]).bytes()[ETHER], 0xff);
            assert_ne!(frame.truncated(40).decode().faults, [""; 0]);
        }
    }

    #[test]
    fn any_ethertype_is_read_as_bytes() {
        let [a, b] = PAIRS[0];
        let frame = raw(a, b, 0x88b5, b"payload");
        assert_eq!((frame.decode().ethertype, &*frame.decode().payload), (0x88b5, &b"payload"[..]));
        assert!(format!("{frame:?}").contains("0x88b5"));
    }
}
