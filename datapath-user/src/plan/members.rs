//! Who gets copies of what is sent to a whole app: its endpoints here, and the hosts that were given a part of it.

use std::collections::BTreeMap;

use weft_common::{
    group::{Member, MemberKey},
    id::{AppId, Identity, RoleId},
    route::Hop,
};

use crate::model::{cluster::Cluster, name::HostName};

use super::{facts::Facts, ids::Ids};

/// Table MEMBERS.
pub(super) fn members(cluster: &Cluster, host: &HostName, facts: &Facts, ids: &Ids) -> BTreeMap<MemberKey, Member> {
    let mut here: BTreeMap<AppId, Vec<Member>> = BTreeMap::new();
    for endpoint in cluster.endpoints_on(host) {
        if let (Some(link), Some(identity)) = (facts.links.get(&endpoint.link), cluster.identity(endpoint)) {
            here.entry(identity.app).or_default().push(Member { hop: Hop::local(*link), identity });
        }
    }
    let mut members = BTreeMap::new();
    for app in cluster.apps.values() {
        let here = here.remove(&app.number).unwrap_or_default().into_iter();
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
