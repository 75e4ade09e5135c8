//! What is broken is named by `weft doctor`, with what to do.

use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};
use serde_json::Value;
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, SOON};

/// What the checks of this name came to.
fn results(answer: &Value, name: &str) -> Vec<String> {
    let checks = answer["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
    checks.map(|check| format!("{} {}", check["result"].as_str().unwrap(), check["detail"].as_str().unwrap())).collect()
}

fn diagnose(cluster: &Cluster) -> (i32, Value) {
    let (status, stdout, stderr) = cluster.hosts[0].weft_text(&["doctor", "--json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    for check in answer["checks"].as_array().unwrap() {
        assert_eq!(check["result"] == "ok", check["advice"].is_null(), "what is wrong says what to do: {check}");
    }
    (status.code().unwrap(), answer)
}

#[test]
fn what_is_broken_is_named() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let host = cluster.hosts[0].namespace();
    let (code, healthy) = diagnose(&cluster);
    assert_eq!(code, 0, "{healthy:#}");
    let bad = |check: &&Value| check["result"] != "ok";
    assert_eq!(healthy["checks"].as_array().unwrap().iter().find(bad), None, "{healthy:#}");
    let names = [
        "kernel",
        "bpffs",
        "cluster file",
        "host",
        "state",
        "programs",
        "reconcile",
        "drift",
        "hooks",
        "tables",
        "peers",
        "gateway",
        "port",
        "forwarding",
        "rp_filter",
        "addresses",
        "clock",
        "memory",
    ];
    for name in names {
        assert_eq!(results(&healthy, name).len(), 1, "{name}: {healthy:#}");
    }

    // Broken and looked at before the next pass may repair it.
    let breaks = |broken: &dyn Fn(), name: &str, result: &str| {
        eventually(SOON * 2, || {
            broken();
            let (code, answer) = diagnose(&cluster);
            let found = results(&answer, name).iter().any(|found| found.starts_with(result));
            found && (code == 3) == result.starts_with("fail")
        });
    };
    let sysctl = |key: &str, value: &str| host.set_sysctl(key, value);
    breaks(&|| sysctl("ipv4/conf/weft0/forwarding", "0"), "forwarding", "fail weft0 does not forward");
    breaks(&|| sysctl("ipv4/conf/weft0/rp_filter", "1"), "rp_filter", "fail weft0 checks sources strictly");
    eventually(SOON * 2, || diagnose(&cluster).0 == 0);

    host.ip("link add other type vxlan id 7 dstport 6784");
    breaks(&|| (), "port", "fail other takes UDP port 6784");
    host.ip("link del other");
    host.ip("addr add 10.2.77.1/24 dev lo");
    breaks(&|| (), "addresses", "fail 10.2.77.1/24 of lo lies in the app prefix 10.2.0.0/16");
    host.ip("addr del 10.2.77.1/24 dev lo");
    cluster.underlay.set_mtu(1300);
    breaks(&|| (), "mtu", "warn the way to h2 takes packets of 1300 bytes, 1250 inside");
    cluster.underlay.set_mtu(1500);
    // The source that the kernel takes is not the one that the others know.
    host.ip_batch("addr add 192.0.2.77/24 dev eth0\nroute add 192.0.2.2/32 dev eth0 src 192.0.2.77\n");
    breaks(&|| (), "peers", "fail packets to h2 leave from 192.0.2.77, which is no address of h1");
    host.ip_batch("route del 192.0.2.2/32 dev eth0\naddr del 192.0.2.77/24 dev eth0\n");
    host.ip("link set eth0 down");
    breaks(&|| (), "peers", "fail there is no way to h2");
    host.ip("link set eth0 up");
    eventually(SOON * 2, || diagnose(&cluster).0 == 0);

    let text = std::fs::read_to_string(&cluster.file).unwrap();
    std::fs::write(&cluster.file, format!("{text}[host.h9]\n")).unwrap();
    breaks(&|| (), "cluster file", "fail ");
    std::fs::write(&cluster.file, text).unwrap();
    eventually(SOON, || diagnose(&cluster).0 == 0);

    host.run(|| {
        let mut object = aya::Ebpf::load(weft::kernel::load::Object::embedded().bytes()).unwrap();
        let stranger: &mut SchedClassifier = object.program_mut("to_host").unwrap().try_into().unwrap();
        stranger.load().unwrap();
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = stranger.attach_with_options("eth0", TcAttachType::Ingress, first).unwrap();
        breaks(&|| (), "hooks", "fail at eth0 ingress packets meet to_host (#");
        stranger.detach(link).unwrap();
    });
    eventually(SOON, || diagnose(&cluster).0 == 0);

    // Whoever does not answer may not be there, or a firewall is between.
    weft_tests::traffic::ping::ping(&web.netns, "10.1.2.1".parse().unwrap(), SOON);
    assert!(results(&diagnose(&cluster).1, "answers")[0].starts_with("ok packets come from h2"));
}
