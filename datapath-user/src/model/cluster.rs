//! The cluster as one value: what the operator described, and what the hosts told of their endpoints.
//!
//! Invariant of a cluster that is in force: [`super::check::check`] finds no fault in it.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use weft_common::{
    id::{Identity, RoleId},
    tunnel,
};

use super::{
    app::App,
    endpoint::{Addresses, Endpoint, EndpointKey},
    expect::Expectation,
    host::Host,
    name::{AppName, HostName, PolicyName},
    prefix::Prefix,
    rule::Rule,
};

/// All of it. The large parts are shared, so that a copy with one change is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// What holds everywhere.
    pub settings: Settings,
    /// The machines.
    pub hosts: Arc<BTreeMap<HostName, Host>>,
    /// The applications.
    pub apps: Arc<BTreeMap<AppName, App>>,
    /// In the order in which they were written: of two rules that are equal otherwise the first is reported. Those of a
    /// policy are together.
    pub rules: Arc<Vec<Arc<Rule>>>,
    /// What is known of sets of rules that come and go as one, beside their rules.
    pub policies: Arc<BTreeMap<PolicyName, Policy>>,
    /// Those that this host knows: its own, and others' if they told.
    pub endpoints: BTreeMap<EndpointKey, Arc<Endpoint>>,
    /// Addresses that this host keeps for names.
    pub reservations: BTreeMap<EndpointKey, Reservation>,
}

/// What a set of rules has beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What has to hold while it is in force: a change that breaks it is refused.
    pub expect: Vec<Expectation>,
}

/// What holds everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP port of the tunnel.
    pub port: u16,
}

/// Addresses that a name had, so that it gets them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The addresses.
    pub addresses: Addresses,
    /// When it was last used: when all else is taken, the oldest goes first.
    pub used: Revision,
}

/// Counts the changes of a cluster on one host. A greater one is a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Default for Settings {
    fn default() -> Self {
        Self { port: tunnel::PORT }
    }
}

impl Revision {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Cluster {
    /// Whether both say the same of what hosts share, to the line: of all but endpoints and the addresses kept for them.
    pub fn shares_with(&self, other: &Self) -> bool {
        let Self { settings, hosts, apps, rules, policies, endpoints: _, reservations: _ } = self;
        (settings, hosts, apps, rules, policies)
            == (&other.settings, &other.hosts, &other.apps, &other.rules, &other.policies)
    }

    /// Who an endpoint is. Without its app or role, nobody that rules know.
    pub fn identity(&self, endpoint: &Endpoint) -> Option<Identity> {
        let app = self.apps.get(&endpoint.key.app)?;
        let role = match &endpoint.role {
            Some(role) => app.roles.get(role)?.number,
            None => RoleId::NONE,
        };
        Some(Identity::new(app.number, role))
    }

    /// The endpoint that has an address.
    pub fn holder(&self, addr: IpAddr) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| endpoint.addresses.contains(addr)).map(AsRef::as_ref)
    }

    /// The app that an address belongs to, and the prefix that says so.
    pub fn app_at(&self, addr: IpAddr) -> Option<(&App, &Prefix)> {
        let at = |app: &'_ App| app.prefixes.iter().position(|prefix| prefix.contains(addr));
        self.apps.values().find_map(|app| Some((app, &app.prefixes[at(app)?])))
    }

    /// What hosts were given of an app, of those that were.
    pub fn blocks_of(&self, app: &AppName) -> BTreeMap<HostName, Vec<Prefix>> {
        let of = |host: &Host| Some((host.name.clone(), host.blocks.get(app)?.clone()));
        self.hosts.values().filter_map(of).filter(|(_, blocks)| !blocks.is_empty()).collect()
    }

    /// The endpoints of a host.
    pub fn endpoints_on<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.values().map(AsRef::as_ref).filter(move |endpoint| endpoint.host == *host)
    }
}
