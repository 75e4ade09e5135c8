//! Rules, for people.

use super::{
    app, human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    rules::{Action, ByDefault, Hits, Policy, Rule, RuleChange, RuleList, Tried},
    side::Decision,
    time::Timestamp,
};

pub(super) fn list(page: &mut Page, RuleList { rules, revision }: &RuleList, now: Timestamp) {
    table(page, rules, now);
    page.toned(Tone::Faint, format!("revision {revision}"));
}

pub(super) fn table(page: &mut Page, rules: &[Rule], now: Timestamp) {
    if rules.is_empty() {
        return page.line("No rules: the defaults of the apps hold.");
    }
    let mut table = Table::new([
        right("#"),
        left("ACTION"),
        left("FROM"),
        left("TO"),
        left("WHAT"),
        right("PREC"),
        right("PACKETS"),
        right("FLOWS"),
        right("DROPS"),
        right("LAST HIT"),
        left("NAME"),
        left("WRITTEN"),
    ]);
    for rule in rules {
        let Rule { id, name, action, from, to, what, on, precedence, text: _, policy, source, hits, shadow, tried: _ } =
            rule;
        let what = on.map_or_else(|| what.clone(), |on| format!("{what} on {}", on.name()));
        let name = [policy.as_deref(), name.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("/");
        let of = |cell: fn(&Hits) -> Span| hits.as_ref().map(cell).unwrap_or_default();
        table.row([
            id.map(Span::from).unwrap_or_default(),
            self::action(*action, *shadow),
            from.into(),
            to.into(),
            what.into(),
            precedence.into(),
            of(|hits| human::count(hits.packets).into()),
            of(|hits| human::count(hits.flows).into()),
            of(drops),
            hits.as_ref().map(|hits| last(hits, now)).unwrap_or_default(),
            name.into(),
            source.as_ref().map(|source| human::source(source).into()).unwrap_or_default(),
        ]);
    }
    page.table(&table);
    for rule in rules {
        if let Some(tried) = &rule.tried {
            page.line(format!("{} {}", rule.text, would(tried)));
        }
    }
}

/// What is only tried would have changed so much.
fn would(Tried { would_drop, would_drop_flows, would_pass, last: _ }: &Tried) -> String {
    let count = human::count;
    format!(
        "would have dropped {} packets of {} connections and let {} dropped ones pass",
        count(*would_drop),
        count(*would_drop_flows),
        count(*would_pass)
    )
}

pub(super) fn show(page: &mut Page, policy: &Policy, now: Timestamp) {
    let Policy { app, defaults, shadow, tried_by_default, ingress, egress, by_default, revision, hosts } = policy;
    page.toned(Tone::Strong, format!("policy of app {app}"));
    app::defaults(page, *defaults);
    app::shadow(page, *shadow);
    if let Some(tried) = tried_by_default {
        page.line(format!("its defaults {}", would(tried)));
    }
    page.gap();
    page.toned(Tone::Strong, "to the app");
    table(page, ingress, now);
    page.gap();
    page.toned(Tone::Strong, "from the app");
    table(page, egress, now);
    page.gap();
    page.toned(Tone::Strong, "by default");
    defaults_table(page, by_default, now);
    page.gap();
    let there = hosts.iter().filter(|host| host.revision >= Some(*revision)).count();
    page.line(format!("{there}/{} hosts are known to enforce revision {revision}", hosts.len()));
    for host in hosts.iter().filter(|host| host.revision < Some(*revision)) {
        let at = host.revision.map_or("not known".to_owned(), |revision| format!("revision {revision}"));
        page.toned(Tone::Odd, format!("  {}: {at}", host.host));
    }
}

fn defaults_table(page: &mut Page, pairs: &[ByDefault], now: Timestamp) {
    if pairs.is_empty() {
        return page.line("Nothing yet.");
    }
    let mut table = Table::new([
        left("FROM"),
        left("TO"),
        right("PACKETS"),
        right("BYTES"),
        right("FLOWS"),
        right("DROPS"),
        right("LAST HIT"),
    ]);
    for ByDefault { from, to, hits } in pairs {
        table.row([
            from.into(),
            to.into(),
            human::count(hits.packets).into(),
            human::bytes(hits.bytes).into(),
            human::count(hits.flows).into(),
            drops(hits),
            last(hits, now),
        ]);
    }
    page.table(&table);
}

fn drops(hits: &Hits) -> Span {
    let tone = if hits.drops > 0 { Tone::Odd } else { Tone::Plain };
    Span::new(tone, human::count(hits.drops))
}

/// How long ago the last packet was.
fn last(hits: &Hits, now: Timestamp) -> Span {
    human::duration(hits.last.age(now)).into()
}

pub(super) fn change(page: &mut Page, change: &RuleChange, done: &str) {
    let RuleChange { rule, changed, revision, in_force } = change;
    let Rule { text, .. } = rule;
    if !changed {
        return page.line(format!("{text}: nothing to change"));
    }
    let number = rule.id.map(|id| format!(" (#{id})")).unwrap_or_default();
    let force = if *in_force { "in force here" } else { "not in force yet: see weft status" };
    page.line(format!("{text}{number}: {done}, revision {revision}, {force}"));
}

fn action(action: Action, shadow: bool) -> Span {
    if shadow {
        return Span::new(Tone::Odd, format!("shadow {}", action.name()));
    }
    let tone = match action {
        Action::Allow => Tone::Good,
        Action::Deny | Action::Reject => Tone::Bad,
        Action::Pass => Tone::Odd,
    };
    Span::new(tone, action.name())
}

pub(super) fn decision(decision: Decision) -> Span {
    let tone = match decision {
        Decision::Allow => Tone::Good,
        Decision::Deny | Decision::Reject => Tone::Bad,
    };
    Span::new(tone, decision.name())
}
