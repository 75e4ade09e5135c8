//! Rules that are only tried: what they would change is counted exactly, for each rule, by packet and by flow, and
//! nothing else is other than without them.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Member, Net, PRESS, SHOP, STORE, WEB};
use super::lab::event::Event;
use super::lab::ran::{Action, Ran};
use super::lab::rules::END;
use std::net::Ipv4Addr;
use weft_common::event::sample::SHADOW;
use weft_common::event::{Drop, Hook, Kind};
use weft_common::policy::Direction;
use weft_common::tunnel::inner_mtu;
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::{Problem, echo_reply, echo_request, error};
use weft_tests::frame::packet::Packet;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{BROADCAST, Frame, Station, tcp, udp};
use weft_tests::underlay::Family;

/// What is in force, and what is only tried.
const WOULD_DROP: [&str; 2] = ["allow shop -> blog tcp", "shadow deny shop/web -> blog/db tcp/5432"];
const WOULD_PASS: [&str; 1] = ["shadow allow shop/web -> blog/db tcp/5432"];

/// The only event of a run, if there is one.
#[track_caller]
fn told(ran: &Ran) -> Option<Drop> {
    match &ran.events[..] {
        [] => None,
        [Event::Drop(drop)] => Some(*drop),
        several => panic!("not one event: {several:?}"),
    }
}

/// A packet from one endpoint to another on another host, and what was told of it on both.
#[track_caller]
fn crosses(lab: &mut Lab, [from, to]: [Member; 2], frame: &Frame) -> [Option<Drop>; 2] {
    let link = lab.link(to.at, to.name);
    let sent = lab.sends(from, frame);
    let received = lab.receives(to.at, &sent.leaves_for(to.at));
    received.enters(to, link);
    [told(&sent), told(&received)]
}

/// A connection of web's to store: what web sends, and what store does.
fn connection(net: Net) -> [Packet; 2] {
    let [web, store] = net.pair([WEB, STORE]);
    let there = tcp(web, store).ports(40000, 5432);
    let [store, web] = net.pair([STORE, WEB]);
    [there, tcp(store, web).ports(5432, 40000)]
}

#[test]
fn what_would_be_dropped_passes_and_is_counted_by_packet_and_by_flow() {
    let mut lab = Lab::with_rules(&WOULD_DROP);
    for net in Net::ALL {
        lab.over(net);
        let [there, back] = connection(net);
        // Of a flow the first packet is told, and all are counted.
        let first = crosses(&mut lab, [WEB, STORE], &there.clone().syn());
        assert_eq!(first.map(|told| told.map(|told| (told.kind, told.shadow))), [Some((Kind::Shadow as u32, 2)); 2]);
        for (pair, frame) in [
            ([STORE, WEB], back.clone().syn_ack()),
            ([WEB, STORE], there.clone().ack()),
            ([WEB, STORE], there.clone().payload(b"select").ack()),
            ([STORE, WEB], back.payload(&[7; 900]).ack()),
        ] {
            assert_eq!(crosses(&mut lab, pair, &frame), [None; 2]);
        }
        crosses(&mut lab, [WEB, STORE], &there.clone().ports(40001, 5432).syn());
        for at in [At::A, At::B] {
            assert!(lab.flows(at).iter().all(|flow| (flow.rule, flow.shadow) == (1, 2)));
        }
        lab.assert_only_changed(&[
            "a.flows +2",
            "a.shop>blog.flows +2",
            "a.shop>blog.packets +4",
            "a.blog>shop.packets +2",
            "a.rule-1.flows +2",
            "a.rule-1.packets +6",
            "a.tried-2.would-drop +6",
            "a.tried-2.would-drop-flows +2",
            "b.flows +2",
            "b.shop>blog.flows +2",
            "b.shop>blog.packets +4",
            "b.blog>shop.packets +2",
            "b.rule-1.flows +2",
            "b.rule-1.packets +6",
            "b.tried-2.would-drop +6",
            "b.tried-2.would-drop-flows +2",
        ]);
        // Another port is none of the rule's business.
        assert_eq!(crosses(&mut lab, [WEB, STORE], &there.ports(40000, 5433).syn()), [None; 2]);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +1",
            "a.rule-1.flows +1",
            "a.rule-1.packets +1",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +1",
            "b.rule-1.flows +1",
            "b.rule-1.packets +1",
        ]);
    }
}

