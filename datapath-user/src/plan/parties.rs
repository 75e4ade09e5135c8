//! Everybody that rules can speak of, and where each can be: what expectations and the matrix are asked about.
//!
//! A role of an app is somebody, and so is an endpoint without one, the hosts, and the outside. Rules with prefixes look
//! at addresses, so each has the set of those that it can have. Of endpoints it asks nothing: what holds of a party
//! holds of everyone who ever joins it.

use std::collections::BTreeSet;

use weft_common::{
    addr::Ip,
    id::{Identity, RoleId},
};

use crate::model::{
    app::{App, Role},
    cluster::Cluster,
    host::Host,
    name::{AppName, RoleName},
    prefix::Prefix,
    selector::{Net, Selector},
    traffic::NamedPorts,
};

/// Somebody.
#[derive(Clone, Debug)]
pub struct Party<'a> {
    /// As tables have it.
    pub identity: Identity,
    /// `shop/web`, `shop` for its endpoints without a role, `host`, `outside`.
    pub name: String,
    /// The app, but of hosts and the outside.
    app: Option<&'a App>,
    /// The role, if it has one.
    role: Option<(&'a RoleName, &'a Role)>,
    /// Where it can be.
    pub at: Addresses,
}

/// Addresses as ranges, both ends included, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<(u128, u128)>);

/// Those of a cluster.
pub fn all(cluster: &Cluster) -> Vec<Party<'_>> {
    let gateways: Addresses = cluster.hosts.values().flat_map(Host::gateways).map(|(_, addr)| one(addr)).collect();
    let mut parties = Vec::new();
    for app in cluster.apps.values() {
        let own: Addresses = app.prefixes.iter().map(range).collect();
        let at = own.without(&gateways).or_somewhere();
        let party = |number, name, role| Party {
            identity: Identity::new(app.number, number),
            name,
            app: Some(app),
            role,
            at: at.clone(),
        };
        parties.push(party(RoleId::NONE, app.name.to_string(), None));
        let roles = app.roles.iter();
        parties.extend(roles.map(|(own, role)| party(role.number, format!("{}/{own}", app.name), Some((own, role)))));
    }
    let apps: Addresses = cluster.apps.values().flat_map(|app| &app.prefixes).map(range).collect();
    let everywhere: Addresses = [(0, u128::MAX)].into_iter().collect();
    let outside = everywhere.without(&apps).without(&gateways);
    let plain = |identity, name: &str, at| Party { identity, name: name.to_owned(), app: None, role: None, at };
    parties.push(plain(Identity::HOST, "host", gateways.or_somewhere()));
    parties.push(plain(Identity::OUTSIDE, "outside", outside));
    parties
}

impl Party<'_> {
    /// The app it is of.
    pub fn app(&self) -> Option<&AppName> {
        self.app.map(|app| &app.name)
    }

    /// The ports that it has names for.
    pub fn ports(&self) -> NamedPorts {
        self.role.map(|(_, role)| role.ports.clone()).unwrap_or_default()
    }

    /// Where a selector means it to be; none: it does not mean it.
    pub fn meant(&self, selector: &Selector) -> Option<Addresses> {
        let is = match selector {
            Selector::App(name) => self.app() == Some(name),
            Selector::Role(name, wanted) => {
                self.app() == Some(name) && self.role.is_some_and(|(own, role)| role.is_called(own, wanted))
            }
            Selector::Labelled(labelled) => self
                .app
                .is_some_and(|app| labelled.apps.contain(app) && labelled.selects(self.role.map(|(_, role)| role))),
            Selector::Host => self.identity == Identity::HOST,
            Selector::Outside => self.identity == Identity::OUTSIDE,
            Selector::Any => self.app.is_some(),
            Selector::Everyone => true,
            Selector::Net(net) => {
                let at = self.at.within(&of_net(net));
                return Some(at).filter(|at| *at != Addresses::default());
            }
        };
        is.then(|| self.at.clone())
    }
}

