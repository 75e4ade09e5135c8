//! `lab vm`: what depends on the kernel, in a few lines: every program loads, the packet stories hold, and two hosts
//! with real daemons talk. Written for a machine on which starting a program takes 28 ms.

use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
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
    /// The binary with the packet stories: `scenarios` of weft-tests
    #[arg(long)]
    stories: PathBuf,
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
        // The harness panics, and has told why.
        let outcome = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| bail!("see above"));
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
    check("packet stories", &mut || packet_stories(stories))?;
    check("two hosts", &mut two_hosts)?;
    if !failed.is_empty() {
        bail!("not all is well on this kernel: {}", failed.join(", "));
    }
    Ok(())
}

/// Those stories that are about the kernel. The long ones are about what the programs compute: once, on one kernel, will do.
const TOO_LONG: [&str; 3] = ["prog::pcaps", "prog::differential", "prog::malformed"];

fn packet_stories(stories: &Path) -> Result<String> {
    let mut command = Command::new(stories);
    command.args(["prog::", "--quiet", "--test-threads", "1"]);
    command.args(TOO_LONG.iter().flat_map(|module| ["--skip", module]));
    // Told as they go: whoever started the machine says how long they may take.
    let status = command.status().with_context(|| format!("start {}", stories.display()))?;
    ensure!(status.success(), "{}: {status}", stories.display());
    Ok("all hold".into())
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
