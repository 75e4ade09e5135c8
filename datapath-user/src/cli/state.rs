//! How a host is, for people.

use super::{
    human,
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::{
    state::{
        Check, CheckResult, Degraded, Diagnosis, Gateway, HookKind, Peer, PeerList, Problem, Reconcile, Repaired,
        ResetDone, Status, Table as Fill, Tally,
    },
    time::Timestamp,
};

pub(super) fn peers(page: &mut Page, PeerList { host: _, peers }: &PeerList) {
    if peers.is_empty() {
        return page.line("This host knows no other.");
    }
    let mut table = Table::new([
        left("PEER"),
        left("UNDERLAY"),
        left("UPLINK"),
        left("NEXT HOP"),
        right("PATH MTU"),
        right("INNER MTU"),
        left("PREFIXES"),
        left("STATE"),
    ]);
    for Peer { name, underlay, uplink, next_hop, path_mtu, inner_mtu, prefixes, state } in peers {
        let text = |text: &Option<String>| text.as_deref().map(Span::from).unwrap_or_default();
        table.row([
            name.into(),
            text(underlay),
            text(uplink),
            text(next_hop),
            path_mtu.map(Span::from).unwrap_or_default(),
            inner_mtu.map(Span::from).unwrap_or_default(),
            human::list(prefixes).into(),
            human::state(state),
        ]);
    }
    page.table(&table);
}

/// What needs somebody comes last, where it is read first.
pub(super) fn status(page: &mut Page, status: &Status, now: Timestamp) {
    let Status {
        host,
        version,
        kernel,
        started,
        revision,
        in_force,
        epoch,
        digest,
        problem,
        degraded,
        hook_kind,
        encapsulation,
        port,
        gateway: Gateway { device, addresses, state },
        masquerade,
        tables,
        repaired,
        revoked,
        reconcile,
        endpoints,
        peers,
    } = status;
    let hooks = match hook_kind {
        HookKind::Tcx => "tcx",
        HookKind::Clsact => "clsact",
    };
    let up = human::duration(started.age(now));
    let mut item = |name: &str, spans: Vec<Span>| {
        page.spans(std::iter::once(Span::new(Tone::Faint, format!("{name:<14}"))).chain(spans));
    };
    item("host", vec![Span::new(Tone::Strong, host)]);
    item("weftd", vec![Span::from(format!("{version}, up {up} (since {started}), kernel {kernel}"))]);
    item(
        "revision",
        vec![Span::from(format!("{revision}, ")), force(*revision, *in_force), format!(", epoch {epoch}").into()],
    );
    item("policy", vec![digest.as_ref().map_or_else(|| "none yet".into(), |digest| format!("digest {digest}").into())]);
    item("datapath", vec![Span::from(format!("{hooks}, {encapsulation}, udp port {port}"))]);
    item("gateway", vec![Span::from(format!("{device} {} ", human::list(addresses))), human::state(state)]);
    item("masquerading", vec![human::state(masquerade)]);
    item("endpoints", tally(*endpoints));
    item("peers", tally(*peers));
    item("reconciled", vec![reconcile.map_or("never".into(), |last| reconciled(last, now))]);
    item("repaired", vec![repairs(repaired)]);
    item("ended", vec![format!("{revoked} silent flows that policy denies now").into()]);
    page.gap();
    page.table(&fill(tables));
    if problem.is_some() || !degraded.is_empty() {
        page.gap();
    }
    for Degraded { what, why } in degraded {
        page.toned(Tone::Odd, format!("degraded: {what}: {why}"));
    }
    if let Some(Problem { what, source }) = problem {
        let at = source.as_ref().map(|source| format!("{}: ", human::source(source))).unwrap_or_default();
        page.toned(Tone::Bad, format!("refused: {at}{what}; revision {revision} stays in force"));
    }
}

fn force(revision: u64, in_force: Option<u64>) -> Span {
    match in_force {
        Some(in_force) if in_force >= revision => Span::new(Tone::Good, "in force"),
        Some(in_force) => Span::new(Tone::Odd, format!("{in_force} is in force")),
        None => Span::new(Tone::Bad, "none is in force yet"),
    }
}

fn reconciled(Reconcile { at, took_ms, passes }: Reconcile, now: Timestamp) -> Span {
    let (ago, took) = (human::ago(at, now), human::millis(took_ms));
    format!("{ago} in {took}, {passes} so far").into()
}

fn repairs(repaired: &[Repaired]) -> Span {
    let of = |Repaired { what, times }: &Repaired| format!("{what} {times} times");
    let all: Vec<_> = repaired.iter().filter(|repaired| repaired.times > 0).map(of).collect();
    if all.is_empty() { "nothing".into() } else { Span::new(Tone::Odd, all.join(", ")) }
}

fn tally(Tally { ready, waiting, failed }: Tally) -> Vec<Span> {
    let part =
        |count: u64, tone, name: &str| Span::new(if count > 0 { tone } else { Tone::Plain }, format!("{count} {name}"));
    vec![
        part(ready, Tone::Good, "ready"),
        ", ".into(),
        part(waiting, Tone::Odd, "waiting"),
        ", ".into(),
        part(failed, Tone::Bad, "failed"),
    ]
}

fn fill(tables: &[Fill]) -> Table {
    let mut table = Table::new([left("TABLE"), right("USED"), right("MAX"), right("FULL"), right("REFUSED")]);
    for Fill { name, used, max, refused } in tables {
        let percent = u128::from(*used) * 100 / u128::from((*max).max(1));
        let tone = match percent {
            ..70 => Tone::Plain,
            70..90 => Tone::Odd,
            _ => Tone::Bad,
        };
        let refused_tone = if *refused > 0 { Tone::Bad } else { Tone::Plain };
        table.row([
            name.into(),
            used.into(),
            max.into(),
            Span::new(tone, format!("{percent}%")),
            Span::new(refused_tone, refused),
        ]);
    }
    table
}

pub(super) fn diagnosis(page: &mut Page, Diagnosis { checks }: &Diagnosis) {
    for Check { name, result, detail, advice } in checks {
        let mark = match result {
            CheckResult::Ok => Span::new(Tone::Good, "ok  "),
            CheckResult::Warn => Span::new(Tone::Odd, "warn"),
            CheckResult::Fail => Span::new(Tone::Bad, "FAIL"),
        };
        page.spans([mark, format!("  {name}: {detail}").into()]);
        if let Some(advice) = advice {
            page.line(format!("      do: {advice}"));
        }
    }
    let count = |of| checks.iter().filter(|check| check.result == of).count();
    let (warn, fail) = (count(CheckResult::Warn), count(CheckResult::Fail));
    page.line(format!("{} checks, {warn} to look at, {fail} failed", checks.len()));
}

/// The worst of the checks.
pub(super) fn worst(Diagnosis { checks }: &Diagnosis) -> CheckResult {
    checks.iter().map(|check| check.result).max().unwrap_or(CheckResult::Ok)
}

pub(super) fn reset(page: &mut Page, ResetDone { removed, left }: &ResetDone) {
    if removed.is_empty() && left.is_empty() {
        page.line("There was nothing to remove.");
    }
    for what in removed {
        page.line(format!("removed  {what}"));
    }
    for what in left {
        page.toned(Tone::Bad, format!("left     {what}"));
    }
}
