//! `cargo xtask test`: unit tests as the developer, scenarios as root. Owns the sum of what passed and failed.
//!
//! A test whose tool is missing panics, so nothing is skipped silently; a binary that dies without a result counts as
//! one failure, and a run of no test at all is a failure too.

use std::{
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    build::{self, Profile},
    cmd, root, setup, vm,
};

/// Which tests.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also the ignored tests, and the kernel-dependent stories on other kernels
    #[arg(long)]
    all: bool,
    /// Only tests with one of these in their name
    filter: Vec<String>,
    /// Options of the test binaries, as --nocapture
    #[arg(last = true)]
    options: Vec<String>,
}

/// Tests of all binaries together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// Runs everything, and prints the sum as the last line.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Options { all, filter, options } = options;
    let mut args = [filter.as_slice(), options].concat();
    if *all {
        args.push("--include-ignored".to_owned());
    }
    root::require("run scenarios in namespaces")?;
    setup::ensure()?;
    let mut tally = unit(&args)?;
    match scenarios(&args) {
        Ok(found) => tally += found,
        Err(error) => tally.lose(&error),
    }
    if *all && let Err(error) = vm::run(&vm::Options::default()) {
        tally.lose(&error);
    }
    if tally == Tally::default() {
        println!("xtask: no test was run, for no name has {} in it", filter.join(" or "));
    }
    println!("{tally}");
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests inside the packages; none of them needs root.
pub(crate) fn unit(args: &[String]) -> Result<Tally> {
    let mut cargo = cmd::cargo();
    cargo.args(["test", "--no-fail-fast", "--package", "weft-common", "--package", "weft", "--package", "xtask"]);
    cargo.arg("--").args(args);
    let mut tally = Tally::default();
    tally.follow(&mut cargo)?;
    Ok(tally)
}

/// The tests of package weft-tests, with the daemons they start.
pub(crate) fn scenarios(args: &[String]) -> Result<Tally> {
    build::run(Profile::Dev)?;
    let mut tally = Tally::default();
    for binary in built()? {
        println!("     Running {}", binary.display());
        // Started by us and not by cargo, which would run as the developer; in the folder cargo would use.
        let package = cmd::workspace().join("tests");
        let mut command = cmd::program(&binary);
        command.current_dir(&package).env("CARGO_MANIFEST_DIR", package).args(args);
        tally.follow(&mut command)?;
    }
    Ok(tally)
}

/// The binary that has the packet stories in it.
pub(crate) fn stories() -> Result<PathBuf> {
    let mut built = built()?;
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("scenarios-"));
    built.drain(..).find(is_it).context("find the test binary `scenarios` of weft-tests: cargo names none")
}

/// Builds the test binaries of package weft-tests.
fn built() -> Result<Vec<PathBuf>> {
    let mut cargo = cmd::cargo();
    cargo.args(["test", "--no-run", "--package", "weft-tests", "--message-format", "json-render-diagnostics"]);
    let binaries = test_binaries(&cmd::output(&mut cargo)?);
    if binaries.is_empty() {
        bail!("find the test binaries of weft-tests: cargo names none");
    }
    Ok(binaries)
}

impl Tally {
    /// Something ran and nothing failed.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Runs a command, shows its output as it comes, and counts the results in it.
    fn follow(&mut self, command: &mut Command) -> Result<()> {
        let failed = self.failed;
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {}", cmd::shown(command)))?;
        let stdout = child.stdout.take().with_context(|| format!("read the output of {}", cmd::shown(command)))?;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("read the output of {}", cmd::shown(command)))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            if let Some(found) = result(&line) {
                *self += found;
            }
        }
        let status = child.wait().with_context(|| format!("wait for {}", cmd::shown(command)))?;
        if !status.success() && self.failed == failed {
            self.lose(&anyhow::anyhow!("run {}: {status}, without a failed test", cmd::shown(command)));
        }
        Ok(())
    }

    /// Counts as one failure what failed outside a test.
    fn lose(&mut self, error: &anyhow::Error) {
        println!("xtask: {error:#}");
        self.failed += 1;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed } = other;
        self.passed += passed;
        self.failed += failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed } = self;
        write!(f, "{passed} passed, {failed} failed")
    }
}

/// What cargo says of one thing it built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    profile: ArtifactProfile,
}

#[derive(Deserialize)]
struct ArtifactProfile {
    test: bool,
}

fn test_binaries(messages: &str) -> Vec<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    artifacts.filter(|artifact| artifact.profile.test).filter_map(|artifact| artifact.executable).collect()
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_at_the_start_of_a_line() {
        let check = |line: &str, expect: Option<(u64, u64)>| {
            assert_eq!(result(line), expect.map(|(passed, failed)| Tally { passed, failed }), "{line}");
        };
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            Some((3, 0)),
        );
        check("test result: FAILED. 11 passed; 2 failed; 0 ignored; 0 measured", Some((11, 2)));
        check("left: \"test result: ok. 3 passed; 0 failed\"", None);
        check("test result: ok.", None);
    }

    #[test]
    fn only_test_builds_are_run() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/scenarios-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/lab"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(test_binaries(messages), [PathBuf::from("/t/scenarios-1")]);
    }

    #[test]
    fn a_binary_that_dies_without_a_result_is_a_failure() {
        let mut tally = Tally::default();
        tally.follow(Command::new("sh").args(["-c", "kill -9 $$"])).expect("start sh");
        assert_eq!(tally, Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn no_test_is_not_a_success() {
        assert!(!Tally::default().is_good());
        assert!(Tally { passed: 1, failed: 0 }.is_good());
        assert!(!Tally { passed: 1, failed: 1 }.is_good());
    }
}
