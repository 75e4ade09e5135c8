//! What comes in on the underlay and is not what it says: nothing of it reaches a container.

use super::lab::Lab;
use super::lab::cast::{APPS, At, BLOG, DB, FAR, Net, PRESS, ROLE_WEB, SHOP, WEB, address};
use super::lab::machine::{Context, Program};
use weft_common::id::{AppId, RoleId};
use weft_common::tunnel::Peer;
use weft_common::verdict::DropReason;
use weft_tests::frame::ipv6::Extension;
use weft_tests::frame::packet::Checksum;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, Station, tcp, udp};
use weft_tests::underlay::Family;

/// The honest tunnel from host a to host b, for shop's web.
fn tunnel(net: Net) -> Vxlan {
    let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
    Vxlan::new(a, b, SHOP.0).group(ROLE_WEB.0)
}

fn request(net: Net) -> Frame {
    let [web, db] = net.pair([WEB, DB]);
    tcp(web, db).syn()
}

/// Dropped on host b for this reason, and neither it nor anything of it is remembered.
#[track_caller]
fn check(lab: &mut Lab, wire: &Frame, reason: DropReason) {
    let ran = lab.receives(At::B, wire);
    assert_eq!(ran.reason(), Some(reason), "{ran}");
    ran.dropped();
    assert!(lab.flows(At::B).is_empty(), "{ran}");
    lab.settle();
}

/// Of some other service, or for the host itself: not ours to judge.
#[track_caller]
fn check_passes(lab: &mut Lab, wire: &Frame) {
    lab.receives(At::B, wire).passed();
    lab.assert_only_changed(&[]);
}

#[test]
fn an_address_that_is_no_peer_says_nothing() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let to = At::B.station(net.outer);
        let strangers: [&str; 3] = match net.outer {
            Family::V4 => ["192.0.2.77", "10.100.1.11", "192.0.2.2"],
            Family::V6 => ["2001:db8::77", "fd00:64:1::b", "2001:db8::2"],
        };
        for stranger in strangers.map(|ip| ip.parse().expect("an address")) {
            let from = Station::new([2, 0, 0, 0, 0, 1], stranger);
            let wire = Vxlan::new(from, to, SHOP.0).group(ROLE_WEB.0).wrap(&request(net));
            check(&mut lab, &wire, DropReason::UnknownPeer);
        }
    }
}

#[test]
fn a_peer_is_heard_on_the_way_that_is_agreed_with_it() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let from = At::A.station(net.outer);
        // To another address of this host, or of another host.
        let elsewhere = match net.outer {
            Family::V4 => [192, 0, 2, 99].into(),
            Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99].into(),
        };
        for to in [Station::new(At::B.station(net.outer).mac, elsewhere), At::C.station(net.outer)] {
            let wire = Vxlan::new(from, to, SHOP.0).group(ROLE_WEB.0).wrap(&request(net));
            check(&mut lab, &wire, DropReason::UnknownPeer);
        }
        // By another interface.
        let link = lab.link(At::B, "lan");
        let context = Context { link, arrived_on: link, segment: 0 };
        let ran = lab.run(At::B, Program::FromUnderlay, context, &tunnel(net).wrap(&request(net)));
        assert_eq!(ran.dropped(), DropReason::UnknownPeer);
        lab.settle();
        // By the address it has in the other family.
        let other = if net.outer == Family::V4 { Family::V6 } else { Family::V4 };
        let [a, b] = [At::A, At::B].map(|at| at.station(other));
        check(&mut lab, &Vxlan::new(a, b, SHOP.0).group(ROLE_WEB.0).wrap(&request(net)), DropReason::UnknownPeer);
        // Its number is not in use any more.
        lab.write_peer(At::B, At::A, |peer| *peer = Peer::default());
        check(&mut lab, &tunnel(net).wrap(&request(net)), DropReason::UnknownPeer);
    }
}

#[test]
fn a_peer_speaks_for_the_addresses_it_owns() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let db = DB.station(net.inner);
        let own = At::B.gateway(SHOP, net.inner).ip;
        for (from, at) in [
            (FAR.ip(net.inner), At::A),
            (WEB.ip(net.inner), At::C),
            (address(SHOP, At::A, 99, net.inner), At::C),
            (At::A.gateway(SHOP, net.inner).ip, At::C),
            (DB.ip(net.inner), At::A),
            (address(SHOP, At::B, 99, net.inner), At::A),
            (own, At::A),
        ] {
            let [outer, to] = [at, At::B].map(|at| at.station(net.outer));
            for app in [SHOP, BLOG, AppId::HOST, AppId::OUTSIDE] {
                let liar = Station::new([2, 0, 0, 0, 0, 1], from);
                if from != db.ip {
                    let wire = Vxlan::new(outer, to, app.0).group(ROLE_WEB.0).wrap(&udp(liar, db).frame());
                    check(&mut lab, &wire, DropReason::PeerNotOwner);
                }
            }
        }
        // In an app's prefix, and in nobody's block.
        let nowhere = match net.inner {
            Family::V4 => [10, 100, 77, 1].into(),
            Family::V6 => [0xfd00, 100, 77, 0, 0, 0, 0, 1].into(),
        };
        let liar = Station::new([2, 0, 0, 0, 0, 1], nowhere);
        check(&mut lab, &tunnel(net).wrap(&udp(liar, db).frame()), DropReason::PeerNotOwner);
    }
}

