//! What an app exchanges is learned, and is all that passes when it is applied.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weft_tests::host::binary;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    tcp::{TcpEcho, tcp_connect, tcp_echo},
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, SILENCE, SOON};

/// Learns shop on host 1 while `traffic` is made, until it is interrupted. What came of it.
fn learned(cluster: &Cluster, arguments: &[&str], traffic: impl FnOnce()) -> (Option<i32>, Value) {
    let mut command = cluster.hosts[0].namespace().command(binary("weft"));
    command.arg("--socket").arg(cluster.hosts[0].socket());
    command.args(["--json", "policy", "learn", "--app", "shop", "--for", "1h"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.starts_with("weft: looking at shop on h1"), "{line}");
    traffic();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    told.read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    (status.code(), serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
}

fn shadow(cluster: &Cluster, switch: &str) {
    cluster.weft(0, &["app", "set", "shop", "--shadow", switch]);
    for at in 0..2 {
        eventually(SOON, || cluster.weft(at, &["app", "show", "shop"])["app"]["shadow"] == (switch == "on"));
        eventually(SOON, || {
            let status = cluster.weft(at, &["status"]);
            status["in_force"] == status["revision"]
        });
    }
}

fn rules(learned: &Value) -> Vec<&str> {
    let lines = learned["manifest"].as_str().unwrap().lines();
    lines.filter_map(|line| line.strip_prefix("  - allow ")).collect()
}

#[test]
fn what_an_app_exchanges_is_learned_and_nothing_else_passes_then() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "a2", "shop/db");
    let blog = cluster.container(1, "b2", "blog/db");
    shadow(&cluster, "on");
    let (queries, other) = (TcpEcho::start(&db.netns, db.at(5432)), TcpEcho::start(&db.netns, db.at(5433)));
    let (names, pages) = (UdpEcho::start(&db.netns, db.at(53)), TcpEcho::start(&web.netns, web.at(80)));
    let back = TcpEcho::start(&web.netns, web.at(5432));
    let passes = || {
        assert_eq!(tcp_echo(&web.netns, queries.address(), SOON), Outcome::Reached);
        // Over as soon as it is open.
        assert_eq!(tcp_connect(&blog.netns, pages.address(), SOON), Outcome::Reached);
        assert_eq!(udp_echo(&web.netns, names.address(), SOON), Outcome::Reached);
        assert_eq!(ping(&web.netns, db.v4, SOON), Outcome::Reached);
    };
    let peer = format!("h2={}", cluster.hosts[1].socket().to_str().unwrap());
    let file = cluster.file.with_file_name("learned.yaml").to_str().unwrap().to_owned();
    let (status, seen) = learned(&cluster, &["--host-socket", &peer, "-o", &file], passes);
    assert_eq!((status, &seen["unseen"], &seen["against"]), (Some(0), &json!([]), &json!([])), "{seen:#}");
    assert_eq!(seen["notes"], json!([]), "{seen:#}");
    let mut found = rules(&seen);
    found.sort_unstable();
    let expect = [
        "blog/db -> shop/web tcp/80",
        "shop/web -> shop/db icmp/8",
        "shop/web -> shop/db tcp/5432",
        "shop/web -> shop/db udp/53",
    ];
    assert_eq!(found, expect, "{seen:#}");

    // One host alone knows of other hosts' endpoints who answered, and says whom nobody asked.
    let (status, alone) = learned(&cluster, &[], || ());
    let apart = json!(["host h2 was not asked: name its daemon with --host-socket h2=PATH"]);
    assert_eq!((status, &alone["unseen"]), (Some(3), &apart), "{alone:#}");
    assert_eq!(rules(&alone).len(), expect.len(), "{alone:#}");

    cluster.weft(0, &["policy", "validate", "-f", &file]);
    cluster.weft(0, &["policy", "apply", "-f", &file, "--wait", "--host-socket", &peer]);
    shadow(&cluster, "off");
    passes();
    for (from, to) in
        [(&web, other.address()), (&db, back.address()), (&blog, back.address()), (&blog, queries.address())]
    {
        assert_eq!(tcp_connect(&from.netns, to, SILENCE), Outcome::TimedOut, "{to}");
    }
    for (from, to) in [(&db, web.v4), (&blog, web.v4), (&web, blog.v4)] {
        assert_eq!(ping(&from.netns, to, SILENCE), Outcome::TimedOut, "{to}");
    }
}
