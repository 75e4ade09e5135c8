//! Why a packet may pass, for people.

use super::{
    human,
    page::{Page, Span, Tone},
    policy::decision,
};
use crate::front::api::dto::{
    side::Decision,
    why::{Live, Step, WhyAnswer},
};

pub(super) fn answer(page: &mut Page, answer: &WhyAnswer) {
    let WhyAnswer { from, to, what, decision: met, direction, reason, rule, hop, would_allow, steps, live } = answer;
    let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    page.spans([
        decision(*met),
        Span::from(format!("  {} -> {} {what}  at {}{reason}", human::side(from), human::side(to), direction.name())),
    ]);
    page.line(format!("rule   {}", human::mention(rule)));
    page.line(format!("hop    {hop}"));
    for (at, Step { at: place, found }) in steps.iter().enumerate() {
        page.line(format!("{:5}  {place}: {found}", if at == 0 { "steps" } else { "" }));
    }
    if let Some(live) = live {
        self::live(page, live);
    }
    if let (Decision::Deny | Decision::Reject, Some(rule)) = (met, would_allow) {
        let command = human::command(rule).unwrap_or_else(|| format!("a rule as: {rule}"));
        page.spans([Span::from("try    "), Span::new(Tone::Strong, command)]);
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
