//! Starts other programs. Owns where the workspace and its results are, which cargo is used, and how a failure is told.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{build::Profile, root};

/// The packages that run on the host; `weft-ebpf` only builds for the BPF target.
pub(crate) const HOST_PACKAGES: [&str; 4] = ["weft-common", "weft", "xtask", "weft-tests"];

const PATH: &str = "PATH";

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where cargo puts its results.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))?;
    Some(home.join("bin"))
}

/// The search path, with the places a login shell may have left out: cargo's programs and the system's.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let mut path: Vec<PathBuf> = env::var_os(PATH).map_or_else(Vec::new, |path| env::split_paths(&path).collect());
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    for dir in cargo_bin().into_iter().chain(system) {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    path
}

/// The file that `name` would start.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A program started in the workspace, as whoever we are.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(workspace());
    if let Ok(path) = env::join_paths(search_path()) {
        command.env(PATH, path);
    }
    command
}

/// A program that writes files a developer owns: never as root when a developer called us.
pub(crate) fn as_caller(name: impl AsRef<OsStr>) -> Command {
    let mut command = program(name);
    if let Some(caller) = root::caller() {
        command.uid(caller.uid).gid(caller.gid);
    }
    command
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    as_caller(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The lab of package weft-tests: clusters, measurements, and what runs inside a virtual machine.
pub(crate) fn lab(profile: Profile) -> Command {
    program(target().join(profile.dir()).join("lab"))
}

/// Runs a command to its end.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("run {}: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command to its end and gives what it said on stdout; its stderr stays visible.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        bail!("run {}: {}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes the command, so that signals and the exit status are its own.
pub(crate) fn replace(mut command: Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", shown(&command)))
}

/// A command as a person would type it; the search path is left out, for it is the one thing that is always set.
pub(crate) fn shown(command: &Command) -> String {
    let set = command.get_envs().filter(|(name, _)| *name != PATH);
    let set = set.filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    format!("`{}`", set.chain(words).collect::<Vec<_>>().join(" "))
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=+,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("cargo");
        command.env("RUSTDOCFLAGS", "-D warnings").env(PATH, "/bin").args(["doc", "--no-deps", ""]);
        assert_eq!(shown(&command), "`RUSTDOCFLAGS='-D warnings' cargo doc --no-deps ''`");
    }
}
