//! Which lines are measured: the plan, and what the command line makes of it.

use anyhow::{Result, bail};
use clap::ValueEnum;
use weft_tests::underlay::{Family, Offloads};

use super::cell::{Line, Metric, Segment, Setting, Surroundings};

/// What to measure. Without options: the plan, in less than ten minutes. An option that fixes something (family, MTU,
/// offloads, rules) leaves the plan: only that is measured, with the rest as it is on most machines (IPv4, 1500, on).
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Choice {
    /// Metrics, by the start of their names: tcp1, tcp8, udp, rr, crr; and attach, policy, programs
    pub(super) filter: Vec<String>,
    /// Address family inside
    #[arg(long, value_enum)]
    family: Option<FamilyName>,
    /// MTU of the underlay
    #[arg(long)]
    mtu: Option<u32>,
    /// TSO, GSO and checksum offload of the underlay; gro: off, and received packets are merged
    #[arg(long, value_enum)]
    offloads: Option<Switch>,
    /// Numbers of rules, as 0,1000,100000
    #[arg(long, value_delimiter = ',')]
    rules: Vec<u32>,
    /// Only these of host, vxlan, vxlan+nf (bridges ask the firewall), weft, veth, local
    #[arg(long, value_delimiter = ',')]
    settings: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyName {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
    Gro,
}

/// What is measured besides metrics.
pub(super) const ATTACH: &str = "attach";
pub(super) const POLICY: &str = "policy";
pub(super) const PROGRAMS: &str = "programs";

/// As it is on most machines.
pub(super) const USUAL: Surroundings = on(Family::V4, 1500, Offloads::On);

const ACROSS: [Setting; 3] = [Setting::Host, Setting::Vxlan, Setting::Weft { rules: 0 }];
const LOCAL: [Setting; 2] = [Setting::Veth, Setting::Local];
const RULES: [u32; 3] = [1, 1000, 100_000];

const TCP: Metric = Metric::Tcp { flows: 1 };
const TCP8: Metric = Metric::Tcp { flows: 8 };

impl Choice {
    /// The lines, in the order in which they are measured: all of one underlay together.
    pub(super) fn lines(&self) -> Result<Vec<Line>> {
        self.check()?;
        let mut lines = if self.leaves_the_plan() { self.product() } else { plan() };
        lines.retain(|line| self.wants(&line.metric.name()));
        for line in &mut lines {
            line.settings.retain(|setting| self.settings.is_empty() || self.settings.contains(&kind(*setting)));
        }
        lines.retain(|line| !line.settings.is_empty());
        Ok(lines)
    }

    /// Whether a word of the command line selects this.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.starts_with(word.as_str()))
    }

    /// Whether daemons are to be measured, as far as the option `--settings` says.
    pub(super) fn wants_weft(&self) -> bool {
        self.settings.is_empty() || self.settings.iter().any(|name| ["weft", "local"].contains(&name.as_str()))
    }

    fn leaves_the_plan(&self) -> bool {
        let Self { filter: _, family, mtu, offloads, rules, settings: _ } = self;
        family.is_some() || mtu.is_some() || offloads.is_some() || !rules.is_empty()
    }

    fn check(&self) -> Result<()> {
        let metrics = Metric::ALL.map(Metric::name);
        let mut names: Vec<_> = metrics.iter().map(String::as_str).collect();
        names.extend([ATTACH, POLICY, PROGRAMS]);
        if let Some(word) = self.filter.iter().find(|word| !names.iter().any(|name| name.starts_with(word.as_str()))) {
            bail!("there is nothing to measure that is called {word:?}; there are {}", names.join(", "));
        }
        let settings = ["host", "vxlan", "vxlan+nf", "weft", "veth", "local"];
        if let Some(word) = self.settings.iter().find(|word| !settings.contains(&word.as_str())) {
            bail!("there is no setting {word:?}; there are {}", settings.join(", "));
        }
        Ok(())
    }

    fn product(&self) -> Vec<Line> {
        let family = match self.family {
            None | Some(FamilyName::V4) => Family::V4,
            Some(FamilyName::V6) => Family::V6,
        };
        let offloads = match self.offloads {
            None | Some(Switch::On) => Offloads::On,
            Some(Switch::Off) => Offloads::Off,
            Some(Switch::Gro) => Offloads::Merged,
        };
        let surroundings = on(family, self.mtu.unwrap_or(USUAL.underlay.mtu), offloads);
        let rules = if self.rules.is_empty() { &[0] } else { &self.rules[..] };
        let mut settings = vec![Setting::Host, Setting::Vxlan, Setting::Filtered];
        settings.extend(rules.iter().map(|&rules| Setting::Weft { rules }));
        settings.extend(LOCAL);
        Metric::ALL.map(|metric| Line { surroundings, metric, settings: settings.clone() }).into()
    }
}

