//! Namespaces that are gone while somebody holds them, and names that come to mean another one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weft_tests::command::{run, try_run};
use weft_tests::netns::{DIRECTORY, Netns};
use weft_tests::sweep::owned_name;
use weft_tests::traffic::{Outcome, ping::ping};
use weft_tests::underlay::Family;
use weft_tests::wait::{eventually, holds_within};

use super::{Cluster, READY, REPAIRED, SILENCE, SOON};

/// A namespace that nobody holds: it is gone with its name.
struct Named(String);

impl Named {
    fn new(label: &str) -> Self {
        let name = owned_name(label);
        run(&format!("ip netns add {name}"));
        Self(name)
    }

    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", self.0)
    }

    fn inode(&self) -> u64 {
        fs::metadata(self.path()).unwrap().ino()
    }

    /// Another namespace under this name, with the number that the last one had if the kernel gives it out again.
    fn replace(&self) -> bool {
        let before = self.inode();
        // Tests beside this one take numbers too.
        holds_within(Duration::from_secs(1), || {
            run(&format!("ip netns delete {}", self.0));
            run(&format!("ip netns add {}", self.0));
            self.inode() == before
        })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Err(error) = try_run(&format!("ip netns delete {}", self.0)) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn of_an_endpoint_whose_process_was_killed_nothing_is_left_although_its_namespace_is_held() {
    let cluster = Cluster::of(2, Family::V4);
    let far = cluster.container(1, "a2", "shop/db");
    let empty = traces(&cluster, 0);
    let held = cluster.hosts[0].container("held");
    let mut process = held.command("sleep").arg("1000").spawn().unwrap();
    let zombie = attach(&cluster, &process.id().to_string(), &["--name", "z1"]);
    assert_eq!(ping(&far.netns, address(&zombie), SOON), Outcome::Reached);
    assert_ne!(traces(&cluster, 0), empty);

    process.kill().unwrap();
    process.wait().unwrap();
    eventually(REPAIRED, || traces(&cluster, 0) == empty);
    assert!(try_run(&format!("ip -n {} link show eth0", held.name())).is_err());
    let before = cluster.drops(0, "no-route");
    assert_ne!(ping(&far.netns, address(&zombie), SILENCE), Outcome::Reached);
    assert!(cluster.drops(0, "no-route") > before);
}

#[test]
fn an_endpoint_goes_with_its_namespace_and_its_address_comes_to_the_next_of_its_name() {
    let cluster = Cluster::of(2, Family::V4);
    let far = cluster.container(1, "a2", "shop/db");
    let empty = traces(&cluster, 0);
    let first = Named::new("first");
    let attached = attach(&cluster, &first.path(), &["--name", "z1"]);
    assert_eq!(ping(&far.netns, address(&attached), SOON), Outcome::Reached);
    drop(first);
    eventually(REPAIRED, || traces(&cluster, 0) == empty);
    assert_ne!(ping(&far.netns, address(&attached), SILENCE), Outcome::Reached);

    let second = Named::new("second");
    let again = attach(&cluster, &second.path(), &["--name", "z1"]);
    assert_eq!(address(&again), address(&attached));
    assert_eq!(ping(&far.netns, address(&again), SOON), Outcome::Reached);
}

#[test]
fn an_interface_that_a_container_deletes_is_made_again_and_counted() {
    let cluster = Cluster::of(1, Family::V4);
    let here = cluster.container(0, "a1", "shop/web");
    let other = cluster.container(0, "a3", "shop/db");
    here.netns.ip("link delete eth0");
    eventually(REPAIRED, || ping(&here.netns, other.v4, Duration::from_millis(100)) == Outcome::Reached);
    eventually(SOON, || cluster.repaired(0).get("devices") == Some(&1));
    assert_eq!(ping(&here.netns, other.v6, SOON), Outcome::Reached);
}

/// Nobody asked for the new one to be in the app, whoever gave it the name.
#[test]
fn a_namespace_that_comes_under_the_name_and_number_of_another_is_not_taken_for_it() {
    let mut cluster = Cluster::of(1, Family::V4);
    let empty = traces(&cluster, 0);
    let name = Named::new("name");
    attach(&cluster, &name.path(), &["--name", "z1"]);
    for running in [false, true] {
        if !running {
            cluster.hosts[0].kill9();
        }
        let same = name.replace();
        // The number is the kernel's to give; without it the test asks for less, which says whether it did.
        eprintln!("the new namespace has the number of the old one: {same}");
        if !running {
            cluster.start(0);
            cluster.hosts[0].wait_ready(READY);
        }
        eventually(REPAIRED, || traces(&cluster, 0) == empty);
        let inside = run(&format!("ip -n {} -br link", name.0));
        assert!(!inside.contains("eth0") && !inside.contains("weft"), "{inside}");
        attach(&cluster, &name.path(), &["--name", "z1"]);
        let inside = run(&format!("ip -n {} -br link", name.0));
        assert!(inside.contains("eth0"), "{inside}");
    }
}

#[test]
fn a_name_that_is_given_to_another_namespace_takes_the_endpoint_along_at_once() {
    let cluster = Cluster::of(2, Family::V4);
    let far = cluster.container(1, "a2", "shop/db");
    // The handle keeps the first one alive when its name is gone.
    let zombie: Netns = cluster.hosts[0].container("z1");
    let path = zombie.path();
    let first = attach(&cluster, path.to_str().unwrap(), &["--name", "z1"]);
    assert_eq!(ping(&far.netns, address(&first), SOON), Outcome::Reached);
    run(&format!("ip netns delete {}", zombie.name()));
    run(&format!("ip netns add {}", zombie.name()));
    let second = attach(&cluster, path.to_str().unwrap(), &["--name", "z1"]);
    assert_eq!(address(&second), address(&first));
    assert_eq!(ping(&far.netns, address(&second), SOON), Outcome::Reached);
    assert!(run(&format!("ip -n {} -br link", zombie.name())).contains("eth0"));
    let left = zombie.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert!(!left.contains("eth0"), "{left}");
}

fn attach(cluster: &Cluster, target: &str, more: &[&str]) -> Value {
    cluster.weft(0, &[&["attach", target, "--app", "shop", "--role", "web"], more].concat())
}

fn address(attached: &Value) -> std::net::IpAddr {
    super::address(&attached["addresses"][0])
}

/// What a host has of endpoints: endpoints, elements of tables, links, pins.
fn traces(cluster: &Cluster, host: usize) -> (usize, Vec<u64>, usize, usize) {
    let endpoints = cluster.weft(host, &["ps"])["endpoints"].as_array().unwrap().len();
    let maps = cluster.weft(host, &["maps"]);
    let used =
        |name: &str| maps["maps"].as_array().unwrap().iter().find(|map| map["name"] == name).unwrap()["used"].as_u64();
    let elements = ["ENDPOINTS", "ROUTES", "MEMBERS"].map(|name| used(name).unwrap()).into();
    let links = cluster.hosts[host].namespace().ip("-o link show type veth").matches("weft").count();
    (endpoints, elements, links, pinned(cluster.hosts[host].bpffs()))
}

fn pinned(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { pinned(&entry.path()) } else { 1 }).sum()
}
