//! Between hosts: through the tunnel, byte by byte, over both families of underlay.

use super::lab::cast::{At, DB, FAR, Net, PLAIN, PRESS, SHOP, STORE, WEB, address};
use super::lab::{Lab, UNDERLAY_MTU};
use std::collections::BTreeSet;
use weft_common::addr::Mac;
use weft_common::header::protocol as number;
use weft_common::tunnel::inner_mtu;
use weft_tests::frame::icmp::{echo_reply, echo_request};
use weft_tests::frame::packet::Checksum;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, Station, protocol, tcp, udp};
use weft_tests::underlay::Family;

/// The wire as it has to be: from host a's, about `inner`, with the source port that was chosen.
fn expected(net: Net, inner: &Frame, source_port: u16, traffic_class: u8) -> Frame {
    // The kernel fills in the link's addresses when it knows the next hop.
    let [a, b] = [At::A, At::B].map(|at| at.station(net.outer).behind([0; 6]));
    let tunnel = Vxlan::new(a, b, WEB.app.0).group(WEB.role.0).ports(source_port, 6784);
    tunnel.traffic_class(traffic_class).checksum(Checksum::Absent).packet(inner).identification(0).frame()
}

#[test]
fn a_request_and_its_reply_cross_two_hosts_byte_by_byte() {
    let mut lab = Lab::two_hosts();
    let [into_web, into_db] = [lab.link(At::A, WEB.name), lab.link(At::B, DB.name)];
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let syn = tcp(web, db).traffic_class(0xb8).mss(1200).syn();
        let wire = lab.sends(WEB, &syn).leaves_for(At::B);
        let source = wire.decode().ports().expect("UDP").0;
        assert!(source >= 49152);
        assert_eq!(wire, expected(net, &syn, source, 0xb8));
        assert_eq!(lab.receives(At::B, &wire).enters(DB, into_db), syn);

        let reply = tcp(db, web).ports(80, 40000).sequence(9).acknowledgment(2).syn_ack();
        let wire = lab.sends(DB, &reply).leaves_for(At::A);
        assert_eq!(wire.decode().ports(), Some((source, 6784)), "both directions take one path");
        let tunnel = wire.decode();
        assert_eq!((tunnel.tunnel().vni, tunnel.tunnel().group), (DB.app.0, DB.role.0));
        assert_eq!(lab.receives(At::A, &wire).enters(WEB, into_web), reply);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>shop.flows +1",
            "a.shop>shop.packets +2",
            "b.flows +1",
            "b.shop>shop.flows +1",
            "b.shop>shop.packets +2",
        ]);
    }
}

#[test]
fn every_protocol_crosses_as_it_was_sent() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        let [web, db] = net.pair([WEB, DB]);
        for frame in [
            udp(web, db).frame(),
            udp(web, db).payload(b"odd").checksum(Checksum::Absent).frame(),
            udp(web, db).payload_length(1300).traffic_class(0x2a).frame(),
            tcp(web, db).payload_length(1000).ack(),
            echo_request(web, db, [7, 1]).frame(),
            protocol(web, db, number::SCTP).payload(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]).frame(),
            protocol(web, db, 47).payload(&[0, 0, 8, 0]).frame(),
            protocol(web, db, 50).frame(),
            udp(web, db).frame().padded(&[0xee; 9]),
        ] {
            lab.over(net);
            assert_eq!(lab.delivers([WEB, DB], &frame), frame);
            lab.assert_only_changed(&[
                "a.flows +1",
                "a.shop>shop.flows +1",
                "a.shop>shop.packets +1",
                "b.flows +1",
                "b.shop>shop.flows +1",
                "b.shop>shop.packets +1",
            ]);
        }
    }
}

