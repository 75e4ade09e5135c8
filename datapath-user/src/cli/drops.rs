//! Dropped packets, for people: one line each, that names both sides, the reason, the rule, and what to do.

use super::{
    human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    drops::{DropCount, DropList, Dropped},
    time::Timestamp,
};

pub(super) fn list(page: &mut Page, DropList { counters, recent }: &DropList, now: Timestamp) {
    if counters.is_empty() {
        return page.line("Nothing was dropped.");
    }
    let mut table = Table::new([left("REASON"), right("PACKETS"), left("WHAT IT MEANS")]);
    for DropCount { reason, packets, explain } in counters {
        table.row([reason.into(), packets.into(), explain.into()]);
    }
    page.table(&table);
    if !recent.is_empty() {
        page.gap();
    }
    for dropped in recent {
        one(page, dropped, Some(now));
    }
}

/// One line; with how long ago it was if `now` is known.
pub(super) fn one(page: &mut Page, dropped: &Dropped, now: Option<Timestamp>) {
    let Dropped { time, host, hook, direction, from, to, protocol, tcp_flags, .. } = dropped;
    let Dropped { reason, rule, nearest, revision, shadow, skipped, would_allow, .. } = dropped;
    let passed = reason == Dropped::SHADOW;
    let ago = now.map(|now| format!(" ({})", human::ago(*time, now))).unwrap_or_default();
    let flags = tcp_flags.as_ref().map(|flags| format!(" {flags}")).unwrap_or_default();
    let direction = direction.map(|direction| format!(" {}", direction.name())).unwrap_or_default();
    let rule = rule.as_ref().map(|rule| format!("  rule=[{}]", human::mention(rule))).unwrap_or_default();
    let revision = revision.map(|revision| format!("  rev={revision}")).unwrap_or_default();
    let nearest = nearest
        .as_ref()
        .map(|nearest| format!("  nearest=[{}] ({})", human::mention(&nearest.rule), human::allows(nearest)));
    let nearest = nearest.unwrap_or_default();
    let would = if passed { "would be dropped by" } else { "would pass by" };
    let shadow = shadow.as_ref().map(|rule| format!("  {would} [{}]", human::mention(rule))).unwrap_or_default();
    let skipped = if *skipped > 0 { format!("  ({skipped} more not shown)") } else { String::new() };
    let command = would_allow.as_ref().and_then(|rule| human::command(rule));
    let command = command.map(|command| format!("  try: {command}")).unwrap_or_default();
    page.spans([
        Span::new(Tone::Faint, format!("{time}{ago} ")),
        if passed { Span::new(Tone::Odd, "WOULD DROP") } else { Span::new(Tone::Bad, "DROP") },
        Span::from(format!(
            " {} -> {} {protocol}{flags}  at {host}{direction} {hook}  reason=",
            human::side(from),
            human::side(to)
        )),
        Span::new(Tone::Strong, reason),
        Span::from(format!("{rule}{revision}{nearest}{shadow}{skipped}{command}")),
    ]);
}
