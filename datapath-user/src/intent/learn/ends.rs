//! The ends of contacts, as rules can name them: exactly one role of an app where that can be said.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_common::{
    header::protocol,
    id::{Identity, RoleId},
};

use crate::front::api::dto::learning::{Contact, Membership, Who};
use crate::model::{
    app::{App, Role},
    cluster::Cluster,
    name::{AppName, HostName, RoleName},
    prefix::Prefix,
    selector::{Net, Selector},
};

use super::{merge::Group, table::Kind};

/// What can be said of a contact in rules.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// Who opened it.
    pub(super) from: End,
    /// The other side.
    pub(super) to: End,
    /// What.
    pub(super) kind: Kind,
    /// The port, or the type of ICMP.
    pub(super) port: u16,
}

/// One side.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The narrowest that rules can say.
    pub(super) selector: Selector,
    /// Who it may be: one, unless its role is not known.
    pub(super) identities: Vec<Identity>,
}

/// How an app's roles can be told apart.
#[derive(Debug, Default)]
struct Members {
    /// By role; `None` are endpoints without one.
    of: BTreeMap<Option<RoleName>, Selector>,
    /// What a selector means beside the one that it is for.
    wider: BTreeSet<Selector>,
}

/// Finds them.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    cluster: &'a Cluster,
    asked: &'a [HostName],
    members: BTreeMap<AppName, Members>,
    /// Selectors that were needed and mean more than was seen.
    wider: BTreeSet<Selector>,
    /// Hosts that were not asked for the roles of their endpoints, by app.
    unknown: BTreeSet<(AppName, Option<HostName>)>,
    /// How many contacts were with apps or roles that are no more.
    gone: u64,
    /// How many were to a port that no rule can name.
    nameless: u64,
}

impl<'a> Ends<'a> {
    pub(super) fn new(cluster: &'a Cluster, asked: &'a [HostName]) -> Self {
        let members = cluster.apps.iter().map(|(name, app)| (name.clone(), Members::of(app)));
        let (wider, unknown) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, asked, members: members.collect(), wider, unknown, gone: 0, nameless: 0 }
    }

    /// What rules can say of a contact of `app`; nothing, if another host has the say or if it can not be said.
    pub(super) fn of(&mut self, app: &App, contact: &Contact) -> Option<Flow> {
        let Contact { from, to, protocol: number, port, scattered } = contact;
        if from.app != app.name.as_str() && to.app != app.name.as_str() {
            return None;
        }
        let kind = Kind::of(*number);
        let has_zero = matches!(kind, Kind::Any | Kind::Icmp | Kind::Icmpv6);
        if *port == 0 && !has_zero {
            self.nameless += 1;
            return None;
        }
        let port = if kind == Kind::Any { 0 } else { *port };
        Some(Flow { from: self.end(from, *scattered)?, to: self.end(to, *scattered)?, kind, port })
    }

    fn end(&mut self, who: &Who, scattered: bool) -> Option<End> {
        let Who { app, role, address } = who;
        let one = |selector, identity| Some(End { selector, identities: vec![identity] });
        match app.as_str() {
            Who::HOST => return one(Selector::Host, Identity::HOST),
            Who::OUTSIDE if scattered => return one(Selector::Outside, Identity::OUTSIDE),
            Who::OUTSIDE => {
                let net = Net::new(Prefix::host(*address).ok()?, []).ok()?;
                return one(Selector::Net(net), Identity::OUTSIDE);
            }
            _ => {}
        }
        let app = app.parse::<AppName>().ok().and_then(|name| self.cluster.apps.get(&name));
        let Some(app) = app else {
            self.gone += 1;
            return None;
        };
        let role = match role {
            Membership::Unknown if app.roles.is_empty() => None,
            Membership::Unknown => return self.some_role(app, *address),
            Membership::None => None,
            Membership::Role(role) => {
                let known = role.parse().ok().filter(|role| app.roles.contains_key(role));
                self.gone += u64::from(known.is_none());
                Some(known?)
            }
        };
        let members = self.members.get(&app.name)?;
        let selector = members.of.get(&role)?.clone();
        if members.wider.contains(&selector) {
            self.wider.insert(selector.clone());
        }
        let number = role.and_then(|role| app.roles.get(&role)).map_or(RoleId::NONE, |role| role.number);
        one(selector, Identity::new(app.number, number))
    }

    /// An endpoint of a host that was not asked. One that was told of its endpoints itself: of what was not let in there
    /// it told nothing, and that was not seen to pass.
    fn some_role(&mut self, app: &App, address: IpAddr) -> Option<End> {
        let has = |blocks: &Vec<Prefix>| blocks.iter().any(|block| block.contains(address));
        let host = self.cluster.hosts.values().find(|host| host.blocks.get(&app.name).is_some_and(has));
        let host = host.map(|host| host.name.clone());
        if host.as_ref().is_some_and(|host| self.asked.contains(host)) {
            return None;
        }
        self.unknown.insert((app.name.clone(), host));
        let roles = app.roles.values().map(|role| role.number).chain([RoleId::NONE]);
        let identities = roles.map(|role| Identity::new(app.number, role)).collect();
        Some(End { selector: Selector::App(app.name.clone()), identities })
    }

    /// Says where more is allowed than was seen, and what was left out.
    pub(super) fn tell(&self, notes: &mut Vec<String>) {
        for selector in &self.wider {
            notes.push(format!("{selector} means other roles too: labels do not tell them apart"));
        }
        for (app, host) in &self.unknown {
            let who = host.as_ref().map_or_else(|| "their host".to_owned(), |host| format!("host {host}"));
            notes.push(format!("{app} stands for endpoints whose role is not known: {who} was not asked"));
        }
        if self.gone > 0 {
            notes.push(format!("left out: {} contacts with apps or roles that are no more", self.gone));
        }
        if self.nameless > 0 {
            notes.push(format!("left out: {} contacts to port 0, which no rule can name", self.nameless));
        }
    }

    /// What one selector says for several.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (name, members) in &self.members {
            let Some(app) = self.cluster.apps.get(name) else { continue };
            let mut add = |selector: Selector, parts: BTreeSet<Selector>| {
                if parts.len() > 1 && !parts.contains(&selector) {
                    groups.push(Group { selector, parts: parts.into_iter().collect() });
                }
            };
            // The widest first: it says the most.
            add(Selector::App(name.clone()), members.of.values().cloned().collect());
            for (role, _) in members.of.iter().filter_map(|(role, selector)| Some((role.as_ref()?, selector))) {
                let meant = called(app, role).map(|(own, _)| Some(own.clone()));
                let parts: BTreeSet<_> = meant.filter_map(|member| members.of.get(&member).cloned()).collect();
                add(Selector::Role(name.clone(), role.clone()), parts);
            }
        }
        groups
    }
}

