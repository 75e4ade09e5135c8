//! `lab run`: what weft does, shown on three hosts on this machine with real servers and real daemons.
//!
//! Each step is a sentence, then the proof. What is not as expected is said where it is seen and again at the end.

mod cut;
mod reach;
mod servers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_tests::host::binary;
use weft_tests::underlay::{Family, Underlay};

use crate::cluster::{App, Cluster, Intent, Wanted};
use crate::grid::Grid;
use crate::interrupt::Interrupt;
use reach::{Party, Reach};
use servers::{Ends, Server, Site};

/// How to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// End after the last step; the exit status says whether everything was as expected
    #[arg(long)]
    once: bool,
}

const APPS: [App<'static>; 2] = [App { name: "shop", roles: &["web", "db"] }, App { name: "blog", roles: &["db"] }];

/// App, role, name, host.
const CONTAINERS: [(&str, &str, &str, usize); 4] =
    [("shop", "web", "web-1", 0), ("shop", "web", "web-2", 1), ("shop", "db", "db-1", 2), ("blog", "db", "db-1", 1)];

/// In the order of [`CONTAINERS`].
const WEB_1: usize = 0;
const WEB_2: usize = 1;
const SHOP_DB: usize = 2;
const BLOG_DB: usize = 3;

/// As it is typed, and as the CLI takes it.
const RULE: &str = "blog -> shop/web tcp/80";

/// Exit status of `weft why` for what is denied.
const DENIED: i32 = 3;

/// A change reaches every host in less; a loaded machine is given time.
const TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(10);

/// Shows everything once, and stays up unless asked to end.
pub(crate) fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let Options { once } = options;
    println!("weft on three hosts, each a namespace of this machine with a daemon of its own.\n");
    let show = Show::build()?;
    let unexpected = show.perform(interrupt)?;
    if !once {
        show.hint();
        interrupt.wait();
        println!("\nTaking everything away.");
    }
    if unexpected.is_empty() {
        return Ok(());
    }
    bail!("not everything was as expected:\n{}", unexpected.join("\n"))
}

/// The cluster and its servers.
struct Show {
    parties: Vec<Party>,
    /// Of shop/web-1: how connections to its clock ended.
    ends: Ends,
    _servers: Vec<Server>,
    cluster: Cluster,
    underlay: Underlay,
}

impl Show {
    fn build() -> Result<Self> {
        let underlay = Underlay::bridged(3);
        let cluster = Cluster::start(&underlay, &Intent { apps: &APPS, rules: Vec::new() })?;
        let mut parties = Vec::new();
        for (app, role, name, host) in CONTAINERS {
            let container = cluster.attach(&Wanted { host, app, role: Some(role), name })?;
            parties.push(Party { app, role, name, host, container });
        }
        let [store, _] = parties[SHOP_DB].addresses();
        let mut servers = Vec::new();
        let mut clocks = Vec::new();
        for party in &parties {
            let namespace = party.container.namespace.clone();
            if party.role == "web" {
                let (server, ends) = servers::web(Site { name: party.name.to_owned(), store, namespace })?;
                servers.push(server);
                clocks.push(ends);
            } else {
                servers.push(servers::store(&namespace)?);
            }
        }
        let ends = clocks.into_iter().next().context("the example has a web server")?;
        Ok(Self { parties, ends, _servers: servers, cluster, underlay })
    }

    /// All steps. What was not as expected comes back, in words.
    fn perform(&self, interrupt: &Interrupt) -> Result<Vec<String>> {
        let Self { parties, .. } = self;
        println!("{}", indented(&self.inventory().to_string()));
        let mut unexpected = Vec::new();
        let apart = Reach::expected(parties, |from, to| from.app == to.app);
        let visiting = Reach::expected(parties, |from, to| from.app == to.app || to.role == "web");

        println!("1. Containers of one application talk, whatever host they are on. Applications do not.");
        println!("   A request for every pair, over IPv4 and over IPv6:\n");
        unexpected.extend(self.show_reach(&apart, interrupt)?);
        unexpected.extend(self.show_visit());

        println!("2. A rule lets blog in, to the web tier of shop and nowhere else.\n");
        self.show_weft(0, &["allow", RULE])?;
        unexpected.extend(self.show_reach(&visiting, interrupt)?);

        println!("3. Without the rule, also what is already open ends: at once, and both sides are told.");
        println!(
            "   {} reads the clock of {}, over IPv4 and over IPv6.\n",
            parties[BLOG_DB].name(),
            parties[WEB_1].name()
        );
        unexpected.extend(cut::show(self, interrupt)?);
        let differences = self.settled(&apart, interrupt)?.1;
        if differences.is_empty() {
            println!("   All pairs once more: as in step 1.\n");
        }
        unexpected.extend(differences);

        println!("4. What weft says of it.\n");
        unexpected.extend(self.show_why());
        self.show_status()?;

        if unexpected.is_empty() {
            println!("Everything was as expected.");
        }
        Ok(unexpected)
    }

