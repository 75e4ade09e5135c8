//! A container with root, and a third host, send what they should not. Nothing gets through, and each attempt is
//! counted under its own name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_tests::frame::{
    self, Frame, Station, autoconf,
    icmp::{self, Problem},
    ipv6::Extension,
    neighbour,
    tunnel::Vxlan,
};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;
use weft_tests::wire::{Capture, Injector};

use super::{Cluster, Container, SOON, app_number};

/// What is sent, and the reason under which it has to be counted.
type Attack = (&'static str, Frame, &'static str);

#[test]
fn whatever_a_container_forges_is_dropped_by_name() {
    let cluster = Cluster::of(2, Family::V4);
    let here = cluster.container(0, "a1", "shop/web");
    let friend = cluster.container(0, "a3", "shop/db");
    let victim = cluster.container(0, "b1", "blog/db");
    let far = cluster.container(1, "b2", "blog/db");
    let attacks = from_container(&here, &friend, &victim, &far);
    let ears = [&friend, &victim, &far].map(|ear| Capture::start(&ear.netns, "eth0"));
    let wire = Injector::on(&here.netns, "eth0");
    for (what, frame, reason) in &attacks {
        let before = cluster.drops(0, reason);
        wire.send(frame.bytes());
        eventually(SOON, || cluster.drops(0, reason) == before + 1 || panic_with(&cluster, what, reason));
    }
    for ear in &ears {
        let heard = ear.frames();
        let stranger = heard.iter().find(|captured| !captured.was_sent() && is_ours(&captured.frame));
        assert!(stranger.is_none(), "{}", stranger.unwrap().frame.decode());
    }
}

/// Looks again until the deadline; says what it was waiting for when that comes.
fn panic_with(cluster: &Cluster, what: &str, reason: &str) -> bool {
    if std::env::var_os("WEFT_TEST_VERBOSE").is_some() {
        eprintln!("{what}: not counted as {reason} yet: {}", cluster.weft(0, &["drops"])["counters"]);
    }
    false
}

/// Every frame of ours says so in its source port or payload.
fn is_ours(frame: &Frame) -> bool {
    frame.bytes().windows(6).any(|bytes| bytes == b"forged")
}

fn from_container(here: &Container, friend: &Container, victim: &Container, far: &Container) -> Vec<Attack> {
    let me = Station::new(here.mac, here.v4);
    let me6 = Station::new(here.mac, here.v6);
    let to = Station::new(friend.mac, friend.v4);
    let to6 = Station::new(friend.mac, friend.v6);
    let them = Station::new(victim.mac, victim.v4);
    let them6 = Station::new(victim.mac, victim.v6);
    let gateway = Station::new([0x02, 0x00, b'w', b'e', b'f', b't'], far.v4);
    let udp = |src: Station, dst: Station| frame::udp(src, dst).ports(1000, 2000).payload(b"forged");
    let v4 = |ip: [u8; 4]| Station::new(here.mac, IpAddr::from(ip));
    let fragmented = udp(me, to).payload(&[b"forged".as_slice(), &[0; 2000]].concat()).identification(7).frame();
    let IpAddr::V4(victim4) = victim.v4 else { unreachable!("asked for IPv4") };
    let quoted = frame::tcp(to, me).ports(1, 2).ack();
    vec![
        ("another's MAC", udp(me, to).frame().between(victim.mac, friend.mac), "spoofed-mac"),
        ("another's address", udp(Station::new(here.mac, victim.v4), to).frame(), "spoofed-address"),
        ("another's IPv6 address", udp(Station::new(here.mac, victim.v6), to6).frame(), "spoofed-address"),
        ("both of another", udp(them, to).frame(), "spoofed-mac"),
        ("an outside address", udp(v4([203, 0, 113, 9]), to).frame(), "spoofed-address"),
        ("loopback as destination", udp(me, Station::new(friend.mac, Ipv4Addr::LOCALHOST.into())).frame(), "martian"),
        ("a multicast source", udp(v4([224, 0, 0, 5]), to).frame(), "martian"),
        ("itself", udp(me, Station::new(friend.mac, here.v4)).ports(5, 5).payload(b"forged").frame(), "martian"),
        (
            "a claim to another's address",
            neighbour::gratuitous_arp(Station::new(here.mac, victim.v4)),
            "forged-neighbor",
        ),
        ("an answer for another", neighbour::arp_reply(Station::new(here.mac, victim4.into()), to), "forged-neighbor"),
        (
            "an advertisement for another",
            neighbour::neighbour_advertisement(Station::new(here.mac, victim.v6), to6),
            "forged-neighbor",
        ),
        (
            "a router advertisement",
            autoconf::router_advertisement(me6, Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0)),
            "rogue-router",
        ),
        ("a DHCP offer", autoconf::dhcp_offer(me, friend.mac, Ipv4Addr::new(10, 1, 1, 99)), "rogue-router"),
        ("a DHCPv6 advertise", autoconf::dhcpv6_advertise(me6, to6), "rogue-router"),
        ("a VLAN tag", udp(me, to).frame().vlan(10), "unknown-station"),
        (
            "a frame of the link alone",
            frame::raw(me, to.behind([1, 0x80, 0xc2, 0, 0, 0]), 38, b"forged"),
            "unknown-station",
        ),
        ("another ethertype with another's MAC", frame::raw(them, to, 0x88b5, b"forged"), "spoofed-mac"),
        ("another ethertype to the gateway", frame::raw(me, gateway, 0x88b5, b"forged"), "unknown-station"),
        ("IPv4 options", udp(me, to).ipv4_options(&[0x83, 7, 4, 10, 2, 1, 1, 0]).frame(), "ipv4-options"),
        (
            "a routing header",
            udp(me6, to6).extension(Extension::Routing { kind: 0, segments_left: 1, data: vec![0; 20] }).frame(),
            "ipv6-extension",
        ),
        ("a later fragment alone", fragmented.fragment(800..1600), "fragment-untracked"),
        ("a first fragment without its header", fragmented.fragment(0..0), "fragment-short"),
        ("a cut header", udp(me, to).frame().truncated(30), "malformed"),
        ("an error about nothing", icmp::error(me, to, Problem::HostUnreachable, &quoted).frame(), "icmp-unrelated"),
        ("another application", udp(me, them).frame(), "policy-default"),
        ("another application over IPv6", udp(me6, them6).frame(), "policy-default"),
        ("another application far away", udp(me, gateway).frame(), "policy-default"),
    ]
}

