//! The model says what docs/policy.md says, sentence by sentence.

use std::slice::from_ref;

use super::*;

const WEB: usize = 0;
const DB: usize = 1;
const BLOG: usize = 2;
const STORE: usize = 3;
const HOST: usize = 4;

/// Of the host in an app.
fn gateway(app: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, app, 1, 1]), format!("fd00:{app}::1").parse().unwrap()]
}

fn state() -> State {
    let app = |name, team, roles| App {
        name,
        labels: Labels::from([("team", team)]),
        roles,
        inside: Gate::Open,
        from_apps: Gate::Closed,
        from_host: Gate::Open,
        to_outside: Gate::Open,
        shadow: false,
    };
    let endpoint = |name, app: Option<usize>, labels: &[(&'static str, &'static str)], last: u8| Endpoint {
        name,
        app,
        labels: labels.iter().copied().collect(),
        ports: if last == 4 { vec![("dns", Protocol::Udp, 7001)] } else { Vec::new() },
        v4: IpAddr::from([10, 1, 1, last]),
        v6: format!("fd00:1::{last}").parse().unwrap(),
        gateways: (1..=2).filter(|_| app.is_none()).map(gateway).collect(),
        attached: true,
    };
    let store =
        Role { name: "store", labels: Labels::from([("tier", "db")]), ports: vec![("dns", Protocol::Udp, 7001)] };
    State {
        apps: vec![app("shop", "a", Vec::new()), app("blog", "b", vec![store])],
        endpoints: vec![
            endpoint("a1", Some(0), &[("role", "web")], 1),
            endpoint("a2", Some(0), &[("role", "db"), ("env", "prod")], 2),
            endpoint("b1", Some(1), &[], 3),
            endpoint("b2", Some(1), &[("tier", "db")], 4),
            endpoint("h1", None, &[], 1),
        ],
        rules: Vec::new(),
    }
}

fn rule(action: Action, from: Who, to: Who) -> Rule {
    Rule { owner: String::new(), shadow: false, action, from, to, what: What::Any, on: None, precedence: 1000 }
}

fn at(from: usize, to: usize, port: u16) -> Packet {
    Packet { from, to, v6: false, protocol: Protocol::Udp, port }
}

/// Whether each side lets a packet pass under these rules.
#[track_caller]
fn check(rules: &[Rule], packet: Packet, (out, into): (bool, bool)) {
    let state = State { rules: rules.to_vec(), ..state() };
    assert_eq!(state.verdict(packet), Verdict { out, into }, "{packet:?}");
}

const YES: (bool, bool) = (true, true);
const NO: (bool, bool) = (false, false);
const KEPT_OUT: (bool, bool) = (true, false);

#[test]
fn where_no_rule_speaks_the_receivers_defaults_decide() {
    check(&[], at(WEB, DB, 7000), YES);
    check(&[], at(WEB, BLOG, 7000), KEPT_OUT);
    let mut other = state();
    other.apps[0].inside = Gate::Closed;
    other.apps[1].from_apps = Gate::Open;
    assert_eq!(other.verdict(at(WEB, DB, 1)), Verdict { out: true, into: false });
    assert_eq!(other.verdict(at(WEB, BLOG, 1)), Verdict { out: true, into: true });
    other.endpoints[WEB].attached = false;
    assert_eq!(other.verdict(at(WEB, BLOG, 1)), Verdict { out: false, into: true });
    other.apps[1].from_apps = Gate::Closed;
    other.apps[1].shadow = true;
    assert!(other.verdict(at(WEB, BLOG, 1)).into, "an app that is tried is open");
}

