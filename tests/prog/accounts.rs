//! What is counted under which rule: every packet under the one that decided on it or on its flow, and under no other.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, Member, Net, PRESS, SHOP, STORE, WEB, address};
use std::net::Ipv4Addr;
use weft_common::addr::Mac;
use weft_common::flow::{Flow, FlowKey};
use weft_common::header::protocol;
use weft_common::id::AppId;
use weft_common::parse::Ports;
use weft_common::table::{Account, Counts};
use weft_tests::frame::{BROADCAST, Frame, Station, raw, tcp, udp};

/// As many accounts as a lab has room for.
const FEW: u32 = 4096;

/// Packets, bytes, flows and drops.
fn counted(lab: &Lab, at: At, account: Account) -> [u64; 4] {
    let Counts { packets, bytes, flows, drops, last } = lab.account(at, account);
    assert_eq!(last == 0, packets + drops == 0, "{account:?}");
    [packets, bytes, flows, drops]
}

fn length(frames: &[&Frame]) -> u64 {
    frames.iter().map(|frame| frame.bytes().len() as u64).sum()
}

#[test]
fn a_connection_is_counted_under_the_rule_that_allowed_it_in_both_directions() {
    let mut lab = Lab::with_rules(&["allow shop -> blog udp", "allow shop/web -> blog/db tcp/5432"]);
    for net in Net::ALL {
        lab.over(net);
        let before = [At::A, At::B].map(|at| [SHOP, BLOG].map(|src| counted(&lab, at, to_other(src, 2))));
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432);
        let [store_back, web_back] = net.pair([STORE, WEB]);
        let back = tcp(store_back, web_back).ports(5432, 40000);
        let [syn, query] = [there.clone().syn(), there.payload(b"select").ack()];
        let [syn_ack, answer] = [back.clone().syn_ack(), back.payload(&[7; 900]).ack()];
        lab.delivers([WEB, STORE], &syn);
        lab.delivers([STORE, WEB], &syn_ack);
        lab.delivers([WEB, STORE], &query);
        // Decided anew, it is no new flow.
        lab.bump();
        lab.delivers([STORE, WEB], &answer);
        for (at, before) in [At::A, At::B].into_iter().zip(before) {
            let now = [SHOP, BLOG].map(|src| counted(&lab, at, to_other(src, 2)));
            let more = |side: usize| [0, 1, 2, 3].map(|at| now[side][at] - before[side][at]);
            assert_eq!(more(0), [2, length(&[&syn, &query]), 1, 0]);
            assert_eq!(more(1), [2, length(&[&syn_ack, &answer]), 0, 0]);
        }
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +2",
            "a.blog>shop.packets +2",
            "a.rule-2.flows +1",
            "a.rule-2.packets +4",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +2",
            "b.blog>shop.packets +2",
            "b.rule-2.flows +1",
            "b.rule-2.packets +4",
        ]);
    }
}

#[test]
fn what_is_refused_is_counted_under_the_rule_or_the_default_that_refuses() {
    let mut lab =
        Lab::with_rules(&["allow shop -> blog tcp", "deny shop -> blog tcp/22", "reject shop -> blog tcp/23"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let by_default = counted(&lab, At::A, to_other(SHOP, 0));
        lab.sends(WEB, &tcp(web, press).ports(1, 22).syn()).dropped();
        lab.sends(WEB, &tcp(web, press).ports(1, 22).ack()).dropped();
        lab.sends(WEB, &tcp(web, press).ports(1, 23).syn()).answered();
        lab.sends(WEB, &udp(web, press).ports(1, 22).frame()).dropped();
        let [packets, bytes, flows, drops] = by_default;
        assert_eq!(counted(&lab, At::A, to_other(SHOP, 0)), [packets, bytes, flows, drops + 1]);
        lab.assert_only_changed(&[
            "a.drops.policy-denied +2",
            "a.drops.policy-rejected +1",
            "a.drops.policy-default +1",
            "a.shop>blog.drops +4",
            "a.rule-2.drops +2",
            "a.rule-3.drops +1",
        ]);
        // A flow that a rule allowed and another ends.
        lab.sends(WEB, &tcp(web, press).ports(1, 80).syn());
        lab.enforce(&["allow shop -> blog tcp", "deny shop -> blog tcp/80"]);
        lab.settle();
        lab.sends(WEB, &tcp(web, press).ports(1, 80).ack()).answered();
        lab.assert_only_changed(&["a.drops.policy-revoked +1", "a.shop>blog.drops +1", "a.rule-2.drops +1"]);
        lab.enforce(&["allow shop -> blog tcp", "deny shop -> blog tcp/22", "reject shop -> blog tcp/23"]);
    }
}

/// The memory of a run is the next one's.
#[test]
fn the_rule_of_an_earlier_packet_is_not_counted_again() {
    let mut lab = Lab::with_rules(&["allow shop -> blog tcp/80", "deny shop -> blog tcp/22"]);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let (denied, allowed) = (tcp(web, press).ports(1, 22).syn(), tcp(web, press).ports(1, 80));
        lab.delivers([WEB, PRESS], &allowed.clone().syn());
        lab.settle();
        let nobody = Station::new(Mac::GATEWAY.bytes(), address(SHOP, At::A, 99, net.inner));
        let [_, cache] = net.pair([WEB, CACHE]);
        let after_denied = |lab: &mut Lab, frame: &Frame| {
            lab.sends(WEB, &denied).dropped();
            let rest = ["a.drops.policy-denied +1", "a.shop>blog.drops +1", "a.rule-2.drops +1"];
            lab.assert_only_changed(&rest);
            lab.sends(WEB, frame);
        };
        // Nobody has the address, so no rule is asked.
        after_denied(&mut lab, &udp(web, nobody).frame());
        lab.assert_only_changed(&["a.drops.no-route +1", "a.misses +1", "a.shop>shop.drops +1", "a.no-rule.drops +1"]);
        // The flow's entry knows the rule.
        after_denied(&mut lab, &allowed.clone().ack());
        lab.assert_only_changed(&["a.shop>blog.packets +1", "a.rule-1.packets +1"]);
        // A default.
        after_denied(&mut lab, &udp(web, cache).frame());
        lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +1"]);
        // The known flow of a default.
        after_denied(&mut lab, &udp(web, cache).frame());
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
        // Neither IP nor ARP.
        after_denied(&mut lab, &raw(web, cache, 0x88b5, &[7; 46]));
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
    }
}

