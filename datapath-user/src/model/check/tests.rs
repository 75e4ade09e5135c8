use std::sync::Arc;

use super::*;
use crate::model::{
    endpoint::{Addresses, Endpoint},
    example,
};

/// What is found in the example after `change`.
fn faults(change: impl FnOnce(&mut Cluster)) -> Vec<String> {
    let mut cluster = example::cluster();
    change(&mut cluster);
    check(&cluster).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn app(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut App)) {
    change(Arc::make_mut(&mut cluster.apps).get_mut(&name.parse().unwrap()).unwrap());
}

fn host(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut Host)) {
    change(Arc::make_mut(&mut cluster.hosts).get_mut(&name.parse().unwrap()).unwrap());
}

fn endpoint(cluster: &mut Cluster, key: &str, change: impl FnOnce(&mut Endpoint)) {
    change(Arc::make_mut(cluster.endpoints.get_mut(&key.parse().unwrap()).unwrap()));
}

fn blocks(host: &mut Host, app: &str, blocks: &[&str]) {
    host.blocks.insert(app.parse().unwrap(), blocks.iter().map(|text| text.parse().unwrap()).collect());
}

#[test]
fn the_example_has_no_fault() {
    assert_eq!(faults(|_| {}), [""; 0]);
}

#[test]
fn numbers_belong_to_one() {
    let same = faults(|cluster| {
        let number = cluster.apps[&"blog".parse().unwrap()].number;
        app(cluster, "shop", |shop| shop.number = number);
    });
    assert!(
        same[0].starts_with("apps blog and shop have the same number ") && same[0].ends_with("another `number`"),
        "{same:?}"
    );
    let reserved = faults(|cluster| app(cluster, "shop", |shop| shop.number = weft_common::id::AppId(15)));
    assert_eq!(reserved, ["app shop: number 15 is not from 16 to 16777215"]);
    let roles = faults(|cluster| {
        app(cluster, "shop", |shop| shop.roles.values_mut().for_each(|role| role.number = weft_common::id::RoleId(7)));
    });
    assert_eq!(roles, ["roles shop/db and shop/web have the same number 7: give one of them another `number`"]);
    let role = faults(|cluster| {
        app(cluster, "blog", |blog| {
            blog.roles.values_mut().for_each(|role| role.number = weft_common::id::RoleId::ANY);
        });
    });
    assert_eq!(role, ["role blog/db: number 65534 is not from 1 to 65533"]);
}

#[test]
fn prefixes_belong_to_one() {
    let overlap = faults(|cluster| {
        app(cluster, "blog", |blog| blog.prefixes.push("10.1.128.0/17".parse().unwrap()));
    });
    assert_eq!(overlap, ["10.1.128.0/17 of app blog overlaps 10.1.0.0/16 of app shop"]);
    let twice = faults(|cluster| app(cluster, "shop", |shop| shop.prefixes.push("10.1.0.0/16".parse().unwrap())));
    assert_eq!(twice, ["10.1.0.0/16 of app shop overlaps 10.1.0.0/16 of app shop"]);
    let none = faults(|cluster| {
        Arc::make_mut(&mut cluster.apps).insert("wiki".parse().unwrap(), example::app("wiki", &[], &[]));
    });
    assert_eq!(none, ["app wiki has no prefixes: give it one, as 10.1.0.0/16"]);
    for never in ["0.0.0.0/0", "127.1.0.0/16", "224.0.0.0/24", "fe80::/64", "::/0"] {
        let bad = faults(|cluster| app(cluster, "blog", |blog| blog.prefixes = vec![never.parse().unwrap()]));
        assert!(bad.contains(&format!("app blog: endpoints can not have all addresses of {never}")), "{bad:?}");
    }
}

#[test]
fn blocks_are_parts_of_their_app_and_belong_to_one_host() {
    let outside = faults(|cluster| host(cluster, "h2", |h2| blocks(h2, "blog", &["10.3.0.0/24"])));
    assert_eq!(outside, ["host h2: 10.3.0.0/24 is not inside app blog, which has 10.2.0.0/16, fd00:2::/32"]);
    let overlap = faults(|cluster| host(cluster, "h2", |h2| blocks(h2, "blog", &["10.2.1.128/25"])));
    assert_eq!(overlap, ["10.2.1.128/25 of host h2 for app blog overlaps 10.2.1.0/24 of host h1 for app blog"]);
    let unknown = faults(|cluster| host(cluster, "h2", |h2| blocks(h2, "wiki", &["10.9.0.0/24"])));
    assert_eq!(unknown, ["host h2: there is no app wiki: the apps are blog, shop"]);
}

#[test]
fn hosts_have_addresses_of_their_own() {
    let set = |text: &'static str| {
        faults(move |cluster| {
            host(cluster, "h2", |h2| {
                h2.addresses = text.split_terminator(' ').map(|addr| addr.parse().unwrap()).collect();
            });
        })
    };
    assert_eq!(set(""), ["host h2 has no address: give it the one that other hosts reach it by"]);
    assert_eq!(set("192.0.2.1"), ["hosts h1 and h2 have the same address 192.0.2.1"]);
    assert_eq!(
        set("10.1.9.9"),
        ["host h2: 10.1.9.9 is inside 10.1.0.0/16 of app shop: apps need prefixes of their own"]
    );
    for never in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "::ffff:192.0.2.9"] {
        let parsed: IpAddr = never.parse().unwrap();
        assert_eq!(set(never), [format!("host h2: {parsed} is no address that other hosts can send to")]);
    }
}