#[test]
fn what_has_no_flow_of_its_own_is_counted_by_packet() {
    let mut lab = Lab::with_rules(&["allow shop -> blog", "shadow deny shop/web -> blog/db"]);
    for net in Net::ALL {
        lab.over(net);
        let [there, _] = connection(net);
        crosses(&mut lab, [WEB, STORE], &there.clone().syn());
        lab.settle();
        // An error is one of its flow's packets.
        let [store, web] = net.pair([STORE, WEB]);
        let problem = error(store, web, Problem::PortUnreachable, &there.syn()).frame();
        assert_eq!(crosses(&mut lab, [STORE, WEB], &problem), [None; 2]);
        // What opens no flow is decided on each time.
        let [web, store] = net.pair([WEB, STORE]);
        let unasked = echo_reply(web, store, [7, 1]).frame();
        for _ in 0..2 {
            assert!(crosses(&mut lab, [WEB, STORE], &unasked).iter().all(Option::is_some));
        }
        lab.assert_only_changed(&[
            "a.shop>blog.packets +2",
            "a.blog>shop.packets +1",
            "a.rule-1.packets +3",
            "a.tried-2.would-drop +3",
            "b.shop>blog.packets +2",
            "b.blog>shop.packets +1",
            "b.rule-1.packets +3",
            "b.tried-2.would-drop +3",
        ]);
    }
}

#[test]
fn what_would_pass_is_dropped_and_counted_where_it_is_dropped() {
    let mut lab = Lab::with_rules(&WOULD_PASS);
    for net in Net::ALL {
        lab.over(net);
        let [there, _] = connection(net);
        for _ in 0..3 {
            assert_eq!(lab.sends(WEB, &there.clone().syn()).dropped(), DropReason::PolicyDefault);
        }
        lab.assert_only_changed(&["a.drops.policy-default +3", "a.shop>blog.drops +3", "a.tried-1.would-pass +3"]);
        // As a host would have sent it that has not heard of the policy in force.
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, WEB.app.0).group(WEB.role.0).wrap(&there.clone().syn());
        lab.receives(At::B, &wire).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +1", "b.shop>blog.drops +1", "b.tried-1.would-pass +1"]);
        // Other ports and other roles stay closed.
        lab.sends(WEB, &there.ports(40000, 5433).syn()).dropped();
        let [cache, store] = net.pair([CACHE, STORE]);
        lab.sends(CACHE, &tcp(cache, store).ports(40000, 5432).syn()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +2", "a.shop>blog.drops +2"]);
    }
}

/// As it is between real hosts: of an endpoint elsewhere its host alone knows the role, and others by its packets.
#[test]
fn a_host_counts_from_where_it_knows_both_roles() {
    let mut lab = Lab::with_rules(&WOULD_DROP);
    for net in Net::ALL {
        lab.forget_role(At::A, STORE, net.inner);
        lab.forget_role(At::B, WEB, net.inner);
        lab.over(net);
        let [there, back] = connection(net);
        let is_told = |told: [Option<Drop>; 2]| told.map(|told| told.is_some());
        assert_eq!(is_told(crosses(&mut lab, [WEB, STORE], &there.clone().syn())), [false, true]);
        // In the order of its way: from b, which knows the flow, to a, which hears who the receiver is.
        assert_eq!(is_told(crosses(&mut lab, [STORE, WEB], &back.syn_ack())), [false, true]);
        assert_eq!(is_told(crosses(&mut lab, [WEB, STORE], &there.ack())), [false, false]);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +2",
            "a.blog>shop.packets +1",
            "a.rule-1.flows +1",
            "a.rule-1.packets +3",
            "a.tried-2.would-drop +2",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +2",
            "b.blog>shop.packets +1",
            "b.rule-1.flows +1",
            "b.rule-1.packets +3",
            "b.tried-2.would-drop +3",
            "b.tried-2.would-drop-flows +1",
        ]);
    }
}

