//! What is for many: copies go to those of the app who may have it and want it, and to nobody else. A copy is counted
//! as a packet handed on, which is how a story sees it.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, DB, Member, Net, PLAIN, PRESS, SHOP, STORE, WEB};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::message;
use weft_tests::frame::ipv6::{Extension, ROUTER_ALERT};
use weft_tests::frame::neighbour::multicast;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{BROADCAST, Frame, Station, protocol, tcp, udp};
use weft_tests::underlay::Family;

const IGMP: u8 = 2;

/// Everybody on the link.
fn everybody(family: Family) -> Station {
    match family {
        Family::V4 => Station::new(BROADCAST, Ipv4Addr::BROADCAST.into()),
        Family::V6 => multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// A group that only those get who ask for it.
fn group(family: Family) -> Station {
    match family {
        Family::V4 => Station::new([1, 0, 0x5e, 1, 1, 1], Ipv4Addr::new(239, 1, 1, 1).into()),
        Family::V6 => multicast(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x77)),
    }
}

/// A report of the newer kind about [`group`]: 4 joins, 3 leaves.
fn report(from: Station, record: u8) -> Frame {
    match (from.ip, group(Family::V4).ip, group(Family::V6).ip) {
        (IpAddr::V4(_), IpAddr::V4(wanted), _) => {
            let records = [&[0x22, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0][..], &wanted.octets()].concat();
            let routers = Station::new([1, 0, 0x5e, 0, 0, 22], Ipv4Addr::new(224, 0, 0, 22).into());
            protocol(from, routers, IGMP).hops(1).ipv4_options(&[0x94, 4, 0, 0]).payload(&records).frame()
        }
        (IpAddr::V6(_), _, IpAddr::V6(wanted)) => {
            let records = [&[record, 0, 0, 0][..], &wanted.octets()].concat();
            let routers = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
            let alert = Extension::HopByHop(ROUTER_ALERT.to_vec());
            message(from, routers, [143, 0], [0, 0, 0, 1]).hops(1).extension(alert).payload(&records).frame()
        }
        other => unreachable!("{other:?}"),
    }
}

/// As reports are sent: of IPv6 from an address of the link.
fn reporter(station: Station) -> Station {
    match station.ip {
        IpAddr::V4(_) => station,
        IpAddr::V6(_) => Station::new(station.mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()),
    }
}

#[test]
fn what_is_for_everybody_goes_to_the_app_here_and_to_its_other_hosts() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let (web, press) = (WEB.station(net.inner), PRESS.station(net.inner));
        lab.sends(WEB, &udp(web, everybody(net.inner)).ports(5353, 5353).payload(b"who").frame()).absorbed();
        // The cache, and hosts b and c.
        lab.assert_only_changed(&["a.shop>shop.packets +3"]);
        // Whatever the frame says: by the packet's address it is for many.
        let straight = everybody(net.inner).behind(CACHE.mac());
        lab.sends(WEB, &udp(web, straight).frame()).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +3"]);
        // The other app is on host b, and alone here.
        lab.sends(PRESS, &udp(press, everybody(net.inner)).frame()).absorbed();
        lab.assert_only_changed(&["a.blog>blog.packets +1"]);
    }
}

#[test]
fn a_copy_that_policy_denies_is_not_made() {
    let mut lab = Lab::with_rules(&["deny shop/web -> shop/db udp/5353"]);
    for net in Net::LOCAL {
        lab.over(net);
        let web = WEB.station(net.inner);
        lab.sends(WEB, &udp(web, everybody(net.inner)).ports(5353, 5353).frame()).absorbed();
        // Of the other hosts it is not known which roles they have: they decide.
        lab.assert_only_changed(&["a.shop>shop.packets +2"]);
    }
}

#[test]
fn a_group_goes_to_those_who_asked_for_it_until_they_leave() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let (web, cache) = (WEB.station(net.inner), CACHE.station(net.inner));
        let frame = udp(web, group(net.inner)).frame();
        lab.sends(WEB, &frame).absorbed();
        lab.assert_only_changed(&[]);
        // The report itself goes to the app's other hosts.
        lab.sends(CACHE, &report(reporter(cache), 4)).absorbed();
        lab.assert_only_changed(&["a.groups +1", "a.shop>shop.packets +2"]);
        lab.sends(WEB, &frame).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
        lab.sends(CACHE, &report(reporter(cache), 3)).absorbed();
        lab.assert_only_changed(&["a.groups -1", "a.shop>shop.packets +2"]);
        lab.sends(WEB, &frame).absorbed();
        lab.assert_only_changed(&[]);
    }
}

