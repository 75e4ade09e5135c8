//! `cargo xtask vm`: the kernel-dependent stories on other kernels. Owns which kernels, and which of them we insist on.
//!
//! Two scripts of ours do the work: `vm/getkernel` unpacks Debian's kernels without installing them, `vm/vmrun` runs one
//! command under a kernel, on top of this machine's own files. It is software emulation: no time measured inside is a
//! speed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    cmd, root, test,
};

/// Which kernels.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Series, as 6.12, or with a flavour of Debian's, as 6.12:amd64 [default: 6.1, 6.12 and the newest there is]
    kernels: Vec<Kernel>,
}

/// Emulated, a story takes seconds where a real machine takes a tenth; a hang must end all the same.
const LIMIT_SECONDS: &str = "900";
const MEMORY_MIB: &str = "1024";

/// The floor and the first long-term kernel with TCX: Debian 12 has both, so their absence is a failure.
const REQUIRED: [Series; 2] = [Series { major: 6, minor: 1 }, Series { major: 6, minor: 12 }];

/// Debian's kernel for virtual machines; getkernel's default.
const FLAVOUR: &str = "cloud-amd64";

/// The first two numbers of a kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    major: u32,
    minor: u32,
}

/// One of Debian's kernel packages.
#[derive(Clone, Debug, PartialEq)]
struct Kernel {
    series: Series,
    flavour: String,
}

impl Options {
    /// Only the oldest kernel we support.
    pub(crate) fn floor() -> Self {
        Self { kernels: vec![Kernel::from(REQUIRED[0])] }
    }
}

/// Builds, and runs the stories on every kernel to the end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { kernels } = options;
    root::require("run virtual machines")?;
    build::run(Profile::Release)?;
    let packet_stories = test::stories()?;

    let mut kernels = kernels.clone();
    if kernels.is_empty() {
        kernels.extend(REQUIRED.map(Kernel::from));
        kernels.extend(newest());
    }
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for kernel in kernels {
        let started = Instant::now();
        let outcome = match fetch(&kernel) {
            Ok(()) => stories(&kernel, &packet_stories),
            Err(error) if REQUIRED.contains(&kernel.series) => Err(error),
            Err(error) => {
                lines.push(format!("vm {kernel}: not to be had, left out: {error:#}"));
                continue;
            }
        };
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(()) => lines.push(format!("vm {kernel}: ok, {seconds} s")),
            Err(error) => {
                lines.push(format!("vm {kernel}: FAILED, {seconds} s: {error:#}"));
                failed.push(kernel.to_string());
            }
        }
    }
    println!("{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("run the stories on kernel {}", failed.join(", "));
    }
    Ok(())
}

/// Unpacks the newest release of a kernel. One from an earlier run will do when the mirror does not answer.
fn fetch(kernel: &Kernel) -> Result<()> {
    let fetched = cmd::exec(script("getkernel").arg(folder()).arg(kernel.package()));
    match fetched {
        Err(error) if kernel.folder().join(".version").exists() => {
            println!("vm {kernel}: taking the one unpacked earlier: {error:#}");
            Ok(())
        }
        other => other,
    }
}

fn stories(kernel: &Kernel, packet_stories: &Path) -> Result<()> {
    // vmrun writes an initramfs beside the kernel and maps the machine's files: root, not the developer.
    let mut vmrun = cmd::program(cmd::workspace().join("xtask/vm/vmrun"));
    vmrun.args(["-m", MEMORY_MIB, "-t", LIMIT_SECONDS]).arg(kernel.folder());
    vmrun
        .arg("--")
        .arg(cmd::target().join(Profile::Release.dir()).join("lab"))
        .arg("vm")
        .arg("--stories")
        .arg(packet_stories);
    cmd::exec(&mut vmrun)
}

/// The newest kernel that getkernel's package lists know, if it is newer than those we insist on.
fn newest() -> Option<Kernel> {
    // The lists are there once a kernel was fetched; a first failure is told when that kernel's turn comes.
    fetch(&Kernel::from(REQUIRED[0])).ok()?;
    let apt = folder().join(".apt");
    let mut query = cmd::as_caller("apt-cache");
    query.arg("-o").arg(format!("Dir::Etc::SourceList={}", apt.join("sources.list").display()));
    query.arg("-o").arg("Dir::Etc::SourceParts=/dev/null");
    query.arg("-o").arg(format!("Dir::State::Lists={}", apt.join("lists").display()));
    query.arg("-o").arg(format!("Dir::Cache={}", apt.display()));
    let names = cmd::output(query.args(["pkgnames", "linux-image-"])).ok()?;
    let series = names.lines().filter_map(series_of).max()?;
    REQUIRED.iter().all(|required| series > *required).then(|| Kernel::from(series))
}

/// Reads `linux-image-6.12.57+deb12-cloud-amd64`.
fn series_of(package: &str) -> Option<Series> {
    let version = package.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some(Series { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

fn script(name: &str) -> std::process::Command {
    cmd::as_caller(cmd::workspace().join("xtask/vm").join(name))
}

fn folder() -> PathBuf {
    cmd::target().join("kernels")
}

impl Kernel {
    /// As getkernel wants it.
    fn package(&self) -> String {
        format!("{}:{}", self.series, self.flavour)
    }

    fn folder(&self) -> PathBuf {
        folder().join(format!("{}-{}", self.series, self.flavour))
    }
}

impl From<Series> for Kernel {
    fn from(series: Series) -> Self {
        Self { series, flavour: FLAVOUR.to_owned() }
    }
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (series, flavour) = text.split_once(':').unwrap_or((text, FLAVOUR));
        let (major, minor) = series.split_once('.').context("name a series as 6.12")?;
        let number = |digits: &str| digits.parse().context("name a series as 6.12");
        Ok(Self { series: Series { major: number(major)?, minor: number(minor)? }, flavour: flavour.to_owned() })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = fs::read_to_string(self.folder().join(".version")).unwrap_or_default();
        if release.is_empty() { f.write_str(&self.package()) } else { f.write_str(release.trim()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_a_series_and_maybe_a_flavour() {
        let check = |text: &str, expect: Option<(u32, u32, &str)>| {
            let expect = expect
                .map(|(major, minor, flavour)| Kernel { series: Series { major, minor }, flavour: flavour.to_owned() });
            assert_eq!(text.parse::<Kernel>().ok(), expect, "{text}");
        };
        check("6.12", Some((6, 12, "cloud-amd64")));
        check("6.12:amd64", Some((6, 12, "amd64")));
        check("6", None);
        check("6.1.2", None);
        check("newest", None);
    }

    #[test]
    fn the_newest_series_is_compared_by_numbers() {
        let check = |packages: &[&str], expect: Option<(u32, u32)>| {
            let newest = packages.iter().filter_map(|package| series_of(package)).max();
            assert_eq!(newest, expect.map(|(major, minor)| Series { major, minor }));
        };
        check(
            &[
                "linux-image-6.1.0-40-cloud-amd64",
                "linux-image-6.12.57+deb12-cloud-amd64",
                "linux-image-6.9.1-cloud-amd64",
            ],
            Some((6, 12)),
        );
        check(&["linux-image-7.2.3+deb13-amd64", "linux-image-cloud-amd64", "linux-image-amd64"], None);
    }
}
