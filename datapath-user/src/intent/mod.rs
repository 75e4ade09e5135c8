//! What manifests come to: the change they ask for, how that differs from what is there, whether what policies expect
//! holds, and who reaches whom. As the API answers it, for the daemon and for a command line without one.
//!
//! Knows nothing of hosts, kernels and files. Invariant: what is refused is refused before anything is changed, with all
//! that is wrong and where it was written.

mod difference;
mod learn;
mod matrix;
mod room;

pub use difference::{difference, gone};
pub use learn::{comment, learn};
pub use matrix::matrix;
pub use room::{admit, admit_alone};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_common::id::RoleId;

use crate::front::api::{
    dto::{
        policies::{Document, Exported, TestReport, Tested, Validated},
        side::{RuleMention, Source},
    },
    refusal::{Kind, Refusal},
};
use crate::manifest::{self, AppSpec, File, Manifest, Written};
use crate::model::{
    app::{App, Defaults, Role},
    check::{self, Fault, Place},
    cluster::{Cluster, Policy},
    name::{AppName, HostName, PolicyName, RoleName},
    prefix::Prefix,
    rule::Rule,
    selector::{Apps, Selector},
};
use crate::plan::{
    NodePlan,
    expect::{self, Breach, Checked},
};
use crate::store::{
    ChangeError, Problem,
    change::{SetPolicies, with_policies},
    file,
};

/// The policy that rules of none are exported as.
const LOOSE: &str = "rules";

/// Reads manifests. All that is wrong with them is told.
pub fn read(documents: Vec<Document>) -> Result<Manifest, Refusal> {
    if documents.is_empty() {
        return Err(Refusal::invalid("there is no manifest: name a file, a folder, or - with -f"));
    }
    let files: Vec<File> =
        documents.into_iter().map(|Document { name, text }| File { name: name.into(), text }).collect();
    let manifest = manifest::read(&files).map_err(|problems| refuse(problems.iter().map(Problem::to_string)))?;
    if manifest.documents == 0 {
        // Taken for a manifest that says nothing, a command that failed in front of a pipe would look like success.
        let names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
        let why = format!("there is no manifest in {}: it is empty, or has only comments", names.join(", "));
        return Err(Refusal::invalid(why));
    }
    Ok(manifest)
}

/// Manifests that say nothing.
pub fn nothing() -> Manifest {
    Manifest::default()
}

/// A change of policies and apps.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The change.
    pub change: SetPolicies,
    /// Where it was written.
    written: Written,
}

impl Wanted {
    /// That these policies go.
    pub fn without(remove: BTreeSet<PolicyName>) -> Self {
        Self { change: SetPolicies { remove, ..SetPolicies::default() }, ..Self::default() }
    }
}

/// The change that makes a cluster as manifests say.
pub fn wanted(cluster: &Cluster, manifest: Manifest) -> Wanted {
    let Manifest { policies, apps, written, documents: _ } = manifest;
    let apps = apps.into_iter().map(|(name, spec)| {
        let app = over(&name, spec, cluster);
        (name, app)
    });
    let change = SetPolicies { put: policies, remove: BTreeSet::new(), apps: apps.collect() };
    Wanted { change, written }
}

/// What a change makes of a cluster, if that has no fault and breaks nothing that is expected. The plan that runs spares
/// the compiler what is no other.
pub fn preview(cluster: &Cluster, wanted: &Wanted, running: &NodePlan) -> Result<(Cluster, u64), Refusal> {
    let next = sound(cluster, wanted)?;
    let checked = kept(cluster, &next, |policy| wanted.change.put.contains_key(policy), running)?;
    Ok((next, checked))
}

/// What a change makes of a cluster, if that has no fault, and what it breaks of what is expected, a sentence each.
pub fn outcome(cluster: &Cluster, wanted: &Wanted, running: &NodePlan) -> Result<(Cluster, Vec<String>), Refusal> {
    let next = sound(cluster, wanted)?;
    let breaks = broken(cluster, &next, |policy| wanted.change.put.contains_key(policy), running).err();
    Ok((next, breaks.unwrap_or_default()))
}

fn sound(cluster: &Cluster, Wanted { change, written }: &Wanted) -> Result<Cluster, Refusal> {
    let next = with_policies(cluster, change)?;
    check::check(&next).map_err(|faults| written.refuse(&next, &faults))?;
    Ok(next)
}

