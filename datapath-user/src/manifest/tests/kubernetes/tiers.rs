//! The policies of administrators.

use super::super::{check_fault, rules, said};

const SUBJECT: &str = "subject: {namespaces: {}}";

/// A policy of each kind with this spec; a fault in it is in line 2.
fn admin(spec: &str) -> String {
    object("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", spec)
}

fn baseline(spec: &str) -> String {
    object("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", spec)
}

fn cluster(spec: &str) -> String {
    object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", spec)
}

fn object(version: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {version}\nspec: {{{spec}}}\nkind: {kind}\nmetadata: {{name: default}}\n")
}

fn check(text: &str, expect: &[&str]) {
    assert_eq!(rules(text), expect, "{text}");
}

/// The one rule of a ClusterNetworkPolicy with one rule that has this beside its action.
fn check_egress(rest: &str, expect: &[&str]) {
    let text = cluster(&format!("tier: Admin, priority: 1000, {SUBJECT}, egress: [{{action: Accept, {rest}}}]"));
    let tail = " on egress precedence 16778215";
    let expect: Vec<_> = expect.iter().map(|rule| format!("allow any -> {rule}{tail}")).collect();
    assert_eq!(rules(&text), expect, "{text}");
}

#[test]
fn each_kind_has_its_name() {
    for (text, name) in [
        (admin(&format!("priority: 0, {SUBJECT}")), "adminnetworkpolicy/default"),
        (baseline(SUBJECT), "baselineadminnetworkpolicy/default"),
        (cluster(&format!("tier: Baseline, priority: 0, {SUBJECT}")), "clusternetworkpolicy/default"),
    ] {
        let manifest = said(&text);
        let (found, (_, rules)) = manifest.policies.iter().next().unwrap();
        assert_eq!((found.as_str(), rules.len()), (name, 0));
    }
    let named = |text: String, metadata: &str| text.replace("{name: default}", metadata);
    check_fault(&named(baseline(SUBJECT), "{name: other}"), "4:18: this kind of policy is called default");
    check_fault(
        &named(admin(&format!("priority: 0, {SUBJECT}")), "{name: a, namespace: b}"),
        "4:32: the object is of the whole cluster",
    );
    check_fault(
        &object("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", ""),
        "1:13: ClusterNetworkPolicy is",
    );
    check_fault(&object("policy.networking.k8s.io/v1alpha2", "AdminNetworkPolicy", ""), "1:13: AdminNetworkPolicy is");
    check_fault(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: a}\n",
        "needs spec",
    );
}

#[test]
fn the_order_of_rules_is_their_precedence() {
    let rules = "ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}], \
                 egress: [{action: ALLOW, to: [{namespaces: {}}]}]";
    let allow = |word: &str| rules.replace("ALLOW", word);
    check(
        &admin(&format!("priority: 0, {SUBJECT}, {}", allow("Allow"))),
        &[
            "pass any -> any any on ingress precedence 17778215",
            "deny any -> any any on ingress precedence 17778214",
            "allow any -> any any on egress precedence 17778215",
        ],
    );
    check(
        &cluster(&format!("tier: Admin, priority: 1000, {SUBJECT}, {}", allow("Accept"))),
        &[
            "pass any -> any any on ingress precedence 16778215",
            "deny any -> any any on ingress precedence 16778214",
            "allow any -> any any on egress precedence 16778215",
        ],
    );
    check(
        &cluster(&format!("tier: Baseline, priority: 7, {SUBJECT}, {}", allow("Accept"))),
        &[
            "pass any -> any any on ingress precedence -7001",
            "deny any -> any any on ingress precedence -7002",
            "allow any -> any any on egress precedence -7001",
        ],
    );
    let without_pass = allow("Allow").replace("Pass", "Allow");
    check(
        &baseline(&format!("{SUBJECT}, {without_pass}")),
        &[
            "allow any -> any any on ingress precedence -1",
            "deny any -> any any on ingress precedence -2",
            "allow any -> any any on egress precedence -1",
        ],
    );
    // The last rule of the lowest priority is still of its tier.
    let rule = "{action: Pass, from: [{namespaces: {}}]}, ";
    let many = super::super::rules(&admin(&format!("priority: 1000, {SUBJECT}, ingress: [{}]", rule.repeat(100))));
    assert!(many[99].ends_with("precedence 16778116"), "{}", many[99]);
    check_fault(&admin(&format!("priority: 0, {SUBJECT}, ingress: [{}]", rule.repeat(101))), "ingress has 101 items");
    check_fault(
        &cluster(&format!("tier: Admin, priority: 0, {SUBJECT}, ingress: [{}]", rule.repeat(26))),
        "at most 25 are understood",
    );
}

