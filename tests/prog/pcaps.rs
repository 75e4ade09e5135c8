//! Other people's packets: every frame of `tests/pcaps`, also those of links that are no Ethernet, through every
//! program. What a program says of each is known beforehand, from reading the same bytes on the host.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Net, SHOP, WEB};
use super::lab::machine::{Context, LONGEST, Program};
use super::lab::ran::{Action, Ran};
use pcap_file::pcap::PcapReader;
use std::fs::{self, File};
use std::io::BufReader;
use std::net::IpAddr;
use std::path::Path;
use weft_common::header::{Ether, protocol};
use weft_common::parse::{Kind, Packet, parse};
use weft_common::tunnel::{self, PORT};
use weft_common::verdict::DropReason;
use weft_tests::command::run;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{ETHER, Frame, Station};
use weft_tests::underlay::Family;

/// Fewer would mean that the archive is not what it was.
const AT_LEAST: usize = 9_000;

/// Every frame, in order. What is too short for an Ethernet header gets zeros, what is too long for a test run is cut.
fn frames() -> Vec<Frame> {
    let folder = tempfile::tempdir().expect("make a folder");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("pcaps/tcpdump.tar.gz");
    run(&format!("tar -xzf {} -C {}", archive.display(), folder.path().display()));
    let listed = fs::read_dir(&folder).expect("list the captures");
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("list the captures").path()).collect();
    paths.sort();
    let mut frames = Vec::new();
    for path in paths {
        let file = File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        let mut reader =
            PcapReader::new(BufReader::new(file)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Some captures are broken off on purpose: what comes before counts.
        while let Some(Ok(packet)) = reader.next_raw_packet() {
            let mut bytes = packet.data.into_owned();
            bytes.truncate(LONGEST);
            bytes.resize(bytes.len().max(ETHER), 0);
            frames.push(Frame::from_bytes(bytes));
        }
    }
    assert!(frames.len() >= AT_LEAST, "{} frames in {}", frames.len(), archive.display());
    frames
}

fn ethertype(frame: &Frame) -> [u8; 2] {
    [frame.bytes()[12], frame.bytes()[13]]
}

