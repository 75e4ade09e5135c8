//! How policy ends a flow: at both its ends, by whoever knows of it, and not where it is not known yet.

use super::flow::{RULE, established};
use super::lab::Lab;
use super::lab::cast::{At, BLOG, DB, Net, PRESS, SHOP, STORE, WEB};
use super::lab::rules::END;
use std::time::Duration;
use weft_common::flow::State;
use weft_common::id::{Identity, RoleId};
use weft_common::policy::{Direction, SetKey};
use weft_common::route::Endpoint;
use weft_common::verdict::DropReason;
use weft_tests::frame::decoded::{Decoded, Transport};
use weft_tests::frame::flags::RST;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{tcp, udp};
use weft_tests::wire::Capture;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_flow_that_is_no_longer_allowed_is_reset_for_whoever_speaks() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        lab.enforce(&[]);
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        let [store_back, web_back] = net.pair([STORE, WEB]);
        let back = tcp(store_back, web_back).ports(5432, 40000).sequence(8).acknowledgment(100).payload(b"row").ack();
        let [near, far] = [WEB, STORE].map(|member| lab.watch(member.at, member.name));
        // The first to speak is told, and so is who only listens: its host, and by that its container.
        let wire = lab.sends(WEB, &there).ends_at(At::B);
        assert_reset(&wire.decode().tunnel().inner, 100);
        assert_only_reset(&near, 8);
        lab.receives(At::B, &wire).dropped();
        assert_only_reset(&far, 100);
        // Who is denied does not speak by resets any more, and is told again.
        for (member, frame, sequence) in [(WEB, there, 8), (STORE, back, 100)] {
            for _ in 0..2 {
                assert_reset(&lab.sends(member, &frame).answered().decode(), sequence);
            }
        }
        assert_eq!([&near, &far].map(|seen| segments(seen).len()), [0, 0]);
        assert_eq!([At::A, At::B].map(|at| lab.flows(at)[0].state), [State::Ended as u8; 2]);
        lab.assert_only_changed(&[
            "a.drops.policy-revoked +3",
            "a.shop>blog.drops +3",
            "b.drops.policy-revoked +3",
            "b.shop>blog.drops +1",
            "b.blog>shop.drops +2",
        ]);
        lab.enforce(&[RULE]);
        lab.settle();
    }
}

/// What a packet's receiver is told beside the answer to its sender: by a copy, where both are on this host, and where
/// the denied packet came in a tunnel.
#[test]
fn whoever_is_on_the_host_that_ends_a_connection_is_told_by_a_copy() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog"]);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        let [web, press] = net.pair([WEB, PRESS]);
        let there = tcp(web, press).ports(40000, 80).sequence(99);
        lab.delivers([WEB, PRESS], &there.clone().syn());
        let [press, web] = net.pair([PRESS, WEB]);
        lab.delivers([PRESS, WEB], &tcp(press, web).ports(80, 40000).sequence(7).acknowledgment(100).syn_ack());
        lab.settle();
        let told = lab.watch(At::A, PRESS.name);
        lab.enforce_on(At::A, &[]);
        let ask = there.sequence(100).acknowledgment(8).payload(b"ask").ack();
        assert_reset(&lab.sends(WEB, &ask).answered().decode(), 8);
        assert_only_reset(&told, 100);
        // Host b has not heard of the change.
        let told = lab.watch(At::A, WEB.name);
        let [store, web] = net.pair([STORE, WEB]);
        let row = tcp(store, web).ports(5432, 40000).sequence(8).acknowledgment(100).payload(b"row").ack();
        let wire = lab.sends(STORE, &row).leaves_for(At::A);
        let answer = lab.receives(At::A, &wire).answered().decode();
        answer.assert_sound();
        assert_reset(&answer.tunnel().inner, 100);
        assert_only_reset(&told, 8);
        lab.assert_only_changed(&[
            "a.drops.policy-revoked +2",
            "a.shop>blog.drops +1",
            "a.blog>shop.drops +1",
            "b.blog>shop.packets +1",
            "b.rule-1.packets +1",
        ]);
        lab.enforce(&["allow shop/web -> blog"]);
        lab.settle();
    }
}

