//! Manifests: what operators write of policies and apps, read and written. No file is opened here and no daemon asked.
//!
//! One command takes both forms, in one file or in many, as YAML or as JSON (which is YAML):
//! - weft's own, [`native`]: a document that starts with `weft: v1`;
//! - Kubernetes', [`kubernetes`] and [`kubernetes::tiers`]: NetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy and
//!   ClusterNetworkPolicy, also in a `kind: List`.
//!
//! Invariant: what is not understood is a fault, never left out: a rule that is dropped in silence can open what it was to
//! close. All faults of all files are reported, each with its place; with one fault there is no manifest.

mod fields;
pub mod kubernetes;
pub mod native;
pub mod schema;
mod selectors;
mod traffic;
mod tree;
pub mod write;

use std::{collections::BTreeMap, sync::Arc};

use weft_common::id::{AppId, RoleId};

use crate::{
    model::{
        app::{Gate, Role},
        cluster::Policy,
        labels::Labels,
        name::{AppName, HostName, PolicyName, RoleName},
        prefix::Prefix,
        rule::{Rule, Source},
    },
    store::{Position, Problem},
};

use tree::{Node, Value};

/// A text that an operator wrote, and what it is called in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As the operator named it; `-` for standard input.
    pub name: Arc<str>,
    /// All of it.
    pub text: String,
}

/// What manifests say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Policies, with their rules in order: no two of a policy say the same, and each knows where it was written.
    pub policies: Policies,
    /// Apps that are to be there, or to be other than they are.
    pub apps: BTreeMap<AppName, AppSpec>,
    /// Where all of it was written.
    pub written: Written,
    /// How many documents that was. None is not one that says nothing: somebody meant to say something.
    pub documents: usize,
}

/// Where things were written, so that what only a cluster shows to be wrong with them is told there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The rules of each policy, in order.
    pub rules: BTreeMap<PolicyName, Vec<Place>>,
    /// The namespaces that Kubernetes' objects are in, and for messages the object and the field that says so.
    pub namespaces: BTreeMap<PolicyName, (Place, String)>,
    /// Apps.
    pub apps: BTreeMap<AppName, Place>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the operator named it.
    pub file: Arc<str>,
    /// Where in it.
    pub position: Position,
}

impl Place {
    /// A sentence about what is there.
    pub fn problem(&self, text: String) -> Problem {
        Problem { file: Arc::clone(&self.file), position: Some(self.position), text }
    }
}

/// Policies by name, each with its rules in order.
pub type Policies = BTreeMap<PolicyName, (Policy, Vec<Rule>)>;

/// What a manifest says of an app: what it does not say stays, or is the usual for a new app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSpec {
    /// Where its endpoints have their addresses.
    pub prefixes: Option<Vec<Prefix>>,
    /// What it is labelled with.
    pub labels: Option<Labels>,
    /// Its tiers, each with its number if one is said.
    pub roles: Option<BTreeMap<RoleName, (Role, Option<RoleId>)>>,
    /// From its own endpoints.
    pub inside: Option<Gate>,
    /// From other apps.
    pub from_apps: Option<Gate>,
    /// From the hosts.
    pub from_host: Option<Gate>,
    /// To the outside and to the hosts.
    pub to_outside: Option<Gate>,
    /// Whether its policy is only tried.
    pub shadow: Option<bool>,
    /// What it is called on the wire.
    pub number: Option<AppId>,
    /// What hosts give of it to endpoints.
    pub blocks: Option<BTreeMap<HostName, Vec<Prefix>>>,
    /// Where it was written.
    pub source: Source,
}

/// Reads manifests. All faults, in the order of the files and in each from top to bottom.
pub fn read(files: &[File]) -> Result<Manifest, Vec<Problem>> {
    let mut reader = Reader::default();
    let mut problems = Vec::new();
    for file in files {
        let mut faults = Faults::of(file);
        for document in tree::documents(&file.text, &mut faults) {
            // Nothing between two separators, or only comments.
            if !matches!(document.value, Value::Null) {
                reader.manifest.documents += 1;
                reader.document(&document, &mut faults);
            }
        }
        problems.extend(faults.in_order());
    }
    if problems.is_empty() { Ok(reader.manifest) } else { Err(problems) }
}

