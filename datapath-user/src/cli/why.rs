//! Why a packet may pass, for people.

use super::{
    human,
    page::{Page, Span, Tone},
    policy::decision,
};
use crate::front::api::dto::{
    side::Decision,
    why::{Also, Live, Step, WhyAnswer},
};

pub(super) fn answer(page: &mut Page, answer: &WhyAnswer) {
    let WhyAnswer {
        from,
        to,
        what,
        decision: met,
        direction,
        reason,
        rule,
        nearest,
        revision,
        also,
        more,
        hop,
        would_allow,
        would_deny,
        steps,
        live,
    } = answer;
    let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let revision = revision.map(|revision| format!("  rev={revision}")).unwrap_or_default();
    page.spans([
        decision(*met),
        Span::from(format!(
            "  {} -> {} {what}  at {}{reason}{revision}",
            human::side(from),
            human::side(to),
            direction.name()
        )),
    ]);
    page.line(format!("rule   {}", human::mention(rule)));
    if let Some(nearest) = nearest {
        page.line(format!("near   {}  {}", human::mention(&nearest.rule), human::allows(nearest)));
    }
    for (at, Also { rule, direction }) in also.iter().enumerate() {
        let name = if at == 0 { "also" } else { "" };
        page.line(format!("{name:5}  {}  at {}", human::mention(rule), direction.name()));
    }
    if *more > 0 {
        page.line(format!("       and {more} more rules that did not decide"));
    }
    page.line(format!("hop    {hop}"));
    for (at, Step { at: place, found }) in steps.iter().enumerate() {
        page.line(format!("{:5}  {place}: {found}", if at == 0 { "steps" } else { "" }));
    }
    if let Some(live) = live {
        self::live(page, live);
    }
    let change = match met {
        Decision::Deny | Decision::Reject => would_allow.as_ref().map(|rule| ("try    ", rule)),
        Decision::Allow => would_deny.as_ref().map(|rule| ("stop   ", rule)),
    };
    if let Some((name, rule)) = change {
        let command = human::command(rule).unwrap_or_else(|| format!("a rule as: {rule}"));
        page.spans([Span::from(name), Span::new(Tone::Strong, command)]);
    }
}

fn live(page: &mut Page, live: &Live) {
    let Live { decision: met, reason, program, agrees, detail } = live;
    let more: Vec<_> = [reason, detail].into_iter().flatten().map(String::as_str).collect();
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    let agrees = if *agrees {
        Span::new(Tone::Good, "as the tables say")
    } else {
        Span::new(Tone::Bad, "the tables say otherwise: this is a bug of weft, please report it")
    };
    page.spans([Span::from(format!("live   {program}: ")), decision(*met), Span::from(format!("{more}, ")), agrees]);
}
