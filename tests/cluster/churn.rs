//! Whatever happens to a cluster, in whatever order, no packet gets the wrong verdict: not before, not after, and not
//! while a change is made.
//!
//! Two hosts, eight endpoints in three apps, and all the time datagrams from everybody to everybody, hosts included. By chance policies
//! are applied and deleted, rules come and go, endpoints are attached, detached and relabelled, defaults change and
//! daemons are killed. A model ([`model`]) that is written from the text of docs/policy.md says what has to become of
//! each datagram, and [`judge`] whether it did.
//!
//! A run is repeated by its seed: `WEFT_SEED=7 cargo xtask test churn`.

mod events;
mod judge;
mod lines;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_tests::host::Host;
use weft_tests::netns::Netns;
use weft_tests::traffic::mesh::{Mesh, Probe, Station, Way, lost_for_want_of_time};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, READY, address};
use events::{CAST, Change, Event, Events, PORTS};
use judge::{Judge, Wrong};
use lines::Lines;
use model::{Endpoint, State};

/// Each endpoint sends to everybody else once in this time.
const PACE: Duration = Duration::from_millis(30);
/// What was not there by then does not come any more.
const LATE: Duration = Duration::from_secs(3);
/// A change is in force on both hosts within this, also where one has to start first.
const SETTLED: Duration = Duration::from_secs(30);
/// Who is attached anew has found its neighbours within this: it asks while its interface is being made, hears nothing,
/// and asks again a second later.
const RESOLVED: Duration = Duration::from_millis(1500);
/// How long nothing happens after a change: long enough for losses to be its own and not of the next one.
const QUIET: Duration = Duration::from_millis(400);

#[test]
fn no_verdict_is_wrong_at_any_time_whatever_happens() {
    let mut story = Story::begin(seed(3));
    story.go_on_for(32);
    story.tell();
    story.find_a_wrong_verdict();
}

#[test]
#[ignore = "takes most of an hour"]
fn no_verdict_is_wrong_in_thousands_of_events() {
    let first = seed(100);
    for seed in first..first + 3 {
        let mut story = Story::begin(seed);
        story.go_on_for(700);
        story.tell();
    }
}

fn seed(usual: u64) -> u64 {
    std::env::var("WEFT_SEED").map_or(usual, |seed| seed.parse().expect("WEFT_SEED is a number"))
}

struct Story {
    seed: u64,
    /// Dropped before the cluster: it sends.
    lines: Lines,
    mesh: Mesh,
    judge: Judge,
    cluster: Cluster,
    cast: Vec<Container>,
    events: Events,
    state: State,
    /// Who was attached just now.
    came: BTreeSet<usize>,
    /// What happened, for whoever has to find out.
    log: Vec<String>,
    began: Instant,
    /// Of [`lost_for_want_of_time`], when datagrams were judged last.
    lost: u64,
    /// How many changes were made, and daemons killed.
    counts: [u64; 2],
}

impl Story {
    fn begin(seed: u64) -> Self {
        let cluster = Cluster::of(2, Family::V4);
        let manifest = cluster.file.with_file_name("first.yaml");
        fs::write(&manifest, events::MANIFEST).unwrap();
        cluster.weft(0, &["policy", "apply", "-f", manifest.to_str().unwrap()]);
        settle(&cluster);
        let mut state = events::first();
        let mut cast = Vec::new();
        for (endpoint, (name, app, host)) in state.endpoints.iter_mut().zip(CAST) {
            let netns = cluster.hosts[host].container(name);
            let path = netns.path();
            let line = events::attach(endpoint, app);
            let mut arguments: Vec<_> = line.split(' ').collect();
            arguments.push(path.to_str().unwrap());
            let attached = cluster.weft(host, &arguments);
            let [v4, v6] = [0, 1].map(|at| address(&attached["addresses"][at]));
            assert!(v4.is_ipv4() && v6.is_ipv6(), "{attached:#}");
            (endpoint.v4, endpoint.v6) = (v4, v6);
            cast.push(Container { netns, mac: [0; 6], v4, v6 });
        }
        settle(&cluster);
        let containers = cast.iter().map(|container| &container.netns);
        let hosts = cluster.hosts.iter().map(Host::namespace);
        let station = |(netns, who): (&Netns, &Endpoint)| {
            let (netns, v4, v6) = (netns.clone(), who.v4, who.v6);
            Station { netns, v4, v6, also: who.gateways.as_flattened().to_vec() }
        };
        let stations = containers.chain(hosts).zip(&state.endpoints).map(station);
        let mesh = Mesh::start(stations.collect(), &PORTS, PACE);
        let judge = Judge::new(mesh.ways(), &state);
        let (events, lost) = (Events::of(seed), lost_for_want_of_time());
        let (lines, log, began, counts) = (Lines::default(), Vec::new(), Instant::now(), [0; 2]);
        let came = BTreeSet::new();
        Self { seed, lines, mesh, judge, cluster, cast, events, state, came, log, began, lost, counts }
    }

