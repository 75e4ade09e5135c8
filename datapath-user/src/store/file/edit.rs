//! Changes of a cluster file that leave everything else as somebody wrote it: comments, order, spaces.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use crate::model::{
    app::{App, Defaults, Gate, Role},
    cluster::{Cluster, Policy},
    labels::Labels,
    name::{AppName, HostName, RoleName},
    prefix::Prefix,
    rule::{Rule, Source},
};

use super::super::change::{Change, Promoted, SetPolicies, position};

/// `text`, which describes `cluster`, with a change.
pub(super) fn edit(text: &str, cluster: &Cluster, change: &Change) -> Result<String> {
    let mut document: DocumentMut = text.parse().context("read the file again")?;
    match change {
        Change::AddRule(rule) => add_element(array(&mut document, "rules")?, rule.to_string().into()),
        Change::RemoveRule(which) => remove_element(array(&mut document, "rules")?, position(cluster, which)?),
        Change::Promote(Promoted::Rule(which)) => {
            let at = position(cluster, which)?;
            let rule = Rule { shadow: false, ..cluster.rules[at].as_ref().clone() };
            replace_element(array(&mut document, "rules")?, at, &rule.to_string())?;
        }
        Change::Promote(Promoted::Policy(name)) => {
            let of = cluster.rules.iter().filter(|rule| rule.policy.as_ref() == Some(name));
            let rules: Vec<_> = of.map(|rule| Rule { shadow: false, ..rule.as_ref().clone() }).collect();
            let policy = cluster.policies.get(name).context("find the policy")?;
            let policies = child(document.as_table_mut(), "policy")?;
            policies.insert(name.as_str(), Item::Table(policy_table(policy, &rules)));
        }
        Change::AddApp(app, blocks) | Change::SetApp(app, blocks) => put_app(&mut document, cluster, app, blocks)?,
        Change::AddRole(app, name, role) => {
            let roles = child(child(document.as_table_mut(), "app")?, app.as_str())?;
            let roles = roles.entry("roles").or_insert_with(|| value(Array::new()));
            add_element(roles.as_array_mut().context("roles is no list")?, role_value(name, role));
        }
        Change::RemoveApp(app) => remove_app(&mut document, cluster, app)?,
        Change::SetPolicies(SetPolicies { put, remove, apps }) => {
            for (app, blocks) in apps.values() {
                put_app(&mut document, cluster, app, blocks)?;
            }
            let policies = child(document.as_table_mut(), "policy")?;
            for name in remove {
                policies.remove(name.as_str());
            }
            for (name, (policy, rules)) in put {
                policies.insert(name.as_str(), Item::Table(policy_table(policy, rules)));
            }
            if policies.is_empty() {
                document.remove("policy");
            }
        }
        Change::PutEndpoint(_)
        | Change::RemoveEndpoint(_)
        | Change::EndpointGone(..)
        | Change::Reserve(..)
        | Change::Release(_) => {
            bail!("the file does not describe endpoints");
        }
    }
    Ok(document.to_string())
}

/// The array of this name, which is made if it is not there.
fn array<'a>(document: &'a mut DocumentMut, name: &str) -> Result<&'a mut Array> {
    let item = document.entry(name).or_insert_with(|| value(Array::new()));
    item.as_array_mut().with_context(|| format!("{name} is no list"))
}

/// Adds a last element, laid out like the one before it. What is behind that one, as a comment on its line, stays behind
/// it.
fn add_element(array: &mut Array, mut new: Value) {
    comma_last(array);
    let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
    // The lines behind the last element, and what is in front of the bracket.
    let (lines, bracket) = trailing.rsplit_once('\n').map_or(("", ""), |(lines, bracket)| (lines, bracket));
    let last = array.len().checked_sub(1).and_then(|at| array.get(at)).map(|last| prefix_of(last).to_owned());
    let indent = match &last {
        Some(before) => before.rsplit_once('\n').map(|(_, indent)| indent.to_owned()),
        None => Some("    ".to_owned()),
    };
    if let Some(indent) = indent {
        new.decor_mut().set_prefix(format!("{lines}\n{indent}"));
        array.set_trailing(format!("\n{bracket}"));
        array.push_formatted(new);
        array.set_trailing_comma(true);
    } else {
        new.decor_mut().set_prefix(" ");
        array.push_formatted(new);
    }
}

