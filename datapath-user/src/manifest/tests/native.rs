//! weft's own form.

use proptest::prelude::*;

use super::{Policies, check_fault, faults, rules, said};
use crate::{
    manifest::write::write,
    model::{
        app::App,
        cluster::Policy,
        expect::Expectation,
        rule::{Precedence, Rule},
    },
};

fn none() -> std::iter::Empty<&'static App> {
    std::iter::empty()
}

fn rules_of(list: &str) -> Vec<String> {
    rules(&format!("weft: v1\npolicy: shop\nrules:\n{list}\n"))
}

fn check_rule(list: &str, expect: &[&str]) {
    assert_eq!(rules_of(list), expect, "{list}");
}

/// That a rule, which starts in line 4, has this fault.
fn check_rule_fault(list: &str, expect: &str) {
    check_fault(&format!("weft: v1\npolicy: shop\nrules:\n{list}\n"), expect);
}

#[test]
fn both_forms_of_a_rule_say_the_same() {
    check_rule("- allow shop/web -> blog/db tcp/5432", &["allow shop/web -> blog/db tcp/5432"]);
    check_rule("- allow: {from: shop/web, to: blog/db, ports: tcp/5432}", &["allow shop/web -> blog/db tcp/5432"]);
    check_rule(
        "- deny: {from: {app: shop, matchLabels: {tier: web}}, to: host, on: egress, precedence: -7, name: x}",
        &["deny shop{tier=web} -> host any on egress precedence -7 as x"],
    );
    check_rule(
        "- pass:\n    from: {apps: {matchLabels: {team: a}}, matchExpressions: [{key: env, operator: In, values: [p, t]}]}\n    \
         to: {app: any}\n    on: ingress\n    precedence: 16777216",
        &["pass [team=a]{env in (p,t)} -> any any on ingress precedence 16777216"],
    );
    check_rule(
        "- reject: {from: {apps: {}}, to: 10.0.0.0/8 except 10.1.0.0/16}",
        &["reject any -> 10.0.0.0/8 except 10.1.0.0/16 any"],
    );
    check_rule("- allow: {from: {app: shop}, to: b, ports: any}", &["allow shop -> b any"]);
    check_rule(
        "- allow: {from: a, to: b, shadow: true, until: 2026-01-31T09:05:00Z, ports: [tcp/1, udp/1]}",
        &[
            "shadow allow a -> b tcp/1 until 2026-01-31T09:05:00Z",
            "shadow allow a -> b udp/1 until 2026-01-31T09:05:00Z",
        ],
    );
    check_rule("- deny: {from: a, to: b, shadow: false}", &["deny a -> b any"]);
    // One that is over was right once.
    check_rule(
        "- allow: {from: a, to: b, until: '1999-12-31T23:59:59Z'}\n- allow a -> b until 1999-12-31T23:59:59Z as old",
        &["allow a -> b any until 1999-12-31T23:59:59Z as old"],
    );
    check_rule(
        "- allow: {from: a, to: b, ports: [tcp/80, udp/53, 'tcp/443,http']}",
        &["allow a -> b tcp/80,443,http", "allow a -> b udp/53"],
    );
}

#[test]
fn equal_rules_are_one() {
    let list =
        "- allow a -> b tcp/80\n- allow a -> b tcp/80 as x\n- allow: {from: a, to: b, ports: [tcp/80]}\n- deny a -> b";
    check_rule(list, &["allow a -> b tcp/80 as x", "deny a -> b any"]);
}

