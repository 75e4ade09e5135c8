use std::net::IpAddr;

use weft_common::{
    id::{Identity, RoleId},
    policy::{Action, Direction, RuleSet, SetKey},
    route::HopKind,
};

use super::{facts::Underlay, rules::set::Set, *};
use crate::model::{
    app::{App, Gate},
    endpoint::{DefaultRoute, EndpointKey},
    example,
    host::Host,
    name::LinkName,
};

fn h1() -> HostName {
    "h1".parse().unwrap()
}

fn underlay(addr: &str, path_mtu: u32) -> Underlay {
    let addr: IpAddr = addr.parse().unwrap();
    let local = if addr.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
    Underlay { addr, local, next_hop: addr, uplink: 3, path_mtu }
}

/// Host h1 of the example with everything there.
fn facts(cluster: &Cluster) -> Facts {
    let links = cluster.endpoints.values().zip(100..).map(|(endpoint, link)| (endpoint.link.clone(), link));
    let underlay = ["h2", "h3"].map(|name| (name.parse().unwrap(), underlay(&format!("192.0.2.{}", &name[1..]), 1500)));
    Facts { gateway: Some(9), links: links.collect(), underlay: underlay.into(), ..Facts::default() }
}

fn first(cluster: &Cluster) -> NodePlan {
    plan(cluster, &h1(), &facts(cluster), &NodePlan::default())
}

/// The routes as lines: prefix, where, who, hardware address.
fn routes(cluster: &Cluster, plan: &NodePlan) -> Vec<String> {
    let app = |app| cluster.apps.values().find(|known| known.number == app);
    let who = |identity: Identity| match (identity, app(identity.app)) {
        (Identity::HOST, _) => "host".to_owned(),
        (Identity { role: RoleId::UNKNOWN, .. }, Some(App { name, .. })) => format!("{name}/?"),
        (Identity { role, .. }, Some(App { name, roles, .. })) => {
            let role = roles.iter().find(|(_, known)| known.number == role);
            format!("{name}/{}", role.map_or("", |(name, _)| name.as_str()))
        }
        (other, None) => format!("{other:?}"),
    };
    let line = |(&(len, addr), route): (&(u32, Ip), &Route)| {
        let len = if addr.is_v4() { len - 96 } else { len };
        let at = match route.hop.kind() {
            HopKind::Nowhere => "nowhere".to_owned(),
            HopKind::Local => format!("link {}", route.hop.index),
            HopKind::Peer => format!("peer {}", plan.peer_names[&PeerId(route.hop.index)]),
            HopKind::Host => "host".to_owned(),
        };
        format!("{addr}/{len} {at} {} {}", who(route.identity), route.mac)
    };
    plan.routes.iter().filter(|((_, addr), _)| addr.is_v4()).map(line).collect()
}

