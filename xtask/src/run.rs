//! `cargo xtask run`: builds, and hands over to `lab run`, which makes a cluster of namespaced hosts on this machine.

use std::process::Command;

use anyhow::Result;

use crate::{
    build::{self, Profile},
    cmd, root,
};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments of `lab run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Options {
    /// As if these had been given on the command line.
    pub(crate) fn with(args: &[&str]) -> Self {
        Self { args: args.iter().map(ToString::to_string).collect() }
    }
}

/// Builds and gives the command that is to be run.
pub(crate) fn command(options: Options) -> Result<Command> {
    let Options { args } = options;
    root::require("run a cluster of namespaces")?;
    build::run(Profile::Release)?;
    let mut lab = cmd::lab(Profile::Release);
    lab.arg("run").args(args);
    Ok(lab)
}
