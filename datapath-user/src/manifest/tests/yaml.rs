//! The text: places, several documents, and what YAML can do to a reader.

use std::fmt::Write as _;

use super::{check_fault, faults, read_all, rules, said};
use crate::{model::name::PolicyName, store::Position};

const HEAD: &str = "weft: v1\npolicy: shop\n";

#[test]
fn every_fault_of_every_file_has_its_place() {
    let texts = [
        "weft: v1\npolicy: Shop\nrules:\n- allow a -> B\n- allow: {from: a, too: b}\n---\nweft: v2\nrule: []\n",
        "weft: v1\npolicy: shop\nrules: [allow a -> b]\n",
        "weft: v1\npolicy: [\n---\nweft: v1\npolicy: blog\nrules: nothing\n",
    ];
    let problems = read_all(&texts).unwrap_err();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| {
            let Position { line, column } = problem.position.unwrap();
            format!("{}:{line}:{column}", problem.file)
        })
        .collect();
    let expect = [
        "0.yaml:2:9",
        "0.yaml:4:3",
        "0.yaml:5:10",
        "0.yaml:5:20",
        "0.yaml:7:1",
        "0.yaml:7:7",
        "0.yaml:8:1",
        "2.yaml:2:9",
        "2.yaml:6:8",
    ];
    assert_eq!(places, expect, "{problems:#?}");
}

#[test]
fn columns_count_characters() {
    check_fault("weft: v1\npolicy: shop\nrules: [\"\u{e9}\u{1f600}\", allow a -> b]\n", "3:9: \"\\u{e9}");
    check_fault(&format!("{HEAD}rules: [] # \u{e9}\n\u{e9}\u{e9}: 1\n"), "4:1: ");
    check_fault(
        &format!("{HEAD}expect: [\u{e9}\u{e9}\u{e9} -> b allow, a b]\nrules: []\n").replace("\u{e9}", "e"),
        "3:26",
    );
    check_fault(&format!("{HEAD}rules: [{{allow: {{from: \"\u{e9}\", to: b}}}}]\n"), "3:24: ");
}

#[test]
fn several_documents_and_lists_are_read() {
    let manifest = said(
        "# nothing\n---\n---\nweft: v1\npolicy: a\nrules: []\n...\n---\nweft: v1\npolicy: b\nrules: []\n---\n# end\n---\n\
         apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n\
         - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c}}\n\
         - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: d, namespace: shop}}\n",
    );
    let names: Vec<_> = manifest.policies.keys().map(PolicyName::as_str).collect();
    assert_eq!(names, ["a", "b", "networkpolicy/default/c", "networkpolicy/shop/d"]);
    assert!(said("").policies.is_empty() && said("# nothing\n").policies.is_empty());
    assert_eq!(
        said("{apiVersion: v1, kind: List, items: []}"),
        super::Manifest { documents: 1, ..super::Manifest::default() }
    );
}

#[test]
fn json_is_yaml() {
    let tabs = "{\n\t\"weft\": \"v1\",\n\t\"policy\": \"shop\",\n\t\"rules\": [\n\t\t\"allow a -> b\"\n\t]\n}\n";
    assert_eq!(rules(tabs), ["allow a -> b any"]);
    assert_eq!(rules("{\"weft\":\"v1\",\"policy\":\"shop\",\"rules\":[\"allow a -\\u003e b\"]}"), ["allow a -> b any"]);
    assert_eq!(rules("\u{feff}{\"weft\":\"v1\",\"policy\":\"shop\",\"rules\":[]}").len(), 0);
    assert_eq!(rules("weft: v1\r\npolicy: shop\r\nrules:\r\n- allow a -> b\r\n"), ["allow a -> b any"]);
}

#[test]
fn rules_know_their_line() {
    let manifest =
        said(&format!("{HEAD}rules:\n- allow a -> b\n-\n  deny:\n    {{from: a, to: b}}\nexpect: [a -> b allow]\n"));
    let (policy, rules) = manifest.policies.values().next().unwrap();
    let lines: Vec<_> = rules.iter().map(|rule| rule.source.as_ref().unwrap().to_string()).collect();
    assert_eq!(lines, ["0.yaml:4", "0.yaml:6"]);
    assert_eq!(policy.expect[0].source.as_ref().unwrap().to_string(), "0.yaml:8");
}

#[test]
fn nothing_is_there_twice() {
    check_fault("weft: v1\npolicy: shop\nrules: []\npolicy: blog\n", "4:1: \"policy\" is there twice, first in line 2");
    check_fault(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n\
         spec:\n  podSelector: {matchLabels: {a: b, a: c}}\n",
        "5:37: \"a\" is there twice",
    );
    let text = "weft: v1\npolicy: shop\nrules: []\n";
    let problems = read_all(&[text, text]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("1.yaml:2:9: policy shop is in 0.yaml:2 already"), "{}", problems[0]);
    check_fault("weft: v1\napps: {a: {}}\n---\nweft: v1\napps: {a: {}}\n", "5:8: app a is in 0.yaml:2 already");
}

