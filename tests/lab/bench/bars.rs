//! The bars of design.md section 9, each held against what was found.

use serde::Serialize;

use super::cell::{Metric, Quantity, Setting};
use super::policy::{Changes, Policy};
use super::results::Found;
use super::scale::Scale;
use super::statistics::Spread;

/// A bar at one place.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    /// What is compared.
    pub(super) what: String,
    /// Where.
    pub(super) place: String,
    /// What was found.
    pub(super) found: Spread,
    /// What it should be.
    pub(super) wanted: String,
    pub(super) verdict: Verdict,
}

/// Whether a bar is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The median is good enough.
    Met,
    /// The median is not, but a quarter of the rounds is.
    Close,
    /// Not even the best quarter of the rounds.
    Missed,
}

/// A limit for a number.
#[derive(Clone, Copy, Debug)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A ratio with its limit.
struct Rule {
    of: Setting,
    to: Setting,
    quantity: Quantity,
    limit: Limit,
}

/// All bars that the measurements say something about.
pub(super) fn check(found: &[Found], scale: Option<&Scale>, policy: Option<&Policy>) -> Vec<Bar> {
    let mut bars: Vec<_> = found.iter().flat_map(of_line).collect();
    if let Some(scale) = scale {
        bars.extend(of_scale(scale));
    }
    if let Some(policy) = policy {
        bars.extend(of_policy(policy));
    }
    bars
}

fn of_line(found: &Found) -> Vec<Bar> {
    let place = format!("{}, {}", found.line.metric, found.line.surroundings);
    let measured = |rule: Rule| {
        let Rule { of, to, quantity, limit } = rule;
        let ratio = found.ratio(of, to, quantity)?;
        Some(Bar::new(format!("{of} / {to}, {}", quantity.name()), place.clone(), ratio, limit))
    };
    rules(&found.line.settings, found.line.metric).into_iter().filter_map(measured).collect()
}

fn rules(settings: &[Setting], metric: Metric) -> Vec<Rule> {
    let woven = || settings.iter().copied().filter(|setting| matches!(setting, Setting::Weft { .. }));
    let mut rules = Vec::new();
    if let Some(of) = woven().min() {
        let rule = |to, quantity, limit| Rule { of, to, quantity, limit };
        rules.extend(match metric {
            Metric::Tcp { .. } => vec![
                rule(Setting::Host, Quantity::Throughput, Limit::AtLeast(0.97)),
                rule(Setting::Vxlan, Quantity::Throughput, Limit::AtLeast(1.0)),
            ],
            Metric::Udp => vec![
                rule(Setting::Host, Quantity::Packets, Limit::AtLeast(0.85)),
                rule(Setting::Vxlan, Quantity::Packets, Limit::AtLeast(2.0)),
            ],
            Metric::Requests => vec![
                rule(Setting::Host, Quantity::Median, Limit::AtMost(1.10)),
                rule(Setting::Vxlan, Quantity::Median, Limit::AtMost(1.0)),
            ],
            Metric::Connections => vec![rule(Setting::Host, Quantity::Connections, Limit::AtLeast(0.85))],
        });
    }
    let (quantity, same, policy) = match metric {
        Metric::Tcp { .. } => (Quantity::Throughput, Limit::AtLeast(1.0), Limit::AtLeast(0.97)),
        Metric::Udp => (Quantity::Packets, Limit::AtLeast(1.0), Limit::AtLeast(0.97)),
        Metric::Requests => (Quantity::Median, Limit::AtMost(1.0), Limit::AtMost(1.03)),
        Metric::Connections => (Quantity::Connections, Limit::AtLeast(1.0), Limit::AtLeast(0.90)),
    };
    rules.push(Rule { of: Setting::Local, to: Setting::Veth, quantity, limit: same });
    // One rule against the most: both look a rule up, so that only their number differs.
    let few = woven().find(|setting| matches!(setting, Setting::Weft { rules: 1 }));
    if let (Some(to), Some(of)) = (few, woven().max())
        && of > to
    {
        rules.push(Rule { of, to, quantity, limit: policy });
    }
    rules
}

/// Features G15, and of design.md how soon a change is in force on 50 hosts.
fn of_policy(Policy { compiled, changes }: &Policy) -> Vec<Bar> {
    let place = format!("{} apps, {} rules", compiled.apps, compiled.rules);
    let change = |Changes { hosts, rules, apply_p99_ms, .. }: &Changes| {
        let place = format!("{rules} rules, {hosts} hosts");
        Bar::new("apply to enforced, p99 ms".into(), place, one(*apply_p99_ms), Limit::AtMost(1000.0))
    };
    let mut bars = vec![
        Bar::new("compile all, ms".into(), place.clone(), one(compiled.whole_ms), Limit::AtMost(1000.0)),
        Bar::new("compile one rule, p99 ms".into(), place, one(compiled.one_p99_ms), Limit::AtMost(10.0)),
    ];
    bars.extend(changes.iter().map(change));
    bars
}

fn one(number: f64) -> Spread {
    Spread { median: number, low: number, high: number }
}

fn of_scale(scale: &Scale) -> Vec<Bar> {
    let place = format!("{} endpoints on a host", scale.endpoints);
    vec![
        Bar::new("attach, p99 ms".into(), place.clone(), one(scale.attach_p99_ms), Limit::AtMost(30.0)),
        Bar::new("daemon, MiB resident".into(), place.clone(), one(scale.resident_mib), Limit::AtMost(60.0)),
        Bar::new("daemon idle, % of a core".into(), place, one(scale.idle_percent), Limit::AtMost(0.5)),
    ]
}

impl Bar {
    fn new(what: String, place: String, found: Spread, limit: Limit) -> Self {
        Self { what, place, found, wanted: limit.to_string(), verdict: limit.verdict(found) }
    }
}

impl Limit {
    fn verdict(self, found: Spread) -> Verdict {
        let Spread { median, low, high } = found;
        let (typical, best) = match self {
            Self::AtLeast(limit) => (median >= limit, high >= limit),
            Self::AtMost(limit) => (median <= limit, low <= limit),
        };
        match (typical, best) {
            (true, _) => Verdict::Met,
            (false, true) => Verdict::Close,
            (false, false) => Verdict::Missed,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
            Self::AtMost(limit) => write!(f, "<= {limit}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Close => "close",
            Self::Missed => "MISSED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_meets_a_bar_and_a_quarter_comes_close() {
        let spread = Spread { low: 0.90, median: 0.96, high: 0.98 };
        assert_eq!(Limit::AtLeast(0.95).verdict(spread), Verdict::Met);
        assert_eq!(Limit::AtLeast(0.97).verdict(spread), Verdict::Close);
        assert_eq!(Limit::AtLeast(0.99).verdict(spread), Verdict::Missed);
        assert_eq!(Limit::AtMost(0.96).verdict(spread), Verdict::Met);
        assert_eq!(Limit::AtMost(0.92).verdict(spread), Verdict::Close);
        assert_eq!(Limit::AtMost(0.89).verdict(spread), Verdict::Missed);
    }

    #[test]
    fn the_cost_of_policy_is_one_rule_against_the_most() {
        let settings = [0, 1, 1000, 100_000].map(|rules| Setting::Weft { rules });
        let rules = rules(&settings, Metric::Connections);
        let Rule { of, to, .. } = rules.last().unwrap();
        assert_eq!((*of, *to), (settings[3], settings[1]));
        assert_eq!(rules[0].of, settings[0]);
    }
}
