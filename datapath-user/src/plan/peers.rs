//! Tables PEERS and PEER_ADDRESSES. [`super::ids`] gives the numbers.

use std::collections::BTreeMap;

use weft_common::{addr::Ip, id::PeerId, tunnel::Peer};

use crate::model::cluster::Cluster;

use super::{
    facts::{Facts, Underlay},
    ids::Ids,
};

/// Those that are known to be reachable, and how.
pub(super) fn records(cluster: &Cluster, facts: &Facts, ids: &Ids) -> BTreeMap<u32, Peer> {
    let reached = facts.underlay.iter().filter(|(name, _)| cluster.hosts.contains_key(*name));
    let record = |underlay: &Underlay| {
        let Underlay { addr, local, next_hop, uplink, path_mtu } = *underlay;
        Peer {
            addr: addr.into(),
            local: local.into(),
            next_hop: next_hop.into(),
            uplink,
            path_mtu,
            flags: 0,
            reserved: 0,
        }
    };
    reached.filter_map(|(name, underlay)| Some((ids.peer(name)?.0, record(underlay)))).collect()
}

/// Every address that a peer can send from.
pub(super) fn addresses(cluster: &Cluster, ids: &Ids) -> BTreeMap<Ip, PeerId> {
    let numbered = cluster.hosts.values().filter_map(|host| Some((host, ids.peer(&host.name)?)));
    numbered.flat_map(|(host, peer)| host.addresses.iter().map(move |addr| (Ip::from(*addr), peer))).collect()
}
