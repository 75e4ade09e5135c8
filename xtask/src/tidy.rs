//! `cargo xtask tidy`: what no compiler checks. Owns the tables; the readers are below `tidy/`.
//!
//! A new line in [`EDGES`] or [`UNSAFE`] is a change of the design and is reviewed as one.

mod drops;
mod edges;
mod map;
mod source;
mod text;

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::cmd;
use source::Source;

/// Which module of `datapath-user/src` may name which: a module, or a path below one. `common` is the crate
/// weft-common. `lib`, `bin` and `daemon` may name everything, and nothing may name them.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &["common"]),
    ("delta", &[]),
    ("shared", &["delta"]),
    ("store", &["model", "delta"]),
    ("manifest", &["model", "store", "common"]),
    ("status", &["model"]),
    ("order", &[]),
    ("plan", &["model", "shared", "common"]),
    // The only module that names aya, netlink and unsafe.
    ("kernel", &["common"]),
    // The only module that changes the kernel.
    ("reconcile", &["plan", "delta", "shared", "kernel", "store", "status", "model", "common"]),
    ("ipam", &["model", "store"]),
    ("encrypt", &["model", "store"]),
    ("dns", &["model", "store"]),
    ("slowpath", &["plan", "model", "common"]),
    ("groups", &["slowpath", "plan", "model", "common"]),
    ("observe", &["common"]),
    // What manifests come to, in the words of the API: of a daemon, and of the command line without one.
    ("intent", &["front::api", "manifest", "store", "plan", "model", "common"]),
    // Answers the API's trait, and reads what the programs keep; what it wants changed it writes to the store.
    (
        "service",
        &[
            "intent", "front", "model", "store", "status", "order", "plan", "observe", "kernel", "common", "ipam",
            "encrypt",
        ],
    ),
    // Knows nothing of who answers it.
    ("front", &["model", "common"]),
    // Of the fronts only the client and the DTOs of the API; of the rest only what needs no daemon.
    ("cli", &["front::api", "intent", "model", "common"]),
];

/// The files that may contain `unsafe`; a name that ends in a slash is a folder.
const UNSAFE: &[&str] = &[
    "common/src/wire.rs",
    "common/src/header.rs",
    "datapath-ebpf/src/packet.rs",
    "datapath-ebpf/src/maps.rs",
    "datapath-ebpf/src/outcome.rs",
    "datapath-ebpf/src/report.rs",
    // The attribute macros of the entry points expand to it.
    "datapath-ebpf/src/main.rs",
    // bpf_loop calls back with a raw pointer.
    "datapath-ebpf/src/replicate.rs",
    "datapath-user/src/kernel/",
    // What nix does not wrap: setns between fork and exec, packet sockets, the verifier's log.
    "tests/harness/netns.rs",
    "tests/harness/wire.rs",
    "tests/lab/verify/sys.rs",
];

/// Names that say nothing about what is inside.
const NAMELESS: &[&str] = &["utils", "util", "helpers", "helper", "misc", "types", "common"];

/// The folders whose sources are read.
const PACKAGES: [&str; 5] = ["common", "datapath-ebpf", "datapath-user", "tests", "xtask"];

/// Where something is wrong, and what.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

/// Reads everything and prints what it finds.
pub(crate) fn run() -> Result<()> {
    let sources = sources()?;
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(text::ascii(source));
        findings.extend(text::layout(&source.path, &source.text));
        findings.extend(text::names(source, NAMELESS));
        findings.extend(text::unsafety(source, UNSAFE));
        findings.extend(edges::check(source, EDGES));
        match text::size(source) {
            Some(text::Size::Guide(note)) => println!("tidy: note: {note}"),
            Some(text::Size::Limit(finding)) => findings.push(finding),
            None => {}
        }
    }
    findings.extend(drops::check(&sources));
    for (path, text) in plain_files()? {
        findings.extend(text::layout(&path, &text));
    }
    if let Ok(readme) = fs::read_to_string(cmd::workspace().join("README.md")) {
        findings.extend(map::check(&readme, &modules()?));
    }

    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy the sources: {} findings", findings.len());
    }
    println!("tidy: {} files, nothing found", sources.len());
    Ok(())
}

impl Finding {
    /// `line` counts from 1.
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what } = self;
        write!(f, "{path}:{line}: {what}")
    }
}

fn sources() -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for package in PACKAGES {
        walk(package, "rs", &mut paths)?;
    }
    let read = |path: String| Ok(Source::new(&path, &read(&path)?));
    paths.into_iter().map(read).collect()
}

/// The files besides Rust that people edit.
fn plain_files() -> Result<Vec<(String, String)>> {
    let mut paths = vec![".ci/run".to_owned(), ".cargo/config.toml".to_owned()];
    // An empty folder is not in a clone.
    let docs = cmd::workspace().join("docs").is_dir().then_some("docs");
    for folder in PACKAGES.into_iter().chain(docs) {
        for kind in ["toml", "md"] {
            walk(folder, kind, &mut paths)?;
        }
    }
    paths.extend(["Cargo.toml", "clippy.toml", ".rustfmt.toml", "README.md"].map(str::to_owned));
    paths.retain(|path| cmd::workspace().join(path).is_file());
    paths.into_iter().map(|path| Ok((path.clone(), read(&path)?))).collect()
}

/// The top level of datapath-user/src: `plan`, `status.rs`.
fn modules() -> Result<Vec<String>> {
    entries("datapath-user/src").map(|names| names.into_iter().map(|(name, _)| name).collect())
}

fn walk(folder: &str, kind: &str, into: &mut Vec<String>) -> Result<()> {
    for (name, is_folder) in entries(folder)? {
        let path = format!("{folder}/{name}");
        if is_folder {
            if name != "target" && !name.starts_with('.') {
                walk(&path, kind, into)?;
            }
        } else if Path::new(&name).extension().is_some_and(|extension| extension == kind) {
            into.push(path);
        }
    }
    Ok(())
}

/// Sorted, so that two runs print the same.
fn entries(folder: &str) -> Result<Vec<(String, bool)>> {
    let read = || fs::read_dir(cmd::workspace().join(folder))?.collect::<std::io::Result<Vec<_>>>();
    let mut entries: Vec<_> = read()
        .with_context(|| format!("read folder {folder}"))?
        .into_iter()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()))
        .collect();
    entries.sort();
    Ok(entries)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(cmd::workspace().join(path)).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_edges_has_no_cycle() {
        let mut open: Vec<_> = EDGES.to_vec();
        loop {
            let blocked = |to: &&str| open.iter().any(|(from, _)| to.split("::").next() == Some(*from));
            let (left, done): (Vec<_>, Vec<_>) = open.iter().copied().partition(|(_, to)| to.iter().any(blocked));
            if left.is_empty() {
                return;
            }
            assert!(!done.is_empty(), "a cycle among {left:?}");
            open = left;
        }
    }
}