#[test]
fn of_several_the_one_that_would_decide_is_counted_and_where_they_agree_with_what_is_in_force_none_is() {
    let allowed = "allow shop -> blog tcp";
    for (rules, expect) in [
        (&[allowed, "shadow allow shop/web -> blog/db tcp/5432"][..], None),
        (&[allowed, "shadow allow shop/web -> blog/db tcp/5432 precedence 20"], None),
        (&["shadow deny shop/web -> blog/db tcp/5432"], None),
        (&["deny shop -> blog", "shadow reject shop/web -> blog/db tcp precedence 20"], None),
        (&["allow shop -> blog precedence 20", "shadow deny shop -> blog"], None),
        (&["deny shop -> blog precedence 20", "shadow allow shop -> blog"], None),
        (&[allowed, "shadow deny shop -> blog udp"], None),
        (&[allowed, "shadow deny shop/db -> blog"], None),
        // Tried together they would let it pass.
        (&[allowed, "shadow deny shop -> blog", "shadow allow shop -> blog precedence 20"], None),
        (&[allowed, "shadow deny shop -> blog", "shadow deny shop -> blog precedence 20"], Some(3)),
        (&[allowed, "shadow deny shop -> blog", "shadow reject shop -> blog"], Some(3)),
        (&["shadow allow shop -> blog", "shadow allow shop/web -> blog/db tcp/5432 precedence 20"], Some(2)),
        (&["deny shop -> blog", "shadow allow shop -> blog precedence 20"], Some(2)),
        // A rule in force that would decide where another is tried: a tier is passed over.
        (&[allowed, "deny shop -> blog precedence 5", "shadow allow shop -> blog"], None),
    ] {
        let mut lab = Lab::with_rules(rules);
        for net in Net::ALL {
            lab.over(net);
            let [there, _] = connection(net);
            let ran = lab.sends(WEB, &there.syn());
            assert_eq!(told(&ran).map(|told| told.shadow).filter(|shadow| *shadow != 0), expect, "{rules:?}");
            lab.settle();
        }
        let counted: Vec<_> = lab.tried(At::A).into_keys().collect();
        assert_eq!(counted, Vec::from_iter(expect), "{rules:?}");
    }
}

/// What becomes of a packet, and the rule that decided.
fn outcome(lab: &mut Lab, from: Member, frame: &Frame) -> (Action, Option<DropReason>, Frame, Vec<u32>) {
    lab.forget();
    let ran = lab.sends(from, frame);
    let rules = lab.flows(At::A).iter().map(|flow| flow.rule).collect();
    lab.settle();
    (ran.action, ran.reason(), ran.output, rules)
}

