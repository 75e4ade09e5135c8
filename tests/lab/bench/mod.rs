//! `lab bench`: how fast weft is, as ratios to what the same machine does without it and with kernel VXLAN.
//!
//! All settings take turns in every round, so that what else the machine does hits all of them; a ratio is taken within
//! a round and its median over the rounds is the result. Client and server have a core each. An absolute number is only
//! printed to make sense of a ratio.

mod bars;
mod cell;
mod choice;
mod datagrams;
mod exchange;
mod ground;
mod machine;
mod pair;
mod policy;
mod programs;
mod report;
mod results;
mod scale;
mod statistics;
mod stream;
mod woven;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use weft_tests::underlay::Family;

use crate::interrupt::{Interrupt, Interrupted};
use cell::{Line, Metric, Sample, Segment, Setting};
use choice::Choice;
use ground::Ground;
use machine::Ticks;
use pair::Pair;
use report::{Conditions, Report};
use results::Found;
use statistics::Spread;

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: Choice,
    /// Rounds
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of one measurement
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Endpoints of the host on which attaching is measured
    #[arg(long, default_value_t = 1000)]
    endpoints: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long the machine is watched before a round, to see what others do.
const LISTEN: Duration = Duration::from_millis(100);

/// Measures and prints.
pub(crate) fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let Options { choice, rounds, seconds, endpoints, json } = options;
    let time = Duration::try_from_secs_f64(*seconds).context("--seconds is a length of time")?;
    if *rounds == 0 || time.is_zero() {
        bail!("nothing is measured in no time");
    }
    let lines = choice.lines()?;
    let mut bench = Bench { rounds: *rounds, time, interrupt, others: Vec::new(), failures: Vec::new() };
    let mut found = Vec::new();
    let mut features = BTreeMap::new();
    let mut left = &lines[..];
    while let Some(first) = left.first() {
        let segment = first.surroundings.underlay;
        let here = left.partition_point(|line| line.surroundings.underlay == segment);
        let (here, rest) = left.split_at(here);
        let ground = Ground::build(segment, &settings_of(here));
        // To be asked to end while a program runs looks like its failure.
        interrupt.pause(Duration::ZERO)?;
        bench.failures.extend(ground.failures.iter().cloned());
        features.insert(segment.to_string(), ground.features.clone());
        found.extend(bench.rounds(&ground, segment, here)?);
        left = rest;
    }
    let programs =
        if choice.wants(choice::PROGRAMS) && choice.wants_weft() { programs::measure(interrupt)? } else { Vec::new() };
    let scale = if choice.wants(choice::ATTACH) && choice.wants_weft() {
        eprintln!("attaching {endpoints} endpoints");
        Some(scale::measure(*endpoints, interrupt)?)
    } else {
        None
    };

    let policy =
        if choice.wants(choice::POLICY) && choice.wants_weft() { Some(policy::measure(interrupt)?) } else { None };

    let Bench { others, failures, .. } = bench;
    let conditions = Conditions {
        date: date()?,
        kernel: machine::kernel()?,
        processor: machine::processor(),
        rounds: *rounds,
        seconds_a_cell: *seconds,
        others: Spread::of(others),
        features,
    };
    let bars = bars::check(&found, scale.as_ref(), policy.as_ref());
    let report = Report { conditions, found, programs, scale, policy, bars, failures };
    if *json {
        println!("{}", report.json().context("write the result as JSON")?);
    } else {
        println!("{}", report.text());
    }
    if !report.failures.is_empty() {
        bail!("{} measurements failed", report.failures.len());
    }
    Ok(())
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The whole part of a place in a list.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a list has no negative and no huge places"
)]
fn whole(place: f64) -> usize {
    place as usize
}

/// Measures one metric once.
fn sample(metric: Metric, pair: &Pair, family: Family, time: Duration, interrupt: &Interrupt) -> Result<Sample> {
    match metric {
        Metric::Tcp { flows } => stream::measure(pair, family, flows, time, interrupt),
        Metric::Udp => datagrams::measure(pair, family, time),
        Metric::Requests => exchange::requests(pair, family, time),
        Metric::Connections => exchange::connections(pair, family, time),
    }
}

/// A measurement under way.
struct Bench<'a> {
    rounds: usize,
    time: Duration,
    interrupt: &'a Interrupt,
    others: Vec<f64>,
    failures: Vec<String>,
}

impl Bench<'_> {
    /// All rounds on one underlay.
    fn rounds(&mut self, ground: &Ground, segment: Segment, lines: &[Line]) -> Result<Vec<Found>> {
        let mut found: Vec<_> = lines.iter().cloned().map(Found::new).collect();
        for round in 0..self.rounds {
            eprintln!("{segment}: round {} of {}", round + 1, self.rounds);
            let before = Ticks::now()?;
            self.interrupt.pause(LISTEN)?;
            self.others.push(Ticks::now()?.share_since(before));
            for (line, found) in lines.iter().zip(&mut found) {
                let count = line.settings.len();
                // Nobody is always first, or always after the same.
                for &setting in line.settings.iter().cycle().skip(round % count).take(count) {
                    let sample = self.cell(ground, line, setting)?;
                    found.add(setting, sample);
                }
            }
        }
        Ok(found)
    }

    /// One measurement. One that fails is told at the end, and does not end the others.
    fn cell(&mut self, ground: &Ground, line: &Line, setting: Setting) -> Result<Option<Sample>> {
        // Between two measurements, whatever they are: a chance to end.
        self.interrupt.pause(Duration::ZERO)?;
        let Some(pair) = ground.pair(setting) else { return Ok(None) };
        match sample(line.metric, pair, line.surroundings.family, self.time, self.interrupt) {
            Ok(sample) => Ok(Some(sample)),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                self.failures.push(format!("{setting}, {}, {}: {error:#}", line.metric, line.surroundings));
                Ok(None)
            }
        }
    }
}

fn settings_of(lines: &[Line]) -> Vec<Setting> {
    let mut settings: Vec<_> = lines.iter().flat_map(|line| line.settings.iter().copied()).collect();
    settings.sort_unstable();
    settings.dedup();
    settings
}

fn date() -> Result<String> {
    let date = Command::new("date").args(["--utc", "+%Y-%m-%d %H:%M UTC"]).output().context("ask for the date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}
