//! Who may talk to whom. Every story runs in both families, inside and outside of the tunnel.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, DB, Net, PLAIN, PRESS, SHOP, STORE, WEB};
use weft_common::id::AppId;
use weft_common::policy::{Direction, SetKey};
use weft_tests::frame::icmp::echo_request;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{protocol, tcp, udp};
use weft_tests::underlay::Family;

#[test]
fn apps_do_not_talk_and_the_sender_is_stopped_at_its_own_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        for pair in [[PRESS, DB], [STORE, WEB]] {
            let [from, to] = net.pair(pair);
            for frame in [
                tcp(from, to).syn(),
                tcp(from, to).ack(),
                udp(from, to).frame(),
                echo_request(from, to, [1, 1]).frame(),
                protocol(from, to, 47).frame(),
            ] {
                lab.sends(pair[0], &frame).dropped();
            }
        }
        lab.assert_only_changed(&[
            "a.drops.policy-default +5",
            "a.blog>shop.drops +5",
            "b.drops.policy-default +5",
            "b.blog>shop.drops +5",
        ]);
    }
}

#[test]
fn the_receivers_host_decides_whatever_the_senders_host_let_out() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        // As host a would have sent it if it had not asked.
        let [press, db] = net.pair([PRESS, DB]);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let tunnel = Vxlan::new(a, b, PRESS.app.0).group(PRESS.role.0);
        lab.receives(At::B, &tunnel.wrap(&tcp(press, db).syn())).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +1", "b.blog>shop.drops +1"]);
        let [press, store] = net.pair([PRESS, STORE]);
        let into = lab.link(At::B, STORE.name);
        lab.receives(At::B, &tunnel.wrap(&tcp(press, store).syn())).enters(STORE, into);
        lab.assert_only_changed(&["b.flows +1", "b.blog>blog.flows +1", "b.blog>blog.packets +1"]);
    }
}

#[test]
fn one_rule_lets_exactly_one_port_through_with_its_replies() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db tcp/5432"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        let there = tcp(web, store).ports(40000, 5432);
        lab.delivers([WEB, STORE], &there.clone().syn());
        assert_eq!([At::A, At::B].map(|at| lab.flows(at)[0].rule), [1, 1]);
        let [store_back, web_back] = net.pair([STORE, WEB]);
        let back = tcp(store_back, web_back).ports(5432, 40000);
        lab.delivers([STORE, WEB], &back.clone().syn_ack());
        lab.delivers([WEB, STORE], &there.payload(b"select").ack());
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>blog.flows +1",
            "a.shop>blog.packets +2",
            "a.blog>shop.packets +1",
            "b.flows +1",
            "b.shop>blog.flows +1",
            "b.shop>blog.packets +2",
            "b.blog>shop.packets +1",
            "a.rule-1.flows +1",
            "a.rule-1.packets +3",
            "b.rule-1.flows +1",
            "b.rule-1.packets +3",
        ]);

        // Another port, another protocol, another role.
        lab.sends(WEB, &tcp(web, store).ports(40000, 5433).syn()).dropped();
        lab.sends(WEB, &udp(web, store).ports(40000, 5432).frame()).dropped();
        lab.sends(WEB, &echo_request(web, store, [5432, 5432]).frame()).dropped();
        let [cache, store] = net.pair([CACHE, STORE]);
        lab.sends(CACHE, &tcp(cache, store).ports(40000, 5432).syn()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +4", "a.shop>blog.drops +4"]);

        // The server does not get to open anything: not from its port, not to the client's, not to the same port.
        for (src, dst) in [(5432, 40000), (5432, 40001), (40000, 5432), (1, 5432)] {
            lab.sends(STORE, &tcp(store_back, web_back).ports(src, dst).syn()).dropped();
        }
        lab.sends(STORE, &udp(store_back, web_back).ports(5432, 40000).frame()).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +5", "b.blog>shop.drops +5"]);
    }
}

#[test]
fn of_rules_that_match_the_greatest_rank_wins() {
    let cases: [(&[&str], &str); 7] = [
        (&["allow shop -> blog tcp/80", "deny shop -> blog tcp/80"], "policy-denied"),
        (&["deny shop -> blog tcp/80", "allow shop -> blog tcp/80"], "policy-denied"),
        (&["deny shop -> blog", "allow shop/web -> blog/db tcp/80"], "policy-denied"),
        (&["deny shop -> blog", "allow shop/web -> blog/db tcp/80 precedence 11"], ""),
        (&["deny any -> blog/db tcp", "allow shop -> blog precedence 9"], "policy-denied"),
        (&["deny shop -> blog tcp/80", "reject shop/web -> blog/db tcp precedence 10"], "policy-rejected"),
        (&["allow shop/web -> blog tcp/80", "deny shop -> blog tcp/81"], ""),
    ];
    for (rules, expect) in cases {
        let mut lab = Lab::with_rules(rules);
        for net in Net::ALL {
            lab.over(net);
            let [web, store] = net.pair([WEB, STORE]);
            let syn = tcp(web, store).syn();
            let reason = lab.sends(WEB, &syn).reason().map_or("", |reason| reason.name());
            assert_eq!(reason, expect, "{rules:?}");
            lab.settle();
        }
    }
}

