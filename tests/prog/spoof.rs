//! What a container with root in its namespace can send, and may not.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Net, PRESS, SHOP, WEB, address};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::addr::Mac;
use weft_common::verdict::DropReason;
use weft_tests::frame::autoconf::{dhcp_offer, dhcpv6_advertise, router_advertisement};
use weft_tests::frame::icmp::{Problem, echo_request, error, message};
use weft_tests::frame::ipv6::Extension;
use weft_tests::frame::neighbour::{
    arp_reply, arp_request, gratuitous_arp, multicast, neighbour_advertisement, neighbour_solicitation,
    unsolicited_advertisement,
};
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{BROADCAST, Frame, Station, protocol, tcp, udp};
use weft_tests::underlay::Family;

/// Shop's web sends it, and it is dropped for this reason. Nothing else is counted, but for what its app may not have
/// of another.
#[track_caller]
fn check(lab: &mut Lab, what: &str, frame: &Frame, reason: DropReason) {
    let ran = lab.sends(WEB, frame);
    let found = ran.reason();
    assert_eq!(found, Some(reason), "{what}: {ran}");
    ran.dropped();
    lab.settle();
}

/// Sources that are not shop's web's.
fn foreign(family: Family) -> Vec<(&'static str, IpAddr)> {
    let special: [(&str, IpAddr); 2] = match family {
        Family::V4 => [
            ("a link-local address", Ipv4Addr::new(169, 254, 1, 1).into()),
            ("an address of the outside", Ipv4Addr::new(198, 51, 100, 7).into()),
        ],
        Family::V6 => [
            ("a link-local address", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()),
            ("an address of the outside", Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7).into()),
        ],
    };
    let mut sources = vec![
        ("its neighbour's", CACHE.ip(family)),
        ("another app's", PRESS.ip(family)),
        ("one on another host", DB.ip(family)),
        ("the gateway's", At::A.gateway(SHOP, family).ip),
        ("one that nobody has", address(SHOP, At::A, 99, family)),
        ("the host's own", At::A.station(family).ip),
    ];
    sources.extend(special);
    sources
}

#[test]
fn no_packet_leaves_with_a_foreign_address() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        for (what, ip) in foreign(net.inner) {
            let liar = Station::new(web.mac, ip);
            if ip != cache.ip {
                check(&mut lab, what, &tcp(liar, cache).syn(), DropReason::SpoofedAddress);
            }
            let outsider = net.outsider();
            if ip != outsider.ip {
                check(&mut lab, what, &udp(liar, outsider).frame(), DropReason::SpoofedAddress);
            }
            let ping = echo_request(liar, At::A.gateway(SHOP, net.inner).behind(BROADCAST), [1, 1]);
            if ip != At::A.gateway(SHOP, net.inner).ip {
                check(&mut lab, what, &ping.frame(), DropReason::SpoofedAddress);
            }
        }
    }
}

#[test]
fn no_frame_leaves_with_a_foreign_mac() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        for mac in [cache.mac, Mac::GATEWAY.bytes(), BROADCAST, [0; 6], [3, 0, 0, 100, 1, 11], [0x33, 0x33, 0, 0, 0, 1]]
        {
            let liar = web.behind(mac);
            check(&mut lab, "TCP", &tcp(liar, cache).syn(), DropReason::SpoofedMac);
            let (question, claim) = match cache.ip {
                IpAddr::V4(wanted) => (arp_request(liar, wanted), arp_reply(web, cache).between(mac, cache.mac)),
                IpAddr::V6(wanted) => {
                    (neighbour_solicitation(liar, wanted), neighbour_advertisement(web, cache).between(mac, cache.mac))
                }
            };
            check(&mut lab, "a question", &question, DropReason::SpoofedMac);
            check(&mut lab, "a claim", &claim, DropReason::SpoofedMac);
        }
    }
}

#[test]
fn nobody_claims_the_address_of_another() {
    let mut lab = Lab::two_hosts();
    let forged = DropReason::ForgedNeighbor;
    let [web, web6] = Family::BOTH.map(|family| WEB.station(family));
    let [cache, cache6] = Family::BOTH.map(|family| CACHE.station(family));
    for (what, ip) in foreign(Family::V4) {
        let IpAddr::V4(wanted) = cache.ip else { panic!("IPv4") };
        let liar = Station::new(web.mac, ip);
        check(&mut lab, what, &arp_reply(liar, cache), forged);
        check(&mut lab, what, &gratuitous_arp(liar), forged);
        check(&mut lab, what, &arp_reply(liar, cache.behind(BROADCAST)), forged);
        if ip != cache.ip {
            check(&mut lab, what, &arp_request(liar, wanted), forged);
        }
    }
    // The sender inside the ARP packet is another's, or the operation is one that nobody uses.
    check(&mut lab, "hardware address", &gratuitous_arp(web.behind(cache.mac)).between(web.mac, BROADCAST), forged);
    check(&mut lab, "reverse ARP", &arp_reply(web, cache).with_l3_bytes(6, &[0, 3]), forged);
    let probe = Station::new(web.mac, Ipv4Addr::UNSPECIFIED.into());
    check(&mut lab, "an answer of nobody", &arp_reply(probe, cache), forged);
    for (what, ip) in foreign(Family::V6).into_iter().filter(|(what, _)| *what != "a link-local address") {
        let IpAddr::V6(wanted) = cache6.ip else { panic!("IPv6") };
        let liar = Station::new(web6.mac, ip);
        if ip != cache6.ip {
            check(&mut lab, what, &neighbour_advertisement(liar, cache6.behind(BROADCAST)), forged);
        }
        check(&mut lab, what, &unsolicited_advertisement(liar), forged);
        // Its own source, and another's target.
        let mut bytes = unsolicited_advertisement(liar);
        let IpAddr::V6(own) = web6.ip else { panic!("IPv6") };
        bytes = bytes.with_l3_bytes(8, &own.octets());
        check(&mut lab, what, &bytes, forged);
        if ip != cache6.ip {
            check(&mut lab, what, &neighbour_solicitation(liar, wanted), forged);
        }
    }
}