#[test]
fn copies_are_counted_under_the_rule_that_allowed_each() {
    let mut lab = Lab::with_rules(&["allow shop/web -> shop/db udp/67", "allow shop -> shop udp/67 precedence 9"]);
    let net = Net::ALL[0];
    lab.over(net);
    let everybody = Station::new(BROADCAST, Ipv4Addr::BROADCAST.into());
    lab.sends(WEB, &udp(WEB.station(net.inner), everybody).ports(68, 67).frame()).absorbed();
    // To the endpoint here and to the peers, whose endpoints may have any role.
    lab.assert_only_changed(&["a.shop>shop.packets +3", "a.rule-1.packets +3"]);
    lab.sends(CACHE, &udp(CACHE.station(net.inner), everybody).ports(68, 67).frame()).absorbed();
    lab.assert_only_changed(&["a.shop>shop.packets +3", "a.rule-2.packets +3"]);
}

#[test]
fn what_the_table_has_no_room_for_is_counted_as_such() {
    let mut lab = Lab::with_rules(&["allow shop -> blog tcp/80", "deny shop -> blog tcp/22"]);
    let net = Net::ALL[0];
    lab.over(net);
    let [web, press] = net.pair([WEB, PRESS]);
    let open = tcp(web, press).ports(1, 80);
    lab.delivers([WEB, PRESS], &open.clone().syn());
    lab.settle();
    let filling = |n| Account::new(AppId(1000), AppId(1000), n);
    let taken = u32::try_from(lab.accounts(At::A)).expect("few");
    lab.open_accounts(At::A, (taken..FEW).map(filling));
    lab.settle();
    // What has an account is counted there.
    lab.delivers([WEB, PRESS], &open.clone().ack());
    lab.assert_only_changed(&["a.shop>blog.packets +1", "a.rule-1.packets +1"]);
    let denied = tcp(web, press).ports(1, 22).syn();
    lab.sends(WEB, &denied).dropped();
    lab.assert_only_changed(&["a.drops.policy-denied +1", "a.uncounted.drops +1"]);
    let [web, cache] = net.pair([WEB, CACHE]);
    let first = udp(web, cache).frame();
    lab.delivers([WEB, CACHE], &first);
    lab.delivers([WEB, CACHE], &first);
    lab.assert_only_changed(&["a.flows +1", "a.uncounted.flows +1", "a.uncounted.packets +2"]);
    // With room again it goes on.
    lab.close_account(At::A, filling(taken));
    lab.sends(WEB, &denied).dropped();
    lab.assert_only_changed(&["a.drops.policy-denied +1", "a.shop>blog.drops +1", "a.rule-2.drops +1"]);
}

/// Elements take memory when they come, and it has to be there also when many come at once.
#[test]
fn many_accounts_may_be_opened_at_once() {
    const MANY: u16 = 2000;

    let mut lab = Lab::two_hosts();
    let net = Net::ALL[0];
    lab.over(net);
    let [web, cache] = net.pair([WEB, CACHE]);
    lab.delivers([WEB, CACHE], &udp(web, cache).ports(1, 1).frame());
    let flow = lab.flows(At::A)[0];
    for port in 2..MANY {
        let ends = [WEB, CACHE].map(|member: Member| member.ip(net.inner).into());
        let (key, _) = FlowKey::of(ends[0], ends[1], protocol::UDP, Ports { src: port, dst: port });
        let flow = Flow { rule: port.into(), ..flow };
        lab.tables(At::A).flows.insert(key, flow, 0).expect("write a flow");
    }
    let frames: Vec<_> = (2..MANY).map(|port| udp(web, cache).ports(port, port).frame()).collect();
    lab.settle();
    let before = lab.accounts(At::A);
    lab.floods_each(WEB, &frames);
    assert_eq!(lab.accounts(At::A) - before, frames.len());
    for port in [2, MANY / 2, MANY - 1] {
        let account = Account::new(SHOP, SHOP, port.into());
        assert_eq!(counted(&lab, At::A, account), [1, length(&[&frames[0]]), 0, 0]);
    }
    lab.settle();
}

/// From one app to the other.
fn to_other(src: AppId, rule: u32) -> Account {
    Account::new(src, if src == SHOP { BLOG } else { SHOP }, rule)
}