#[test]
fn what_has_to_be_there_is_there() {
    check_fault(&admin(SUBJECT), "needs priority");
    check_fault(&admin(&format!("priority: null, {SUBJECT}")), "needs priority");
    for priority in ["-1", "1001", "0x1", "'1'", "1.0"] {
        check_fault(&admin(&format!("priority: {priority}, {SUBJECT}")), "priority is a number from 0 to 1000");
    }
    check_fault(&baseline(&format!("priority: 1, {SUBJECT}")), "\"priority\" is no field of the spec of a Baseline");
    check_fault(&admin(&format!("tier: Admin, priority: 1, {SUBJECT}")), "\"tier\" is no field");
    check_fault(&cluster(&format!("priority: 1, {SUBJECT}")), "needs tier");
    check_fault(
        &cluster(&format!("tier: admin, priority: 1, {SUBJECT}")),
        "\"admin\" is no tier: use Admin or Baseline",
    );
    check_fault(&admin("priority: 1"), "needs subject");
    for subject in ["{}", "{pods: null}"] {
        check_fault(&admin(&format!("priority: 1, subject: {subject}")), "a subject needs one of namespaces or pods");
    }
    check_fault(
        &admin("priority: 1, subject: {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}"),
        "not both namespaces and pods",
    );
    check_fault(&admin("priority: 1, subject: {pods: {podSelector: {}}}"), "pods needs namespaceSelector");
    check_fault(&admin("priority: 1, subject: {pods: {namespaceSelector: {}}}"), "pods needs podSelector");
    check_fault(
        &cluster("tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: null}}"),
        "pods needs podSelector",
    );
}

#[test]
fn a_rule_has_an_action_and_peers() {
    let fault = |rule: &str, expect: &str| {
        check_fault(&admin(&format!("priority: 1, {SUBJECT}, egress: [{rule}]")), expect);
    };
    let to = "to: [{namespaces: {}}]";
    fault(&format!("{{{to}}}"), "an egress rule needs action");
    fault(&format!("{{action: Accept, {to}}}"), "\"Accept\" is no action: use Allow, Deny or Pass");
    fault(&format!("{{action: allow, {to}}}"), "\"allow\" is no action");
    fault("{action: Allow}", "an egress rule needs to");
    fault("{action: Allow, to: null}", "an egress rule needs to");
    fault("{action: Allow, to: []}", "to names none");
    fault("{action: Allow, to: [{}]}", "a peer needs one of namespaces, pods, networks, nodes or domainNames");
    fault("{action: Allow, to: [{namespaces: null}]}", "a peer needs one of");
    fault("{action: Allow, to: [{namespaces: {}, nodes: {}}]}", "not both namespaces and nodes");
    fault(&format!("{{action: Allow, name: 1, {to}}}"), "name is a text");
    fault(&format!("{{action: Allow, {to}, from: []}}"), "\"from\" is no field of an egress rule");
    fault(&format!("{{action: Allow, {to}, protocols: []}}"), "\"protocols\" is no field of an egress rule");
    fault("{action: Allow, to: [{domainNames: [example.org]}]}", "names of domains are not understood");
    fault("{action: Allow, to: [{nodes: {matchLabels: {a: b}}}]}", "hosts have no labels");
    fault("{action: Allow, to: [{networks: []}]}", "networks names none");
    fault("{action: Allow, to: [{networks: [10.0.0.0]}]}", "\"10.0.0.0\" is no prefix");
    check_fault(
        &admin(&format!("priority: 1, {SUBJECT}, ingress: [{{action: Allow, from: [{{networks: [10.0.0.0/8]}}]}}]")),
        "\"networks\" is no field of a peer",
    );
    check_fault(
        &baseline(&format!("{SUBJECT}, egress: [{{action: Pass, {to}}}]")),
        "\"Pass\" is no action: use Allow or Deny",
    );
    check_fault(
        &cluster(&format!("tier: Admin, priority: 1, {SUBJECT}, egress: [{{action: Allow, {to}}}]")),
        "\"Allow\" is no action: use Accept, Deny or Pass",
    );
}