#[test]
fn every_address_of_every_app_has_a_place() {
    let mut cluster = example::cluster();
    let mut remote = example::endpoint("shop/db-1", "h2", ["10.1.2.9".parse().unwrap()].into_iter().collect());
    remote.role = Some("db".parse().unwrap());
    remote.mac = weft_common::addr::Mac::new([2, 0, 0, 0, 0, 9]);
    cluster.endpoints.insert(remote.key.clone(), remote.into());
    let mac = |key: &str| cluster.endpoints[&key.parse::<EndpointKey>().unwrap()].mac;
    let plan = first(&cluster);
    let none = "00:00:00:00:00:00";
    let gateway = "02:00:77:65:66:74";
    let mut expect = vec![
        format!("10.1.0.0/16 nowhere shop/? {none}"),
        format!("10.2.0.0/16 nowhere blog/? {none}"),
        format!("10.1.1.0/24 nowhere shop/? {none}"),
        format!("10.2.1.0/24 nowhere blog/? {none}"),
        format!("10.1.2.0/24 peer h2 shop/? {none}"),
        format!("10.2.2.0/24 peer h2 blog/? {none}"),
        format!("10.1.3.0/24 peer h3 shop/? {none}"),
        format!("10.2.3.0/24 peer h3 blog/? {none}"),
        format!("10.1.1.1/32 host host {gateway}"),
        format!("10.2.1.1/32 host host {gateway}"),
        format!("10.1.2.1/32 peer h2 host {gateway}"),
        format!("10.2.2.1/32 peer h2 host {gateway}"),
        format!("10.1.3.1/32 peer h3 host {gateway}"),
        format!("10.2.3.1/32 peer h3 host {gateway}"),
        format!("10.1.1.2/32 link 102 shop/web {}", mac("shop/web-1")),
        format!("10.2.1.2/32 link 100 blog/db {}", mac("blog/db-1")),
        format!("10.1.2.9/32 peer h2 shop/db {}", mac("shop/db-1")),
    ];
    let mut found = routes(&cluster, &plan);
    expect.sort();
    found.sort();
    assert_eq!(found, expect);
    let at = |addr: &str| plan.route(addr.parse::<IpAddr>().unwrap().into());
    assert_eq!(at("203.0.113.1"), Route::OUTSIDE);
    assert_eq!(at("fd00:1:1::2"), Route { mac: mac("shop/web-1"), ..at("10.1.1.2") });
    assert_eq!(at("fd00:1:2::1"), at("10.1.2.1"));
    assert_eq!(at("fd00:1:ffff::1").hop.kind(), HopKind::Nowhere);
    assert_eq!(at("fd00:9::1"), Route::OUTSIDE);
}

#[test]
fn an_endpoint_is_there_when_its_link_is() {
    let cluster = example::cluster();
    let web = &cluster.endpoints[&"shop/web-1".parse().unwrap()];
    let plan_of = |facts: &Facts| plan(&cluster, &h1(), facts, &NodePlan::default());
    let with = plan_of(&facts(&cluster));
    let record = with.endpoints[&101];
    assert_eq!(with.endpoints.len(), 2);
    assert_eq!(
        (record.v4.to_string(), record.v6.to_string(), record.mac),
        ("10.1.1.2".to_owned(), "fd00:1:1::2".to_owned(), web.mac)
    );
    let mut missing = facts(&cluster);
    missing.links.remove(&web.link);
    let without = plan_of(&missing);
    assert_eq!(without.endpoints.keys().copied().collect::<Vec<_>>(), [100]);
    assert_eq!(without.route(Ip::from_v4([10, 1, 1, 2])).hop.kind(), HopKind::Nowhere);
    // The link is wanted all the same.
    assert_eq!(without.links, with.links);
}

#[test]
fn peers_are_reached_as_the_kernel_says() {
    let mut cluster = example::cluster();
    Arc::make_mut(&mut cluster.hosts)
        .get_mut(&"h2".parse().unwrap())
        .unwrap()
        .addresses
        .push("2001:db8::2".parse().unwrap());
    let mut facts = facts(&cluster);
    facts.underlay.remove(&"h3".parse::<HostName>().unwrap());
    let plan = plan(&cluster, &h1(), &facts, &NodePlan::default());
    let id = |name: &str| plan.ids.peer(&name.parse().unwrap());
    assert_eq!(id("h1"), None);
    let h2 = id("h2").unwrap();
    assert_eq!(plan.peer_names.values().map(ToString::to_string).collect::<Vec<_>>().len(), 2);
    assert_eq!(plan.peers.keys().copied().collect::<Vec<_>>(), [h2.0]);
    assert_eq!(plan.peers[&h2.0].inner_mtu(), 1450);
    let addresses: BTreeMap<String, PeerId> =
        plan.peer_addresses.iter().map(|(addr, id)| (addr.to_string(), *id)).collect();
    let expect = [("192.0.2.2", h2), ("192.0.2.3", id("h3").unwrap()), ("2001:db8::2", h2)];
    assert_eq!(addresses, expect.map(|(addr, id)| (addr.to_owned(), id)).into());
    assert_eq!(plan.config, Config { epoch: Epoch(0), gateway: 9, port: 6784, shadow: 0 });
}

