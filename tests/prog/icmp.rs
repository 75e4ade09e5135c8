//! ICMP: echoes that are flows, and errors that belong to one.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Member, Net, PRESS, STORE, WEB};
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::{Problem, echo_reply, echo_request, error, message};
use weft_tests::frame::{Frame, tcp, udp};
use weft_tests::underlay::Family;

const PING: [&str; 2] = ["allow shop/web -> blog/db icmp/8", "allow shop/web -> blog/db icmpv6/128"];
const PROBLEMS: [Problem; 6] = [
    Problem::NoRoute,
    Problem::PortUnreachable,
    Problem::Prohibited,
    Problem::TooBig(1300),
    Problem::TimeExceeded,
    Problem::Parameter(6),
];

#[track_caller]
fn check(lab: &mut Lab, from: Member, frame: &Frame, reason: DropReason) {
    assert_eq!(lab.sends(from, frame).dropped(), reason);
    lab.settle();
}

#[test]
fn a_ping_does_not_open_the_way_for_a_ping_back() {
    let mut lab = Lab::with_rules(&PING);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        lab.delivers([WEB, STORE], &echo_request(web, store, [7, 1]).frame());
        lab.settle();
        let [store, web] = net.pair([STORE, WEB]);
        // Even with identifiers that are made to meet the other's key.
        for id in [7, 8, 128, 0] {
            check(&mut lab, STORE, &echo_request(store, web, [id, 1]).frame(), DropReason::PolicyDefault);
        }
        lab.delivers([STORE, WEB], &echo_reply(store, web, [7, 1]).frame());
        lab.settle();
        check(&mut lab, STORE, &echo_reply(store, web, [9, 1]).frame(), DropReason::PolicyDefault);
    }
}

#[test]
fn an_answer_to_nothing_opens_nothing() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db icmp", "allow shop/web -> blog/db icmpv6"]);
    for net in Net::ALL {
        for payload in [4, 2000] {
            lab.over(net);
            let [web, store] = net.pair([WEB, STORE]);
            let unasked = echo_reply(web, store, [7, 1]).payload_length(payload).frame();
            let parts = if payload > 1400 { unasked.fragments(1200) } else { vec![unasked] };
            for part in &parts {
                lab.delivers([WEB, STORE], part);
            }
            assert_eq!([At::A, At::B].map(|at| lab.flows(at).len()), [0, 0], "{payload} bytes");
            lab.settle();
            // The one who was answered to may not ask now.
            let [store, web] = net.pair([STORE, WEB]);
            check(&mut lab, STORE, &echo_request(store, web, [7, 1]).frame(), DropReason::PolicyDefault);
        }
    }
}

#[test]
fn an_error_about_a_flow_passes_to_the_side_it_is_about() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db"]);
    for net in Net::ALL {
        for about in 0..3 {
            lab.over(net);
            let [web, store] = net.pair([WEB, STORE]);
            let sent = match about {
                0 => tcp(web, store).dont_fragment().payload_length(1000).ack(),
                1 => udp(web, store).payload(b"query").frame(),
                _ => echo_request(web, store, [7, 1]).payload(b"ping").frame(),
            };
            lab.delivers([WEB, STORE], &sent);
            lab.settle();
            let [store, web] = net.pair([STORE, WEB]);
            for problem in PROBLEMS {
                let error = error(store, web, problem, &sent).frame();
                assert_eq!(lab.delivers([STORE, WEB], &error), error.between(store.mac, WEB.mac()));
            }
            lab.assert_only_changed(&[
                "a.blog>shop.packets +6",
                "b.blog>shop.packets +6",
                "a.rule-1.packets +6",
                "b.rule-1.packets +6",
            ]);
        }
    }
}

#[test]
fn an_error_of_a_router_outside_is_believed_about_a_flow_to_the_outside() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let web = WEB.station(net.inner);
        let sent = tcp(web, net.outsider()).dont_fragment().payload_length(1000).ack();
        lab.sends(WEB, &sent).reaches_host();
        lab.settle();
        let mut router = net.outsider();
        router.ip = match net.inner {
            Family::V4 => [203, 0, 113, 1].into(),
            Family::V6 => [0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 1].into(),
        };
        let (lan, into) = (lab.link(At::A, "lan"), lab.link(At::A, WEB.name));
        let told = error(router, web, Problem::TooBig(1300), &sent).frame();
        lab.host_routes(At::A, lan, &told).enters(WEB, into);
        lab.assert_only_changed(&["a.outside>shop.packets +1"]);
        let unknown = error(router, web, Problem::TooBig(1300), &tcp(web, net.outsider()).ports(1, 2).ack());
        assert_eq!(lab.host_routes(At::A, lan, &unknown.frame()).dropped(), DropReason::IcmpUnrelated);
        lab.settle();
    }
}

