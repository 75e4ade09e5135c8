//! Datagrams that come in pieces: no piece passes that does not belong behind a first one which policy has seen.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Member, Net, PRESS, STORE, WEB};
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::{echo_reply, echo_request};
use weft_tests::frame::ipv6::Extension;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, tcp, udp};
use weft_tests::underlay::Family;

#[track_caller]
fn check(lab: &mut Lab, from: Member, frame: &Frame, reason: DropReason) {
    let ran = lab.sends(from, frame);
    assert_eq!(ran.dropped(), reason, "{ran}");
    lab.settle();
}

#[test]
fn the_pieces_of_a_datagram_follow_its_first_one() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db udp/53"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        let parts = udp(web, store).ports(40000, 53).payload_length(3000).frame().fragments(1200);
        assert_eq!(parts.len(), 3);
        for part in &parts {
            assert_eq!(lab.delivers([WEB, STORE], part), part.between(web.mac, STORE.mac()));
        }
        lab.assert_only_changed(&[
            "a.datagrams +1",
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +3",
            "b.datagrams +1",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +3",
            "a.rule-1.flows +1",
            "a.rule-1.packets +3",
            "b.rule-1.flows +1",
            "b.rule-1.packets +3",
        ]);
        // The answer comes in pieces too, and in any order behind its first.
        let [store, web] = net.pair([STORE, WEB]);
        let parts = udp(store, web).ports(53, 40000).payload_length(3000).frame().fragments(1200);
        for part in [0, 2, 1].map(|part| &parts[part]) {
            lab.delivers([STORE, WEB], part);
        }
        lab.assert_only_changed(&[
            "a.datagrams +1",
            "a.blog>shop.packets +3",
            "b.datagrams +1",
            "b.blog>shop.packets +3",
            "a.rule-1.packets +3",
            "b.rule-1.packets +3",
        ]);
    }
}

#[test]
fn a_large_ping_is_answered_and_survives_an_epoch_between_its_pieces() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db icmp/8", "allow shop/web -> blog/db icmpv6/128"]);
    for net in Net::ALL {
        lab.over(net);
        let rule = if net.inner == Family::V4 { 1 } else { 2 };
        let [web, store] = net.pair([WEB, STORE]);
        for part in echo_request(web, store, [7, 1]).payload_length(3000).frame().fragments(1200) {
            lab.delivers([WEB, STORE], &part);
            lab.bump();
        }
        let [store, web] = net.pair([STORE, WEB]);
        for part in echo_reply(store, web, [7, 1]).payload_length(3000).frame().fragments(1200) {
            lab.delivers([STORE, WEB], &part);
            lab.bump();
        }
        lab.assert_only_changed(&[
            "a.datagrams +2",
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +3",
            "a.blog>shop.packets +3",
            "b.datagrams +2",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +3",
            "b.blog>shop.packets +3",
            &format!("a.rule-{rule}.flows +1"),
            &format!("a.rule-{rule}.packets +6"),
            &format!("b.rule-{rule}.flows +1"),
            &format!("b.rule-{rule}.packets +6"),
        ]);
    }
}

#[test]
fn a_piece_without_a_first_one_is_untracked() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let parts = udp(web, db).payload_length(3000).frame().fragments(1200);
        for part in parts[1..].iter().rev() {
            check(&mut lab, WEB, part, DropReason::FragmentUntracked);
        }
        // Also at the other end of the tunnel.
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, WEB.app.0).group(WEB.role.0).wrap(&parts[1]);
        lab.receives(At::B, &wire).dropped();
        lab.assert_only_changed(&["b.drops.fragment-untracked +1"]);
        // It was too early, and it is not kept; in order they pass.
        parts.iter().for_each(|part| drop(lab.delivers([WEB, DB], part)));
        lab.settle();
        // Of another datagram, another protocol, another pair.
        let other = udp(web, db).identification(2).payload_length(3000).frame();
        let later = match net.inner {
            Family::V4 => other.fragment(1200..2400),
            Family::V6 => parts[1].with_l3_bytes(44, &[1, 2, 3, 4]),
        };
        check(&mut lab, WEB, &later, DropReason::FragmentUntracked);
        let other = tcp(web, db).payload_length(3000).ack().fragment(1200..2400);
        check(&mut lab, WEB, &other, DropReason::FragmentUntracked);
        let [web, cache] = net.pair([WEB, CACHE]);
        check(
            &mut lab,
            WEB,
            &udp(web, cache).payload_length(3000).frame().fragment(1200..2400),
            DropReason::FragmentUntracked,
        );
    }
}

