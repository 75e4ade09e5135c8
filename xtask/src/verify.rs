//! `cargo xtask verify`: builds, and hands over to `lab verify`, which loads every program on this kernel and compares
//! instructions and stack with the checked-in table.

use std::process::Command;

use anyhow::Result;

use crate::{build, cmd, root};

/// How to verify.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Write what was found as the new table
    #[arg(long)]
    bless: bool,
    #[command(flatten)]
    build: build::Options,
}

/// Builds and gives the command that is to be run.
pub(crate) fn command(options: Options) -> Result<Command> {
    let Options { bless, build } = options;
    root::require("load eBPF programs")?;
    build::run(build.profile())?;
    let mut lab = cmd::lab(build.profile());
    lab.arg("verify");
    if bless {
        lab.arg("--bless");
    }
    Ok(lab)
}