/// Refuses what breaks expectations that held before, or any of the policies that are `put`. How many hold.
pub fn kept(
    before: &Cluster,
    next: &Cluster,
    put: impl Fn(&PolicyName) -> bool,
    running: &NodePlan,
) -> Result<u64, Refusal> {
    let why = "nothing was changed, it would break what is expected";
    broken(before, next, put, running).map_err(|broken| refuse(broken.into_iter()).because(why))
}

/// How many expectations hold, or those that [`kept`] refuses to break.
fn broken(
    before: &Cluster,
    next: &Cluster,
    put: impl Fn(&PolicyName) -> bool,
    running: &NodePlan,
) -> Result<u64, Vec<String>> {
    let same = Arc::ptr_eq(&before.rules, &next.rules)
        && Arc::ptr_eq(&before.apps, &next.apps)
        && Arc::ptr_eq(&before.policies, &next.policies);
    if same {
        return Ok(0);
    }
    let all = expect::check(next, running);
    let (held, mut broken): (Vec<_>, Vec<_>) = all.into_iter().partition(|checked| checked.fault.is_none());
    if broken.iter().any(|checked| !put(&checked.policy)) {
        // Somebody who repairs one thing is not to be stopped by another that was broken before, by a hand in the file.
        let old: Vec<_> =
            expect::check(before, running).into_iter().filter(|checked| checked.fault.is_some()).collect();
        let was = |new: &Checked| {
            old.iter().any(|old| old.policy == new.policy && old.expected.to_string() == new.expected.to_string())
        };
        broken.retain(|checked| put(&checked.policy) || !was(checked));
    }
    if broken.is_empty() {
        return Ok(held.len() as u64);
    }
    let one = |checked: &Checked| {
        let Tested { policy, text, source, why, .. } = tested(checked);
        let at = source.map(|Source { file, line, .. }| format!("{file}:{}: ", line.unwrap_or_default()));
        let at = at.unwrap_or_default();
        format!("{at}policy {policy} expects `{text}`: {}", why.unwrap_or_default())
    };
    Err(broken.iter().map(one).collect())
}

/// What came of all expectations of a cluster.
pub fn test(cluster: &Cluster) -> TestReport {
    let expectations: Vec<Tested> = expect::check(cluster, &NodePlan::default()).iter().map(tested).collect();
    let failed = expectations.iter().filter(|tested| tested.why.is_some()).count() as u64;
    TestReport { expectations, failed }
}

/// The cluster that manifests and a cluster file describe, or manifests alone.
pub fn describe(manifest: Manifest, base: Option<Document>) -> Result<Cluster, Refusal> {
    let base = match base {
        Some(Document { name, text }) => {
            file::describe(&name.into(), &text).map_err(|problem| Refusal::invalid(problem.to_string()))?
        }
        None => Cluster::default(),
    };
    let Wanted { mut change, written } = wanted(&base, manifest);
    if base.hosts.is_empty() {
        // Who is given what is for hosts to know, and there are none.
        change.apps.values_mut().for_each(|(_, blocks)| blocks.clear());
    }
    let next = with_policies(&base, &change)?;
    check::check(&next).map_err(|faults| written.refuse(&next, &faults))?;
    Ok(next)
}

/// Looks at manifests without a cluster. Of apps that they only name it is taken that they are there.
pub fn validate(manifest: Manifest) -> Result<Validated, Refusal> {
    let told = Validated {
        policies: manifest.policies.keys().map(ToString::to_string).collect(),
        apps: manifest.apps.keys().map(ToString::to_string).collect(),
        rules: manifest.policies.values().map(|(_, rules)| rules.len() as u64).sum(),
        expectations: manifest.policies.values().map(|(policy, _)| policy.expect.len() as u64).sum(),
    };
    let mut apps: BTreeMap<AppName, App> = BTreeMap::new();
    // One whose prefixes a manifest does not say is there, and is to be otherwise.
    let is_new = |name: &AppName| manifest.apps.get(name).is_some_and(|spec| spec.prefixes.is_some());
    for name in manifest.apps.keys().filter(|name| !is_new(name)) {
        apps.insert(name.clone(), App::new(name.clone(), Vec::new(), []));
    }
    let sides = manifest.policies.values().flat_map(|(_, rules)| rules).flat_map(|rule| [&rule.from, &rule.to]);
    for selector in sides.filter(|selector| selector.app().is_some_and(|name| !is_new(name))) {
        let (name, role) = match selector {
            Selector::App(name) => (name, None),
            Selector::Role(name, role) => (name, Some(role)),
            Selector::Labelled(labelled) => match &labelled.apps {
                Apps::Named(name) => (name, None),
                Apps::Every | Apps::With(_) => continue,
            },
            Selector::Host | Selector::Outside | Selector::Any | Selector::Everyone | Selector::Net(_) => continue,
        };
        let app = apps.entry(name.clone()).or_insert_with(|| App::new(name.clone(), Vec::new(), []));
        app.roles.extend(role.map(|role| (role.clone(), Role::plain(role))));
    }
    let named = Cluster { apps: Arc::new(apps), ..Cluster::default() };
    let Wanted { mut change, written } = wanted(&named, manifest);
    change.apps.values_mut().for_each(|(_, blocks)| blocks.clear());
    let next = with_policies(&named, &change)?;
    // Where such an app is is for others to say.
    let is_ours = |fault: &Fault| !matches!(&fault.place, Place::App(name) if named.apps.contains_key(name));
    let mut faults = check::check(&next).err().unwrap_or_default();
    faults.retain(is_ours);
    if faults.is_empty() { Ok(told) } else { Err(written.refuse(&next, &faults)) }
}