/// To its peers a host speaks for all its endpoints.
#[test]
fn one_who_leaves_a_group_does_not_take_it_from_another_on_the_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [b, a] = [At::B, At::A].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(b, a, SHOP.0);
        let [db, plain] = [DB, PLAIN].map(|member| reporter(member.station(net.inner)));
        let hears = |lab: &mut Lab, report: &Frame| lab.receives(At::A, &tunnel.wrap(report)).absorbed();
        for (member, from) in [(DB, db), (PLAIN, plain)] {
            lab.sends(member, &report(from, 4)).absorbed();
            hears(&mut lab, &report(from, 4));
        }
        lab.settle();
        let group_frame = udp(WEB.station(net.inner), group(net.inner)).frame();
        lab.sends(WEB, &group_frame).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
        // The kinds that leave: to include nothing, said of a change and of the state.
        for leaving in [3, 1] {
            let ran = lab.sends(DB, &report(db, leaving));
            ran.absorbed();
            let kind_at = report(db, 4).bytes().len() - if net.inner == Family::V4 { 8 } else { 20 };
            assert_eq!(ran.output, report(db, leaving).with_bytes(kind_at, &[4]));
            lab.settle();
            hears(&mut lab, &ran.output);
            lab.sends(WEB, &group_frame).absorbed();
            lab.assert_only_changed(&["a.shop>shop.packets +1"]);
        }
        let ran = lab.sends(PLAIN, &report(plain, 3));
        ran.absorbed();
        assert_eq!(ran.output, report(plain, 3), "the last one leaves for all");
        lab.settle();
        hears(&mut lab, &ran.output);
        lab.assert_only_changed(&["a.groups -1"]);
        lab.sends(WEB, &group_frame).absorbed();
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn a_peer_that_asked_for_a_group_gets_it() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [b, a] = [At::B, At::A].map(|at| at.station(net.outer));
        let db = DB.station(net.inner);
        let tunnel = Vxlan::new(b, a, SHOP.0).group(2);
        lab.receives(At::A, &tunnel.wrap(&report(reporter(db), 4))).absorbed();
        lab.assert_only_changed(&["a.groups +1"]);
        lab.sends(WEB, &udp(WEB.station(net.inner), group(net.inner)).frame()).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
        // The wish is of one app.
        lab.sends(PRESS, &udp(PRESS.station(net.inner), group(net.inner)).frame()).absorbed();
        lab.assert_only_changed(&[]);
        lab.receives(At::A, &tunnel.wrap(&report(reporter(db), 3))).absorbed();
        lab.assert_only_changed(&["a.groups -1"]);
    }
}

#[test]
fn a_peer_copies_to_its_own_endpoints_and_to_no_other_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [b, a] = [At::B, At::A].map(|at| at.station(net.outer));
        let of = |member: Member| {
            let frame = udp(member.station(net.inner), everybody(net.inner)).frame();
            Vxlan::new(b, a, member.app.0).group(member.role.0).wrap(&frame)
        };
        lab.receives(At::A, &of(DB)).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +2"]);
        lab.receives(At::A, &of(STORE)).absorbed();
        lab.assert_only_changed(&["a.blog>blog.packets +1"]);
        // In the name of another app, or with an address it does not own.
        let frame = udp(DB.station(net.inner), everybody(net.inner)).frame();
        for (from, app, reason) in
            [(b, BLOG, DropReason::IdentityMismatch), (At::C.station(net.outer), SHOP, DropReason::PeerNotOwner)]
        {
            assert_eq!(lab.receives(At::A, &Vxlan::new(from, a, app.0).group(2).wrap(&frame)).dropped(), reason);
        }
        lab.settle();
    }
}

#[test]
fn nobody_sends_to_many_in_the_name_of_another() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let (web, cache) = (WEB.station(net.inner), CACHE.station(net.inner));
        let many = everybody(net.inner);
        lab.sends(WEB, &udp(cache.behind(web.mac), many).frame()).dropped();
        lab.assert_only_changed(&["a.drops.spoofed-address +1"]);
        lab.sends(WEB, &udp(cache, many).frame()).dropped();
        lab.assert_only_changed(&["a.drops.spoofed-mac +1"]);
        // An address of the link is for reports to groups, and for nothing else.
        if net.inner == Family::V6 {
            let own = reporter(web);
            lab.sends(WEB, &udp(own, many).frame()).dropped();
            lab.sends(WEB, &report(own, 4).between(web.mac, cache.mac).with_l3_bytes(24, &octets(cache))).dropped();
            lab.sends(WEB, &tcp(own, cache).syn()).dropped();
            lab.assert_only_changed(&["a.drops.spoofed-address +3"]);
        }
    }
}

fn octets(station: Station) -> Vec<u8> {
    match station.ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[test]
fn a_container_that_floods_is_held_back_and_its_neighbour_is_not() {
    /// What an interface may send to everybody at once.
    const STORM: usize = 1000;

    let mut lab = Lab::two_hosts();
    let net = Net::LOCAL[0];
    lab.over(net);
    let flood = udp(WEB.station(net.inner), everybody(net.inner)).frame();
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    lab.floods(WEB, &flood, STORM * cpus * 5);
    assert!(lab.drops(At::A, DropReason::BroadcastStorm) > 0);
    lab.settle();
    lab.sends(CACHE, &udp(CACHE.station(net.inner), everybody(net.inner)).frame()).absorbed();
    lab.settle();
}
