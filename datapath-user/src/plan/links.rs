//! Devices of this host that are ours, with their addresses and routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_common::{addr::Mac, tunnel};

use crate::model::{
    app::App,
    cluster::Cluster,
    endpoint::{DefaultRoute, EndpointKey, Netns},
    host::Host,
    name::{HostName, LinkName},
    prefix::{Family, Prefix},
};

use super::facts::Facts;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The host's own way into the apps. A host that is not in the cluster has none.
    pub gateway: Option<Gateway>,
    /// By the name of the host's side.
    pub veths: BTreeMap<LinkName, Veth>,
}

/// The gateway device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: LinkName,
    /// Its hardware address, the same on every host.
    pub mac: Mac,
    /// Largest packet that reaches every peer in one piece.
    pub mtu: u32,
    /// The host's addresses in the apps, each alone: no route comes with them.
    pub addresses: BTreeSet<IpAddr>,
    /// Prefixes that lie behind it, and the source that the host's own packets to them have.
    pub routes: BTreeMap<Prefix, IpAddr>,
}

/// The two interfaces of an endpoint. The host's side has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Whose it is.
    pub endpoint: EndpointKey,
    /// Where the inner side goes.
    pub netns: Netns,
    /// The name of the inner side.
    pub ifname: LinkName,
    /// The hardware address of the inner side.
    pub mac: Mac,
    /// Of both sides.
    pub mtu: u32,
    /// Addresses of the inner side, with the length of the app's prefix they are in.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// Prefixes of the app that no address above is in, reached without a gateway all the same.
    pub on_link: BTreeSet<Prefix>,
    /// Next hop of the default route, of each family that the endpoint has an address of.
    pub gateways: BTreeSet<IpAddr>,
    /// Whether there is to be a default route.
    pub default_route: DefaultRoute,
}

/// The underlay's MTU while nothing is known of any path: Ethernet's.
const ASSUMED_MTU: u32 = 1500;
/// Below this the kernel takes IPv6 off a device (RFC 8200 §5). A path that takes less is dealt with per packet.
const LEAST_MTU: u32 = 1280;
/// The greatest that an IPv4 packet can have.
const MOST_MTU: u32 = 65_535;

/// The devices that `host` should have.
pub(super) fn links(cluster: &Cluster, host: &HostName, facts: &Facts) -> Links {
    let Some(host) = cluster.hosts.get(host) else { return Links::default() };
    let mtu = mtu(host, facts);
    let veths = cluster.endpoints_on(&host.name).filter_map(|endpoint| {
        let app = cluster.apps.get(&endpoint.key.app)?;
        let over = |addr: IpAddr| app.prefixes.iter().find(|prefix| prefix.contains(addr));
        let families = || Family::ALL.into_iter().filter(|family| endpoint.addresses.of(*family).is_some());
        let covered: BTreeSet<Prefix> = endpoint.addresses.iter().filter_map(over).copied().collect();
        let reachable = app.prefixes.iter().filter(|prefix| families().any(|family| family == prefix.family()));
        let veth = Veth {
            endpoint: endpoint.key.clone(),
            netns: endpoint.netns.clone(),
            ifname: endpoint.ifname.clone(),
            mac: endpoint.mac,
            mtu,
            addresses: endpoint.addresses.iter().filter_map(|addr| Some((addr, over(addr)?.len()))).collect(),
            on_link: reachable.copied().filter(|prefix| !covered.contains(prefix)).collect(),
            gateways: families().filter_map(|family| host.gateway(&app.name, family)).collect(),
            default_route: endpoint.default_route,
        };
        Some((endpoint.link.clone(), veth))
    });
    Links { veths: veths.collect(), gateway: Some(gateway(cluster, host, mtu)) }
}

fn gateway(cluster: &Cluster, host: &Host, mtu: u32) -> Gateway {
    let addresses: BTreeSet<IpAddr> = host.gateways().map(|(_, addr)| addr).collect();
    // A host that has nothing of an app still reaches it, from where it stands in another.
    let source = |app: &App, family| {
        let any = || addresses.iter().copied().find(|addr| Family::of(*addr) == family);
        host.gateway(&app.name, family).or_else(any)
    };
    let routes = cluster
        .apps
        .values()
        .flat_map(|app| app.prefixes.iter().filter_map(move |prefix| Some((*prefix, source(app, prefix.family())?))));
    let routes = routes.collect();
    Gateway { name: LinkName::gateway(), mac: Mac::GATEWAY, mtu, addresses, routes }
}

/// What fits through the tunnel to every peer.
fn mtu(host: &Host, facts: &Facts) -> u32 {
    let others = facts.underlay.iter().filter(|(name, _)| **name != host.name);
    let inner = others.map(|(_, underlay)| tunnel::inner_mtu(underlay.path_mtu, underlay.addr.is_ipv4()));
    let assumed = || tunnel::inner_mtu(ASSUMED_MTU, host.addresses.iter().all(IpAddr::is_ipv4));
    inner.min().unwrap_or_else(assumed).clamp(LEAST_MTU, MOST_MTU)
}