    fn go_on_for(&mut self, events: usize) {
        self.rest(&[]);
        for _ in 0..events {
            let event = self.events.next(&self.state);
            let mut states = vec![self.state.clone()];
            match event {
                Event::Changes(changes) => {
                    for change in changes {
                        self.make(&change);
                        states.push(change.after);
                    }
                }
                Event::Restart(host) => {
                    self.kill(host);
                    self.rest(&states);
                    self.start(host);
                }
                Event::ChangeWhileDead(host, change) => {
                    self.kill(host);
                    self.make(&change);
                    states.push(change.after);
                    self.start(host);
                }
                Event::ChangeWhileDying(host, change) => {
                    self.make(&change);
                    states.push(change.after);
                    // At any instant of what it does about it.
                    self.kill(host);
                    self.start(host);
                }
            }
            settle(&self.cluster);
            self.judge.settled(self.came.clone());
            self.note("settled");
            if !self.came.is_empty() {
                self.wait(RESOLVED);
                self.came.clear();
                self.judge.settled(BTreeSet::new());
            }
            self.rest(&states);
        }
        let end = Instant::now();
        self.wait(LATE);
        self.look(end);
    }

    /// Lets nothing happen for a while, and looks at what has become of everything.
    fn rest(&mut self, states: &[State]) {
        self.wait(QUIET);
        if !states.is_empty() {
            let looked = self.lines.look(&self.cast, states);
            looked.unwrap_or_else(|wrong| self.fail(&wrong));
        }
        self.look(Instant::now().checked_sub(LATE).expect("the machine runs for longer"));
    }

    /// Waits for so much time, and for datagrams of all of it.
    fn wait(&self, time: Duration) {
        let (began, rounds) = (Instant::now(), self.mesh.rounds());
        let enough = u64::try_from(time.as_millis() / PACE.as_millis() / 2).unwrap();
        eventually(SETTLED, || began.elapsed() >= time && self.mesh.rounds() >= rounds + enough);
    }

    fn make(&mut self, change: &Change) {
        let Change { host, arguments, manifest, after, busy } = change;
        let (mut arguments, mut more) = (arguments.clone(), Vec::new());
        if let Some(text) = manifest {
            let file = self.cluster.file.with_file_name("event.yaml");
            fs::write(&file, text).unwrap();
            more.extend(["-f".to_owned(), file.to_str().unwrap().to_owned()]);
        }
        if arguments[0] == "attach" {
            let at = busy.expect("somebody is attached");
            self.came.insert(at);
            more.push(self.cast[at].netns.path().to_str().unwrap().to_owned());
        }
        self.note(&format!("h{}: weft {}", host + 1, arguments.join(" ")));
        if let Some(text) = manifest {
            self.note(text);
        }
        arguments.append(&mut more);
        self.judge.begins(after, *busy);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = self.cluster.weft(*host, &arguments);
        assert_ne!(answer["in_force"], Value::Bool(false), "{arguments:?}: {answer:#}");
        self.note("answered");
        self.state = after.clone();
        self.counts[0] += 1;
    }

    fn kill(&mut self, host: usize) {
        self.note(&format!("h{}: kill -9", host + 1));
        self.cluster.hosts[host].kill9();
        self.counts[1] += 1;
    }

    fn start(&mut self, host: usize) {
        self.note(&format!("h{}: start", host + 1));
        self.cluster.start(host);
        self.cluster.hosts[host].wait_ready(READY);
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{:>10.3?} {what}", self.began.elapsed()));
    }

    /// Judges everything that was sent before.
    fn look(&mut self, before: Instant) {
        let wrong = self.wrong_before(before);
        if !wrong.is_empty() {
            self.fail(&format!("{} wrong verdicts:\n{}", wrong.len(), self.told(&wrong)));
        }
        let strange = self.mesh.strange();
        if !strange.is_empty() {
            self.fail(&strange.join("\n"));
        }
    }

