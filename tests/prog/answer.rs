//! What a sender is told of a packet that does not pass: to the byte, and only where an answer is right.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Net, PRESS, SHOP, STORE, WEB, address};
use weft_common::addr::Mac;
use weft_common::id::RoleId;
use weft_common::verdict::DropReason;
use weft_tests::frame::decoded::{Decoded, Transport};
use weft_tests::frame::flags::{ACK, FIN, PSH, RST, SYN, URG};
use weft_tests::frame::icmp::{Problem, echo_reply, echo_request, error};
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, Station, protocol, tcp, udp};
use weft_tests::underlay::Family;

const REJECT: [&str; 1] = ["reject shop -> blog"];

/// The answer inside of its tunnel, if it is in one, with everything sound.
#[track_caller]
fn read(answer: &Frame) -> Decoded {
    let read = answer.decode();
    read.assert_sound();
    match read.tunnel {
        Some(tunnel) => *tunnel.inner,
        None => read,
    }
}

/// What a reset says.
#[track_caller]
fn reset(answer: &Decoded) -> ([u16; 2], u8, u32, u32) {
    let Transport::Tcp { ports, flags, sequence, acknowledgment, window: 0, mss: None } = answer.transport else {
        panic!("no reset: {answer}")
    };
    assert!(answer.payload.is_empty(), "{answer}");
    (ports, flags, sequence, acknowledgment)
}

/// What an error says, with its quote.
#[track_caller]
fn told(answer: &Decoded) -> ((u8, u8), [u8; 4], &[u8]) {
    let Transport::Icmp { kind, code, rest } = answer.transport else { panic!("no error: {answer}") };
    ((kind, code), rest, &answer.payload)
}

#[test]
fn a_rejected_segment_is_reset_as_the_rfc_says() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        // RFC 9293 §3.10.7.1: with ACK the reset takes its number from there, else it acknowledges what came.
        for (flags, payload, expect) in [
            (SYN, 0, (RST | ACK, 0, 1001)),
            (SYN, 100, (RST | ACK, 0, 1101)),
            (SYN | ACK, 0, (RST, 77, 0)),
            (ACK, 0, (RST, 77, 0)),
            (ACK | PSH, 500, (RST, 77, 0)),
            (FIN | ACK, 3, (RST, 77, 0)),
            (FIN, 3, (RST | ACK, 0, 1004)),
            (0, 9, (RST | ACK, 0, 1009)),
            (FIN | PSH | URG, 0, (RST | ACK, 0, 1001)),
            (SYN | FIN, 0, (RST | ACK, 0, 1002)),
        ] {
            let packet = tcp(web, press).ports(4000, 80).sequence(1000).acknowledgment(77).payload_length(payload);
            let answer = read(&lab.sends(WEB, &packet.flagged(flags)).answered());
            let (expect_flags, sequence, acknowledgment) = expect;
            assert_eq!(reset(&answer), ([80, 4000], expect_flags, sequence, acknowledgment), "{flags:#x}");
            let ip = answer.ip();
            assert_eq!((ip.src, ip.dst, ip.hops, ip.traffic_class), (press.ip, web.ip, 64, 0));
            assert_eq!((answer.src_mac, answer.dst_mac), (Mac::GATEWAY.bytes(), web.mac));
        }
        lab.assert_only_changed(&["a.drops.policy-rejected +10", "a.shop>blog.drops +10", "a.rule-1.drops +10"]);
    }
}

#[test]
fn numbers_wrap_around_in_a_reset() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let syn = tcp(web, press).sequence(u32::MAX).syn();
        assert_eq!(reset(&read(&lab.sends(WEB, &syn).answered())), ([80, 40000], RST | ACK, 0, 0));
        let options = tcp(web, press).sequence(u32::MAX).tcp_options(&[1; 40]).payload_length(10).syn();
        assert_eq!(reset(&read(&lab.sends(WEB, &options).answered())), ([80, 40000], RST | ACK, 0, 10));
        lab.settle();
    }
}

