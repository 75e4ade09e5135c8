//! Rules, for people.

use std::path::Path;

use super::{
    app, human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    learning::Learned,
    policies::{
        Enforced, Enforcing, Exported, Kind, Line, Part, PolicyChange, PolicyDiff, Sign, TestReport, Tested, Validated,
    },
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
        right("BYTES"),
        right("FLOWS"),
        right("DROPS"),
        right("LAST HIT"),
        left("NAME"),
        left("WRITTEN"),
    ]);
    for rule in rules {
        let Rule {
            id,
            name,
            action,
            from,
            to,
            what,
            on,
            precedence,
            until,
            text: _,
            policy,
            source,
            hits,
            shadow,
            tried: _,
        } = rule;
        let what = on.map_or_else(|| what.clone(), |on| format!("{what} on {}", on.name()));
        let what = until.map_or_else(|| what.clone(), |until| format!("{what} {}", remaining(until, now)));
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
            of(|hits| human::bytes(hits.bytes).into()),
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

/// How long a rule still holds.
fn remaining(until: Timestamp, now: Timestamp) -> String {
    until.left(now).map_or_else(|| "(over)".to_owned(), |left| format!("for {}", human::duration(left)))
}

pub(super) fn show(page: &mut Page, policy: &Policy, now: Timestamp) {
    let Policy { app, defaults, shadow, tried_by_default, ingress, egress, by_default, revision, digest, hosts } =
        policy;
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
    if let Some(digest) = digest {
        page.line(format!("digest of all policy in force here {digest}"));
    }
    let there = hosts.iter().filter(|host| host.state == Enforced::Yes).count();
    page.line(format!("{there}/{} hosts are known to enforce it, revision {revision}", hosts.len()));
    self::hosts(page, hosts);
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
    let RuleChange { rule, changed, revision, in_force, hosts } = change;
    let Rule { text, .. } = rule;
    if *changed {
        let number = rule.id.map(|id| format!(" (#{id})")).unwrap_or_default();
        page.line(format!("{text}{number}: {done}, revision {revision}, {}", force(*in_force)));
    } else {
        page.line(format!("{text}: nothing to change"));
    }
    self::hosts(page, hosts);
}

/// Whether a change is in force by now where it was made.
pub(super) fn force(in_force: bool) -> &'static str {
    if in_force { "in force here" } else { "not in force yet: see weft status" }
}

/// What came of applying or deleting policies.
pub(super) fn put(page: &mut Page, change: &PolicyChange) {
    let PolicyChange { parts, expectations, revision, in_force, hosts } = change;
    for Part { what, change, lines } in parts {
        let count = |sign: Sign| lines.iter().filter(|line| line.is == sign).count();
        let (added, removed) = (count(Sign::Added), count(Sign::Removed));
        page.spans([format!("{what}: ").into(), kind(*change), format!(", +{added} -{removed}").into()]);
    }
    let held = match expectations {
        0 => String::new(),
        1 => ", what is expected holds (1 expectation)".to_owned(),
        count => format!(", what is expected holds ({count} expectations)"),
    };
    let changed = if parts.is_empty() { "nothing to change, " } else { "" };
    page.line(format!("{changed}revision {revision}, {}{held}", force(*in_force)));
    self::hosts(page, hosts);
}

fn kind(kind: Kind) -> Span {
    match kind {
        Kind::New => Span::new(Tone::Good, "new"),
        Kind::Changed => Span::new(Tone::Odd, "changed"),
        Kind::Gone => Span::new(Tone::Bad, "gone"),
    }
}

/// Which hosts enforce a change, if that was waited for.
fn hosts(page: &mut Page, hosts: &[Enforcing]) {
    for Enforcing { host, state, why } in hosts {
        let state = match state {
            Enforced::Yes => Span::new(Tone::Good, "enforces it"),
            Enforced::No => Span::new(Tone::Bad, "does not enforce it"),
            Enforced::NotKnown => Span::new(Tone::Odd, "not known"),
        };
        page.spans([format!("  {host}: ").into(), state, format!(": {why}").into()]);
    }
}

/// What applying would change, as `diff` tells it.
pub(super) fn diff(page: &mut Page, PolicyDiff { parts, breaks }: &PolicyDiff) {
    for Part { what, change, lines } in parts {
        page.spans([Span::new(Tone::Strong, format!("{what}: ")), kind(*change)]);
        for Line { is, text } in lines {
            match is {
                Sign::Added => page.toned(Tone::Good, format!("+ {text}")),
                Sign::Removed => page.toned(Tone::Bad, format!("- {text}")),
            }
        }
    }
    if !breaks.is_empty() {
        page.toned(Tone::Bad, "apply would be refused, it would break what is expected:");
        for sentence in breaks {
            page.line(format!("      {sentence}"));
        }
    }
}

pub(super) fn exported(page: &mut Page, Exported { policies: _, manifest }: &Exported) {
    manifest.lines().for_each(|line| page.line(line));
}

/// What was learned: the manifest, or where it was written.
pub(super) fn learned(page: &mut Page, learned: &Learned, at: Option<&Path>) {
    let Learned { policy, manifest, rules, expectations, contacts, notes: _, against: _, unseen: _ } = learned;
    match at {
        None => manifest.lines().for_each(|line| page.line(line)),
        Some(path) => page.line(format!(
            "{}: policy {policy}, {rules} rules, {expectations} expectations, of {contacts} contacts",
            path.display()
        )),
    }
}

pub(super) fn validated(page: &mut Page, validated: &Validated) {
    let Validated { policies, apps, rules, expectations } = validated;
    let (policies, apps) = (policies.len(), apps.len());
    page.line(format!("no mistakes: {policies} policies, {rules} rules, {expectations} expectations, {apps} apps"));
}

/// What came of expectations. What does not hold comes with who decided otherwise.
pub(super) fn tested(page: &mut Page, TestReport { expectations, failed }: &TestReport) {
    for Tested { policy, text, source, asked, why, by: _ } in expectations {
        let at = source.as_ref().map_or_else(|| policy.clone(), human::source);
        match why {
            None => page.spans([Span::new(Tone::Good, "ok  "), format!("  {at}: {text}  ({asked} asked)").into()]),
            Some(why) => {
                page.spans([Span::new(Tone::Bad, "FAIL"), format!("  {at}: {text}").into()]);
                page.line(format!("      {why}"));
            }
        }
    }
    page.line(format!("{} expectations, {failed} do not hold", expectations.len()));
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
