//! Apps: the unit of segmentation.

use std::{collections::BTreeMap, fmt, str::FromStr};

use weft_common::id::{AppId, RoleId};

use super::{
    invalid::Invalid,
    name::{AppName, RoleName},
    prefix::{Family, Prefix},
    stable,
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
    /// Its tiers, with their numbers on the wire.
    pub roles: BTreeMap<RoleName, RoleId>,
    /// What holds where no rule speaks.
    pub defaults: Defaults,
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
        let mut app = Self { name, number, prefixes, roles: BTreeMap::new(), defaults: Defaults::default() };
        for role in roles {
            app.add_role(role, None);
        }
        app
    }

    /// Gives it a number. Whether it can have it is for [`super::check`] to say.
    pub fn set_number(&mut self, raw: u32) {
        self.number = AppId(raw);
    }

    /// Adds a role, with the number that its name gives unless there is another. Whether it was not there yet.
    pub fn add_role(&mut self, name: RoleName, number: Option<u16>) -> bool {
        let number = number.map_or_else(|| Self::role_number_of(&name), RoleId);
        self.roles.insert(name, number).is_none()
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
            assert!(app.roles.values().all(|role| RoleId::new(role.0) == Some(*role)));
            assert_eq!(app, App::new(app.name.clone(), Vec::new(), app.roles.keys().cloned()));
        }
    }
}
