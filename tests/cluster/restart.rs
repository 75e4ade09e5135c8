//! The daemon may die at any instant.

use std::time::Duration;

use aya::programs::{SchedClassifier, tc::TcAttachType};
use weft_tests::command::{exec, output};
use weft_tests::host::binary;
use weft_tests::traffic::{Outcome, ping::ping, prober::Prober, stream::Stream, udp::UdpEcho};
use weft_tests::underlay::Family;

use super::{Cluster, READY, SILENCE, SOON};

#[test]
fn nothing_is_lost_and_nothing_leaks_while_daemons_are_killed() {
    let mut cluster = Cluster::of(2, Family::V4);
    let here = cluster.container(0, "a1", "shop/web");
    let far = cluster.container(1, "a2", "shop/db");
    let other = cluster.container(1, "b2", "blog/db");
    let echo = UdpEcho::start(&far.netns, far.at(9000));
    let stream = Stream::listen(&far.netns, far.at(9001)).connect_from(&here.netns, SOON);
    let prober = Prober::start(&here.netns, echo.address(), Duration::from_millis(2));
    for round in 0..5 {
        for host in 0..2 {
            cluster.hosts[host].kill9();
            assert_eq!(ping(&here.netns, far.v4, SOON), Outcome::Reached, "round {round}: no daemon on h{}", host + 1);
            assert_eq!(ping(&here.netns, other.v4, SILENCE), Outcome::TimedOut, "round {round}");
            cluster.start(host);
            cluster.hosts[host].wait_ready(READY);
            assert_eq!(ping(&here.netns, other.v4, SILENCE), Outcome::TimedOut, "round {round}: started again");
        }
    }
    let report = prober.stop();
    assert!(report.lost.is_empty(), "lost {:?} of {}", report.lost, report.sent);
    assert!(stream.flows_within(SOON));
    assert!(stream.client_death().is_none() && stream.server_death().is_none());
}

#[test]
fn a_reset_leaves_the_host_as_it_was() {
    let mut cluster = Cluster::of(1, Family::V4);
    let namespace = cluster.hosts[0].namespace().clone();
    let container = cluster.container(0, "a1", "shop/web");
    assert!(namespace.ip("-br link").contains("weft0"));
    cluster.weft(0, &["reset", "--yes"]);
    assert!(!namespace.ip("-br link").contains("weft"), "{}", namespace.ip("-br link"));
    assert!(!namespace.ip("route show table all").contains("proto 119"));
    assert!(!container.netns.ip("-br link").contains("eth0"));
    let tables = exec(namespace.command("nft").args(["list", "tables"]));
    assert!(!tables.contains("weft"), "{tables}");
    let bpffs = cluster.hosts[0].bpffs().to_owned();
    let left: Vec<_> = std::fs::read_dir(&bpffs).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // It has ended by itself.
    assert!(cluster.hosts[0].stop().success());
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
}

#[test]
fn a_reset_without_a_daemon_removes_the_same_and_leaves_what_others_made() {
    let mut cluster = Cluster::of(2, Family::V4);
    let namespace = cluster.hosts[0].namespace().clone();
    let container = cluster.container(0, "a1", "shop/web");
    namespace.nft("table inet other {\n}");
    namespace.ip("link add theirs type veth peer name other");
    let (state, bpffs) = (cluster.hosts[0].state_directory(), cluster.hosts[0].bpffs().to_owned());
    let folders = ["--state-dir", state.to_str().unwrap(), "--bpffs", bpffs.to_str().unwrap()];
    let reset = [&["reset", "--yes"], &folders[..]].concat();

    // A socket that nobody listens at, while the daemon runs.
    let mut elsewhere = namespace.command(binary("weft"));
    elsewhere.args(["--socket", "/nowhere/weft.sock"]).args(&reset);
    let (status, _, why) = output(&mut elsewhere);
    assert!(!status.success() && why.contains("a weftd uses"), "{why}");
    let mut lost = namespace.command(binary("weft"));
    lost.args(["--socket", "/nowhere/sock", "reset", "--yes", "--state-dir", "/nowhere/a", "--bpffs", "/nowhere/b"]);
    let (status, _, why) = output(&mut lost);
    assert!(!status.success() && why.contains("name the daemon's folders"), "{why}");
    assert!(namespace.ip("-br link").contains("weft0"));

    cluster.hosts[0].kill9();
    let done = cluster.weft(0, &reset);
    let removed = done["removed"].to_string();
    for what in ["1 links of endpoints", "from_underlay at eth0", "weft0", "nftables", "sysctl", "pins"] {
        assert!(removed.contains(what), "{what} is not among {removed}");
    }
    assert_eq!(done["left"], serde_json::json!([]));
    let links = namespace.ip("-br link");
    assert!(!links.contains("weft") && links.contains("theirs"), "{links}");
    assert!(!namespace.ip("route show table all").contains("proto 119"));
    assert!(!container.netns.ip("-br link").contains("eth0"));
    let tables = exec(namespace.command("nft").args(["list", "tables"]));
    assert_eq!(tables.trim(), "table inet other");
    assert!(!bpffs.exists());
    let attached = namespace.run(|| SchedClassifier::query_tcx("eth0", TcAttachType::Ingress).unwrap().1);
    assert!(attached.is_empty(), "{attached:?}");

    // What is gone is not told again, and a daemon starts as on a new host.
    assert_eq!(cluster.weft(0, &reset)["removed"], serde_json::json!([]));
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
}
