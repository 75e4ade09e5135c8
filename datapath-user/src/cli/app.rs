//! Apps, for people.

use super::{
    endpoint, human,
    page::{Page, Span, Tone},
    policy,
    table::{Table, left, right},
};
use crate::front::api::dto::{
    apps::{App, AppDetail, AppList, Changed, Defaults, Gate, Role},
    time::Timestamp,
};

pub(super) fn list(page: &mut Page, AppList { apps }: &AppList) {
    if apps.is_empty() {
        return page.line("There is no app.");
    }
    let columns = [left("APP"), right("NUMBER"), left("PREFIXES"), left("ROLES"), left("DEFAULTS"), right("HERE")];
    let mut table = Table::new(columns);
    for App { name, number, prefixes, labels: _, roles, defaults, shadow: _, endpoints } in apps {
        table.row([
            name.into(),
            number.into(),
            human::list(prefixes).into(),
            names(roles).into(),
            difference(*defaults).into(),
            endpoints.into(),
        ]);
    }
    page.table(&table);
}

pub(super) fn detail(page: &mut Page, AppDetail { app, endpoints, rules }: &AppDetail, now: Timestamp) {
    let App { name, number, prefixes, labels, roles, defaults, shadow, endpoints: _ } = app;
    page.toned(Tone::Strong, format!("app {name} (number {number})"));
    page.line(format!("prefixes   {}", human::list(prefixes)));
    if !labels.is_empty() {
        page.line(format!("labels     {labels}"));
    }
    let roles: Vec<_> = roles.iter().map(role).collect();
    page.line(format!("roles      {}", if roles.is_empty() { "none".to_owned() } else { roles.join(" ") }));
    self::defaults(page, *defaults);
    self::shadow(page, *shadow);
    page.gap();
    endpoint::table(page, endpoints, now);
    page.gap();
    policy::table(page, rules, now);
}

pub(super) fn defaults(page: &mut Page, defaults: Defaults) {
    let Defaults { inside, from_apps, from_host, to_outside } = defaults;
    let gates = [("inside", inside), ("from-apps", from_apps), ("from-host", from_host), ("to-outside", to_outside)];
    let mut spans = vec![Span::from("defaults ")];
    for (name, gate) in gates {
        let tone = match gate {
            Gate::Open => Tone::Good,
            Gate::Closed => Tone::Odd,
        };
        spans.extend([Span::from(format!("  {name} ")), Span::new(tone, gate.name())]);
    }
    page.spans(spans);
}

pub(super) fn shadow(page: &mut Page, shadow: bool) {
    if shadow {
        page.toned(Tone::Odd, "its policy is only tried: everything passes, and what would not is counted");
    }
}

pub(super) fn changed(page: &mut Page, Changed { done, revision, in_force }: &Changed) {
    page.line(format!("{done}: revision {revision}, {}", policy::force(*in_force)));
}

/// With its number, and with its labels and ports where these are not what its name says.
fn role(Role { name, number, labels, ports }: &Role) -> String {
    let labels =
        Some(labels).filter(|labels| **labels != format!("role={name}")).map(|labels| format!(" {{{labels}}}"));
    let ports = Some(ports).filter(|ports| !ports.is_empty()).map(|ports| format!(" {ports}"));
    format!("{name} ({number}){}{}", labels.unwrap_or_default(), ports.unwrap_or_default())
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Only what is not usual.
fn difference(defaults: Defaults) -> String {
    let Defaults { inside, from_apps, from_host, to_outside } = defaults;
    let gates = [
        ("inside", inside, Gate::Open),
        ("from-apps", from_apps, Gate::Closed),
        ("from-host", from_host, Gate::Open),
        ("to-outside", to_outside, Gate::Open),
    ];
    let unusual = gates.into_iter().filter(|(_, is, usual)| is != usual);
    let words: Vec<_> = unusual.map(|(name, is, _)| format!("{name}={}", is.name())).collect();
    if words.is_empty() { "usual".to_owned() } else { words.join(" ") }
}
