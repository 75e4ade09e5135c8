//! `cargo xtask ci`: what CI runs, in order. Owns the list of steps; a failed one does not stop those after it, and
//! nothing is printed after the count of tests.

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use crate::{
    build::{self, Profile},
    cmd, lint, root, run, setup, test,
    test::Tally,
    tidy, verify, vm,
};

struct Step {
    name: &'static str,
    seconds: u64,
    ok: bool,
}

/// The steps so far.
#[derive(Default)]
struct Record {
    steps: Vec<Step>,
    tally: Tally,
}

/// Runs every step.
pub(crate) fn run() -> Result<ExitCode> {
    root::require("run all of CI")?;
    let mut record = Record::default();
    record.step("setup", || setup::ensure().map(|_| ()));
    record.step("lint", lint::run);
    record.step("tidy", tidy::run);
    record.step("build", || build::run(Profile::Dev));
    record.tests("unit", || test::unit(&[]));
    record.tests("scenarios", || test::scenarios(&[]));
    record.step("run", || cmd::exec(&mut run::command(run::Options::with(&["--once"]))?));
    record.step("verify", || cmd::exec(&mut verify::command(verify::Options::default())?));
    record.step("vm", || vm::run(&vm::Options::floor()));
    println!("{}", record.table());
    println!("{}", record.tally);
    Ok(if record.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Record {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("ci: {name}");
        let started = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            println!("ci: {name}: {error:#}");
        }
        self.steps.push(Step { name, seconds: started.elapsed().as_secs(), ok: outcome.is_ok() });
    }

    fn tests(&mut self, name: &'static str, work: impl FnOnce() -> Result<Tally>) {
        let mut found = Tally::default();
        self.step(name, || {
            found = work()?;
            if !found.is_good() {
                bail!("run the tests: {found}");
            }
            Ok(())
        });
        self.tally += found;
    }

    fn is_good(&self) -> bool {
        self.steps.iter().all(|step| step.ok)
    }

    fn table(&self) -> String {
        let line = |Step { name, seconds, ok }: &Step| {
            format!("{name:<10} {seconds:>6} {}", if *ok { "ok" } else { "FAILED" })
        };
        let total: u64 = self.steps.iter().map(|step| step.seconds).sum();
        let lines: Vec<_> = self.steps.iter().map(line).collect();
        format!("\nstep      seconds\n{}\n{:<10} {total:>6}", lines.join("\n"), "total")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_and_does_not_stop_the_next() {
        let mut record = Record::default();
        record.step("lint", || bail!("format a file"));
        record.tests("unit", || Ok(Tally { passed: 3, failed: 1 }));
        record.tests("scenarios", || Ok(Tally { passed: 4, failed: 0 }));
        assert!(!record.is_good());
        assert_eq!(record.tally, Tally { passed: 7, failed: 1 });
        let table = record.table();
        let shown: Vec<_> = table.lines().filter(|line| line.ends_with("ok") || line.ends_with("FAILED")).collect();
        assert_eq!(shown, ["lint            0 FAILED", "unit            0 FAILED", "scenarios       0 ok"]);
    }
}
