//! Who gets copies of what is sent to a whole app: its endpoints here, and the hosts that were given a part of it.

use std::collections::BTreeMap;

use weft_common::{
    group::{Member, MemberKey},
    id::{Identity, RoleId},
    route::Hop,
};

use crate::model::{cluster::Cluster, name::HostName};

use super::{facts::Facts, ids::Ids};

/// Table MEMBERS.
pub(super) fn members(cluster: &Cluster, host: &HostName, facts: &Facts, ids: &Ids) -> BTreeMap<MemberKey, Member> {
    let mut members = BTreeMap::new();
    for app in cluster.apps.values() {
        let here = cluster.endpoints_on(host).filter(|endpoint| endpoint.key.app == app.name);
        let here = here.filter_map(|endpoint| {
            let link = facts.links.get(&endpoint.link)?;
            Some(Member { hop: Hop::local(*link), identity: cluster.identity(endpoint)? })
        });
        let there =
            cluster.hosts.values().filter(|peer| peer.name != *host && peer.blocks_of(&app.name).next().is_some());
        let there = there.filter_map(|peer| {
            facts.underlay.get(&peer.name)?;
            Some(Member { hop: Hop::peer(ids.peer(&peer.name)?), identity: Identity::new(app.number, RoleId::UNKNOWN) })
        });
        for (index, member) in (0..).zip(here.chain(there)) {
            members.insert(MemberKey { app: app.number, index }, member);
        }
    }
    members
}
