//! The machine that is measured on: its cores, its processor time, and what it calls itself.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use weft_tests::command::exec;
use weft_tests::netns::Netns;

/// The two ends of a measurement, each on a core of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Sends, asks, connects.
    Client,
    /// Receives, answers, accepts.
    Server,
}

/// What all cores together have done since the machine was started, whoever asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    busy: u64,
    all: u64,
}

/// Processor time that measuring has taken: of the lab's threads, in whose name the kernel carries packets, and of the
/// kernel's threads that carry them when there are many. What others do on the machine does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Work(Duration);

/// Keeps the calling thread on the core of its side; with one core both share it.
pub(super) fn pin(side: Side) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let core = match side {
        Side::Client => 0,
        Side::Server => 1 % cores,
    };
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("pin to core {core}"))
}

impl Ticks {
    /// Until now.
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("read the first line of /proc/stat")
    }

    /// The share of the machine that was busy since `earlier`, from 0 to 1.
    pub(super) fn share_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        super::number(self.busy.saturating_sub(earlier.busy)) / super::number(all)
    }

    /// Reads `cpu  user nice system idle iowait irq softirq steal …`. What the hypervisor took is nobody's work here.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, iowait, irq, softirq, ..] = numbers[..] else { return None };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, all: busy + idle + iowait })
    }
}

impl Work {
    /// Until now.
    pub(super) fn now() -> Result<Self> {
        static CARRIERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
        // Of threads that have ended too.
        let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("read the lab's processor time")?;
        let carriers = CARRIERS.get_or_init(carriers).iter();
        let carried = carriers.filter_map(|thread| run_time(&fs::read_to_string(thread.join("schedstat")).ok()?));
        Ok(Self(carried.fold(own.into(), Duration::saturating_add)))
    }

    /// Seconds since `earlier`.
    pub(super) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0).as_secs_f64()
    }

    /// Microseconds since `earlier` for each of `count`.
    pub(super) fn micros_each_since(self, earlier: Self, count: u64) -> f64 {
        self.seconds_since(earlier) * 1e6 / super::number(count.max(1))
    }
}

/// The directories of ksoftirqd, one a core.
fn carriers() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let is_carrier =
        |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_carrier).collect()
}

/// The first word of a schedstat: nanoseconds on a core.
fn run_time(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
}

/// Release of the running kernel.
pub(super) fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    Ok(release.trim().to_owned())
}

/// What the machine calls its processor, and how many cores it shows.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |name: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).collect()
    };
    let models = values("model name");
    format!("{} x {}", models.len(), models.first().map_or("unknown", String::as_str))
}

/// `ethtool -k`, one feature a line, without those that cannot be changed and are off.
pub(super) fn features(namespace: &Netns, interface: &str) -> Vec<String> {
    let text = exec(namespace.command("ethtool").args(["-k", interface]));
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.ends_with("off [fixed]"));
    lines.map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let early = Ticks::parse("cpu  10 0 20 70 0 0 0 500 0 0\ncpu0 1 1 1 1\n").unwrap();
        let late = Ticks::parse("cpu  20 5 30 140 5 1 4 900 0 0\n").unwrap();
        assert!((late.share_since(early) - 30.0 / 105.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("intr 1 2 3"), None);
    }

    #[test]
    fn a_thread_of_the_kernel_says_how_long_it_ran() {
        assert_eq!(run_time("6482923317 38214594558 62583\n"), Some(Duration::from_nanos(6_482_923_317)));
    }

    #[test]
    fn the_work_of_a_thread_that_has_ended_stays_counted() {
        let before = Work::now().unwrap();
        let worked = std::thread::spawn(|| {
            let own = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
            let began = own();
            while own() < began + Duration::from_millis(5) {}
        });
        worked.join().unwrap();
        assert!(Work::now().unwrap().seconds_since(before) >= 0.005);
    }
}
