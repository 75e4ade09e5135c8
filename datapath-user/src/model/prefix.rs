//! Prefixes of addresses, both families.
//!
//! Invariant: the host bits are zero, and an IPv6 prefix is not a disguised IPv4 one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_common::addr::Ip;

use super::invalid::Invalid;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// All addresses that start with the same bits. In order of family, address, length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

/// `::ffff:0:0/96`: where IPv4 addresses are in the one 128-bit form that tables have.
const MAPPED_LEN: u8 = 96;

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Prefix {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)));

    /// The prefix of `len` bits that starts with `addr`.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, Invalid> {
        let text = || format!("{addr}/{len}");
        let Ok(net) = IpNet::new(addr, len) else {
            return Err(Invalid::new(
                "prefix",
                &text(),
                format!("{} has {} bits", Family::of(addr), Family::of(addr).bits()),
            ));
        };
        if net.trunc() != net {
            return Err(Invalid::new("prefix", &text(), format!("host bits are set, use {}", net.trunc())));
        }
        if let IpNet::V6(v6) = net {
            let mapped = v6.addr().to_ipv4_mapped().filter(|_| len >= MAPPED_LEN);
            if let Some(v4) = mapped {
                return Err(Invalid::new("prefix", &text(), format!("write it as {v4}/{}", len - MAPPED_LEN)));
            }
        }
        Ok(Self(net))
    }

    /// One address.
    pub fn host(addr: IpAddr) -> Result<Self, Invalid> {
        Self::new(addr, Family::of(addr).bits())
    }

    /// The fewest prefixes that have these addresses and no other, in order.
    pub fn gathered(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Self> {
        let alone = addresses.into_iter().map(IpNet::from).collect();
        let mut gathered: Vec<_> = IpNet::aggregate(&alone).into_iter().map(Self).collect();
        gathered.sort_unstable();
        gathered
    }

    /// The first address: all host bits zero.
    pub fn first(&self) -> IpAddr {
        self.0.network()
    }

    /// The last address: all host bits one.
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// How many bits its addresses have in common.
    #[expect(clippy::len_without_is_empty, reason = "a prefix is never empty")]
    pub fn len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        Family::of(self.0.addr())
    }

    /// Whether `addr` starts with it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }

    /// Whether every address of `other` is one of this.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether they have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// As tables hold it: how many of the 128 bits count, and the address.
    pub fn key(&self) -> (u32, Ip) {
        let in_front = match self.family() {
            Family::V4 => u32::from(MAPPED_LEN),
            Family::V6 => 0,
        };
        (in_front + u32::from(self.len()), self.first().into())
    }
}

impl FromStr for Prefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse =
            || Invalid::new("prefix", text, "write an address, '/' and a length, as 10.1.0.0/16 or fd00:1::/48");
        let (addr, len) = text.split_once('/').ok_or_else(refuse)?;
        // "+8" and "08" would parse as numbers.
        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) || (len.len() > 1 && len.starts_with('0')) {
            return Err(refuse());
        }
        let addr: IpAddr = addr.parse().map_err(|_| refuse())?;
        let len: u8 = len.parse().map_err(|_| refuse())?;
        Self::new(addr, len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_read_and_printed() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "192.0.2.1/32", "::/0", "fd00:1:1::/64", "::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), expect);
        check("10.1.0.1/16", "\"10.1.0.1/16\" is no prefix: host bits are set, use 10.1.0.0/16");
        check("10.1.0.0/33", "\"10.1.0.0/33\" is no prefix: IPv4 has 32 bits");
        check("::ffff:10.0.0.0/104", "\"::ffff:10.0.0.0/104\" is no prefix: write it as 10.0.0.0/8");
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0/8", "x/8", "10.0.0.0/8 ", "/"] {
            text.parse::<Prefix>().unwrap_err();
        }
    }

    #[test]
    fn families_are_apart() {
        assert!(!Prefix::ALL_V6.contains("10.0.0.1".parse().unwrap()));
        assert!(!Prefix::ALL_V6.covers(&Prefix::ALL_V4) && !Prefix::ALL_V4.overlaps(&Prefix::ALL_V6));
        assert!(Prefix::ALL_V4.covers(&prefix("10.0.0.0/8")) && prefix("10.0.0.0/8").overlaps(&Prefix::ALL_V4));
    }

    #[test]
    fn keys_have_one_form() {
        assert_eq!(prefix("10.1.0.0/16").key(), (112, Ip::from_v4([10, 1, 0, 0])));
        assert_eq!(prefix("::/0").key(), (0, Ip::NONE));
        assert_eq!(prefix("0.0.0.0/0").key(), (96, Ip::from_v4([0; 4])));
    }
}