#[test]
fn what_is_wrong_with_a_rule_is_said_where_it_is() {
    check_rule_fault("- allow a b", "4:3: \"allow a b\" is no rule");
    check_rule_fault("- {}", "4:3: a rule needs one of allow, deny, reject or pass");
    check_rule_fault("- {allow: {from: a, to: b}, deny: {from: a, to: b}}", "not both allow and deny");
    check_rule_fault("- permit: {from: a, to: b}\n  allow: {from: a, to: b}", "4:3: \"permit\" is no field of a rule");
    check_rule_fault("- allow: {from: a}", "4:10: a rule needs to");
    check_rule_fault("- allow: {from: a, to: b, ports: []}", "4:34: ports names none: write any");
    check_rule_fault("- allow: {from: a, to: b, ports: [tcp/0]}", "4:35: \"0\" is no port");
    check_rule_fault("- allow: {from: a, to: b, ports: 80}", "4:34: ports is a text, and this is a number");
    check_rule_fault("- allow: {from: a, to: b, on: both}", "4:31: \"both\" is no direction");
    check_rule_fault("- allow: {from: a, to: b, precedence: high}", "4:39: precedence is a number from -268435456");
    check_rule_fault("- allow: {from: a, to: b, precedence: 0100}", "and this is \"0100\"");
    check_rule_fault("- allow: {from: a, to: b, precedence: 1e3}", "and this is \"1e3\"");
    check_rule_fault("- allow: {from: a, to: b, shadow: yes}", "4:35: shadow is true or false, and this is a text");
    check_rule_fault("- allow: {from: a, to: b, until: 10m}", "4:34: \"10m\" is no time: write it in UTC");
    check_rule_fault("- allow: {from: a, to: b, until: 2026}", "4:34: until is a text, and this is a number");
    check_rule_fault("- deny: {from: a, to: b, until: 2026-01-31T09:05:00Z}", "only allow can end");
    check_rule_fault("- pass: {from: a, to: b}", "4:9: \"pass a -> b any\" is no rule: pass needs");
    check_rule_fault("- allow: {from: a, to: b, ports: [tcp/1, udp/1], name: x}", "4:56: a name is one rule's");
    check_rule_fault("- allow: {from: {}, to: b}", "4:17: a selector needs one of app or apps");
    check_rule_fault("- allow: {from: {app: a, apps: {}}, to: b}", "not both app and apps");
    check_rule_fault("- allow: {from: {app: outside}, to: b}", "4:23: \"outside\" is no app name");
    check_rule_fault("- allow: {from: {app: a, role: b}, to: b}", "4:26: \"role\" is no field of a selector");
    check_rule_fault(
        "- allow: {from: {app: a, matchLabels: {a: 1}}, to: b}",
        "is a text, and this is a number: put it in quotes",
    );
    check_rule_fault("- 5", "4:3: a rule is a mapping with allow, deny, reject or pass, and this is a number");
}

#[test]
fn a_field_with_nothing_in_it_is_never_all() {
    for (list, place) in [
        ("- allow: {from: a, to: b, ports: }", "4:27: ports has nothing in it"),
        ("- allow: {from: a, to: b, ports: null}", "4:27: ports has nothing in it"),
        ("- allow: {from: , to: b}", "4:11: from has nothing in it"),
        ("- allow: {from: {app: a, matchLabels: }, to: b}", "4:26: matchLabels has nothing in it"),
        ("- allow: {from: {app: a, matchExpressions: ~}, to: b}", "4:26: matchExpressions has nothing in it"),
        ("- allow: {from: a, to: b, on: }", "4:27: on has nothing in it"),
        ("- allow: {from: a, to: b, shadow: }", "4:27: shadow has nothing in it"),
        ("- allow: {from: a, to: b, until: null}", "4:27: until has nothing in it"),
        ("- allow: {from: {apps: }, to: b}", "4:18: apps has nothing in it"),
    ] {
        let faults = faults(&format!("weft: v1\npolicy: shop\nrules:\n{list}\n"));
        assert!(faults[0].contains(place), "{list}: {faults:?}");
    }
}

