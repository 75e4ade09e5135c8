//! Rules and policy.

use serde::{Deserialize, Serialize};
use weft_common::policy;

use super::{
    apps::Defaults,
    naming::WhichRule,
    policies::Enforcing,
    side::{Direction, Source},
    text,
    time::Timestamp,
};
use crate::model::{
    self,
    name::{AppName, PolicyName},
};

/// A new rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRule {
    /// Its text, as `allow shop/web -> blog/db tcp/5432`.
    #[serde(with = "text")]
    pub rule: model::rule::Rule,
}

/// A rule that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRule {
    /// Its number, its name or its text.
    #[serde(with = "text")]
    pub rule: WhichRule,
}

/// What is tried and is to be in force: a rule, or all rules of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// A rule, by its number, its name or its text.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub rule: Option<WhichRule>,
    /// A policy.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyName>,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRules {}

/// What holds for an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowPolicy {
    /// Which.
    #[serde(with = "text")]
    pub app: AppName,
}

/// What a change of the rules came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// The rule.
    pub rule: Rule,
    /// Whether anything changed.
    pub changed: bool,
    /// The revision of the cluster that has it.
    pub revision: u64,
    /// Whether this host enforces that revision.
    pub in_force: bool,
    /// Which hosts enforce it, if that was waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Enforcing>,
}

/// All rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleList {
    /// In the order in which they were written.
    pub rules: Vec<Rule>,
    /// The revision of the cluster they are from.
    pub revision: u64,
}

/// What holds for an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The app.
    pub app: String,
    /// What holds where no rule speaks.
    pub defaults: Defaults,
    /// The rules on what comes in, the first to be asked first.
    pub ingress: Vec<Rule>,
    /// The rules on what goes out, likewise.
    pub egress: Vec<Rule>,
    /// Whether its policy is only tried: counted, not enforced.
    #[serde(default)]
    pub shadow: bool,
    /// What its defaults would have changed, while its policy is only tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_by_default: Option<Tried>,
    /// What the host that was asked has counted where no rule spoke.
    #[serde(default)]
    pub by_default: Vec<ByDefault>,
    /// The revision of the cluster they are from.
    pub revision: u64,
    /// Of all policy on this host: hosts with the same digest enforce the same. None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Which hosts enforce it. Whoever asks asks them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Enforcing>,
}

/// What defaults decided between two apps, one of which is the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByDefault {
    /// The sender's app, `host` or `outside`.
    pub from: String,
    /// The receiver's.
    pub to: String,
    /// What was counted.
    pub hits: Hits,
}

/// What a host has counted, exactly, since its tables were made: packets that a rule or a default decided on, and
/// those that belong to connections on which it did, of both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// Packets that passed. A merged one counts as it was handed on.
    pub packets: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
    /// Connections that were allowed.
    pub flows: u64,
    /// Packets that were dropped: by the rule, or further on.
    pub drops: u64,
    /// When the last of all those packets was seen.
    pub last: Timestamp,
}

/// What a rule that is only tried would have changed, on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Packets that passed and that it would have dropped.
    pub would_drop: u64,
    /// Their connections.
    pub would_drop_flows: u64,
    /// Packets that were dropped and that it would have let pass.
    pub would_pass: u64,
    /// When the last of all those packets was seen.
    pub last: Timestamp,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It lets pass.
    Allow,
    /// It drops in silence.
    Deny,
    /// It drops, and tells the sender.
    Reject,
    /// It ends its tier: what is below decides.
    Pass,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number in the tables, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it does.
    pub action: Action,
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// What is sent.
    pub what: String,
    /// Whose rule it is: on `ingress` the receiver's, on `egress` the sender's; else both have to keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Direction>,
    /// The greater wins.
    pub precedence: i32,
    /// When it ends, or has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// All of it as text, as it can be added and removed.
    pub text: String,
    /// The set of rules that it comes and goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the host that was asked has counted under it, if there was anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<Hits>,
    /// Whether it is only tried: counted, not enforced.
    #[serde(default)]
    pub shadow: bool,
    /// What it would have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
}

impl Rule {
    /// A rule of the cluster.
    pub fn of(id: Option<u32>, rule: &model::rule::Rule) -> Self {
        let model::rule::Rule { action, from, to, traffic, on, precedence, until, shadow, name, policy, source } = rule;
        Self {
            id,
            name: name.as_ref().map(ToString::to_string),
            action: (*action).into(),
            from: from.to_string(),
            to: to.to_string(),
            what: traffic.to_string(),
            on: on.map(Into::into),
            precedence: precedence.raw(),
            until: until.map(Into::into),
            text: rule.to_string(),
            policy: policy.as_ref().map(ToString::to_string),
            source: source.as_ref().map(Source::of),
            hits: None,
            shadow: *shadow,
            tried: None,
        }
    }
}

impl From<policy::Action> for Action {
    fn from(action: policy::Action) -> Self {
        match action {
            policy::Action::Allow => Self::Allow,
            policy::Action::Deny => Self::Deny,
            policy::Action::Reject => Self::Reject,
            policy::Action::Pass => Self::Pass,
        }
    }
}

impl Action {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
            Self::Pass => "pass",
        }
    }
}
