//! What a change of policy costs: to make the tables, of all rules and of one, and from the command to the kernel.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use weft::model::{app, cluster, rule::Rule};
use weft::plan::{NodePlan, facts::Facts, plan};
use weft_tests::underlay::Underlay;

use super::statistics::quantile;
use crate::cluster::{App, Cluster, Intent};
use crate::interrupt::Interrupt;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Policy {
    pub(super) compiled: Compiled,
    pub(super) changes: Vec<Changes>,
}

/// Making the tables of one host, which are those of every host.
#[derive(Debug, Serialize)]
pub(super) struct Compiled {
    pub(super) apps: usize,
    pub(super) rules: usize,
    /// From nothing.
    pub(super) whole_ms: f64,
    /// One rule that comes or goes.
    pub(super) one_p50_ms: f64,
    pub(super) one_p99_ms: f64,
}

/// `weft policy apply --wait` of one rule more, which is expected to hold, to the answer that every host enforces it.
#[derive(Debug, Serialize)]
pub(super) struct Changes {
    /// Of the cluster.
    pub(super) hosts: usize,
    /// How many rules there are besides.
    pub(super) rules: usize,
    pub(super) apply_p50_ms: f64,
    pub(super) apply_p99_ms: f64,
    /// `weft allow`, to the answer that the host which was asked enforces it.
    pub(super) allow_p50_ms: f64,
    pub(super) allow_p99_ms: f64,
}

/// Features G15.
const APPS: usize = 1_000;
const EACH: usize = 50;
/// How often a change is made.
const TIMES: usize = 20;
/// Hosts, apps, and rules of these that are there while another comes.
const PLACES: [(usize, usize, usize); 4] = [(2, 2, 1), (2, 20, 1_000), (2, 200, 50_000), (50, 2, 1)];

pub(super) fn measure(interrupt: &Interrupt) -> Result<Policy> {
    let compiled = compiled()?;
    let changes = PLACES.into_iter().map(|place| changes(place, interrupt));
    Ok(Policy { compiled, changes: changes.collect::<Result<_>>()? })
}

fn compiled() -> Result<Compiled> {
    let rules = rule_texts(APPS, APPS * EACH).map(|text| Ok(Arc::new(text.parse::<Rule>()?)));
    let rules = rules.collect::<Result<Vec<_>>>()?;
    let apps = (0..APPS).map(|at| {
        let roles = ROLES.iter().map(|role| role.parse()).collect::<Result<Vec<_>, _>>()?;
        let prefix = format!("10.{}.{}.0/24", at / 250, at % 250).parse()?;
        let app = app::App::new(app_name(at).parse()?, vec![prefix], roles);
        Ok((app.name.clone(), app))
    });
    let all = cluster::Cluster {
        apps: Arc::new(apps.collect::<Result<_>>()?),
        rules: Arc::new(rules),
        ..cluster::Cluster::default()
    };
    let mut more = all.rules.as_ref().clone();
    more.insert(more.len() / 2, Arc::new("deny app-7/web -> app-9 tcp/22 precedence 2000".parse()?));
    let with = cluster::Cluster { rules: Arc::new(more), ..all.clone() };
    let host = "h1".parse()?;
    let made = |cluster: &cluster::Cluster, before: &NodePlan| {
        let started = Instant::now();
        let made = plan(cluster, &host, &Facts::default(), before);
        (made, started.elapsed().as_secs_f64() * 1000.0)
    };
    let (mut running, whole_ms) = made(&all, &NodePlan::default());
    let mut times = Vec::new();
    for changed in [&with, &all].into_iter().cycle().take(5 * TIMES) {
        let (next, time) = made(changed, &running);
        times.push(time);
        running = next;
    }
    times.sort_by(f64::total_cmp);
    let (one_p50_ms, one_p99_ms) = (quantile(&times, 0.5), quantile(&times, 0.99));
    Ok(Compiled { apps: APPS, rules: APPS * EACH, whole_ms, one_p50_ms, one_p99_ms })
}

fn changes((hosts, apps, rules): (usize, usize, usize), interrupt: &Interrupt) -> Result<Changes> {
    eprintln!("changing policy of {hosts} hosts beside {rules} rules");
    let names: Vec<String> = (0..apps).map(app_name).collect();
    let described: Vec<_> = names.iter().map(|name| App { name, roles: &ROLES }).collect();
    let underlay = Underlay::bridged(hosts);
    let cluster = Cluster::start(&underlay, &Intent { apps: &described, rules: rule_texts(apps, rules).collect() })?;
    // The first answer comes when the daemon has a plan.
    cluster.weft(0, &["policy", "ls", "--json"])?;
    let others = cluster.hosts().iter().skip(1);
    let sockets: Vec<_> =
        others.map(|host| format!("--host-socket={}={}", host.name(), host.socket().display())).collect();
    let manifest = cluster.hosts()[0].directory().join("more.yaml");
    let path = manifest.to_str().context("the manifest has a name that is no text")?;
    let apply = ["policy", "apply", "-f", path, "--wait"].into_iter().chain(sockets.iter().map(String::as_str));
    let apply: Vec<&str> = apply.collect();
    let (mut applied, mut allowed) = (Vec::new(), Vec::new());
    for port in 0..TIMES {
        interrupt.pause(Duration::ZERO)?;
        let flow = format!("app-0/web -> app-1/db tcp/{}", 20_000 + port);
        let text = format!("weft: v1\npolicy: more\nrules: [allow {flow}]\nexpect: [{flow} allow]\n");
        fs::write(&manifest, text).with_context(|| format!("write {path}"))?;
        let started = Instant::now();
        cluster.weft(0, &apply)?;
        applied.push(started.elapsed().as_secs_f64() * 1000.0);
        let rule = format!("tcp/{}", 30_000 + port);
        let started = Instant::now();
        cluster.weft(0, &["allow", "app-0/web", "app-1/db", &rule])?;
        allowed.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    applied.sort_by(f64::total_cmp);
    allowed.sort_by(f64::total_cmp);
    Ok(Changes {
        hosts,
        rules,
        apply_p50_ms: quantile(&applied, 0.5),
        apply_p99_ms: quantile(&applied, 0.99),
        allow_p50_ms: quantile(&allowed, 0.5),
        allow_p99_ms: quantile(&allowed, 0.99),
    })
}

const ROLES: [&str; 3] = ["web", "db", "cache"];

fn app_name(at: usize) -> String {
    format!("app-{at}")
}

/// Rules between apps, all different, as many of each app.
fn rule_texts(apps: usize, rules: usize) -> impl Iterator<Item = String> {
    let roles = ["/web", "/db", "/cache", ""];
    let ports = ["tcp/5432", "udp/53", "tcp/80,443,8000-8100", "any"];
    (0..rules).map(move |rule| {
        let (at, n) = (rule % apps, rule / apps);
        let (from, to, peer) = (roles[n % 4], roles[n / 4 % 4], (at * 31 + n * 7 + 1) % apps);
        format!("allow app-{at}{from} -> app-{peer}{to} {} precedence {}", ports[n % 4], n + 1)
    })
}
