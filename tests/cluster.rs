//! Clusters of namespaced hosts with a real daemon each.

mod accounts;
mod admission;
mod churn;
mod cli;
mod doctor;
mod drift;
mod ends;
mod foreign;
mod full;
mod hostile;
mod identity;
mod interop;
mod learn;
mod manifest;
mod many;
mod offload;
mod outside;
mod reach;
mod restart;
mod segment;
mod service;
mod shadow;
mod show;
mod soak;
mod station;
mod window;
mod zombie;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use weft_tests::host::Host;
use weft_tests::netns::Netns;
use weft_tests::underlay::{Family, Underlay};

/// Loading the programs takes a second; other tests may be loading theirs.
const READY: Duration = Duration::from_mins(1);
/// What is allowed answers well within this, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// What others damage is put right within two ticks of the daemon, also on a busy machine.
const REPAIRED: Duration = Duration::from_secs(15);
/// What is denied does not answer within this.
const SILENCE: Duration = Duration::from_millis(700);

/// Hosts h1, h2, … on one underlay, with apps shop (roles web, db) and blog (role db). App a has 10.a.0.0/16 and
/// fd00:a::/32, of which host h has 10.a.h.0/24 and fd00:a:h::/64.
struct Cluster {
    hosts: Vec<Host>,
    file: PathBuf,
    /// What daemons are started with beside the usual.
    arguments: Vec<String>,
    _directory: tempfile::TempDir,
    underlay: Underlay,
}

/// A container with its addresses.
struct Container {
    netns: Netns,
    mac: [u8; 6],
    v4: IpAddr,
    v6: IpAddr,
}

impl Cluster {
    fn of(hosts: usize, family: Family) -> Self {
        Self::started(hosts, 0, family, &[])
    }

    /// With hosts after them that are in the file and run no daemon.
    fn beside(hosts: usize, others: usize, family: Family) -> Self {
        Self::started(hosts, others, family, &[])
    }

    /// With these arguments for every daemon.
    fn started(hosts: usize, others: usize, family: Family, arguments: &[&str]) -> Self {
        let mut cluster = Self::without_daemons(hosts + others, family);
        cluster.hosts.truncate(hosts);
        cluster.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        for at in 0..cluster.hosts.len() {
            cluster.start(at);
        }
        for host in &mut cluster.hosts {
            host.wait_ready(READY);
        }
        cluster
    }

    fn without_daemons(hosts: usize, family: Family) -> Self {
        let underlay = Underlay::bridged(hosts);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cluster.toml");
        fs::write(&file, description(&underlay, family)).unwrap();
        let hosts = underlay.hosts().iter().enumerate();
        let hosts = hosts.map(|(at, netns)| Host::new(&format!("h{}", at + 1), netns)).collect();
        Self { hosts, file, arguments: Vec::new(), _directory: directory, underlay }
    }

    fn start(&mut self, host: usize) {
        let file = self.file.to_str().unwrap().to_owned();
        let more = self.arguments.iter().map(String::as_str);
        let arguments: Vec<_> = ["--cluster", &file].into_iter().chain(more).collect();
        self.hosts[host].start_daemon(&arguments);
    }

    /// Attaches a new container on host `at` and gives it when it can be used.
    fn container(&self, at: usize, name: &str, member: &str) -> Container {
        self.attach(at, self.hosts[at].container(name), (name, member))
    }

    /// Attaches a namespace on host `at`, under a name and as a member.
    fn attach(&self, at: usize, netns: Netns, (name, member): (&str, &str)) -> Container {
        let (app, role) = member.split_once('/').map_or((member, None), |(app, role)| (app, Some(role)));
        let path = netns.path();
        let mut arguments = vec!["attach", path.to_str().unwrap(), "--app", app, "--name", name];
        arguments.extend(role.map(|role| ["--role", role]).into_iter().flatten());
        let attached = self.hosts[at].weft(&[&arguments[..], &["--json"]].concat());
        let addresses: Vec<IpAddr> = attached["addresses"].as_array().unwrap().iter().map(address).collect();
        let of = |is: fn(&IpAddr) -> bool| *addresses.iter().find(|addr| is(addr)).unwrap();
        let bytes = attached["mac"].as_str().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let mac = bytes.collect::<Vec<_>>().try_into().unwrap();
        Container { netns, mac, v4: of(IpAddr::is_ipv4), v6: of(IpAddr::is_ipv6) }
    }