#[test]
fn peers_are_pods_hosts_and_networks() {
    check_egress("to: [{namespaces: {}}]", &["any any"]);
    check_egress("to: [{namespaces: {matchLabels: {a: b}}}, {nodes: {}}]", &["[a=b] any", "host any"]);
    check_egress(
        "to: [{pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}}}]",
        &["[a=b]{c=d} any"],
    );
    // Left out it is every namespace, in this kind.
    check_egress("to: [{pods: {podSelector: {matchLabels: {c: d}}}}]", &["any{c=d} any"]);
    check_egress("name: x, to: [{networks: [10.1.0.1/8, '::/0']}]", &["10.0.0.0/8 any", "::/0 any"]);
    check(
        &admin(
            "priority: 1000, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}, \
             ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {}}}]}]",
        ),
        &["deny any -> any{a=b} any on ingress precedence 16778215"],
    );
}

#[test]
fn ports_are_named_in_two_ways() {
    let new = |protocols: &str, expect: &[&str]| {
        let expect: Vec<_> = expect.iter().map(|traffic| format!("any {traffic}")).collect();
        let rest = format!("to: [{{namespaces: {{}}}}], protocols: {protocols}");
        check_egress(&rest, &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let old = |ports: &str, expect: &[&str]| {
        let rule = format!("{{action: Allow, to: [{{namespaces: {{}}}}], ports: {ports}}}");
        let found = rules(&admin(&format!("priority: 1000, {SUBJECT}, egress: [{rule}]")));
        let bare = |rule: &String| {
            let rule = rule.strip_prefix("allow any -> any ").unwrap();
            rule.strip_suffix(" on egress precedence 16778215").unwrap().to_owned()
        };
        assert_eq!(found.iter().map(bare).collect::<Vec<_>>(), expect, "{ports}");
    };
    new("null", &["any"]);
    new(
        "[{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}]",
        &["tcp/80", "udp/1-9"],
    );
    new("[{sctp: {destinationPort: {number: 80}}}, {sctp: {destinationPort: {number: 81}}}]", &["sctp/80-81"]);
    new("[{destinationNamedPort: http}]", &["tcp/http", "udp/http", "sctp/http"]);
    old("null", &["any"]);
    old("[{portNumber: {port: 80}}, {portNumber: {protocol: UDP, port: 53}}]", &["tcp/80", "udp/53"]);
    old("[{portRange: {protocol: SCTP, start: 1, end: 9}}, {namedPort: x}]", &["sctp/1-9,x", "tcp/x", "udp/x"]);

    let new_fault = |rest: &str, expect: &str| {
        let rule = format!("{{action: Accept, {rest}}}");
        check_fault(&cluster(&format!("tier: Admin, priority: 1, {SUBJECT}, egress: [{rule}]")), expect);
    };
    let fault = |protocols: &str, expect: &str| {
        new_fault(&format!("to: [{{namespaces: {{}}}}], protocols: {protocols}"), expect);
    };
    fault("[]", "protocols names none");
    fault("[{}]", "a protocol needs one of tcp, udp, sctp or destinationNamedPort");
    fault("[{tcp: null}]", "a protocol needs one of");
    fault("[{tcp: {}}]", "a transport protocol needs destinationPort");
    fault("[{tcp: {destinationPort: {}}}]", "a destinationPort needs one of number or range");
    fault("[{tcp: {destinationPort: {number: 0}}}]", "number is a number from 1 to 65535");
    fault("[{tcp: {destinationPort: {range: {start: 1}}}}]", "a range needs end");
    fault("[{tcp: {destinationPort: {range: {start: 9, end: 9}}}}]", "a range ends above its start");
    fault("[{tcp: {destinationPort: {number: 1}}, udp: {destinationPort: {number: 1}}}]", "not both tcp and udp");
    fault("[{destinationNamedPort: ''}]", "\"\" is no port name");
    new_fault(
        "to: [{nodes: {}}], protocols: [{destinationNamedPort: a}]",
        "networks and nodes have no ports with names",
    );
    new_fault("to: [{networks: ['::/0']}], protocols: [{destinationNamedPort: a}]", "have no ports with names");
    let fault = |ports: &str, expect: &str| {
        let rule = format!("{{action: Allow, to: [{{namespaces: {{}}}}], ports: {ports}}}");
        check_fault(&admin(&format!("priority: 1, {SUBJECT}, egress: [{rule}]")), expect);
    };
    fault("[]", "ports names none");
    fault("[{}]", "a port needs one of portNumber, portRange or namedPort");
    fault("[{portNumber: {}}]", "a portNumber needs port");
    fault("[{portNumber: {protocol: ICMP, port: 1}}]", "\"ICMP\" is no protocol");
    fault("[{portRange: {start: 9, end: 1}}]", "a range ends above its start, and 1 is not above 9");
}