/// The header as RFC 7348 and the group policy draft draw it, read with nothing but the bytes.
#[test]
fn the_tunnel_header_is_what_the_rfc_says() {
    let mut lab = Lab::with_rules(&["allow blog/web -> shop udp"]);
    let net = Net::ALL[0];
    lab.over(net);
    let [press, db] = net.pair([PRESS, DB]);
    let inner = udp(press, db).payload(b"x").frame();
    let wire = lab.sends(PRESS, &inner).leaves_for(At::B);
    let bytes = wire.bytes();
    assert_eq!(bytes[12..16], [0x08, 0x00, 0x45, 0x00]);
    let length = u16::try_from(bytes.len() - 14).expect("short").to_be_bytes();
    assert_eq!(bytes[16..26], [length[0], length[1], 0, 0, 0x40, 0, 64, 17, bytes[24], bytes[25]]);
    assert_eq!(bytes[26..34], [192, 0, 2, 1, 192, 0, 2, 2]);
    assert!(bytes[34] >= 0xc0);
    let length = u16::try_from(bytes.len() - 34).expect("short").to_be_bytes();
    assert_eq!(bytes[36..42], [0x1a, 0x80, length[0], length[1], 0, 0]);
    // G and I; no policy bits; group 1; VNI 200; reserved.
    assert_eq!(bytes[42..50], [0x88, 0, 0, 1, 0, 0, 200, 0]);
    // The MAC of the receiver is known here, and taken.
    assert_eq!(bytes[50..56], DB.mac());
    assert_eq!(bytes[56..], inner.bytes()[6..]);
    lab.settle();
}

#[test]
fn a_tunnel_packet_without_a_group_speaks_for_its_app() {
    let mut lab = Lab::two_hosts();
    let into_db = lab.link(At::B, DB.name);
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let inner = udp(web, db).frame();
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, SHOP.0).wrap(&inner);
        assert_eq!(lab.receives(At::B, &wire).enters(DB, into_db), inner);
        let flow = lab.flows(At::B)[0];
        let sender = flow.side[flow.opener().index()];
        assert_eq!(sender.identity, WEB.identity(), "the cluster state knows the role");
        lab.assert_only_changed(&["b.flows +1", "b.shop>shop.flows +1", "b.shop>shop.packets +1"]);
    }
}

#[test]
fn an_endpoint_too_new_to_be_known_speaks_when_its_host_has_the_block() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db udp/80"]);
    let into = [STORE, DB].map(|member| (member, lab.link(At::B, member.name)));
    for net in Net::ALL {
        lab.over(net);
        let new = Station::new([2, 0, 0, 1, 1, 99], address(SHOP, At::A, 99, net.inner));
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        for (member, link) in into {
            let inner = udp(new, member.station(net.inner)).frame();
            let wire = Vxlan::new(a, b, SHOP.0).group(WEB.role.0).wrap(&inner);
            assert_eq!(lab.receives(At::B, &wire).enters(member, link), inner);
        }
        // With another role the rule does not speak of it.
        let inner = udp(new, STORE.station(net.inner)).ports(1, 80).frame();
        lab.receives(At::B, &Vxlan::new(a, b, SHOP.0).group(7).wrap(&inner)).dropped();
        lab.assert_only_changed(&[
            "b.flows +2",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +1",
            "b.shop>shop.flows +1",
            "b.shop>shop.packets +1",
            "b.drops.policy-absent +1",
            "b.shop>blog.drops +1",
            "b.rule-1.flows +1",
            "b.rule-1.packets +1",
        ]);
    }
}

#[test]
fn a_receiver_that_only_its_host_knows_is_found_there() {
    let mut lab = Lab::two_hosts();
    let into = lab.link(At::B, PLAIN.name);
    for net in Net::ALL {
        lab.over(net);
        // Host a knows no more of it than the block.
        lab.tables(At::A).unroute(PLAIN.ip(net.inner).into());
        let web = WEB.station(net.inner);
        let frame = udp(web, PLAIN.station(net.inner).behind(Mac::GATEWAY.bytes())).frame();
        let wire = lab.sends(WEB, &frame).leaves_for(At::B);
        assert_eq!(wire.decode().tunnel().inner.dst_mac, Mac::GATEWAY.bytes());
        assert_eq!(lab.receives(At::B, &wire).enters(PLAIN, into), frame.between(web.mac, PLAIN.mac()));
        lab.settle();
        // The answer names it, and that is no contradiction.
        let back = udp(PLAIN.station(net.inner), web).ports(80, 40000).frame();
        assert_eq!(lab.delivers([PLAIN, WEB], &back), back);
        lab.assert_only_changed(&["a.shop>shop.packets +1", "b.shop>shop.packets +1"]);
    }
}

