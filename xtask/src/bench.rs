//! `cargo xtask bench`: builds, and hands over to `lab bench`, which owns what is measured and against what.

use std::process::Command;

use anyhow::Result;

use crate::{
    build::{self, Profile},
    cmd, root,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments of `lab bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Builds and gives the command that is to be run.
pub(crate) fn command(options: Options) -> Result<Command> {
    let Options { args } = options;
    root::require("measure in namespaces")?;
    build::run(Profile::Release)?;
    let mut lab = cmd::lab(Profile::Release);
    lab.arg("bench").args(args);
    Ok(lab)
}
