//! An application reaches itself, across hosts and on one, in both families, over both.

use std::net::SocketAddr;

use weft_tests::traffic::{
    Outcome,
    ping::{Ping, ping},
    tcp::{TcpEcho, tcp_echo},
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::Family;

use super::{Cluster, SOON, gateway};

#[test]
fn an_application_reaches_itself_over_an_ipv4_underlay() {
    reaches_itself(Family::V4, 1450);
}

#[test]
fn an_application_reaches_itself_over_an_ipv6_underlay() {
    reaches_itself(Family::V6, 1430);
}

fn reaches_itself(underlay: Family, mtu: usize) {
    let cluster = Cluster::of(2, underlay);
    let here = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");
    for other in [&near, &far] {
        for addr in other.both() {
            assert_eq!(ping(&here.netns, addr, SOON), Outcome::Reached, "ping {addr}");
            let header = if addr.is_ipv4() { 28 } else { 48 };
            let full = Ping::to(addr).payload(mtu - header).dont_fragment().within(SOON);
            assert_eq!(full.send_from(&here.netns), Outcome::Reached, "ping {addr} with {mtu} bytes");
            let tcp = TcpEcho::start(&other.netns, SocketAddr::new(addr, 80));
            let udp = UdpEcho::start(&other.netns, SocketAddr::new(addr, 53));
            assert_eq!(tcp_echo(&here.netns, tcp.address(), SOON), Outcome::Reached, "tcp {addr}");
            assert_eq!(udp_echo(&here.netns, udp.address(), SOON), Outcome::Reached, "udp {addr}");
        }
    }
    for addr in gateway(1).into_iter().chain(gateway(2)) {
        assert_eq!(ping(&here.netns, addr, SOON), Outcome::Reached, "ping the gateway {addr}");
    }
    let host = cluster.hosts[1].namespace();
    for addr in here.both() {
        assert_eq!(ping(host, addr, SOON), Outcome::Reached, "ping {addr} from host h2");
    }
}

#[test]
fn fragments_of_one_datagram_arrive() {
    let cluster = Cluster::of(2, Family::V4);
    let here = cluster.container(0, "a1", "shop/web");
    let far = cluster.container(1, "a2", "shop/db");
    for addr in far.both() {
        for payload in [1473, 3000, 9000] {
            let large = Ping::to(addr).payload(payload).within(SOON);
            assert_eq!(large.send_from(&here.netns), Outcome::Reached, "ping {addr} with {payload} bytes");
        }
    }
}
