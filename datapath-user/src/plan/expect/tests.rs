//! Expectations, and the matrix, of small clusters.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::model::{cluster::Policy, example, traffic::NamedPorts};
use crate::plan::{
    facts::Clock,
    ids::Ids,
    matrix::{Passes, between},
    policy,
};

fn cluster(rules: &[&str], expect: &[&str]) -> Cluster {
    let expect = expect.iter().map(|text| text.parse().unwrap()).collect();
    Cluster {
        rules: example::rules(rules),
        policies: Arc::new(BTreeMap::from([("p".parse().unwrap(), Policy { expect })])),
        ..example::cluster()
    }
}

/// A plan of other rules, of which one has not ended yet.
fn running() -> NodePlan {
    let rules = ["allow shop -> blog", "deny shop/db -> blog tcp/80", "allow blog -> shop until 1970-01-02T00:00:00Z"];
    let clock = Clock { zero: 0, now: 0 };
    let (policy, numbers) = policy(&cluster(&rules, &[]), clock, &NodePlan::default());
    NodePlan { policy, ids: Ids { policy: numbers, ..Ids::default() }, ..NodePlan::default() }
}

/// Why one expectation does not hold under some rules; nothing if it does.
fn why(rules: &[&str], expected: &str) -> String {
    let cluster = cluster(rules, &[expected]);
    let checked = check(&cluster, &NodePlan::default());
    assert_eq!(checked.len(), 1);
    assert_eq!(check(&cluster, &running()), checked);
    match &checked[0].fault {
        None => {
            assert!(checked[0].asked > 0);
            String::new()
        }
        Some(Fault::Nobody(side)) => (*side).to_owned(),
        Some(Fault::Nothing) => "nothing".to_owned(),
        Some(Fault::Broken(breach, pairs)) => {
            let Breach { from, to, what, by, passes } = &**breach;
            let by = by.as_ref().map_or_else(Clone::clone, ToString::to_string);
            let is = if *passes { "passes" } else { "does not" };
            format!("{from} -> {to} {what} {is}, by {by} ({pairs})")
        }
    }
}

#[track_caller]
fn holds(rules: &[&str], expected: &str) {
    assert_eq!(why(rules, expected), "", "{expected}");
}

#[test]
fn an_expectation_holds_of_everybody_it_names() {
    let rules = &["allow shop/web -> blog/db tcp/5432"];
    holds(rules, "shop/web -> blog/db tcp/5432 allow");
    holds(rules, "shop/db -> blog tcp/5432 deny");
    holds(rules, "blog -> shop deny");
    holds(rules, "shop -> shop allow");
    holds(rules, "outside -> any deny");
    holds(rules, "host -> any allow");
    assert_eq!(
        why(rules, "shop -> blog tcp/5432 allow"),
        "shop -> blog tcp/5432 does not, by default of blog: closed to other apps (5)"
    );
    assert_eq!(
        why(rules, "shop -> blog deny"),
        "shop/web -> blog/db tcp/5432 passes, by allow shop/web -> blog/db tcp/5432 (1)"
    );
}

#[test]
fn every_port_that_a_rule_tells_apart_is_asked_about() {
    let rules = &["allow shop -> blog tcp/1000-1999", "deny shop -> blog tcp/1234 precedence 1001"];
    assert_eq!(
        why(rules, "shop/web -> blog/db tcp/1000-1999 allow"),
        "shop/web -> blog/db tcp/1234 does not, by deny shop -> blog tcp/1234 precedence 1001 (1)"
    );
    holds(rules, "shop -> blog tcp/1000-1233,1235-1999 allow");
    holds(rules, "shop -> blog tcp/1234 deny");
    assert!(why(rules, "shop -> blog tcp/999-1000 deny").contains("tcp/1000 passes"));
    assert!(why(rules, "shop -> blog tcp/1999-2000 allow").contains("tcp/2000 does not"));
    // What no rule names is asked about too.
    assert!(
        why(&["allow shop -> blog tcp", "allow shop -> blog udp"], "shop -> blog allow").contains(" icmp")
            || why(&["allow shop -> blog tcp", "allow shop -> blog udp"], "shop -> blog allow")
                .contains("any protocol but tcp and udp")
    );
    holds(&["allow shop -> blog icmp/8"], "shop -> blog icmp/8 allow");
    holds(&["allow shop -> blog icmp/8"], "shop -> blog icmpv6/128 allow");
    assert!(why(&["allow shop -> blog icmp/8/0"], "shop -> blog icmp/8 allow").contains("icmp/8/1-255 does not"));
}

#[test]
fn every_address_that_a_rule_tells_apart_is_asked_about() {
    let rules = &["allow shop -> 10.2.0.0/16 except 10.2.7.0/24", "allow shop -> blog"];
    holds(rules, "shop -> blog allow");
    let closed = &["allow shop -> blog", "deny shop -> 10.2.7.0/24 tcp/22 precedence 1001"];
    assert!(
        why(closed, "shop/web -> blog/db tcp/22 allow").starts_with("shop/web -> blog/db at 10.2.7.0 tcp/22 does not")
    );
    holds(closed, "shop -> 10.2.6.0/24 tcp/22 allow");
    holds(closed, "shop -> 10.2.7.0/24 tcp/22 deny");
    holds(closed, "shop -> 10.2.0.0/16 except 10.2.7.0/24 tcp/22 allow");
    assert!(why(closed, "shop -> 10.2.6.0/23 tcp/22 allow").contains("at 10.2.7.0 tcp/22"));
    // An address of an app is its endpoints', a gateway is a host's, the rest is outside.
    holds(&[], "shop -> 203.0.113.0/24 allow");
    holds(&[], "blog -> 10.1.0.0/16 except 10.1.1.1,10.1.2.1,10.1.3.1 deny");
    holds(&["deny shop -> host"], "shop -> 10.2.1.1 deny");
    holds(&["deny shop -> 2001:db8::/32"], "shop -> 2001:db8:7::/48 deny");
    assert!(why(&["deny shop -> 2001:db8::/32"], "shop -> outside allow").contains("outside at 2001:db8:: "));
}

