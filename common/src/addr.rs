//! Addresses: one 128-bit form for both families, so that every table and every step has one path.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 (v4-mapped, RFC 4291 §2.5.5.2) or IPv6 address: four words whose bytes are in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub [u32; 4]);

crate::wire_newtype!(Ip([u32; 4]));

const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Ip {
    /// `::`, which stands for "no address" in records.
    pub const NONE: Self = Self([0; 4]);

    /// The address with these bytes, as IPv4 headers hold it.
    #[inline(always)]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, V4_MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// The address with these bytes, as IPv6 headers hold it.
    #[inline(always)]
    pub const fn from_v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == V4_MAPPED
    }

    /// The four bytes of an IPv4 address; of an IPv6 address its last four.
    #[inline(always)]
    pub const fn v4(self) -> [u8; 4] {
        self.0[3].to_ne_bytes()
    }

    /// All sixteen bytes, in network order.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// 224.0.0.0/4 or ff00::/8.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        if self.is_v4() { self.v4()[0] & 0xf0 == 0xe0 } else { self.first() == 0xff }
    }

    /// 255.255.255.255.
    #[inline(always)]
    pub const fn is_broadcast(self) -> bool {
        self.is_v4() && self.0[3] == u32::MAX
    }

    /// fe80::/10 or 169.254.0.0/16.
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        if self.is_v4() {
            let b = self.v4();
            b[0] == 169 && b[1] == 254
        } else {
            let b = self.0[0].to_ne_bytes();
            b[0] == 0xfe && b[1] & 0xc0 == 0x80
        }
    }

    /// An address that no packet on a network may have as its source or destination: `::`, `::1`,
    /// 0.0.0.0/8, 127.0.0.0/8.
    #[inline(always)]
    pub const fn is_host_only(self) -> bool {
        if self.is_v4() {
            let first = self.v4()[0];
            first == 0 || first == 127
        } else {
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && (self.0[3] == 0 || self.0[3] == 1_u32.to_be())
        }
    }

    #[inline(always)]
    const fn first(self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    /// The address in the standard library's form.
    pub const fn to_std(self) -> IpAddr {
        if self.is_v4() {
            let b = self.v4();
            IpAddr::V4(Ipv4Addr::new(b[0], b[1], b[2], b[3]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(self.bytes()))
        }
    }
}

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Ip {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Ip {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from_v6(ip.octets())
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_std().fmt(f)
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hardware address: three half-words whose bytes are in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u16; 3]);

crate::wire_newtype!(Mac([u16; 3]));

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xffff; 3]);
    /// The gateway of every app on every host: "weft" behind a locally administered prefix. It is the
    /// same everywhere, so a container that moves keeps its default route.
    pub const GATEWAY: Self = Self::new([0x02, 0x00, b'w', b'e', b'f', b't']);

    /// The address with these bytes.
    #[inline(always)]
    pub const fn new(b: [u8; 6]) -> Self {
        Self([u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]]), u16::from_ne_bytes([b[4], b[5]])])
    }

    /// The six bytes, in network order.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let (a, b, c) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes());
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Whether the group bit is set: broadcast and multicast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.bytes();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn both_families_round_trip() {
        for text in ["0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "2001:db8::1", "ff02::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Ip::from(ip).to_std(), ip);
            assert_eq!(Ip::from(ip).is_v4(), ip.is_ipv4());
            assert_eq!(Ip::from(ip).is_multicast(), ip.is_multicast());
        }
    }

    #[test]
    fn the_gateway_is_a_local_unicast_address() {
        assert!(!Mac::GATEWAY.is_group());
        assert_eq!(Mac::GATEWAY.bytes()[0] & 2, 2);
        assert_eq!(Mac::GATEWAY.to_string(), "02:00:77:65:66:74");
    }

    #[test]
    fn the_special_addresses_are_told_apart() {
        let ip = |text: &str| Ip::from(text.parse::<IpAddr>().unwrap());
        assert!(ip("127.0.0.1").is_host_only() && ip("0.0.0.0").is_host_only() && ip("::1").is_host_only());
        assert!(!ip("10.0.0.1").is_host_only() && !ip("::2").is_host_only());
        assert!(ip("fe80::1").is_link_local() && ip("febf::1").is_link_local() && !ip("fec0::1").is_link_local());
        assert!(ip("169.254.1.1").is_link_local() && ip("255.255.255.255").is_broadcast());
    }
}
