//! Answers to why.

use super::{db, mention, nearest, of_default, text, web};
use crate::front::api::dto::{
    side::{Decision, Direction, RuleMention},
    why::{Also, Live, OtherHalf, Step, Why, WhyAnswer},
};

pub(crate) fn why() -> WhyAnswer {
    let step = |at: &str, found: &str| Step { at: at.to_owned(), found: found.to_owned() };
    WhyAnswer {
        from: web(),
        to: db(),
        what: text("tcp/5432"),
        decision: Decision::Deny,
        direction: Direction::Ingress,
        reason: Some(text("policy-default")),
        rule: of_default(),
        nearest: Some(nearest()),
        revision: Some(41),
        also: vec![Also {
            rule: RuleMention { text: text("pass shop -> any any on egress precedence -1"), id: Some(9), source: None },
            direction: Direction::Egress,
        }],
        more: 2,
        hop: text("peer h2"),
        would_allow: Some(text("allow shop/web -> blog/db tcp/5432")),
        would_deny: None,
        steps: vec![
            step("route", "fd00:2::/64 is on peer h2"),
            step("egress of shop/web", "no rule, default open"),
            step("ingress of blog/db", "no rule, default closed"),
        ],
        live: Some(Live {
            decision: Decision::Deny,
            reason: Some(text("policy-default")),
            program: text("from_workload"),
            agrees: true,
            detail: Some(text("TC_ACT_SHOT")),
        }),
        other_half: Some(OtherHalf {
            host: "h2".parse().unwrap(),
            question: Why {
                from: "shop/web@10.1.0.7".parse().unwrap(),
                to: "blog/db".parse().unwrap(),
                what: "tcp/5432".parse().unwrap(),
                live: true,
            },
            answer: None,
        }),
    }
}

/// As [`why`], where it passes here, and not there.
pub(crate) fn why_allowed() -> WhyAnswer {
    WhyAnswer {
        decision: Decision::Allow,
        reason: None,
        rule: mention(),
        nearest: None,
        also: Vec::new(),
        more: 0,
        would_allow: None,
        would_deny: Some(text("deny shop/web -> blog/db tcp/5432")),
        steps: Vec::new(),
        live: None,
        other_half: why().other_half.map(|half| OtherHalf { answer: Some(Box::new(why_there())), ..half }),
        ..why()
    }
}

/// What the receiver's host says.
fn why_there() -> WhyAnswer {
    WhyAnswer { nearest: None, also: Vec::new(), more: 0, hop: text("local"), live: None, other_half: None, ..why() }
}
