//! Policies as manifests: what comes of applying them, what they expect, and who reaches whom.

use serde::{Deserialize, Serialize};

use super::{
    naming::Probe,
    side::{RuleMention, Source},
    text,
};
use crate::model::name::{AppName, PolicyName};

/// A text that somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What it is called in messages.
    pub name: String,
    /// The text: YAML or JSON.
    pub text: String,
}

/// Manifests that are to be in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The manifests.
    pub files: Vec<Document>,
}

/// Policies that are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletePolicy {
    /// By name.
    #[serde(default, with = "text::list")]
    pub names: Vec<PolicyName>,
    /// Those of these manifests.
    #[serde(default)]
    pub files: Vec<Document>,
}

/// What applying manifests would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffPolicy {
    /// The manifests.
    pub files: Vec<Document>,
}

/// Policies as a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportPolicy {
    /// Which; none is all.
    #[serde(default, with = "text::list")]
    pub names: Vec<PolicyName>,
    /// Whether rules of no policy come too, as a policy `rules`, and apps: all that the digest is of.
    #[serde(default)]
    pub all: bool,
}

/// Who reaches whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowMatrix {
    /// With what; none is everything.
    #[serde(default, with = "text::list")]
    pub ports: Vec<Probe>,
    /// Only these apps, the hosts and the outside; none is all.
    #[serde(default, with = "text::list")]
    pub apps: Vec<AppName>,
}

/// Which policy this host enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDigest {}

/// What a change of policies came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// What is other than before; nothing if all was there already.
    pub parts: Vec<Part>,
    /// How many expectations were checked, and hold.
    pub expectations: u64,
    /// The revision of the cluster that has it.
    pub revision: u64,
    /// Whether this host enforces that revision.
    pub in_force: bool,
    /// Which hosts enforce it, if that was waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Enforcing>,
}

/// What a change of policies would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// What would be other.
    pub parts: Vec<Part>,
    /// Which expectations would not hold, so that it would be refused: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<String>,
}

/// A policy or an app that is other than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `policy shop`, `app shop`.
    pub what: String,
    /// How it is other.
    pub change: Kind,
    /// What of it goes and comes.
    pub lines: Vec<Line>,
}

/// How something is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It was not there.
    New,
    /// It was there, and not like this.
    Changed,
    /// It is not there any more.
    Gone,
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whether it comes or goes.
    pub is: Sign,
    /// A rule, an expectation, or what an app has.
    pub text: String,
}

/// Whether a line comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// It comes.
    Added,
    /// It goes.
    Removed,
}

/// Policies as a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Which there are.
    pub policies: Vec<String>,
    /// The manifest.
    pub manifest: String,
}

/// What manifests have, which have no fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// Their policies.
    pub policies: Vec<String>,
    /// Their apps.
    pub apps: Vec<String>,
    /// How many rules they have.
    pub rules: u64,
    /// How many expectations.
    pub expectations: u64,
}

/// What came of expectations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// In order.
    pub expectations: Vec<Tested>,
    /// How many do not hold.
    pub failed: u64,
}

/// What came of an expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// Whose it is.
    pub policy: String,
    /// What was expected.
    pub text: String,
    /// Where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How often it was asked: once for each part of addresses and ports that rules tell apart.
    pub asked: u64,
    /// Why it does not hold; none: it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The rule or the default that decided otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RuleMention>,
}

/// Who reaches whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// Who there is: senders from top to bottom, receivers from left to right.
    pub parties: Vec<String>,
    /// One table for each thing that was asked.
    pub tables: Vec<Reach>,
}

/// Who reaches whom with one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// With what: `tcp/80`; `any` is everything.
    pub with: String,
    /// A row for each sender.
    pub rows: Vec<Vec<Cell>>,
}

/// Whether one reaches another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "passes", content = "what", rename_all = "kebab-case")]
pub enum Cell {
    /// With all of it.
    All,
    /// With nothing of it.
    Nothing,
    /// With some of it.
    Some(Vec<String>),
    /// It is the same: hosts among themselves, the outside.
    Itself,
}

/// Which policy a host enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDigest {
    /// The host.
    pub host: String,
    /// Of the policy that it should enforce: apps, rules, and the tables they come to. Two hosts with the same one
    /// have the same policy.
    pub digest: String,
    /// The revision of the cluster that it is of, on this host.
    pub revision: u64,
    /// Whether the kernel's tables were read, and have this digest.
    pub enforced: bool,
}

/// Whether a host enforces what this one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcing {
    /// The host.
    pub host: String,
    /// Whether it does.
    pub state: Enforced,
    /// How that is known, or why not.
    pub why: String,
}

/// Whether a policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforced {
    /// Its tables have the digest.
    Yes,
    /// They have another.
    No,
    /// Nobody knows.
    NotKnown,
}
