//! What a measurement prints: the machine, a grid for each underlay, the programs, the bars; or all of it as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bars::Bar;
use super::cell::{Setting, Surroundings};
use super::policy::{Changes, Compiled, Policy};
use super::programs::Runs;
use super::results::Found;
use super::scale::Scale;
use super::statistics::Spread;
use crate::grid::Grid;

/// Everything that was found.
pub(super) struct Report {
    pub(super) conditions: Conditions,
    pub(super) found: Vec<Found>,
    pub(super) programs: Vec<Runs>,
    pub(super) scale: Option<Scale>,
    pub(super) policy: Option<Policy>,
    pub(super) bars: Vec<Bar>,
    pub(super) failures: Vec<String>,
}

/// What a number means nothing without.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    /// UTC.
    pub(super) date: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) rounds: usize,
    pub(super) seconds_a_cell: f64,
    /// The share of the machine, from 0 to 1, that others used before the rounds.
    pub(super) others: Option<Spread>,
    /// `ethtool -k` of an uplink, by underlay.
    pub(super) features: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize)]
struct Row<'a> {
    family_and_underlay: String,
    metric: String,
    quantity: &'a str,
    setting: Setting,
    #[serde(flatten)]
    spread: Spread,
    of_baseline: Option<Spread>,
    of_vxlan: Option<Spread>,
}

#[derive(Serialize)]
struct Document<'a> {
    conditions: &'a Conditions,
    rows: Vec<Row<'a>>,
    programs: &'a [Runs],
    scale: &'a Option<Scale>,
    policy: &'a Option<Policy>,
    bars: &'a [Bar],
    failures: &'a [String],
}

impl Report {
    /// For programs.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let Self { conditions, found, programs, scale, policy, bars, failures } = self;
        let rows = found.iter().flat_map(rows).collect();
        serde_json::to_string_pretty(&Document { conditions, rows, programs, scale, policy, bars, failures })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { conditions, found, programs, scale, policy, bars, failures } = self;
        let mut parts = vec![conditions.text()];
        let mut left = &found[..];
        while let Some(first) = left.first() {
            let surroundings = first.line.surroundings;
            let (here, rest) = left.split_at(left.partition_point(|found| found.line.surroundings == surroundings));
            parts.push(grid_of(surroundings, here));
            left = rest;
        }
        if !programs.is_empty() {
            parts.push(format!("Programs, in a round of their own\n{}", programs_grid(programs)));
        }
        if let Some(scale) = scale {
            parts.push(scale_text(scale));
        }
        parts.extend(policy.as_ref().map(policy_text));
        if !bars.is_empty() {
            parts.push(format!("Bars of design.md, section 9\n{}", bars_grid(bars)));
        }
        if !failures.is_empty() {
            parts.push(format!("Failed:\n{}", failures.join("\n")));
        }
        parts.join("\n")
    }
}

impl Conditions {
    fn text(&self) -> String {
        let Self { date, kernel, processor, rounds, seconds_a_cell, others, features } = self;
        let others = others.map(|spread| {
            format!(
                "; others used {:.0} % of the machine (middle half of the rounds {:.0}-{:.0} %)",
                spread.median * 100.0,
                spread.low * 100.0,
                spread.high * 100.0
            )
        });
        let head = format!(
            "{date}, kernel {kernel}, {processor}\n{rounds} interleaved rounds of {seconds_a_cell} s each{}\n",
            others.unwrap_or_default()
        );
        let underlays = features.iter().map(|(underlay, features)| {
            // The details of transmit checksums follow from their sum.
            let words = features.iter().filter(|word| !word.starts_with("tx-") || word.starts_with("tx-checksumming"));
            let words: Vec<_> = words.map(|feature| feature.replace(':', "")).collect();
            format!("ethtool -k, {underlay}: {}\n", words.join(", "))
        });
        std::iter::once(head).chain(underlays).collect()
    }
}

