//! Why a packet may pass, for people.

use super::{
    failure::Failure,
    hosts::Hosts,
    human,
    page::{Page, Span, Tone},
    policy::decision,
};
use crate::front::api::dto::{
    naming::Party,
    side::{Decision, Side},
    why::{Also, Live, OtherHalf, Step, Why, WhyAnswer},
};

/// Asks here, and the host of the other end if its socket is known. That one first: who is meant by a role there only it
/// knows, and here the receiver is an address to the programs.
pub(super) async fn ask(Hosts { here, others }: &Hosts, question: Why) -> Result<WhyAnswer, Failure> {
    let ask = async |question: Why| here.call(&question).await.map_err(Failure::Daemon);
    if others.is_empty() {
        return ask(question).await;
    }
    let half = ask(Why { live: false, ..question.clone() }).await?.other_half;
    let Some((there, half)) = half.and_then(|half| Some((others.get(&half.host)?, half))) else {
        return ask(question).await;
    };
    let failed = |error| Failure::Host(half.host.clone(), error);
    let answer = there.call(&Why { live: question.live, ..half.question.clone() }).await.map_err(failed)?;
    let own = ask(Why { from: member_at(&answer.from)?, to: party(&address(&answer.to))?, ..question }).await?;
    let answer = Box::new(WhyAnswer { other_half: None, ..answer });
    Ok(WhyAnswer { other_half: Some(OtherHalf { answer: Some(answer), ..half }), ..own })
}

fn party(text: &str) -> Result<Party, Failure> {
    text.parse().map_err(Failure::Usage)
}

fn address(side: &Side) -> String {
    side.address.clone().unwrap_or_default()
}

/// The sender as the tunnel tells it; a host has its address only.
fn member_at(side: &Side) -> Result<Party, Failure> {
    let Side { app, role, .. } = side;
    let role = role.iter().map(|role| format!("/{role}"));
    let member: String = app.iter().cloned().chain(role).chain([format!("@{}", address(side))]).collect();
    member.parse().or_else(|_| party(&address(side)))
}

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
        other_half,
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
    match other_half {
        Some(half) if half.answer.is_some() || *met == Decision::Allow => self::other_half(page, half),
        // What is refused by one is refused.
        Some(_) | None => {}
    }
}

fn other_half(page: &mut Page, OtherHalf { host, question, answer }: &OtherHalf) {
    let Some(answer) = answer else {
        let Why { from, to, what, live: _ } = question;
        page.line(format!(
            "half   {host} decides, too: weft why {from} {to} {what} there, or --host-socket {host}=PATH"
        ));
        return;
    };
    page.line("");
    page.line(format!("half   {host} decides, too:"));
    self::answer(page, answer);
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