/// What is wrong with one file.
struct Faults {
    file: Arc<str>,
    found: Vec<(Position, String)>,
}

impl Faults {
    fn of(file: &File) -> Self {
        Self { file: Arc::clone(&file.name), found: Vec::new() }
    }

    fn add(&mut self, at: Position, text: impl Into<String>) {
        self.found.push((at, text.into()));
    }

    /// What was made of a text, if it could be.
    fn check<T>(&mut self, at: Position, made: Result<T, impl ToString>) -> Option<T> {
        made.map_err(|error| self.add(at, error.to_string())).ok()
    }

    fn source(&self, at: Position) -> Source {
        Source { file: Arc::clone(&self.file), line: at.line }
    }

    fn place(&self, position: Position) -> Place {
        Place { file: Arc::clone(&self.file), position }
    }

    fn in_order(mut self) -> impl Iterator<Item = Problem> {
        self.found.sort();
        // A value that an alias repeats has the same fault in the same place.
        self.found.dedup();
        let file = self.file;
        self.found.into_iter().map(move |(at, text)| Problem { file: Arc::clone(&file), position: Some(at), text })
    }
}

#[derive(Default)]
struct Reader {
    manifest: Manifest,
    /// Where each policy and app was written.
    policies: BTreeMap<PolicyName, Source>,
}

impl Reader {
    fn document(&mut self, document: &Node, faults: &mut Faults) {
        let Value::Map(entries) = &document.value else {
            faults.add(document.at, format!("a manifest is a mapping, and this is {}", document.kind()));
            return;
        };
        let has = |key| entries.iter().any(|entry| entry.key == key);
        if has("weft") {
            native::document(document, self, faults);
        } else if has("apiVersion") || has("kind") {
            kubernetes::document(document, self, faults);
        } else {
            let help = "write weft: v1, or apiVersion and kind of one of Kubernetes' policies";
            faults.add(document.at, format!("this is no manifest: {help}"));
        }
    }

    /// Adds a policy, once, without rules that say what one before them says.
    fn policy(
        &mut self,
        (name, at): (PolicyName, Position),
        policy: Policy,
        rules: Vec<(Position, Rule)>,
        faults: &mut Faults,
    ) {
        if let Some(before) = self.policies.get(&name) {
            faults.add(at, format!("policy {name} is in {before} already: a policy is written in one document"));
            return;
        }
        self.policies.insert(name.clone(), faults.source(at));
        let (places, rules) = merged(rules).into_iter().map(|(at, rule)| (faults.place(at), rule)).unzip();
        self.manifest.written.rules.insert(name.clone(), places);
        self.manifest.policies.insert(name, (policy, rules));
    }

    fn app(&mut self, (name, at): (AppName, Position), spec: AppSpec, faults: &mut Faults) {
        if let Some(before) = self.manifest.apps.get(&name) {
            faults.add(at, format!("app {name} is in {} already: an app is written in one place", before.source));
            return;
        }
        self.manifest.written.apps.insert(name.clone(), faults.place(at));
        self.manifest.apps.insert(name, spec);
    }
}

/// Rules, each with its place, without those that say the same as one before.
fn merged<T>(rules: Vec<(T, Rule)>) -> Vec<(T, Rule)> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<(T, Rule)> = Vec::with_capacity(rules.len());
    for (at, rule) in rules {
        let statement = rule.statement().to_string();
        if let Some(&before) = known.get(&statement) {
            let (_, kept) = &mut kept[before];
            kept.name = kept.name.take().or(rule.name);
            continue;
        }
        known.insert(statement, kept.len());
        kept.push((at, rule));
    }
    kept
}

#[cfg(test)]
mod tests;