#[test]
fn a_document_says_something() {
    check_fault("weft: v1\n", "1:1: this manifest says nothing");
    check_fault("weft: v1\npolicy: shop\n", "2:9: policy shop has no rules: write rules: []");
    check_fault("weft: v1\nrules: []\n", "1:1: a manifest needs policy");
    check_fault("weft: v1\nexpect: [a -> b allow]\n", "1:1: a manifest needs policy");
    check_fault("weft: 1\npolicy: a\nrules: []\n", "1:7: weft is a text, and this is a number");
    check_fault("weft: v1\npolicy: 10\nrules: []\n", "2:9: policy is a text, and this is a number: put it in quotes");
    check_fault("weft: v1\npolicy: a\nexpect: [a -> b]\n", "3:10: \"a -> b\" is no expectation");
    assert_eq!(said("weft: v1\npolicy: a\nexpect: [a -> b allow]\n").policies.len(), 1);
}

#[test]
fn an_app_has_what_is_said_of_it_and_no_more() {
    let manifest = said(
        "weft: v1\napps:\n  shop:\n    prefixes: [10.1.0.0/16, fd00::/32]\n    labels: {team: a}\n    roles:\n    - web\n    \
         - {name: db, labels: {tier: db}, ports: {pg: tcp/5432, dns: [tcp/53, udp/53]}, number: 9}\n    - {name: cache, labels: {}}\n    \
         inside: closed\n    from-apps: open\n    from-host: closed\n    to-outside: open\n    shadow: true\n    number: 300\n    blocks: {h1: [10.1.1.0/24]}\n  \
         blog: {}\n",
    );
    let app = &manifest.apps[&"shop".parse().unwrap()];
    assert_eq!(format!("{:?}", app.prefixes), "Some([10.1.0.0/16, fd00::/32])");
    assert_eq!(app.labels.as_ref().unwrap().to_string(), "team=a");
    let roles: Vec<_> = app
        .roles
        .iter()
        .flatten()
        .map(|(name, (role, number))| {
            format!("{name} {{{}}} {} {:?}", role.labels, role.ports, number.map(|number| number.0))
        })
        .collect();
    let expect = ["cache {}  None", "db {tier=db} dns=tcp/53,dns=udp/53,pg=tcp/5432 Some(9)", "web {role=web}  None"];
    assert_eq!(roles, expect);
    assert_eq!((app.shadow, app.number.map(|number| number.0)), (Some(true), Some(300)));
    let gates = [app.inside, app.from_apps, app.from_host, app.to_outside].map(|gate| gate.unwrap().to_string());
    assert_eq!(gates, ["closed", "open", "closed", "open"]);
    assert_eq!(format!("{:?}", app.blocks), "Some({\"h1\": [10.1.1.0/24]})");
    assert_eq!(app.source.to_string(), "0.yaml:3");
    let blog = &manifest.apps[&"blog".parse().unwrap()];
    assert!(blog.prefixes.is_none() && blog.labels.is_none() && blog.roles.is_none() && blog.blocks.is_none());
    assert!(blog.shadow.is_none() && blog.number.is_none());
    assert!([blog.inside, blog.from_apps, blog.from_host, blog.to_outside].iter().all(Option::is_none));
}

#[test]
fn what_is_wrong_with_an_app_is_said_where_it_is() {
    let check = |app: &str, expect: &str| check_fault(&format!("weft: v1\napps:\n  shop: {app}\n"), expect);
    check("{prefixes: [10.1.0.1/16]}", "3:21: \"10.1.0.1/16\" is no prefix: host bits are set");
    check("{prefixes: 10.1.0.0/16}", "3:20: prefixes is a list, and this is a text");
    check("{inside: ajar}", "3:18: \"ajar\" is no default");
    check("{inside: true}", "3:18: inside is a text, and this is a truth value");
    check("{from_apps: open}", "3:10: \"from_apps\" is no field of an app");
    check("{roles: [web, web]}", "3:23: role web is there twice");
    check("{roles: [{labels: {a: b}}]}", "3:18: a role needs name");
    check("{roles: [{name: db, ports: {pg: tcp/1-2}}]}", "is no named port");
    check("{roles: [{name: db, ports: {pg: [tcp/1, tcp/2]}}]}", "port \"pg\" is there twice for a protocol");
    check("{blocks: {H1: [10.1.1.0/24]}}", "3:19: \"H1\" is no host name");
    check("{shadow: 'on'}", "3:18: shadow is true or false, and this is a text");
    check("{number: 15}", "3:18: number is a number from 16 to 16777215");
    check("{roles: [{name: db, number: 65534}]}", "3:37: number is a number from 1 to 65533");
    check("{labels: }", "3:10: labels has nothing in it");
    check_fault("weft: v1\napps: {any: {}}\n", "2:8: \"any\" is no app name");
}