#[test]
fn flows_take_many_source_ports_and_a_flow_takes_one() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let mut ports = BTreeSet::new();
        for port in 40000..40016 {
            let sources: BTreeSet<u16> = (0..3)
                .map(|length| {
                    let frame = udp(web, db).ports(port, 80).payload_length(length).frame();
                    lab.sends(WEB, &frame).leaves_for(At::B).decode().ports().expect("UDP").0
                })
                .collect();
            assert_eq!(sources.len(), 1);
            ports.extend(sources);
        }
        assert!(ports.len() >= 8 && ports.iter().all(|port| *port >= 49152), "{ports:?}");
        lab.assert_only_changed(&["a.flows +16", "a.shop>shop.flows +16", "a.shop>shop.packets +48"]);
    }
}

#[test]
fn a_peer_without_a_way_there_is_unreachable() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        lab.write_peer(At::A, At::B, |peer| *peer = weft_common::tunnel::Peer::default());
        let [web, db] = net.pair([WEB, DB]);
        lab.sends(WEB, &udp(web, db).frame()).dropped();
        let far = FAR.station(net.inner);
        let link = lab.link(At::A, "uplink");
        assert_ne!(link, 0);
        assert_eq!(lab.sends(WEB, &udp(web, far).frame()).leaves_for(At::C).decode().tunnel().inner.dst_mac, far.mac);
        lab.assert_only_changed(&[
            "a.drops.peer-unreachable +1",
            "a.shop>shop.drops +1",
            "a.flows +2",
            "a.shop>shop.flows +2",
            "a.shop>shop.packets +2",
        ]);
    }
}

/// RFC 6040, figure 4; the rows are the inner packet's.
const ECN: [[Option<u8>; 4]; 4] = [
    // Of the outer packet: not ECT, ECT(1), ECT(0), CE.
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn congestion_on_the_way_is_carried_over_or_the_packet_is_dropped() {
    let mut lab = Lab::two_hosts();
    let into_db = lab.link(At::B, DB.name);
    for net in Net::ALL {
        let [web, db] = net.pair([WEB, DB]);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        for (inner, row) in (0..).zip(ECN) {
            for (outer, expect) in (0..).zip(row) {
                lab.over(net);
                let dscp = 0x28;
                let frame = |ecn| {
                    udp(web, db)
                        .traffic_class(dscp | ecn)
                        .flow_label(if net.inner == Family::V6 { 0xabcde } else { 0 })
                        .payload(b"odd")
                        .frame()
                };
                let wire = Vxlan::new(a, b, SHOP.0).group(WEB.role.0).traffic_class(0xb8 | outer).wrap(&frame(inner));
                let ran = lab.receives(At::B, &wire);
                if let Some(ecn) = expect {
                    assert_eq!(ran.enters(DB, into_db), frame(ecn), "{inner} in {outer}");
                    lab.assert_only_changed(&["b.flows +1", "b.shop>shop.flows +1", "b.shop>shop.packets +1"]);
                } else {
                    ran.dropped();
                    lab.assert_only_changed(&["b.drops.ecn-invalid +1"]);
                }
            }
        }
    }
}

#[test]
fn what_just_fits_passes_and_a_byte_more_is_told_the_size() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        let [web, db] = net.pair([WEB, DB]);
        let mtu = inner_mtu(UNDERLAY_MTU, net.outer == Family::V4);
        assert_eq!(mtu, if net.outer == Family::V4 { 1450 } else { 1430 });
        let headers = if net.inner == Family::V4 { 28 } else { 48 };
        let of_size = |size: u32| {
            let length = usize::try_from(size).expect("short") - headers;
            udp(web, db).dont_fragment().payload_length(length).frame()
        };
        lab.over(net);
        let wire = lab.sends(WEB, &of_size(mtu)).leaves_for(At::B);
        assert_eq!(wire.bytes().len(), usize::try_from(UNDERLAY_MTU).expect("short") + 14);
        lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +1"]);

        let answer = lab.sends(WEB, &of_size(mtu + 1)).answered().decode();
        answer.assert_sound();
        let (kind, rest) = match net.inner {
            Family::V4 => ((3, 4), mtu),
            Family::V6 => ((2, 0), mtu),
        };
        assert_eq!(answer.icmp(), Some(kind));
        let weft_tests::frame::decoded::Transport::Icmp { rest: told, .. } = answer.transport else { unreachable!() };
        assert_eq!(u32::from_be_bytes(told), rest);
        assert_eq!((answer.ip().src, answer.ip().dst), (db.ip, web.ip));
        assert_eq!((answer.src_mac, answer.dst_mac), (db.mac, web.mac));
        lab.assert_only_changed(&["a.drops.too-big +1", "a.shop>shop.drops +1", "a.shop>shop.packets +1"]);
    }
}

