//! NetworkPolicy: what each field means, left out, null and empty.

use super::{check_fault, rules, said};

/// A policy `p` of namespace `n` with this spec; a fault in it is in line 2.
fn policy(spec: &str) -> String {
    let head = "apiVersion: networking.k8s.io/v1\nspec: ";
    format!("{head}{spec}\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: n}}\n")
}

const IN: [&str; 2] =
    ["deny any -> n any on ingress precedence 500", "deny outside -> n any on ingress precedence 500"];
const OUT: &str = "deny n -> everyone any on egress precedence 500";

fn check(spec: &str, expect: &[&str]) {
    assert_eq!(rules(&policy(spec)), expect, "{spec}");
}

/// That ingress is isolated, and that beside this is allowed.
fn check_in(spec: &str, allowed: &[&str]) {
    let found = rules(&policy(spec));
    assert_eq!(found[..2], IN, "{spec}");
    let allow = |text: &String| {
        let text = text.strip_prefix("allow ").unwrap().strip_suffix(" on ingress precedence 501").unwrap();
        text.to_owned()
    };
    assert_eq!(found[2..].iter().map(allow).collect::<Vec<_>>(), allowed, "{spec}");
}

fn check_peer(peer: &str, expect: &[&str]) {
    let expect: Vec<_> = expect.iter().map(|peer| format!("{peer} -> n any")).collect();
    check_in(&format!("{{ingress: [{{from: {peer}}}]}}"), &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

fn check_ports(ports: &str, expect: &[&str]) {
    let expect: Vec<_> = expect.iter().map(|traffic| format!("everyone -> n {traffic}")).collect();
    check_in(&format!("{{ingress: [{{ports: {ports}}}]}}"), &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

fn check_spec_fault(spec: &str, expect: &str) {
    check_fault(&policy(spec), expect);
}

#[test]
fn an_object_has_a_name_and_a_namespace() {
    let name = |text: &str| said(text).policies.keys().next().unwrap().to_string();
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    assert_eq!(name(&format!("{head}metadata: {{name: web.example.org}}\n")), "networkpolicy/default/web.example.org");
    assert_eq!(name(&format!("{head}metadata: {{name: a, namespace: null}}\n")), "networkpolicy/default/a");
    // As `kubectl get -o yaml` prints it.
    let printed = "metadata:\n  annotations: {a: b}\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n  generation: 1\n  \
                   labels: {a: b}\n  managedFields: [{manager: kubectl}]\n  name: a\n  namespace: shop\n  \
                   resourceVersion: \"1\"\n  uid: 1-2\nstatus: {}\n";
    assert_eq!(name(&format!("{head}{printed}")), "networkpolicy/shop/a");
    check_fault(head, "1:1: an object needs metadata");
    check_fault(&format!("{head}metadata: {{}}\n"), "3:11: metadata needs name");
    check_fault(&format!("{head}metadata: {{name: a/b}}\n"), "3:18: \"a/b\" is no name of an object");
    check_fault(&format!("{head}metadata: {{name: A}}\n"), "3:18: \"networkpolicy/default/A\" is no policy name");
    check_fault(&format!("{head}metadata: {{name: a, namespace: host}}\n"), "3:32: \"host\" is no app name");
    check_fault(&format!("{head}metadata: {{name: a, nmaespace: b}}\n"), "3:21: \"nmaespace\" is no field of metadata");
    check_fault(&format!("{head}metadata: {{name: a}}\nspecs: {{}}\n"), "4:1: \"specs\" is no field of an object");
    check_fault("kind: NetworkPolicy\n", "1:1: an object needs apiVersion");
    check_fault("apiVersion: v1\n", "1:1: an object needs kind");
    check_fault("apiVersion: v1\nkind: Pod\n", "2:7: kind \"Pod\" is no policy");
    check_fault(
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\n",
        "1:13: NetworkPolicy is understood in networking",
    );
}

#[test]
fn a_policy_without_a_subject_selects_all_pods_of_its_namespace() {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\n";
    for rest in ["", "spec:\n", "spec: null\n", "spec: {}\n"] {
        assert_eq!(rules(&format!("{head}{rest}")), IN, "{rest}");
    }
    for pods in ["{}", "null", "{matchLabels: {}}", "{matchLabels: null, matchExpressions: []}"] {
        check(&format!("{{podSelector: {pods}}}"), &IN);
    }
    check(
        "{podSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}}",
        &[
            "deny any -> n{a=b,c} any on ingress precedence 500",
            "deny outside -> n{a=b,c} any on ingress precedence 500",
        ],
    );
}

#[test]
fn policy_types_follow_from_the_rules_if_they_are_left_out() {
    let everyone = "allow n -> everyone any on egress precedence 501";
    for types in ["", "policyTypes: null, ", "policyTypes: [], "] {
        check(&format!("{{{types}podSelector: {{}}}}"), &IN);
        check(&format!("{{{types}egress: []}}"), &IN);
        check(&format!("{{{types}egress: null}}"), &IN);
        check(&format!("{{{types}egress: [{{}}]}}"), &[IN[0], IN[1], OUT, everyone]);
    }
    check("{policyTypes: [Ingress]}", &IN);
    check("{policyTypes: [Egress]}", &[OUT]);
    check("{policyTypes: [Egress, Ingress]}", &[IN[0], IN[1], OUT]);
    // What is not among the types is not enforced.
    check("{policyTypes: [Ingress], egress: [{}]}", &IN);
    check("{policyTypes: [Egress], ingress: [{}]}", &[OUT]);
    check_spec_fault("{policyTypes: [ingress]}", "2:22: \"ingress\" is no policy type: use Ingress or Egress");
    check_spec_fault("{policyTypes: Ingress}", "2:21: policyTypes is a list, and this is a text");
    check_spec_fault("{policyTypes: [null]}", "2:22: a policy type is a text, and this is nothing");
}

#[test]
fn no_rule_allows_nothing_and_an_empty_one_all() {
    for ingress in ["[]", "null", ""] {
        check(&format!("{{ingress: {ingress}}}"), &IN);
        check(
            &format!("{{policyTypes: [Ingress, Egress], ingress: {ingress}, egress: {ingress}}}"),
            &[IN[0], IN[1], OUT],
        );
    }
    check_in("{ingress: [{}]}", &["everyone -> n any"]);
    check_in("{ingress: [{}, {}]}", &["everyone -> n any"]);
    check("{policyTypes: [Egress], egress: [{}]}", &[OUT, "allow n -> everyone any on egress precedence 501"]);
    check_spec_fault("{ingress: [null]}", "2:18: an ingress rule is a mapping with from or ports, and this is nothing");
    check_spec_fault("{ingress: {}}", "2:17: ingress is a list, and this is a mapping");
    check_spec_fault("{ingress: [{to: []}]}", "2:19: \"to\" is no field of an ingress rule: use from or ports");
    check_spec_fault("{egress: [{from: []}]}", "2:18: \"from\" is no field of an egress rule");
    // Also where it is not enforced.
    check_spec_fault("{policyTypes: [Ingress], egress: [{form: []}]}", "\"form\" is no field of an egress rule");
}

#[test]
fn no_peer_is_everyone_and_an_empty_peer_is_a_fault() {
    for from in ["[]", "null", ""] {
        check_peer(from, &["everyone"]);
    }
    for peer in ["{}", "{podSelector: null}", "{podSelector: null, namespaceSelector: null, ipBlock: null}"] {
        check_spec_fault(&format!("{{ingress: [{{from: [{peer}]}}]}}"), "2:26: this peer names nobody");
    }
    check_spec_fault("{ingress: [{from: [null]}]}", "2:26: a peer is a mapping");
    check_spec_fault("{ingress: [{from: [{podSelecter: {}}]}]}", "\"podSelecter\" is no field of a peer");
}

#[test]
fn a_peer_is_in_the_own_namespace_unless_it_names_others() {
    check_peer("[{podSelector: {}}]", &["n"]);
    check_peer("[{podSelector: {matchLabels: {a: b}}}]", &["n{a=b}"]);
    check_peer("[{namespaceSelector: {}}]", &["any"]);
    check_peer("[{namespaceSelector: {matchLabels: {team: x}}}]", &["[team=x]"]);
    check_peer("[{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]", &["any{a=b}"]);
    check_peer("[{namespaceSelector: {}, podSelector: {}}]", &["any"]);
    check_peer("[{namespaceSelector: {matchLabels: {team: x}}, podSelector: {}}]", &["[team=x]"]);
    check_peer("[{namespaceSelector: null, podSelector: {matchLabels: {a: b}}}]", &["n{a=b}"]);
    // In one peer both hold, of two either.
    check_peer(
        "[{namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {a: b}}}]",
        &["[team=x]{a=b}"],
    );
    check_peer(
        "[{namespaceSelector: {matchLabels: {team: x}}}, {podSelector: {matchLabels: {a: b}}}]",
        &["[team=x]", "n{a=b}"],
    );
    check_peer("[{podSelector: {}}, {podSelector: {}}]", &["n"]);
}

#[test]
fn expressions_mean_what_kubernetes_says() {
    let pods = |expression: &str| format!("[{{podSelector: {{matchExpressions: [{expression}]}}}}]");
    check_peer(&pods("{key: a, operator: In, values: [b, c]}"), &["n{a in (b,c)}"]);
    check_peer(&pods("{key: a, operator: NotIn, values: [b]}"), &["n{a!=b}"]);
    check_peer(&pods("{key: a, operator: Exists}"), &["n{a}"]);
    check_peer(&pods("{key: a, operator: Exists, values: []}"), &["n{a}"]);
    check_peer(&pods("{key: a, operator: DoesNotExist, values: null}"), &["n{!a}"]);
    check_peer(&pods("{key: a, operator: In, values: ['']}"), &["n{a=}"]);
    let fault = |expression: &str, expect: &str| {
        check_spec_fault(&format!("{{ingress: [{{from: {}}}]}}", pods(expression)), expect);
    };
    for operator in ["In", "NotIn"] {
        fault(&format!("{{key: a, operator: {operator}}}"), "needs at least one of values");
        fault(&format!("{{key: a, operator: {operator}, values: []}}"), "needs at least one of values");
        fault(&format!("{{key: a, operator: {operator}, values: null}}"), "needs at least one of values");
    }
    fault("{key: a, operator: Exists, values: [b]}", "Exists takes no values");
    fault("{key: a, operator: DoesNotExist, values: [b]}", "DoesNotExist takes no values");
    fault("{key: a, operator: in, values: [b]}", "\"in\" is no operator");
    fault("{key: a}", "a label expression needs operator");
    fault("{operator: Exists}", "a label expression needs key");
    fault("{key: a, operator: In, values: [1]}", "a value is a text, and this is a number");
    fault("{key: a, operator: In, values: [a b]}", "\"a b\" is no label value");
    fault("{key: -a, operator: Exists}", "\"-a\" is no label key");
    fault("{key: a, operator: Exists, value: b}", "\"value\" is no field of a label expression");
    check_spec_fault("{podSelector: {matchLabels: {a: null}}}", "the value of a label is a text, and this is nothing");
    check_spec_fault("{podSelector: {matchLabels: {a: true}}}", "put it in quotes");
    check_spec_fault("{podSelector: {matchLabels: [a]}}", "matchLabels is a mapping, and this is a list");
    check_spec_fault("{podSelector: []}", "2:21: a label selector is a mapping");
    check_spec_fault("{podSelector: {app: web}}", "\"app\" is no field of a label selector: use matchLabels");
}

#[test]
fn no_port_is_all_traffic_and_an_empty_one_all_of_tcp() {
    for ports in ["[]", "null", ""] {
        check_ports(ports, &["any"]);
    }
    check_ports("[{}]", &["tcp"]);
    check_ports("[{protocol: null, port: null, endPort: null}]", &["tcp"]);
    check_ports("[{protocol: UDP}]", &["udp"]);
    check_ports("[{port: 80}]", &["tcp/80"]);
    check_ports("[{protocol: SCTP, port: 80, endPort: 90}]", &["sctp/80-90"]);
    check_ports("[{port: 80, endPort: 80}]", &["tcp/80"]);
    check_ports("[{port: http}, {port: 81}, {protocol: UDP, port: dns}]", &["tcp/81,http", "udp/dns"]);
    check_ports("[{port: 80}, {}]", &["tcp"]);
    let fault = |port: &str, expect: &str| check_spec_fault(&format!("{{ingress: [{{ports: [{port}]}}]}}"), expect);
    fault("null", "2:27: a port is a mapping");
    fault("{protocol: tcp}", "2:38: \"tcp\" is no protocol: use TCP, UDP or SCTP");
    fault("{protocol: ICMP}", "\"ICMP\" is no protocol");
    fault("{protocol: ''}", "\"\" is no protocol");
    fault("{port: 0}", "port is a number from 1 to 65535, and this is \"0\"");
    fault("{port: 65536}", "and this is \"65536\"");
    fault("{port: -1}", "and this is \"-1\"");
    fault("{port: 080}", "and this is \"080\"");
    fault("{port: 80.0}", "and this is \"80.0\"");
    fault("{port: '80'}", "\"80\" is no port name");
    fault("{port: ''}", "\"\" is no port name");
    fault("{port: true}", "and this is a truth value");
    fault("{endPort: 90}", "2:37: endPort needs port");
    fault("{port: http, endPort: 90}", "2:49: a port with a name has no endPort");
    fault("{port: 80, endPort: 79}", "2:47: endPort 79 is below port 80");
    fault("{port: 80, endPort: '90'}", "endPort is a number from 1 to 65535, and this is a text");
    fault("{number: 80}", "\"number\" is no field of a port");
}

#[test]
fn a_block_is_a_prefix_without_its_exceptions() {
    let block = |block: &str| format!("[{{ipBlock: {block}}}]");
    check_peer(&block("{cidr: 10.0.0.0/8}"), &["10.0.0.0/8"]);
    for except in ["[]", "null"] {
        check_peer(&block(&format!("{{cidr: 10.0.0.0/8, except: {except}}}")), &["10.0.0.0/8"]);
    }
    check_peer(&block("{cidr: '::/0', except: [fd00::/8]}"), &["::/0 except fd00::/8"]);
    // The API server warns of host bits and takes them as if they were not set.
    check_peer(&block("{cidr: 10.1.2.3/8, except: [10.1.2.3/16]}"), &["10.0.0.0/8 except 10.1.0.0/16"]);
    let fault =
        |text: &str, expect: &str| check_spec_fault(&format!("{{ingress: [{{from: {}}}]}}", block(text)), expect);
    fault("{}", "2:36: an ipBlock needs cidr");
    fault("{cidr: null}", "2:36: an ipBlock needs cidr");
    fault("{except: []}", "an ipBlock needs cidr");
    fault("{cidr: ''}", "2:43: \"\" is no prefix");
    fault("{cidr: 10.0.0.1}", "2:43: \"10.0.0.1\" is no prefix");
    fault("{cidr: 10.0.0.0/33}", "IPv4 has 32 bits");
    fault("{cidr: '::ffff:10.0.0.0/104'}", "write it as 10.0.0.0/8");
    fault(
        "{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}",
        "2:64: \"11.0.0.0/16\" is no exception: name a part of 10.0.0.0/8",
    );
    fault("{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}", "is no exception");
    fault("{cidr: 10.0.0.0/8, except: [10.0.0.0/7]}", "is no exception");
    fault("{cidr: 10.0.0.0/8, except: ['fd00::/8']}", "is no exception");
    fault("{cidr: 10.0.0.0/8, except: 10.1.0.0/16}", "except is a list");
    check_spec_fault("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", "write two peers");
    check_spec_fault("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]}]}", "write two peers");
}

#[test]
fn egress_is_the_same_the_other_way() {
    check(
        "{podSelector: {matchLabels: {a: b}}, policyTypes: [Egress], \
         egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}, {protocol: UDP}]}, {to: []}]}",
        &[
            "deny n{a=b} -> everyone any on egress precedence 500",
            "allow n{a=b} -> n tcp/80 on egress precedence 501",
            "allow n{a=b} -> n udp on egress precedence 501",
            "allow n{a=b} -> 10.0.0.0/8 tcp/80 on egress precedence 501",
            "allow n{a=b} -> 10.0.0.0/8 udp on egress precedence 501",
            "allow n{a=b} -> everyone any on egress precedence 501",
        ],
    );
}

#[test]
fn a_block_has_no_ports_with_names_and_the_rest_of_its_rule_holds() {
    let rule = |ports: &str| {
        format!("[{{PEERS: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}, {{podSelector: {{}}}}], ports: {ports}}}]")
    };
    let out = |ports: &str, allowed: &[&str]| {
        let spec = format!("{{policyTypes: [Egress], egress: {}}}", rule(ports).replace("PEERS", "to"));
        let allowed = allowed.iter().map(|to| format!("allow n -> {to} on egress precedence 501"));
        let expect: Vec<_> = std::iter::once(OUT.to_owned()).chain(allowed).collect();
        check(&spec, &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    out("[{port: web}]", &["n tcp/web"]);
    out("[{port: web}, {port: 80}]", &["10.0.0.0/8 tcp/80", "n tcp/80,web"]);
    out(
        "[{port: web}, {protocol: UDP, port: dns}, {protocol: SCTP}]",
        &["10.0.0.0/8 sctp", "n tcp/web", "n udp/dns", "n sctp"],
    );
    // Where the block is of senders, the port is of the pod.
    let spec = format!("{{ingress: {}}}", rule("[{port: web}]").replace("PEERS", "from"));
    check_in(&spec, &["10.0.0.0/8 -> n tcp/web", "n -> n tcp/web"]);
}

#[test]
fn every_fault_of_a_policy_is_said() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: P}\nspec:\n  podSelector: []\n  \
                policyTypes: [in]\n  ingress:\n  - from: [{}, {podSelector: 1}]\n    ports: [{port: 0}]\n  \
                - from: x\n  egress: {}\n  extra: 1\n";
    let lines: Vec<_> = super::faults(text).iter().map(|fault| fault.split_once(": ").unwrap().0.to_owned()).collect();
    assert_eq!(lines, ["3:18", "5:16", "6:17", "8:12", "8:30", "9:20", "10:11", "11:11", "12:3"]);
}

mod tiers;