impl Addresses {
    /// One of each part that `edges`, in order, cut them into; of both families, which are never in one part.
    pub fn samples(&self, edges: &[u128]) -> Vec<Ip> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for &(from, to) in &self.0 {
            let first = edges.partition_point(|edge| *edge <= from);
            let behind = edges.partition_point(|edge| *edge <= to);
            let starts = std::iter::once((first, from)).chain((first..behind).map(|at| (at + 1, edges[at])));
            for (part, addr) in starts {
                if seen.insert((part, is_v4(addr))) {
                    found.push(Ip::from_v6(addr.to_be_bytes()));
                }
            }
        }
        found
    }

    fn without(&self, holes: &Self) -> Self {
        let mut left = Vec::new();
        for &(from, to) in &self.0 {
            let mut next = Some(from);
            let first = holes.0.partition_point(|(_, end)| *end < from);
            for &(hole, end) in holes.0[first..].iter().take_while(|(hole, _)| *hole <= to) {
                if let Some(from) = next.filter(|from| *from < hole) {
                    left.push((from, hole - 1));
                }
                next = end.checked_add(1).filter(|next| *next <= to);
            }
            left.extend(next.map(|from| (from, to)));
        }
        Self(left)
    }

    fn within(&self, other: &Self) -> Self {
        let both = |a: &(u128, u128), b: &(u128, u128)| Some((a.0.max(b.0), a.1.min(b.1))).filter(|(a, b)| a <= b);
        Self(self.0.iter().flat_map(|a| other.0.iter().filter_map(move |b| both(a, b))).collect())
    }

    /// These, or where nobody is, for somebody who was given no address yet: only rules about everything speak of it.
    fn or_somewhere(self) -> Self {
        if self.0.is_empty() { Self(vec![(0, 0), (MAPPED.0, MAPPED.0)]) } else { self }
    }
}

/// Cuts the space of addresses where the families meet.
impl FromIterator<(u128, u128)> for Addresses {
    fn from_iter<I: IntoIterator<Item = (u128, u128)>>(ranges: I) -> Self {
        let mut cut: Vec<(u128, u128)> = Vec::new();
        for (from, to) in ranges {
            let parts = [(0, MAPPED.0 - 1), MAPPED, (MAPPED.1 + 1, u128::MAX)];
            cut.extend(parts.map(|(a, b)| (a.max(from), b.min(to))).into_iter().filter(|(a, b)| a <= b));
        }
        let sorted: BTreeSet<_> = cut.into_iter().collect();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (from, to) in sorted {
            match merged.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }
}

/// Where IPv4 is: `::ffff:0:0/96`.
const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// Whether it is one of IPv4.
fn is_v4(addr: u128) -> bool {
    (MAPPED.0..=MAPPED.1).contains(&addr)
}

fn one(addr: std::net::IpAddr) -> (u128, u128) {
    let bits = u128::from_be_bytes(Ip::from(addr).bytes());
    (bits, bits)
}

/// The addresses of a prefix.
fn range(prefix: &Prefix) -> (u128, u128) {
    let (len, addr) = prefix.key();
    key_range(len, addr)
}

/// The addresses whose first `len` bits are those of `addr`.
pub(super) fn key_range(len: u32, addr: Ip) -> (u128, u128) {
    let first = u128::from_be_bytes(addr.bytes());
    (first, first | u128::MAX.checked_shr(len).unwrap_or(0))
}

fn of_net(net: &Net) -> Addresses {
    let holes: Addresses = net.except().iter().map(range).collect();
    // A prefix of IPv6 holds no address of IPv4.
    let all: Addresses = [range(&net.prefix())].into_iter().collect();
    let v4: Addresses = [MAPPED].into_iter().collect();
    let all = if net.prefix().family() == crate::model::prefix::Family::V4 { all } else { all.without(&v4) };
    all.without(&holes)
}