#[test]
fn the_identity_on_the_wire_is_the_one_that_the_address_has() {
    let mut lab = Lab::with_rules(&["allow any -> any", "allow outside -> any", "allow host -> any"]);
    for net in Net::ALL {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let mismatch = DropReason::IdentityMismatch;
        for (app, role) in [
            (SHOP, RoleId(2)),
            (SHOP, RoleId::NONE),
            (SHOP, RoleId::ANY),
            (BLOG, ROLE_WEB),
            (AppId::ANY, ROLE_WEB),
            (AppId::HOST, ROLE_WEB),
            (AppId::HOST, RoleId::NONE),
            (AppId::OUTSIDE, RoleId::NONE),
            (AppId(3), ROLE_WEB),
            (AppId(15), ROLE_WEB),
            (AppId::LAST, ROLE_WEB),
        ] {
            check(&mut lab, &Vxlan::new(a, b, app.0).group(role.0).wrap(&request(net)), mismatch);
        }
        for app in [BLOG, AppId::ANY, AppId::HOST, AppId::OUTSIDE] {
            check(&mut lab, &Vxlan::new(a, b, app.0).wrap(&request(net)), mismatch);
        }
        // An address too new to be known has the app of its block, and a role that a packet can have.
        let new = Station::new([2, 0, 0, 0, 0, 1], address(SHOP, At::A, 99, net.inner));
        let frame = udp(new, DB.station(net.inner)).frame();
        for (app, role) in [(BLOG, ROLE_WEB), (AppId::HOST, ROLE_WEB), (SHOP, RoleId::ANY)] {
            check(&mut lab, &Vxlan::new(a, b, app.0).group(role.0).wrap(&frame), mismatch);
        }
        // A gateway of the peer is a host, and nothing else.
        let host = At::A.gateway(SHOP, net.inner);
        let frame = udp(host, DB.station(net.inner)).frame();
        for app in APPS.into_iter().chain([AppId::OUTSIDE]) {
            check(&mut lab, &Vxlan::new(a, b, app.0).wrap(&frame), mismatch);
        }
        let into = lab.link(At::B, DB.name);
        lab.receives(At::B, &Vxlan::new(a, b, AppId::HOST.0).group(0).wrap(&frame)).enters(DB, into);
        lab.settle();
        // Outside is who is in no prefix of ours. A peer may say so, and may not say that it is an endpoint or a host.
        let frame = udp(net.outsider(), DB.station(net.inner)).frame();
        lab.over(net);
        for app in [SHOP, BLOG, AppId::HOST, AppId::ANY] {
            check(&mut lab, &Vxlan::new(a, b, app.0).group(0).wrap(&frame), mismatch);
        }
    }
}

#[test]
fn a_flow_is_no_way_around_the_identity() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &tcp(web, db).syn());
        lab.settle();
        let data = tcp(web, db).payload(b"x").ack();
        let [a, b, c] = At::ALL.map(|at| at.station(net.outer));
        for (wire, reason) in [
            (Vxlan::new(c, b, SHOP.0).group(1), DropReason::PeerNotOwner),
            (Vxlan::new(a, b, BLOG.0).group(1), DropReason::IdentityMismatch),
            (Vxlan::new(a, b, SHOP.0).group(2), DropReason::IdentityMismatch),
        ] {
            assert_eq!(lab.receives(At::B, &wire.wrap(&data)).dropped(), reason);
            lab.settle();
        }
    }
}

#[test]
fn a_header_that_is_not_ours_is_malformed() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let vni = SHOP.0.to_be_bytes();
        for flags in [0x00, 0x80, 0x0c, 0x09, 0x18, 0x48, 0xc8, 0x04, 0xff, 0x89] {
            let wire = tunnel(net).header([flags, 0, 0, 1, vni[1], vni[2], vni[3], 0]).wrap(&request(net));
            check(&mut lab, &wire, DropReason::TunnelMalformed);
        }
        let into = lab.link(At::B, DB.name);
        // What is reserved for later is not looked at.
        let wire = tunnel(net).header([0x88, 0x48, 0, 1, vni[1], vni[2], vni[3], 0xff]).wrap(&request(net));
        lab.receives(At::B, &wire).enters(DB, into);
        lab.settle();
    }
}

