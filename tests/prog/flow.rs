//! Flows: who opened one, what an epoch does to it, and when it ends.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, DB, Net, STORE, WEB};
use weft_common::flow::{Leg, State};
use weft_common::id::PeerId;
use weft_common::route::{Hop, Route};
use weft_tests::frame::flags::{ACK, RST};
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{tcp, udp};

const SECOND: u64 = 1_000_000_000;
pub(super) const RULE: &str = "allow shop/web -> blog/db";

/// Opens a connection from shop's web to blog's database and answers it.
pub(super) fn established(lab: &mut Lab, net: Net) {
    let [web, store] = net.pair([WEB, STORE]);
    lab.delivers([WEB, STORE], &tcp(web, store).ports(40000, 5432).sequence(99).syn());
    let [store, web] = net.pair([STORE, WEB]);
    lab.delivers([STORE, WEB], &tcp(store, web).ports(5432, 40000).sequence(7).acknowledgment(100).syn_ack());
    lab.settle();
}

#[test]
fn an_epoch_that_changes_nothing_is_not_noticed() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        lab.bump();
        // The server speaks first: it is asked as for the client, who may.
        let [store, web] = net.pair([STORE, WEB]);
        lab.delivers([STORE, WEB], &tcp(store, web).ports(5432, 40000).payload(b"row").ack());
        for at in [At::A, At::B] {
            let flow = lab.flows(at)[0];
            assert_eq!((flow.epoch, flow.state), (lab.epoch(), State::Open as u8));
            assert_eq!(flow.side[flow.opener().index()].identity, WEB.identity());
        }
        lab.bump();
        let [web, store] = net.pair([WEB, STORE]);
        lab.delivers([WEB, STORE], &tcp(web, store).ports(40000, 5432).payload(b"ask").ack());
        lab.assert_only_changed(&[
            "a.blog>shop.packets +1",
            "a.shop>blog.packets +1",
            "b.blog>shop.packets +1",
            "b.shop>blog.packets +1",
            "a.rule-1.packets +2",
            "b.rule-1.packets +2",
        ]);
    }
}

#[test]
fn a_flow_that_another_rule_allows_too_goes_on_after_the_end() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db tcp/5432 precedence 20 ends", RULE]);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        lab.end_comes();
        // Both sides speak, the server first.
        let [store, web] = net.pair([STORE, WEB]);
        lab.delivers([STORE, WEB], &tcp(store, web).ports(5432, 40000).payload(b"row").ack());
        let [web, store] = net.pair([WEB, STORE]);
        lab.delivers([WEB, STORE], &tcp(web, store).ports(40000, 5432).payload(b"ask").ack());
        for at in [At::A, At::B] {
            let flow = lab.flows(at)[0];
            assert_eq!((flow.until, flow.rule, flow.epoch), (0, 2, lab.epoch()), "it does not end any more");
        }
        lab.assert_only_changed(&[
            "a.blog>shop.packets +1",
            "a.shop>blog.packets +1",
            "b.blog>shop.packets +1",
            "b.shop>blog.packets +1",
            "a.rule-2.packets +2",
            "b.rule-2.packets +2",
        ]);
        lab.bump();
    }
}

#[test]
fn what_is_allowed_again_goes_on_where_it_was() {
    let mut lab = Lab::with_rules(&[RULE]);
    let net = Net::ALL[0];
    lab.over(net);
    established(&mut lab, net);
    lab.enforce(&[]);
    lab.enforce(&[RULE]);
    let [store, web] = net.pair([STORE, WEB]);
    lab.delivers([STORE, WEB], &tcp(store, web).ports(5432, 40000).ack());
    lab.assert_only_changed(&[
        "a.blog>shop.packets +1",
        "b.blog>shop.packets +1",
        "a.rule-1.packets +1",
        "b.rule-1.packets +1",
    ]);
}

#[test]
fn a_syn_against_the_flow_opens_another_and_is_asked_for_itself() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &tcp(web, db).ports(40000, 5432).syn());
        let opener = |lab: &Lab| {
            let flow = lab.flows(At::B)[0];
            flow.side[flow.opener().index()].identity
        };
        assert_eq!(opener(&lab), WEB.identity());
        lab.settle();
        // Inside an app it may.
        let [db, web] = net.pair([DB, WEB]);
        lab.delivers([DB, WEB], &tcp(db, web).ports(5432, 40000).syn());
        assert_eq!(opener(&lab), DB.identity());
        lab.assert_only_changed(&[
            "a.shop>shop.flows +1",
            "a.shop>shop.packets +1",
            "b.shop>shop.flows +1",
            "b.shop>shop.packets +1",
        ]);
        // Where only the client may, it may not, and the flow stays.
        lab.enforce(&["allow shop/web -> blog/db"]);
        lab.over(net);
        established(&mut lab, net);
        let [store, web] = net.pair([STORE, WEB]);
        lab.sends(STORE, &tcp(store, web).ports(5432, 40000).syn()).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +1", "b.blog>shop.drops +1"]);
        lab.delivers([STORE, WEB], &tcp(store, web).ports(5432, 40000).ack());
        lab.settle();
    }
}

