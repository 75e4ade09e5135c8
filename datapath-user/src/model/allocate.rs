//! Which addresses an endpoint gets. A function of the cluster: the store writes down what it says.
//!
//! An address belongs to a name: it comes back to it, and goes to another only when nothing else is left. Only
//! addresses of the host's own blocks are given, so two hosts never give the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::{
    cluster::{Cluster, Revision},
    endpoint::{Addresses, EndpointKey},
    host::{Host, after, is_usable},
    name::{AppName, HostName},
    prefix::{Family, Prefix},
};

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllocateError {
    /// The cluster has no such app.
    UnknownApp(AppName),
    /// The cluster has no such host.
    UnknownHost(HostName),
    /// The host was given no block of the app.
    NoBlock(AppName, HostName),
    /// Every address of the family has an owner that is there.
    Full(AppName, HostName, Family),
    /// The wanted address is in none of the host's blocks.
    Elsewhere(IpAddr, AppName, HostName),
    /// The wanted address is an end of a block or the gateway.
    Unusable(IpAddr, Prefix),
    /// An endpoint has the wanted address.
    Taken(IpAddr, EndpointKey),
    /// The wanted address is kept for a name that is away.
    Kept(IpAddr, EndpointKey),
}

/// The addresses of the endpoint that `key` names on `host`: one of each family that the host has a block of.
/// `wanted` takes the place of the one of its family.
pub fn allocate(
    cluster: &Cluster,
    host: &HostName,
    key: &EndpointKey,
    wanted: Option<IpAddr>,
) -> Result<Addresses, AllocateError> {
    let app = cluster.apps.get(&key.app).ok_or_else(|| AllocateError::UnknownApp(key.app.clone()))?;
    let host = cluster.hosts.get(host).ok_or_else(|| AllocateError::UnknownHost(host.clone()))?;
    let pool = Pool::of(cluster, host, key);
    let mut addresses = Addresses::default();
    if let Some(addr) = wanted {
        pool.check(addr)?;
        addresses = addresses.with(addr);
    }
    for family in Family::ALL {
        let given = addresses.of(family).is_some();
        if given || !host.blocks_of(&app.name).any(|block| block.family() == family) {
            continue;
        }
        let addr = pool.own(family).or_else(|| pool.unused(family)).or_else(|| pool.oldest(family));
        let full = || AllocateError::Full(app.name.clone(), host.name.clone(), family);
        addresses = addresses.with(addr.ok_or_else(full)?);
    }
    if addresses.is_empty() {
        return Err(AllocateError::NoBlock(app.name.clone(), host.name.clone()));
    }
    Ok(addresses)
}

/// A host's addresses of an app, as one endpoint sees them.
struct Pool<'a> {
    host: &'a Host,
    key: &'a EndpointKey,
    /// What the endpoint has or had itself.
    own: Vec<Addresses>,
    /// Endpoints that are there.
    taken: BTreeMap<IpAddr, &'a EndpointKey>,
    /// Names that are away, with the revision in which they left.
    kept: BTreeMap<IpAddr, (Revision, &'a EndpointKey)>,
}

impl<'a> Pool<'a> {
    fn of(cluster: &'a Cluster, host: &'a Host, key: &'a EndpointKey) -> Self {
        let there = cluster.endpoints.get(key).map(|endpoint| endpoint.addresses);
        let reserved = cluster.reservations.get(key).map(|reservation| reservation.addresses);
        let own = there.into_iter().chain(reserved).collect();
        let others = cluster.endpoints.values().filter(|endpoint| endpoint.key != *key);
        let taken: BTreeMap<_, _> =
            others.flat_map(|endpoint| endpoint.addresses.iter().map(|addr| (addr, &endpoint.key))).collect();
        let away = cluster.reservations.iter().filter(|(name, _)| *name != key);
        let kept = away.flat_map(|(name, kept)| kept.addresses.iter().map(move |addr| (addr, (kept.used, name))));
        let kept = kept.filter(|(addr, _)| !taken.contains_key(addr)).collect();
        Self { host, key, own, taken, kept }
    }