/// Policies as a manifest; with `all` the rules of none too, and the apps: all that the digest is of.
pub fn export(cluster: &Cluster, names: &[PolicyName], all: bool) -> Result<Exported, Refusal> {
    if let Some(name) = names.iter().find(|name| !cluster.policies.contains_key(*name)) {
        return Err(Refusal::not_found(format!("there is no policy {name}: see weft policy ls")));
    }
    let is_meant = |name: &PolicyName| names.is_empty() || names.contains(name);
    let of = |name: Option<&PolicyName>| -> Vec<Rule> {
        let of = cluster.rules.iter().filter(|rule| rule.policy.as_ref() == name);
        of.map(|rule| rule.as_ref().clone()).collect()
    };
    let mut policies: BTreeMap<PolicyName, (Policy, Vec<Rule>)> = cluster
        .policies
        .iter()
        .filter(|(name, _)| is_meant(name))
        .map(|(name, policy)| (name.clone(), (policy.clone(), of(Some(name)))))
        .collect();
    let rules = of(None);
    if all && !rules.is_empty() {
        let name: PolicyName = LOOSE.parse()?;
        if cluster.policies.contains_key(&name) {
            let why = format!("there is a policy {name} already: give the rules of none to one of their own first");
            return Err(Refusal::conflict(why));
        }
        policies.insert(name, (Policy::default(), rules));
    }
    Ok(Exported {
        policies: policies.keys().map(ToString::to_string).collect(),
        manifest: manifest::write::write(cluster.apps.values().filter(|_| all), &policies),
    })
}

/// JSON schema of manifests.
pub fn schema() -> serde_json::Value {
    manifest::schema::schema()
}

/// An app as a manifest wants it, with the blocks that hosts get: what it does not say stays.
fn over(name: &AppName, spec: AppSpec, cluster: &Cluster) -> (App, BTreeMap<HostName, Vec<Prefix>>) {
    let AppSpec {
        prefixes,
        labels,
        roles,
        inside,
        from_apps,
        from_host,
        to_outside,
        shadow,
        number,
        blocks,
        source: _,
    } = spec;
    let before = cluster.apps.get(name).cloned();
    let mut app = before.unwrap_or_else(|| App::new(name.clone(), Vec::new(), []));
    app.prefixes = prefixes.unwrap_or(app.prefixes);
    app.labels = labels.unwrap_or(app.labels);
    let Defaults { inside: a, from_apps: b, from_host: c, to_outside: d } = app.defaults;
    app.defaults = Defaults {
        inside: inside.unwrap_or(a),
        from_apps: from_apps.unwrap_or(b),
        from_host: from_host.unwrap_or(c),
        to_outside: to_outside.unwrap_or(d),
    };
    app.shadow = shadow.unwrap_or(app.shadow);
    app.number = number.unwrap_or(app.number);
    for (role, wanted) in roles.into_iter().flatten() {
        put_role(&mut app, role, wanted);
    }
    let mut given = cluster.blocks_of(name);
    given.extend(blocks.into_iter().flatten());
    (app, given)
}