#[test]
fn a_host_has_no_app_and_an_address_in_each() {
    check(&[], at(HOST, WEB, 1), YES);
    check(&[], at(WEB, HOST, 1), YES);
    let mut closed = state();
    closed.apps[0].from_host = Gate::Closed;
    closed.apps[0].to_outside = Gate::Closed;
    assert_eq!(closed.verdict(at(HOST, WEB, 1)), Verdict { out: true, into: false });
    assert_eq!(closed.verdict(at(WEB, HOST, 1)), Verdict { out: false, into: true });
    assert_eq!(closed.verdict(at(HOST, BLOG, 1)), Verdict { out: true, into: true });

    let deny = |from, to| [rule(Action::Deny, from, to)];
    check(&deny(Who::Host, Who::App("shop")), at(HOST, WEB, 1), NO);
    check(&deny(Who::Everyone, Who::Host), at(WEB, HOST, 1), NO);
    check(&deny(Who::Any, Who::Any), at(HOST, WEB, 1), YES);
    let net = |app| Who::Net(Net { addr: IpAddr::from([10, app, 1, 0]), len: 24 }, Vec::new());
    // It sends from what it has in the receiver's app, and is reached at what it has in the first.
    check(&deny(net(2), Who::Any), at(HOST, BLOG, 1), KEPT_OUT);
    check(&deny(net(1), Who::Any), at(HOST, BLOG, 1), YES);
    check(&deny(Who::Any, net(1)), at(BLOG, HOST, 1), (false, true));
    check(&deny(net(2), Who::Any), Packet { v6: true, ..at(HOST, BLOG, 1) }, YES);
}

#[test]
fn the_greatest_precedence_decides_and_then_the_action() {
    use Action::{Allow, Deny, Reject};
    let [shop, blog] = ["shop", "blog"].map(Who::App);
    let [allow, deny, reject] = [Allow, Deny, Reject].map(|action| rule(action, shop.clone(), blog.clone()));
    check(from_ref(&allow), at(WEB, BLOG, 7000), YES);
    check(from_ref(&allow), at(BLOG, WEB, 7000), KEPT_OUT);
    check(&[allow.clone(), deny.clone()], at(WEB, BLOG, 7000), NO);
    check(&[reject, allow.clone()], at(WEB, BLOG, 7000), NO);
    check(&[Rule { precedence: 1001, ..allow.clone() }, deny.clone()], at(WEB, BLOG, 7000), YES);
    check(&[allow.clone(), Rule { shadow: true, ..deny.clone() }], at(WEB, BLOG, 7000), YES);
    let deny = |on| Rule { on: Some(on), ..deny.clone() };
    check(&[allow.clone(), deny(Direction::Egress)], at(WEB, BLOG, 7000), (false, true));
    check(&[allow, deny(Direction::Ingress)], at(WEB, BLOG, 7000), KEPT_OUT);
}

#[test]
fn pass_leaves_it_to_what_is_below_its_tier() {
    let pass = |precedence| Rule { precedence, ..rule(Action::Pass, Who::Any, Who::Any) };
    let allow = |precedence| Rule { precedence, ..rule(Action::Allow, Who::Any, Who::Any) };
    let deny = |precedence| Rule { precedence, ..rule(Action::Deny, Who::Any, Who::Any) };
    check(&[pass(UPPER + 9), allow(UPPER + 1), deny(1000)], at(WEB, DB, 1), NO);
    check(&[pass(UPPER + 1), allow(UPPER + 9), deny(1000)], at(WEB, DB, 1), YES);
    check(&[pass(UPPER + 1), allow(UPPER + 1), deny(1000)], at(WEB, DB, 1), YES);
    check(&[pass(-1), deny(-2)], at(WEB, DB, 1), YES);
    check(&[pass(-1), allow(-2)], at(WEB, BLOG, 1), KEPT_OUT);
    check(&[pass(UPPER), pass(-1), allow(-1)], at(WEB, BLOG, 1), YES);
}