/// Which IP it says that it is.
fn family(frame: &Frame) -> Option<Family> {
    match ethertype(frame) {
        Ether::IPV4 => Some(Family::V4),
        Ether::IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// Whether the kernel makes a packet of it: one that says it is IP has to hold the header.
fn is_runnable(frame: &Frame) -> bool {
    let least = match ethertype(frame) {
        Ether::IPV4 => 20,
        Ether::IPV6 => 40,
        _ => 0,
    };
    frame.bytes().len() >= ETHER + least
}

/// Those of which the kernel makes a packet.
fn runnable() -> Vec<Frame> {
    frames().into_iter().filter(is_runnable).collect()
}

/// Tables that fill up are slow to compare: after this many frames they are emptied.
const AT_ONCE: usize = 32;

fn read(frame: &Frame) -> Result<Packet, DropReason> {
    match ethertype(frame) {
        Ether::IPV4 | Ether::IPV6 => parse(frame.bytes(), Ether::LEN, ethertype(frame)),
        _ => Err(DropReason::UnknownStation),
    }
}

#[test]
fn none_of_them_leaves_a_container_that_did_not_make_it() {
    let mut lab = Lab::two_hosts();
    for frame in runnable() {
        let ran = lab.sends(WEB, &frame);
        let expect = match (ethertype(&frame), read(&frame)) {
            // ARP is read first, and then asked whose it is.
            (Ether::ARP, _) => {
                let whole = frame.bytes().get(ETHER..ETHER + 28);
                let is_ipv4 = whole.is_some_and(|arp| arp[..6] == [0, 1, 8, 0, 6, 4]);
                if is_ipv4 { DropReason::SpoofedMac } else { DropReason::Malformed }
            }
            // So is what is neither.
            (_, Ok(_) | Err(DropReason::UnknownStation)) => DropReason::SpoofedMac,
            (_, Err(reason)) => reason,
        };
        assert_eq!(ran.reason(), Some(expect), "{ran}");
        ran.dropped();
    }
    lab.settle();
}

#[test]
fn none_of_them_comes_in_from_the_underlay() {
    let mut lab = Lab::two_hosts();
    let link = lab.link(At::B, "uplink");
    for frame in runnable() {
        let expect = match tunnel::open(frame.bytes(), PORT) {
            Ok(None) => None,
            Ok(Some(_)) => Some(DropReason::UnknownPeer),
            Err(reason) => Some(reason),
        };
        for program in [Program::FromUnderlay, Program::Guard] {
            // A guard that is run by itself has no interface.
            let link = if program == Program::Guard { 0 } else { link };
            let ran = lab.run(At::B, program, Context { link, arrived_on: link, segment: 0 }, &frame);
            assert_eq!(ran.reason(), expect, "{ran}");
            assert_eq!(ran.action, if expect.is_some() { Action::Drop } else { Action::Pass }, "{ran}");
        }
    }
    lab.settle();
}

#[test]
fn none_of_them_gets_into_an_app_by_the_host() {
    let mut lab = Lab::two_hosts();
    let [lan, gateway] = ["lan", "gateway"].map(|name| lab.link(At::A, name));
    for frames in runnable().chunks(AT_ONCE) {
        lab.over(Net::ALL[0]);
        for frame in frames {
            for arrived_on in [0, lan] {
                let ran = lab.host_routes(At::A, arrived_on, frame);
                match read(frame) {
                    Err(reason) => assert_eq!(ran.reason(), Some(reason), "{ran}"),
                    Ok(packet) if packet.dst.is_multicast() || packet.dst.is_broadcast() => ran.absorbed(),
                    Ok(_) => assert!(ran.reason().is_some(), "{ran}"),
                }
            }
            let context = Context { link: gateway, arrived_on: gateway, segment: 0 };
            lab.run(At::A, Program::ToHost, context, frame).passed();
        }
        lab.settle();
    }
}

#[test]
fn none_of_them_is_delivered_out_of_a_peers_tunnel() {
    let mut lab = Lab::two_hosts();
    for net in [Net::ALL[0], Net::ALL[3]] {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, SHOP.0).group(WEB.role.0);
        for frame in frames() {
            let ran = lab.receives(At::B, &tunnel.wrap(&frame.truncated(frame.bytes().len().min(LONGEST - 100))));
            // What somebody says about groups from an address of the link is taken, and copies of what is not IP may go
            // to all of the app; nothing is delivered to one.
            assert!(ran.action == Action::Drop, "{ran}");
        }
        lab.settle();
        assert!(lab.flows(At::B).is_empty());
    }
}

/// Makes it a frame from one of our endpoints to another: the addresses are changed, and nothing else.
fn adopted(frame: &Frame, [from, to]: [Station; 2]) -> Frame {
    let frame = frame.between(from.mac, to.mac);
    match (from.ip, to.ip) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame.with_bytes(ETHER + 12, &[from.octets(), to.octets()].concat()),
        (IpAddr::V6(from), IpAddr::V6(to)) => frame.with_bytes(ETHER + 8, &[from.octets(), to.octets()].concat()),
        other => unreachable!("{other:?}"),
    }
}

/// Says what has to become of an endpoint's own packet that stays inside of its app.
#[track_caller]
fn check_own(ran: &Ran) {
    let packet = match read(&ran.input) {
        Ok(packet) => packet,
        Err(reason) => return assert_eq!(ran.reason(), Some(reason), "{ran}"),
    };
    let reason = ran.reason();
    let icmp_kind = packet.policy_port >> 8;
    let ports = packet.key.ports(packet.leg);
    match (packet.protocol, packet.kind) {
        (protocol::ICMPV6, _) if matches!(icmp_kind, 133..=137) => assert_ne!(ran.action, Action::Redirect, "{ran}"),
        // Whether it belongs to a datagram depends on what came before.
        (_, Kind::FirstFragment | Kind::FirstOfReply | Kind::LaterFragment { .. }) => {}
        (_, Kind::IcmpError) => assert!(matches!(reason, Some(DropReason::IcmpUnrelated) | None), "{ran}"),
        (protocol::UDP, _) if matches!((ports.src, ports.dst), (67, 68) | (547, 546)) => {
            assert_eq!(reason, Some(DropReason::RogueRouter), "{ran}");
        }
        (protocol::ICMP, _) if icmp_kind == 9 => assert_eq!(reason, Some(DropReason::RogueRouter), "{ran}"),
        (_, Kind::Whole | Kind::Reply) => {
            assert!((ran.action, reason) == (Action::Redirect, None) || reason == Some(DropReason::TooBig), "{ran}");
        }
    }
}