/// Puts a text in the place of an element, and leaves all around it.
fn replace_element(array: &mut Array, at: usize, text: &str) -> Result<()> {
    let element = array.get_mut(at).context("find the rule")?;
    let mut new = Value::from(text);
    *new.decor_mut() = element.decor().clone();
    *element = new;
    Ok(())
}

/// Puts a comma behind the last element of an array of lines, as editors like it: what is behind the element is
/// then no part of it.
fn comma_last(array: &mut Array) {
    let Some(last) = array.len().checked_sub(1).and_then(|at| array.get_mut(at)) else { return };
    let suffix = last.decor().suffix().and_then(|suffix| suffix.as_str()).unwrap_or_default().to_owned();
    if suffix.contains('\n') {
        last.decor_mut().set_suffix("");
        array.set_trailing(suffix);
        array.set_trailing_comma(true);
    }
}

/// Takes an element out, with what is behind it on its line. Lines of comments before it stay.
fn remove_element(array: &mut Array, at: usize) {
    comma_last(array);
    let Some(before) = array.get(at).map(|element| prefix_of(element).to_owned()) else { return };
    array.remove(at);
    // What came between the comma and the end of the line belongs to what is gone.
    let join = |behind: &str| match behind.split_once('\n') {
        Some((_, rest)) => format!("{}{rest}", before.trim_end_matches([' ', '\t'])),
        None => before.clone(),
    };
    if let Some(next) = array.get_mut(at) {
        let prefix = join(prefix_of(next));
        next.decor_mut().set_prefix(prefix);
    } else {
        let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
        let kept = match trailing.split_once('\n') {
            Some(_) => join(&trailing),
            None => trailing,
        };
        array.set_trailing(kept);
    }
}

fn prefix_of(value: &Value) -> &str {
    value.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default()
}

fn texts(prefixes: &[Prefix]) -> Array {
    prefixes.iter().map(ToString::to_string).collect()
}

/// Writes an app, and what hosts have of it, over what is written of it.
fn put_app(
    document: &mut DocumentMut,
    cluster: &Cluster,
    app: &App,
    blocks: &BTreeMap<HostName, Vec<Prefix>>,
) -> Result<()> {
    let before = cluster.apps.get(&app.name);
    if before != Some(app) {
        set_app(document, app, before)?;
    }
    for host in cluster.hosts.values() {
        let now = blocks.get(&host.name).map(Vec::as_slice).unwrap_or_default();
        if now.is_empty() && host.blocks.contains_key(&app.name) {
            prefixes_of(document, &host.name)?.remove(app.name.as_str());
        } else if !host.blocks_of(&app.name).eq(now) {
            prefixes_of(document, &host.name)?.insert(app.name.as_str(), value(texts(now)));
        }
    }
    Ok(())
}

/// Writes what is other in an app than before.
fn set_app(document: &mut DocumentMut, app: &App, before: Option<&App>) -> Result<()> {
    let App { name, number, prefixes, labels, roles, defaults, shadow } = app;
    let apps = child(document.as_table_mut(), "app")?;
    if before.is_none() {
        apps.insert(name.as_str(), Item::Table(Table::new()));
    }
    let table = child(apps, name.as_str())?;
    let mut set = |key: &str, new: Option<Value>| match (table.get(key).map(Item::as_value), new) {
        // What stays the same stays as it was written.
        (Some(Some(old)), Some(new)) if bare(old) == bare(&new) => {}
        (_, Some(new)) => {
            table.insert(key, value(new));
        }
        (_, None) => {
            table.remove(key);
        }
    };
    if before.map(|before| before.number) != Some(*number) {
        set("number", (*number != App::number_of(name)).then(|| i64::from(number.0).into()));
    }
    set("prefixes", Some(texts(prefixes).into()));
    set("labels", (!labels.is_empty()).then(|| labels_value(labels)));
    for ((key, gate), (_, usual)) in gates(*defaults).into_iter().zip(gates(Defaults::default())) {
        set(key, (gate != usual).then(|| gate.name().into()));
    }
    set("shadow", shadow.then(|| true.into()));
    let none = BTreeMap::new();
    set_roles(table, roles, before.map_or(&none, |before| &before.roles))
}