    fn inventory(&self) -> Grid {
        let mut grid = Grid::new(6);
        for (host, party) in self.parties.iter().map(|party| (party.host, party)) {
            let at = self.underlay.ip(host, Family::V4);
            let service = if party.role == "web" { "a web server" } else { "a store" };
            let [v4, v6] = party.addresses().map(|address| address.ip().to_string());
            let port = format!("port {}", party.port());
            grid.row([party.name(), format!("on h{} ({at})", host + 1), v4, v6, service.into(), port]);
        }
        grid
    }

    /// The table, when it is as expected or it is clear that it will not be.
    fn show_reach(&self, expected: &Reach, interrupt: &Interrupt) -> Result<Vec<String>> {
        let (found, differences) = self.settled(expected, interrupt)?;
        println!("{}", indented(&found.to_string()));
        Ok(differences)
    }

    /// Probes until that is as expected or has had its time; what differs then is told.
    fn settled(&self, expected: &Reach, interrupt: &Interrupt) -> Result<(Reach, Vec<String>)> {
        let started = Instant::now();
        loop {
            interrupt.pause(Duration::ZERO)?;
            let found = Reach::probe(&self.parties)?;
            let differences = found.differences(expected);
            if differences.is_empty() || started.elapsed() > TAKES_EFFECT_WITHIN {
                for difference in &differences {
                    println!("   NOT AS EXPECTED: {difference}\n");
                }
                return Ok((found, differences));
            }
        }
    }

    /// A page that takes three containers on three hosts.
    fn show_visit(&self) -> Option<String> {
        let (from, to) = (&self.parties[WEB_2], &self.parties[WEB_1]);
        let [address, _] = to.addresses();
        let page = from.container.namespace.run(|| servers::get(address, "/visits"));
        let said = page.as_ref().map_or_else(ToString::to_string, Clone::clone);
        println!("   {} gets http://{}/visits, which {} counts in the store:", from.name(), address.ip(), to.name());
        println!("   \"{said}\"\n");
        let wanted = "visit 1 to web-1";
        (said != wanted).then(|| format!("/visits of {}: {said:?}, not {wanted:?}", to.name()))
    }

    /// A command that must succeed.
    fn show_weft(&self, host: usize, arguments: &[&str]) -> Result<()> {
        println!("   h{}$ weft {}", host + 1, typed(arguments));
        let said = self.cluster.weft(host, arguments)?;
        println!("{}", indented(&said));
        Ok(())
    }

    /// Why the request of step 3 is refused: an answer whose exit status says no.
    fn show_why(&self) -> Option<String> {
        let Party { app, role, .. } = self.parties[BLOG_DB];
        let (from, to) = (format!("{app}/{role}"), self.parties[WEB_1].name());
        let arguments = ["why", &from, &to, "tcp/80"];
        println!("   h1$ weft {}", typed(&arguments));
        let (status, said, errors) = self.cluster.try_weft(0, &arguments);
        println!("{}", indented(&format!("{said}{errors}")));
        let unexpected = format!("weft {}: {status}, not {DENIED}", typed(&arguments));
        (status.code() != Some(DENIED)).then_some(unexpected)
    }

    /// The first part of it: the rest is how full each table is.
    fn show_status(&self) -> Result<()> {
        println!("   h1$ weft status");
        let said = self.cluster.weft(0, &["status"])?;
        println!("{}", indented(said.split("\n\n").next().unwrap_or_default()));
        Ok(())
    }

    fn hint(&self) {
        println!("It stays up until Ctrl-C. Meanwhile, in another terminal, as root:\n");
        let weft = binary("weft");
        for (host, daemon) in (1..).zip(self.cluster.hosts()) {
            println!("   h{host}() {{ {} --socket {} \"$@\"; }}", weft.display(), daemon.socket().display());
        }
        let [web, _] = self.parties[WEB_1].addresses();
        let blog = self.parties[BLOG_DB].container.namespace.name();
        println!("   h1 ps; h2 flows; h3 drops");
        println!("   h1 allow '{RULE}'");
        println!("   ip netns exec {blog} curl -m 2 http://{}/", web.ip());
        println!("   h1 allow '{RULE}' --remove");
        println!("   $EDITOR {}", self.cluster.file().display());
    }
}

/// As a person would type it.
fn typed(arguments: &[&str]) -> String {
    let quoted = |word: &&str| if word.contains('>') { format!("'{word}'") } else { (*word).to_owned() };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Three blanks before each line, and an empty line at the end.
fn indented(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| format!("   {line}").trim_end().to_owned() + "\n");
    lines.collect()
}