    /// Whether the endpoint can have the address that was asked for.
    fn check(&self, addr: IpAddr) -> Result<(), AllocateError> {
        let app = &self.key.app;
        let Some(block) = self.host.block_with(app, addr) else {
            return Err(AllocateError::Elsewhere(addr, app.clone(), self.host.name.clone()));
        };
        if !self.is_usable(block, addr) {
            return Err(AllocateError::Unusable(addr, *block));
        }
        if let Some(owner) = self.taken.get(&addr) {
            return Err(AllocateError::Taken(addr, (*owner).clone()));
        }
        match self.kept.get(&addr) {
            Some((_, owner)) => Err(AllocateError::Kept(addr, (*owner).clone())),
            None => Ok(()),
        }
    }

    /// What it has or had, if it can have it still.
    fn own(&self, family: Family) -> Option<IpAddr> {
        let addresses = self.own.iter().filter_map(|addresses| addresses.of(family));
        addresses.into_iter().find(|addr| self.check(*addr).is_ok())
    }

    /// The first address that nobody has or had.
    fn unused(&self, family: Family) -> Option<IpAddr> {
        let used = |addr: &IpAddr| self.taken.contains_key(addr) || self.kept.contains_key(addr);
        self.blocks(family).find_map(|block| addresses(block).find(|addr| self.is_usable(block, *addr) && !used(addr)))
    }

    /// The address whose owner is away for the longest time.
    fn oldest(&self, family: Family) -> Option<IpAddr> {
        let can_have =
            |addr: IpAddr| self.blocks(family).any(|block| block.contains(addr) && self.is_usable(block, addr));
        let kept: BTreeSet<_> = self.kept.iter().map(|(addr, (left, _))| (*left, *addr)).collect();
        kept.into_iter().map(|(_, addr)| addr).find(|addr| can_have(*addr))
    }

    fn blocks(&self, family: Family) -> impl Iterator<Item = &'a Prefix> {
        self.host.blocks_of(&self.key.app).filter(move |block| block.family() == family)
    }

    fn is_usable(&self, block: &Prefix, addr: IpAddr) -> bool {
        is_usable(block, addr) && self.host.gateway(&self.key.app, Family::of(addr)) != Some(addr)
    }
}

/// All addresses of a block, in order.
fn addresses(block: &Prefix) -> impl Iterator<Item = IpAddr> {
    let last = block.last();
    std::iter::successors(Some(block.first()), move |addr| (*addr < last).then(|| after(*addr)))
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownApp(app) => write!(f, "there is no app {app}"),
            Self::UnknownHost(host) => write!(f, "there is no host {host}"),
            Self::NoBlock(app, host) => write!(f, "{app}: host {host} has no block of its prefixes: give it one"),
            Self::Full(app, host, family) => {
                write!(
                    f,
                    "{app}: pool full: every {family} address of host {host} has an endpoint; give the host another block"
                )
            }
            Self::Elsewhere(addr, app, host) => write!(f, "{addr} is in no block that host {host} has of app {app}"),
            Self::Unusable(addr, block) => write!(f, "{addr} is an end of {block} or the gateway: take another"),
            Self::Taken(addr, owner) => write!(f, "{addr} is taken: endpoint {owner} has it"),
            Self::Kept(addr, owner) => write!(f, "{addr} is kept for {owner}: release it there or take another"),
        }
    }
}

