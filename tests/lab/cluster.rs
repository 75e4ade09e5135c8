//! Hosts with a real daemon each, described by one cluster file that they share, and the containers on them.
//!
//! Owns the plan of addresses: app number a has 10.a.0.0/16 and fd00:a::/32, of which host number h has 10.a.h.0/24 and
//! fd00:a:h::/64. Both count from 1, containers from 10.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use weft_tests::host::Host;
use weft_tests::netns::Netns;
use weft_tests::sweep::owned_name;
use weft_tests::underlay::{Family, Underlay};

/// What the cluster file says besides hosts and prefixes.
pub(crate) struct Intent<'a> {
    pub(crate) apps: &'a [App<'a>],
    /// As `weft` takes them: `allow shop/web -> blog/db tcp/5432`.
    pub(crate) rules: Vec<String>,
}

/// An app of the cluster.
pub(crate) struct App<'a> {
    pub(crate) name: &'a str,
    pub(crate) roles: &'a [&'a str],
}

/// A container that is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Counted from 0.
    pub(crate) host: usize,
    pub(crate) app: &'a str,
    pub(crate) role: Option<&'a str>,
    pub(crate) name: &'a str,
}

/// A container on the network.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) namespace: Netns,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Hosts that run. Dropping it kills the daemons.
pub(crate) struct Cluster {
    hosts: Vec<Host>,
    apps: Vec<String>,
    /// Containers so far, by host and app.
    given: RefCell<BTreeMap<(usize, usize), u8>>,
    file: PathBuf,
    _directory: TempDir,
}

/// A daemon loads its programs first; under an emulated kernel that takes seconds.
const READY_WITHIN: Duration = Duration::from_mins(1);

impl Cluster {
    /// Writes the cluster file and starts a daemon on every host of the underlay. Hosts are called h1, h2…
    pub(crate) fn start(underlay: &Underlay, intent: &Intent<'_>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("{}-", owned_name("cluster"))).tempdir();
        let directory = directory.context("make a directory for the cluster file")?;
        let file = directory.path().join("cluster.toml");
        fs::write(&file, cluster_file(underlay, intent)).with_context(|| format!("write {}", file.display()))?;
        let path = file.to_str().context("the temporary directory has a name that is no text")?;
        let mut hosts: Vec<_> = underlay
            .hosts()
            .iter()
            .enumerate()
            .map(|(index, namespace)| Host::new(&format!("h{}", index + 1), namespace))
            .collect();
        for host in &mut hosts {
            host.start_daemon(&["--cluster", path]);
        }
        for host in &mut hosts {
            host.wait_ready(READY_WITHIN);
        }
        let apps = intent.apps.iter().map(|app| app.name.to_owned()).collect();
        Ok(Self { hosts, apps, given: RefCell::default(), file, _directory: directory })
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The file that all hosts read.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// Makes a namespace and attaches it; with the answer the container can talk.
    pub(crate) fn attach(&self, wanted: &Wanted<'_>) -> Result<Container> {
        let &Wanted { host, app, role: _, name } = wanted;
        let namespace = self.hosts[host].container(&format!("{app}-{name}"));
        self.attach_namespace(wanted, namespace)
    }

    /// As [`Self::attach`], with a namespace that is there already.
    pub(crate) fn attach_namespace(&self, wanted: &Wanted<'_>, namespace: Netns) -> Result<Container> {
        let &Wanted { host, app, role, name } = wanted;
        let number =
            self.apps.iter().position(|known| known == app).with_context(|| format!("there is no app {app}"))?;
        let (v4, v6) = self.next_addresses(host, number);
        let (path, v4_text, v6_text) = (namespace.path(), v4.to_string(), v6.to_string());
        let path = path.to_str().context("a namespace has a path that is no text")?;
        let mut arguments = vec!["attach", path, "--app", app, "--name", name, "--ip", &v4_text, "--ip", &v6_text];
        if let Some(role) = role {
            arguments.extend(["--role", role]);
        }
        self.weft(host, &arguments).with_context(|| format!("attach {app}/{name} on host h{}", host + 1))?;
        Ok(Container { namespace, v4, v6 })
    }

    /// Runs the CLI on a host and gives what it printed.
    pub(crate) fn weft(&self, host: usize, arguments: &[&str]) -> Result<String> {
        let (status, stdout, stderr) = self.try_weft(host, arguments);
        if !status.success() {
            bail!("weft {}: {status}\n{stdout}{stderr}", arguments.join(" "));
        }
        Ok(stdout)
    }

    /// As [`Self::weft`] where a refusal is an answer too.
    pub(crate) fn try_weft(&self, host: usize, arguments: &[&str]) -> (ExitStatus, String, String) {
        self.hosts[host].weft_text(arguments)
    }

    fn next_addresses(&self, host: usize, app: usize) -> (Ipv4Addr, Ipv6Addr) {
        let mut given = self.given.borrow_mut();
        let count = given.entry((host, app)).or_insert(9);
        *count += 1;
        let (app, host) = (octet(app + 1), octet(host + 1));
        (
            Ipv4Addr::new(10, app, host, *count),
            Ipv6Addr::new(0xfd00, app.into(), host.into(), 0, 0, 0, 0, u16::from(*count)),
        )
    }
}

fn cluster_file(underlay: &Underlay, intent: &Intent<'_>) -> String {
    let Intent { apps, rules } = intent;
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").unwrap_or_default();
    line(format_args!("rules = ["));
    for rule in rules {
        line(format_args!("    \"{rule}\","));
    }
    line(format_args!("]"));
    for (number, App { name, roles }) in (1..).zip(*apps) {
        line(format_args!("\n[app.{name}]\nprefixes = [\"10.{number}.0.0/16\", \"fd00:{number}::/32\"]"));
        let roles: Vec<_> = roles.iter().map(|role| format!("\"{role}\"")).collect();
        line(format_args!("roles = [{}]", roles.join(", ")));
    }
    for host in 1..=underlay.hosts().len() {
        let address = underlay.ip(host - 1, Family::V4);
        line(format_args!("\n[host.h{host}]\naddress = \"{address}\"\n[host.h{host}.prefixes]"));
        for (number, App { name, roles: _ }) in (1..).zip(*apps) {
            line(format_args!("{name} = [\"10.{number}.{host}.0/24\", \"fd00:{number}:{host}::/64\"]"));
        }
    }
    text
}

/// Apps and hosts of a lab are few.
fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
