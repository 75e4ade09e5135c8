//! Whether what a cluster would become fits into the tables, asked before anybody has it.
//!
//! The tables of policy are the same on every host, so one answers for all. Of what only the kernel knows the most is
//! assumed: that every endpoint of this host has its interface and that every peer is reached. A plan that is refused
//! here the reconciler would refuse too, when the cluster is changed already.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use weft_common::{addr::Ip, table};

use crate::model::{cluster::Cluster, endpoint::Addresses, name::HostName};

use super::{
    NodePlan,
    facts::{Clock, Facts, Underlay},
    members, policy, routes,
    sizes::{self, TooLarge},
};

/// Tables of which less than this part is full have room for an endpoint and its role.
const ROOMY: usize = 8;

/// Whether the policy of `cluster` fits while it takes the place of the one in force.
pub fn policy_fits(cluster: &Cluster, clock: Clock, running: &NodePlan) -> Result<(), TooLarge> {
    let (next, _) = policy(cluster, clock, running);
    sizes::admit(next.sizes(&running.policy))
}

/// Whether what `host` has of apps, blocks and endpoints fits.
pub fn placement_fits(cluster: &Cluster, host: &HostName, running: &NodePlan) -> Result<(), TooLarge> {
    let facts = assumed(cluster, host, running);
    let (endpoints, routes) = routes::place(cluster, host, &facts, &running.ids);
    let next = NodePlan {
        endpoints,
        routes,
        members: members::members(cluster, host, &facts, &running.ids),
        // Of hosts no change of the API speaks.
        ids: running.ids.clone(),
        policy: Arc::clone(&running.policy),
        ..NodePlan::default()
    };
    next.admit(running)
}

/// Whether one endpoint more fits without a doubt.
pub fn has_room(running: &NodePlan) -> bool {
    let placed = [
        (running.endpoints.len(), sizes::max::<table::Endpoints>()),
        (running.routes.len(), sizes::max::<table::Routes>()),
        (running.members.len(), sizes::max::<table::Members>()),
    ];
    placed.into_iter().all(|(used, max)| used < max / ROOMY * (ROOMY - 1))
}

/// What time it is, by the clock that the tables in force were made by, so that equal ends are equal.
pub fn clock(running: &NodePlan, utc: Duration, now: u64) -> Clock {
    let known = running.policy.made_of.iter().find_map(|of| of.ends.iter().next());
    let zero = known.map(|(until, end)| until.seconds().saturating_mul(1_000_000_000).saturating_sub(*end));
    Clock::read(zero.unwrap_or_default(), utc, now)
}

/// Everything is there. An endpoint that has its interface keeps the number; any other will do for one that has none.
fn assumed(cluster: &Cluster, host: &HostName, running: &NodePlan) -> Facts {
    let known: BTreeMap<_, _> = running.endpoints.iter().map(|(link, at)| ((at.v4, at.v6), *link)).collect();
    let mut free = (0..=u32::MAX).rev().filter(|link| !running.endpoints.contains_key(link));
    let links = cluster.endpoints_on(host).filter_map(|endpoint| {
        let Addresses { v4, v6 } = endpoint.addresses;
        let link = known
            .get(&(v4.map_or(Ip::NONE, Ip::from), v6.map_or(Ip::NONE, Ip::from)))
            .copied()
            .or_else(|| free.next())?;
        Some((endpoint.link.clone(), link))
    });
    let at = Ipv4Addr::UNSPECIFIED.into();
    let nowhere = Underlay { addr: at, local: at, next_hop: at, uplink: 0, path_mtu: 0 };
    Facts {
        links: links.collect(),
        underlay: cluster.hosts.keys().map(|name| (name.clone(), nowhere)).collect(),
        ..Facts::default()
    }
}

#[cfg(test)]
mod tests {
    use weft_common::id::RoleId;

    use super::*;
    use crate::model::{
        app::{App, Role},
        example,
        name::RoleName,
    };
    use crate::plan::plan;

    fn h1() -> HostName {
        "h1".parse().unwrap()
    }

    fn with_rules(cluster: &Cluster, rules: &[&str]) -> Cluster {
        Cluster { rules: example::rules(rules), ..cluster.clone() }
    }

