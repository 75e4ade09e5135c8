//! Connections and traffic, for people.

use super::{
    human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    flows::{Flow, FlowList, Pair, TrafficList},
    side::Volume,
};

pub(super) fn list(page: &mut Page, FlowList { flows, total }: &FlowList) {
    if flows.is_empty() {
        return page.line("No connections.");
    }
    let mut table = Table::new([
        left("PROTO"),
        left("OPENED BY"),
        left("TO"),
        left("STATE"),
        right("SENT"),
        right("RECEIVED"),
        right("AGE"),
        right("IDLE"),
        left("RULE"),
    ]);
    for flow in flows {
        let Flow { protocol, opener, other, state, rule, sent, received, age_ms, idle_ms, stale } = flow;
        let state = match stale {
            true => Span::new(Tone::Odd, format!("{state}, to be decided again")),
            false => state.into(),
        };
        table.row([
            protocol.into(),
            human::side(opener).into(),
            human::side(other).into(),
            state,
            volume(sent).into(),
            volume(received).into(),
            human::millis(*age_ms).into(),
            human::millis(*idle_ms).into(),
            rule.as_ref().map(|rule| human::mention(rule).into()).unwrap_or_default(),
        ]);
    }
    page.table(&table);
    let shown = flows.len() as u64;
    if shown < *total {
        page.toned(Tone::Faint, format!("{} more are not shown: use --limit or a filter", total - shown));
    }
}

pub(super) fn traffic(page: &mut Page, TrafficList { pairs }: &TrafficList) {
    if pairs.is_empty() {
        return page.line("No traffic yet.");
    }
    let mut table =
        Table::new([left("FROM"), left("TO"), right("PACKETS"), right("BYTES"), right("FLOWS"), right("DROPS")]);
    for Pair { from, to, volume: Volume { packets, bytes }, flows, drops } in pairs {
        let drops_tone = if *drops > 0 { Tone::Odd } else { Tone::Plain };
        table.row([
            from.into(),
            to.into(),
            human::count(*packets).into(),
            human::bytes(*bytes).into(),
            human::count(*flows).into(),
            Span::new(drops_tone, human::count(*drops)),
        ]);
    }
    page.table(&table);
}

fn volume(Volume { packets, bytes }: &Volume) -> String {
    format!("{} in {}", human::bytes(*bytes), human::count(*packets))
}
