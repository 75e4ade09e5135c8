//! What each program costs for a packet, by the kernel's own clock. Counting costs time itself, so this is a round of its
//! own, whose traffic is not among the results.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use serde::Serialize;
use weft::kernel::load::Program;
use weft_tests::underlay::Family;

use super::cell::{Metric, Quantity, Setting};
use super::choice;
use super::ground::Ground;
use super::number;
use crate::interrupt::Interrupt;

/// The runs of one program during one measurement, on all hosts.
#[derive(Debug, Serialize)]
pub(super) struct Runs {
    /// What was measured meanwhile.
    pub(super) traffic: String,
    pub(super) program: String,
    pub(super) runs: u64,
    pub(super) nanoseconds_a_run: f64,
}

/// Nanoseconds and runs, by the kernel's number of a program and its name.
type Counters = BTreeMap<(u32, String), (u64, u64)>;

const TIME: Duration = Duration::from_millis(500);

/// Measures once more with the kernel's statistics on.
pub(super) fn measure(interrupt: &Interrupt) -> Result<Vec<Runs>> {
    let settings = [Setting::Weft { rules: 0 }, Setting::Local];
    let ground = Ground::build(choice::USUAL.underlay, &settings);
    let _counting = enable_stats(Stats::RunTime).context("let the kernel count runs of programs")?;
    let mut found = Vec::new();
    for setting in settings {
        let pair = ground.pair(setting).with_context(|| ground.failures.join("; "))?;
        for metric in [Metric::Udp, Metric::Tcp { flows: 1 }, Metric::Connections] {
            let before = counters()?;
            let sample = super::sample(metric, pair, Family::V4, TIME, interrupt)?;
            let after = counters()?;
            let rate = sample.iter().find(|(quantity, _)| *quantity != Quantity::Work);
            let rate = rate.map(|(quantity, rate)| format!(", {rate:.2} {}", quantity.name())).unwrap_or_default();
            found.extend(difference(&before, &after, &format!("{setting}: {metric}{rate}")));
        }
    }
    Ok(found)
}

fn difference(before: &Counters, after: &Counters, traffic: &str) -> Vec<Runs> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (key, (time, runs)) in after {
        let (earlier_time, earlier_runs) = before.get(key).copied().unwrap_or_default();
        let sum = sums.entry(&key.1).or_default();
        sum.0 += time - earlier_time;
        sum.1 += runs - earlier_runs;
    }
    let ran = sums.into_iter().filter(|(_, (_, runs))| *runs > 0);
    ran.map(|(program, (time, runs))| Runs {
        traffic: traffic.to_owned(),
        program: program.to_owned(),
        runs,
        nanoseconds_a_run: number(time) / number(runs),
    })
    .collect()
}

fn counters() -> Result<Counters> {
    let mut counters = Counters::new();
    // A program may go while the list is read.
    for info in loaded_programs().flatten() {
        let name = info.name_as_str().unwrap_or_default().to_owned();
        if Program::ALL.iter().any(|program| program.name == name) {
            let time = u64::try_from(info.run_time().as_nanos()).context("read the time of a program")?;
            counters.insert((info.id(), name), (time, info.run_count()));
        }
    }
    Ok(counters)
}
