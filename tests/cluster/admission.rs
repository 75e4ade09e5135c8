//! What the tables have no room for is refused before the store has it; what a hand writes into the file is told.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use weft_tests::traffic::{Outcome, ping::ping, stream::Stream};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, READY, SILENCE, SOON};

/// Each gives every role of shop two sets more in both slots: with two of them the table is full to the last entry.
const ENDS: [&str; 3] = [
    "allow shop -> shop tcp/1 until 2099-01-01T01:00:00Z",
    "allow shop -> shop tcp/2 until 2099-01-01T02:00:00Z",
    "allow shop -> shop tcp/3 until 2099-01-01T03:00:00Z",
];

const TOO_MANY: &str = "SETS needs 174 7";

/// One host, with an app of so many roles that its sets fill a third of their table.
fn crowded() -> Cluster {
    let mut cluster = Cluster::without_daemons(1, Family::V4);
    let text = fs::read_to_string(&cluster.file).unwrap();
    let mut roles = String::from("roles = [\"web\", \"db\"");
    for role in 1..=10_917 {
        write!(roles, ", {{ name = \"r{role}\", number = {} }}", 20_000 + role).unwrap();
    }
    fs::write(&cluster.file, text.replacen("roles = [\"web\", \"db\"", &roles, 1)).unwrap();
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    cluster
}

fn manifest(cluster: &Cluster, rules: &[&str]) -> String {
    let path = cluster.file.with_file_name("ends.yaml");
    let rules = rules.join("\n  - ");
    let expect = "blog/db -> shop deny";
    fs::write(&path, format!("weft: v1\npolicy: ends\nrules:\n  - {rules}\nexpect:\n  - {expect}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What can be other after a change.
fn state(cluster: &Cluster) -> (String, Value, Value) {
    let status = cluster.weft(0, &["status"]);
    assert_eq!(status["degraded"], serde_json::json!([]), "{status:#}");
    assert_eq!(status["revision"], status["in_force"], "{status:#}");
    (fs::read_to_string(&cluster.file).unwrap(), status["revision"].clone(), status["digest"].clone())
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let cluster = crowded();
    let [web, db] = [("a1", "shop/web"), ("a2", "shop/db")].map(|(name, member)| cluster.container(0, name, member));
    let blog = cluster.container(0, "b1", "blog/db");
    let stream = Stream::listen(&db.netns, db.at(9001)).connect_from(&web.netns, SOON);
    cluster.weft(0, &["allow", said(ENDS[0])]);
    let before = state(&cluster);
    let refused = |arguments: &[&str]| {
        let (status, stdout, stderr) = cluster.hosts[0].weft_text(arguments);
        assert_eq!(status.code(), Some(1), "weft {arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(TOO_MANY) && stderr.contains(" of 131 072 entries, rejected: "), "{stderr}");
        assert!(stderr.contains("use fewer roles"), "{stderr}");
        assert_eq!(state(&cluster), before, "weft {arguments:?}");
        stderr
    };

    let (all, file) = (manifest(&cluster, &ENDS), cluster.file.to_str().unwrap());
    for asked in [
        &["policy", "apply", "-f", &all][..],
        &["policy", "diff", "-f", &all],
        &["policy", "validate", "-f", &all, "--cluster", file],
        &["policy", "test", "-f", &all, "--cluster", file],
        &["deny", "shop", "blog", "tcp/22", "--shadow"],
        &["app", "set", "blog", "--shadow", "on"],
    ] {
        let told = refused(asked);
        assert!(told.starts_with("weft: ") && told.contains("fit into the tables"), "{told}");
    }
    assert!(stream.flows_within(SOON) && stream.client_death().is_none());
    assert_eq!(ping(&web.netns, db.v4, SOON), Outcome::Reached);
    assert_eq!(ping(&web.netns, blog.v4, SILENCE), Outcome::TimedOut);

    // What fits is taken as before, and what makes room is.
    cluster.weft(0, &["allow", said(ENDS[1])]);
    refused_as_full(&cluster, &["allow", said(ENDS[2])], TOO_MANY);
    let (full, netns) = (state(&cluster), cluster.hosts[0].container("a3"));
    let path = netns.path();
    let attach = ["attach", path.to_str().unwrap(), "--app", "shop", "--label", "env=prod"];
    refused_as_full(&cluster, &attach, "SETS needs 131 084");
    refused_as_full(&cluster, &["label", "shop/a1", "env=prod"], "SETS needs 131 084");
    assert_eq!(state(&cluster), full);
    assert_eq!(cluster.weft(0, &["ps"])["endpoints"].as_array().unwrap().len(), 3);
    cluster.weft(0, &["policy", "rm", ENDS[0]]);
    cluster.weft(0, &["allow", said(ENDS[2])]);
}

/// A rule as the command that is called like its action takes it.
fn said(rule: &str) -> &str {
    rule.strip_prefix("allow ").unwrap()
}

fn refused_as_full(cluster: &Cluster, arguments: &[&str], needs: &str) {
    let (status, _, stderr) = cluster.hosts[0].weft_text(arguments);
    assert!(status.code() == Some(1) && stderr.contains(needs), "weft {arguments:?}: {stderr}");
}

#[test]
fn what_a_hand_writes_and_does_not_fit_is_told_and_can_be_repaired_in_steps() {
    let cluster = crowded();
    let [web, db] = [("a1", "shop/web"), ("a2", "shop/db")].map(|(name, member)| cluster.container(0, name, member));
    let before = state(&cluster);
    let tried = "shadow deny shop -> blog tcp/22";
    let rules: Vec<String> = ENDS.iter().chain([&tried]).map(|rule| format!("{rule:?}")).collect();
    let text = before.0.replacen("rules = []", &format!("rules = [{}]", rules.join(", ")), 1);
    fs::write(&cluster.file, text).unwrap();
    let degraded = || cluster.weft(0, &["status"])["degraded"].to_string();
    eventually(READY, || degraded().contains("the tables stay as they are: SETS needs 349 "));
    let status = cluster.weft(0, &["status"]);
    assert_ne!(status["revision"], status["in_force"], "{status:#}");
    assert_eq!(status["digest"], before.2, "what was in force stays so");
    assert_eq!(ping(&web.netns, db.v4, SOON), Outcome::Reached);

    // The first step is not enough, and nobody is stopped from it; a step away is refused.
    cluster.weft(0, &["policy", "rm", tried]);
    assert!(degraded().contains(TOO_MANY), "{}", degraded());
    refused_as_full(&cluster, &["allow", "shop -> shop tcp/4 until 2099-01-01T04:00:00Z"], "SETS needs 218 4");
    cluster.weft(0, &["policy", "rm", ENDS[2]]);
    eventually(READY, || degraded() == "[]");
    assert_eq!(state(&cluster).0.matches("until").count(), 2);
}