#[test]
fn neighbour_talk_that_is_not_as_it_must_be_is_malformed() {
    let mut lab = Lab::two_hosts();
    let [web, cache] = Net::LOCAL[0].pair([WEB, CACHE]);
    let reply = arp_reply(web, cache);
    for (at, byte) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
        check(&mut lab, "ARP", &reply.with_l3_bytes(at, &[byte]), DropReason::Malformed);
    }
    check(&mut lab, "cut ARP", &reply.truncated(14 + 27), DropReason::Malformed);
    let [web, cache] = Net::LOCAL[1].pair([WEB, CACHE]);
    let IpAddr::V6(wanted) = cache.ip else { panic!("IPv6") };
    let question = neighbour_solicitation(web, wanted);
    // Through a router it came, or its message ends early.
    check(&mut lab, "hop limit", &question.with_l3_bytes(7, &[254]), DropReason::Malformed);
    check(&mut lab, "no target", &message(web, cache, [135, 0], [0; 4]).hops(255).frame(), DropReason::Malformed);
    let late = message(web, cache, [135, 0], [0; 4]).hops(255).payload(&wanted.octets());
    let behind = late.extension(Extension::DestinationOptions(vec![]));
    check(&mut lab, "behind an extension", &behind.frame(), DropReason::Malformed);
}

#[test]
fn nobody_plays_router_or_address_server() {
    let mut lab = Lab::two_hosts();
    let rogue = DropReason::RogueRouter;
    let [web, web6] = Family::BOTH.map(|family| WEB.station(family));
    let [cache, cache6] = Family::BOTH.map(|family| CACHE.station(family));
    let link_local = Station::new(web6.mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into());
    let everybody = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let prefix = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0);
    check(&mut lab, "RA", &router_advertisement(web6, prefix), rogue);
    check(&mut lab, "RA, as routers send it", &router_advertisement(link_local, prefix), rogue);
    check(
        &mut lab,
        "ICMPv6 redirect",
        &message(web6, cache6, [137, 0], [0; 4]).hops(255).payload(&[0; 32]).frame(),
        rogue,
    );
    let query = message(web6, everybody, [130, 0], [0; 4]).hops(1).payload(&[0; 20]);
    check(&mut lab, "MLD query", &query.frame(), rogue);
    let query = message(link_local, everybody, [130, 0], [0; 4]).hops(1).payload(&[0; 20]);
    check(&mut lab, "MLD query, as routers send it", &query.frame(), DropReason::SpoofedAddress);
    let group = Station::new([1, 0, 0x5e, 0, 0, 1], Ipv4Addr::new(224, 0, 0, 1).into());
    let query = protocol(web, group, 2).payload(&[0x11, 10, 0xee, 0xf5, 0, 0, 0, 0]);
    check(&mut lab, "IGMP query", &query.frame(), rogue);
    check(&mut lab, "IRDP", &message(web, cache, [9, 0], [1, 2, 7, 8]).payload(&[0; 8]).frame(), rogue);
    check(&mut lab, "DHCP offer", &dhcp_offer(web, cache.mac, Ipv4Addr::new(10, 100, 1, 77)), rogue);
    check(&mut lab, "DHCP offer to one", &udp(web, cache).ports(67, 68).payload(&[2]).frame(), rogue);
    check(&mut lab, "DHCPv6", &dhcpv6_advertise(web6, cache6), rogue);
    let outsider = Net::LOCAL[0].outsider();
    check(&mut lab, "DHCP offer to the outside", &udp(web, outsider).ports(67, 68).frame(), rogue);
}

#[test]
fn no_tag_passes_and_no_family_that_is_not_the_frames() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let syn = tcp(web, cache).syn();
        check(&mut lab, "a VLAN tag", &syn.vlan(5), DropReason::UnknownStation);
        check(&mut lab, "a priority tag", &syn.vlan(0), DropReason::UnknownStation);
        check(&mut lab, "two tags", &syn.vlan(5).vlan(6), DropReason::UnknownStation);
        // IPv6 in a frame that says IPv4.
        check(&mut lab, "the wrong family", &syn.with_bytes(12, &[0x08, 0x00, 0x66]), DropReason::Malformed);
    }
}