/// What is outside, or the host itself, is told by way of the host's stack; and hears of the ends that it did not cause.
#[test]
fn the_host_is_told_of_the_end_of_a_connection_too() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let gateway = At::A.gateway(SHOP, net.inner);
        let web = WEB.station(net.inner);
        let (there, back) = (tcp(gateway, web).ports(40000, 80), tcp(web, gateway).ports(80, 40000));
        lab.host_sends(At::A, &there.clone().sequence(99).syn());
        lab.sends(WEB, &back.clone().sequence(7).acknowledgment(100).syn_ack()).reaches_host();
        lab.settle();
        let row = back.sequence(8).acknowledgment(100).payload(b"row").ack();
        let ask = there.sequence(100).acknowledgment(8).payload(b"ask").ack();
        let [host, container] = ["gateway", WEB.name].map(|name| lab.watch(At::A, name));
        lab.enforce(&["deny host -> shop"]);
        assert_reset(&lab.sends(WEB, &row).answered().decode(), 100);
        assert_only_reset(&host, 8);
        lab.assert_only_changed(&["a.drops.policy-revoked +1", "a.shop>host.drops +1", "a.rule-1.drops +1"]);
        // Allowed and denied once more: now the host speaks first.
        lab.enforce(&[]);
        lab.host_sends(At::A, &ask).enters(WEB, lab.link(At::A, WEB.name));
        lab.settle();
        lab.enforce(&["deny host -> shop"]);
        host.clear();
        let ask = tcp(gateway, web).ports(40000, 80).sequence(103).acknowledgment(8).payload(b"ask").ack();
        assert_reset(&lab.host_sends(At::A, &ask).answered().decode(), 8);
        assert_only_reset(&container, 103);
        lab.assert_only_changed(&["a.drops.policy-revoked +1", "a.host>shop.drops +1", "a.rule-1.drops +1"]);
        lab.enforce(&[]);
        lab.settle();
    }
}

/// Likewise where the other end is behind a tunnel, whichever of them speaks first.
#[test]
fn the_host_and_who_is_on_a_peer_are_told_of_each_others_end() {
    const CLOSED: &str = "deny host -> shop";

    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let (gateway, db) = (At::A.gateway(SHOP, net.inner), DB.station(net.inner));
        let (there, back) = (tcp(gateway, db).ports(40000, 80), tcp(db, gateway).ports(80, 40000));
        let wire = lab.host_sends(At::A, &there.clone().sequence(99).syn()).leaves_for(At::B);
        lab.receives(At::B, &wire).enters(DB, lab.link(At::B, DB.name));
        let wire = lab.sends(DB, &back.clone().sequence(7).acknowledgment(100).syn_ack()).leaves_for(At::A);
        lab.receives(At::A, &wire).reaches_host();
        lab.settle();
        let host = lab.watch(At::A, "gateway");
        // Only the host has heard of the change, and speaks.
        lab.enforce_on(At::A, &[CLOSED]);
        let ask = there.sequence(100).acknowledgment(8).payload(b"ask").ack();
        assert_reset(&lab.host_sends(At::A, &ask).ends_at(At::B).decode().tunnel().inner, 100);
        assert_only_reset(&host, 8);
        // It is allowed again, and then denied once more: the peer speaks.
        lab.bump();
        let row = back.sequence(8).acknowledgment(100).payload(b"row").ack();
        let wire = lab.sends(DB, &row).leaves_for(At::A);
        lab.receives(At::A, &wire).reaches_host();
        lab.enforce_on(At::A, &[CLOSED]);
        let row = tcp(db, gateway).ports(80, 40000).sequence(11).acknowledgment(100).payload(b"row").ack();
        let wire = lab.sends(DB, &row).leaves_for(At::A);
        host.clear();
        let answer = lab.receives(At::A, &wire).answered().decode();
        assert_reset(&answer.tunnel().inner, 100);
        assert_only_reset(&host, 11);
        lab.assert_only_changed(&[
            "a.drops.policy-revoked +2",
            "a.host>shop.drops +1",
            "a.shop>host.drops +1",
            "a.rule-1.drops +2",
            "a.shop>host.packets +1",
            "b.shop>host.packets +2",
        ]);
        lab.bump();
        lab.settle();
    }
}

/// The other host may not know yet who the sender is now, and takes what it hears for an end of who he was.
#[test]
fn the_end_by_a_new_role_is_told_in_the_name_of_the_old_one() {
    let mut lab = Lab::with_rules(&[RULE]);
    let link = lab.link(At::A, WEB.name);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        let endpoint = lab.tables(At::A).endpoints.get(&link, 0).unwrap();
        let other = Endpoint { identity: Identity::new(SHOP, RoleId(2)), ..endpoint };
        lab.tables(At::A).endpoints.insert(link, other, 0).unwrap();
        lab.bump();
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        let wire = lab.sends(WEB, &there).ends_at(At::B);
        assert_eq!(wire.decode().tunnel().group, WEB.role.0);
        let told = lab.receives(At::B, &wire).enters(STORE, lab.link(At::B, STORE.name)).decode();
        assert_reset(&told, 100);
        lab.assert_only_changed(&[
            "a.drops.policy-revoked +1",
            "a.shop>blog.drops +1",
            "b.shop>blog.packets +1",
            "b.rule-1.packets +1",
        ]);
        lab.tables(At::A).endpoints.insert(link, endpoint, 0).unwrap();
        lab.bump();
        lab.settle();
    }
}

