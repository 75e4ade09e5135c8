//! Before the daemon has written anything: the programs are there and the tables are empty.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Net, SHOP, WEB};
use super::lab::machine::{Context, Program};
use std::net::IpAddr;
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::echo_request;
use weft_tests::frame::neighbour::{arp_request, neighbour_solicitation};
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{raw, tcp, udp};

#[test]
fn a_container_gets_nothing_through() {
    let mut lab = Lab::empty();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let question = match cache.ip {
            IpAddr::V4(wanted) => arp_request(web, wanted),
            IpAddr::V6(wanted) => neighbour_solicitation(web, wanted),
        };
        for frame in [
            tcp(web, cache).syn(),
            tcp(web, net.outsider()).ack(),
            udp(web, At::A.gateway(SHOP, net.inner)).frame(),
            echo_request(web, DB.station(net.inner), [1, 1]).frame(),
            udp(web, cache).payload_length(2000).frame().fragment(0..800),
            question,
        ] {
            assert_eq!(lab.sends(WEB, &frame).dropped(), DropReason::UnknownInterface);
        }
        lab.assert_only_changed(&["a.drops.unknown-interface +6"]);
    }
}

/// The order in which the daemon fills the tables is its own; whatever is missing, nothing passes.
#[test]
fn an_endpoint_without_rules_gets_nothing_through() {
    let mut lab = Lab::empty();
    lab.write_endpoint(WEB, &weft_tests::underlay::Family::BOTH);
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        for frame in [tcp(web, cache).syn(), udp(web, net.outsider()).frame(), echo_request(web, cache, [1, 1]).frame()]
        {
            assert_eq!(lab.sends(WEB, &frame).dropped(), DropReason::PolicyAbsent);
        }
        lab.assert_only_changed(&["a.drops.policy-absent +3", "a.shop>outside.drops +3"]);
    }
}

#[test]
fn the_host_gets_nothing_through() {
    let mut lab = Lab::empty();
    for net in Net::LOCAL {
        let (gateway, web) = (At::A.gateway(SHOP, net.inner), WEB.station(net.inner));
        for frame in [tcp(gateway, web).syn(), udp(net.outsider(), web).frame()] {
            lab.host_sends(At::A, &frame).dropped();
            let lan = lab.link(At::A, "lan");
            lab.host_routes(At::A, lan, &frame).dropped();
        }
        lab.assert_only_changed(&["a.drops.policy-absent +4", "a.host>outside.drops +2", "a.outside>outside.drops +2"]);
    }
}

/// Nobody has said which port the tunnel has, so nothing is a tunnel packet, and the host's stack has all it had before.
#[test]
fn the_underlay_is_left_alone_until_the_port_is_known() {
    let mut lab = Lab::empty();
    for net in Net::ALL {
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let [web, db] = net.pair([WEB, DB]);
        let tunnel = Vxlan::new(a, b, SHOP.0).group(1);
        for frame in [
            tunnel.wrap(&tcp(web, db).syn()),
            tunnel.clone().ports(49152, 0).wrap(&tcp(web, db).syn()),
            tcp(a, b).syn(),
            raw(a, b, 0x0806, &[0; 46]),
        ] {
            lab.receives(At::B, &frame).passed();
            lab.run(At::B, Program::Guard, Context::default(), &frame).passed();
        }
        lab.assert_only_changed(&[]);
    }
}