#[test]
fn a_rule_inside_an_app_narrows_what_is_open() {
    let mut lab = Lab::with_rules(&["deny shop/web -> shop/db", "allow shop/web -> shop/db tcp/5432 precedence 20"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        lab.delivers([WEB, DB], &tcp(web, db).ports(1, 5432).syn());
        lab.settle();
        lab.sends(WEB, &tcp(web, db).ports(1, 5433).syn()).dropped();
        let [web, cache] = net.pair([WEB, CACHE]);
        lab.sends(WEB, &udp(web, cache).frame()).dropped();
        lab.assert_only_changed(&["a.drops.policy-denied +2", "a.shop>shop.drops +2", "a.rule-1.drops +2"]);
        // Without a role it is none of the rule's business.
        let [web, plain] = net.pair([WEB, PLAIN]);
        lab.delivers([WEB, PLAIN], &udp(web, plain).frame());
        let [db, web] = net.pair([DB, WEB]);
        lab.delivers([DB, WEB], &udp(db, web).frame());
        lab.settle();
    }
}

#[test]
fn an_icmp_rule_is_about_its_type() {
    let mut lab = Lab::with_rules(&["allow shop/web -> blog/db icmp/8", "allow shop/web -> blog/db icmpv6/128"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        lab.delivers([WEB, STORE], &echo_request(web, store, [9, 1]).frame());
        lab.settle();
        let timestamp = weft_tests::frame::icmp::message(
            web,
            store,
            if net.inner == Family::V4 { [13, 0] } else { [139, 0] },
            [0; 4],
        );
        lab.sends(WEB, &timestamp.payload(&[0; 12]).frame()).dropped();
        // A code that a query does not have is another port.
        let odd = weft_tests::frame::icmp::message(
            web,
            store,
            if net.inner == Family::V4 { [8, 1] } else { [128, 1] },
            [0; 4],
        );
        lab.sends(WEB, &odd.frame()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +2", "a.shop>blog.drops +2"]);
    }
}

#[test]
fn a_prefix_is_matched_by_address_whoever_has_it() {
    let rules = [
        "deny shop -> 198.51.100.0/24 tcp/25",
        "deny shop -> 2001:db8:ffff::/48 tcp/25",
        "deny shop/web -> 10.100.2.21/32 udp/53",
        "deny shop/web -> fd00:64:2::15/128 udp/53",
    ];
    let mut lab = Lab::with_rules(&rules);
    for net in Net::LOCAL {
        lab.over(net);
        let [mail, names] = if net.inner == Family::V4 { [1, 3] } else { [2, 4] };
        let web = WEB.station(net.inner);
        lab.sends(WEB, &tcp(web, net.outsider()).ports(1, 25).syn()).dropped();
        let rule = format!("a.rule-{mail}.drops +1");
        lab.assert_only_changed(&["a.drops.policy-denied +1", "a.shop>outside.drops +1", &rule]);
        lab.sends(WEB, &tcp(web, net.outsider()).ports(1, 26).syn()).reaches_host();
        lab.settle();
        let [web, db] = net.pair([WEB, DB]);
        lab.sends(WEB, &udp(web, db).ports(1, 53).frame()).dropped();
        let rule = format!("a.rule-{names}.drops +1");
        lab.assert_only_changed(&["a.drops.policy-denied +1", "a.shop>shop.drops +1", &rule]);
        let [web, plain] = net.pair([WEB, PLAIN]);
        lab.delivers([WEB, PLAIN], &udp(web, plain).ports(1, 53).frame());
        lab.settle();
    }
}

#[test]
fn the_host_and_the_outside_are_identities_like_any_other() {
    let mut lab = Lab::with_rules(&[
        "deny shop -> host tcp",
        "deny shop/web -> outside udp",
        "deny host -> shop/web icmp",
        "deny host -> shop/web icmpv6",
    ]);
    for net in Net::LOCAL {
        lab.over(net);
        let (web, gateway) = (WEB.station(net.inner), At::A.gateway(SHOP, net.inner));
        lab.sends(WEB, &tcp(web, gateway).syn()).dropped();
        lab.sends(WEB, &udp(web, net.outsider()).frame()).dropped();
        lab.host_sends(At::A, &echo_request(gateway, web, [1, 1]).frame()).dropped();
        lab.assert_only_changed(&[
            "a.drops.policy-denied +3",
            "a.shop>host.drops +1",
            "a.shop>outside.drops +1",
            "a.host>shop.drops +1",
            "a.rule-1.drops +1",
            "a.rule-2.drops +1",
            if net.inner == Family::V4 { "a.rule-3.drops +1" } else { "a.rule-4.drops +1" },
        ]);
        lab.sends(WEB, &udp(web, gateway).frame()).reaches_host();
        lab.sends(WEB, &tcp(web, net.outsider()).syn()).reaches_host();
        lab.settle();
    }
}

#[test]
fn an_app_that_is_closed_to_hosts_and_to_the_outside_is_opened_by_rules_alone() {
    let mut lab = Lab::with_rules(&[
        "allow host -> shop/web tcp/80",
        "allow shop/web -> outside udp/53",
        "allow shop/web -> host udp/53",
        "shop: from-host closed",
        "shop: to-outside closed",
    ]);
    let (lan, into) = (lab.link(At::A, "lan"), lab.link(At::A, WEB.name));
    for net in Net::ALL {
        lab.over(net);
        let (web, gateway, outsider) = (WEB.station(net.inner), At::A.gateway(SHOP, net.inner), net.outsider());
        lab.host_sends(At::A, &tcp(gateway, web).ports(1, 81).syn()).dropped();
        lab.host_sends(At::A, &echo_request(gateway, web, [1, 1]).frame()).dropped();
        lab.sends(WEB, &tcp(web, outsider).ports(1, 53).syn()).dropped();
        lab.sends(WEB, &echo_request(web, gateway, [1, 1]).frame()).dropped();
        // Nor to and from other hosts.
        lab.sends(WEB, &tcp(web, At::B.gateway(SHOP, net.inner)).syn()).dropped();
        let db = DB.station(net.inner);
        let asks = tcp(gateway, db).syn();
        lab.host_sends(At::A, &asks).dropped();
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        lab.receives(At::B, &Vxlan::new(a, b, AppId::HOST.0).group(0).wrap(&asks)).dropped();
        lab.assert_only_changed(&[
            "a.drops.policy-default +6",
            "a.host>shop.drops +3",
            "a.shop>outside.drops +1",
            "a.shop>host.drops +2",
            "b.drops.policy-default +1",
            "b.host>shop.drops +1",
        ]);
        // What a rule lets through is answered.
        lab.host_sends(At::A, &tcp(gateway, web).ports(1, 80).syn()).enters(WEB, into);
        lab.sends(WEB, &tcp(web, gateway).ports(80, 1).syn_ack()).reaches_host();
        lab.sends(WEB, &udp(web, outsider).ports(1, 53).frame()).reaches_host();
        lab.host_routes(At::A, lan, &udp(outsider, web).ports(53, 1).frame()).enters(WEB, into);
        lab.sends(WEB, &udp(web, gateway).ports(1, 53).frame()).reaches_host();
        // The other app is as it was.
        let (press, gateway) = (PRESS.station(net.inner), At::A.gateway(BLOG, net.inner));
        lab.sends(PRESS, &tcp(press, outsider).syn()).reaches_host();
        lab.host_sends(At::A, &tcp(gateway, press).syn()).enters(PRESS, lab.link(At::A, PRESS.name));
        lab.settle();
    }
}

#[test]
fn an_identity_without_rule_sets_is_closed_in_both_directions() {
    let mut lab = Lab::two_hosts();
    for (member, direction) in [(WEB, Direction::Egress), (DB, Direction::Ingress)] {
        let slot = lab.epoch().slot();
        let key = SetKey { app: member.app, role: member.role, direction: direction as u8, slot, stage: 0 };
        lab.tables(At::A).sets.remove(&key).expect("forget the rules");
        for net in Net::ALL {
            lab.over(net);
            let [web, db] = net.pair([WEB, DB]);
            lab.sends(WEB, &tcp(web, db).syn()).dropped();
            lab.assert_only_changed(&["a.drops.policy-absent +1", "a.shop>shop.drops +1"]);
        }
        lab.bump();
    }
}

#[test]
fn two_hosts_that_disagree_allow_no_more_than_the_stricter_one() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, store] = net.pair([WEB, STORE]);
        let syn = tcp(web, store).syn();
        // Host a has heard of the rule, host b has not.
        lab.enforce_on(At::A, &["allow shop -> blog"]);
        let wire = lab.sends(WEB, &syn).leaves_for(At::B);
        lab.settle();
        lab.receives(At::B, &wire).dropped();
        lab.assert_only_changed(&["b.drops.policy-default +1", "b.shop>blog.drops +1"]);
        lab.bump();
        lab.settle();
    }
}