#[test]
fn a_packet_cut_at_any_byte_does_not_pass() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let wire = tunnel(net).wrap(&request(net));
        let (outer, headers) = if net.outer == Family::V4 { (34, 64) } else { (54, 84) };
        let least = if net.outer == Family::V4 { 34 } else { 54 };
        for length in least..wire.bytes().len() {
            let cut = wire.truncated(length);
            // Before the port is there to be read it is nobody's; the kernel drops what is shorter than it says.
            if length < outer + 8 {
                check_passes(&mut lab, &cut);
            } else {
                check(&mut lab, &cut, DropReason::TunnelMalformed);
            }
            // With an outer length that fits what is left.
            if length >= outer + 8 {
                let said =
                    u16::try_from(if net.outer == Family::V4 { length - 14 } else { length - 54 }).expect("short");
                let at = if net.outer == Family::V4 { 2 } else { 4 };
                let reason = if length < headers { DropReason::TunnelMalformed } else { DropReason::Malformed };
                check(&mut lab, &cut.with_l3_bytes(at, &said.to_be_bytes()), reason);
            }
        }
    }
}

#[test]
fn the_outer_length_is_held_against_the_frame() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let outer = tunnel(net).packet(&request(net));
        let room = if net.outer == Family::V4 { 20 } else { 0 };
        for length in [0, 1, room, room + 8, room + 16, room + 29, 9000, 65535] {
            check(&mut lab, &outer.clone().declared_length(length).frame(), DropReason::TunnelMalformed);
        }
    }
}

#[test]
fn a_tunnel_packet_in_pieces_is_refused() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let whole = tunnel(net).wrap(&udp(web, db).payload_length(1000).frame());
        for (index, part) in whole.fragments(400).iter().enumerate() {
            match (net.outer, index) {
                (Family::V4, 0) => check(&mut lab, part, DropReason::TunnelFragment),
                // Nothing says what it is. The kernel's stack puts it together, and `to_host` refuses what comes of it.
                _ => check_passes(&mut lab, part),
            }
        }
    }
}

#[test]
fn what_is_for_others_on_the_host_passes_untouched() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let inner = request(net);
        check_passes(&mut lab, &tcp(a, b).ports(1, 6784).syn());
        check_passes(&mut lab, &udp(a, b).ports(1, 53).frame());
        check_passes(&mut lab, &Vxlan::new(a, b, SHOP.0).ports(49152, 4789).wrap(&inner));
        check_passes(&mut lab, &Vxlan::new(a, b, SHOP.0).ports(6784, 8472).wrap(&inner));
        check_passes(&mut lab, &inner);
        check_passes(&mut lab, &tunnel(net).wrap(&inner).vlan(7));
        check_passes(&mut lab, &weft_tests::frame::raw(a, b, 0x88cc, &[0; 46]));
        match net.outer {
            Family::V4 => {
                check_passes(&mut lab, &tunnel(net).packet(&inner).ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).frame());
            }
            Family::V6 => {
                check_passes(
                    &mut lab,
                    &tunnel(net).packet(&inner).extension(Extension::DestinationOptions(vec![])).frame(),
                );
            }
        }
    }
}

#[test]
fn clear_text_from_a_peer_that_has_a_key_is_dropped() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        lab.write_peer(At::B, At::A, |peer| peer.flags = Peer::ENCRYPTED);
        check(&mut lab, &tunnel(net).wrap(&request(net)), DropReason::Cleartext);
    }
}

#[test]
fn a_receiver_that_is_not_here_is_told_unreachable_through_the_tunnel() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let web = WEB.station(net.inner);
        for (ip, reason) in
            [(address(SHOP, At::B, 99, net.inner), DropReason::NoRoute), (FAR.ip(net.inner), DropReason::NoEndpoint)]
        {
            let gone = Station::new([2, 0, 0, 0, 0, 9], ip);
            let ran = lab.receives(At::B, &tunnel(net).wrap(&udp(web, gone).frame()));
            assert_eq!(ran.reason(), Some(reason));
            let answer = ran.answered().decode();
            answer.assert_sound();
            let [near, far] = [At::B, At::A].map(|at| at.station(net.outer).ip);
            assert_eq!([answer.ip().src, answer.ip().dst], [near, far]);
            let inner = &answer.tunnel().inner;
            assert_eq!((inner.ip().src, inner.ip().dst), (gone.ip, web.ip));
            assert!(matches!(inner.icmp(), Some((3, 1) | (1, 3))), "{inner}");
            lab.settle();
        }
    }
}

#[test]
fn a_router_or_an_address_server_inside_the_tunnel_is_policys_to_judge_but_discovery_is_not() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [press, db] = net.pair([PRESS, DB]);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire =
            Vxlan::new(a, b, BLOG.0).group(1).checksum(Checksum::Absent).wrap(&udp(press, db).ports(67, 68).frame());
        check(&mut lab, &wire, DropReason::PolicyDefault);
        let web = WEB.station(net.inner);
        let martian = match net.inner {
            Family::V4 => [127, 0, 0, 1].into(),
            Family::V6 => [0, 0, 0, 0, 0, 0, 0, 1].into(),
        };
        let alien = Station::new(web.mac, martian);
        let wire = Vxlan::new(a, b, AppId::OUTSIDE.0).group(0);
        check(&mut lab, &wire.wrap(&udp(alien, DB.station(net.inner)).frame()), DropReason::Martian);
    }
}