#[test]
fn what_is_written_looks_as_people_write_it() {
    let text = "weft: v1\npolicy: blog\nrules: []\n---\nweft: v1\npolicy: shop\nrules:\n  \
                - allow shop/web -> blog/db tcp/5432\n  - deny fd00::/8 -> shop{a in (b,c)} any on ingress\nexpect:\n  \
                - shop/web -> blog/db tcp/5432 allow\n  - \"[a=b] -> shop any deny\"\n";
    assert_eq!(write(none(), &said(text).policies), text);
    assert_eq!(
        write(none(), &said("weft: v1\npolicy: 'null'\nrules: []\n").policies),
        "weft: v1\npolicy: \"null\"\nrules: []\n"
    );
    assert_eq!(write(none(), &Policies::new()), "");
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(vec!["allow", "deny", "reject"]);
    let side = || {
        prop_oneof![
            "[a-z]{1,3}(/[a-z]{1,2})?",
            "[a-z]{1,2}\\{[a-z] (in|notin) \\([a-z]{0,2},[A-Z]\\)\\}",
            "\\[[a-z]=[a-z]{0,2}\\](\\{![a-z]\\})?",
            Just("10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16".to_owned()),
            Just("fd00::/8".to_owned()),
            Just("::/0".to_owned()),
        ]
    };
    let traffic =
        prop::sample::select(vec!["any", "tcp", "tcp/1-5,80,http", "udp/53", "sctp/9", "icmp/8", "icmpv6/1/2"]);
    let rest = "( on (ingress|egress))?( precedence -?[1-9][0-9]{0,5})?( until 20[0-9]{2}-0[1-9]-1[0-9]T1[0-9]:00:00Z)?\
                ( as [a-z0-9]{1,5})?";
    let shadow = prop::sample::select(vec!["", "shadow "]);
    let said = (shadow, action, side(), side(), traffic, rest);
    said.prop_filter_map("taken", |(shadow, action, from, to, traffic, rest)| {
        format!("{shadow}{action} {from} -> {to} {traffic}{rest}").parse().ok()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        policies in prop::collection::btree_map(
            "[a-z0-9]{1,4}([.][0-9]|/null|/[0-9]e[0-9])?",
            (prop::collection::vec(rule(), 0..6), prop::collection::vec(rule(), 0..3)),
            0..4,
        )
    ) {
        let policies: Policies = policies
            .into_iter()
            .map(|(name, (rules, expect))| {
                let expect = expect.into_iter().map(|rule| Expectation {
                    from: rule.from,
                    to: rule.to,
                    traffic: rule.traffic,
                    passes: rule.precedence == Precedence::DEFAULT,
                    source: None,
                });
                let rules = crate::manifest::merged(rules.into_iter().map(|rule| ((), rule)).collect());
                let rules = rules.into_iter().map(|((), rule)| rule).collect();
                (name.parse().unwrap(), (Policy { expect: expect.collect() }, rules))
            })
            .collect();
        let mut read = said(&write(none(), &policies)).policies;
        for (policy, rules) in read.values_mut() {
            let expected = policy.expect.iter_mut().map(|expected| &mut expected.source);
            for source in rules.iter_mut().map(|rule| &mut rule.source).chain(expected) {
                prop_assert!(source.take().is_some());
            }
        }
        prop_assert_eq!(read, policies);
    }
}
