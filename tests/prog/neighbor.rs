//! Who has this address: answered at the container's door, so that nothing is flooded and nothing goes stale.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, DB, Member, Net, PRESS, SHOP, STORE, WEB, address};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::addr::Mac;
use weft_tests::frame::icmp::message;
use weft_tests::frame::ipv6::{Extension, ROUTER_ALERT};
use weft_tests::frame::neighbour::{
    arp_reply, arp_request, gratuitous_arp, multicast, neighbour_advertisement, neighbour_solicitation,
    unsolicited_advertisement,
};
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, Station};
use weft_tests::underlay::Family;

const NOBODY: Station = Station::new([0; 6], IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// The question of one endpoint for an address.
fn question(asker: Member, family: Family, wanted: IpAddr) -> Frame {
    let asker = asker.station(family);
    match wanted {
        IpAddr::V4(wanted) => arp_request(asker, wanted),
        IpAddr::V6(wanted) => neighbour_solicitation(asker, wanted),
    }
}

fn answer(asker: Member, family: Family, owner: Station) -> Frame {
    match family {
        Family::V4 => arp_reply(owner, asker.station(family)),
        Family::V6 => neighbour_advertisement(owner, asker.station(family)),
    }
}

#[test]
fn a_neighbour_of_the_app_is_named_wherever_it_is() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        for owner in [CACHE, DB] {
            let owner = owner.station(net.inner);
            let told = lab.sends(WEB, &question(WEB, net.inner, owner.ip)).replied();
            assert_eq!(told, answer(WEB, net.inner, owner));
        }
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn the_gateway_is_at_its_own_mac_and_so_is_an_address_that_only_its_host_knows() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let unknown = Station::new(Mac::GATEWAY.bytes(), address(SHOP, At::B, 99, net.inner));
        for owner in [At::A.gateway(SHOP, net.inner), At::B.gateway(SHOP, net.inner), unknown] {
            let told = lab.sends(WEB, &question(WEB, net.inner, owner.ip)).replied();
            assert_eq!(told, answer(WEB, net.inner, owner));
        }
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn nobody_answers_for_an_own_address_for_one_that_nobody_has_and_for_other_apps() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let own_block = address(SHOP, At::A, 99, net.inner);
        let other_block = address(BLOG, At::B, 99, net.inner);
        let others = [PRESS, STORE].map(|member| member.ip(net.inner));
        for wanted in [WEB.ip(net.inner), own_block, other_block, others[0], others[1], net.outsider().ip] {
            lab.sends(WEB, &question(WEB, net.inner, wanted)).absorbed();
        }
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn a_container_may_look_whether_its_address_is_free_and_say_that_it_has_it() {
    let mut lab = Lab::two_hosts();
    lab.over(Net::ALL[0]);
    let [web, web6] = Family::BOTH.map(|family| WEB.station(family));
    let (IpAddr::V4(own), IpAddr::V6(own6)) = (web.ip, web6.ip) else { panic!("one of each family") };
    let unspecified = Station::new(web.mac, Ipv6Addr::UNSPECIFIED.into());
    let link_local = Station::new(web.mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into());
    let IpAddr::V6(link_local_ip) = link_local.ip else { panic!("IPv6") };
    for frame in [
        arp_request(NOBODY.behind(web.mac), own),
        gratuitous_arp(web),
        arp_reply(web, CACHE.station(Family::V4)),
        neighbour_solicitation(unspecified, own6),
        neighbour_solicitation(unspecified, link_local_ip),
        unsolicited_advertisement(web6),
        neighbour_advertisement(web6, CACHE.station(Family::V6)),
        unsolicited_advertisement(link_local),
    ] {
        lab.sends(WEB, &frame).absorbed();
    }
    lab.assert_only_changed(&[]);
}

#[test]
fn a_probe_for_an_address_that_is_taken_is_answered() {
    let mut lab = Lab::two_hosts();
    lab.over(Net::ALL[0]);
    let (web, cache) = (WEB.station(Family::V4), CACHE.station(Family::V4));
    let IpAddr::V4(taken) = cache.ip else { panic!("IPv4") };
    let probe = arp_request(NOBODY.behind(web.mac), taken);
    assert_eq!(lab.sends(WEB, &probe).replied(), arp_reply(cache, NOBODY.behind(web.mac)));
    lab.assert_only_changed(&[]);
}

/// What every kernel says when an interface comes up: none of it is a drop.
#[test]
fn what_an_interface_says_when_it_comes_up_is_taken_in_silence() {
    let mut lab = Lab::two_hosts();
    lab.over(Net::ALL[0]);
    let own = Station::new(WEB.mac(), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into());
    let unspecified = Station::new(WEB.mac(), Ipv6Addr::UNSPECIFIED.into());
    let routers = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
    let listeners = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
    let alert = Extension::HopByHop(ROUTER_ALERT.to_vec());
    let report = |from| message(from, listeners, [143, 0], [0, 0, 0, 1]).hops(1).extension(alert.clone());
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
    let group = [&[4, 0, 0, 0][..], &solicited.octets()].concat();
    for frame in [
        message(own, routers, [133, 0], [0; 4]).hops(255).frame(),
        message(WEB.station(Family::V6), routers, [133, 0], [0; 4]).hops(255).frame(),
        report(own).payload(&group).frame(),
        report(unspecified).payload(&group).frame(),
    ] {
        lab.sends(WEB, &frame).absorbed();
    }
    // The reports go to the other hosts of the app, which note what is wanted there.
    lab.assert_only_changed(&["a.shop>shop.packets +4"]);
}

#[test]
fn nothing_of_it_comes_through_the_tunnel() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, SHOP.0).group(WEB.role.0);
        let (web, db) = (WEB.station(net.inner), DB.station(net.inner));
        for frame in [question(WEB, net.inner, db.ip), answer(DB, net.inner, web), answer(WEB, net.inner, db)] {
            lab.receives(At::B, &tunnel.wrap(&frame)).dropped();
        }
        if net.inner == Family::V4 {
            lab.assert_only_changed(&["b.drops.unknown-station +3"]);
        } else {
            lab.assert_only_changed(&["b.drops.forged-neighbor +3"]);
            for kind in [133, 134, 137] {
                lab.receives(At::B, &tunnel.wrap(&message(web, db, [kind, 0], [0; 4]).hops(255).frame())).dropped();
            }
            lab.assert_only_changed(&["b.drops.rogue-router +3"]);
        }
    }
}