    /// The example, whose app shop has so many roles.
    fn crowded(roles: u16) -> Cluster {
        let mut cluster = example::cluster();
        let shop: &mut App = Arc::make_mut(&mut cluster.apps).get_mut(&"shop".parse().unwrap()).unwrap();
        shop.roles.extend((1..=roles).map(|number| {
            let name: RoleName = format!("r{number}").parse().unwrap();
            (name.clone(), Role { number: RoleId(number), ..Role::plain(&name) })
        }));
        cluster
    }

    fn running(cluster: &Cluster) -> NodePlan {
        let clock = clock(&NodePlan::default(), Duration::ZERO, 0);
        let facts = Facts { clock, ..assumed(cluster, &h1(), &NodePlan::default()) };
        plan(cluster, &h1(), &facts, &NodePlan::default())
    }

    #[test]
    fn what_is_foreseen_is_what_the_plan_comes_to() {
        let ends = [1, 2, 3].map(|hour| format!("allow shop -> shop tcp/{hour} until 1970-01-01T0{hour}:00:00Z"));
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        let before = with_rules(&crowded(9_000), &[]);
        let running = running(&before);
        let check = |rules: &[&str], expect: Option<&str>| {
            let next = with_rules(&before, rules);
            let clock = clock(&running, Duration::ZERO, 0);
            let foreseen = policy_fits(&next, clock, &running);
            let facts = Facts { clock, ..assumed(&next, &h1(), &running) };
            assert_eq!(foreseen, plan(&next, &h1(), &facts, &running).admit(&running));
            assert_eq!(foreseen.err().map(|over| over.to_string()).as_deref(), expect);
        };
        check(&ends[..2], None);
        check(&ends, Some("SETS needs 144 084 of 131 072 entries"));
        check(&[ends[0], "shadow deny shop -> blog tcp/22"], Some("SETS needs 144 104 of 131 072 entries"));
    }

    #[test]
    fn what_needs_no_more_than_before_is_no_worse() {
        let over = |sizes: &[(&'static str, usize)]| {
            TooLarge(sizes.iter().map(|&(table, needed)| sizes::Size { table, needed, max: 10 }).collect())
        };
        let before = over(&[("SETS", 20), ("RULES", 30)]);
        assert!(over(&[("SETS", 20)]).is_no_worse_than(&before));
        assert!(over(&[("SETS", 19), ("RULES", 30)]).is_no_worse_than(&before));
        assert!(!over(&[("SETS", 21)]).is_no_worse_than(&before));
        assert!(!over(&[("ROUTES", 11)]).is_no_worse_than(&before));
    }

    #[test]
    fn an_endpoint_that_has_its_interface_is_not_counted_twice() {
        let cluster = example::cluster();
        let running = running(&cluster);
        placement_fits(&cluster, &h1(), &running).unwrap();
        let (links, again) = (&running.endpoints, assumed(&cluster, &h1(), &running));
        assert!(again.links.values().all(|link| links.contains_key(link)), "{again:?}");
        assert!(has_room(&running));

        let mut full = running.clone();
        let (other, _) = full.endpoints.pop_last().unwrap();
        full.endpoints.extend((0..16_384).filter(|link| *link != other).map(|link| {
            let v4 = Ip::from(Ipv4Addr::from_bits(0xc612_0000 + link));
            (link, weft_common::route::Endpoint { v4, ..weft_common::route::Endpoint::default() })
        }));
        assert!(!has_room(&full));
        let over = placement_fits(&cluster, &h1(), &full).unwrap_err();
        assert!(over.to_string().starts_with("ENDPOINTS needs 16 38"), "{over}");
    }

    #[test]
    fn equal_ends_are_equal_by_the_clock_of_the_tables_in_force() {
        let mut plan = NodePlan::default();
        let cluster = with_rules(&example::cluster(), &["allow shop -> blog until 1970-01-02T00:00:00Z"]);
        let at = |zero: u64| Clock { zero, now: 5_000_000_000 };
        plan.policy = policy(&cluster, at(1_000_000_000), &plan).0;
        assert_eq!(clock(&plan, Duration::from_millis(6_100), 5_000_000_000), at(1_000_000_000));
        assert_eq!(clock(&plan, Duration::from_mins(1), 5_000_000_000), at(55_000_000_000));
    }
}