/// A test run's packet has segments and no type of them, and so the kernel does not let it grow: that is how the story
/// sees that it was found to fit.
#[test]
fn a_merged_packet_fits_when_its_segments_do() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        let [web, db] = net.pair([WEB, DB]);
        let mtu = inner_mtu(UNDERLAY_MTU, net.outer == Family::V4);
        let [ip, tcp_header] = [if net.inner == Family::V4 { 20 } else { 40 }, 32];
        let merged = tcp(web, db).dont_fragment().tcp_options(&[1; 12]).payload_length(3000).ack();
        let largest = mtu - ip - tcp_header;
        lab.over(net);
        assert_eq!(lab.sends_merged(WEB, &merged, largest).dropped().name(), "kernel-refused");
        let answer = lab.sends_merged(WEB, &merged, largest + 1).answered().decode();
        answer.assert_sound();
        lab.assert_only_changed(&[
            "a.drops.kernel-refused +1",
            "a.drops.too-big +1",
            "a.flows +1",
            "a.shop>shop.flows +1",
            "a.shop>shop.packets +2",
            "a.shop>shop.drops +2",
        ]);
        let datagrams = udp(web, db).payload_length(2800).frame();
        let largest = mtu - ip - 8;
        lab.over(net);
        assert_eq!(lab.sends_merged(WEB, &datagrams, largest).dropped().name(), "kernel-refused");
        lab.sends_merged(WEB, &datagrams, largest + 1).answered();
        lab.settle();
    }
}

#[test]
fn the_reply_of_a_ping_finds_its_flow() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db icmp/8", "allow shop/web -> blog/db icmpv6/128"]);
    for net in Net::ALL {
        lab.over(net);
        let rule = if net.inner == Family::V4 { 1 } else { 2 };
        let [web, store] = net.pair([WEB, STORE]);
        let ping = echo_request(web, store, [7, 1]).payload(b"abc").frame();
        lab.delivers([WEB, STORE], &ping);
        let [store, web] = net.pair([STORE, WEB]);
        let pong = echo_reply(store, web, [7, 1]).payload(b"abc").frame();
        lab.delivers([STORE, WEB], &pong);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +1",
            "a.blog>shop.packets +1",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +1",
            "b.blog>shop.packets +1",
            &format!("a.rule-{rule}.flows +1"),
            &format!("a.rule-{rule}.packets +2"),
            &format!("b.rule-{rule}.flows +1"),
            &format!("b.rule-{rule}.packets +2"),
        ]);
    }
}
