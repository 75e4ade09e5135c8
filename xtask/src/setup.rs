//! Makes a fresh machine able to build and test. Owns the list of what is needed and why.
//!
//! On Debian it installs what is missing; elsewhere it only says what is. Cheap when nothing is missing (two short
//! processes), so every other task starts with it.

use std::{collections::BTreeSet, env, fs, process::Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{bpf, cmd, root};

/// Debian's name of it, a program that shows it is there on other systems, and what we need it for.
struct Tool {
    package: &'static str,
    program: &'static str,
    why: &'static str,
}

const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const COMPILER_WHY: &str = "compiles the eBPF programs: a rustc that has `core` for the BPF target, so no nightly";

/// libPolly is linked by the static LLVM of the first; bpf-linker's build fails without.
const LLVM: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];
const LLVM_WHY: &str = "bpf-linker is built against it; the same LLVM as both compilers'";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
const LINKER_WHY: &str = "links the eBPF programs into one object with BTF";

const TOOLS: [Tool; 14] = [
    Tool { package: "python3", program: "python3", why: "drives the cases of Kubernetes' policies in tests" },
    Tool { package: "gzip", program: "gzip", why: "unpacks them" },
    Tool { package: "iproute2", program: "ip", why: "shows and makes links in tests" },
    Tool { package: "iptables", program: "iptables", why: "random loss in tests (`-m statistic`)" },
    Tool { package: "nftables", program: "nft", why: "foreign rules that must survive us" },
    Tool { package: "tcpdump", program: "tcpdump", why: "an independent reading of what is on the wire" },
    Tool { package: "ethtool", program: "ethtool", why: "switches offloads of test links" },
    Tool { package: "iperf3", program: "iperf3", why: "load for `bench` and the scenarios" },
    Tool { package: "curl", program: "curl", why: "an HTTP client that is not ours" },
    Tool { package: "procps", program: "ps", why: "process figures" },
    Tool {
        package: "busybox-static",
        program: "busybox",
        why: "userland of test containers and of `vm`'s first stage",
    },
    Tool { package: "qemu-system-x86", program: "qemu-system-x86_64", why: "other kernels (`vm`)" },
    Tool { package: "kmod", program: "depmod", why: "modules of other kernels (`vm`)" },
    Tool { package: "xz-utils", program: "xz", why: "packed kernels and modules (`vm`)" },
];

/// What this machine lacks.
#[derive(Default)]
struct Missing {
    packages: Vec<(&'static str, &'static str)>,
    linker: bool,
}

/// `cargo xtask setup`: as [`ensure`], and says so when there was nothing to do.
pub(crate) fn run() -> Result<()> {
    if ensure()? {
        println!("setup: done");
    } else {
        println!("setup: nothing is missing");
    }
    Ok(())
}

/// Installs what is missing and tells whether anything was.
pub(crate) fn ensure() -> Result<bool> {
    let debian = is_debian();
    let missing = if debian { missing_on_debian()? } else { missing_elsewhere() };
    if missing.is_empty() {
        return Ok(false);
    }
    println!("setup: missing here:\n{}", missing.list());
    if !debian {
        bail!("{}", missing.advice());
    }
    if !missing.packages.is_empty() {
        root::require("install Debian packages")?;
        install_packages(&missing)?;
    }
    // Asked again: a linker that is there may only have lacked its LLVM.
    if !linker_works() {
        install_linker()?;
    }
    Ok(true)
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.linker
    }

    fn list(&self) -> String {
        let linker = format!("{LINKER} {LINKER_VERSION}");
        let linker = self.linker.then_some((linker.as_str(), LINKER_WHY));
        let lines = self.packages.iter().copied().chain(linker);
        lines.map(|(name, why)| format!("  {name:<24} {why}")).collect::<Vec<_>>().join("\n")
    }

    fn advice(&self) -> String {
        let mut steps = Vec::new();
        let names: Vec<_> = self.packages.iter().map(|(name, _)| *name).collect();
        let (compiler, tools): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| COMPILER.contains(name));
        if !compiler.is_empty() {
            steps.push("`rustup toolchain install nightly --component rust-src` for the BPF target".to_owned());
        }
        if self.linker {
            steps.push(format!(
                "LLVM 22 with headers, then `LLVM_PREFIX=DIR cargo install {LINKER} --version {LINKER_VERSION} \
                 --no-default-features --features llvm-22 --locked`"
            ));
        }
        if !tools.is_empty() {
            steps.push(format!("your distribution's packages of {} (Debian's names)", tools.join(", ")));
        }
        format!("install what is missing: this is not Debian, so do it by hand: {}", steps.join("; "))
    }
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian") && cmd::find("apt-get").is_some()
}