    /// Those sent before that were wrong, in order of time.
    fn wrong_before(&mut self, before: Instant) -> Vec<(usize, Probe, Wrong)> {
        let all = self.mesh.take(before);
        let lost = lost_for_want_of_time();
        let excused = std::mem::replace(&mut self.lost, lost) != lost;
        assert_eq!(self.mesh.overflowed(), 0, "receivers had no room: this machine is too slow for the pace");
        let judge = |(place, probe): (usize, Probe)| {
            let judged = self.judge.judge(place, &probe, excused);
            judged.err().map(|wrong| (place, probe, wrong))
        };
        let mut wrong: Vec<_> = all.into_iter().filter_map(judge).collect();
        wrong.sort_by_key(|(_, probe, _)| probe.sent);
        wrong
    }

    /// By pairs, each with its first and its last.
    fn told(&self, wrong: &[(usize, Probe, Wrong)]) -> String {
        let party = |at: usize| match CAST.get(at) {
            Some((name, _, host)) => format!("{name} on h{}", host + 1),
            None => self.state.endpoints[at].name.to_owned(),
        };
        let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, probe, wrong) in wrong {
            let Way { from, to, family, port } = self.mesh.ways()[*place];
            let sent = probe.sent.saturating_duration_since(self.began);
            pairs.entry((*wrong, from, to)).or_default().push((sent, family, port, probe.refused));
        }
        let line = |((wrong, from, to), all): (&(Wrong, usize, usize), &Vec<_>)| {
            let (first, last) = (all.first(), all.last());
            format!("{wrong:?}: {} from {} to {}, {first:.3?} to {last:.3?}", all.len(), party(*from), party(*to))
        };
        pairs.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// With all that somebody needs to find out why.
    fn fail(&self, wrong: &str) -> ! {
        let last = self.log.len().saturating_sub(60);
        let rules: Vec<_> = self.state.rules.iter().map(|rule| format!("{}: {rule}", rule.owner)).collect();
        let drops = [0, 1].map(|host| self.cluster.weft(host, &["drops"])["counters"].to_string());
        let repaired = [0, 1].map(|host| self.cluster.repaired(host));
        panic!(
            "seed {}: {wrong}\nthe last of what happened:\n{}\nthe state:\n{:?}\n{:?}\n{}\n{}\nrepaired: {repaired:?}",
            self.seed,
            self.log[last..].join("\n"),
            self.state.apps,
            self.state.endpoints,
            rules.join("\n"),
            drops.join("\n"),
        );
    }

    fn tell(&self) {
        let ([changes, kills], [made, stayed, cut]) = (self.counts, self.lines.counts);
        let tally = &self.judge.tally;
        eprintln!(
            "seed {}: {changes} changes, {kills} daemons killed, in {:.1?}: {tally:?}; {made} connections made, looked \
             at {stayed} times while they stayed, {cut} cut",
            self.seed,
            self.began.elapsed()
        );
        assert!(tally.passed > 10_000 && tally.kept_out > 10_000, "both verdicts were asked for: {tally:?}");
        assert!(tally.unjudged < tally.passed / 100, "{tally:?}");
    }

    /// A change that the model is not told of shows as wrong, within this test's own time.
    fn find_a_wrong_verdict(&mut self) {
        for app in &self.state.apps {
            // What is only tried loses nothing.
            self.cluster.weft(0, &["app", "set", app.name, "--shadow", "off"]);
        }
        // Where nothing passes nothing can be lost.
        let (word, expect) =
            if self.judge.lets_pass() { ("reject", (Wrong::Lost, 0)) } else { ("allow", (Wrong::Came, 1)) };
        self.cluster.weft(0, &[word, "everyone -> everyone precedence 20000000"]);
        settle(&self.cluster);
        self.wait(QUIET);
        let began = Instant::now();
        self.wait(LATE);
        let wrong = self.wrong_before(began);
        assert!(!wrong.is_empty(), "seed {}: what {word} does to datagrams is found", self.seed);
        assert!(wrong.iter().all(|(_, probe, wrong)| (*wrong, probe.times) == expect));
    }
}

/// Waits until both hosts enforce the same, and that is the newest they know of.
fn settle(cluster: &Cluster) {
    eventually(SETTLED, || {
        let [one, other] = [0, 1].map(|host| cluster.weft(host, &["status"]));
        let is_done = |status: &Value| status["digest"].is_string() && status["in_force"] == status["revision"];
        is_done(&one) && is_done(&other) && one["digest"] == other["digest"]
    });
}