#[test]
fn one_that_speaks_of_nobody_is_a_fault() {
    assert_eq!(why(&[], "wiki -> blog allow"), "the left side selects nobody");
    assert_eq!(why(&[], "shop -> blog/web allow"), "the right side selects nobody");
    assert_eq!(why(&[], "any{tier=x} -> any deny"), "the left side selects nobody");
    assert_eq!(why(&[], "shop -> blog tcp/http deny"), "nothing");
}

#[test]
fn labels_and_named_ports_are_those_of_the_roles() {
    let mut cluster = cluster(
        &["allow any{role=web} -> any tcp/pg"],
        &["shop/web -> blog tcp/pg allow", "shop/web -> blog/db tcp/5432 allow", "shop/web -> blog/db tcp/5433 deny"],
    );
    let ports: NamedPorts = "pg=tcp/5432".parse().unwrap();
    Arc::make_mut(&mut cluster.apps)
        .values_mut()
        .flat_map(|app| app.roles.values_mut())
        .for_each(|role| role.ports = ports.clone());
    for checked in check(&cluster, &NodePlan::default()) {
        assert_eq!(checked.fault, None, "{}", checked.expected);
    }
}

#[test]
fn a_matrix_tells_what_passes() {
    let cluster = cluster(
        &[
            "allow shop/web -> blog/db tcp/80,443",
            "allow shop/db -> blog/db tcp",
            "deny shop/db -> 10.2.7.0/24 precedence 9999",
        ],
        &[],
    );
    let asker = Asker::new(&cluster);
    let find = |name: &str| asker.parties().iter().find(|party| party.name == name).unwrap();
    let ask = |from: &str, to: &str| between(&asker, find(from), find(to), None);
    assert_eq!(ask("shop/web", "shop/db"), Passes::All);
    assert_eq!(ask("blog", "shop"), Passes::Nothing);
    assert_eq!(ask("shop/web", "blog/db"), Passes::Some(vec!["tcp/80".into(), "tcp/443".into()]));
    assert_eq!(ask("shop/db", "blog/db"), Passes::Some(vec!["tcp to all but 10.2.7.0/24".into()]));
    assert_eq!(ask("host", "host"), Passes::Itself);
    assert_eq!(ask("host", "blog"), Passes::All);
    let names: Vec<_> = asker.parties().iter().map(|party| party.name.as_str()).collect();
    assert_eq!(names, ["blog", "blog/db", "shop", "shop/db", "shop/web", "host", "outside"]);
}

#[test]
fn a_matrix_says_at_which_addresses() {
    let check = |rules: &[&str], (from, to): (&str, &str), expect: &[&str]| {
        let cluster = cluster(rules, &[]);
        let asker = Asker::new(&cluster);
        let find = |name: &str| asker.parties().iter().find(|party| party.name == name).unwrap();
        let expect = Passes::Some(expect.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(between(&asker, find(from), find(to), None), expect, "{rules:?}");
    };
    let out = ("shop/db", "outside");
    check(&["deny shop -> 203.0.113.0/24"], out, &["any to all but 203.0.113.0/24"]);
    let hole = "deny shop -> 198.18.0.0/15 except 198.18.7.0/24";
    check(&[hole], out, &["any to all but 198.18.0.0/15 except 198.18.7.0/24"]);
    let closed = [
        "deny shop -> outside any on egress",
        "allow shop -> 198.18.0.0/15 except 198.18.7.0/24 tcp/80 precedence 2000",
    ];
    check(&closed, out, &["tcp/80 to 198.18.0.0/15 except 198.18.7.0/24"]);
    check(&["allow 10.1.7.0/24 -> blog"], ("shop/db", "blog"), &["any from 10.1.7.0/24"]);
    let both = ["allow 10.1.7.0/24 -> blog", "deny shop -> 10.2.9.0/24"];
    check(&both, ("shop/db", "blog"), &["any from 10.1.7.0/24 to other addresses"]);
    let many: Vec<_> = (1..=6).map(|n| format!("deny shop -> 198.18.{n}.0/24")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let named = "any to all but 198.18.1.0/24 and 198.18.2.0/24 and 198.18.3.0/24 and 198.18.4.0/24 and 2 more";
    check(&many, out, &[named]);
    // All that is not told apart is only then something else when there is something that is.
    let some = ["allow 10.1.7.0/24 -> blog", "deny shop -> blog tcp"];
    check(&some, ("shop/db", "blog"), &["any protocol but tcp from 10.1.7.0/24"]);
}

#[test]
fn a_default_that_lets_pass_is_the_one_to_close() {
    let by = |rules: &[&str], expected: &str| why(rules, expected);
    assert_eq!(by(&[], "host -> blog/db deny"), "host -> blog/db any passes, by default of blog: open to hosts (1)");
    let outside = "shop/db -> outside any passes, by default of shop: open to the outside and to hosts (1)";
    assert_eq!(by(&[], "shop/db -> outside deny"), outside);
    let inside = "shop/db -> shop/web any passes, by default of shop: open to its own endpoints (1)";
    assert_eq!(by(&[], "shop/db -> shop/web deny"), inside);
    let other = "host -> blog/db any protocol but tcp passes, by default of blog: open to hosts (1)";
    assert_eq!(by(&["deny host -> blog tcp"], "host -> blog/db deny"), other);
}
