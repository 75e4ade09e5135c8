//! `cargo xtask build`: everything that runs on a host, and the lab. `datapath-user/build.rs` builds and embeds the
//! eBPF object, so that plain `cargo build` is enough once the machine is set up.

use anyhow::Result;

use crate::{cmd, setup};

/// How to build.
#[derive(clap::Args, Default)]
#[group(skip)] // flattened into other tasks' options, which are a group of this name
pub(crate) struct Options {
    /// Optimised, into target/release
    #[arg(long)]
    release: bool,
}

/// What cargo optimises for.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Fast to build, with debug assertions.
    Dev,
    /// As shipped.
    Release,
}

/// Sets up and builds.
pub(crate) fn run(profile: Profile) -> Result<()> {
    setup::ensure()?;
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--package", "weft", "--package", "weft-tests"]);
    match profile {
        Profile::Dev => {}
        Profile::Release => {
            cargo.arg("--release");
        }
    }
    cmd::exec(&mut cargo)
}

impl Options {
    /// The profile that was asked for.
    pub(crate) fn profile(&self) -> Profile {
        if self.release { Profile::Release } else { Profile::Dev }
    }
}

impl Profile {
    /// Its folder under target/.
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}
