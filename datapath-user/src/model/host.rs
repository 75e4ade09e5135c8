//! Hosts: the machines that run weftd.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    name::{AppName, HostName},
    prefix::{Family, Prefix},
};

/// A machine that runs weftd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What it is called.
    pub name: HostName,
    /// Its addresses on the underlay, the preferred one first. At least one.
    pub addresses: Vec<IpAddr>,
    /// The parts of the apps' prefixes that it was given; it alone gives out their addresses.
    pub blocks: BTreeMap<AppName, Vec<Prefix>>,
}

impl Host {
    /// Its blocks of an app, in the order in which they were given.
    pub fn blocks_of<'a>(&'a self, app: &AppName) -> impl Iterator<Item = &'a Prefix> + use<'a> {
        self.blocks.get(app).into_iter().flatten()
    }

    /// The address at which it stands in an app: the first that is usable of its first block of the family.
    pub fn gateway(&self, app: &AppName, family: Family) -> Option<IpAddr> {
        let block = self.blocks_of(app).find(|block| block.family() == family)?;
        Some(first_usable(block))
    }

    /// All its gateway addresses.
    pub fn gateways(&self) -> impl Iterator<Item = (&AppName, IpAddr)> {
        let of = move |app| Family::ALL.into_iter().filter_map(move |family| Some((app, self.gateway(app, family)?)));
        self.blocks.keys().flat_map(of)
    }

    /// Its block that an address is in.
    pub fn block_with(&self, app: &AppName, addr: IpAddr) -> Option<&Prefix> {
        self.blocks_of(app).find(|block| block.contains(addr))
    }
}

/// Whether a block keeps its first and, of IPv4, its last address for itself: the network's name and the
/// broadcast, in IPv6 the subnet-router anycast address (RFC 4291 §2.6.1). The smallest ones do not
/// (RFC 3021, RFC 6164).
fn keeps_ends(block: &Prefix) -> bool {
    block.family().bits() - block.len() > 1
}

/// Whether an address of a block can be given to anybody.
pub fn is_usable(block: &Prefix, addr: IpAddr) -> bool {
    let last_is_broadcast = block.family() == Family::V4;
    !keeps_ends(block) || (addr != block.first() && !(last_is_broadcast && addr == block.last()))
}

fn first_usable(block: &Prefix) -> IpAddr {
    if keeps_ends(block) { after(block.first()) } else { block.first() }
}

/// The address after this one; the last one is its own.
pub fn after(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).saturating_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).saturating_add(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_first_usable_address() {
        let check = |blocks: &[&str], v4: Option<&str>, v6: Option<&str>| {
            let app: AppName = "shop".parse().unwrap();
            let blocks = blocks.iter().map(|text| text.parse().unwrap()).collect();
            let host = Host {
                name: "h1".parse().unwrap(),
                addresses: vec!["192.0.2.1".parse().unwrap()],
                blocks: [(app.clone(), blocks)].into(),
            };
            assert_eq!(host.gateway(&app, Family::V4), v4.map(|text| text.parse().unwrap()));
            assert_eq!(host.gateway(&app, Family::V6), v6.map(|text| text.parse().unwrap()));
        };
        check(&["10.1.1.0/24", "10.1.0.0/24", "fd00:1:1::/64"], Some("10.1.1.1"), Some("fd00:1:1::1"));
        check(&["10.1.1.4/31"], Some("10.1.1.4"), None);
        check(&["10.1.1.4/32", "fd00::/127"], Some("10.1.1.4"), Some("fd00::"));
        check(&["10.1.1.4/30"], Some("10.1.1.5"), None);
        check(&[], None, None);
    }

    #[test]
    fn the_ends_of_a_block_are_nobodys() {
        let check = |block: &str, addr: &str, expect: bool| {
            assert_eq!(is_usable(&block.parse().unwrap(), addr.parse().unwrap()), expect, "{addr} of {block}");
        };
        check("10.0.0.0/24", "10.0.0.0", false);
        check("10.0.0.0/24", "10.0.0.255", false);
        check("10.0.0.0/24", "10.0.0.254", true);
        check("10.0.0.0/31", "10.0.0.0", true);
        check("10.0.0.0/31", "10.0.0.1", true);
        check("fd00::/64", "fd00::", false);
        check("fd00::/64", "fd00::ffff:ffff:ffff:ffff", true);
    }
}
