//! Apps: the unit of segmentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use weft_common::id::{AppId, RoleId};

use super::{
    invalid::Invalid,
    labels::{LabelKey, Labels},
    name::{AppName, RoleName},
    prefix::{Family, Prefix},
    stable,
    traffic::NamedPorts,
};

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// What it is called.
    pub name: AppName,
    /// What it is called on the wire.
    pub number: AppId,
    /// Where its endpoints have their addresses.
    pub prefixes: Vec<Prefix>,
    /// What it is labelled with, for rules that select apps by labels.
    pub labels: Labels,
    /// Its tiers.
    pub roles: BTreeMap<RoleName, Role>,
    /// What holds where no rule speaks.
    pub defaults: Defaults,
    /// Whether its policy is only tried: its endpoints may exchange everything, and what its rules and defaults would
    /// refuse is counted.
    pub shadow: bool,
}

/// A tier of an app: its endpoints have the same labels and the same names for ports, so every rule speaks of all of
/// them or of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it is called on the wire.
    pub number: RoleId,
    /// What its endpoints are labelled with.
    pub labels: Labels,
    /// The ports that its endpoints have names for.
    pub ports: NamedPorts,
}

/// Whether something passes where no rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// It does.
    Open,
    /// It does not.
    Closed,
}

/// What holds for an app where no rule speaks. The first three say who may come in and are kept by the
/// receiver, the last says what may go out. From outside nothing comes in without a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Defaults {
    /// From the app's own endpoints.
    pub inside: Gate,
    /// From the endpoints of other apps.
    pub from_apps: Gate,
    /// From the hosts.
    pub from_host: Gate,
    /// To the outside, and to the hosts: they have addresses there too.
    pub to_outside: Gate,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { inside: Gate::Open, from_apps: Gate::Closed, from_host: Gate::Open, to_outside: Gate::Open }
    }
}

impl App {
    /// An app with the numbers that its names give, and the usual defaults.
    pub fn new(name: AppName, prefixes: Vec<Prefix>, roles: impl IntoIterator<Item = RoleName>) -> Self {
        let number = Self::number_of(&name);
        let roles = roles.into_iter().map(|role| (role.clone(), Role::plain(&role))).collect();
        Self { name, number, prefixes, labels: Labels::default(), roles, defaults: Defaults::default(), shadow: false }
    }

    /// Gives it a number. Whether it can have it is for [`super::check`] to say.
    pub fn set_number(&mut self, raw: u32) {
        self.number = AppId(raw);
    }

    /// What selectors see of its labels: beside its own the one with its name, as Kubernetes' namespaces have it.
    pub fn seen_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        if let (None, Ok(value)) = (labels.get(&LabelKey::name()), self.name.as_str().parse()) {
            labels.set(LabelKey::name(), value);
        }
        labels
    }

    /// The role of endpoints with just these labels and ports, if it has it. Without any they have none.
    pub fn role_of(&self, labels: &Labels, ports: &NamedPorts) -> Option<&RoleName> {
        let found = self.roles.iter().find(|(_, role)| role.labels == *labels && role.ports == *ports);
        found.map(|(name, _)| name)
    }

    /// A role for endpoints with just these labels and ports, with a name and a number that no other has. None: there
    /// is no number left.
    pub fn make_role(&self, labels: &Labels, ports: &NamedPorts) -> Option<(RoleName, Role)> {
        let name = self.free_name(labels, ports)?;
        let taken: BTreeSet<RoleId> = self.roles.values().map(|role| role.number).collect();
        let start = Self::role_number_of(&name).0;
        let numbers = (start..=RoleId::LAST.0).chain(1..start).map(RoleId);
        let number = numbers.into_iter().find(|number| !taken.contains(number))?;
        Some((name, Role { number, labels: labels.clone(), ports: ports.clone() }))
    }

    /// What the labels say, as far as a name can: `env-prod.tier-db`.
    fn free_name(&self, labels: &Labels, ports: &NamedPorts) -> Option<RoleName> {
        let part = |(key, value): (&LabelKey, &super::labels::LabelValue)| {
            let key = key.as_str().rsplit('/').next().unwrap_or_default();
            if key == "role" { value.as_str().to_owned() } else { format!("{key}-{}", value.as_str()) }
        };
        let said = labels.iter().map(part).collect::<Vec<_>>().join(".");
        let hash = format!("{:08x}", stable::hash("labels", &[&labels.to_string(), &ports.to_string()]) >> 32);
        let long = format!("{}.{hash}", said.chars().take(50).collect::<String>());
        let tries = [said, long, format!("labels-{hash}")].into_iter();
        let mut names = tries.filter_map(|text| text.to_ascii_lowercase().replace('_', "-").parse().ok());
        names.find(|name: &RoleName| !self.roles.contains_key(name))
    }

    /// The number of an app that was given none: the same on every host, always.
    pub fn number_of(name: &AppName) -> AppId {
        AppId(stable::within("app", &[name.as_str()], AppId::FIRST.0, AppId::LAST.0))
    }

    /// The number of a role that was given none: the same in every app, always.
    pub fn role_number_of(name: &RoleName) -> RoleId {
        let number = stable::within("role", &[name.as_str()], 1, u32::from(RoleId::LAST.0));
        let [_, _, high, low] = number.to_be_bytes();
        RoleId(u16::from_be_bytes([high, low]))
    }

    /// The prefix of the app that covers `part`.
    pub fn prefix_over(&self, part: &Prefix) -> Option<&Prefix> {
        self.prefixes.iter().find(|prefix| prefix.covers(part))
    }

    /// Whether it has prefixes of this family.
    pub fn has(&self, family: Family) -> bool {
        self.prefixes.iter().any(|prefix| prefix.family() == family)
    }
}

