//! Endpoints that come and go, for as long as anybody likes: nothing of them is left.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use weft_tests::netns::Netns;
use weft_tests::traffic::{Outcome, ping::ping};
use weft_tests::underlay::Family;
use weft_tests::wait::{eventually, holds_within};

use super::{Cluster, REPAIRED, SOON};

/// Endpoints that are there at the same time, each attached by somebody of its own.
const AT_ONCE: usize = 8;

/// Memory that may be taken and not given back: the allocator's, not ours. A leak of 600 bytes in each of those that
/// come after the first of ten thousand would be more.
const SLACK_KIB: u64 = 4096;

#[test]
fn nothing_is_left_of_endpoints_that_came_and_went() {
    come_and_go(120);
}

#[test]
#[ignore = "takes minutes"]
fn nothing_is_left_of_ten_thousand_endpoints_that_came_and_went() {
    come_and_go(10_000);
}

/// What a daemon and its host hold.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    descriptors: usize,
    links: usize,
    pins: usize,
    elements: Vec<(String, u64)>,
}

fn come_and_go(count: usize) {
    let cluster = Cluster::of(1, Family::V4);
    let stays = cluster.container(0, "a1", "shop/web");
    let containers: Vec<Netns> = (0..AT_ONCE).map(|at| cluster.hosts[0].container(&format!("c{at}"))).collect();
    // The first ones make the daemon grow to what it needs: threads, their arenas, buffers.
    let first = count / 4;
    let mut took = Vec::new();
    rounds(&cluster, &containers, (0, first), &mut took);
    let before = eventually_quiet(&cluster);
    let running = threads(&cluster);
    let memory = resident(&cluster);
    let store = store_size(&cluster);
    took.clear();

    let began = Instant::now();
    rounds(&cluster, &containers, (first, count), &mut took);
    let whole = began.elapsed();
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    eprintln!(
        "{} attached and detached, {AT_ONCE} at once, in {whole:.1?}; attach took {:?} median, {:?} p99; \
         resident {memory} to {} KiB, store {store} to {} bytes",
        count - first,
        at(50),
        at(99),
        resident(&cluster),
        store_size(&cluster)
    );
    // What is in use for a moment, as the descriptor of a table that is read, is not kept.
    let mut after = held(&cluster);
    holds_within(REPAIRED, || {
        after = held(&cluster);
        after == before
    });
    assert_eq!(after, before);
    // Those that wait for work come and go, and asking keeps them from going.
    assert!(threads(&cluster) <= running + AT_ONCE, "from {running} to {} threads", threads(&cluster));
    assert!(resident(&cluster) <= memory + SLACK_KIB, "from {memory} to {} KiB", resident(&cluster));
    // Free pages are used again; the file grows in steps.
    assert!(store_size(&cluster) <= 2 * store, "from {store} to {} bytes", store_size(&cluster));
    let other = cluster.container(0, "a3", "shop/db");
    assert_eq!(ping(&stays.netns, other.v4, SOON), Outcome::Reached);
}

/// Attaches and detaches endpoints with these numbers. Names come again after a while, as those of containers do.
fn rounds(cluster: &Cluster, containers: &[Netns], (from, to): (usize, usize), took: &mut Vec<Duration>) {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|worker| {
                scope.spawn(move || {
                    let mut took = Vec::new();
                    let path = containers[worker].path();
                    for number in (from..to).filter(|number| number % AT_ONCE == worker) {
                        let (app, role) = if number % 3 == 0 { ("blog", "db") } else { ("shop", "web") };
                        let name = format!("n{}", number % 64);
                        let target = path.to_str().unwrap();
                        let began = Instant::now();
                        cluster.weft(0, &["attach", target, "--app", app, "--role", role, "--name", &name]);
                        took.push(began.elapsed());
                        cluster.weft(0, &["detach", &format!("{app}/{name}")]);
                    }
                    took
                })
            })
            .collect();
        took.extend(workers.into_iter().flat_map(|worker| worker.join().unwrap()));
    });
}

/// What is held when it has been the same for two looks: the kernel frees some things later.
fn eventually_quiet(cluster: &Cluster) -> Held {
    let mut last = held(cluster);
    eventually(SOON, || {
        let now = held(cluster);
        std::mem::replace(&mut last, now.clone()) == now
    });
    last
}

fn held(cluster: &Cluster) -> Held {
    let host = &cluster.hosts[0];
    let process = |what: &str| fs::read_dir(format!("/proc/{}/{what}", host.daemon_pid())).unwrap().count();
    let maps = cluster.weft(0, &["maps"]);
    let used = |map: &serde_json::Value| (map["name"].as_str().unwrap().to_owned(), map["used"].as_u64().unwrap());
    Held {
        descriptors: process("fd"),
        links: host.namespace().ip("-o link").lines().count(),
        pins: files(host.bpffs()),
        elements: maps["maps"].as_array().unwrap().iter().map(used).filter(|(name, _)| name != "FLOWS").collect(),
    }
}

fn threads(cluster: &Cluster) -> usize {
    fs::read_dir(format!("/proc/{}/task", cluster.hosts[0].daemon_pid())).unwrap().count()
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// The daemon's memory, in KiB.
fn resident(cluster: &Cluster) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.hosts[0].daemon_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn store_size(cluster: &Cluster) -> u64 {
    fs::metadata(cluster.hosts[0].state_directory().join("weft.redb")).unwrap().len()
}
