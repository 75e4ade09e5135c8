//! Whether a cluster makes sense as a whole. Every fault names both offenders and what to do.
//!
//! Knows what is wrong, not where it was written: [`Place`] says which part to point at.

mod endpoints;
mod ranges;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use super::{
    app::{App, Role},
    cluster::Cluster,
    endpoint::EndpointKey,
    host::Host,
    name::{AppName, HostName, RoleName},
    prefix::{Family, Prefix},
    rule::Rule,
    selector::Selector,
};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The part of the cluster that came last of those that do not fit together.
    pub place: Place,
    /// The sentence.
    pub what: String,
}

/// A part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The settings.
    Settings,
    /// A host.
    Host(HostName),
    /// One of its addresses, by position.
    HostAddress(HostName, usize),
    /// Its blocks of an app.
    Blocks(HostName, AppName),
    /// One of them, by position.
    Block(HostName, AppName, usize),
    /// An app.
    App(AppName),
    /// One of its prefixes, by position.
    AppPrefix(AppName, usize),
    /// One of its roles.
    Role(AppName, RoleName),
    /// A rule, by position.
    Rule(usize),
    /// An endpoint.
    Endpoint(EndpointKey),
}

/// All faults of a cluster.
pub fn check(cluster: &Cluster) -> Result<(), Vec<Fault>> {
    let mut faults = Faults(Vec::new());
    faults.settings(cluster);
    faults.app_numbers(cluster);
    faults.roles(cluster);
    ranges::check(cluster, &mut faults);
    faults.host_addresses(cluster);
    faults.rules(cluster);
    endpoints::check(cluster, cluster.endpoints.keys(), &mut faults);
    faults.done()
}

/// The faults that one endpoint brings into a cluster that has none without it.
pub fn check_endpoint(cluster: &Cluster, key: &EndpointKey) -> Result<(), Vec<Fault>> {
    let mut faults = Faults(Vec::new());
    endpoints::check(cluster, [key], &mut faults);
    faults.done()
}

/// What was found so far.
struct Faults(Vec<Fault>);

impl Faults {
    fn push(&mut self, place: Place, what: impl Into<String>) {
        self.0.push(Fault { place, what: what.into() });
    }

    fn done(self) -> Result<(), Vec<Fault>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }

    fn settings(&mut self, cluster: &Cluster) {
        if cluster.settings.port == 0 {
            self.push(Place::Settings, "port 0 is no port: use 1 to 65535");
        }
    }

    fn app_numbers(&mut self, cluster: &Cluster) {
        let mut seen = BTreeMap::new();
        for App { name, number, .. } in cluster.apps.values() {
            if !number.is_application() || weft_common::id::AppId::new(number.0).is_none() {
                self.push(
                    Place::App(name.clone()),
                    format!("app {name}: number {} is not from 16 to 16777215", number.0),
                );
            } else if let Some(other) = seen.insert(*number, name) {
                let what = format!(
                    "apps {other} and {name} have the same number {}: give one of them another `number`",
                    number.0
                );
                self.push(Place::App(name.clone()), what);
            }
        }
    }

    fn roles(&mut self, cluster: &Cluster) {
        for App { name: app, roles, .. } in cluster.apps.values() {
            let mut seen = BTreeMap::new();
            for (name, Role { number, .. }) in roles {
                let place = || Place::Role(app.clone(), name.clone());
                if weft_common::id::RoleId::new(number.0).is_none() {
                    self.push(place(), format!("role {app}/{name}: number {} is not from 1 to 65533", number.0));
                } else if let Some(other) = seen.insert(*number, name) {
                    let what = format!(
                        "roles {app}/{other} and {app}/{name} have the same number {}: give one of them another `number`",
                        number.0
                    );
                    self.push(place(), what);
                }
            }
        }
    }

    fn host_addresses(&mut self, cluster: &Cluster) {
        let mut seen: BTreeMap<IpAddr, &HostName> = BTreeMap::new();
        for Host { name, addresses, blocks: _ } in cluster.hosts.values() {
            if addresses.is_empty() {
                self.push(
                    Place::Host(name.clone()),
                    format!("host {name} has no address: give it the one that other hosts reach it by"),
                );
            }
            for (at, addr) in addresses.iter().enumerate() {
                let place = || Place::HostAddress(name.clone(), at);
                if !is_underlay(*addr) {
                    self.push(place(), format!("host {name}: {addr} is no address that other hosts can send to"));
                }
                if let Some(other) = seen.insert(*addr, name) {
                    self.push(place(), format!("hosts {other} and {name} have the same address {addr}"));
                }
                if let Some((app, prefix)) = cluster.app_at(*addr) {
                    self.push(
                        place(),
                        format!(
                            "host {name}: {addr} is inside {prefix} of app {}: apps need prefixes of their own",
                            app.name
                        ),
                    );
                }
            }
        }
    }

    fn rules(&mut self, cluster: &Cluster) {
        let mut said = HashMap::new();
        let mut named = BTreeMap::new();
        for (at, rule) in cluster.rules.iter().enumerate() {
            for side in [&rule.from, &rule.to] {
                if let Err(what) = known(cluster, side) {
                    self.push(Place::Rule(at), format!("{}{what}", of_rule(rule)));
                }
            }
            // Two policies may say the same: each can go without the other.
            if let Some(first) = said.insert((&rule.policy, rule.statement().to_string()), at) {
                self.push(
                    Place::Rule(at),
                    format!("rule `{rule}` says what rule `{}` says: remove one", cluster.rules[first]),
                );
            }
            if let Some(policy) = rule.policy.as_ref().filter(|policy| !cluster.policies.contains_key(*policy)) {
                self.push(Place::Rule(at), format!("rule `{rule}` is of policy {policy}, which there is not"));
            }
            if let Some(first) = rule.name.as_ref().and_then(|name| named.insert((&rule.policy, name), at)) {
                self.push(Place::Rule(at), format!("rules `{}` and `{rule}` have the same name", cluster.rules[first]));
            }
        }
    }
}

