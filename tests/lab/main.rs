//! The lab: clusters of namespaced hosts with real daemons, to show, to measure, and to try on other kernels.
//!
//! `cargo xtask run`, `bench`, `verify` and `vm` build everything and start one of the commands below. Root only. What a
//! lab makes is named after its process and taken away at its end, also after Ctrl-C; what a crash leaves is swept away
//! by the next lab.

#![expect(clippy::print_stdout, reason = "a command-line tool answers on stdout")]

mod bench;
mod cluster;
mod grid;
mod interrupt;
mod run;
mod verify;
mod vm;

use std::panic;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser as _;

use interrupt::{Interrupt, Interrupted};

/// The lab of weft.
#[derive(clap::Parser)]
#[command(name = "lab")]
enum Command {
    /// Show what weft does on three hosts.
    Run(run::Options),
    /// Measure speed as ratios of one interleaved run.
    Bench(bench::Options),
    /// Load every program and compare its cost with the checked-in table.
    Verify(verify::Options),
    /// Check what depends on the kernel.
    Vm(vm::Options),
}

/// What a shell says of a program that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = Command::parse();
    panic::set_hook(Box::new(|panic| {
        // A signal also ends the programs that are just being run; that they did is no news then.
        if !interrupt::heard() {
            eprintln!("lab: {panic}");
        }
    }));
    // The harness panics; what it made is taken away while the panic unwinds.
    match panic::catch_unwind(|| perform(&command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if error.is::<Interrupted>() => ExitCode::from(INTERRUPTED),
        Ok(Err(error)) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
        Err(_) if interrupt::heard() => ExitCode::from(INTERRUPTED),
        Err(_) => ExitCode::FAILURE,
    }
}

fn perform(command: &Command) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and loads eBPF programs: run it as root");
    }
    let interrupt = Interrupt::listen()?;
    match command {
        Command::Run(options) => run::run(options, &interrupt),
        Command::Bench(options) => bench::run(options, &interrupt),
        Command::Verify(options) => verify::run(options),
        Command::Vm(options) => vm::run(options, &interrupt),
    }
}
