//! Developer tasks of weft: one file a task, this one only chooses.
#![expect(clippy::print_stdout, reason = "a command-line tool answers on stdout")]

mod bench;
mod bpf;
mod build;
mod ci;
mod cmd;
mod lint;
mod root;
mod run;
mod setup;
mod test;
mod tidy;
mod verify;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

/// Developer tasks of weft.
#[derive(clap::Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Make this machine able to build and test weft; installs only what is missing.
    Setup,
    /// Build the programs, the daemon, the CLI and the lab.
    Build(build::Options),
    /// Run a cluster of namespaced hosts on this machine (root).
    Run(run::Options),
    /// Run the unit tests, then the scenarios (root).
    Test(test::Options),
    /// Check formatting, clippy on both sides of the kernel boundary, and rustdoc.
    Lint,
    /// Check what no compiler checks: module edges, file sizes, where unsafe is, drop reasons, names.
    Tidy,
    /// Load every program and compare its cost with the checked-in table (root).
    Verify(verify::Options),
    /// Measure speed as ratios of one interleaved run (root).
    Bench(bench::Options),
    /// Run the kernel-dependent stories on other kernels, in virtual machines (root).
    Vm(vm::Options),
    /// Run what CI runs, in order, to the end (root).
    Ci,
}

fn main() -> ExitCode {
    match perform(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `test` and `ci` choose their exit code themselves: their last line is the count of tests, so nothing may follow it.
fn perform(task: Task) -> Result<ExitCode> {
    let done = match task {
        Task::Setup => setup::run(),
        Task::Build(options) => build::run(options.profile()),
        Task::Run(options) => run::command(options).and_then(cmd::replace),
        Task::Test(options) => return test::run(&options),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
        Task::Verify(options) => verify::command(options).and_then(cmd::replace),
        Task::Bench(options) => bench::command(options).and_then(cmd::replace),
        Task::Vm(options) => vm::run(&options),
        Task::Ci => return ci::run(),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_task_reads_its_options() {
        Task::command().debug_assert();
    }
}
