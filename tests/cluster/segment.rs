//! Applications are kept apart, and let through by a rule, and cut off again.

use std::time::Duration;

use nix::errno::Errno;
use weft_tests::netns::Netns;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    stream::{Cause, Stream},
    tcp::{TcpEcho, tcp_connect},
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::{Family, Offloads, set_offloads};

use super::{Cluster, SILENCE, SOON};

/// What a change denies is cut within this, from when it is in force.
const CUT: Duration = Duration::from_secs(1);

#[test]
fn another_application_is_out_of_reach_until_a_rule_says_otherwise() {
    let cluster = Cluster::of(2, Family::V4);
    let client = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "b1", "blog/db");
    let far = cluster.container(1, "b2", "blog/db");
    for other in [&near, &far] {
        let allowed = TcpEcho::start(&other.netns, other.at(5432));
        let other_port = TcpEcho::start(&other.netns, other.at(5433));
        let other_family = TcpEcho::start(&other.netns, other.at6(5432));
        let datagrams = UdpEcho::start(&other.netns, other.at(5432));
        for addr in other.both() {
            assert_eq!(ping(&client.netns, addr, SILENCE), Outcome::TimedOut);
        }
        for server in [allowed.address(), other_port.address(), other_family.address()] {
            assert_eq!(tcp_connect(&client.netns, server, SILENCE), Outcome::TimedOut, "{server}");
        }
        assert_eq!(udp_echo(&client.netns, datagrams.address(), SILENCE), Outcome::TimedOut);

        cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/5432"]);
        wait_for_rule(&cluster, 1);
        assert_eq!(tcp_connect(&client.netns, allowed.address(), SOON), Outcome::Reached);
        assert_eq!(tcp_connect(&client.netns, other_family.address(), SOON), Outcome::Reached);
        assert_eq!(tcp_connect(&client.netns, other_port.address(), SILENCE), Outcome::TimedOut);
        assert_eq!(udp_echo(&client.netns, datagrams.address(), SILENCE), Outcome::TimedOut);
        let back = TcpEcho::start(&client.netns, client.at(5432));
        assert_eq!(tcp_connect(&other.netns, back.address(), SILENCE), Outcome::TimedOut, "the rule has a direction");

        cluster.weft(1, &["allow", "shop/web", "blog/db", "tcp/5432", "--remove"]);
        wait_for_rule(&cluster, 0);
        assert_eq!(tcp_connect(&client.netns, allowed.address(), SILENCE), Outcome::TimedOut);
    }
}

#[test]
fn an_open_connection_is_cut_at_both_ends_when_its_rule_goes() {
    let cluster = Cluster::of(2, Family::V4);
    cluster.weft(0, &["allow", "shop", "blog", "tcp/7000"]);
    wait_for_rule(&cluster, 1);
    let client = cluster.container(0, "a1", "shop/web");
    for (host, name) in [(0, "b1"), (1, "b2")] {
        let server = cluster.container(host, name, "blog/db");
        let stream = Stream::listen(&server.netns, server.at(7000)).connect_from(&client.netns, SOON);
        assert!(stream.flows_within(SOON));
        cluster.weft_everywhere(0, &["allow", "shop", "blog", "tcp/7000", "--remove"]);
        let (at_client, at_server) = stream.deaths_within(CUT);
        assert_eq!((at_client.cause, at_server.cause), (Cause::Reset, Cause::Reset));
        cluster.weft(0, &["allow", "shop", "blog", "tcp/7000"]);
        wait_for_rule(&cluster, 1);
    }
}

/// Of an endpoint elsewhere a host knows no role but by its packets: the sender's host lets pass what the receiver's does
/// not, and the receiver's forgets nothing about the sender while the server still speaks.
#[test]
fn an_open_connection_is_cut_at_both_ends_by_a_rule_about_one_whose_role_only_its_own_host_knows() {
    let cluster = Cluster::of(2, Family::V4);
    let client = cluster.container(0, "a1", "shop/web");
    let server = cluster.container(1, "a2", "shop/db");
    for (at, action, said) in [
        (server.at(7000), "deny", "shop -> shop/db tcp"),
        (server.at6(7000), "reject", "shop -> shop/db tcp"),
        (server.at(7000), "reject", "shop/web -> shop tcp"),
        (server.at6(7000), "deny", "shop/web -> shop tcp"),
    ] {
        let stream = Stream::listen(&server.netns, at).connect_from(&client.netns, SOON);
        assert!(stream.flows_within(SOON));
        cluster.weft_everywhere(0, &[action, said]);
        let (at_client, at_server) = stream.deaths_within(CUT);
        assert_eq!((at_client.cause, at_server.cause), (Cause::Reset, Cause::Reset), "{action} {said}");
        cluster.weft(0, &[action, said, "--remove"]);
        wait_for_rule(&cluster, 0);
    }
}

#[test]
fn a_rejected_connection_is_refused_at_once() {
    let cluster = Cluster::of(2, Family::V4);
    let client = cluster.container(0, "a1", "shop/web");
    for (host, name) in [(0, "b1"), (1, "b2")] {
        let server = cluster.container(host, name, "blog/db");
        let echo = TcpEcho::start(&server.netns, server.at(80));
        cluster.weft(0, &["reject", "shop", "blog", "tcp/80"]);
        wait_for_rule(&cluster, 1);
        assert_eq!(tcp_connect(&client.netns, echo.address(), SOON), Outcome::Refused);
        cluster.weft(0, &["reject", "shop", "blog", "tcp/80", "--remove"]);
        wait_for_rule(&cluster, 0);
    }
}

/// The sender leaves the checksum of its datagram to its device. What answers the datagram is made of it, and may leave by
/// a device that does compute checksums: they would be written into the answer.
#[test]
fn a_rejected_datagram_is_answered_whatever_computes_checksums() {
    let cluster = Cluster::of(2, Family::V4);
    let client = cluster.container(0, "a1", "shop/web");
    let servers = [(0, "b1"), (1, "b2")].map(|(host, name)| cluster.container(host, name, "blog/db"));
    cluster.weft(0, &["reject", "shop", "blog", "udp"]);
    wait_for_rule(&cluster, 1);
    for offloads in [Offloads::On, Offloads::Off] {
        cluster.underlay.set_offloads(offloads);
        for host in &cluster.hosts {
            for interface in interfaces(host.namespace()) {
                set_offloads(host.namespace(), &interface, offloads);
            }
        }
        for server in &servers {
            for (address, forbidden) in [(server.v4, Errno::EHOSTUNREACH), (server.v6, Errno::EACCES)] {
                let outcome = udp_echo(&client.netns, (address, 999).into(), SOON);
                assert_eq!(outcome, Outcome::Unreachable(forbidden), "{address}, offloads {offloads:?}");
            }
        }
    }
}

/// The host's sides of its containers' interfaces.
fn interfaces(host: &Netns) -> Vec<String> {
    let listed = host.ip("-br link show type veth");
    let names = listed.lines().filter_map(|line| line.split(['@', ' ']).next());
    names.filter(|name| name.starts_with("weft")).map(str::to_owned).collect()
}

/// Waits until both hosts enforce a number of rules.
pub(super) fn wait_for_rule(cluster: &Cluster, rules: usize) {
    for host in 0..cluster.hosts.len() {
        weft_tests::wait::eventually(SOON, || {
            // In this order: what is in force then has the rules that were listed.
            let list = cluster.weft(host, &["policy", "ls"]);
            let status = cluster.weft(host, &["status"]);
            status["in_force"] == status["revision"] && list["rules"].as_array().is_some_and(|list| list.len() == rules)
        });
    }
}