#[test]
fn an_error_that_does_not_fit_the_flow_is_unrelated() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let sent = tcp(web, db).payload_length(100).ack();
        lab.delivers([WEB, DB], &sent);
        lab.settle();
        let unrelated = DropReason::IcmpUnrelated;
        let reversed = tcp(db, web).ports(80, 40000).payload_length(100).ack();
        // About what it sent itself, about another port, about another protocol.
        check(&mut lab, DB, &error(db, web, Problem::NoRoute, &reversed).frame(), unrelated);
        let other = tcp(web, db).ports(40001, 80).payload_length(100).ack();
        check(&mut lab, DB, &error(db, web, Problem::NoRoute, &other).frame(), unrelated);
        let other = udp(web, db).payload_length(100).frame();
        check(&mut lab, DB, &error(db, web, Problem::NoRoute, &other).frame(), unrelated);
        // To somebody whose packet it was not.
        let cache = CACHE.station(net.inner);
        check(&mut lab, DB, &error(db, cache, Problem::NoRoute, &sent).frame(), unrelated);
        // A quote too short to say which flow; one with options; a later fragment; an error about an error.
        let headers = if net.inner == Family::V4 { 20 } else { 40 };
        for length in [0, 8, headers - 1, headers, headers + 3] {
            let short = error(db, web, Problem::NoRoute, &sent).payload(&sent.l3()[..length]);
            check(&mut lab, DB, &short.frame(), unrelated);
        }
        let about_error = error(db, web, Problem::NoRoute, &error(web, db, Problem::NoRoute, &reversed).frame());
        check(&mut lab, DB, &about_error.frame(), unrelated);
        if net.inner == Family::V4 {
            let options = error(db, web, Problem::NoRoute, &sent.with_l3_bytes(0, &[0x46]));
            check(&mut lab, DB, &options.frame(), unrelated);
            let later = error(db, web, Problem::NoRoute, &sent.with_l3_bytes(6, &[0, 1]));
            check(&mut lab, DB, &later.frame(), unrelated);
            for kind in [4, 5] {
                let quench = message(db, web, [kind, 1], [0; 4]).payload(&sent.l3()[..28]);
                check(&mut lab, DB, &quench.frame(), unrelated);
            }
        }
        // Eight bytes of the transport are enough.
        let exact = error(db, web, Problem::NoRoute, &sent).payload(&sent.l3()[..headers + 8]).frame();
        lab.delivers([DB, WEB], &exact);
        lab.settle();
    }
}

#[test]
fn a_third_party_does_not_speak_of_a_flow_between_others() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let sent = tcp(web, db).payload_length(100).ack();
        lab.delivers([WEB, DB], &sent);
        lab.settle();
        for liar in [PRESS, CACHE] {
            let [from, web] = net.pair([liar, WEB]);
            for problem in PROBLEMS {
                check(&mut lab, liar, &error(from, web, problem, &sent).frame(), DropReason::IcmpUnrelated);
            }
        }
    }
}

#[test]
fn an_error_about_a_flow_of_another_epoch_waits_for_the_next_packet() {
    let mut lab = Lab::two_hosts();
    let net = Net::ALL[0];
    lab.over(net);
    let [web, db] = net.pair([WEB, DB]);
    let sent = udp(web, db).frame();
    lab.delivers([WEB, DB], &sent);
    lab.bump();
    lab.settle();
    let told = error(db, web, Problem::PortUnreachable, &sent).frame();
    check(&mut lab, DB, &told, DropReason::IcmpUnrelated);
    lab.delivers([WEB, DB], &sent);
    lab.delivers([DB, WEB], &told);
    lab.settle();
}

#[test]
fn icmp_of_the_wrong_family_is_malformed() {
    let mut lab = Lab::two_hosts();
    for (net, number) in [(Net::LOCAL[0], 58), (Net::LOCAL[1], 1)] {
        lab.over(net);
        let [web, cache] = net.pair([WEB, CACHE]);
        let frame = weft_tests::frame::protocol(web, cache, number).payload(&[8, 0, 0, 0, 0, 7, 0, 1]).frame();
        check(&mut lab, WEB, &frame, DropReason::Malformed);
    }
}
