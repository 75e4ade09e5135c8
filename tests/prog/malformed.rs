//! Packets that contradict themselves, and headers that could hide what policy has to see.

use super::lab::Lab;
use super::lab::cast::{CACHE, Net, WEB};
use super::lab::ran::Action;
use weft_common::header::Ether;
use weft_common::parse::{Kind, parse};
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::echo_request;
use weft_tests::frame::ipv6::{Extension, ROUTER_ALERT};
use weft_tests::frame::packet::Packet;
use weft_tests::frame::{ETHER, Frame, protocol, tcp, udp};
use weft_tests::underlay::Family;

#[track_caller]
fn check(lab: &mut Lab, what: &str, frame: &Frame, reason: DropReason) {
    let ran = lab.sends(WEB, frame);
    assert_eq!(ran.reason(), Some(reason), "{what}: {ran}");
    ran.dropped();
    lab.settle();
}

#[track_caller]
fn check_passes(lab: &mut Lab, frame: &Frame) {
    assert_eq!(&lab.delivers([WEB, CACHE], frame), frame);
    lab.settle();
}

#[test]
fn ipv4_options_are_refused_whatever_they_are() {
    let mut lab = Lab::two_hosts();
    let [web, cache] = Net::LOCAL[0].pair([WEB, CACHE]);
    // No operation, record route, timestamp, loose and strict source route, router alert, the end, security, nonsense.
    for options in [
        &[1][..],
        &[7, 7, 4, 0, 0, 0, 0],
        &[68, 4, 5, 0],
        &[131, 7, 4, 10, 1, 2, 3],
        &[137, 7, 4, 10, 1, 2, 3],
        &[148, 4, 0, 0],
        &[0],
        &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xee; 40],
    ] {
        for frame in [
            tcp(web, cache).ipv4_options(options).syn(),
            udp(web, cache).ipv4_options(options).frame(),
            echo_request(web, cache, [1, 1]).ipv4_options(options).frame(),
        ] {
            check(&mut lab, "options", &frame, DropReason::Ipv4Options);
        }
    }
    // More of them than there are bytes.
    check(
        &mut lab,
        "options beyond the end",
        &udp(web, cache).frame().with_l3_bytes(0, &[0x4f]),
        DropReason::Ipv4Options,
    );
}

#[test]
fn a_version_or_header_length_that_can_not_be_is_malformed() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let frame = udp(web, cache).payload(b"abc").frame();
        let bytes: &[u8] = if net.inner == Family::V4 {
            &[0x05, 0x35, 0x55, 0x65, 0xf5, 0x44, 0x40]
        } else {
            &[0x00, 0x40, 0x50, 0x70, 0xf0]
        };
        for byte in bytes {
            check(&mut lab, "version", &frame.with_l3_bytes(0, &[*byte]), DropReason::Malformed);
        }
    }
}

#[test]
fn a_length_that_the_frame_does_not_have_is_malformed_and_padding_is_not() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let packet = udp(web, cache).payload(b"abcdef");
        let (header, whole) = if net.inner == Family::V4 { (20, 34) } else { (0, 14) };
        for length in [whole + 1, whole + 100, 65535] {
            check(&mut lab, "too long", &packet.clone().declared_length(length).frame(), DropReason::Malformed);
        }
        for length in [0, header, header + 7].into_iter().filter(|length| *length < header + 8) {
            check(&mut lab, "too short", &packet.clone().declared_length(length).frame(), DropReason::Malformed);
        }
        check_passes(&mut lab, &packet.clone().declared_length(header + 8).frame());
        check_passes(&mut lab, &packet.frame().padded(&[0xaa; 20]));
    }
}

#[test]
fn a_transport_header_that_does_not_fit_is_malformed() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let l4 = if net.inner == Family::V4 { 20 } else { 40 };
        let syn = tcp(web, cache).mss(1400).syn();
        // Data offsets of less than the header, and of more than there is.
        for offset in [0x00, 0x10, 0x40, 0x70, 0xf0] {
            check(&mut lab, "data offset", &syn.with_l3_bytes(l4 + 12, &[offset]), DropReason::Malformed);
        }
        for (number, least) in
            [(6, 20), (17, 8), (136, 8), (132, 12), (if net.inner == Family::V4 { 1 } else { 58 }, 8)]
        {
            for length in 0..least {
                let frame = protocol(web, cache, number).payload(&vec![0x50; length]).frame();
                check(&mut lab, "cut", &frame, DropReason::Malformed);
            }
        }
        // What has no ports has no least length.
        check_passes(&mut lab, &protocol(web, cache, 47).frame());
        check_passes(&mut lab, &protocol(web, cache, 99).payload(b"x").frame());
    }
}

