//! What is only tried changes nothing but counts, and is in force when it is promoted.

use std::net::UdpSocket;

use serde_json::Value;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, SILENCE, SOON, segment::wait_for_rule};

const FLOWS: usize = 3;
/// Of each flow.
const DATAGRAMS: usize = 4;

/// What host `at` says of the only rule that is tried.
fn tried(cluster: &Cluster, at: usize) -> Value {
    let list = cluster.weft(at, &["policy", "ls"]);
    list["rules"].as_array().unwrap().iter().find(|rule| rule["shadow"] == true).unwrap()["tried"].clone()
}

#[test]
fn a_rule_that_is_tried_is_counted_and_promoted() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "a2", "shop/db");
    let blog = cluster.container(1, "b2", "blog/db");
    cluster.weft(0, &["deny", "shop/web", "shop/db", "udp", "--shadow"]);
    wait_for_rule(&cluster, 1);
    let echo = UdpEcho::start(&db.netns, db.at(9000));
    let sockets = [(); FLOWS].map(|()| socket(&web));
    for socket in sockets.iter().flat_map(|socket| [socket; DATAGRAMS]) {
        socket.send_to(b"?", echo.address()).unwrap();
        socket.recv(&mut [0]).expect("it is only tried");
    }
    // Questions and answers, on the host that knows both roles: the sender's does not know the receiver's.
    assert_tried(&cluster, 1, [2 * FLOWS * DATAGRAMS, FLOWS, 0]);
    let drops = cluster.weft(1, &["drops"]);
    let sample = drops["recent"].as_array().unwrap().iter().find(|drop| drop["reason"] == "shadow").unwrap();
    assert_eq!(sample["shadow"]["text"], "shadow deny shop/web -> shop/db udp");

    cluster.weft(0, &["policy", "promote", "shadow deny shop/web -> shop/db udp"]);
    eventually(SOON, || cluster.weft(1, &["policy", "ls"])["rules"][0]["shadow"] == false);
    assert_eq!(udp_echo(&web.netns, echo.address(), SILENCE), Outcome::TimedOut);

    cluster.weft(0, &["allow", "shop/web", "blog/db", "udp/9000", "--shadow"]);
    wait_for_rule(&cluster, 2);
    for socket in sockets.iter().flat_map(|socket| [socket; DATAGRAMS]) {
        socket.send_to(b"?", blog.at(9000)).unwrap();
        socket.send_to(b"?", blog.at(9001)).unwrap();
    }
    // The sender's host drops them: the other never hears of them.
    assert_tried(&cluster, 0, [0, 0, FLOWS * DATAGRAMS]);
    assert_tried(&cluster, 1, [0, 0, 0]);
}

/// A socket that waits for answers, but not for ever.
fn socket(of: &Container) -> UdpSocket {
    let socket = of.netns.run(|| UdpSocket::bind(of.at(0))).expect("open a socket");
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// What host `at` says of the only rule that is tried: packets and flows that would be dropped, packets that would pass.
/// Nothing, if it has counted nothing.
#[track_caller]
fn assert_tried(cluster: &Cluster, at: usize, expect: [usize; 3]) {
    let tried = tried(cluster, at);
    let counts = ["would_drop", "would_drop_flows", "would_pass"].map(|name| tried[name].as_u64().unwrap_or(0));
    assert_eq!(counts, expect.map(|count| count as u64), "{tried}");
}

#[test]
fn an_app_that_is_tried_is_open_and_what_its_policy_would_drop_is_counted() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let blog = cluster.container(1, "b2", "blog/db");
    let shadow = |switch: &str| {
        cluster.weft(0, &["app", "set", "blog", "--shadow", switch]);
        eventually(SOON, || cluster.weft(1, &["app", "show", "blog"])["app"]["shadow"] == (switch == "on"));
    };
    assert_eq!(ping(&web.netns, blog.v4, SILENCE), Outcome::TimedOut);
    shadow("on");
    assert_eq!(ping(&web.netns, blog.v4, SOON), Outcome::Reached);
    let policy = cluster.weft(1, &["policy", "show", "blog"]);
    assert_eq!(policy["tried_by_default"]["would_drop"], 2, "{policy:#}");
    shadow("off");
    assert_eq!(ping(&web.netns, blog.v4, SILENCE), Outcome::TimedOut);
}