#[test]
fn a_first_piece_holds_the_whole_transport_header() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let [web, cache] = net.pair([WEB, CACHE]);
        let whole = tcp(web, cache).tcp_options(&[1; 12]).payload_length(100).ack();
        for length in [8, 16, 24] {
            check(&mut lab, WEB, &whole.fragment(0..length), DropReason::FragmentShort);
        }
        lab.delivers([WEB, CACHE], &whole.fragment(0..32));
        lab.settle();
        // Nothing is remembered of a short one.
        lab.over(net);
        check(&mut lab, WEB, &whole.fragment(0..16), DropReason::FragmentShort);
        check(&mut lab, WEB, &whole.fragment(16..64), DropReason::FragmentUntracked);
        let error = weft_tests::frame::icmp::error(web, cache, weft_tests::frame::icmp::Problem::NoRoute, &whole);
        check(&mut lab, WEB, &error.frame().fragment(0..32), DropReason::IcmpUnrelated);
    }
}

#[test]
fn an_overlap_poisons_the_datagram() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        let whole = udp(web, cache).payload_length(2000).frame();
        let (first, second, third) = (whole.fragment(0..800), whole.fragment(800..1600), whole.fragment(1600..2008));
        for overlap in
            [whole.fragment(792..1600), whole.fragment(8..16), whole.fragment(0..16), whole.fragment(0..1600)]
        {
            lab.over(net);
            lab.delivers([WEB, CACHE], &first);
            lab.delivers([WEB, CACHE], &second);
            lab.settle();
            check(&mut lab, WEB, &overlap, DropReason::FragmentOverlap);
            check(&mut lab, WEB, &third, DropReason::FragmentOverlap);
            check(&mut lab, WEB, &first, DropReason::FragmentOverlap);
        }
    }
}

#[test]
fn a_second_first_piece_does_not_change_the_ports() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db udp/53"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        let allowed = udp(web, store).ports(40000, 53).payload_length(2000).frame();
        let denied = udp(web, store).ports(40000, 54).payload_length(2000).frame();
        lab.delivers([WEB, STORE], &allowed.fragment(0..800));
        lab.settle();
        check(&mut lab, WEB, &denied.fragment(0..800), DropReason::FragmentOverlap);
        check(&mut lab, WEB, &allowed.fragment(800..1600), DropReason::FragmentOverlap);
    }
}

#[test]
fn what_follows_a_first_piece_that_is_denied_is_denied_too() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [press, db] = net.pair([PRESS, DB]);
        for part in udp(press, db).payload_length(2000).frame().fragments(1200) {
            check(&mut lab, PRESS, &part, DropReason::PolicyDefault);
        }
    }
}

/// What a liar's pieces say is not remembered: else they would poison what an honest neighbour sends.
#[test]
fn nobody_writes_into_the_memory_of_anothers_datagrams() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let parts = udp(web, db).payload_length(2000).frame().fragments(1200);
        for liar in [CACHE, PRESS] {
            lab.sends(liar, &parts[0].between(liar.mac(), db.mac)).dropped();
            lab.sends(liar, &parts[1].between(liar.mac(), db.mac)).dropped();
        }
        lab.assert_only_changed(&["a.drops.spoofed-address +4"]);
        // Nor does a peer of what another peer owns.
        let [c, b] = [At::C, At::B].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(c, b, WEB.app.0).group(WEB.role.0);
        for part in &parts {
            lab.receives(At::B, &tunnel.wrap(part)).dropped();
        }
        lab.assert_only_changed(&["b.drops.peer-not-owner +2"]);
        // Nor what is routed in from outside with a container's address.
        let lan = lab.link(At::B, "lan");
        for part in &parts {
            lab.host_routes(At::B, lan, part).dropped();
        }
        lab.assert_only_changed(&["b.drops.spoofed-address +2"]);
        parts.iter().for_each(|part| drop(lab.delivers([WEB, DB], part)));
        lab.settle();
    }
}

#[test]
fn a_datagram_may_begin_again_when_the_receiver_has_given_up_on_it() {
    let mut lab = Lab::two_hosts();
    let net = Net::LOCAL[0];
    lab.over(net);
    let [web, cache] = net.pair([WEB, CACHE]);
    let parts = udp(web, cache).payload_length(2000).frame().fragments(1200);
    lab.delivers([WEB, CACHE], &parts[0]);
    lab.settle();
    lab.age_datagrams(At::A, 31_000_000_000);
    check(&mut lab, WEB, &parts[1], DropReason::FragmentUntracked);
    parts.iter().for_each(|part| drop(lab.delivers([WEB, CACHE], part)));
    lab.settle();
}

#[test]
fn a_piece_that_is_all_there_is_counts_as_whole() {
    let mut lab = Lab::two_hosts();
    let net = Net::LOCAL[1];
    lab.over(net);
    let [web, cache] = net.pair([WEB, CACHE]);
    let atomic = udp(web, cache).extension(Extension::ATOMIC_FRAGMENT).payload(b"abc").frame();
    for _ in 0..2 {
        assert_eq!(lab.delivers([WEB, CACHE], &atomic), atomic);
    }
    lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +2"]);
}
