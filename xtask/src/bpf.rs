//! Which compiler builds the eBPF programs. Owns the choice; `datapath-user/build.rs` makes the same one.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::cmd;

/// The one target; a big-endian host would need `bpfeb`.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A compiler with `core` for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compiler {
    /// Debian's rustc-web, whose `core` for the BPF target is a package.
    Debian,
    /// rustup's nightly with rust-src, which compiles `core` itself.
    Nightly,
}

/// The compiler this machine has.
pub(crate) fn compiler() -> Option<Compiler> {
    let debian = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/bpfel-unknown-none/lib"];
    if debian.into_iter().all(|path| Path::new(path).exists()) {
        return Some(Compiler::Debian);
    }
    nightly_has_source().then_some(Compiler::Nightly)
}

impl Compiler {
    /// A cargo subcommand on the eBPF package. `target` keeps its results apart from those with other flags.
    pub(crate) fn cargo(self, subcommand: &str, target: &Path) -> Command {
        let mut command = match self {
            Self::Debian => {
                // Named by its path: cargo would take rustup's cargo-clippy, which cannot read Debian's `core`.
                let program = if subcommand == "clippy" { "/usr/bin/cargo-clippy" } else { "/usr/bin/cargo" };
                let mut command = cmd::as_caller(program);
                // aya-ebpf opens one unstable feature.
                command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo");
                command
            }
            Self::Nightly => {
                let mut command = cmd::as_caller("rustup");
                // Left by the toolchain that runs us; nightly must find its own.
                command.env_remove("CARGO").env_remove("RUSTC").args(["run", "nightly", "cargo"]);
                command
            }
        };
        command.arg(subcommand).args(["--package", "weft-ebpf", "--release", "--target", TARGET]);
        command.arg("--target-dir").arg(target);
        if self == Self::Nightly {
            command.args(["-Z", "build-std=core"]);
        }
        command
    }

    /// Whether this compiler has its own clippy: another release's cannot read its `core`.
    pub(crate) fn has_clippy(self) -> bool {
        match self {
            Self::Debian => {
                ["/usr/bin/cargo-clippy", "/usr/bin/clippy-driver"].into_iter().all(|f| Path::new(f).exists())
            }
            Self::Nightly => nightly().iter().any(|toolchain| toolchain.join("bin/clippy-driver").exists()),
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "Debian's rustc-web",
            Self::Nightly => "rustup's nightly",
        })
    }
}

fn nightly_has_source() -> bool {
    nightly().iter().any(|toolchain| toolchain.join("lib/rustlib/src/rust/library/core").is_dir())
}

/// The folders of the installed nightly, read instead of asked: rustup may download when asked.
fn nightly() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup")));
    let Some(Ok(entries)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else {
        return Vec::new();
    };
    let folders = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly-x86_64"));
    folders.map(|entry| entry.path()).collect()
}