#[test]
fn other_packets_that_are_rejected_are_told_prohibited_with_a_quote() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let (kind, quote) = if net.inner == Family::V4 { ((3, 13), 28) } else { ((1, 1), 48) };
        let frames = [
            udp(web, press).payload(b"query").frame(),
            udp(web, press).frame(),
            echo_request(web, press, [7, 1]).payload(b"ping").frame(),
            echo_reply(web, press, [7, 1]).frame(),
            protocol(web, press, 132).payload(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]).frame(),
            protocol(web, press, 47).payload(&[0; 8]).frame(),
            udp(web, press).payload_length(1400).frame(),
            udp(web, press).payload_length(2000).frame().fragment(0..800),
        ];
        for frame in &frames {
            let answer = read(&lab.sends(WEB, frame).answered());
            assert_eq!(told(&answer), (kind, [0; 4], &frame.l3()[..quote]));
            let ip = answer.ip();
            assert_eq!((ip.src, ip.dst, ip.hops, ip.traffic_class), (press.ip, web.ip, 64, 0));
            assert_eq!((answer.src_mac, answer.dst_mac), (Mac::GATEWAY.bytes(), web.mac));
        }
        lab.settle();
    }
}

#[test]
fn nothing_is_told_of_an_error_a_reset_a_later_piece_and_what_was_for_many() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let reason = DropReason::PolicyRejected;
        assert_eq!(lab.sends(WEB, &tcp(web, press).rst()).dropped(), reason);
        assert_eq!(lab.sends(WEB, &tcp(web, press).flagged(RST)).dropped(), reason);
        let parts = udp(web, press).payload_length(2000).frame().fragments(1200);
        lab.sends(WEB, &parts[0]).answered();
        assert_eq!(lab.sends(WEB, &parts[1]).dropped(), reason);
        // Too short to be quoted.
        if net.inner == Family::V4 {
            assert_eq!(lab.sends(WEB, &protocol(web, press, 47).payload(&[0; 4]).frame()).dropped(), reason);
        }
        lab.settle();
        let unseen = tcp(press, web).syn();
        assert_eq!(
            lab.sends(WEB, &error(web, press, Problem::NoRoute, &unseen).frame()).dropped(),
            DropReason::IcmpUnrelated
        );
        lab.settle();
    }
}

#[test]
fn a_deny_and_a_default_are_silent() {
    let mut lab = Lab::with_rules(&["deny shop -> shop"]);
    for net in Net::LOCAL {
        lab.over(net);
        for pair in [[WEB, CACHE], [WEB, PRESS]] {
            let [from, to] = net.pair(pair);
            lab.sends(WEB, &tcp(from, to).syn()).dropped();
            lab.sends(WEB, &udp(from, to).frame()).dropped();
        }
        lab.assert_only_changed(&[
            "a.drops.policy-denied +2",
            "a.shop>shop.drops +2",
            "a.drops.policy-default +2",
            "a.shop>blog.drops +2",
            "a.rule-1.drops +2",
        ]);
    }
}

/// The rule stands on the receiver's host only, so the answer crosses the tunnel; and it passes there, for the flow is
/// known.
#[test]
fn a_rejection_by_the_receivers_host_comes_back_through_the_tunnel() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.enforce(&["allow shop/web -> blog/db"]);
        lab.enforce_on(At::B, &REJECT);
        lab.over(net);
        let into = lab.link(At::A, WEB.name);
        let [web, store] = net.pair([WEB, STORE]);
        let syn = tcp(web, store).sequence(1000).syn();
        let wire = lab.sends(WEB, &syn).leaves_for(At::B);
        lab.settle();
        let back = lab.receives(At::B, &wire).answered();
        lab.assert_only_changed(&["b.drops.policy-rejected +1", "b.shop>blog.drops +1", "b.rule-1.drops +1"]);
        let [b, a] = [At::B, At::A].map(|at| at.station(net.outer).ip);
        let outer = back.decode();
        assert_eq!([outer.ip().src, outer.ip().dst], [b, a]);
        // Whom it is from is not told: by the role the sender's host might refuse the answer too.
        let from = (outer.tunnel().vni, outer.tunnel().group, outer.tunnel().flags);
        assert_eq!(from, (STORE.app.0, RoleId::UNKNOWN.0, 0x88));
        let inside = lab.receives(At::A, &back).enters(WEB, into);
        assert_eq!(reset(&read(&inside)), ([80, 40000], RST | ACK, 0, 1001));
        lab.assert_only_changed(&["a.blog>shop.packets +1", "a.rule-1.packets +1"]);

        let query = udp(web, store).payload(b"query").frame();
        let wire = lab.sends(WEB, &query).leaves_for(At::B);
        let back = lab.receives(At::B, &wire).answered();
        let inside = read(&lab.receives(At::A, &back).enters(WEB, into));
        let (kind, quote) = if net.inner == Family::V4 { ((3, 13), 28) } else { ((1, 1), 48) };
        // What is quoted is what was sent, but for the MACs.
        assert_eq!(told(&inside), (kind, [0; 4], &query.l3()[..quote]));
        lab.settle();
        lab.enforce(&[]);
    }
}