    /// Runs the CLI on host `at`.
    fn weft(&self, at: usize, arguments: &[&str]) -> Value {
        self.hosts[at].weft(&[arguments, &["--json"]].concat())
    }

    /// As [`Self::weft`] with a change, and returns when every host enforces it.
    fn weft_everywhere(&self, at: usize, arguments: &[&str]) -> Value {
        let others = self.hosts.iter().enumerate().filter(|(host, _)| *host != at);
        let others: Vec<_> =
            others.map(|(host, daemon)| format!("--host-socket=h{}={}", host + 1, daemon.socket().display())).collect();
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        self.weft(at, &[arguments, &["--wait"], &others].concat())
    }

    /// How many things host `at` had to repair, by kind.
    fn repaired(&self, at: usize) -> BTreeMap<String, u64> {
        let status = self.weft(at, &["status"]);
        let kinds = status["repaired"].as_array().unwrap().iter();
        kinds.map(|kind| (kind["what"].as_str().unwrap().to_owned(), kind["times"].as_u64().unwrap())).collect()
    }

    /// As [`Self::weft`], when the answer is no.
    fn weft_no(&self, at: usize, arguments: &[&str]) -> Value {
        let (status, stdout, stderr) = self.hosts[at].weft_text(&[arguments, &["--json"]].concat());
        assert_eq!(status.code(), Some(3), "weft {arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Packets that host `at` has dropped for `reason`.
    fn drops(&self, at: usize, reason: &str) -> u64 {
        let list = self.weft(at, &["drops"]);
        let counters = list["counters"].as_array().unwrap();
        counters
            .iter()
            .find(|counter| counter["reason"] == reason)
            .map_or(0, |counter| counter["packets"].as_u64().unwrap())
    }
}

impl Container {
    fn both(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4, port)
    }

    fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v6, port)
    }
}

fn address(text: &Value) -> IpAddr {
    text.as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

fn description(underlay: &Underlay, family: Family) -> String {
    let mut text = String::from("rules = []\n");
    for host in 1..=underlay.hosts().len() {
        let address = underlay.ip(host - 1, family);
        write!(
            text,
            "[host.h{host}]\naddress = \"{address}\"\n[host.h{host}.prefixes]\n\
             shop = [\"10.1.{host}.0/24\", \"fd00:1:{host}::/64\"]\nblog = [\"10.2.{host}.0/24\", \"fd00:2:{host}::/64\"]\n"
        )
        .unwrap();
    }
    text.push_str("[app.shop]\nprefixes = [\"10.1.0.0/16\", \"fd00:1::/32\"]\nroles = [\"web\", \"db\"]\n");
    text.push_str("[app.blog]\nprefixes = [\"10.2.0.0/16\", \"fd00:2::/32\"]\nroles = [\"db\"]\n");
    text
}

/// The number of an app, which is its VNI.
fn app_number(cluster: &Cluster, name: &str) -> u32 {
    let apps = cluster.weft(0, &["app", "ls"]);
    let app = apps["apps"].as_array().unwrap().iter().find(|app| app["name"] == name).unwrap();
    u32::try_from(app["number"].as_u64().unwrap()).unwrap()
}

/// The host's own gateway in shop.
fn gateway(host: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 1, host, 1).into(), Ipv6Addr::new(0xfd00, 1, host.into(), 0, 0, 0, 0, 1).into()]
}