#[test]
fn nothing_becomes_of_a_packet_but_what_would_without_rules_that_are_tried() {
    let mut lab = Lab::two_hosts();
    let in_force: [&[&str]; 4] = [&[], &["allow shop -> blog"], &["deny shop -> shop"], &["reject shop/web -> blog"]];
    let tried = ["allow", "deny", "reject", "pass"].map(|action| format!("shadow {action} any -> any precedence"));
    let precedences = ["9", "20", "16777216"];
    for net in Net::LOCAL {
        lab.over(net);
        for rules in in_force {
            for to in [PRESS, STORE, CACHE, DB] {
                let [web, other] = net.pair([WEB, to]);
                for frame in [tcp(web, other).syn(), udp(web, other).frame(), echo_request(web, other, [1, 1]).frame()]
                {
                    lab.enforce(rules);
                    let without = outcome(&mut lab, WEB, &frame);
                    for (tried, precedence) in tried.iter().flat_map(|tried| precedences.map(|one| (tried, one))) {
                        let tried = format!("{tried} {precedence}");
                        lab.enforce(&[rules, &[&*tried]].concat());
                        let with = outcome(&mut lab, WEB, &frame);
                        assert_eq!(with, without, "{rules:?}, {tried}: {frame:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sample_tells_who_whom_and_what_is_tried() {
    for net in Net::ALL {
        let mut lab = Lab::with_rules(&WOULD_DROP);
        lab.over(net);
        let [there, _] = connection(net);
        let sent = crosses(&mut lab, [WEB, STORE], &there.clone().syn());
        let [web, store] = net.pair([WEB, STORE]);
        let expect = |at: At, link: &str, hook: Hook| Drop {
            kind: Kind::Shadow as u32,
            reason: SHADOW,
            src: web.ip.into(),
            dst: store.ip.into(),
            src_identity: WEB.identity(),
            dst_identity: STORE.identity(),
            src_port: 40000,
            dst_port: 5432,
            protocol: 6,
            tcp_flags: 2,
            hook: hook as u8,
            direction: Direction::Ingress as u8,
            rule: 1,
            link: lab.link(at, link),
            shadow: 2,
            ..Drop::default()
        };
        let expect = [expect(At::A, WEB.name, Hook::FromWorkload), expect(At::B, "uplink", Hook::FromUnderlay)];
        let timeless = |told: Option<Drop>| told.map(|told| Drop { time: 0, ..told });
        assert_eq!(sent.map(timeless), expect.map(Some));

        lab.enforce(&WOULD_PASS);
        lab.forget();
        let ran = lab.sends(WEB, &there.syn());
        let [on_a, _] = expect;
        let would_pass =
            Drop { kind: Kind::Drop as u32, reason: DropReason::PolicyDefault as u32, rule: 0, shadow: 1, ..on_a };
        assert_eq!(timeless(told(&ran)), Some(would_pass));
        lab.settle();
    }
}

#[test]
fn a_flow_is_counted_while_its_rule_is_tried_and_ends_when_it_is_promoted() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        let [allowed, tried] = WOULD_DROP;
        lab.enforce(&[allowed]);
        lab.over(net);
        let [there, back] = connection(net);
        crosses(&mut lab, [WEB, STORE], &there.clone().syn());
        crosses(&mut lab, [STORE, WEB], &back.clone().syn_ack());
        lab.settle();
        let [ask, answer] = [there.payload(b"ask").ack(), back.payload(b"row").ack()];
        lab.enforce(&[allowed, tried]);
        for told in [true, false] {
            assert_eq!(crosses(&mut lab, [WEB, STORE], &ask).map(|event| event.is_some()), [told; 2]);
            assert_eq!(crosses(&mut lab, [STORE, WEB], &answer), [None; 2]);
        }
        // It was there before: no flow is opened that would not be.
        lab.assert_only_changed(&[
            "a.shop>blog.packets +2",
            "a.blog>shop.packets +2",
            "a.rule-1.packets +4",
            "a.tried-2.would-drop +4",
            "b.shop>blog.packets +2",
            "b.blog>shop.packets +2",
            "b.rule-1.packets +4",
            "b.tried-2.would-drop +4",
        ]);
        lab.enforce(&[allowed]);
        assert_eq!(crosses(&mut lab, [WEB, STORE], &ask), [None; 2]);
        lab.assert_only_changed(&[
            "a.shop>blog.packets +1",
            "a.rule-1.packets +1",
            "b.shop>blog.packets +1",
            "b.rule-1.packets +1",
        ]);
        lab.enforce(&[allowed, tried.strip_prefix("shadow ").expect("it is tried")]);
        lab.sends(WEB, &ask).ends_at(At::B);
        lab.assert_only_changed(&["a.drops.policy-revoked +1", "a.shop>blog.drops +1", "a.rule-2.drops +1"]);
    }
}

#[test]
fn a_flow_is_asked_about_again_when_a_rule_ends_that_is_tried() {
    let mut lab = Lab::two_hosts();
    let rules = ["allow shop -> blog", "shadow deny shop -> blog", "shadow allow shop -> blog precedence 20 ends"];
    for net in Net::LOCAL {
        lab.enforce(&rules);
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let frame = udp(web, press).frame();
        lab.delivers([WEB, PRESS], &frame);
        assert_eq!(lab.flows(At::A)[0].until, END);
        lab.delivers([WEB, PRESS], &frame);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +2",
            "a.rule-1.flows +1",
            "a.rule-1.packets +2",
        ]);
        lab.end_comes();
        lab.delivers([WEB, PRESS], &frame);
        lab.delivers([WEB, PRESS], &frame);
        lab.assert_only_changed(&["a.shop>blog.packets +2", "a.rule-1.packets +2", "a.tried-2.would-drop +2"]);
    }
}

#[test]
fn what_the_policy_of_an_app_would_drop_passes_while_all_of_it_is_tried() {
    let mut lab = Lab::with_rules(&[
        "allow shop/web -> blog/db tcp/5432",
        "deny shop -> shop udp",
        "shop: shadow on",
        "blog: shadow on",
    ]);
    for net in Net::ALL {
        lab.over(net);
        let [there, _] = connection(net);
        // By what is allowed, by a default, and by a rule that would drop it.
        crosses(&mut lab, [WEB, STORE], &there.clone().syn());
        crosses(&mut lab, [WEB, STORE], &there.ports(40000, 5433).syn());
        let [web, db] = net.pair([WEB, DB]);
        crosses(&mut lab, [WEB, DB], &udp(web, db).frame());
        lab.assert_only_changed(&[
            "a.flows +3",
            "a.shop>blog.flows +2",
            "a.shop>blog.packets +2",
            "a.shop>shop.flows +1",
            "a.shop>shop.packets +1",
            "a.tried-default.would-drop +1",
            "a.tried-default.would-drop-flows +1",
            "a.tried-2.would-drop +1",
            "a.tried-2.would-drop-flows +1",
            "b.flows +3",
            "b.shop>blog.flows +2",
            "b.shop>blog.packets +2",
            "b.shop>shop.flows +1",
            "b.shop>shop.packets +1",
            "b.tried-default.would-drop +1",
            "b.tried-default.would-drop-flows +1",
            "b.tried-2.would-drop +1",
            "b.tried-2.would-drop-flows +1",
        ]);
    }
}

#[test]
fn rules_about_the_host_and_the_outside_are_tried_like_any_other() {
    let mut lab = Lab::with_rules(&[
        "shadow deny shop -> outside udp",
        "shadow reject host -> shop tcp",
        "shadow allow outside -> shop/web tcp/80",
    ]);
    let (lan, into) = (lab.link(At::A, "lan"), lab.link(At::A, WEB.name));
    for net in Net::LOCAL {
        lab.over(net);
        let (web, gateway, outsider) = (WEB.station(net.inner), At::A.gateway(SHOP, net.inner), net.outsider());
        lab.sends(WEB, &udp(web, outsider).ports(1, 53).frame()).reaches_host();
        lab.host_routes(At::A, lan, &udp(outsider, web).ports(53, 1).frame()).enters(WEB, into);
        lab.host_sends(At::A, &tcp(gateway, web).syn()).enters(WEB, into);
        lab.host_routes(At::A, lan, &tcp(outsider, web).ports(1, 80).syn()).dropped();
        lab.assert_only_changed(&[
            "a.flows +2",
            "a.shop>outside.flows +1",
            "a.shop>outside.packets +1",
            "a.outside>shop.packets +1",
            "a.tried-1.would-drop +2",
            "a.tried-1.would-drop-flows +1",
            "a.host>shop.flows +1",
            "a.host>shop.packets +1",
            "a.tried-2.would-drop +1",
            "a.tried-2.would-drop-flows +1",
            "a.drops.policy-default +1",
            "a.outside>shop.drops +1",
            "a.tried-3.would-pass +1",
        ]);
    }
}

#[test]
fn copies_are_not_tried() {
    let mut lab = Lab::with_rules(&["shadow deny shop -> shop udp/67"]);
    let net = Net::ALL[0];
    lab.over(net);
    let everybody = Station::new(BROADCAST, Ipv4Addr::BROADCAST.into());
    let frame = udp(WEB.station(net.inner), everybody).ports(68, 67).frame();
    let ran = lab.sends(WEB, &frame);
    ran.absorbed();
    assert_eq!(told(&ran), None);
    lab.assert_only_changed(&["a.shop>shop.packets +3"]);
}

/// It is not for want of a rule that it does not arrive.
#[test]
fn what_policy_lets_pass_and_is_dropped_all_the_same_is_not_what_would_pass() {
    let mut lab = Lab::with_rules(&["shadow deny shop/web -> shop/db udp"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let mtu = inner_mtu(1500, net.outer == Family::V4);
        let length = usize::try_from(mtu).expect("short");
        let frame = udp(web, db).dont_fragment().payload_length(length).frame();
        for _ in 0..2 {
            let ran = lab.sends(WEB, &frame);
            ran.answered();
            let told = told(&ran).expect("it is told");
            assert_eq!((told.kind, told.reason, told.shadow), (1, DropReason::TooBig as u32, 0));
        }
        lab.assert_only_changed(&[
            "a.drops.too-big +2",
            "a.flows +1",
            "a.shop>shop.flows +1",
            "a.shop>shop.packets +2",
            "a.shop>shop.drops +2",
            "a.tried-1.would-drop +2",
            "a.tried-1.would-drop-flows +1",
        ]);
    }
}