#[test]
fn martians_do_not_land() {
    let mut lab = Lab::two_hosts();
    let martian = DropReason::Martian;
    for (net, ips) in [
        (Net::LOCAL[0], ["127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255"]),
        (Net::LOCAL[1], ["::1", "::", "::", "ff02::1", "ff0e::1"]),
    ] {
        let [web, cache] = net.pair([WEB, CACHE]);
        for ip in ips.map(|ip| ip.parse().expect("an address")) {
            let alien = Station::new(web.mac, ip);
            check(&mut lab, "source", &udp(alien, cache).frame(), martian);
            check(&mut lab, "source", &tcp(alien, net.outsider()).syn(), martian);
            let is_host_only = !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
            if is_host_only {
                check(&mut lab, "destination", &udp(web, alien.behind(cache.mac)).frame(), martian);
            }
        }
        check(&mut lab, "land", &tcp(web, web).ports(80, 80).syn(), martian);
        check(&mut lab, "its own address", &udp(web, web).frame(), martian);
    }
}

#[test]
fn an_endpoint_of_one_family_has_no_other() {
    let mut lab = Lab::two_hosts();
    for (net, own) in [(Net::LOCAL[1], Family::V4), (Net::LOCAL[0], Family::V6)] {
        lab.write_endpoint(WEB, &[own]);
        let [web, cache] = net.pair([WEB, CACHE]);
        check(&mut lab, "the address it would have", &udp(web, cache).frame(), DropReason::SpoofedAddress);
        let link_local =
            foreign(net.inner).into_iter().find(|(what, _)| *what == "a link-local address").expect("is there");
        let liar = Station::new(web.mac, link_local.1);
        check(&mut lab, "link-local", &udp(liar, cache).frame(), DropReason::SpoofedAddress);
        let unspecified: IpAddr = match net.inner {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        check(&mut lab, "none at all", &udp(Station::new(web.mac, unspecified), cache).frame(), DropReason::Martian);
        let ping = echo_request(Station::new(web.mac, unspecified), cache, [1, 1]).frame();
        let reason = if net.inner == Family::V4 { DropReason::Martian } else { DropReason::SpoofedAddress };
        check(&mut lab, "a ping of nobody", &ping, reason);
    }
}

#[test]
fn an_interface_without_an_endpoint_sends_nothing() {
    let mut lab = Lab::two_hosts();
    let link = lab.link(At::A, WEB.name);
    lab.tables(At::A).endpoints.remove(&link).expect("forget the endpoint");
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        check(&mut lab, "TCP", &tcp(web, cache).syn(), DropReason::UnknownInterface);
        let question = match cache.ip {
            IpAddr::V4(wanted) => arp_request(web, wanted),
            IpAddr::V6(wanted) => neighbour_solicitation(web, wanted),
        };
        check(&mut lab, "a question", &question, DropReason::UnknownInterface);
    }
}

/// Masqueraded as their host, these would come from a peer.
#[test]
fn no_container_speaks_to_a_tunnels_port() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let (web, inner) = (WEB.station(net.outer), net.pair([PRESS, DB]));
        let forged = tcp(inner[0], inner[1]).syn();
        for at in [At::A, At::B, At::C] {
            let host = at.station(net.outer).behind(Mac::GATEWAY.bytes());
            let wire = Vxlan::new(web, host, PRESS.app.0).group(1).packet(&forged);
            check(&mut lab, "a tunnel packet", &wire.clone().frame(), DropReason::HostPort);
            for part in wire.payload_length(3000).frame().fragments(1400) {
                let ran = lab.sends(WEB, &part);
                assert_eq!(ran.dropped(), DropReason::HostPort, "{ran}");
            }
            // Nor may an answer to its port be had by being asked from there.
            let asks = udp(host.behind(Mac::GATEWAY.bytes()), web).ports(6784, 9999).frame();
            let lan = lab.link(At::A, "lan");
            assert_eq!(lab.host_routes(At::A, lan, &asks).dropped(), DropReason::HostPort);
            lab.settle();
        }
        // The port is nothing special between containers.
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &udp(web, db).ports(6784, 6784).frame());
        lab.settle();
    }
}

#[test]
fn nobody_lies_about_what_became_of_anothers_packets() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let unseen = tcp(cache, web).syn();
        for problem in [Problem::PortUnreachable, Problem::TooBig(1280), Problem::NoRoute] {
            check(&mut lab, "an error", &error(web, cache, problem, &unseen).frame(), DropReason::IcmpUnrelated);
        }
        if net.inner == Family::V4 {
            for kind in [4, 5] {
                let quench = message(web, cache, [kind, 1], [0; 4]).payload(&unseen.l3()[..28]);
                check(&mut lab, "quench, redirect", &quench.frame(), DropReason::IcmpUnrelated);
            }
        }
    }
}
