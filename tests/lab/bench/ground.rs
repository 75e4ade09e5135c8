//! Where it is measured: for every setting a pair of namespaces, all there at once so that they can take turns.
//!
//! The hosts with and without weft are different ones, so that its programs cost nothing where they are not measured.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use anyhow::{Result, bail};
use weft_tests::netns::Netns;
use weft_tests::underlay::{Family, UPLINK, Underlay};

use super::cell::{Segment, Setting};
use super::machine;
use super::pair::Pair;
use super::woven::Woven;

/// Hosts, containers and what joins them.
pub(super) struct Ground {
    pairs: BTreeMap<Setting, Pair>,
    /// `ethtool -k` of an uplink.
    pub(super) features: Vec<String>,
    /// Settings that could not be built, and why.
    pub(super) failures: Vec<String>,
    // Dropped after the pairs: daemons, then the hosts they run on.
    woven: Vec<Woven>,
    /// Of hosts without weft.
    underlay: Underlay,
    /// Of hosts whose bridges ask the firewall.
    filtered: Option<Underlay>,
}

/// Whether bridges hand packets to netfilter.
#[derive(Clone, Copy, Debug)]
enum Firewall {
    Asked,
    Left,
}

/// What VXLAN adds: inner Ethernet, outer IPv4, UDP and VXLAN headers.
const OVERHEAD: u32 = 14 + 20 + 8 + 8;

/// IANA's port of VXLAN, which weft leaves to others.
const VXLAN_PORT: u16 = 4789;

impl Ground {
    /// Builds what the settings need. One that cannot be built does not keep the others from being measured.
    pub(super) fn build(segment: Segment, settings: &[Setting]) -> Self {
        let underlay = joined(segment);
        let features = machine::features(underlay.host(0), UPLINK);
        let mut ground = Self {
            pairs: BTreeMap::new(),
            features,
            failures: Vec::new(),
            woven: Vec::new(),
            underlay,
            filtered: None,
        };
        for &setting in settings {
            // The harness panics, and has told why. What a panic leaves half done is not used.
            let built = panic::catch_unwind(AssertUnwindSafe(|| ground.add(setting, segment)));
            match built.unwrap_or_else(|_| bail!("see above")) {
                Ok(()) => {}
                Err(error) => ground.failures.push(format!("build {setting}, {segment}: {error:#}")),
            }
        }
        ground
    }

    /// The two ends of a setting, if it was built.
    pub(super) fn pair(&self, setting: Setting) -> Option<&Pair> {
        self.pairs.get(&setting)
    }

    fn add(&mut self, setting: Setting, segment: Segment) -> Result<()> {
        if self.pairs.contains_key(&setting) {
            return Ok(());
        }
        let pair = match setting {
            Setting::Host => host_to_host(&self.underlay)?,
            Setting::Vxlan => vxlan(&self.underlay, segment.mtu - OVERHEAD, Firewall::Left),
            Setting::Filtered => vxlan(self.filtered.insert(joined(segment)), segment.mtu - OVERHEAD, Firewall::Asked),
            Setting::Veth => veth(segment.mtu),
            Setting::Weft { rules } => self.woven(rules, segment)?.across(),
            Setting::Local => self.woven(0, segment)?.local()?,
        };
        self.pairs.insert(setting, pair);
        Ok(())
    }

    /// The hosts with this number of rules, built when they are first asked for.
    fn woven(&mut self, rules: u32, segment: Segment) -> Result<&Woven> {
        let known = self.woven.iter().position(|woven| woven.rules() == rules);
        let at = known.unwrap_or(self.woven.len());
        if known.is_none() {
            self.woven.push(Woven::build(joined(segment), rules)?);
        }
        Ok(&self.woven[at])
    }
}

/// Two hosts on one veth pair.
pub(super) fn joined(segment: Segment) -> Underlay {
    let Segment { mtu, offloads } = segment;
    let underlay = Underlay::direct();
    underlay.set_mtu(mtu);
    underlay.set_offloads(offloads);
    underlay
}

fn host_to_host(underlay: &Underlay) -> Result<Pair> {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (underlay.ip(1, Family::V4), underlay.ip(1, Family::V6)) else {
        bail!("a host has an address of each family")
    };
    Ok(Pair { client: underlay.host(0).clone(), server: underlay.host(1).clone(), v4, v6 })
}

/// A bridge and a VXLAN device on each host, one container on each bridge. The devices learn nothing: where the other
/// container is, and where to flood its neighbour discovery, is written down.
fn vxlan(underlay: &Underlay, mtu: u32, firewall: Firewall) -> Pair {
    let ends = [0, 1].map(|index| {
        let (host, other) = (underlay.host(index), 1 - index);
        let container = quiet(&format!("vxlan{index}"));
        host.ip_batch(&format!(
            "link add br77 type bridge stp_state 0 mcast_snooping 0
             link add vx77 type vxlan id 77 dstport {VXLAN_PORT} local {local} dev {UPLINK} nolearning
             link set vx77 mtu {mtu} master br77 up
             link add c77 type veth peer name eth0 address {mac} netns {container}
             link set c77 mtu {mtu} master br77 up
             link set br77 up",
            local = underlay.ip(index, Family::V4),
            mac = mac(index),
            container = container.name(),
        ));
        firewall.set(host);
        for destination in ["00:00:00:00:00:00", &mac(other)] {
            let remote = underlay.ip(other, Family::V4);
            weft_tests::command::run(&format!(
                "bridge -n {} fdb append {destination} dev vx77 dst {remote}",
                host.name()
            ));
        }
        container.ip_batch(&format!(
            "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 mtu {mtu} up",
            v4(index),
            v6(index)
        ));
        container
    });
    pair_of(ends)
}

impl Firewall {
    /// A kernel without netfilter for bridges has nothing to set.
    fn set(self, host: &Netns) {
        let value = match self {
            Self::Asked => "1",
            Self::Left => "0",
        };
        for tables in ["iptables", "ip6tables", "arptables"] {
            let key = format!("bridge/bridge-nf-call-{tables}");
            if host.run(|| Path::new("/proc/sys/net").join(&key).exists()) {
                host.set_sysctl(&key, value);
            }
        }
    }
}

fn veth(mtu: u32) -> Pair {
    let ends = [0, 1].map(|index| quiet(&format!("veth{index}")));
    ends[0].ip(&format!("link add eth0 type veth peer name eth0 netns {}", ends[1].name()));
    for (index, end) in ends.iter().enumerate() {
        end.ip_batch(&format!(
            "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 mtu {mtu} up",
            v4(index),
            v6(index)
        ));
    }
    pair_of(ends)
}

fn pair_of([client, server]: [Netns; 2]) -> Pair {
    Pair { client, server, v4: v4(1), v6: v6(1) }
}

/// A namespace that nobody tells about routers.
fn quiet(label: &str) -> Netns {
    let namespace = Netns::new(label);
    for key in ["accept_ra", "accept_dad", "router_solicitations"] {
        namespace.set_sysctl(&format!("ipv6/conf/default/{key}"), "0");
    }
    namespace
}

fn v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number(index))
}

fn v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number(index).into())
}

fn mac(index: usize) -> String {
    format!("02:00:0a:4d:00:{:02x}", number(index))
}

fn number(index: usize) -> u8 {
    if index == 0 { 1 } else { 2 }
}
