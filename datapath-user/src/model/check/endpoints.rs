//! Endpoints: each is one of an app, at an address that its host may give, and shares nothing with another.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use weft_common::addr::Mac;

use super::{
    super::{
        cluster::Cluster,
        endpoint::{self, Endpoint, EndpointKey},
        host,
        name::{HostName, LinkName},
        prefix::Family,
    },
    Faults, Place, list,
};

/// The faults of those that `keys` name.
pub(super) fn check<'a>(cluster: &Cluster, keys: impl IntoIterator<Item = &'a EndpointKey>, faults: &mut Faults) {
    let asked = keys.into_iter().filter_map(|key| cluster.endpoints.get(key).map(|endpoint| &**endpoint));
    let asked: Vec<&Endpoint> = asked.collect();
    let all = Index::of(&asked, cluster);
    for endpoint in asked {
        let place = || Place::Endpoint(endpoint.key.clone());
        for what in alone(cluster, endpoint).into_iter().chain(all.shared(endpoint)) {
            faults.push(place(), format!("endpoint {}: {what}", endpoint.key));
        }
    }
}

fn alone(cluster: &Cluster, endpoint: &Endpoint) -> Vec<String> {
    let Endpoint {
        key,
        host: host_name,
        role,
        addresses,
        mac,
        netns: _,
        ifname: _,
        link,
        default_route: _,
        attached: _,
    } = endpoint;
    let mut faults = Vec::new();
    let (Some(app), Some(host)) = (cluster.apps.get(&key.app), cluster.hosts.get(host_name)) else {
        if !cluster.apps.contains_key(&key.app) {
            faults.push(format!("there is no app {}: the apps are {}", key.app, list(cluster.apps.keys())));
        }
        if !cluster.hosts.contains_key(host_name) {
            faults.push(format!("there is no host {host_name}: the hosts are {}", list(cluster.hosts.keys())));
        }
        return faults;
    };
    if let Some(role) = role.as_ref().filter(|role| !app.roles.contains_key(*role)) {
        faults.push(format!("app {} has no role {role}: its roles are {}", app.name, list(app.roles.keys())));
    }
    if addresses.is_empty() {
        faults.push("it has no address".to_owned());
    }
    for addr in addresses.iter() {
        match host.block_with(&app.name, addr) {
            None => faults.push(format!(
                "{addr} is not in a block of host {host_name}, which has {}",
                list(host.blocks_of(&app.name))
            )),
            Some(block) if !host::is_usable(block, addr) => {
                faults.push(format!("{addr} is an end of {block}, which nobody can have"));
            }
            Some(_) if host.gateway(&app.name, Family::of(addr)) == Some(addr) => {
                faults.push(format!("{addr} is the gateway of host {host_name} in app {}", app.name));
            }
            Some(_) => {}
        }
    }
    if !endpoint::is_own(*mac) {
        faults.push(format!("MAC {mac} is a group's, the gateway's or none"));
    }
    if !link.as_str().starts_with(LinkName::OURS) || *link == LinkName::gateway() {
        faults.push(format!(
            "interface {link} of the host is not one that is ours: it has to start with {}",
            LinkName::OURS
        ));
    }
    faults
}

/// What only one endpoint can have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Thing<'a> {
    Address(IpAddr),
    Mac(Mac),
    Link(&'a HostName, &'a LinkName),
    Inside(&'a HostName, u64, Option<u64>, &'a LinkName),
}

/// Who has what of that which those have that are asked about.
struct Index<'a>(BTreeMap<Thing<'a>, Vec<&'a EndpointKey>>);

impl<'a> Index<'a> {
    fn of(asked: &[&'a Endpoint], cluster: &'a Cluster) -> Self {
        let things = asked.iter().flat_map(|endpoint| Thing::of(endpoint));
        let mut index: BTreeMap<_, Vec<_>> = things.map(|thing| (thing, Vec::new())).collect();
        for endpoint in cluster.endpoints.values() {
            for thing in Thing::of(endpoint) {
                if let Some(owners) = index.get_mut(&thing) {
                    owners.push(&endpoint.key);
                }
            }
        }
        Self(index)
    }

    fn shared(&self, endpoint: &Endpoint) -> Vec<String> {
        let said = |thing: Thing<'_>| {
            let other = self.0.get(&thing)?.iter().find(|key| **key != &endpoint.key)?;
            Some(format!("{thing} is {other}'s already"))
        };
        Thing::of(endpoint).filter_map(said).collect()
    }
}

impl<'a> Thing<'a> {
    fn of(endpoint: &'a Endpoint) -> impl Iterator<Item = Self> {
        let Endpoint { host, mac, netns, ifname, link, .. } = endpoint;
        let others = [Self::Mac(*mac), Self::Link(host, link), Self::Inside(host, netns.inode, netns.cookie, ifname)];
        endpoint.addresses.iter().map(Self::Address).chain(others)
    }
}

impl fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => write!(f, "address {addr}"),
            Self::Mac(mac) => write!(f, "MAC {mac}"),
            Self::Link(host, link) => write!(f, "interface {link} of host {host}"),
            Self::Inside(_, _, _, ifname) => write!(f, "interface {ifname} of its namespace"),
        }
    }
}