/// A host hears of a new role by the packets of who has it, before it hears of it by the cluster. Until then such packets
/// do not pass, and nobody is told that it is over: it is not.
#[test]
fn a_role_that_is_not_known_here_yet_ends_no_connection() {
    const NEW: RoleId = RoleId(77);

    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.forget_role(At::B, WEB, net.inner);
        lab.over(net);
        established(&mut lab, net);
        let told = lab.watch(At::B, STORE.name);
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, SHOP.0).group(NEW.0).wrap(&there);
        for _ in 0..2 {
            assert_eq!(lab.receives(At::B, &wire).dropped(), DropReason::PolicyAbsent);
            // Nor after a change of something else.
            lab.bump();
        }
        assert!(segments(&told).is_empty());
        lab.assert_only_changed(&["b.drops.policy-absent +2", "b.shop>blog.drops +2"]);
        lab.delivers([WEB, STORE], &there);
        lab.settle();
    }
}

/// Nor by what is said of all others: of the new role policy may say something better.
#[test]
fn a_new_role_is_not_denied_by_what_holds_for_everybody_else() {
    const NEW: RoleId = RoleId(77);
    const RULES: [&str; 2] = ["deny shop -> blog", "allow shop/web -> blog/db tcp/5432 precedence 2000"];

    let mut lab = Lab::with_rules(&RULES);
    for net in Net::ALL {
        lab.forget_role(At::A, STORE, net.inner);
        lab.over(net);
        established(&mut lab, net);
        let told = lab.watch(At::A, WEB.name);
        let [store, web] = net.pair([STORE, WEB]);
        let back = tcp(store, web).ports(5432, 40000).sequence(8).acknowledgment(100).payload(b"row").ack();
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(b, a, BLOG.0).group(NEW.0).wrap(&back);
        assert_eq!(lab.receives(At::A, &wire).dropped(), DropReason::PolicyAbsent);
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        assert_eq!(lab.sends(WEB, &there).dropped(), DropReason::PolicyAbsent);
        assert!(segments(&told).is_empty());
        lab.assert_only_changed(&["a.drops.policy-absent +2", "a.blog>shop.drops +1", "a.shop>blog.drops +1"]);
        lab.delivers([STORE, WEB], &back);
        lab.settle();
    }
}

/// Such a packet is all that a host may ever hear of it: who has got the role need not speak again. Nothing passes either way
/// until policy says something of him, and then it decides, whoever speaks first.
#[test]
fn whom_a_connection_has_come_to_be_with_decides_once_policy_knows_him() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.forget_role(At::B, WEB, net.inner);
        lab.over(net);
        established(&mut lab, net);
        for direction in [Direction::Ingress, Direction::Egress] {
            let key = SetKey::new(DB.identity(), direction, lab.epoch().slot());
            lab.tables(At::B).sets.remove(&key).unwrap();
        }
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        let [store, web] = net.pair([STORE, WEB]);
        let back = tcp(store, web).ports(5432, 40000).sequence(8).acknowledgment(100).payload(b"row").ack();
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, SHOP.0).group(DB.role.0).wrap(&there);
        for _ in 0..2 {
            assert_eq!(lab.receives(At::B, &wire).dropped(), DropReason::PolicyAbsent);
            assert_eq!(lab.sends(STORE, &back).dropped(), DropReason::PolicyAbsent);
        }
        lab.enforce_on(At::B, &["deny shop/db -> blog/db precedence 2000", "allow shop -> blog/db"]);
        assert_reset(&lab.sends(STORE, &back).ends_at(At::A).decode().tunnel().inner, 8);
        lab.assert_only_changed(&[
            "b.drops.policy-absent +4",
            "b.drops.policy-revoked +1",
            "b.shop>blog.drops +2",
            "b.blog>shop.drops +3",
            "b.rule-1.drops +1",
        ]);
        lab.enforce(&[RULE]);
        lab.settle();
    }
}