#[test]
fn an_endpoint_that_moves_to_another_host_keeps_its_flows() {
    let mut lab = Lab::with_rules(&[RULE]);
    let into = lab.link(At::A, WEB.name);
    for net in Net::ALL {
        lab.over(net);
        established(&mut lab, net);
        // Host a hears that it is on host c now. Until then it is not believed there.
        let [c, a] = [At::C, At::A].map(|at| at.station(net.outer));
        let [store, web] = net.pair([STORE, WEB]);
        let data = tcp(store, web).ports(5432, 40000).payload(b"row").ack();
        let wire = Vxlan::new(c, a, STORE.app.0).group(STORE.role.0).wrap(&data);
        lab.receives(At::A, &wire).dropped();
        lab.assert_only_changed(&["a.drops.peer-not-owner +1"]);
        let moved = Route { hop: Hop::peer(PeerId(3)), identity: STORE.identity(), ..Route::default() };
        lab.tables(At::A).route((128, store.ip.into()), moved);
        lab.bump();
        lab.receives(At::A, &wire).enters(WEB, into);
        let [web, store] = net.pair([WEB, STORE]);
        lab.sends(WEB, &tcp(web, store).ports(40000, 5432).ack()).leaves_for(At::C);
        lab.assert_only_changed(&["a.blog>shop.packets +1", "a.shop>blog.packets +1", "a.rule-1.packets +2"]);
        let home = Route { hop: Hop::peer(PeerId(2)), ..moved };
        lab.tables(At::A).route((128, store.ip.into()), home);
    }
}

#[test]
fn nobody_else_can_speak_in_a_flow() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let [web, cache] = net.pair([WEB, CACHE]);
        lab.delivers([WEB, CACHE], &tcp(web, cache).syn());
        lab.settle();
        // The neighbour's frame, from another interface, with another MAC, and from another interface with its own MAC.
        lab.sends(CACHE, &tcp(web, cache).ack()).dropped();
        lab.assert_only_changed(&["a.drops.spoofed-mac +1"]);
        lab.sends(WEB, &tcp(web.behind([2, 9, 9, 9, 9, 9]), cache).ack()).dropped();
        lab.assert_only_changed(&["a.drops.spoofed-mac +1"]);
        lab.sends(CACHE, &tcp(web.behind(cache.mac), cache).ack()).dropped();
        lab.assert_only_changed(&["a.drops.spoofed-address +1"]);
    }
}

#[test]
fn a_segment_in_the_middle_opens_a_flow_where_policy_lets_it() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &tcp(web, db).payload(b"after the table lost it").ack());
        assert_eq!(lab.flows(At::A)[0].state, State::Opening as u8);
        lab.settle();
    }
}

#[test]
fn a_reset_opens_nothing_and_closes_what_is_open() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &tcp(web, db).rst());
        lab.assert_only_changed(&["a.shop>shop.packets +1", "b.shop>shop.packets +1"]);
        lab.delivers([WEB, DB], &tcp(web, db).syn());
        let [db, web] = net.pair([DB, WEB]);
        lab.delivers([DB, WEB], &tcp(db, web).ports(80, 40000).flagged(RST | ACK));
        for at in [At::A, At::B] {
            assert_eq!(lab.flows(at)[0].state, State::Closing as u8);
        }
        lab.settle();
    }
}

/// Whether a reply is still taken for one, so long after the flow's last packet.
#[track_caller]
fn check_idle(lab: &mut Lab, net: Net, (state, idle): (State, u64), is_alive: bool) {
    let age = |lab: &mut Lab, at| {
        lab.change_flow(at, |flow| {
            // Wraps on a machine that was started since.
            flow.seen = flow.seen.wrapping_sub(idle * SECOND);
            flow.state = state as u8;
        });
    };
    [At::A, At::B].into_iter().for_each(|at| age(lab, at));
    let [store, web] = net.pair([STORE, WEB]);
    let is_tcp = idle != 299 && idle != 301;
    let frame =
        if is_tcp { tcp(store, web).ports(5432, 40000).ack() } else { udp(store, web).ports(5432, 40000).frame() };
    if is_alive {
        lab.delivers([STORE, WEB], &frame);
        lab.settle();
    } else {
        lab.sends(STORE, &frame).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +1", "b.blog>shop.drops +1"]);
    }
}

#[test]
fn an_established_connection_never_idles_out_and_a_closed_one_does() {
    let mut lab = Lab::with_rules(&[RULE]);
    for net in Net::LOCAL {
        for (state, idle, is_alive) in [
            (State::Open, 600, true),
            (State::Closing, 119, true),
            (State::Closing, 121, false),
            (State::Opening, 119, true),
            (State::Opening, 121, false),
        ] {
            lab.over(net);
            established(&mut lab, net);
            check_idle(&mut lab, net, (state, idle), is_alive);
        }
        for (idle, is_alive) in [(299, true), (301, false)] {
            lab.over(net);
            let [web, store] = net.pair([WEB, STORE]);
            lab.delivers([WEB, STORE], &udp(web, store).ports(40000, 5432).frame());
            lab.settle();
            check_idle(&mut lab, net, (State::Open, idle), is_alive);
        }
    }
}

#[test]
fn both_legs_of_an_entry_are_told_apart_when_addresses_are_in_either_order() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        for (pair, leg) in [([WEB, DB], Leg::A), ([DB, WEB], Leg::B)] {
            lab.over(net);
            let [from, to] = net.pair(pair);
            lab.delivers(pair, &udp(from, to).frame());
            assert_eq!([At::A, At::B].map(|at| lab.flows(at)[0].opener()), [leg, leg]);
            lab.settle();
        }
    }
}
