//! `lab vm`: what depends on the kernel, in a few lines: every program loads, the packet stories hold, and two hosts
//! with real daemons talk. Written for a machine on which starting a program takes 28 ms.

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use weft_tests::command;
use weft_tests::traffic::Outcome;
use weft_tests::traffic::ping::ping;
use weft_tests::traffic::tcp::{TcpEcho, tcp_echo};
use weft_tests::underlay::Underlay;
use weft_tests::wait::holds_within;

use crate::cluster::{App, Cluster, Container, Intent, Wanted};
use crate::interrupt::Interrupt;
use crate::verify;

/// What to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The binary with the packet stories; without it, the one that was built beside this
    #[arg(long)]
    stories: Option<PathBuf>,
}

const APPS: [App<'static>; 2] = [App { name: "shop", roles: &["web"] }, App { name: "blog", roles: &[] }];

/// Long enough for what an emulated machine does, short enough not to hide that it hangs.
const SLOW: Duration = Duration::from_secs(30);

/// How long a silence is listened to.
const SILENCE: Duration = Duration::from_secs(2);

/// Checks everything and prints a line each; fails at the end if one did.
pub(crate) fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let Options { stories } = options;
    let mut failed = Vec::new();
    let mut check = |name: &'static str, body: &mut dyn FnMut() -> Result<String>| -> Result<()> {
        interrupt.pause(Duration::ZERO)?;
        let started = Instant::now();
        let outcome = body();
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(said) => println!("vm: ok      {name}, {seconds} s: {said}"),
            Err(error) => {
                println!("vm: FAILED  {name}, {seconds} s: {error:#}");
                failed.push(name);
            }
        }
        Ok(())
    };
    check("programs", &mut verify::summary)?;
    check("packet stories", &mut || packet_stories(stories.as_deref()))?;
    check("two hosts", &mut two_hosts)?;
    if !failed.is_empty() {
        bail!("not all is well on this kernel: {}", failed.join(", "));
    }
    Ok(())
}

fn packet_stories(named: Option<&Path>) -> Result<String> {
    let Some(stories) = named.map(Path::to_owned).or_else(built_beside) else {
        return Ok("none was built beside this".into());
    };
    let (status, stdout, stderr) = command::output(Command::new(&stories).args(["prog::", "--test-threads", "1"]));
    let result = stdout.lines().find(|line| line.starts_with("test result: ")).unwrap_or("no result");
    ensure!(status.success(), "{}: {status}\n{stdout}{stderr}", stories.display());
    Ok(result.trim_start_matches("test result: ").to_owned())
}

/// The newest `deps/scenarios-…` of this profile, or of the one that tests are built with.
fn built_beside() -> Option<PathBuf> {
    let running = env::current_exe().ok()?;
    let profile = running.parent()?;
    let folders = [profile.join("deps"), profile.with_file_name("debug").join("deps")];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let stories = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("scenarios-") && path.extension().is_none()
    });
    stories.max_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// A ping, a conversation, a refusal, a rule and its end, over both families.
fn two_hosts() -> Result<String> {
    let underlay = Underlay::direct();
    let cluster = Cluster::start(&underlay, &Intent { apps: &APPS, rules: Vec::new() })?;
    let attach = |host, app, name| cluster.attach(&Wanted { host, app, role: None, name });
    let (near, far) = (attach(0, "shop", "near")?, attach(1, "shop", "far")?);
    let stranger = attach(0, "blog", "stranger")?;

    let servers = addresses(&far).map(|address| TcpEcho::start(&far.namespace, SocketAddr::new(address, 7)));
    let talks = |from: &Container, within| servers.iter().all(|server| echoes(from, server, within));
    let silent = |from: &Container| servers.iter().all(|server| !echoes(from, server, SILENCE));
    for address in addresses(&far) {
        let outcome = ping(&near.namespace, address, SLOW);
        ensure!(outcome == Outcome::Reached, "ping {address}: {outcome:?}");
    }
    ensure!(talks(&near, SLOW), "a conversation inside an app does not come about");
    ensure!(silent(&stranger), "a stranger is let in");
    for address in addresses(&far) {
        let outcome = ping(&stranger.namespace, address, SILENCE);
        ensure!(outcome != Outcome::Reached, "a stranger's ping to {address} is answered");
    }
    cluster.weft(0, &["allow", "blog -> shop tcp/7"]).context("add a rule")?;
    ensure!(holds_within(SLOW, || talks(&stranger, SILENCE)), "a rule does not let in");
    cluster.weft(0, &["allow", "blog -> shop tcp/7", "--remove"]).context("remove a rule")?;
    ensure!(holds_within(SLOW, || silent(&stranger)), "a rule that is gone still lets in");
    Ok("ping, TCP, default deny, a rule and its end".into())
}

fn addresses(container: &Container) -> [IpAddr; 2] {
    let &Container { v4, v6, namespace: _ } = container;
    [v4.into(), v6.into()]
}

fn echoes(from: &Container, server: &TcpEcho, within: Duration) -> bool {
    tcp_echo(&from.namespace, server.address(), within) == Outcome::Reached
}
