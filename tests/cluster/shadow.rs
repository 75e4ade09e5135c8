//! What is only tried changes nothing but counts, and is in force when it is promoted.

use serde_json::Value;
use weft_tests::traffic::{Outcome, ping::ping};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, SILENCE, SOON, segment::wait_for_rule};

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
    cluster.weft(0, &["deny", "shop/web", "shop/db", "icmp", "--shadow"]);
    wait_for_rule(&cluster, 1);
    for _ in 0..5 {
        assert_eq!(ping(&web.netns, db.v4, SOON), Outcome::Reached);
    }
    // Requests and answers, on the host that knows both roles: the sender's does not know the receiver's.
    let counted = tried(&cluster, 1);
    assert_eq!((&counted["would_drop"], &counted["would_pass"]), (&10.into(), &0.into()), "{counted}");
    assert!(counted["would_drop_flows"].as_u64().unwrap() >= 1, "{counted}");
    let drops = cluster.weft(1, &["drops"]);
    let sample = drops["recent"].as_array().unwrap().iter().find(|drop| drop["reason"] == "shadow").unwrap();
    assert_eq!(sample["shadow"]["text"], "shadow deny shop/web -> shop/db icmp");

    cluster.weft(0, &["policy", "promote", "shadow deny shop/web -> shop/db icmp"]);
    eventually(SOON, || cluster.weft(1, &["policy", "ls"])["rules"][0]["shadow"] == false);
    assert_eq!(ping(&web.netns, db.v4, SILENCE), Outcome::TimedOut);

    cluster.weft(0, &["allow", "shop/web", "blog/db", "icmp", "--shadow"]);
    wait_for_rule(&cluster, 2);
    assert_eq!(ping(&web.netns, blog.v4, SILENCE), Outcome::TimedOut);
    // To a role that it does not know the sender's host lets pass what a rule may allow, also one that is tried.
    let counted = [0, 1].map(|at| tried(&cluster, at));
    let would_pass = counted.iter().filter_map(|tried| tried["would_pass"].as_u64()).sum::<u64>();
    assert!(would_pass >= 1, "{counted:?}");
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