#[test]
fn roles_labels_and_addresses_mean_those_who_have_them() {
    let to = |who| [rule(Action::Deny, Who::Everyone, who)];
    check(&to(Who::Role("shop", "db")), at(WEB, DB, 1), NO);
    check(&to(Who::Role("shop", "web")), at(WEB, DB, 1), YES);
    check(&to(Who::Role("blog", "store")), at(BLOG, STORE, 1), NO);
    check(&to(Who::Role("blog", "store")), at(STORE, BLOG, 1), YES);
    let env = |demand| Who::Labelled(Apps::Every, vec![demand]);
    check(&to(env(Demand::In("env", vec!["prod", "test"]))), at(WEB, DB, 1), NO);
    check(&to(env(Demand::NotIn("env", vec!["prod"]))), at(WEB, DB, 1), YES);
    check(&to(env(Demand::NotIn("env", vec!["prod"]))), at(DB, WEB, 1), NO);
    check(&to(env(Demand::Exists("env"))), at(DB, WEB, 1), YES);
    check(&to(env(Demand::Absent("env"))), at(DB, WEB, 1), NO);
    let team = |team| Who::Labelled(Apps::With(vec![Demand::In("team", vec![team])]), Vec::new());
    check(&to(team("a")), at(WEB, DB, 1), NO);
    check(&to(team("b")), at(WEB, DB, 1), YES);
    check(&to(Who::Labelled(Apps::Named("shop"), vec![Demand::Exists("role")])), at(WEB, DB, 1), NO);
    check(&to(Who::Outside), at(WEB, DB, 1), YES);
    check(&to(Who::Host), at(WEB, DB, 1), YES);

    let net = |len, last| Net { addr: IpAddr::from([10, 1, 1, last]), len };
    // Only the sender's rules: an address keeps none.
    check(&to(Who::Net(net(24, 0), Vec::new())), at(WEB, DB, 1), (false, true));
    check(&to(Who::Net(net(24, 0), vec![net(32, 2)])), at(WEB, DB, 1), YES);
    check(&to(Who::Net(net(31, 0), Vec::new())), at(WEB, DB, 1), YES);
    check(&to(Who::Net(net(24, 0), Vec::new())), Packet { v6: true, ..at(WEB, DB, 1) }, YES);
    let from = rule(Action::Deny, Who::Net(net(24, 0), Vec::new()), Who::Any);
    check(&[from], at(WEB, DB, 1), KEPT_OUT);
}

#[test]
fn ports_are_those_of_the_protocol_and_names_are_the_receivers() {
    let with = |protocol, ports: &[Port]| {
        [Rule { what: What::Ports(protocol, ports.to_vec()), ..rule(Action::Deny, Who::Any, Who::Any) }]
    };
    check(&with(Protocol::Udp, &[]), at(WEB, DB, 7000), NO);
    check(&with(Protocol::Tcp, &[]), at(WEB, DB, 7000), YES);
    check(&with(Protocol::Udp, &[Port::Range(1, 2), Port::Range(7000, 7001)]), at(WEB, DB, 7001), NO);
    check(&with(Protocol::Udp, &[Port::Range(1, 2), Port::Range(7000, 7001)]), at(WEB, DB, 7002), YES);
    check(&with(Protocol::Udp, &[Port::Named("dns")]), at(BLOG, STORE, 7001), NO);
    check(&with(Protocol::Udp, &[Port::Named("dns")]), at(BLOG, STORE, 7000), YES);
    check(&with(Protocol::Udp, &[Port::Named("dns")]), at(STORE, BLOG, 7001), YES);
    check(
        &with(Protocol::Tcp, &[Port::Named("dns")]),
        Packet { protocol: Protocol::Tcp, ..at(BLOG, STORE, 7001) },
        YES,
    );
}

#[test]
fn a_rule_is_written_as_it_is_read() {
    let net = |text: &str, len| Net { addr: text.parse().unwrap(), len };
    let labelled = |apps, demands: &[Demand]| Who::Labelled(apps, demands.to_vec());
    let whoever = [
        (Who::Role("shop", "web"), "shop/web"),
        (labelled(Apps::Named("shop"), &[Demand::Exists("env"), Demand::Absent("tier")]), "shop{env,!tier}"),
        (labelled(Apps::With(vec![Demand::In("team", vec!["a", "b"])]), &[]), "[team in (a,b)]"),
        (labelled(Apps::Every, &[Demand::NotIn("env", vec!["prod"])]), "any{env notin (prod)}"),
        (Who::Net(net("10.1.0.0", 16), vec![net("10.1.1.0", 24)]), "10.1.0.0/16 except 10.1.1.0/24"),
    ];
    for (who, text) in whoever {
        let rule = Rule {
            what: What::Ports(Protocol::Udp, vec![Port::Range(7000, 7000), Port::Range(1, 9), Port::Named("dns")]),
            on: Some(Direction::Ingress),
            shadow: true,
            ..rule(Action::Deny, who, Who::App("blog"))
        };
        let text = format!("shadow deny {text} -> blog udp/7000,1-9,dns on ingress precedence 1000");
        assert_eq!(rule.to_string(), text);
        text.parse::<weft::model::rule::Rule>().unwrap();
    }
}
