//! Tables ENDPOINTS and ROUTES: where every address of every app is. What no entry names is outside.

use std::collections::BTreeMap;

use weft_common::{
    addr::{Ip, Mac},
    id::{Identity, RoleId},
    route::{self, Hop, Route},
};

use crate::model::{cluster::Cluster, endpoint::Endpoint, host::Host, name::HostName, prefix::Prefix};

use super::{facts::Facts, ids::Ids};

type Endpoints = BTreeMap<u32, route::Endpoint>;
type Routes = BTreeMap<(u32, Ip), Route>;

/// Both tables. What is narrower is written later, and takes the place of what is as long: an app that is one
/// block, a block that is one address.
pub(super) fn place(cluster: &Cluster, host: &HostName, facts: &Facts, ids: &Ids) -> (Endpoints, Routes) {
    let mut routes = Routes::new();
    let mut endpoints = Endpoints::new();
    for app in cluster.apps.values() {
        let nowhere = route(Hop::NOWHERE, Identity::new(app.number, RoleId::UNKNOWN), Mac::default());
        routes.extend(app.prefixes.iter().map(|prefix| (prefix.key(), nowhere)));
    }
    for at in cluster.hosts.values() {
        blocks(cluster, at, hop_to(at, host, ids).unwrap_or(Hop::NOWHERE), &mut routes);
    }
    for at in cluster.hosts.values() {
        let hop = if at.name == *host { Some(Hop::HOST) } else { hop_to(at, host, ids) };
        let gateway = |hop| route(hop, Identity::HOST, Mac::GATEWAY);
        routes.extend(at.gateways().filter_map(|(_, addr)| Some((key(addr.into()), gateway(hop?)))));
    }
    for endpoint in cluster.endpoints.values() {
        let Some(identity) = cluster.identity(endpoint) else { continue };
        let hop = if endpoint.host == *host {
            let link = facts.links.get(&endpoint.link).copied();
            endpoints.extend(link.map(|link| (link, record(endpoint, identity))));
            link.map(Hop::local)
        } else {
            cluster.hosts.get(&endpoint.host).and_then(|at| hop_to(at, host, ids))
        };
        // Without its interface nobody can have the packets: the block says that the address is nowhere.
        if let Some(hop) = hop {
            let here = route(hop, identity, endpoint.mac);
            routes.extend(endpoint.addresses.iter().map(|addr| (key(addr.into()), here)));
        }
    }
    (endpoints, routes)
}

fn blocks(cluster: &Cluster, at: &Host, hop: Hop, routes: &mut Routes) {
    let of = |(name, blocks): (_, &'_ Vec<Prefix>)| {
        let identity = Identity::new(cluster.apps.get(name)?.number, RoleId::UNKNOWN);
        Some(blocks.iter().map(|block| (block.key(), route(hop, identity, Mac::default()))).collect::<Vec<_>>())
    };
    routes.extend(at.blocks.iter().filter_map(of).flatten());
}

/// Where what another host has is; nowhere for this host's own blocks, and for a peer without a number.
fn hop_to(at: &Host, host: &HostName, ids: &Ids) -> Option<Hop> {
    if at.name == *host { None } else { ids.peer(&at.name).map(Hop::peer) }
}

fn record(endpoint: &Endpoint, identity: Identity) -> route::Endpoint {
    let addresses = endpoint.addresses;
    route::Endpoint {
        v4: addresses.v4.map_or(Ip::NONE, Ip::from),
        v6: addresses.v6.map_or(Ip::NONE, Ip::from),
        identity,
        mac: endpoint.mac,
        reserved: 0,
    }
}

fn route(hop: Hop, identity: Identity, mac: Mac) -> Route {
    Route { hop, identity, mac, reserved: 0 }
}

fn key(addr: Ip) -> (u32, Ip) {
    (128, addr)
}