impl Role {
    /// A role that is only a name: its endpoints are labelled with it.
    pub fn plain(name: &RoleName) -> Self {
        let labels = name.as_str().parse().ok().map(|value| (LabelKey::role(), value)).into_iter().collect();
        Self { number: App::role_number_of(name), labels, ports: NamedPorts::default() }
    }

    /// Gives it a number. Whether it can have it is for [`super::check`] to say.
    pub fn set_number(&mut self, raw: u16) {
        self.number = RoleId(raw);
    }

    /// Whether it is the tier that `name` means in a rule: it is called so, or its endpoints are labelled so.
    pub fn is_called(&self, own: &RoleName, name: &RoleName) -> bool {
        own == name || self.labels.get(&LabelKey::role()).is_some_and(|value| value.as_str() == name.as_str())
    }
}

impl Gate {
    /// The word that files and the CLI have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl FromStr for Gate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = [Self::Open, Self::Closed].into_iter().find(|gate| gate.name() == text);
        found.ok_or_else(|| Invalid::new("default", text, "use open or closed"))
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_names() {
        for name in ["shop", "blog", "a", "z"] {
            let app = App::new(name.parse().unwrap(), Vec::new(), ["web".parse().unwrap(), "db".parse().unwrap()]);
            assert_eq!(AppId::new(app.number.0), Some(app.number));
            assert!(app.roles.values().all(|role| RoleId::new(role.number.0) == Some(role.number)));
            assert_eq!(app, App::new(app.name.clone(), Vec::new(), app.roles.keys().cloned()));
        }
    }

    #[test]
    fn a_role_is_made_for_labels_that_none_has() {
        let mut app = App::new("shop".parse().unwrap(), Vec::new(), ["web".parse().unwrap()]);
        let make = |app: &mut App, labels: &str, ports: &str| {
            let (labels, ports) = (labels.parse().unwrap(), ports.parse().unwrap());
            if let Some(name) = app.role_of(&labels, &ports) {
                return name.to_string();
            }
            let (name, role) = app.make_role(&labels, &ports).unwrap();
            assert!(app.roles.values().all(|other| other.number != role.number));
            app.roles.insert(name.clone(), role);
            name.to_string()
        };
        assert_eq!(make(&mut app, "role=web", ""), "web");
        assert_eq!(make(&mut app, "tier=db,env=Prod_1", ""), "env-prod-1.tier-db");
        assert_eq!(make(&mut app, "tier=db,env=Prod_1", ""), "env-prod-1.tier-db");
        assert_eq!(make(&mut app, "example.org/tier=db", ""), "tier-db");
        // Another key, the same name.
        assert!(make(&mut app, "tier=db", "").starts_with("tier-db."));
        assert!(make(&mut app, "role=web", "http=tcp/80").starts_with("web."));
        assert!(make(&mut app, "a=", "").starts_with("a-."), "{:?}", app.roles.keys());
    }

    #[test]
    fn every_number_can_be_taken() {
        let mut app = App::new("shop".parse().unwrap(), Vec::new(), []);
        let role = Role::plain(&"web".parse().unwrap());
        let taken = (1..=RoleId::LAST.0)
            .map(|number| (format!("r{number}").parse().unwrap(), Role { number: RoleId(number), ..role.clone() }));
        app.roles = taken.collect();
        assert_eq!(app.make_role(&"a=b".parse().unwrap(), &NamedPorts::default()), None);
        app.roles.remove(&"r77".parse().unwrap());
        let (_, made) = app.make_role(&"a=b".parse().unwrap(), &NamedPorts::default()).unwrap();
        assert_eq!(made.number, RoleId(77));
    }
}