#[test]
fn an_alias_is_what_it_stands_for() {
    let text =
        format!("{HEAD}rules:\n- allow: &r {{from: a, to: b, ports: &p [tcp/1, udp/1]}}\n- deny: *r\n- pass: *p\n");
    check_fault(
        &text,
        "4:40: a rule is a mapping with from, to, ports, on, precedence, shadow, until or name, and this is a list",
    );
    let text = format!("{HEAD}rules:\n- allow: &r {{from: &a a, to: b}}\n- deny: *r\n- reject: {{from: *a, to: c}}\n");
    assert_eq!(rules(&text), ["allow a -> b any", "deny a -> b any", "reject a -> c any"]);
    // The whole document.
    assert_eq!(rules(&format!("&all\n{HEAD}rules: [allow a -> b]\n")), ["allow a -> b any"]);
    assert_eq!(rules("&all\nweft: v1\npolicy: shop\nrules: [allow a -> b]\n"), ["allow a -> b any"]);
    check_fault(&format!("{HEAD}rules: &r [*r]\n"), "an alias can not stand for what it is a part of");
    check_fault(&format!("{HEAD}rules: [*r]\n"), "this is no YAML");
    check_fault(
        &format!("{HEAD}rules:\n- allow: {{<<: {{from: a}}, to: b, from: c}}\n"),
        "\"<<\" is no field of a rule",
    );
}

#[test]
fn a_document_can_not_grow_when_it_is_read() {
    let mut text = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        writeln!(text, "b{level}: &a{level} [{}]", vec![before; 10].join(", ")).unwrap();
    }
    check_fault(&text, "has more than 1000000 values");
    let rules = format!("{HEAD}rules:\n- &r allow a -> b\n{}", "- *r\n".repeat(1000));
    assert_eq!(said(&rules).policies.values().next().unwrap().1.len(), 1);
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("{HEAD}rules: {}{}", open.repeat(100_000), close.repeat(100_000));
        check_fault(&text, "this is no YAML");
    }
    let text = (0..10_000).fold(String::new(), |text, level| text + &" ".repeat(level) + "-\n");
    check_fault(&text, "this is no YAML");
}

#[test]
fn a_large_document_is_read() {
    let ports: Vec<_> = (1..=60_000).map(|port| format!("tcp/{port}")).collect();
    let labels: Vec<_> = (0..60_000).map(|number| format!("l{number}: a")).collect();
    let text = format!(
        "{HEAD}rules:\n- allow:\n    from: a\n    to: {{app: b, matchLabels: {{{}}}}}\n    ports: [{}]\n",
        labels.join(", "),
        ports.join(", ")
    );
    let rules = rules(&text);
    assert!(rules.len() == 1 && rules[0].ends_with(" tcp/1-60000"), "{}", rules.len());
    let text =
        format!("{HEAD}rules:\n{}", (0..20_000).fold(String::new(), |text, n| text + &format!("- allow a{n} -> b\n")));
    assert_eq!(super::rules(&text).len(), 20_000);
}

#[test]
fn what_yaml_can_say_beside_is_refused() {
    check_fault(&format!("{HEAD}rules: !include other.yaml\n"), "3:17: the tag \"!include\" is not understood");
    check_fault(&format!("{HEAD}rules: !!set {{a}}\n"), "is not understood");
    check_fault(&format!("{HEAD}rules: []\n? [a]\n: b\n"), "4:3: a key is a text");
    check_fault(&format!("{HEAD}rules: []\n\u{1b}[31m: b\n"), "");
    check_fault("just a text\n", "1:1: a manifest is a mapping, and this is a text");
    check_fault("[]\n", "1:1: a manifest is a mapping, and this is a list");
    check_fault("a: b\n", "1:1: this is no manifest: write weft: v1, or apiVersion and kind");
    check_fault("weft: v1\n\tpolicy: shop\n", "this is no YAML");
    check_fault("weft: v1\npolicy: !!str 2048\nrules: [a]\n", "3:9");
}

#[test]
fn scalars_have_the_types_of_the_core_schema() {
    let check = |text: &str, kind: &str| {
        check_fault(&format!("{HEAD}rules: {text}\n"), &format!("3:8: rules is a list, and this is {kind}"));
    };
    for text in ["1", "-1", "+1.5", ".5", "5.", "1e3", "1.5E-3", "0x1F", "0o17", "007", ".inf", "-.Inf", ".nan"] {
        check(text, "a number");
    }
    for text in ["true", "False", "TRUE"] {
        check(text, "a truth value");
    }
    for text in ["yes", "on", "1.2.3", "0x", "1e", ".", "+", "\"1\"", "'null'", "1_000", "10.0.0.0/8", "-.nan", "e3"] {
        check(text, "a text");
    }
    for text in ["", "~", "null", "Null", "NULL"] {
        let faults = faults(&format!("{HEAD}rules: {text}\n"));
        assert!(faults.iter().any(|fault| fault.contains("3:1: rules has nothing in it")), "{faults:?}");
    }
}

#[test]
fn no_text_can_break_the_reader() {
    use proptest::prelude::*;
    let piece = prop::sample::select(vec![
        "weft: v1\n",
        "policy: a\n",
        "rules:\n",
        "- ",
        "allow",
        " a -> b",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!!str ",
        "\n",
        "  ",
        "---\n",
        "...\n",
        "\"",
        "'",
        "|\n",
        ">\n",
        "? ",
        "%YAML 1.2\n",
        "#",
        "\t",
        "\u{feff}",
        "\u{0}",
        "\r",
        "apiVersion: networking.k8s.io/v1\n",
        "kind: NetworkPolicy\n",
        "spec:\n",
        "  ingress:\n",
        ", ",
        "null",
        "1",
        "\u{e9}",
        "\u{202e}",
        "metadata: {name: a}\n",
        "kind: List\napiVersion: v1\nitems:\n",
    ]);
    proptest!(ProptestConfig::with_cases(2000), |(pieces in prop::collection::vec(piece, 0..30))| {
        if let Err(problems) = read_all(&[&pieces.concat()]) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.to_string().is_ascii()));
        }
    });
}