#[test]
fn forged_tunnel_packets_are_dropped_by_name() {
    let cluster = Cluster::of(3, Family::V4);
    let sender = cluster.container(0, "a1", "shop/web");
    let receiver = cluster.container(1, "a2", "shop/db");
    let other = cluster.container(1, "b2", "blog/db");
    let ears = [&receiver, &other].map(|ear| Capture::start(&ear.netns, "eth0"));
    let underlay = &cluster.underlay;
    let [first, second, third] = [0, 1, 2].map(|host| underlay.station(host, Family::V4));
    let stranger = Station::new(third.mac, Ipv4Addr::new(192, 0, 2, 99).into());
    let shop = app_number(&cluster, "shop");
    let blog = app_number(&cluster, "blog");
    let inner = |from: IpAddr, to: &Container| {
        frame::udp(Station::new(sender.mac, from), Station::new(to.mac, to.v4))
            .ports(1000, 2000)
            .payload(b"forged")
            .frame()
    };
    let genuine = inner(sender.v4, &receiver);
    let in_block: IpAddr = Ipv4Addr::new(10, 1, 3, 77).into();
    let attacks: Vec<Attack> = vec![
        ("a stranger", Vxlan::new(stranger, second, shop).group(0).wrap(&genuine), "unknown-peer"),
        ("a peer for another's address", Vxlan::new(third, second, shop).group(0).wrap(&genuine), "peer-not-owner"),
        (
            "a peer with another's app",
            Vxlan::new(third, second, blog).group(0).wrap(&inner(in_block, &receiver)),
            "identity-mismatch",
        ),
        (
            "a peer as the host",
            Vxlan::new(third, second, 1).group(0).wrap(&inner(in_block, &receiver)),
            "identity-mismatch",
        ),
        (
            "a peer across applications",
            Vxlan::new(third, second, shop).group(0).wrap(&inner(in_block, &other)),
            "policy-default",
        ),
        (
            "nobody's address",
            Vxlan::new(third, second, shop).group(0).wrap(
                &frame::udp(
                    Station::new(sender.mac, in_block),
                    Station::new(receiver.mac, Ipv4Addr::new(10, 1, 2, 200).into()),
                )
                .ports(1, 2)
                .payload(b"forged")
                .frame(),
            ),
            "no-route",
        ),
        (
            "wrong flags",
            Vxlan::new(first, second, shop).header([0xff, 0, 0, 0, 0, 0, 0, 0]).wrap(&genuine),
            "tunnel-malformed",
        ),
        (
            "a fragment of a tunnel packet",
            Vxlan::new(first, second, shop).group(0).wrap(&genuine).fragment(0..48),
            "tunnel-fragment",
        ),
    ];
    let wire = Injector::on(cluster.hosts[2].namespace(), "eth0");
    for (what, frame, reason) in &attacks {
        let before = cluster.drops(1, reason);
        wire.send(frame.bytes());
        eventually(SOON, || cluster.drops(1, reason) == before + 1 || panic_with(&cluster, what, reason));
    }
    for ear in &ears {
        let heard = ear.frames();
        assert!(!heard.iter().any(|captured| is_ours(&captured.frame)), "a forged packet was delivered");
    }
}
