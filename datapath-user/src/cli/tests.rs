//! What people see of every answer, and that no answer can do anything to their terminal.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    app, drops, endpoint, flow, json,
    maps::{self, Shown},
    matrix,
    page::{Colour, Page},
    policy, state, why,
};
use crate::front::api::example;

/// Something to do with each answer and what prints it.
trait Visit {
    fn visit<A: Serialize + DeserializeOwned + Clone>(&mut self, name: &str, answer: &A, print: impl Fn(&mut Page, &A));
}

fn visit_all(visitor: &mut impl Visit) {
    let now = example::time(8);
    visitor.visit("app ls", &example::app_list(), app::list);
    visitor.visit("app show", &example::app_detail(), |page, answer| app::detail(page, answer, now));
    visitor.visit("app add", &example::changed(), app::changed);
    visitor.visit("attach", &example::attached(), endpoint::attached);
    visitor.visit("label", &example::relabelled(), endpoint::relabelled);
    visitor.visit("detach", &example::detached(), endpoint::detached);
    visitor.visit("ps", &example::endpoint_list(), |page, answer| endpoint::list(page, answer, now));
    visitor.visit("allow", &example::rule_change(), |page, answer| policy::change(page, answer, "added"));
    visitor.visit("policy ls", &example::rule_list(), |page, answer| policy::list(page, answer, now));
    visitor.visit("policy show", &example::policy(), |page, answer| policy::show(page, answer, now));
    visitor.visit("policy apply", &example::policy_change(), policy::put);
    visitor.visit("policy diff", &example::policy_diff(), policy::diff);
    visitor.visit("policy export", &example::exported(), policy::exported);
    visitor.visit("policy validate", &example::validated(), policy::validated);
    visitor.visit("policy test", &example::test_report(), policy::tested);
    visitor.visit("policy learn", &example::learned(), |page, answer| policy::learned(page, answer, None));
    visitor.visit("policy matrix", &example::matrix(), matrix::show);
    visitor.visit("why", &example::why(), why::answer);
    visitor.visit("why", &example::why_allowed(), why::answer);
    visitor.visit("flows", &example::flow_list(), flow::list);
    visitor.visit("traffic", &example::traffic_list(), flow::traffic);
    visitor.visit("drops", &example::drop_list(), |page, answer| drops::list(page, answer, now));
    visitor.visit("drops -f", &example::dropped(), |page, answer| drops::one(page, answer, None));
    visitor.visit("peers", &example::peer_list(), state::peers);
    visitor.visit("status", &example::status(), |page, answer| state::status(page, answer, now));
    visitor.visit("maps", &example::map_list(), |page, answer| maps::list(page, answer, Shown::Differing));
    visitor.visit("maps NAME", &example::map_list(), |page, answer| maps::list(page, answer, Shown::All));
    visitor.visit("doctor", &example::diagnosis(), state::diagnosis);
    visitor.visit("reset", &example::reset_done(), state::reset);
}

fn printed<A>(answer: &A, colour: Colour, print: impl Fn(&mut Page, &A)) -> String {
    let mut page = Page::new(colour);
    print(&mut page, answer);
    page.into_text()
}

/// All that is printed, under headings.
#[derive(Default)]
struct Golden(String);

impl Visit for Golden {
    fn visit<A: Serialize + DeserializeOwned + Clone>(
        &mut self,
        name: &str,
        answer: &A,
        print: impl Fn(&mut Page, &A),
    ) {
        self.0.extend(["$ weft ", name, "\n", &printed(answer, Colour::Off, print), "\n"]);
    }
}

#[test]
fn answers_are_printed_as_in_the_golden_file() {
    let mut golden = Golden::default();
    visit_all(&mut golden);
    assert!(golden.0 == include_str!("tests/golden.txt"), "tests/golden.txt should be:\n{}", golden.0);
}

/// The fields of every answer as programs see them.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn visit<A: Serialize + DeserializeOwned + Clone>(&mut self, name: &str, answer: &A, _: impl Fn(&mut Page, &A)) {
        let json = json::document(answer).unwrap();
        let fields = fields(&serde_json::from_str(&json).unwrap());
        self.0.extend(fields.iter().map(|field| format!("{name}: {field}\n")));
    }
}