#[test]
fn rules_speak_of_what_there_is_and_only_once() {
    let add = |texts: &[&str]| {
        faults(|cluster| Arc::make_mut(&mut cluster.rules).extend(example::rules(texts).iter().cloned()))
    };
    assert_eq!(
        add(&["allow wiki -> shop"]),
        ["rule `allow wiki -> shop any`: there is no app wiki: the apps are blog, shop"]
    );
    assert_eq!(
        add(&["allow host -> blog/web"]),
        ["rule `allow host -> blog/web any`: app blog has no role web: its roles are db"]
    );
    assert_eq!(
        add(&["allow shop/web -> blog/db tcp/5432 precedence 1000 as again"]),
        [
            "rule `allow shop/web -> blog/db tcp/5432 as again` says what rule `allow shop/web -> blog/db tcp/5432` says: remove one"
        ]
    );
    assert_eq!(
        add(&["allow host -> blog as x", "deny host -> blog as x"]),
        ["rules `allow host -> blog any as x` and `deny host -> blog any as x` have the same name"]
    );
}

#[test]
fn endpoints_are_where_their_host_may_have_them() {
    let set = |addr: &'static str| {
        faults(move |cluster| {
            endpoint(cluster, "shop/web-1", |web| {
                web.addresses = addr.split_terminator(' ').map(|addr| addr.parse().unwrap()).collect();
            });
        })
    };
    assert_eq!(set(""), ["endpoint shop/web-1: it has no address"]);
    assert_eq!(set("10.1.1.1"), ["endpoint shop/web-1: 10.1.1.1 is the gateway of host h1 in app shop"]);
    assert_eq!(set("10.1.1.255"), ["endpoint shop/web-1: 10.1.1.255 is an end of 10.1.1.0/24, which nobody can have"]);
    assert_eq!(
        set("10.1.2.2"),
        ["endpoint shop/web-1: 10.1.2.2 is not in a block of host h1, which has 10.1.1.0/24, fd00:1:1::/64"]
    );
    let role = faults(|cluster| endpoint(cluster, "shop/web-1", |web| web.role = Some("cache".parse().unwrap())));
    assert_eq!(role, ["endpoint shop/web-1: app shop has no role cache: its roles are db, web"]);
    let gone = faults(|cluster| endpoint(cluster, "shop/web-1", |web| web.host = "h9".parse().unwrap()));
    assert_eq!(gone, ["endpoint shop/web-1: there is no host h9: the hosts are h1, h2, h3"]);
    let link = faults(|cluster| endpoint(cluster, "shop/web-1", |web| web.link = "eth0".parse().unwrap()));
    assert_eq!(
        link,
        ["endpoint shop/web-1: interface eth0 of the host is not one that is ours: it has to start with weft"]
    );
}

#[test]
fn endpoints_share_nothing() {
    let addresses: Addresses = ["10.1.1.2".parse().unwrap()].into_iter().collect();
    let twin = |change: fn(&mut Endpoint, &Endpoint)| {
        faults(|cluster| {
            let first = cluster.endpoints[&"shop/web-1".parse().unwrap()].as_ref().clone();
            let mut second = example::endpoint("shop/web-2", "h1", ["10.1.1.3".parse().unwrap()].into_iter().collect());
            change(&mut second, &first);
            cluster.endpoints.insert(second.key.clone(), Arc::new(second));
        })
    };
    assert_eq!(addresses.iter().count(), 1);
    assert_eq!(twin(|_, _| {}), [""; 0]);
    let both = |thing: &str| {
        [
            format!("endpoint shop/web-1: {thing} is shop/web-2's already"),
            format!("endpoint shop/web-2: {thing} is shop/web-1's already"),
        ]
    };
    assert_eq!(
        twin(|second, _| second.addresses = ["10.1.1.2".parse().unwrap()].into_iter().collect()),
        both("address 10.1.1.2")
    );
    assert_eq!(twin(|second, first| second.mac = first.mac), both(&format!("MAC {}", example_mac())));
    assert_eq!(twin(|second, first| second.link = first.link.clone()).len(), 2);
    assert_eq!(twin(|second, first| second.netns = first.netns.clone()), both("interface eth0 of its namespace"));
}

fn example_mac() -> weft_common::addr::Mac {
    example::cluster().endpoints[&"shop/web-1".parse().unwrap()].mac
}

#[test]
fn one_endpoint_can_be_checked_alone() {
    let mut cluster = example::cluster();
    endpoint(&mut cluster, "shop/web-1", |web| web.addresses = Addresses::default());
    check_endpoint(&cluster, &"shop/web-1".parse().unwrap()).unwrap_err();
    check_endpoint(&cluster, &"blog/db-1".parse().unwrap()).unwrap();
}
