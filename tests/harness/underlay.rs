//! The network between hosts: an Ethernet segment with IPv4 and IPv6, on which nothing moves by itself.
//!
//! Hosts are namespaces with an interface [`UPLINK`]. Their segment is a bridge in a namespace of its own, so that it
//! can be cut; two hosts for a benchmark share one veth pair instead, with nothing in between to cost time.
//! Addresses are ready at once (no duplicate address detection) and stay as they are (no router advertisements).

use crate::command::{exec, run};
use crate::frame::Station;
use crate::netns::Netns;
use crate::wait::eventually;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The interface of a host that leads to the other hosts.
pub const UPLINK: &str = "eth0";

/// Addresses 192.0.2.1 to 192.0.2.250 are the hosts'.
pub const MAX_HOSTS: usize = 250;

/// How long an uplink may take until it carries frames.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// Hosts and what joins them. Hosts are counted from 0.
#[derive(Debug)]
pub struct Underlay {
    hosts: Vec<Netns>,
    fabric: Option<Netns>,
}

/// An address family, where there is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the uplinks leave to the other end: checksums and segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// As veth has them: 64 KiB segments, checksums never computed.
    On,
    /// Every frame is as it would be on a wire.
    Off,
    /// So it is, and the receiver merges what belongs together (GRO), as the drivers of hardware do unless told not to.
    Merged,
}

impl Family {
    /// Both, for tests that do the same twice.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl Underlay {
    /// Hosts on one bridge.
    #[track_caller]
    pub fn bridged(hosts: usize) -> Self {
        let fabric = Netns::new("fabric");
        let underlay = Self { hosts: new_hosts(hosts), fabric: Some(fabric.clone()) };
        // Snooping would hold back neighbour discovery until a querier is elected; there is none.
        let mut lines = "link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up\n".to_owned();
        for (index, host) in underlay.hosts.iter().enumerate() {
            let (mac, name) = (mac_text(index), host.name());
            writeln!(lines, "link add h{index} type veth peer name {UPLINK} address {mac} netns {name}")
                .and_then(|()| writeln!(lines, "link set h{index} master br0 up"))
                .expect("a string takes any text");
        }
        // A bridge has nothing to say of its own.
        fabric.set_sysctl("ipv6/conf/all/disable_ipv6", "1");
        fabric.ip_batch(&lines);
        underlay.configure_hosts();
        underlay
    }

    /// Two hosts joined by one veth pair.
    #[track_caller]
    pub fn direct() -> Self {
        let underlay = Self { hosts: new_hosts(2), fabric: None };
        let (near, far) = (mac_text(0), mac_text(1));
        let other = underlay.hosts[1].name();
        underlay.hosts[0]
            .ip(&format!("link add {UPLINK} address {near} type veth peer name {UPLINK} address {far} netns {other}"));
        underlay.configure_hosts();
        underlay
    }

    /// All hosts in order.
    pub fn hosts(&self) -> &[Netns] {
        &self.hosts
    }

    /// One host.
    #[track_caller]
    pub fn host(&self, index: usize) -> &Netns {
        &self.hosts[index]
    }

    /// The address of a host: 192.0.2.n or 2001:db8::n, n = index + 1.
    pub fn ip(&self, index: usize, family: Family) -> IpAddr {
        address(index, family)
    }

    /// The MAC and the address of a host's uplink.
    pub fn station(&self, index: usize, family: Family) -> Station {
        Station::new(mac(index), address(index, family))
    }

    /// Sets the MTU of the segment: all uplinks and all ports.
    #[track_caller]
    pub fn set_mtu(&self, mtu: u32) {
        for host in &self.hosts {
            host.ip(&format!("link set {UPLINK} mtu {mtu}"));
        }
        if let Some(fabric) = &self.fabric {
            // The bridge follows its ports.
            let ports = (0..self.hosts.len()).map(|index| format!("link set h{index} mtu {mtu}\n"));
            fabric.ip_batch(&ports.collect::<String>());
        }
    }

    /// Sets the offloads of the segment: all uplinks and all ports.
    #[track_caller]
    pub fn set_offloads(&self, offloads: Offloads) {
        for host in &self.hosts {
            set_offloads(host, UPLINK, offloads);
        }
        if let Some(fabric) = &self.fabric {
            for index in 0..self.hosts.len() {
                set_offloads(fabric, &format!("h{index}"), offloads);
            }
        }
    }

    /// Cuts the segment: frames pass inside a group only. A host in no group is alone. Nobody loses carrier.
    #[track_caller]
    pub fn partition(&self, groups: &[&[usize]]) {
        let mut rules = String::new();
        for from in 0..self.hosts.len() {
            let reached: BTreeSet<usize> =
                groups.iter().filter(|group| group.contains(&from)).flat_map(|group| group.iter().copied()).collect();
            for to in (0..self.hosts.len()).filter(|to| *to != from && !reached.contains(to)) {
                writeln!(rules, "iifname h{from} oifname h{to} drop").expect("a string takes any text");
            }
        }
        self.replace_cuts(&format!("chain cuts {{\ntype filter hook forward priority 0\n{rules}}}"));
    }