#[test]
fn extension_headers_are_walked_as_far_as_they_are_known() {
    let mut lab = Lab::two_hosts();
    let [web, cache] = Net::LOCAL[1].pair([WEB, CACHE]);
    let hop = || Extension::HopByHop(ROUTER_ALERT.to_vec());
    let options = |length| Extension::DestinationOptions(vec![0; length]);
    let extended =
        |chain: Vec<Extension>| chain.into_iter().fold(udp(web, cache).payload(b"abc"), Packet::extension).frame();
    for chain in [
        vec![hop()],
        vec![options(2)],
        vec![hop(), options(100)],
        vec![options(6); 5],
        vec![hop(), Extension::ATOMIC_FRAGMENT],
    ] {
        check_passes(&mut lab, &extended(chain));
    }
    let refused = DropReason::Ipv6Extension;
    check(&mut lab, "too many", &extended(vec![options(6); 6]), refused);
    check(&mut lab, "many too many", &extended(vec![options(6); 40]), refused);
    for kind in [0, 2, 3, 4, 253] {
        for segments_left in [0, 1] {
            let routing = Extension::Routing { kind, segments_left, data: vec![0; 20] };
            check(&mut lab, "routing", &extended(vec![routing.clone()]), refused);
            check(&mut lab, "routing behind others", &extended(vec![hop(), options(2), routing]), refused);
        }
    }
    // Authentication, mobility, host identity, shim6, experiments; nothing at all.
    for number in [51, 135, 139, 140, 253, 254] {
        check(&mut lab, "unknown", &extended(vec![Extension::Other(number, vec![0; 6])]), refused);
        check(&mut lab, "unknown", &extended(vec![hop(), Extension::Other(number, vec![0; 6])]), refused);
    }
    check(&mut lab, "no next header", &protocol(web, cache, 59).frame(), refused);
    // Behind a fragment header the transport header is expected: offsets count from there.
    for behind in [hop(), options(6), Extension::ATOMIC_FRAGMENT] {
        check(&mut lab, "behind a fragment header", &extended(vec![Extension::ATOMIC_FRAGMENT, behind]), refused);
    }
    // Lengths that lead out of the packet.
    for length in [1, 20, 255] {
        let frame = extended(vec![options(6)]).with_l3_bytes(41, &[length]);
        check(&mut lab, "beyond the end", &frame, DropReason::Malformed);
    }
}

/// The reason that reading alone gives, from the same code on the host.
fn unreadable(frame: &Frame) -> Option<DropReason> {
    let bytes = frame.bytes();
    let ethertype = [bytes[12], bytes[13]];
    parse(bytes, Ether::LEN, ethertype).err()
}

#[test]
fn a_frame_cut_at_any_byte_is_read_alike_by_the_program_and_on_the_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let least = ETHER + if net.inner == Family::V4 { 20 } else { 40 };
        let mut frames = vec![
            tcp(web, cache).mss(1400).payload(b"payload").syn(),
            udp(web, cache).payload(b"payload").frame(),
            echo_request(web, cache, [7, 1]).payload(b"payload").frame(),
        ];
        if net.inner == Family::V6 {
            let chain =
                udp(web, cache).extension(Extension::HopByHop(vec![])).extension(Extension::DestinationOptions(vec![]));
            frames.push(chain.payload(b"payload").frame());
        }
        for frame in frames {
            for length in least..frame.bytes().len() {
                let cut = frame.truncated(length);
                assert_eq!(unreadable(&cut), Some(DropReason::Malformed));
                check(&mut lab, "cut", &cut, DropReason::Malformed);
                // With a length that fits.
                let said = u16::try_from(length - if net.inner == Family::V4 { ETHER } else { least }).expect("short");
                let at = if net.inner == Family::V4 { 2 } else { 4 };
                let honest = cut.with_l3_bytes(at, &said.to_be_bytes());
                match unreadable(&honest) {
                    Some(reason) => check(&mut lab, "honestly cut", &honest, reason),
                    None => check_passes(&mut lab, &honest),
                }
            }
        }
    }
}

/// Any byte of a valid frame is changed: the program reads what the host reads, and what it hands on is what came.
#[test]
fn damage_to_any_byte_is_read_alike_by_the_program_and_on_the_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let mut frames =
            vec![tcp(web, cache).mss(1400).payload(b"payload").syn(), udp(web, cache).payload(b"payload").frame()];
        if net.inner == Family::V6 {
            let chain = udp(web, cache)
                .extension(Extension::HopByHop(ROUTER_ALERT.to_vec()))
                .extension(Extension::ATOMIC_FRAGMENT);
            frames.push(chain.payload(b"payload").frame());
        }
        for frame in frames {
            for at in ETHER..frame.bytes().len() {
                for flip in [0x01, 0x80, 0x10, 0xff] {
                    let damaged = frame.with_bytes(at, &[frame.bytes()[at] ^ flip]);
                    lab.over(net);
                    let ran = lab.sends(WEB, &damaged);
                    let bytes = damaged.bytes();
                    match parse(bytes, Ether::LEN, [bytes[12], bytes[13]]) {
                        Err(reason) => assert_eq!(ran.reason(), Some(reason), "{ran}"),
                        Ok(packet) if packet.src != web.ip.into() => {
                            assert_eq!(ran.reason(), Some(DropReason::SpoofedAddress), "{ran}");
                        }
                        Ok(packet) if packet.dst == cache.ip.into() && packet.kind == Kind::Whole => {
                            assert_eq!((ran.action, ran.reason()), (Action::Redirect, None), "{ran}");
                            assert_eq!(ran.output, damaged);
                        }
                        Ok(_) => {}
                    }
                    lab.settle();
                }
            }
        }
    }
}