#[test]
fn the_gateway_device_stands_in_every_app() {
    let cluster = example::cluster();
    let plan = first(&cluster);
    let gateway = plan.links.gateway.as_ref().unwrap();
    let texts: Vec<_> = gateway.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.1.1.1", "10.2.1.1", "fd00:1:1::1", "fd00:2:1::1"]);
    let routes: Vec<_> = gateway.routes.iter().map(|(prefix, source)| format!("{prefix} from {source}")).collect();
    assert_eq!(
        routes,
        [
            "10.1.0.0/16 from 10.1.1.1",
            "10.2.0.0/16 from 10.2.1.1",
            "fd00:1::/32 from fd00:1:1::1",
            "fd00:2::/32 from fd00:2:1::1"
        ]
    );
    assert_eq!(
        plan.masquerade.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.1.0/24", "10.2.1.0/24", "fd00:1:1::/64", "fd00:2:1::/64"]
    );
}

#[test]
fn a_link_has_what_its_endpoint_needs() {
    let mut cluster = example::cluster();
    Arc::make_mut(&mut cluster.apps)
        .get_mut(&"shop".parse().unwrap())
        .unwrap()
        .prefixes
        .push("10.9.0.0/16".parse().unwrap());
    let plan = first(&cluster);
    let web = &cluster.endpoints[&"shop/web-1".parse().unwrap()];
    let veth = &plan.links.veths[&LinkName::of(&web.key.app, &web.key.name)];
    assert_eq!((veth.mtu, veth.mac, veth.default_route), (1450, web.mac, DefaultRoute::IfNone));
    let addresses: Vec<_> = veth.addresses.iter().map(|(addr, len)| format!("{addr}/{len}")).collect();
    assert_eq!(addresses, ["10.1.1.2/16", "fd00:1:1::2/32"]);
    assert_eq!(veth.on_link.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.9.0.0/16"]);
    assert_eq!(veth.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.1.1", "fd00:1:1::1"]);
}

#[test]
fn the_mtu_is_what_every_path_takes() {
    let cluster = example::cluster();
    let check = |paths: &[(&str, u32)], expect: u32| {
        let underlay =
            paths.iter().zip(["h2", "h3"]).map(|((addr, mtu), name)| (name.parse().unwrap(), underlay(addr, *mtu)));
        let facts = Facts { underlay: underlay.collect(), ..Facts::default() };
        assert_eq!(plan(&cluster, &h1(), &facts, &NodePlan::default()).links.gateway.unwrap().mtu, expect, "{paths:?}");
    };
    check(&[], 1450);
    check(&[("192.0.2.2", 9000), ("192.0.2.3", 1460)], 1410);
    check(&[("192.0.2.2", 1500), ("2001:db8::3", 1500)], 1430);
    check(&[("192.0.2.2", 1300)], 1280);
    check(&[("192.0.2.2", u32::MAX)], 65_535);
}

/// Everything that can go, gone.
#[test]
fn what_is_gone_leaves_nothing() {
    let cluster = example::cluster();
    let full = first(&cluster);
    let empty = plan(&Cluster::default(), &h1(), &Facts::default(), &full);
    assert!(
        empty.endpoints.is_empty()
            && empty.routes.is_empty()
            && empty.peers.is_empty()
            && empty.peer_addresses.is_empty()
    );
    assert!(
        empty.policy.peer_lists.is_empty() && empty.policy.rules.is_empty() && empty.policy.prefix_lists.is_empty()
    );
    // The hosts and the outside are always there.
    assert_eq!(empty.policy.sets.len(), 4);
    assert_eq!((empty.links, empty.masquerade.len(), empty.peer_names.len()), (Links::default(), 0, 0));

    let mut without = cluster.clone();
    without.rules = Vec::new().into();
    let closed = plan(&without, &h1(), &facts(&without), &full);
    assert!(closed.policy.prefix_lists.is_empty() && closed.policy.names.is_empty());
    assert_eq!(plan(&without, &h1(), &facts(&without), &NodePlan::default()).policy.sets, closed.policy.sets);
    let back = plan(&cluster, &h1(), &facts(&cluster), &closed);
    assert_eq!(back, full);
}

#[test]
fn the_first_plan_of_nothing_has_the_sets_of_hosts_and_the_outside() {
    let plan = plan(&Cluster::default(), &h1(), &Facts::default(), &NodePlan::default());
    assert_eq!(plan.policy.sets.len(), 4);
}

#[test]
fn a_plan_made_twice_is_the_same() {
    let cluster = example::cluster();
    let once = first(&cluster);
    assert_eq!(first(&cluster), once);
    let again = plan(&cluster, &h1(), &facts(&cluster), &once);
    assert_eq!(again, once);
    assert!(Arc::ptr_eq(&again.policy, &once.policy), "nothing changed, so nothing is compiled");
    // A copy of the cluster that shares nothing with it.
    let mut copy = cluster.clone();
    copy.apps = Arc::new(cluster.apps.as_ref().clone());
    copy.rules = Arc::new(cluster.rules.iter().map(|rule| Arc::new(rule.as_ref().clone())).collect());
    assert_eq!(plan(&copy, &h1(), &facts(&copy), &once), once);
}

#[test]
fn every_subject_has_a_set_for_both_directions() {
    let cluster = example::cluster();
    let plan = first(&cluster);
    let has = |identity: Identity| {
        [Direction::Egress, Direction::Ingress].iter().all(|direction| {
            let key = SetKey::new(identity, *direction, 0);
            plan.policy.sets.contains_key(&key)
        })
    };
    assert!(has(Identity::HOST) && has(Identity::OUTSIDE));
    for app in cluster.apps.values() {
        for role in app.roles.values().map(|role| role.number).chain([RoleId::NONE, RoleId::UNKNOWN]) {
            assert!(has(Identity::new(app.number, role)), "{} {role:?}", app.name);
        }
    }
    assert_eq!(plan.policy.sets.len(), 2 * (2 + 4 + 3));
}

#[test]
fn subjects_with_the_same_rules_share_a_set() {
    let mut cluster = example::cluster();
    cluster.rules = example::rules(["allow shop -> blog tcp/80"]);
    let plan = first(&cluster);
    let ids: BTreeSet<u32> = plan.policy.sets.values().map(|set| set.id).collect();
    // No lists at all; shop out; blog in.
    assert_eq!(ids.len(), 3);
    assert!(ids.contains(&0));
    assert_eq!(plan.policy.rules.len(), 1, "the rule's list is one: {:?}", plan.policy.rules);
}

#[test]
fn defaults_need_no_entries() {
    let cluster = Cluster { rules: Vec::new().into(), ..example::cluster() };
    let plan = first(&cluster);
    assert!(plan.policy.rules.is_empty() && plan.policy.peer_lists.is_empty());
}

/// Adds and removes rules, roles and hosts, and follows every number.
#[test]
fn what_no_rule_can_speak_of_passes_only_where_no_rule_speaks_of_the_inside() {
    let check = |rules: &[&str], inside: Gate, open: bool| {
        let mut cluster = example::cluster();
        cluster.rules = example::rules(rules);
        let shop: crate::model::name::AppName = "shop".parse().unwrap();
        Arc::make_mut(&mut cluster.apps).get_mut(&shop).unwrap().defaults.inside = inside;
        let number = cluster.apps[&shop].number;
        let plan = first(&cluster);
        let of_shop = plan.policy.sets.iter().filter(|(key, _)| key.app == number);
        let said: BTreeSet<bool> = of_shop.map(|(_, set)| set.flags & RuleSet::FRAMES_INSIDE != 0).collect();
        assert_eq!(said, [open].into(), "{rules:?}, inside {inside}");
        let has = RuleSet::HAS_RULES | RuleSet::HAS_PREFIXES;
        // Every rule set is read as one: the flag is no reason for another number.
        assert!(plan.policy.sets.values().filter(|set| set.id == 0).all(|set| set.flags & has == 0));
    };
    check(&[], Gate::Open, true);
    check(&[], Gate::Closed, false);
    check(&["allow shop -> shop any"], Gate::Closed, false);
    for rule in [
        "deny shop/web -> shop/db tcp/80",
        "allow shop/web -> shop/web any",
        "deny shop -> shop/db udp",
        "deny any -> shop tcp/22",
        "deny shop/db -> any tcp/22",
        "deny any -> any icmp",
        "deny shop -> 10.0.0.0/8 any",
        "deny fd00:1::9 -> shop any",
        "deny shop -> 0.0.0.0/0 except 10.1.1.0/24 tcp",
    ] {
        check(&[rule], Gate::Open, false);
    }
    for rule in [
        "allow shop -> blog tcp/80",
        "deny shop/web -> outside any",
        "deny host -> shop any",
        "deny any -> blog any",
        "deny shop -> 0.0.0.0/0 except 10.1.0.0/16 tcp",
        "deny blog -> blog any",
    ] {
        check(&[rule], Gate::Open, true);
    }
}

#[test]
fn a_number_in_use_never_changes_its_meaning() {
    let texts = [
        "allow shop/web -> blog/db tcp/5432",
        "deny shop -> outside",
        "allow any -> blog tcp/80,443",
        "reject shop -> 203.0.113.0/24 except 203.0.113.7/32",
        "allow host -> shop",
        "allow 198.51.100.0/24 -> shop/web tcp/443",
        "deny any -> any udp",
        "allow blog -> shop icmp",
    ];
    let mut state = 1_u64;
    let mut before = NodePlan::default();
    for _ in 0..200 {
        state = crate::model::stable::hash("walk", &[&state.to_string()]);
        let mut cluster = example::cluster();
        let rules = texts.iter().enumerate().filter(|(at, _)| state >> at & 1 == 1).map(|(_, text)| text);
        cluster.rules = example::rules(rules);
        let hosts: BTreeMap<HostName, Host> = (0..40)
            .filter(|at| state >> (at + 10) & 1 == 1)
            .map(|at| {
                let host = example::host(&format!("p{at}"), &format!("192.0.2.{}", at + 1), &[]);
                (host.name.clone(), host)
            })
            .collect();
        cluster.hosts = hosts.into();
        let plan = plan(&cluster, &h1(), &Facts::default(), &before);
        for (name, id) in plan.ids.peers.iter() {
            assert!(before.peer_names.get(&PeerId(id)).is_none_or(|old| old == name));
        }
        let lists = |plan: &NodePlan| {
            rules::list::read(&plan.policy.rules).map(|(list, id)| (id, list)).collect::<BTreeMap<_, _>>()
        };
        let (new, old) = (lists(&plan), lists(&before));
        assert!(new.iter().all(|(id, list)| old.get(id).is_none_or(|old| old == list)));
        let sets = |plan: &NodePlan| Set::read(&plan.policy).map(|(set, id)| (id, set)).collect::<BTreeMap<_, _>>();
        let (new, old) = (sets(&plan), sets(&before));
        assert!(new.iter().all(|(id, set)| old.get(id).is_none_or(|old| old == set)));
        for (id, rule) in &plan.policy.names {
            assert!(before.policy.names.get(id).is_none_or(|old| old.says_same(rule)));
        }
        assert_eq!(plan.ids.peers.iter().count(), plan.peer_names.len());
        before = plan;
    }
}

#[test]
fn numbers_come_back_from_the_tables_after_a_restart() {
    let cluster = example::cluster();
    let running = first(&cluster);
    let ids = Ids::recover(&cluster, &running.peers, &running.policy);
    assert_eq!((&ids.policy.lists, &ids.policy.sets), (&running.ids.policy.lists, &running.ids.policy.sets));
    let start = NodePlan { ids, ..NodePlan::default() };
    assert_eq!(plan(&cluster, &h1(), &facts(&cluster), &start), running);
}

#[test]
fn what_drifted_gives_its_number_to_nobody() {
    let cluster = example::cluster();
    let running = first(&cluster);
    let mut drifted = running.policy.as_ref().clone();
    let first = *drifted.rules.keys().next().unwrap();
    drifted.rules.get_mut(&first).unwrap().top.rank = weft_common::policy::Rank::new(77, Action::Reject);
    let ids = Ids::recover(&cluster, &running.peers, &drifted);
    let repaired = plan(&cluster, &h1(), &facts(&cluster), &NodePlan { ids, ..NodePlan::default() });
    for (key, rule) in &repaired.policy.rules {
        assert!(drifted.rules.get(key).is_none_or(|old| old == rule), "{key:?} changed in place");
    }
}

#[test]
fn hosts_for_which_no_number_is_left_are_named() {
    let hosts = (0..4_200_u32).map(|at| {
        let [_, _, high, low] = at.to_be_bytes();
        let host = example::host(&format!("h{at}"), &format!("192.0.{high}.{low}"), &[]);
        (host.name.clone(), host)
    });
    let cluster = Cluster { hosts: Arc::new(hosts.collect()), ..Cluster::default() };
    let plan = plan(&cluster, &h1(), &Facts::default(), &NodePlan::default());
    assert_eq!((plan.peer_names.len(), plan.unnumbered.len()), (4_095, 104));
    assert!(plan.peer_names.keys().all(|peer| (1..4_096).contains(&peer.0)));
    assert_eq!(plan.admit(&NodePlan::default()).unwrap_err().to_string(), "PEERS needs 4 199 of 4 095 entries");
}

/// How fast that is shows `cargo xtask bench policy`.
#[test]
fn one_rule_of_many_changes_what_is_about_it_and_nothing_else() {
    const APPS: usize = 40;
    let mut cluster = Cluster::default();
    let described = (0..APPS).map(|at| {
        let app = example::app(&format!("app-{at}"), &[&format!("10.0.{at}.0/24")], &["web", "db", "cache"]);
        (app.name.clone(), app)
    });
    cluster.apps = Arc::new(described.collect());
    let roles = ["/web", "/db", "/cache", ""];
    let rules = (0..APPS).flat_map(|at| (0..50).map(move |n| (at, n))).map(|(at, n)| {
        let (from, to, peer) = (roles[n % 4], roles[n / 4 % 4], (at * 31 + n * 7 + 1) % APPS);
        let ports = ["tcp/5432", "udp/53", "tcp/80,443,8000-8100", "any"][n % 4];
        format!("allow app-{at}{from} -> app-{peer}{to} {ports} precedence {}", n + 1)
    });
    cluster.rules = example::rules(rules);
    let first = plan(&cluster, &h1(), &Facts::default(), &NodePlan::default());
    first.admit(&NodePlan::default()).unwrap();

    let mut rules = cluster.rules.as_ref().clone();
    rules.insert(rules.len() / 2, Arc::new("deny app-7/web -> app-9 tcp/22 precedence 2000".parse().unwrap()));
    let with = Cluster { rules: Arc::new(rules), ..cluster.clone() };
    let next = plan(&with, &h1(), &Facts::default(), &first);
    let (new, old) = (&next.policy, &first.policy);
    // What goes out of one role, and what comes in to the roles of an app: three, none, and one that is not known.
    let touched: BTreeSet<_> = new.sets.delta(&old.sets).put.into_iter().map(|(key, _)| *key).collect();
    let number = |app: &str| cluster.apps[&app.parse().unwrap()].number;
    let (out, into): (Vec<SetKey>, Vec<SetKey>) =
        touched.into_iter().partition(|key| key.direction == Direction::Egress as u8);
    let is_of = |keys: &[SetKey], app: &str| keys.iter().all(|key| key.app == number(app));
    assert!(is_of(&out, "app-7") && out.len() == 1, "{out:?}");
    assert!(is_of(&into, "app-9") && into.len() == 5, "{into:?}");
    assert_eq!(new.rules.delta(&old.rules).put.len(), new.rules.len() - old.rules.len());
    let back = plan(&cluster, &h1(), &Facts::default(), &next);
    assert_eq!(back, first);
    assert_eq!(back.policy.rules.delta(&first.policy.rules).len(), 0);
}

/// Tables of h1 `now` seconds after the boot, which was 1970-01-01T00:00:00Z.
fn plan_at(rules: &[&str], now: u64, before: &NodePlan) -> NodePlan {
    let mut cluster = example::cluster();
    cluster.rules = example::rules(rules);
    let clock = Clock { zero: 0, now: now * 1_000_000_000 };
    plan(&cluster, &h1(), &Facts { clock, ..facts(&cluster) }, before)
}

#[test]
fn a_rule_that_ends_is_in_a_stage_of_its_own_until_it_has() {
    let rules = [
        "allow shop -> blog tcp/1 until 1970-01-01T00:00:20Z",
        "allow shop -> blog tcp/2 until 1970-01-01T00:00:10Z",
        "allow shop -> blog tcp/3",
    ];
    let first = plan_at(&rules, 5, &NodePlan::default());
    let stages = |plan: &NodePlan, app: &str, direction: Direction| {
        let app = example::cluster().apps[&app.parse().unwrap()].number;
        let of_none = |key: &SetKey| key.app == app && key.role == RoleId::NONE && key.direction == direction as u8;
        let sets = plan.policy.sets.iter().filter(|(key, _)| of_none(key));
        sets.map(|(key, set)| (key.stage, set.until / 1_000_000_000)).collect::<Vec<_>>()
    };
    assert_eq!(stages(&first, "shop", Direction::Egress), [(0, 10), (1, 20), (2, 0)]);
    assert_eq!(stages(&first, "blog", Direction::Ingress), [(0, 10), (1, 20), (2, 0)]);
    assert_eq!(stages(&first, "shop", Direction::Ingress), [(0, 0)]);
    assert_eq!(first.policy.next_end(5_000_000_000), Some(10_000_000_000));

    // As time passes nothing changes, until there is an end.
    let same = plan_at(&rules, 9, &first);
    assert_eq!(same, first);
    let next = plan_at(&rules, 10, &same);
    assert_eq!(stages(&next, "shop", Direction::Egress), [(0, 20), (1, 0)]);
    assert_eq!(next.policy.names.len(), 3, "a rule that is over is still known");
    let last = plan_at(&rules, 30, &next);
    assert_eq!((stages(&last, "shop", Direction::Egress), last.policy.next_end(0)), (vec![(0, 0)], None));
    // What is left is what there would be if the others had never been.
    let alone = plan_at(&rules[2..], 30, &NodePlan::default());
    let shape = |plan: &NodePlan| (plan.policy.peer_lists.len(), plan.policy.rules.len(), plan.policy.sets.len());
    assert_eq!(shape(&last), shape(&alone));
}

#[test]
fn what_finds_no_stage_ends_too_early_and_not_too_late() {
    let rules: Vec<String> =
        (0..20).map(|at| format!("allow shop -> blog tcp/{} until 1970-01-01T00:01:{at:02}Z", at + 1)).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let allowed = |plan: &NodePlan, second: u64| {
        let cluster = example::cluster();
        let of = |name: &str| Identity::new(cluster.apps[&name.parse().unwrap()].number, RoleId::NONE);
        let passes = |port: &u16| {
            let query = weft_common::policy::Query {
                src: of("shop"),
                dst: of("blog"),
                src_addr: Ip::NONE,
                dst_addr: Ip::NONE,
                protocol: 6,
                port: *port,
            };
            let now = second * 1_000_000_000;
            weft_common::policy::decide(&plan.policy.at(now), Epoch(0), &query).verdict.is_ok()
        };
        (1..=20).filter(passes).collect::<Vec<u16>>()
    };
    let first = plan_at(&rules, 5, &NodePlan::default());
    assert_eq!(allowed(&first, 59), (1..=20).collect::<Vec<_>>());
    assert_eq!(allowed(&first, 73), (15..=20).collect::<Vec<_>>());
    assert!(allowed(&first, 74).is_empty(), "these have no stage of their own");
    // A daemon makes another plan at each end, and sees to it.
    let next = plan_at(&rules, 60, &first);
    assert_eq!((allowed(&next, 74), allowed(&next, 75)), ((16..=20).collect(), Vec::new()));
    let last = plan_at(&rules, 74, &next);
    assert_eq!((allowed(&last, 78), allowed(&last, 79)), (vec![20], Vec::new()));
}
