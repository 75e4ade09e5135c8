//! How two clusters differ, in lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::front::api::dto::policies::{Kind, Line, Part, Sign};
use crate::model::{
    app::{App, Defaults, Gate},
    cluster::Cluster,
    name::{AppName, PolicyName},
};
use crate::store::change::SetPolicies;

/// What a change makes other, of `before` into `after`: by policy and app, and in each by line. Where a rule is written
/// is no difference.
pub fn difference(before: &Cluster, after: &Cluster, change: &SetPolicies) -> Vec<Part> {
    let SetPolicies { put, remove, apps } = change;
    let names: BTreeSet<&PolicyName> = put.keys().chain(remove).collect();
    let (old, new) = (rules(before, &names), rules(after, &names));
    let of = |cluster: &Cluster, rules: &BTreeMap<&PolicyName, Vec<String>>, name: &PolicyName| {
        let policy = cluster.policies.get(name)?;
        let expected = policy.expect.iter().map(|expected| format!("expect {expected}"));
        Some(rules.get(name).into_iter().flatten().cloned().chain(expected).collect())
    };
    let apps = apps.keys().filter_map(|name| part(format!("app {name}"), app(before, name), app(after, name)));
    let policies =
        names.iter().filter_map(|name| part(format!("policy {name}"), of(before, &old, name), of(after, &new, name)));
    apps.chain(policies).collect()
}

/// The policies of a change that are to go and are not there.
pub fn gone(cluster: &Cluster, change: &SetPolicies) -> Vec<String> {
    change.remove.iter().filter(|name| !cluster.policies.contains_key(*name)).map(ToString::to_string).collect()
}

/// The texts of the rules of some policies.
fn rules<'a>(cluster: &'a Cluster, names: &BTreeSet<&PolicyName>) -> BTreeMap<&'a PolicyName, Vec<String>> {
    let mut found: BTreeMap<&PolicyName, Vec<String>> = BTreeMap::new();
    for rule in cluster.rules.iter() {
        if let Some(policy) = rule.policy.as_ref().filter(|policy| names.contains(policy)) {
            found.entry(policy).or_default().push(rule.to_string());
        }
    }
    found
}

fn part(what: String, before: Option<Vec<String>>, after: Option<Vec<String>>) -> Option<Part> {
    let change = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Kind::New,
        (Some(_), None) => Kind::Gone,
        (Some(before), Some(after)) if before == after => return None,
        (Some(_), Some(_)) => Kind::Changed,
    };
    let lines = lines(&before.unwrap_or_default(), &after.unwrap_or_default());
    // Another order of the same is none: it changes no verdict.
    (change != Kind::Changed || !lines.is_empty()).then_some(Part { what, change, lines })
}

/// What goes, then what comes. A line that is there twice counts twice.
fn lines(before: &[String], after: &[String]) -> Vec<Line> {
    let missing = |of: &[String], from: &[String]| {
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        for text in from {
            *left.entry(text).or_default() += 1;
        }
        let is_missing = |text: &&String| match left.get_mut(text.as_str()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        of.iter().filter(is_missing).cloned().collect::<Vec<_>>()
    };
    let line = |is| move |text| Line { is, text };
    let removed = missing(before, after).into_iter().map(line(Sign::Removed));
    removed.chain(missing(after, before).into_iter().map(line(Sign::Added))).collect()
}

/// What an app has, in lines.
fn app(cluster: &Cluster, name: &AppName) -> Option<Vec<String>> {
    let App { name: _, number, prefixes, labels, roles, defaults, shadow } = cluster.apps.get(name)?;
    let Defaults { inside, from_apps, from_host, to_outside } = *defaults;
    let mut lines = vec![format!("number {}", number.0)];
    lines.extend(prefixes.iter().map(|prefix| format!("prefix {prefix}")));
    lines.extend(labels.iter().map(|(key, value)| format!("label {key}={value}")));
    lines.extend(roles.iter().map(|(name, role)| {
        let ports = if role.ports.is_empty() { String::new() } else { format!(" ports {}", role.ports) };
        format!("role {name} ({}) {}{ports}", role.number.0, role.labels)
    }));
    let gate = |name: &str, gate: Gate| format!("{name} {gate}");
    lines.extend([
        gate("inside", inside),
        gate("from-apps", from_apps),
        gate("from-host", from_host),
        gate("to-outside", to_outside),
    ]);
    lines.extend(shadow.then(|| "shadow".to_owned()));
    let blocks = cluster.hosts.values().flat_map(|host| host.blocks_of(name).map(move |block| (&host.name, block)));
    lines.extend(blocks.map(|(host, block)| format!("block {host} {block}")));
    Some(lines)
}
