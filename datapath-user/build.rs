//! Builds the eBPF programs (package weft-ebpf), and puts the object where `kernel/load.rs` embeds it.
//!
//! Takes Debian's rustc-web, whose `core` for the BPF target is a package, else rustup's nightly, which compiles
//! `core` itself; `xtask/src/bpf.rs` makes the same choice. `WEFT_BPF_COMPILER` tells the sources which it was.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const LINKER: &str = "bpf-linker";

/// What cargo and rustup set for us and what would mean something else to the cargo that we start.
const LEAKS: [&str; 9] = [
    "CARGO_BUILD_",
    "CARGO_ENCODED_",
    "CARGO_INCREMENTAL",
    "CARGO_MANIFEST_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "RUSTC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn main() -> ExitCode {
    match build() {
        Ok(compiler) => {
            println!("cargo:rustc-env=WEFT_BPF_COMPILER={compiler}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("build the eBPF programs: {why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<String, String> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo does not say where we are")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo does not say where to write")?);
    let workspace = package.parent().ok_or("the package is not in a workspace")?;
    for source in ["datapath-ebpf", "common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    let linker = find(LINKER).ok_or("there is no bpf-linker: run `cargo xtask setup`")?;
    println!("cargo:rerun-if-changed={}", linker.display());

    let (mut cargo, compiler) = compiler()?;
    // BTF gives maps and programs their types in bpftool, and the verifier's log its source lines. The third version
    // of the instruction set is the newest that every kernel we run on takes.
    // In order, bpf-linker would have every zeroed field be a call of a loop that stores single bytes.
    let flags = "-C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order -C debuginfo=2 -C target-cpu=v3";
    let target = out.join("bpf");
    cargo.current_dir(workspace).env("RUSTFLAGS", flags).env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    cargo.arg("--target-dir").arg(&target);
    let status = cargo.status().map_err(|error| format!("start {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{cargo:?}: {status}"));
    }
    let object = target.join(TARGET).join("release/weft-ebpf");
    let embedded = out.join("weft-ebpf.o");
    fs::copy(&object, &embedded).map_err(|error| format!("copy {}: {error}", object.display()))?;
    Ok(compiler)
}

/// The cargo to start, without its environment's leaks, and the name of its compiler.
fn compiler() -> Result<(Command, String), String> {
    let leaks = |name: &str| name == "CARGO" || LEAKS.iter().any(|leak| name.starts_with(leak));
    let clean = |program: &str| {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(leaks)) {
            command.env_remove(name);
        }
        command
    };
    let ask = |mut command: Command| {
        let answer = command.output().ok().filter(|answer| answer.status.success())?;
        Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    let build = ["build", "--package", "weft-ebpf", "--release", "--target", TARGET];

    let mut library = clean("/usr/bin/rustc");
    library.args(["--print", "target-libdir", "--target", TARGET]);
    if ask(library).is_some_and(|library| has_core(Path::new(&library))) && Path::new("/usr/bin/cargo").exists() {
        let mut version = clean("/usr/bin/rustc");
        version.arg("--version");
        let mut cargo = clean("/usr/bin/cargo");
        // RUSTC_BOOTSTRAP: aya-ebpf opens one unstable feature.
        println!("cargo:rerun-if-changed=/usr/bin/rustc");
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").args(build);
        return Ok((cargo, format!("/usr/bin/rustc: {}", ask(version).unwrap_or_default())));
    }

    if nightly_has_source() {
        let mut version = clean("rustup");
        version.args(["run", "nightly", "rustc", "--version"]);
        let mut cargo = clean("rustup");
        cargo.args(["run", "nightly", "cargo"]).args(build).args(["-Z", "build-std=core"]);
        return Ok((cargo, format!("rustup nightly: {}", ask(version).unwrap_or_default())));
    }
    Err(format!("no compiler here has `core` for {TARGET}: run `cargo xtask setup`"))
}

/// Read instead of asked: rustup may download when asked.
fn nightly_has_source() -> bool {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let Some(Ok(toolchains)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else { return false };
    let mut nightly = toolchains.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly-"));
    nightly.any(|entry| entry.path().join("lib/rustlib/src/rust/library/core").is_dir())
}

fn has_core(library: &Path) -> bool {
    let names = fs::read_dir(library).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("libcore-"))
}

/// Also where `cargo install` puts it, which is not always in the search path.
fn find(program: &str) -> Option<PathBuf> {
    let home = |name, below| Some(PathBuf::from(env::var_os(name)?).join(below));
    let installed = home("CARGO_HOME", "bin").into_iter().chain(home("HOME", ".cargo/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(installed).map(|folder| folder.join(program)).find(|file| file.is_file())
}