fn rows(found: &Found) -> Vec<Row<'_>> {
    let line = &found.line;
    let mut rows = Vec::new();
    for &quantity in line.metric.quantities() {
        for &setting in &line.settings {
            let Some(spread) = found.spread(setting, quantity) else { continue };
            let of = |to: Setting| found.ratio(setting, to, quantity).filter(|_| setting != to);
            let across = setting.baseline() == Setting::Host && setting != Setting::Host;
            rows.push(Row {
                family_and_underlay: line.surroundings.to_string(),
                metric: line.metric.to_string(),
                quantity: quantity.name(),
                setting,
                spread,
                of_baseline: of(setting.baseline()),
                of_vxlan: of(Setting::Vxlan).filter(|_| across),
            });
        }
    }
    rows
}

fn grid_of(surroundings: Surroundings, found: &[Found]) -> String {
    let mut grid = Grid::new(3);
    grid.row(["", "", "", "median", "middle half", "of host/veth", "", "of vxlan", ""]);
    let mut before = (String::new(), "");
    for row in found.iter().flat_map(rows) {
        let here = (row.metric, row.quantity);
        let shown = |different: bool, text: &str| if different { text.to_owned() } else { String::new() };
        let mut cells = vec![
            shown(here.0 != before.0, &here.0),
            shown(here != before, here.1),
            row.setting.to_string(),
            figure(row.spread.median),
            format!("{}-{}", figure(row.spread.low), figure(row.spread.high)),
        ];
        cells.extend(ratio(row.of_baseline));
        cells.extend(ratio(row.of_vxlan));
        grid.row(cells);
        before = here;
    }
    format!("{surroundings}\n{grid}")
}

fn programs_grid(programs: &[Runs]) -> Grid {
    let mut grid = Grid::new(2);
    grid.row(["", "", "runs", "ns a run"]);
    let mut before = "";
    for Runs { traffic, program, runs, nanoseconds_a_run } in programs {
        let shown = if traffic == before { "" } else { traffic };
        grid.row([shown, program, &runs.to_string(), &format!("{nanoseconds_a_run:.0}")]);
        before = traffic;
    }
    grid
}

fn scale_text(scale: &Scale) -> String {
    let Scale { endpoints, attach_p50_ms, attach_p99_ms, resident_mib, idle_percent } = scale;
    format!(
        "A host with {endpoints} endpoints\nattach {attach_p50_ms:.1} ms (p99 {attach_p99_ms:.1} ms), \
         daemon {resident_mib:.1} MiB resident, idle {idle_percent:.2} % of a core\n"
    )
}

fn policy_text(Policy { compiled, changes }: &Policy) -> String {
    let Compiled { apps, rules, whole_ms, one_p50_ms, one_p99_ms } = compiled;
    let mut grid = Grid::new(1);
    grid.row(["hosts", "rules", "apply ms", "p99", "allow ms", "p99"]);
    for Changes { hosts, rules, apply_p50_ms, apply_p99_ms, allow_p50_ms, allow_p99_ms } in changes {
        let figures = [*apply_p50_ms, *apply_p99_ms, *allow_p50_ms, *allow_p99_ms].map(figure);
        grid.row([hosts, rules].map(ToString::to_string).into_iter().chain(figures));
    }
    format!(
        "Changes of policy\n{rules} rules of {apps} apps compile in {whole_ms:.0} ms, one of them in {one_p50_ms:.2} ms \
         (p99 {one_p99_ms:.2} ms)\none rule, from the command to enforced: apply on all hosts, allow on the one\n{grid}"
    )
}

fn bars_grid(bars: &[Bar]) -> Grid {
    let mut grid = Grid::new(3);
    for Bar { what, place, found, wanted, verdict } in bars {
        grid.row([
            verdict.to_string(),
            what.clone(),
            place.clone(),
            figure(found.median),
            format!("({}-{})", figure(found.low), figure(found.high)),
            wanted.clone(),
        ]);
    }
    grid
}

fn ratio(spread: Option<Spread>) -> [String; 2] {
    spread.map_or_else(Default::default, |Spread { median, low, high }| {
        [format!("{median:.2}"), format!("({low:.2}-{high:.2})")]
    })
}

/// Three digits that count.
fn figure(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}
