//! A host with many endpoints: how long an attach takes, how large the daemon is, and what it does when nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use weft_tests::host::Host;
use weft_tests::underlay::Underlay;

use super::number;
use super::statistics::quantile;
use crate::cluster::{App, Cluster, Intent, Wanted};
use crate::interrupt::Interrupt;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Scale {
    pub(super) endpoints: usize,
    /// From the start of the CLI to its end, which is when the container can talk.
    pub(super) attach_p50_ms: f64,
    pub(super) attach_p99_ms: f64,
    pub(super) resident_mib: f64,
    pub(super) idle_percent: f64,
}

const APPS: [App<'static>; 5] = [
    App { name: "one", roles: &[] },
    App { name: "two", roles: &[] },
    App { name: "three", roles: &[] },
    App { name: "four", roles: &[] },
    App { name: "five", roles: &[] },
];

/// How long the daemon is watched doing nothing: longer than from one look at everything to the next.
const IDLE: Duration = Duration::from_secs(30);

/// `USER_HZ` of /proc/PID/stat.
const TICKS_PER_SECOND: f64 = 100.0;

/// Attaches `endpoints` containers one after the other.
pub(super) fn measure(endpoints: usize, interrupt: &Interrupt) -> Result<Scale> {
    let underlay = Underlay::direct();
    let cluster = Cluster::start(&underlay, &Intent { apps: &APPS, rules: Vec::new() })?;
    let host = &cluster.hosts()[0];
    let mut containers = Vec::new();
    let mut times = Vec::new();
    for index in 0..endpoints {
        interrupt.pause(Duration::ZERO)?;
        let name = format!("c{index}");
        let namespace = host.container(&name);
        let app = APPS[index % APPS.len()].name;
        let started = Instant::now();
        let wanted = Wanted { host: 0, app, role: None, name: &name };
        containers.push(cluster.attach_namespace(&wanted, namespace)?);
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let resident_mib = resident_mib(host)?;
    let (before, started) = (busy_seconds(host)?, Instant::now());
    interrupt.pause(IDLE)?;
    let idle_percent = (busy_seconds(host)? - before) / started.elapsed().as_secs_f64() * 100.0;
    Ok(Scale {
        endpoints,
        attach_p50_ms: quantile(&times, 0.5),
        attach_p99_ms: quantile(&times, 0.99),
        resident_mib,
        idle_percent,
    })
}

fn resident_mib(host: &Host) -> Result<f64> {
    let path = format!("/proc/{}/status", host.daemon_pid());
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    Ok(number(kib.with_context(|| format!("find the resident size in {path}"))?) / 1024.0)
}

/// Seconds that the daemon has worked.
fn busy_seconds(host: &Host) -> Result<f64> {
    let path = format!("/proc/{}/stat", host.daemon_pid());
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th word after it.
    let words: Vec<_> = stat.rsplit_once(')').map(|(_, words)| words.split_whitespace().collect()).unwrap_or_default();
    let ticks: Option<u64> =
        words.get(11..13).and_then(|times| times.iter().map(|time| time.parse::<u64>().ok()).sum());
    Ok(number(ticks.with_context(|| format!("find the times in {path}"))?) / TICKS_PER_SECOND)
}