/// Adds roles behind those that are there; if others are to change or go, all are written anew.
fn set_roles(
    table: &mut dyn TableLike,
    roles: &BTreeMap<RoleName, Role>,
    before: &BTreeMap<RoleName, Role>,
) -> Result<()> {
    if roles == before {
        return Ok(());
    }
    if !before.iter().all(|(name, role)| roles.get(name) == Some(role)) || before.is_empty() {
        let all: Array = roles.iter().map(|(name, role)| role_value(name, role)).collect();
        table.insert("roles", value(all));
        return Ok(());
    }
    let array = table.entry("roles").or_insert_with(|| value(Array::new()));
    let array = array.as_array_mut().context("roles is no list")?;
    for (name, role) in roles.iter().filter(|(name, _)| !before.contains_key(*name)) {
        add_element(array, role_value(name, role));
    }
    Ok(())
}

/// A value's text, without what surrounds it.
fn bare(value: &Value) -> String {
    value.to_string().split_ascii_whitespace().collect()
}

fn labels_value(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str())));
    pairs.collect::<InlineTable>().into()
}

fn role_value(name: &RoleName, role: &Role) -> Value {
    let plain = Role::plain(name);
    if *role == plain {
        return name.as_str().into();
    }
    let mut table = InlineTable::new();
    table.insert("name", name.as_str().into());
    if role.number != plain.number {
        table.insert("number", i64::from(role.number.0).into());
    }
    if role.labels != plain.labels {
        table.insert("labels", labels_value(&role.labels));
    }
    if !role.ports.is_empty() {
        let lists = role.ports.lists().into_iter();
        let pairs = lists.map(|(name, list)| (name.as_str().to_owned(), Value::from(list)));
        table.insert("ports", pairs.collect::<InlineTable>().into());
    }
    table.into()
}

/// A policy with a line for each rule and expectation.
fn policy_table(policy: &Policy, rules: &[Rule]) -> Table {
    let mut table = Table::new();
    let lines = |texts: Vec<(String, Option<&Source>)>| {
        let mut array = Array::new();
        for (text, source) in texts {
            let mut line = match source {
                None => Value::from(text),
                Some(Source { file, line }) => {
                    let mut both = InlineTable::new();
                    both.insert("rule", text.into());
                    both.insert("source", format!("{file}:{line}").into());
                    both.into()
                }
            };
            line.decor_mut().set_prefix("\n    ");
            array.push_formatted(line);
        }
        array.set_trailing("\n");
        array.set_trailing_comma(true);
        value(array)
    };
    table.insert("rules", lines(rules.iter().map(|rule| (rule.to_string(), rule.source.as_ref())).collect()));
    if !policy.expect.is_empty() {
        let expected = policy.expect.iter().map(|expected| (expected.to_string(), expected.source.as_ref()));
        table.insert("expect", lines(expected.collect()));
    }
    table
}

/// Each default with its key.
fn gates(defaults: Defaults) -> [(&'static str, Gate); 4] {
    let Defaults { inside, from_apps, from_host, to_outside } = defaults;
    [("inside", inside), ("from_apps", from_apps), ("from_host", from_host), ("to_outside", to_outside)]
}

fn remove_app(document: &mut DocumentMut, cluster: &Cluster, app: &AppName) -> Result<()> {
    child(document.as_table_mut(), "app")?.remove(app.as_str());
    for host in cluster.hosts.values().filter(|host| host.blocks.contains_key(app)) {
        prefixes_of(document, &host.name)?.remove(app.as_str());
    }
    Ok(())
}

fn prefixes_of<'a>(document: &'a mut DocumentMut, host: &HostName) -> Result<&'a mut dyn TableLike> {
    let hosts = child(document.as_table_mut(), "host")?;
    child(child(hosts, host.as_str())?, "prefixes")
}