/// A role that is there keeps its number, which packets carry; others that a manifest does not name have endpoints.
fn put_role(app: &mut App, name: RoleName, (wanted, number): (Role, Option<RoleId>)) {
    let usual = || app.roles.get(&name).map_or(wanted.number, |before| before.number);
    let number = number.unwrap_or_else(usual);
    app.roles.insert(name, Role { number, ..wanted });
}

fn tested(checked: &Checked) -> Tested {
    let Checked { policy, expected, asked, fault } = checked;
    let breach = match fault {
        Some(expect::Fault::Broken(breach, pairs)) => Some((breach, *pairs)),
        Some(expect::Fault::Nobody(_) | expect::Fault::Nothing) | None => None,
    };
    let by = breach.map(|(breach, _)| match &breach.by {
        Ok(rule) => RuleMention::of(None, rule),
        Err(default) => RuleMention { text: default.clone(), id: None, source: None },
    });
    let why = fault.as_ref().map(|fault| match fault {
        expect::Fault::Nobody(side) => (*side).to_owned(),
        expect::Fault::Nothing => "it selects nothing: no receiver has a port of this name".to_owned(),
        expect::Fault::Broken(breach, pairs) => {
            let Breach { from, to, what, by, passes } = &**breach;
            let is = if *passes { "passes" } else { "does not pass" };
            let by = match by {
                Ok(rule) => match &rule.source {
                    Some(source) => format!("`{rule}` ({source})"),
                    None => format!("`{rule}`"),
                },
                Err(default) => default.clone(),
            };
            let more = if *pairs > 1 { format!(", and so for {} more pairs", pairs - 1) } else { String::new() };
            format!("{from} -> {to} {what} {is}, by {by}{more}")
        }
    });
    Tested {
        policy: policy.to_string(),
        text: expected.to_string(),
        source: expected.source.as_ref().map(Source::of),
        asked: *asked,
        why,
        by,
    }
}

impl Written {
    /// Faults of a cluster, each once and with the place of what has it, if that was written somewhere.
    fn refuse(&self, cluster: &Cluster, faults: &[Fault]) -> Refusal {
        let mut known = BTreeSet::new();
        let sentences = faults.iter().map(|fault| self.placed(cluster, fault));
        refuse(sentences.filter(|sentence| known.insert(sentence.clone())))
    }

    fn placed(&self, cluster: &Cluster, fault: &Fault) -> String {
        match &fault.place {
            Place::Rule(at) => {
                let Some(rule) = cluster.rules.get(*at) else { return fault.to_string() };
                self.placed_rule(cluster, (*at, rule), fault)
            }
            Place::App(app) | Place::AppPrefix(app, _) | Place::Role(app, _) => match self.apps.get(app) {
                Some(place) => place.problem(fault.to_string()).to_string(),
                None => fault.to_string(),
            },
            Place::Settings
            | Place::Host(_)
            | Place::HostAddress(..)
            | Place::Blocks(..)
            | Place::Block(..)
            | Place::Endpoint(_) => fault.to_string(),
        }
    }

    fn placed_rule(&self, cluster: &Cluster, (at, rule): (usize, &Rule), fault: &Fault) -> String {
        let policy = rule.policy.as_ref();
        // What Kubernetes' objects name beside labels is their namespace. The rules that became of one are not what was
        // written.
        if let Some((place, field)) = policy.and_then(|policy| self.namespaces.get(policy)) {
            let what = fault.what.strip_prefix(&check::of_rule(rule)).unwrap_or(&fault.what);
            return place.problem(format!("{field}: {what}")).to_string();
        }
        // Rules are in the order of their policies.
        let first = cluster.rules.partition_point(|other| other.policy.as_ref() < policy);
        match (policy.and_then(|policy| self.rules.get(policy)?.get(at.checked_sub(first)?)), &rule.source) {
            (Some(place), _) => place.problem(fault.to_string()).to_string(),
            (None, Some(source)) => format!("{source}: {fault}"),
            (None, None) => fault.to_string(),
        }
    }
}

fn refuse(sentences: impl Iterator<Item = String>) -> Refusal {
    let mut sentences = sentences;
    let first = sentences.next().unwrap_or_default();
    Refusal { more: sentences.collect(), ..Refusal::invalid(first) }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::Faults(_) => Kind::Invalid,
            ChangeError::NotFound(_) => Kind::NotFound,
            ChangeError::InUse(_) | ChangeError::Broken(_) => Kind::Conflict,
            ChangeError::Storage(_) | ChangeError::Overtaken => Kind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests;
