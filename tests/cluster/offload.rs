//! Offloads that are switched on and off, one against the other: every byte arrives as it was sent.

use std::time::Duration;

use weft_tests::command::exec;
use weft_tests::netns::Netns;
use weft_tests::traffic::{
    Outcome,
    tcp::{TcpEcho, tcp_carry},
    udp::{UdpEcho, UdpProbe},
};
use weft_tests::underlay::{Family, UPLINK};

use super::{Cluster, SOON};

const OFFLOADS: [&str; 4] = ["tx", "tso", "gso", "gro"];

/// What one connection carries each way.
const BYTES: usize = 1 << 21;

/// A connection that loses every packet of a kind stands still; one on a busy machine does not.
const CARRIED: Duration = Duration::from_secs(20);

#[test]
fn every_byte_arrives_with_any_offloads_over_an_ipv4_underlay() {
    carries_with_any(Family::V4);
}

#[test]
fn every_byte_arrives_with_any_offloads_over_an_ipv6_underlay() {
    carries_with_any(Family::V6);
}

/// All sixteen combinations at the uplinks, each beside another one at the containers, so that in the end each was
/// on where the other was off.
fn carries_with_any(family: Family) {
    let cluster = Cluster::of(2, family);
    let here = cluster.container(0, "a1", "shop/web");
    let far = cluster.container(1, "a2", "shop/db");
    let bytes: Vec<u8> =
        (0..BYTES / 4).flat_map(|word| u32::try_from(word).unwrap().wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
    let servers = [far.at(80), far.at6(80)].map(|at| (TcpEcho::start(&far.netns, at), UdpEcho::start(&far.netns, at)));
    let links = [0, 1].map(|at| (cluster.hosts[at].namespace(), host_side(&cluster, at)));
    for combination in 0..16_u8 {
        for host in &cluster.hosts {
            switch(host.namespace(), UPLINK, combination);
        }
        // Five is prime to sixteen, and eleven turns on here what is off there.
        let inside = combination.wrapping_mul(5).wrapping_add(11) % 16;
        for container in [&here, &far] {
            switch(&container.netns, "eth0", inside);
        }
        for (host, link) in &links {
            switch(host, link, inside.rotate_left(1) % 16);
        }
        for (tcp, udp) in &servers {
            let told = || format!("{} with uplinks {combination:04b}, containers {inside:04b}", tcp.address());
            assert_eq!(tcp_carry(&here.netns, tcp.address(), &bytes, CARRIED), Outcome::Reached, "{}", told());
            for payload in [8, 1200, 4000] {
                let probe = UdpProbe::to(udp.address()).payload(payload).within(SOON);
                assert_eq!(probe.send_from(&here.netns), Outcome::Reached, "{payload} bytes to {}", told());
            }
        }
    }
}

/// The host's end of the one container that host `at` has.
fn host_side(cluster: &Cluster, at: usize) -> String {
    let links = cluster.hosts[at].namespace().ip("-o link show type veth");
    let mut names = links.lines().filter_map(|line| line.split([' ', '@', ':']).find(|word| word.starts_with("weft")));
    names.next().unwrap().to_owned()
}

/// Switches each offload on or off as the bits say. What a device turns on or off with it is its own affair.
fn switch(namespace: &Netns, interface: &str, bits: u8) {
    let states =
        OFFLOADS.iter().enumerate().flat_map(|(at, name)| [*name, if bits >> at & 1 == 1 { "on" } else { "off" }]);
    exec(namespace.command("ethtool").args(["-K", interface]).args(states));
}
