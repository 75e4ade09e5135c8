//! Rules, for people.

use super::{
    app, human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    rules::{Action, Policy, Rule, RuleChange, RuleList},
    side::Decision,
};

pub(super) fn list(page: &mut Page, RuleList { rules, revision }: &RuleList) {
    table(page, rules);
    page.toned(Tone::Faint, format!("revision {revision}"));
}

pub(super) fn table(page: &mut Page, rules: &[Rule]) {
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
        left("NAME"),
        left("WRITTEN"),
    ]);
    for rule in rules {
        let Rule { id, name, action, from, to, what, on, precedence, text: _, policy, source } = rule;
        let what = on.map_or_else(|| what.clone(), |on| format!("{what} on {}", on.name()));
        let name = [policy.as_deref(), name.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("/");
        table.row([
            id.map(Span::from).unwrap_or_default(),
            self::action(*action),
            from.into(),
            to.into(),
            what.into(),
            precedence.into(),
            name.into(),
            source.as_ref().map(|source| human::source(source).into()).unwrap_or_default(),
        ]);
    }
    page.table(&table);
}

pub(super) fn show(page: &mut Page, policy: &Policy) {
    let Policy { app, defaults, ingress, egress, revision, hosts } = policy;
    page.toned(Tone::Strong, format!("policy of app {app}"));
    app::defaults(page, *defaults);
    page.gap();
    page.toned(Tone::Strong, "to the app");
    table(page, ingress);
    page.gap();
    page.toned(Tone::Strong, "from the app");
    table(page, egress);
    page.gap();
    let there = hosts.iter().filter(|host| host.revision >= Some(*revision)).count();
    page.line(format!("{there}/{} hosts are known to enforce revision {revision}", hosts.len()));
    for host in hosts.iter().filter(|host| host.revision < Some(*revision)) {
        let at = host.revision.map_or("not known".to_owned(), |revision| format!("revision {revision}"));
        page.toned(Tone::Odd, format!("  {}: {at}", host.host));
    }
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

fn action(action: Action) -> Span {
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
