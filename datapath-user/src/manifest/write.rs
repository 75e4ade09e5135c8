//! weft's own form, written: what is read of it again says the same.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::model::{
    app::{App, Defaults, Gate, Role},
    cluster::Policy,
    labels::Labels,
    name::{AppName, PolicyName, RoleName},
    rule::Rule,
};

use super::{Policies, native::VERSION, tree};

/// Apps, all in one document, and policies, a document each. Rules are in their short form. What hosts give of apps is not
/// written: another cluster has other hosts.
pub fn write<'a>(apps: impl Iterator<Item = &'a App>, policies: &Policies) -> String {
    let mut documents: Vec<String> = Vec::new();
    let apps: String = apps.map(app).collect();
    if !apps.is_empty() {
        documents.push(format!("weft: {VERSION}\napps:\n{apps}"));
    }
    documents.extend(policies.iter().map(|(name, (policy, rules))| one(name, policy, rules, None)));
    documents.join("---\n")
}

/// A policy as a manifest, with what is to hold for an app where its rules do not speak.
pub fn one(name: &PolicyName, policy: &Policy, rules: &[Rule], app: Option<(&AppName, Defaults)>) -> String {
    let mut text = format!("weft: {VERSION}\npolicy: {}\n", scalar(name.as_str()));
    if let Some((app, defaults)) = app {
        let gates: Vec<String> = gates(defaults).iter().map(|(name, gate)| format!("{name}: {gate}")).collect();
        // Writing to a String can not fail.
        writeln!(text, "apps:\n  {}: {{{}}}", scalar(app.as_str()), gates.join(", ")).unwrap_or_default();
    }
    list(&mut text, "rules", rules);
    if !policy.expect.is_empty() {
        list(&mut text, "expect", &policy.expect);
    }
    text
}

fn gates(Defaults { inside, from_apps, from_host, to_outside }: Defaults) -> [(&'static str, Gate); 4] {
    [("inside", inside), ("from-apps", from_apps), ("from-host", from_host), ("to-outside", to_outside)]
}

/// All of an app: what a manifest does not say stays as it is.
fn app(app: &App) -> String {
    let App { name, number, prefixes, labels, roles, defaults, shadow } = app;
    let mut text = format!("  {}:\n", scalar(name.as_str()));
    let mut field = |name: &str, value: Value| {
        // Writing to a String can not fail.
        writeln!(text, "    {name}: {value}").unwrap_or_default();
    };
    if *number != App::number_of(name) {
        field("number", number.0.into());
    }
    field("prefixes", prefixes.iter().map(ToString::to_string).collect());
    field("labels", self::labels(labels));
    field("roles", roles.iter().map(|(name, role)| self::role(name, role)).collect());
    for (name, gate) in gates(*defaults) {
        field(name, gate.name().into());
    }
    field("shadow", (*shadow).into());
    text
}

/// By its name alone, if that says all.
fn role(name: &RoleName, role: &Role) -> Value {
    let plain = Role::plain(name);
    if *role == plain {
        return name.as_str().into();
    }
    let Role { number, labels, ports } = role;
    let ports: Map<_, _> =
        ports.lists().into_iter().map(|(name, list)| (name.to_string(), list.split(',').collect::<Value>())).collect();
    let mut written = json!({ "name": name.as_str(), "labels": self::labels(labels), "ports": ports });
    if *number != plain.number {
        written["number"] = number.0.into();
    }
    written
}

fn labels(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|(key, value)| (key.to_string(), value.to_string().into()));
    pairs.collect::<Map<_, _>>().into()
}

fn list<T: ToString>(text: &mut String, key: &str, items: &[T]) {
    text.push_str(key);
    text.push_str(if items.is_empty() { ": []\n" } else { ":\n" });
    for item in items {
        // Writing to a String can not fail.
        writeln!(text, "  - {}", scalar(&item.to_string())).unwrap_or_default();
    }
}

/// A text without quotes if it is the same text then.
fn scalar(text: &str) -> String {
    let starts_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = starts_plain
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
        && matches!(tree::plain(text), tree::Value::Text(_));
    // A text in quotes is the same in JSON and in YAML.
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}