impl Members {
    fn of(app: &App) -> Self {
        let mut members = Self::default();
        for role in app.roles.keys().map(Some).chain([None]) {
            let narrowest = narrowest(app, role);
            if meant(app, &narrowest) > 1 {
                members.wider.insert(narrowest.clone());
            }
            members.of.insert(role.cloned(), narrowest);
        }
        members
    }
}

/// The selector that means a role, or endpoints without one, and as few others as can be said.
fn narrowest(app: &App, role: Option<&RoleName>) -> Selector {
    if app.roles.is_empty() {
        return Selector::App(app.name.clone());
    }
    if let Some(role) = role.filter(|role| called(app, role).count() == 1) {
        return Selector::Role(app.name.clone(), role.clone());
    }
    let own = role.and_then(|role| app.roles.get(role)).map(|role| &role.labels);
    let keys: BTreeSet<_> = app.roles.values().flat_map(|role| role.labels.iter().map(|(key, _)| key)).collect();
    let demands = keys.into_iter().map(|key| match own.and_then(|labels| labels.get(key)) {
        Some(value) => format!("{key}={value}"),
        None => format!("!{key}"),
    });
    let text = format!("{}{{{}}}", app.name, demands.collect::<Vec<_>>().join(","));
    text.parse().unwrap_or_else(|_| Selector::App(app.name.clone()))
}

/// The roles that `name` means.
fn called<'a>(app: &'a App, name: &'a RoleName) -> impl Iterator<Item = (&'a RoleName, &'a Role)> {
    app.roles.iter().filter(move |(own, role)| role.is_called(own, name))
}

/// How many roles of the app a selector means, with endpoints without one.
fn meant(app: &App, selector: &Selector) -> usize {
    match selector {
        Selector::App(_) => app.roles.len() + 1,
        Selector::Role(_, name) => called(app, name).count(),
        Selector::Labelled(labelled) => {
            app.roles.values().map(Some).chain([None]).filter(|role| labelled.selects(*role)).count()
        }
        Selector::Host | Selector::Outside | Selector::Any | Selector::Everyone | Selector::Net(_) => 0,
    }
}

impl Kind {
    /// Of a protocol by its number.
    fn of(number: u8) -> Self {
        match number {
            protocol::TCP => Self::Tcp,
            protocol::UDP => Self::Udp,
            protocol::SCTP => Self::Sctp,
            protocol::ICMP => Self::Icmp,
            protocol::ICMPV6 => Self::Icmpv6,
            _ => Self::Any,
        }
    }
}