    /// Joins the segment again.
    #[track_caller]
    pub fn heal(&self) {
        self.replace_cuts("");
    }

    #[track_caller]
    fn replace_cuts(&self, chain: &str) {
        let fabric = self.fabric.as_ref().expect("only a bridged underlay can be cut");
        fabric.nft(&format!("table bridge cuts {{\n}}\ndelete table bridge cuts\ntable bridge cuts {{\n{chain}\n}}\n"));
    }

    #[track_caller]
    fn configure_hosts(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let (v4, v6) = (address(index, Family::V4), address(index, Family::V6));
            host.ip_batch(&format!(
                "addr add {v4}/24 dev {UPLINK}\naddr add {v6}/64 dev {UPLINK} nodad\nlink set {UPLINK} up\n"
            ));
        }
        // Carrier is told to both ends by and by; a bridge passes nothing to a port before it has heard of it.
        for host in &self.hosts {
            eventually(UP_WITHIN, || host.ip(&format!("-br link show {UPLINK}")).contains(" UP "));
        }
        if let Some(fabric) = &self.fabric {
            let ports = || run(&format!("bridge -n {} link show", fabric.name()));
            eventually(UP_WITHIN, || ports().matches("state forwarding").count() == self.hosts.len());
        }
    }
}

/// Sets the offloads of one interface.
#[track_caller]
pub fn set_offloads(namespace: &Netns, interface: &str, offloads: Offloads) {
    // Merging is the only one that veth has off by default.
    let (state, merging) = match offloads {
        Offloads::On => ("on", "off"),
        Offloads::Off => ("off", "off"),
        Offloads::Merged => ("off", "on"),
    };
    let features = ["tx", "tso", "gso"].map(|feature| [feature, state]).concat();
    exec(namespace.command("ethtool").args(["-K", interface, "gro", merging]).args(features));
}

#[track_caller]
fn new_hosts(count: usize) -> Vec<Netns> {
    assert!(count <= MAX_HOSTS, "{count} hosts do not fit into 192.0.2.0/24");
    let hosts: Vec<_> = (0..count).map(|index| Netns::new(&format!("host{index}"))).collect();
    hosts.iter().for_each(quiet);
    hosts
}

/// Later interfaces of the namespace have their IPv6 addresses at once and listen to no router.
fn quiet(namespace: &Netns) {
    for key in ["accept_ra", "accept_dad", "router_solicitations"] {
        namespace.set_sysctl(&format!("ipv6/conf/default/{key}"), "0");
    }
}

fn address(index: usize, family: Family) -> IpAddr {
    let number = number(index);
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn mac(index: usize) -> [u8; 6] {
    [0x02, 0, 192, 0, 2, number(index)]
}

fn mac_text(index: usize) -> String {
    mac(index).map(|byte| format!("{byte:02x}")).join(":")
}

fn number(index: usize) -> u8 {
    u8::try_from(index + 1).expect("hosts are counted up to 250")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Outcome;
    use crate::traffic::ping::{Ping, ping};

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(200);

    #[test]
    fn hosts_on_a_bridge_reach_each_other_at_once() {
        let underlay = Underlay::bridged(3);
        for family in Family::BOTH {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                assert_eq!(ping(underlay.host(from), underlay.ip(to, family), SOON), Outcome::Reached);
            }
        }
    }

    #[test]
    fn two_hosts_on_one_veth_reach_each_other() {
        let underlay = Underlay::direct();
        underlay.set_offloads(Offloads::Off);
        for family in Family::BOTH {
            assert_eq!(ping(underlay.host(0), underlay.ip(1, family), SOON), Outcome::Reached);
        }
    }

    #[test]
    fn an_mtu_holds_for_the_whole_segment() {
        let underlay = Underlay::bridged(2);
        underlay.set_mtu(1400);
        for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
            let probe = |size: usize| {
                Ping::to(underlay.ip(1, family)).payload(size - headers).dont_fragment().send_from(underlay.host(0))
            };
            assert_eq!((probe(1400), probe(1401)), (Outcome::Reached, Outcome::TooBig(1400)), "{family:?}");
        }
    }

    #[test]
    fn a_cut_segment_passes_frames_inside_groups_only() {
        let underlay = Underlay::bridged(3);
        underlay.partition(&[&[0, 1]]);
        for family in Family::BOTH {
            assert_eq!(ping(underlay.host(0), underlay.ip(1, family), SOON), Outcome::Reached);
            assert_eq!(ping(underlay.host(0), underlay.ip(2, family), NEVER), Outcome::TimedOut);
            assert_eq!(ping(underlay.host(2), underlay.ip(1, family), NEVER), Outcome::TimedOut);
        }
        underlay.heal();
        for family in Family::BOTH {
            // The kernel asks for a neighbour it did not find once a second.
            assert_eq!(ping(underlay.host(0), underlay.ip(2, family), SOON), Outcome::Reached);
        }
    }
}
