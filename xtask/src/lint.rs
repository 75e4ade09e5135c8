//! `cargo xtask lint`: formatting, clippy for the host and for the BPF target, rustdoc. Runs all of them and fails at
//! the end, so that one run shows everything.

use anyhow::{Context as _, Result, bail};

use crate::{bpf, cmd, setup};

type Check = fn() -> Result<()>;

/// Runs every check.
pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
    let checks: [(&str, Check); 4] =
        [("fmt", format), ("clippy", clippy_host), ("clippy of weft-ebpf", clippy_bpf), ("rustdoc", docs)];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("lint: {name}");
        if let Err(error) = check() {
            println!("lint: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint the workspace: {} failed", failed.join(", "));
    }
    Ok(())
}

/// `--all` is every member, also weft-ebpf.
fn format() -> Result<()> {
    cmd::exec(cmd::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy_host() -> Result<()> {
    let mut cargo = cmd::cargo();
    cargo.arg("clippy").args(host_packages()).args(["--all-targets", "--", "-D", "warnings"]);
    cmd::exec(&mut cargo)
}

/// With the compiler that builds it: no other can read that compiler's `core`.
fn clippy_bpf() -> Result<()> {
    let compiler = bpf::compiler().context("find a compiler for the BPF target")?;
    let target = cmd::target().join("lint");
    if compiler.has_clippy() {
        return cmd::exec(compiler.cargo("clippy", &target).args(["--", "-D", "warnings"]));
    }
    println!("lint: {compiler} has no clippy here (package rust-web-clippy): only its own warnings are denied");
    cmd::exec(compiler.cargo("check", &target).env("RUSTFLAGS", "-D warnings"))
}

/// Private items too: module docs are where the invariants are.
fn docs() -> Result<()> {
    let mut cargo = cmd::cargo();
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    cargo.arg("doc").args(host_packages()).args(["--no-deps", "--document-private-items"]);
    cmd::exec(&mut cargo)
}

fn host_packages() -> impl Iterator<Item = &'static str> {
    cmd::HOST_PACKAGES.into_iter().flat_map(|package| ["--package", package])
}