#[test]
fn the_host_is_told_too() {
    let mut lab = Lab::with_rules(&["reject host -> shop"]);
    for net in Net::ALL {
        lab.over(net);
        let gateway = At::A.gateway(SHOP, net.inner);
        for member in [WEB, DB] {
            let to = member.station(net.inner);
            let answer = lab.host_sends(At::A, &tcp(gateway, to).sequence(5).syn()).answered();
            assert_eq!(reset(&read(&answer)), ([80, 40000], RST | ACK, 0, 6));
            assert_eq!(answer.decode().dst_mac, Mac::GATEWAY.bytes());
        }
        lab.assert_only_changed(&["a.drops.policy-rejected +2", "a.host>shop.drops +2", "a.rule-1.drops +2"]);
        let nobody = Station::new([2, 0, 0, 0, 0, 9], address(SHOP, At::A, 99, net.inner));
        let answer = read(&lab.host_sends(At::A, &udp(gateway, nobody).frame()).answered());
        assert!(matches!(answer.icmp(), Some((3, 1) | (1, 3))), "{answer}");
        lab.settle();
    }
}

#[test]
fn an_answer_is_cut_from_a_merged_packet() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let merged = tcp(web, press).acknowledgment(9).payload_length(3000).ack();
        let answer = read(&lab.sends_merged(WEB, &merged, 1000).answered());
        assert_eq!(reset(&answer), ([80, 40000], RST, 9, 0));
        lab.settle();
    }
}

/// A checksum that the kernel leaves to the device holds the pseudo header's sum. The answer, which goes the same way,
/// has to leave its own likewise: the device adds to what it finds.
#[test]
fn a_checksum_left_to_the_device_is_left_to_it_in_the_answer() {
    let mut lab = Lab::with_rules(&REJECT);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let whole = tcp(web, press).payload_length(100).ack();
        let (l4, partial) = (whole.bytes().len() - 120, pseudo(&whole, 120));
        let sent = whole.with_bytes(l4 + 16, &partial);
        let answer = lab.sends(WEB, &sent).answered();
        let l4 = answer.bytes().len() - 20;
        assert_eq!(answer.bytes()[l4 + 16..l4 + 18], pseudo(&answer, 20));
        lab.settle();
    }
}

/// The sum of the pseudo header for so many bytes of TCP, folded and not inverted, as `CHECKSUM_PARTIAL` has it.
fn pseudo(frame: &Frame, length: u16) -> [u8; 2] {
    let l3 = frame.l3();
    let addresses = if l3[0] >> 4 == 4 { &l3[12..20] } else { &l3[8..40] };
    let words = addresses.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + 6 + u32::from(length);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded").to_be_bytes()
}

#[test]
fn an_honest_answer_is_believed_and_a_forged_one_is_not() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        lab.sends(WEB, &tcp(web, store).syn()).leaves_for(At::B);
        lab.settle();
        // From the peer that has the receiver, as its programs say it: in the receiver's name.
        let [a, b, c] = At::ALL.map(|at| at.station(net.outer));
        let forged = tcp(store.behind(STORE.mac()), web).ports(80, 40000).rst();
        assert_eq!(
            lab.receives(At::A, &Vxlan::new(c, a, STORE.app.0).group(2).wrap(&forged)).dropped(),
            DropReason::PeerNotOwner
        );
        let into = lab.link(At::A, WEB.name);
        lab.receives(At::A, &Vxlan::new(b, a, STORE.app.0).group(2).wrap(&forged)).enters(WEB, into);
        lab.settle();
    }
}