#[test]
fn those_that_an_endpoint_might_send_are_delivered_as_they_are() {
    let mut lab = Lab::two_hosts();
    for frames in runnable().chunks(AT_ONCE) {
        lab.over(Net::LOCAL[0]);
        for frame in frames {
            let Some(inner) = family(frame) else { continue };
            let own = adopted(frame, Net { inner, outer: Family::V4 }.pair([WEB, CACHE]));
            let ran = lab.sends(WEB, &own);
            check_own(&ran);
            if ran.action == Action::Redirect {
                assert_eq!(ran.output, own, "{ran}");
            }
        }
        lab.settle();
    }
}

#[test]
fn those_that_an_endpoint_might_send_cross_the_tunnel_as_they_are() {
    let mut lab = Lab::two_hosts();
    let mut crossed = 0;
    let into = lab.link(At::B, DB.name);
    for (frames, outer) in runnable().chunks(AT_ONCE).zip(Family::BOTH.into_iter().cycle()) {
        lab.over(Net { inner: Family::V4, outer });
        for frame in frames {
            let Some(inner) = family(frame) else { continue };
            let own = adopted(frame, Net { inner, outer }.pair([WEB, DB]));
            let ran = lab.sends(WEB, &own);
            check_own(&ran);
            if (ran.action, ran.reason()) != (Action::Redirect, None) {
                continue;
            }
            let arrived = lab.receives(At::B, &ran.output);
            // A first piece that was too big to leave is known here, and not there.
            if arrived.reason() != Some(DropReason::FragmentUntracked) {
                let inside = arrived.enters(DB, into);
                assert!(inside == own || is_clamped(&inside, &own), "{ran}");
                crossed += 1;
            }
        }
        lab.settle();
    }
    assert!(crossed >= AT_LEAST / 3, "{crossed} frames crossed");
}

/// Whether two frames differ as a SYN does whose segment size was lowered: in it, and in the checksum.
fn is_clamped(inside: &Frame, own: &Frame) -> bool {
    let differing = inside.bytes().iter().zip(own.bytes()).filter(|(a, b)| a != b).count();
    inside.bytes().len() == own.bytes().len() && (1..=4).contains(&differing)
}

/// The same code reads packet memory in the kernel and slices here. Cut anywhere, it neither panics nor reads on.
#[test]
fn cut_at_any_byte_they_are_read_without_a_panic_and_alike_in_the_kernel() {
    let mut lab = Lab::two_hosts();
    for (index, frame) in frames().iter().enumerate() {
        for length in 0..frame.bytes().len() {
            let cut = &frame.bytes()[..length];
            for family in [Ether::IPV4, Ether::IPV6] {
                parse(cut, Ether::LEN, family).ok();
            }
            tunnel::open(cut, PORT).ok();
        }
        let Some(inner) = family(frame) else { continue };
        // One length of each frame, all over the place and always the same.
        let length = ETHER + (index * 7919) % (frame.bytes().len() - ETHER + 1);
        let cut = frame.truncated(length);
        if is_runnable(&cut) {
            check_own(&lab.sends(WEB, &adopted(&cut, Net { inner, outer: Family::V4 }.pair([WEB, CACHE]))));
        }
        if index % AT_ONCE == 0 {
            lab.settle();
            lab.over(Net::LOCAL[0]);
        }
    }
    lab.settle();
}
