//! Other people's firewalls on the hosts: flushed, replaced and closed, all of which concerns no packet of an app.

use std::time::Duration;

use weft_tests::command::{exec, run};
use weft_tests::netns::Netns;
use weft_tests::traffic::{prober::Prober, stream::Stream, udp::UdpEcho};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, REPAIRED, SOON};

const PACE: Duration = Duration::from_millis(2);

#[test]
fn a_hosts_firewall_is_flushed_and_closed_and_no_packet_of_an_app_notices() {
    let cluster = Cluster::of(2, Family::V4);
    let here = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");
    let strangers = [cluster.container(0, "b1", "blog/db"), cluster.container(1, "b2", "blog/db")];
    let echo = |to: &super::Container| [to.at(9000), to.at6(9000)].map(|at| UdpEcho::start(&to.netns, at));
    let probe = |echo: &UdpEcho| Prober::start(&here.netns, echo.address(), PACE);
    let echoes = [echo(&near), echo(&far)];
    let allowed: Vec<Prober> = echoes.iter().flatten().map(probe).collect();
    let silent = strangers.each_ref().map(echo);
    let denied: Vec<Prober> = silent.iter().flatten().map(probe).collect();
    let streams = [&near, &far]
        .map(|to| Stream::listen(&to.netns, to.at(9001)).connect_from(&here.netns, Duration::from_mins(1)));
    for _ in 0..6 {
        for host in &cluster.hosts {
            meddle(host.namespace());
        }
    }
    for prober in &allowed {
        prober.wait_answers(20, SOON);
    }
    for prober in allowed {
        let report = prober.stop();
        assert!(report.lost.is_empty(), "lost {:?} of {}", report.lost, report.sent);
    }
    for prober in denied {
        let report = prober.stop();
        assert!(report.sent > 100 && report.lost.len() as u64 == report.sent, "{report:?}");
    }
    for stream in streams {
        assert!(stream.flows_within(SOON));
        assert!(stream.client_death().is_none() && stream.server_death().is_none());
    }
    for host in 0..2 {
        let tables = || exec(cluster.hosts[host].namespace().command("nft").args(["list", "tables"]));
        eventually(REPAIRED, || tables().contains("table inet weft"));
        eventually(SOON, || cluster.repaired(host).get("masquerading").is_some_and(|times| *times > 0));
        // Only what is ours was put back.
        assert_eq!(tables().trim(), "table inet weft");
    }
}

/// What firewalls, container engines and people do to a host, and at last everything away.
fn meddle(host: &Netns) {
    let inside = |line: &str| run(&format!("ip netns exec {} {line}", host.name()));
    for tables in ["iptables", "ip6tables"] {
        inside(&format!("{tables} -w -F"));
        inside(&format!("{tables} -w -t nat -F"));
        inside(&format!("{tables} -w -P FORWARD DROP"));
        inside(&format!("{tables} -w -A FORWARD -j REJECT"));
    }
    host.nft(
        "table inet other {
             chain forward {
                 type filter hook forward priority -10; policy drop;
             }
             chain postrouting {
                 type nat hook postrouting priority 50;
                 masquerade
             }
         }",
    );
    host.nft("flush ruleset");
}