impl std::error::Error for AllocateError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{cluster::Reservation, example};

    fn shop(name: &str) -> EndpointKey {
        format!("shop/{name}").parse().unwrap()
    }

    fn texts(addresses: Addresses) -> Vec<String> {
        addresses.iter().map(|addr| addr.to_string()).collect()
    }

    /// A cluster whose host h1 has `blocks` of shop.
    fn cluster(blocks: &[&str]) -> Cluster {
        let mut cluster = example::cluster();
        Arc::make_mut(&mut cluster.apps).get_mut(&"shop".parse().unwrap()).unwrap().prefixes =
            vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        Arc::make_mut(&mut cluster.hosts).get_mut(&"h1".parse().unwrap()).unwrap().blocks =
            [("shop".parse().unwrap(), blocks.iter().map(|text| text.parse().unwrap()).collect())].into();
        cluster.endpoints.clear();
        cluster
    }

    fn attach(cluster: &mut Cluster, name: &str) -> Result<Addresses, AllocateError> {
        let host = "h1".parse().unwrap();
        let addresses = allocate(cluster, &host, &shop(name), None)?;
        let used = Revision(cluster.reservations.len() as u64);
        let endpoint = example::endpoint(&format!("shop/{name}"), "h1", addresses);
        cluster.endpoints.insert(shop(name), Arc::new(endpoint));
        cluster.reservations.insert(shop(name), Reservation { addresses, used });
        Ok(addresses)
    }

    #[test]
    fn each_family_is_given_from_the_first_free_address() {
        let mut cluster = cluster(&["10.1.1.0/24", "fd00:1:1::/64"]);
        assert_eq!(texts(attach(&mut cluster, "a").unwrap()), ["10.1.1.2", "fd00:1:1::2"]);
        assert_eq!(texts(attach(&mut cluster, "b").unwrap()), ["10.1.1.3", "fd00:1:1::3"]);
        assert_eq!(texts(attach(&mut cluster, "a").unwrap()), ["10.1.1.2", "fd00:1:1::2"]);
    }

    #[test]
    fn an_address_comes_back_to_its_name() {
        let mut cluster = cluster(&["10.1.1.0/24"]);
        attach(&mut cluster, "a").unwrap();
        cluster.endpoints.clear();
        assert_eq!(texts(attach(&mut cluster, "b").unwrap()), ["10.1.1.3"]);
        assert_eq!(texts(attach(&mut cluster, "a").unwrap()), ["10.1.1.2"]);
    }

    #[test]
    fn a_full_pool_takes_the_address_that_was_left_first_and_then_refuses() {
        let mut cluster = cluster(&["10.1.1.0/29"]);
        for name in ["a", "b", "c", "d", "e"] {
            attach(&mut cluster, name).unwrap();
        }
        let full = attach(&mut cluster, "f").unwrap_err();
        assert!(full.to_string().starts_with("shop: pool full"), "{full}");
        cluster.endpoints.remove(&shop("c"));
        cluster.endpoints.remove(&shop("b"));
        assert_eq!(texts(attach(&mut cluster, "f").unwrap()), ["10.1.1.3"]);
    }

    #[test]
    fn never_an_end_and_never_the_gateway() {
        let mut cluster = cluster(&["10.1.1.0/30", "10.1.2.0/30", "10.1.3.4/32"]);
        let given: Vec<_> =
            ["a", "b", "c", "d"].map(|name| attach(&mut cluster, name)).into_iter().flatten().flat_map(texts).collect();
        assert_eq!(given, ["10.1.1.2", "10.1.2.1", "10.1.2.2", "10.1.3.4"]);
        attach(&mut cluster, "e").unwrap_err();
    }

    #[test]
    fn a_wanted_address_is_given_or_refused_by_name() {
        let mut cluster = cluster(&["10.1.1.0/24", "fd00:1:1::/64"]);
        attach(&mut cluster, "a").unwrap();
        attach(&mut cluster, "b").unwrap();
        cluster.endpoints.remove(&shop("b"));
        let host = "h1".parse().unwrap();
        let ask = |addr: &str| allocate(&cluster, &host, &shop("c"), Some(addr.parse().unwrap()));
        assert_eq!(texts(ask("10.1.1.77").unwrap()), ["10.1.1.77", "fd00:1:1::4"]);
        assert_eq!(texts(ask("fd00:1:1::7").unwrap()), ["10.1.1.4", "fd00:1:1::7"]);
        let check = |addr: &str, expect: &str| assert_eq!(ask(addr).unwrap_err().to_string(), expect);
        check("10.1.1.2", "10.1.1.2 is taken: endpoint shop/a has it");
        check("10.1.1.3", "10.1.1.3 is kept for shop/b: release it there or take another");
        check("10.1.2.1", "10.1.2.1 is in no block that host h1 has of app shop");
        check("10.1.1.1", "10.1.1.1 is an end of 10.1.1.0/24 or the gateway: take another");
        check("10.1.1.255", "10.1.1.255 is an end of 10.1.1.0/24 or the gateway: take another");
    }

    #[test]
    fn who_has_nothing_gives_nothing() {
        let cluster = cluster(&[]);
        let check = |host: &str, app: &str, expect: &str| {
            let key = format!("{app}/a").parse().unwrap();
            assert_eq!(allocate(&cluster, &host.parse().unwrap(), &key, None).unwrap_err().to_string(), expect);
        };
        check("h1", "shop", "shop: host h1 has no block of its prefixes: give it one");
        check("h1", "wiki", "there is no app wiki");
        check("h9", "shop", "there is no host h9");
    }
}
