//! A small cluster for tests: three hosts, two apps of both families, an endpoint in each.

use std::sync::Arc;

use super::{
    app::App,
    cluster::Cluster,
    endpoint::{Addresses, DefaultRoute, Endpoint, EndpointKey, Netns},
    host::Host,
    name::LinkName,
    rule::Rule,
};

/// Hosts h1, h2 and h3; apps shop (roles web, db) and blog (role db); endpoints shop/web-1 and blog/db-1 on h1.
pub(crate) fn cluster() -> Cluster {
    let apps = [
        app("shop", &["10.1.0.0/16", "fd00:1::/32"], &["web", "db"]),
        app("blog", &["10.2.0.0/16", "fd00:2::/32"], &["db"]),
    ];
    let hosts = [1, 2, 3].map(|n| {
        host(
            &format!("h{n}"),
            &format!("192.0.2.{n}"),
            &[
                ("shop", &[&format!("10.1.{n}.0/24"), &format!("fd00:1:{n}::/64")]),
                ("blog", &[&format!("10.2.{n}.0/24"), &format!("fd00:2:{n}::/64")]),
            ],
        )
    });
    let rules = ["allow shop/web -> blog/db tcp/5432", "deny shop -> 203.0.113.0/24 any"];
    let mut web = endpoint(
        "shop/web-1",
        "h1",
        ["10.1.1.2", "fd00:1:1::2"].map(|text| text.parse().unwrap()).into_iter().collect(),
    );
    web.role = Some("web".parse().unwrap());
    let mut db = endpoint("blog/db-1", "h1", ["10.2.1.2"].map(|text| text.parse().unwrap()).into_iter().collect());
    db.role = Some("db".parse().unwrap());
    Cluster {
        apps: Arc::new(apps.into_iter().map(|app| (app.name.clone(), app)).collect()),
        hosts: Arc::new(hosts.into_iter().map(|host| (host.name.clone(), host)).collect()),
        rules: self::rules(rules),
        endpoints: [web, db].into_iter().map(|endpoint| (endpoint.key.clone(), Arc::new(endpoint))).collect(),
        ..Cluster::default()
    }
}

pub(crate) fn rules(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Arc<Vec<Arc<Rule>>> {
    Arc::new(texts.into_iter().map(|text| Arc::new(text.as_ref().parse().unwrap())).collect())
}

pub(crate) fn app(name: &str, prefixes: &[&str], roles: &[&str]) -> App {
    let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    App::new(name.parse().unwrap(), prefixes, roles.iter().map(|text| text.parse().unwrap()))
}

pub(crate) fn host(name: &str, addr: &str, blocks: &[(&str, &[&str])]) -> Host {
    let blocks = blocks
        .iter()
        .map(|(app, blocks)| (app.parse().unwrap(), blocks.iter().map(|text| text.parse().unwrap()).collect()));
    Host { name: name.parse().unwrap(), addresses: vec![addr.parse().unwrap()], blocks: blocks.collect() }
}

/// An endpoint without a role, in a namespace of its own.
pub(crate) fn endpoint(key: &str, host: &str, addresses: Addresses) -> Endpoint {
    let key: EndpointKey = key.parse().unwrap();
    let inode = super::stable::hash("inode", &[key.app.as_str(), key.name.as_str()]) >> 1;
    Endpoint {
        host: host.parse().unwrap(),
        role: None,
        addresses,
        mac: Endpoint::mac_of(&key.app, &key.name),
        netns: Netns {
            path: format!("/run/netns/{}", key.name).parse().unwrap(),
            device: 4,
            inode,
            cookie: Some(inode),
        },
        ifname: "eth0".parse().unwrap(),
        link: LinkName::of(&key.app, &key.name),
        default_route: DefaultRoute::IfNone,
        attached: None,
        key,
    }
}
