//! Who has this address: answered at the container's door, so that nothing is flooded and nothing goes stale.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, DB, FAR, Member, Net, PLAIN, PRESS, SHOP, STORE, WEB, address};
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
    question_of(asker.station(family), wanted)
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

/// As a host asks that has a VXLAN device of its kernel, and no daemon.
#[test]
fn a_peer_that_asks_through_the_tunnel_is_answered_there() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, SHOP.0).group(WEB.role.0);
        let mut askers = vec![WEB.station(net.inner)];
        if net.inner == Family::V6 {
            // The kernel asks from the address of the link whether a neighbour is still there.
            askers.push(Station::new(WEB.mac(), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()));
        }
        for (asker, owner) in askers.into_iter().flat_map(|asker| [DB, PLAIN].map(|owner| (asker, owner))) {
            let station = owner.station(net.inner);
            let (ask, told) = match station.ip {
                IpAddr::V4(wanted) => (arp_request(asker, wanted), arp_reply(station, asker)),
                IpAddr::V6(wanted) => (neighbour_solicitation(asker, wanted), neighbour_advertisement(station, asker)),
            };
            // To everybody, and to the one it asks.
            for ask in [ask.clone(), ask.between(asker.mac, owner.mac())] {
                for wrapped in [tunnel.wrap(&ask), Vxlan::new(a, b, SHOP.0).wrap(&ask)] {
                    let wire = lab.receives(At::B, &wrapped).leaves_for(At::A).decode();
                    wire.assert_sound();
                    let inside = wire.tunnel();
                    assert_eq!((inside.vni, inside.group), (SHOP.0, owner.role.0));
                    assert_eq!(*inside.inner, told.decode());
                }
            }
        }
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn a_peer_is_told_nothing_of_what_is_not_here_and_of_other_apps() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b, c] = At::ALL.map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, SHOP.0).group(WEB.role.0);
        let not_here = [STORE.ip(net.inner), CACHE.ip(net.inner), address(SHOP, At::B, 99, net.inner)];
        let gateway = At::B.gateway(SHOP, net.inner).ip;
        for wanted in not_here.into_iter().chain([gateway, WEB.ip(net.inner), net.outsider().ip]) {
            lab.receives(At::B, &tunnel.wrap(&question(WEB, net.inner, wanted))).absorbed();
        }
        // What it says of itself is taken in silence, and changes nothing.
        let web = WEB.station(net.inner);
        let own = match net.inner {
            Family::V4 => vec![gratuitous_arp(web), arp_reply(web, DB.station(Family::V4))],
            Family::V6 => vec![
                unsolicited_advertisement(web),
                answer(DB, net.inner, web),
                message(web, multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2)), [133, 0], [0; 4]).hops(255).frame(),
            ],
        };
        own.iter().for_each(|frame| lab.receives(At::B, &tunnel.wrap(frame)).absorbed());
        let probe = match DB.ip(net.inner) {
            IpAddr::V4(wanted) => arp_request(NOBODY.behind(WEB.mac()), wanted),
            IpAddr::V6(wanted) => neighbour_solicitation(Station::new(WEB.mac(), Ipv6Addr::UNSPECIFIED.into()), wanted),
        };
        lab.receives(At::B, &tunnel.wrap(&probe)).absorbed();
        lab.assert_only_changed(&[]);
        // In the name of another app, and of an address that is not its own.
        let ask = question(WEB, net.inner, DB.ip(net.inner));
        lab.receives(At::B, &Vxlan::new(a, b, BLOG.0).group(1).wrap(&ask)).dropped();
        lab.assert_only_changed(&["b.drops.identity-mismatch +1"]);
        lab.receives(At::B, &Vxlan::new(c, b, SHOP.0).group(1).wrap(&ask)).dropped();
        lab.assert_only_changed(&["b.drops.peer-not-owner +1"]);
    }
}

#[test]
fn what_is_forged_in_the_tunnel_changes_nothing_and_is_named() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b, c] = At::ALL.map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, SHOP.0).group(WEB.role.0);
        let (web, db, far) = (WEB.station(net.inner), DB.station(net.inner), FAR.station(net.inner));
        if net.inner == Family::V4 {
            for liar in [db, far, At::B.gateway(SHOP, net.inner)].map(|owner| owner.behind(web.mac)) {
                for frame in [gratuitous_arp(liar), arp_reply(liar, db), question_of(liar, db.ip)] {
                    lab.receives(At::B, &tunnel.wrap(&frame)).dropped();
                }
            }
            lab.assert_only_changed(&["b.drops.peer-not-owner +9"]);
            let odd = arp_reply(web, db).with_l3_bytes(4, &[8]);
            lab.receives(At::B, &tunnel.wrap(&odd)).dropped();
            lab.receives(At::B, &tunnel.wrap(&arp_reply(web, db).truncated(30))).dropped();
            lab.assert_only_changed(&["b.drops.malformed +2"]);
            continue;
        }
        for frame in [unsolicited_advertisement(far), answer(DB, net.inner, far), question_of(far, db.ip)] {
            lab.receives(At::B, &tunnel.wrap(&frame)).dropped();
        }
        lab.assert_only_changed(&["b.drops.peer-not-owner +3"]);
        // With an own source, about the address of another.
        let target = |ip: IpAddr| match ip {
            IpAddr::V6(ip) => [&ip.octets()[..], &[2, 1], &web.mac].concat(),
            IpAddr::V4(_) => unreachable!("IPv6"),
        };
        let claim = |from: Station, ip| message(from, db, [136, 0], [0x20, 0, 0, 0]).hops(255).payload(&target(ip));
        let on_link = Station::new(web.mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into());
        for from in [web, on_link] {
            for ip in [far.ip, db.ip, At::B.gateway(SHOP, net.inner).ip] {
                lab.receives(At::B, &tunnel.wrap(&claim(from, ip).frame())).dropped();
            }
        }
        lab.assert_only_changed(&["b.drops.forged-neighbor +6"]);
        // Host c has no part of blog.
        let ask = question_of(on_link, STORE.ip(net.inner));
        lab.receives(At::B, &Vxlan::new(c, b, BLOG.0).wrap(&ask)).dropped();
        lab.assert_only_changed(&["b.drops.identity-mismatch +1"]);
        // A router has passed it on.
        let IpAddr::V6(wanted) = db.ip else { panic!("IPv6") };
        let routed = neighbour_solicitation(web, wanted).with_l3_bytes(7, &[254]);
        lab.receives(At::B, &tunnel.wrap(&routed)).dropped();
        lab.assert_only_changed(&["b.drops.malformed +1"]);
        for kind in [134, 137] {
            lab.receives(At::B, &tunnel.wrap(&message(web, db, [kind, 0], [0; 4]).hops(255).frame())).dropped();
        }
        lab.assert_only_changed(&["b.drops.rogue-router +2"]);
    }
}

fn question_of(asker: Station, wanted: IpAddr) -> Frame {
    match wanted {
        IpAddr::V4(wanted) => arp_request(asker, wanted),
        IpAddr::V6(wanted) => neighbour_solicitation(asker, wanted),
    }
}