/// The table below another, in whatever form it is written; made if it is not there.
fn child<'a>(table: &'a mut dyn TableLike, name: &str) -> Result<&'a mut dyn TableLike> {
    let mut made = Table::new();
    made.set_implicit(true);
    let item = table.entry(name).or_insert(Item::Table(made));
    item.as_table_like_mut().with_context(|| format!("{name} is no table"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;
    use crate::store::change::RuleRef;

    fn cluster(rules: &[&str]) -> Cluster {
        Cluster { rules: example::rules(rules), ..example::cluster() }
    }

    fn add(text: &str, rule: &str) -> String {
        edit(text, &cluster(&[]), &Change::AddRule(rule.parse().unwrap())).unwrap()
    }

    const THREE: &str = r#"# head
rules = [ # all
    # first
    "allow a -> b any", # a to b
    # second
    "deny a -> b tcp", # but
    "allow b -> a any", # last
    # end
] # behind
port = 1 # one
"#;

    #[test]
    fn a_rule_is_added_behind_the_last_and_nothing_else_changes() {
        let check = |text: &str, expect: &str| assert_eq!(add(text, "deny b -> a"), expect);
        check(THREE, &THREE.replace("    # end\n", "    # end\n    \"deny b -> a any\",\n"));
        check("", "rules = [\n    \"deny b -> a any\",\n]\n");
        check("rules = []\n", "rules = [\n    \"deny b -> a any\",\n]\n");
        check("port = 1\n\n[app.a]\n", "port = 1\nrules = [\n    \"deny b -> a any\",\n]\n\n[app.a]\n");
        let one = "\"allow a -> b any\"";
        let two = "\"allow a -> b any\", \"deny b -> a any\"";
        check(&format!("rules = [{one}]\n"), &format!("rules = [{two}]\n"));
        check(&format!("rules = [{one},]\n"), &format!("rules = [{two},]\n"));
        let lines = "rules = [\n  \"allow a -> b any\",  # why\n  \"deny b -> a any\",\n ]\n";
        check(&format!("rules = [\n  {one},  # why\n ]\n"), lines);
        check(&format!("rules = [\n  {one}  # why\n ]\n"), lines);
        check("rules = [\n    # none yet\n]\n", "rules = [\n    # none yet\n    \"deny b -> a any\",\n]\n");
    }

    #[test]
    fn a_rule_is_taken_out_with_what_is_said_on_its_line() {
        let rules = ["allow a -> b any", "deny a -> b tcp", "allow b -> a any"];
        let remove = |text: &str, rules: &[&str], rule: &str| {
            let which = RuleRef::Saying(Box::new(rule.parse().unwrap()));
            edit(text, &cluster(rules), &Change::RemoveRule(which)).unwrap()
        };
        for (rule, line) in rules.iter().zip(["any\", # a to b\n", "tcp\", # but\n", "any\", # last\n"]) {
            let line = format!("    \"{}{line}", rule.strip_suffix(&line[..3]).unwrap());
            assert_eq!(remove(THREE, &rules, rule), THREE.replace(&line, ""));
        }
        let one = "rules = [\"allow a -> b any\"]\n";
        assert_eq!(remove(one, &rules[..1], rules[0]), "rules = []\n");
        let two = "rules = [\"allow a -> b any\", \"deny a -> b tcp\"]\n";
        assert_eq!(remove(two, &rules[..2], rules[1]), one);
        assert_eq!(remove(two, &rules[..2], rules[0]), "rules = [\"deny a -> b tcp\"]\n");
        let lines = "rules = [\n  \"allow a -> b any\",\n  \"deny a -> b tcp\"\n]\n";
        assert_eq!(remove(lines, &rules[..2], rules[1]), "rules = [\n  \"allow a -> b any\",\n]\n");
    }

    #[test]
    fn what_was_added_can_be_taken_out_again() {
        let rules = ["allow a -> b any", "deny a -> b tcp", "allow b -> a any", "deny b -> a any"];
        let added = add(THREE, rules[3]);
        let which = RuleRef::Saying(Box::new(rules[3].parse().unwrap()));
        assert_eq!(edit(&added, &cluster(&rules), &Change::RemoveRule(which)).unwrap(), THREE);
    }
}
