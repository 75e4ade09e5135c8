//! No room on the disk, no room in the tables: it is said, nothing is lost, and it works again once there is room.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use weft_tests::traffic::{Outcome, ping::ping};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, READY, SOON};

/// A small disk at a directory, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn at(directory: &Path) -> Self {
        mount(Some("weft-test"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=8m")).unwrap();
        Self(directory.to_owned())
    }

    /// Leaves nothing free.
    fn fill(&self) {
        let mut size = 8 << 20;
        while size > 0 {
            let part = self.0.join(format!("filler-{size}"));
            if fs::write(&part, vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.0).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().starts_with("filler") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

fn degraded(cluster: &Cluster, what: &str) -> Option<String> {
    let status = cluster.weft(0, &["status"]);
    let found = status["degraded"].as_array().unwrap().iter().find(|degraded| degraded["what"] == what);
    found.map(|degraded| degraded["why"].as_str().unwrap().to_owned())
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let mut cluster = Cluster::without_daemons(1, Family::V4);
    let disk = Disk::at(&cluster.hosts[0].state_directory());
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    let here = cluster.container(0, "a1", "shop/web");
    let netns = cluster.hosts[0].container("a3");
    let path = netns.path();
    let attach = ["attach", path.to_str().unwrap(), "--app", "shop", "--name", "a3"];
    disk.fill();

    // A database has room of its own until it has to grow.
    let mut refusal = String::new();
    eventually(SOON * 4, || {
        let (status, _, stderr) = cluster.hosts[0].weft_text(&attach);
        refusal = stderr;
        if status.success() {
            cluster.hosts[0].weft_text(&["detach", "shop/a3"]);
            disk.fill();
        }
        !status.success()
    });
    assert!(refusal.contains("nothing was changed: ") && refusal.contains("No space left on device"), "{refusal}");
    let why = degraded(&cluster, "state").unwrap();
    assert!(why.contains("No space left on device") && why.contains("make room"), "{why}");
    let doctor = cluster.weft_no(0, &["doctor"]);
    let state = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "state").unwrap();
    assert_eq!(state["result"], "fail", "{doctor:#}");
    // What is there goes on, also over a restart.
    assert_eq!(ping(&here.netns, super::gateway(1)[0], SOON), Outcome::Reached);
    cluster.hosts[0].kill9();
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    assert_eq!(cluster.weft(0, &["ps"])["endpoints"][0]["name"], "a1");
    assert_eq!(ping(&here.netns, super::gateway(1)[0], SOON), Outcome::Reached);

    // A description that is too long to be written down is in force all the same.
    let text = fs::read_to_string(&cluster.file).unwrap();
    let long = format!("{text}# {}\n", "x".repeat(1 << 20)).replace("rules = []", "rules = [\"allow shop -> blog\"]");
    fs::write(&cluster.file, long).unwrap();
    eventually(SOON, || degraded(&cluster, "state").is_some_and(|why| why.contains("not kept for a restart")));
    assert_eq!(cluster.weft(0, &["policy", "ls"])["rules"].as_array().unwrap().len(), 1);

    disk.free();
    // Nobody has to do anything.
    eventually(SOON * 2, || degraded(&cluster, "state").is_none());
    cluster.weft(0, &attach);
    cluster.hosts[0].kill9();
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    let names: Vec<Value> =
        cluster.weft(0, &["ps"])["endpoints"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["a1", "a3"]);
    cluster.weft(0, &["detach", "shop/a3"]);
}

#[test]
fn what_does_not_fit_into_the_tables_leaves_the_state_before_in_force() {
    let cluster = Cluster::of(2, Family::V4);
    let [here, far] = [(0, "a1"), (1, "a2")].map(|(at, name)| cluster.container(at, name, "shop/web"));
    let text = fs::read_to_string(&cluster.file).unwrap();
    let mut large = text.replace("rules = []", "rules = [\"allow blog -> shop\"]");
    // More addresses of peers than the table holds.
    for host in 0..2800_u32 {
        let at = |part: u32| format!("198.{}.{}.{}", 18 + part, host / 250, host % 250 + 1);
        writeln!(large, "[host.x{host}]\naddress = [\"{}\", \"{}\", \"{}\"]", at(0), at(1), at(2)).unwrap();
    }
    fs::write(&cluster.file, large).unwrap();
    eventually(READY, || degraded(&cluster, "reconcile").is_some_and(|why| why.contains("PEER_ADDRESSES needs 8 40")));
    let status = cluster.weft(0, &["status"]);
    assert_ne!(status["revision"], status["in_force"]);
    let table = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == "PEER_ADDRESSES").unwrap();
    assert_eq!((&table["used"], &table["max"]), (&1.into(), &8192.into()), "{table}");
    assert!(table["refused"].as_u64().is_some_and(|refused| (200..220).contains(&refused)), "{table}");
    let doctor = cluster.weft_no(0, &["doctor"]);
    assert!(doctor["checks"].as_array().unwrap().iter().any(|it| it["name"] == "tables" && it["result"] == "fail"));
    assert_eq!(ping(&here.netns, far.v4, SOON), Outcome::Reached);

    fs::write(&cluster.file, text).unwrap();
    eventually(READY, || {
        let status = cluster.weft(0, &["status"]);
        degraded(&cluster, "reconcile").is_none() && status["revision"] == status["in_force"]
    });
}