/// Where the values are, with what they are; the same in all elements of a list.
fn fields(value: &Value) -> BTreeSet<String> {
    let below = |key: &str, value| fields(value).into_iter().map(|field| format!("{key}{field}")).collect::<Vec<_>>();
    match value {
        Value::Array(values) => values.iter().flat_map(|value| below("[]", value)).collect(),
        Value::Object(values) => values.iter().flat_map(|(key, value)| below(&format!(".{key}"), value)).collect(),
        Value::String(_) => [" text".to_owned()].into(),
        Value::Number(_) => [" number".to_owned()].into(),
        Value::Bool(_) => [" bool".to_owned()].into(),
        Value::Null => [" null".to_owned()].into(),
    }
}

/// A field that goes or changes its meaning is a new schema: [`crate::front::api::dto::SCHEMA`].
#[test]
fn answers_have_the_fields_that_programs_know() {
    let mut fields = Fields::default();
    visit_all(&mut fields);
    assert!(fields.0 == include_str!("tests/fields.txt"), "tests/fields.txt should be:\n{}", fields.0);
}

/// Checks that nothing depends on colours.
struct Colours;

impl Visit for Colours {
    fn visit<A: Serialize + DeserializeOwned + Clone>(
        &mut self,
        name: &str,
        answer: &A,
        print: impl Fn(&mut Page, &A),
    ) {
        let coloured = printed(answer, Colour::On, &print);
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, printed(answer, Colour::Off, print), "{name}");
    }
}

#[test]
fn colours_change_nothing_but_colours() {
    visit_all(&mut Colours);
}

const POISON: &str = "x\u{1b}[2J\u{1b}]0;pwned\u{7}\r\n\u{9b}31m\u{202e}\u{2066}\u{200b}'$(reboot)";

/// Puts poison into every text of every answer that takes any.
#[derive(Default)]
struct Poisoner {
    texts: BTreeMap<String, usize>,
}

impl Visit for Poisoner {
    fn visit<A: Serialize + DeserializeOwned + Clone>(
        &mut self,
        name: &str,
        answer: &A,
        print: impl Fn(&mut Page, &A),
    ) {
        let clean = serde_json::to_value(answer).unwrap();
        let lines = printed(answer, Colour::Off, &print).lines().count();
        let mut all = clean.clone();
        for path in texts(&clean) {
            let mut one = clean.clone();
            *one.pointer_mut(&path).unwrap() = POISON.into();
            // Times and words of a fixed list take none.
            let Ok(answer) = serde_json::from_value::<A>(one) else { continue };
            *all.pointer_mut(&path).unwrap() = POISON.into();
            *self.texts.entry(name.to_owned()).or_default() += 1;
            check(name, &answer, &print, lines);
        }
        check(name, &serde_json::from_value(all).unwrap(), print, lines);
    }
}

fn check<A: Serialize>(name: &str, answer: &A, print: impl Fn(&mut Page, &A), lines: usize) {
    let text = printed(answer, Colour::Off, &print);
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{name}: {text:?}");
    // A manifest is lines.
    if !["policy export", "policy learn"].contains(&name) {
        assert_eq!(text.lines().count(), lines, "{name}: {text:?}");
    }
    for command in text.split("weft allow").skip(1) {
        assert!(!command.contains("reboot") || !command.starts_with(' '), "{name}: {text:?}");
    }
    let json = json::document(answer).unwrap();
    assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{name}: {json:?}");
}

/// Where the texts of a value are.
fn texts(value: &Value) -> Vec<String> {
    let below = |key: String, value: &Value| texts(value).into_iter().map(move |path| format!("/{key}{path}"));
    match value {
        Value::String(_) => vec![String::new()],
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(at, value)| below(at.to_string(), value).collect::<Vec<_>>()).collect()
        }
        Value::Object(values) => {
            values.iter().flat_map(|(key, value)| below(key.clone(), value).collect::<Vec<_>>()).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[test]
fn no_text_of_an_answer_can_touch_the_terminal() {
    let mut poisoner = Poisoner::default();
    visit_all(&mut poisoner);
    // Every answer has text, but traffic's is only names of apps.
    assert_eq!(poisoner.texts.len(), 28, "{:?}", poisoner.texts);
    assert!(poisoner.texts.values().sum::<usize>() > 200, "{:?}", poisoner.texts);
}
