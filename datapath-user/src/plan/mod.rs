//! What this host should have: every table, link, address and route, as a function of the cluster.
//!
//! Knows nothing of kernels, tasks or clocks. Invariant: the same arguments give the same plan; everything is
//! in order; nothing depends on what was done before except the numbers that are in use.

pub mod ask;
pub mod digest;
pub mod expect;
pub mod facts;
pub mod foresee;
pub mod ids;
pub mod links;
pub mod lookup;
pub mod matching;
pub mod matrix;
mod members;
pub mod parties;
mod peers;
mod routes;
pub mod rules;
pub mod sizes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_common::{
    addr::Ip,
    group::{Member, MemberKey},
    id::{Epoch, PeerId},
    route::{Endpoint, Route},
    table::Config,
    tunnel::Peer,
};

use crate::model::{cluster::Cluster, name::HostName, prefix::Prefix, rule::Rule};

use facts::{Clock, Facts};
use ids::{Ids, PolicyIds};
use links::Links;
use rules::Policy;

/// What a host should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// The numbers that the tables of this plan have: pass the plan on to the next one.
    pub ids: Ids,
    /// Table CONFIG but for the epoch, which belongs to whoever swaps it.
    pub config: Config,
    /// Table ENDPOINTS.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Table ROUTES, with the bits of the address that count.
    pub routes: BTreeMap<(u32, Ip), Route>,
    /// Table PEERS, without the empty elements.
    pub peers: BTreeMap<u32, Peer>,
    /// Table PEER_ADDRESSES.
    pub peer_addresses: BTreeMap<Ip, PeerId>,
    /// Table MEMBERS.
    pub members: BTreeMap<MemberKey, Member>,
    /// The tables of policy. Shared with the plan before if neither apps nor rules changed.
    pub policy: Arc<Policy>,
    /// Devices, their addresses and routes.
    pub links: Links,
    /// Whoever has these addresses borrows the host's on the way to the outside.
    pub masquerade: BTreeSet<Prefix>,
    /// What the numbers of peers mean.
    pub peer_names: BTreeMap<PeerId, HostName>,
    /// Hosts for which no number was left: see [`sizes`].
    pub unnumbered: BTreeSet<HostName>,
}

impl NodePlan {
    /// The number that the tables have for a rule.
    pub fn number_of(&self, rule: &Rule) -> Option<u32> {
        self.ids.policy.rules.of(&rule.statement().to_string())
    }
}

/// What `host` should have of `cluster`. `before` is the plan in force, which keeps its numbers; at the start
/// it is an empty plan with the numbers that [`Ids::recover`] found.
pub fn plan(cluster: &Cluster, host: &HostName, facts: &Facts, before: &NodePlan) -> NodePlan {
    let peer_numbers = before.ids.next_peers(cluster, host);
    let (policy, policy_ids) = policy(cluster, facts.clock, before);
    let ids = Ids { peers: peer_numbers, policy: policy_ids };
    let others = || cluster.hosts.keys().filter(|name| *name != host);
    let (endpoints, routes) = routes::place(cluster, host, facts, &ids);
    NodePlan {
        config: Config {
            epoch: Epoch(0),
            gateway: facts.gateway.unwrap_or_default(),
            port: u32::from(cluster.settings.port),
            shadow: u32::from(policy.is_tried()),
        },
        endpoints,
        routes,
        peers: peers::records(cluster, facts, &ids),
        peer_addresses: peers::addresses(cluster, &ids),
        members: members::members(cluster, host, facts, &ids),
        policy,
        links: links::links(cluster, host, facts),
        masquerade: cluster
            .hosts
            .get(host)
            .into_iter()
            .flat_map(|host| host.blocks.values().flatten().copied())
            .collect(),
        peer_names: ids.peers.iter().map(|(name, number)| (PeerId(number), name.clone())).collect(),
        unnumbered: others().filter(|name| ids.peer(name).is_none()).cloned().collect(),
        ids,
    }
}

/// The tables of policy and their numbers; those of `before` if neither apps nor rules have changed since.
fn policy(cluster: &Cluster, clock: Clock, before: &NodePlan) -> (Arc<Policy>, Arc<PolicyIds>) {
    if before.policy.is_of(cluster) && before.policy.ends_by(clock) {
        return (Arc::clone(&before.policy), Arc::clone(&before.ids.policy));
    }
    let (policy, ids) = rules::compile(cluster, Some(clock), (&before.policy, &before.ids.policy));
    (Arc::new(policy), Arc::new(ids))
}

#[cfg(test)]
mod proof;
#[cfg(test)]
mod tests;
