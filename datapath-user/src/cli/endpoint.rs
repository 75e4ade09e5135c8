//! Endpoints, for people.

use super::{
    human,
    page::{Page, Span},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    endpoints::{Attached, Detached, Endpoint, EndpointList, Gone, Relabelled},
    time::Timestamp,
};

pub(super) fn list(page: &mut Page, EndpointList { host: _, endpoints }: &EndpointList, now: Timestamp) {
    table(page, endpoints, now);
}

pub(super) fn table(page: &mut Page, endpoints: &[Endpoint], now: Timestamp) {
    if endpoints.is_empty() {
        return page.line("No endpoints on this host.");
    }
    let mut table = Table::new([
        left("APP"),
        left("ROLE"),
        left("NAME"),
        left("ADDRESSES"),
        left("MAC"),
        left("IFNAME"),
        right("INDEX"),
        left("LINK"),
        right("SINCE"),
        left("STATE"),
    ]);
    for endpoint in endpoints {
        let Endpoint { name, app, role, addresses, mac, ifname, ifindex, link, netns: _, state, since } = endpoint;
        table.row([
            app.into(),
            role.as_deref().map(Span::from).unwrap_or_default(),
            name.into(),
            human::list(addresses).into(),
            mac.into(),
            ifname.into(),
            ifindex.map(Span::from).unwrap_or_default(),
            link.into(),
            since.map(|since| Span::from(human::duration(since.age(now)))).unwrap_or_default(),
            human::state(state),
        ]);
    }
    page.table(&table);
}

/// One line: what a script would want first, first.
pub(super) fn attached(page: &mut Page, attached: &Attached) {
    let Attached { name, app, role, addresses, mac, ifname, gateways, link, was_there } = attached;
    let role = role.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
    let via = if gateways.is_empty() { String::new() } else { format!(" via {}", human::list(gateways)) };
    let again = if *was_there { ", as before" } else { "" };
    let addresses = human::list(addresses);
    page.line(format!("{app}/{name}{role} {addresses} mac {mac} on {ifname}{via} (host link {link}){again}"));
}

pub(super) fn relabelled(page: &mut Page, relabelled: &Relabelled) {
    let Relabelled { name, app, role, labels, changed, revision, in_force } = relabelled;
    let labels = if labels.is_empty() { "no labels" } else { labels };
    if !changed {
        return page.line(format!("{app}/{name} has {labels}: nothing to change"));
    }
    let role = role.as_ref().map(|role| format!(", role {role}")).unwrap_or_default();
    let force = if *in_force { "in force here" } else { "not in force yet: see weft status" };
    page.line(format!("{app}/{name} has {labels}{role}, revision {revision}, {force}"));
}

pub(super) fn detached(page: &mut Page, Detached { endpoints }: &Detached) {
    if endpoints.is_empty() {
        page.line("Nothing was attached.");
    }
    for Gone { name, app, addresses, kept } in endpoints {
        let becomes = if *kept { "stays reserved for it" } else { "is free" };
        page.line(format!("{app}/{name} is detached; {} {becomes}", human::list(addresses)));
    }
}