/// How a sentence starts that says what is wrong with one rule.
pub fn of_rule(rule: &Rule) -> String {
    format!("rule `{rule}`: ")
}

fn known(cluster: &Cluster, selector: &Selector) -> Result<(), String> {
    let Some(name) = selector.app() else { return Ok(()) };
    let Some(app) = cluster.apps.get(name) else {
        return Err(format!("there is no app {name}: the apps are {}", list(cluster.apps.keys())));
    };
    match selector {
        Selector::Role(_, role) if !app.roles.iter().any(|(own, known)| known.is_called(own, role)) => {
            Err(format!("app {name} has no role {role}: its roles are {}", list(app.roles.keys())))
        }
        Selector::App(_)
        | Selector::Role(..)
        | Selector::Labelled(_)
        | Selector::Host
        | Selector::Outside
        | Selector::Any
        | Selector::Everyone
        | Selector::Net(_) => Ok(()),
    }
}

fn list<T: fmt::Display>(names: impl Iterator<Item = T>) -> String {
    const MOST: usize = 10;
    let mut names: Vec<_> = names.take(MOST + 1).map(|name| name.to_string()).collect();
    if names.len() > MOST {
        names[MOST] = String::from("...");
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether hosts can send to an address without saying by which interface.
fn is_underlay(addr: IpAddr) -> bool {
    let special = addr.is_unspecified() || addr.is_loopback() || addr.is_multicast();
    let family_special = match addr {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !special && !family_special
}

/// Whether endpoints can have addresses in a prefix.
fn is_for_endpoints(prefix: &Prefix) -> bool {
    const NEVER_V4: [(&str, u8); 5] =
        [("0.0.0.0", 8), ("127.0.0.0", 8), ("169.254.0.0", 16), ("224.0.0.0", 4), ("255.255.255.255", 32)];
    const NEVER_V6: [(&str, u8); 3] = [("::", 8), ("fe80::", 10), ("ff00::", 8)];
    let never: &[(&str, u8)] = match prefix.family() {
        Family::V4 => &NEVER_V4,
        Family::V6 => &NEVER_V6,
    };
    let overlaps = |&(addr, len): &(&str, u8)| {
        addr.parse().ok().and_then(|addr| Prefix::new(addr, len).ok()).is_some_and(|never| never.overlaps(prefix))
    };
    !never.iter().any(overlaps)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests;