/// Everything for the usual underlay; of the others what they change most.
fn plan() -> Vec<Line> {
    let line = |surroundings, metric, settings: &[Setting]| Line { surroundings, metric, settings: settings.into() };
    let mut lines = Vec::new();
    let rules = RULES.map(|rules| Setting::Weft { rules });
    let with_rules = [&ACROSS[..], &[Setting::Filtered], &rules, &LOCAL].concat();
    for metric in Metric::ALL {
        let settings = if metric == TCP8 { [&ACROSS[..], &LOCAL].concat() } else { with_rules.clone() };
        lines.push(line(USUAL, metric, &settings));
    }
    lines.extend(Metric::ALL.map(|metric| line(on(Family::V6, 1500, Offloads::On), metric, &ACROSS)));
    lines.extend(Metric::ALL.map(|metric| line(on(Family::V4, 1500, Offloads::Off), metric, &ACROSS)));
    lines.extend([TCP, TCP8].map(|metric| line(on(Family::V4, 1500, Offloads::Merged), metric, &ACROSS)));
    lines.extend([TCP, Metric::Udp].map(|metric| line(on(Family::V6, 1500, Offloads::Off), metric, &ACROSS)));
    lines.extend([TCP, TCP8, Metric::Udp].map(|metric| line(on(Family::V4, 9000, Offloads::On), metric, &ACROSS)));
    lines.extend([TCP, TCP8].map(|metric| line(on(Family::V4, 9000, Offloads::Off), metric, &ACROSS)));
    lines
}

const fn on(family: Family, mtu: u32, offloads: Offloads) -> Surroundings {
    Surroundings { family, underlay: Segment { mtu, offloads } }
}

/// As `--settings` names it.
fn kind(setting: Setting) -> String {
    match setting {
        Setting::Weft { rules: _ } => "weft".into(),
        Setting::Host | Setting::Vxlan | Setting::Filtered | Setting::Veth | Setting::Local => setting.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_measures_every_metric_in_both_families_and_with_every_number_of_rules() {
        let lines = Choice::default().lines().unwrap();
        for metric in Metric::ALL {
            for family in Family::BOTH {
                assert!(lines.iter().any(|line| line.metric == metric && line.surroundings.family == family));
            }
        }
        let settings: Vec<_> = lines.iter().flat_map(|line| &line.settings).collect();
        assert!(RULES.iter().all(|&rules| settings.contains(&&Setting::Weft { rules })));
    }

    #[test]
    fn words_select_metrics_and_options_fix_the_rest() {
        let choice = Choice { filter: vec!["tcp".into()], rules: vec![100_000], ..Choice::default() };
        let lines = choice.lines().unwrap();
        assert_eq!(lines.iter().map(|line| line.metric).collect::<Vec<_>>(), [TCP, TCP8]);
        assert!(lines.iter().all(|line| line.surroundings == USUAL));
        assert!(lines[0].settings.contains(&Setting::Weft { rules: 100_000 }));
        let unknown = Choice { filter: vec!["icmp".into()], ..Choice::default() };
        assert!(
            unknown.lines().unwrap_err().to_string().contains("tcp1, tcp8, udp, rr, crr, attach, policy, programs")
        );
    }
}
