//! Apps.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{endpoints::Endpoint, rules::Rule, text};
use crate::model::{
    self,
    invalid::Invalid,
    labels::{LabelKey, Labels},
    name::{AppName, HostName, RoleName},
    prefix::Prefix,
};

/// All apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListApps {}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowApp {
    /// Which.
    #[serde(with = "text")]
    pub name: AppName,
}

/// A new app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddApp {
    /// What it is called.
    #[serde(with = "text")]
    pub name: AppName,
    /// Where its endpoints have their addresses.
    #[serde(with = "text::list")]
    pub prefixes: Vec<Prefix>,
    /// Its tiers.
    #[serde(default, with = "text::list")]
    pub roles: Vec<RoleName>,
    /// What it is labelled with.
    #[serde(default, with = "text", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where they differ from the usual ones.
    #[serde(default)]
    pub defaults: DefaultsChange,
    /// What hosts are given of it.
    #[serde(default, with = "text::list")]
    pub blocks: Vec<Block>,
}

/// An app that is to be other than it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetApp {
    /// Which.
    #[serde(with = "text")]
    pub name: AppName,
    /// Prefixes that it is to have beside its own.
    #[serde(default, with = "text::list")]
    pub prefixes: Vec<Prefix>,
    /// Prefixes that it is to have no longer; hosts lose what they were given of them.
    #[serde(default, with = "text::list")]
    pub without: Vec<Prefix>,
    /// Labels that are to be there.
    #[serde(default, with = "text", skip_serializing_if = "Labels::is_empty")]
    pub set: Labels,
    /// Labels that are to go.
    #[serde(default, with = "text::list")]
    pub unset: Vec<LabelKey>,
    /// Defaults that are to be others.
    #[serde(default)]
    pub defaults: DefaultsChange,
    /// Whether its policy is only to be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
    /// What hosts are given of it, beside what they have.
    #[serde(default, with = "text::list")]
    pub blocks: Vec<Block>,
}

/// A part of an app's prefixes that a host gives out: `h1=10.1.1.0/24`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The host.
    pub host: HostName,
    /// The part.
    pub prefix: Prefix,
}

impl FromStr for Block {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("block", text, "write HOST=PREFIX, as h1=10.1.1.0/24");
        let (host, prefix) = text.split_once('=').ok_or_else(refuse)?;
        Ok(Self { host: host.parse()?, prefix: prefix.parse()? })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.prefix)
    }
}

/// Defaults that are not the usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultsChange {
    /// From the app's own endpoints.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub inside: Option<model::app::Gate>,
    /// From the endpoints of other apps.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub from_apps: Option<model::app::Gate>,
    /// From the hosts.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub from_host: Option<model::app::Gate>,
    /// To the outside, and to the hosts.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub to_outside: Option<model::app::Gate>,
}

/// An app that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveApp {
    /// Which.
    #[serde(with = "text")]
    pub name: AppName,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What was done, as "app shop is there".
    pub done: String,
    /// The revision of the cluster that has it.
    pub revision: u64,
    /// Whether this host enforces that revision.
    #[serde(default)]
    pub in_force: bool,
}

/// All apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppList {
    /// By name.
    pub apps: Vec<App>,
}

/// One app, and what is around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDetail {
    /// The app.
    pub app: App,
    /// Its endpoints on this host.
    pub endpoints: Vec<Endpoint>,
    /// The rules that name it.
    pub rules: Vec<Rule>,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// What it is called.
    pub name: String,
    /// What it is called on the wire.
    pub number: u32,
    /// Where its endpoints have their addresses.
    pub prefixes: Vec<String>,
    /// What it is labelled with, as `env=prod,team=a`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub labels: String,
    /// Its tiers.
    pub roles: Vec<Role>,
    /// What holds where no rule speaks.
    pub defaults: Defaults,
    /// Whether its policy is only tried: counted, not enforced.
    #[serde(default)]
    pub shadow: bool,
    /// How many endpoints of it this host has.
    pub endpoints: u64,
}

/// A tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// What it is called on the wire.
    pub number: u16,
    /// What its endpoints are labelled with, as `env=prod,tier=db`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub labels: String,
    /// The ports that its endpoints have names for, as `http=tcp/80`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ports: String,
}

/// What holds where no rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// From the app's own endpoints.
    pub inside: Gate,
    /// From the endpoints of other apps.
    pub from_apps: Gate,
    /// From the hosts.
    pub from_host: Gate,
    /// To the outside, and to the hosts.
    pub to_outside: Gate,
}

/// Whether something passes where no rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// It does.
    Open,
    /// It does not.
    Closed,
}

impl App {
    /// An app of the cluster, of which this host has so many endpoints.
    pub fn of(app: &model::app::App, endpoints: u64) -> Self {
        let model::app::App { name, number, prefixes, labels, roles, defaults, shadow } = app;
        let role = |(name, role): (&RoleName, &model::app::Role)| Role {
            name: name.to_string(),
            number: role.number.0,
            labels: role.labels.to_string(),
            ports: role.ports.to_string(),
        };
        Self {
            name: name.to_string(),
            number: number.0,
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            labels: labels.to_string(),
            roles: roles.iter().map(role).collect(),
            defaults: Defaults::of(*defaults),
            shadow: *shadow,
            endpoints,
        }
    }
}

impl Defaults {
    /// The defaults of an app.
    pub fn of(defaults: model::app::Defaults) -> Self {
        let model::app::Defaults { inside, from_apps, from_host, to_outside } = defaults;
        let [inside, from_apps, from_host, to_outside] = [inside, from_apps, from_host, to_outside].map(Gate::of);
        Self { inside, from_apps, from_host, to_outside }
    }
}

impl DefaultsChange {
    /// The usual defaults with these changes.
    pub fn over(self, usual: model::app::Defaults) -> model::app::Defaults {
        model::app::Defaults {
            inside: self.inside.unwrap_or(usual.inside),
            from_apps: self.from_apps.unwrap_or(usual.from_apps),
            from_host: self.from_host.unwrap_or(usual.from_host),
            to_outside: self.to_outside.unwrap_or(usual.to_outside),
        }
    }
}

impl Gate {
    fn of(gate: model::app::Gate) -> Self {
        match gate {
            model::app::Gate::Open => Self::Open,
            model::app::Gate::Closed => Self::Closed,
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}
