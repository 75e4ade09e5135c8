//! Who an endpoint is only operators say: nothing that its container does to its own namespace changes that.

use serde_json::Value;
use weft_tests::traffic::{Outcome, ping::ping, tcp::TcpEcho, tcp::tcp_connect};
use weft_tests::underlay::Family;

use super::{Cluster, Container, READY, SILENCE, SOON, segment::wait_for_rule};

/// Everything that says who somebody is.
fn known(cluster: &Cluster) -> (Value, Value, Value) {
    let mut endpoints = cluster.weft(0, &["ps"])["endpoints"].clone();
    for endpoint in endpoints.as_array_mut().unwrap() {
        *endpoint = ["name", "app", "role", "labels", "addresses", "mac", "state"]
            .map(|field| endpoint[field].clone())
            .into_iter()
            .collect();
    }
    let status = cluster.weft(0, &["status"]);
    (endpoints, status["revision"].clone(), status["digest"].clone())
}

/// What root in a namespace can name, number and label. The interface stays up: what could be sent still can.
fn pretend(container: &Container, as_whom: &str) {
    let netns = &container.netns;
    netns.ip(&format!("link set dev eth0 alias {as_whom}"));
    netns.ip("link property add dev eth0 altname blog altname role-db");
    netns.ip("link set dev eth0 group 2");
    netns.ip("addr add 10.2.1.77/32 dev eth0");
    netns.ip("addr add fd00:2:1::77/128 dev eth0 nodad");
    // Named as the host's own are.
    for name in ["weft0", "weft-db"] {
        netns.ip(&format!("link add {name} type veth peer name {name}-p"));
        netns.ip(&format!("link set dev {name} up alias {as_whom}"));
    }
}

#[test]
fn nothing_that_a_container_says_of_itself_changes_who_it_is() {
    let mut cluster = Cluster::of(1, Family::V4);
    let [web, db] = [("a1", "shop/web"), ("a2", "shop/db")].map(|(name, member)| cluster.container(0, name, member));
    let blog = cluster.container(0, "b1", "blog/db");
    let echo = TcpEcho::start(&blog.netns, blog.at(5432));
    cluster.weft(0, &["allow", "shop{role=db}", "blog", "tcp/5432"]);
    wait_for_rule(&cluster, 1);
    assert_eq!(tcp_connect(&db.netns, echo.address(), SOON), Outcome::Reached, "the rule is there to be had");
    assert_eq!(tcp_connect(&web.netns, echo.address(), SILENCE), Outcome::TimedOut);
    let before = known(&cluster);
    assert_eq!(before.0.as_array().unwrap().len(), 3);

    pretend(&web, "shop/db,role=db");
    // A daemon that starts reads namespaces again.
    for restarted in [false, true] {
        if restarted {
            cluster.hosts[0].kill9();
            cluster.start(0);
            cluster.hosts[0].wait_ready(READY);
            wait_for_rule(&cluster, 1);
        }
        assert_eq!(tcp_connect(&web.netns, echo.address(), SILENCE), Outcome::TimedOut, "restarted: {restarted}");
        assert_eq!(ping(&web.netns, blog.v4, SILENCE), Outcome::TimedOut);
        assert_eq!(ping(&web.netns, db.v4, SOON), Outcome::Reached, "it is who it was");
        assert_eq!(tcp_connect(&db.netns, echo.address(), SOON), Outcome::Reached);
        assert_eq!(known(&cluster), before, "restarted: {restarted}");
    }
}
