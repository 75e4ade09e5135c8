//! Two hosts with a daemon each, and the containers between which weft is measured.

use anyhow::Result;
use weft_tests::underlay::Underlay;

use super::pair::Pair;
use crate::cluster::{App, Cluster, Container, Intent, Wanted};

/// Two hosts of one cluster.
pub(super) struct Woven {
    rules: u32,
    client: Container,
    server: Container,
    pub(super) cluster: Cluster,
    // Dropped last: the daemons run on it.
    _underlay: Underlay,
}

const APPS: [App<'static>; 2] = [App { name: "client", roles: &[] }, App { name: "server", roles: &[] }];

impl Woven {
    /// With rules the client and the server are in two apps, and the first rule is what lets them talk; the others
    /// speak of the same two apps, so that they are in the lists that a new flow is looked up in.
    pub(super) fn build(underlay: Underlay, rules: u32) -> Result<Self> {
        let intent = Intent { apps: &APPS, rules: rule_texts(rules).collect() };
        let cluster = Cluster::start(&underlay, &intent)?;
        let server = if rules == 0 { "client" } else { "server" };
        let client = cluster.attach(&Wanted { host: 0, app: "client", role: None, name: "client" })?;
        let server = cluster.attach(&Wanted { host: 1, app: server, role: None, name: "server" })?;
        Ok(Self { rules, client, server, cluster, _underlay: underlay })
    }

    pub(super) fn rules(&self) -> u32 {
        self.rules
    }

    /// From one host to the other.
    pub(super) fn across(&self) -> Pair {
        pair(&self.client, &self.server)
    }

    /// From one container to another on the first host, in one app.
    pub(super) fn local(&self) -> Result<Pair> {
        let neighbour = self.cluster.attach(&Wanted { host: 0, app: "client", role: None, name: "neighbour" })?;
        Ok(pair(&self.client, &neighbour))
    }
}

fn pair(client: &Container, server: &Container) -> Pair {
    Pair { client: client.namespace.clone(), server: server.namespace.clone(), v4: server.v4, v6: server.v6 }
}

/// The rule that allows what is measured, and others like it: half by port, half by prefix, all different.
fn rule_texts(rules: u32) -> impl Iterator<Item = String> {
    (0..rules).map(|number| {
        let [_, high, middle, low] = number.to_be_bytes();
        match number {
            0 => "allow client -> server".into(),
            // Every other port, so that no two join to a range.
            1..=60_000 if number % 2 == 1 => {
                let (protocol, port) = if number < 30_000 { ("tcp", number) } else { ("udp", number - 29_999) };
                format!("allow client -> server {protocol}/{}", 2 * port)
            }
            _ => format!("allow 198.{}.{middle}.{low}/32 -> server tcp/443", 18 + high),
        }
    })
}