/// The server's host was never told the client's role but by its packets, and decides by it also when the server speaks.
#[test]
fn what_a_flow_knows_of_a_role_decides_where_nothing_else_knows_it() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.forget_role(At::B, WEB, net.inner);
        lab.over(net);
        established(&mut lab, net);
        let [store, web] = net.pair([STORE, WEB]);
        let back = tcp(store, web).ports(5432, 40000).sequence(8).acknowledgment(100).payload(b"row").ack();
        lab.enforce_on(At::B, &["deny shop/db -> blog/db precedence 2000", "allow shop -> blog/db"]);
        lab.delivers([STORE, WEB], &back);
        let flow = lab.flows(At::B)[0];
        assert_eq!((flow.epoch, flow.side[flow.opener().index()].identity), (lab.epoch().next(), WEB.identity()));
        lab.settle();
        lab.bump();
        lab.enforce_on(At::B, &["deny shop/web -> blog/db precedence 2000", "allow shop -> blog/db"]);
        let next = tcp(store, web).ports(5432, 40000).sequence(11).acknowledgment(100).payload(b"row").ack();
        assert_reset(&lab.sends(STORE, &next).ends_at(At::A).decode().tunnel().inner, 11);
        lab.assert_only_changed(&["b.drops.policy-revoked +1", "b.blog>shop.drops +1", "b.rule-1.drops +1"]);
        lab.enforce(&[RULE]);
        lab.settle();
    }
}

/// Of datagrams whoever got another role may have said nothing since: his own host decides.
#[test]
fn what_a_flow_of_datagrams_knew_of_a_role_does_not_decide() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.forget_role(At::B, WEB, net.inner);
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        lab.delivers([WEB, STORE], &udp(web, store).ports(40000, 53).frame());
        lab.settle();
        lab.enforce_on(At::B, &["deny shop/web -> blog/db precedence 2000", "allow shop -> blog/db"]);
        let [store, web] = net.pair([STORE, WEB]);
        lab.delivers([STORE, WEB], &udp(store, web).ports(53, 40000).frame());
        lab.settle();
        lab.enforce(&[RULE]);
    }
}

#[test]
fn a_flow_that_only_an_ended_rule_allowed_is_reset() {
    let ends = ["allow shop/web -> blog/db tcp/5432 ends", "allow shop -> blog udp"];
    let mut lab = Lab::with_rules(&ends);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432).sequence(100).acknowledgment(8).payload(b"ask").ack();
        lab.delivers([WEB, STORE], &there);
        assert_eq!(lab.flows(At::A)[0].until, END);
        lab.settle();
        lab.end_comes();
        let [store_back, web_back] = net.pair([STORE, WEB]);
        let back = tcp(store_back, web_back).ports(5432, 40000).sequence(8).acknowledgment(103).payload(b"row").ack();
        // No daemon has to live for it that both ends are told.
        assert_reset(&lab.sends(WEB, &there).ends_at(At::B).decode().tunnel().inner, 103);
        assert_reset(&lab.sends(STORE, &back).ends_at(At::A).decode().tunnel().inner, 8);
        lab.assert_only_changed(&[
            "a.drops.policy-revoked +1",
            "a.shop>blog.drops +1",
            "b.drops.policy-revoked +1",
            "b.blog>shop.drops +1",
        ]);
        // What else is allowed goes on, and nothing new is by the rule that is over.
        lab.delivers([WEB, STORE], &udp(web, store).frame());
        lab.settle();
        lab.sends(WEB, &tcp(web, store).ports(40001, 5432).syn()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +1", "a.shop>blog.drops +1"]);
        lab.bump();
        lab.settle();
    }
}

#[test]
fn a_revoked_datagram_flow_is_told_prohibited() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        lab.sends(WEB, &udp(web, store).frame()).leaves_for(At::B);
        lab.enforce(&[]);
        lab.settle();
        let answer = lab.sends(WEB, &udp(web, store).frame()).answered().decode();
        assert!(matches!(answer.icmp(), Some((3, 13) | (1, 1))), "{answer}");
        lab.assert_only_changed(&["a.drops.policy-revoked +1", "a.shop>blog.drops +1"]);
        lab.enforce(&[RULE]);
        lab.settle();
    }
}

#[track_caller]
fn assert_reset(answer: &Decoded, sequence: u32) {
    answer.assert_sound();
    let Transport::Tcp { flags, sequence: found, .. } = answer.transport else { panic!("{answer}") };
    assert_eq!((flags & RST, found), (RST, sequence), "what the receiver expects next: {answer}");
}

/// No other segment was seen since the last time. What is handed to the stack is seen a moment later: a kernel that is busy
/// puts it off.
#[track_caller]
fn assert_only_reset(seen: &Capture, sequence: u32) {
    seen.wait_for(SOON, |seen| is_segment(&seen.frame.decode()));
    let told = segments(seen);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_reset(&told[0], sequence);
    seen.clear();
}

/// What was seen of TCP. A kernel says other things by itself on a device that is up.
fn segments(seen: &Capture) -> Vec<Decoded> {
    let all = seen.frames().into_iter().map(|seen| seen.frame.decode());
    all.filter(is_segment).collect()
}

fn is_segment(read: &Decoded) -> bool {
    matches!(read.transport, Transport::Tcp { .. })
}