fn missing_on_debian() -> Result<Missing> {
    let linker = !linker_works();
    let mut wanted: Vec<_> = COMPILER.into_iter().map(|package| (package, COMPILER_WHY)).collect();
    if linker {
        wanted.extend(LLVM.map(|package| (package, LLVM_WHY)));
    }
    wanted.extend(TOOLS.iter().map(|tool| (tool.package, tool.why)));

    let mut query = cmd::program("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    query.args(wanted.iter().map(|(package, _)| package));
    // It names unknown packages on stderr and fails for them; for us that is an answer.
    let answer = query.stderr(Stdio::null()).output().with_context(|| format!("start {}", cmd::shown(&query)))?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    let installed = installed(&answer);
    wanted.retain(|(package, _)| !installed.contains(*package));
    Ok(Missing { packages: wanted, linker })
}

fn missing_elsewhere() -> Missing {
    let mut packages = Vec::new();
    if bpf::compiler().is_none() {
        packages.extend(COMPILER.map(|package| (package, COMPILER_WHY)));
    }
    let tools = TOOLS.iter().filter(|tool| cmd::find(tool.program).is_none());
    packages.extend(tools.map(|tool| (tool.package, tool.why)));
    Missing { packages, linker: !linker_works() }
}

/// It is run, not only looked for: it does not start without its LLVM.
fn linker_works() -> bool {
    let version = cmd::program(LINKER).arg("--version").stderr(Stdio::null()).output();
    version.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim() == format!("{LINKER} {LINKER_VERSION}"))
}

fn install_packages(missing: &Missing) -> Result<()> {
    cmd::exec(cmd::program("apt-get").args(["-qq", "update"]))?;
    let mut install = cmd::program("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["-qq", "-y", "--no-install-recommends", "install"]);
    install.args(missing.packages.iter().map(|(package, _)| package));
    cmd::exec(&mut install).with_context(|| {
        "install Debian packages (bookworm-security has all of them; on another release take \
         `rustup toolchain install nightly --component rust-src` as the compiler)"
    })
}

fn install_linker() -> Result<()> {
    println!("setup: building {LINKER} {LINKER_VERSION}, which takes a minute or two");
    let mut path = vec![format!("{LLVM_PREFIX}/bin").into()];
    path.extend(cmd::search_path());
    let mut install = cmd::cargo();
    install.env("LLVM_PREFIX", LLVM_PREFIX).env("PATH", env::join_paths(path).context("make a search path")?);
    install.args(["install", LINKER, "--version", LINKER_VERSION, "--locked", "--force", "--quiet"]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    cmd::exec(&mut install)?;
    if !linker_works() {
        bail!("start {LINKER} {LINKER_VERSION}: installed, but another one or none is found first in PATH");
    }
    Ok(())
}

fn installed(answer: &str) -> BTreeSet<&str> {
    answer.lines().filter_map(|line| line.strip_suffix(" installed")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_is_not_installed() {
        let answer = "kmod installed\niperf3 config-files\ncurl installed\n";
        assert_eq!(installed(answer), BTreeSet::from(["kmod", "curl"]));
    }

    #[test]
    fn elsewhere_the_alternatives_are_named() {
        let advice = |packages: &[(&'static str, &'static str)], linker| {
            Missing { packages: packages.to_vec(), linker }.advice()
        };
        assert!(advice(&[("rustc-web", "")], false).contains("rust-src"));
        assert!(advice(&[("tcpdump", "")], false).ends_with("packages of tcpdump (Debian's names)"));
        assert!(advice(&[], true).contains("bpf-linker --version 0.13.0"));
    }
}
