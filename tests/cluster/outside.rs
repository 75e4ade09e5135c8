//! The way out: a container reaches what is no host and no container, with its host's address; and reaches nobody of
//! the cluster with an address that is not its own.

use std::net::SocketAddr;

use weft_tests::command::exec;
use weft_tests::netns::Netns;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    tcp::{TcpEcho, tcp_connect, tcp_echo},
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::Family;

use super::{Cluster, Container, SILENCE, SOON, segment::wait_for_rule};

#[test]
fn a_container_goes_out_as_its_host_and_stays_itself_inside() {
    let mut cluster = Cluster::without_daemons(2, Family::V4);
    let host = cluster.hosts[0].namespace().clone();
    let before = switches(&host);
    let outside = default_route_to(&host);
    let (forwarding, rules) = (switches(&host), ruleset(&host));
    for at in 0..2 {
        cluster.start(at);
        cluster.hosts[at].wait_ready(super::READY);
    }
    let here = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");

    for (server, source) in [("198.51.100.2:80", "198.51.100.1"), ("[2001:db8:51::2]:80", "2001:db8:51::1")] {
        let server: SocketAddr = server.parse().unwrap();
        let (tcp, udp) = (TcpEcho::start(&outside, server), UdpEcho::start(&outside, server));
        assert_eq!(tcp_echo(&here.netns, server, SOON), Outcome::Reached, "tcp {server}");
        assert_eq!(udp_echo(&here.netns, server, SOON), Outcome::Reached, "udp {server}");
        assert_eq!(ping(&here.netns, server.ip(), SOON), Outcome::Reached, "ping {server}");
        let seen: Vec<String> = [tcp.peers(), udp.peers()].concat().iter().map(|peer| peer.ip().to_string()).collect();
        assert_eq!(seen, [source, source], "{server} sees the host");
    }
    // Another host's own address is outside too.
    let underlay = cluster.underlay.ip(1, Family::V4);
    let tcp = TcpEcho::start(cluster.hosts[1].namespace(), SocketAddr::new(underlay, 80));
    assert_eq!(tcp_echo(&here.netns, tcp.address(), SOON), Outcome::Reached);
    assert_eq!(tcp.peers()[0].ip(), cluster.underlay.ip(0, Family::V4));

    for to in [&near, &far] {
        for (at, own) in [(to.at(80), here.v4), (to.at6(80), here.v6)] {
            let (tcp, udp) = (TcpEcho::start(&to.netns, at), UdpEcho::start(&to.netns, at));
            assert_eq!(tcp_echo(&here.netns, at, SOON), Outcome::Reached);
            assert_eq!(udp_echo(&here.netns, at, SOON), Outcome::Reached);
            let seen: Vec<_> = [tcp.peers(), udp.peers()].concat().iter().map(SocketAddr::ip).collect();
            assert_eq!(seen, [own, own], "{at} sees the container");
        }
    }
    assert_ne!(switches(&host), forwarding);
    cluster.weft(0, &["reset", "--yes"]);
    assert_eq!((switches(&host), ruleset(&host)), (forwarding, rules));
    assert_eq!(switches(&host).len(), before.len() + 1, "one more interface, for the way out");
}

#[test]
fn an_app_that_is_closed_to_its_hosts_and_to_the_outside_is_opened_by_rules_alone() {
    let mut cluster = Cluster::without_daemons(1, Family::V4);
    let host = cluster.hosts[0].namespace().clone();
    let outside = default_route_to(&host);
    cluster.start(0);
    cluster.hosts[0].wait_ready(super::READY);
    let [shop, blog] = [("a1", "shop/web"), ("b1", "blog/db")].map(|(name, member)| cluster.container(0, name, member));
    let servers = ["198.51.100.2:80", "[2001:db8:51::2]:80"].map(|server| server.parse::<SocketAddr>().unwrap());
    let _servers = servers.map(|server| UdpEcho::start(&outside, server));
    let _containers =
        [&shop, &blog].map(|one| [one.at(80), one.at6(80), one.at(81)].map(|at| TcpEcho::start(&one.netns, at)));
    // The host of a container, and the container of the outside, in both families.
    let heard = |container: &Container, expect: Outcome| {
        let within = if expect == Outcome::Reached { SOON } else { SILENCE };
        for at in [container.at(80), container.at6(80)] {
            assert_eq!(tcp_connect(&host, at, within), expect, "the host to {at}");
        }
        for server in servers {
            assert_eq!(udp_echo(&container.netns, server, within), expect, "{} to {server}", container.v4);
        }
    };
    heard(&shop, Outcome::Reached);
    cluster.weft(0, &["app", "set", "shop", "--from-host", "closed", "--to-outside", "closed"]);
    wait_for_rule(&cluster, 0);
    heard(&shop, Outcome::TimedOut);
    heard(&blog, Outcome::Reached);
    cluster.weft(0, &["allow", "host", "shop/web", "tcp/80"]);
    cluster.weft(0, &["allow", "shop/web", "outside", "udp/80"]);
    wait_for_rule(&cluster, 2);
    heard(&shop, Outcome::Reached);
    // By no more than the rules say.
    for server in servers {
        assert_eq!(ping(&shop.netns, server.ip(), SILENCE), Outcome::TimedOut, "{server}");
    }
    assert_eq!(tcp_connect(&host, shop.at(81), SILENCE), Outcome::TimedOut);
}

/// A server behind an interface of the host that leads to no other host, which is where its default routes point.
/// Nobody there knows of the cluster's addresses.
fn default_route_to(host: &Netns) -> Netns {
    let outside = Netns::new("outside");
    outside.set_sysctl("ipv6/conf/default/accept_dad", "0");
    host.ip(&format!("link add out type veth peer name eth0 netns {}", outside.name()));
    host.ip_batch(
        "addr add 198.51.100.1/24 dev out\naddr add 2001:db8:51::1/64 dev out nodad\nlink set out up\n\
         route add default via 198.51.100.2\nroute add default via 2001:db8:51::2\n",
    );
    outside
        .ip_batch("addr add 198.51.100.2/24 dev eth0\naddr add 2001:db8:51::2/64 dev eth0 nodad\nlink set eth0 up\n");
    outside
}

/// Every interface's switches of forwarding and of source checks.
fn switches(host: &Netns) -> Vec<String> {
    let read = |line: &str| exec(host.command("sh").args(["-c", line]));
    let text =
        read("cd /proc/sys/net; grep -r . ipv4/conf/*/forwarding ipv6/conf/all/forwarding ipv4/conf/*/rp_filter");
    let mut lines: Vec<_> = text.lines().filter(|line| line.contains("/forwarding")).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn ruleset(host: &Netns) -> String {
    exec(host.command("nft").args(["list", "ruleset"]))
}
