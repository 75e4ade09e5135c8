//! Requests as they go over the socket.

use serde_json::{Value, from_value, json, to_value};

use super::{
    Versioned,
    apps::AddApp,
    endpoints::{Attach, Detach, wanted},
    flows::ListFlows,
    learning::{LearnPolicy, ListContacts},
    maps::ShowMaps,
    policies::{ApplyPolicy, DeletePolicy, DiffPolicy, ExportPolicy, GetDigest, ShowMatrix},
    rules::{AddRule, RemoveRule},
    side::State,
    state::{CheckResult, GetStatus},
    why::Why,
};
use crate::front::api::Call;

/// `text` is read, and what is written for it is read back as the same.
fn round_trip<R: Call + PartialEq + std::fmt::Debug>(text: Value) -> R {
    let read: R = from_value(text).unwrap();
    assert_eq!(from_value::<R>(to_value(&read).unwrap()).unwrap(), read);
    read
}

fn refused<R: Call>(text: Value) -> String {
    match from_value::<R>(text) {
        Ok(_) => panic!("it is read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn requests_are_read_and_written() {
    let attach: Attach = round_trip(json!({ "target": "4711", "app": "shop" }));
    assert_eq!(to_value(&attach).unwrap(), json!({ "target": "4711", "app": "shop", "ips": [], "gateway": "auto" }));
    round_trip::<Attach>(json!({
        "target": "/run/netns/a", "app": "shop", "role": "web", "name": "web-1", "ips": ["10.1.0.7", "fd00::7"],
        "ifname": "eth2", "mac": "02:00:00:00:00:07", "gateway": "10.1.0.1",
    }));
    round_trip::<Attach>(json!({ "target": "a", "app": "shop", "role": null, "mac": null }));
    round_trip::<Detach>(json!({ "what": "shop/web-1" }));
    round_trip::<AddApp>(json!({ "name": "shop", "prefixes": ["10.1.0.0/16"], "defaults": { "inside": "closed" } }));
    round_trip::<AddRule>(json!({ "rule": "allow shop/web -> blog/db tcp/5432 precedence 7 as x" }));
    round_trip::<RemoveRule>(json!({ "rule": "#7" }));
    round_trip::<RemoveRule>(json!({ "rule": "allow a -> b" }));
    round_trip::<Why>(json!({ "from": "shop/web-1", "to": "10.0.0.1", "what": "tcp/5432", "live": true }));
    round_trip::<ListFlows>(json!({}));
    round_trip::<ListFlows>(json!({
        "app": "shop", "endpoint": "web-1", "address": "fd00::7", "port": 80, "protocol": "tcp", "limit": 3,
    }));
    round_trip::<ShowMaps>(json!({ "name": "ROUTES" }));
    round_trip::<GetStatus>(json!({}));
    round_trip::<ApplyPolicy>(json!({ "files": [{ "name": "a.yaml", "text": "weft: v1\n" }] }));
    round_trip::<DeletePolicy>(json!({ "names": ["blog", "networkpolicy/shop/web"] }));
    round_trip::<DeletePolicy>(json!({ "files": [] }));
    round_trip::<DiffPolicy>(json!({ "files": [] }));
    round_trip::<ExportPolicy>(json!({ "names": ["blog"], "all": true }));
    round_trip::<ShowMatrix>(json!({ "ports": ["tcp/80", "icmp"], "apps": ["shop"] }));
    round_trip::<ListContacts>(json!({ "app": "shop", "after": 7 }));
    round_trip::<LearnPolicy>(json!({ "app": "shop", "contacts": [{
        "from": { "app": "shop", "role": { "is": "role", "name": "web" }, "address": "10.1.0.7" },
        "to": { "app": "outside", "role": { "is": "none" }, "address": "fd00::7" },
        "protocol": 6, "port": 443,
    }] }));
    round_trip::<GetDigest>(json!({}));
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let attach = |field: &str, value: Value| {
        let mut text = json!({ "target": "a", "app": "shop" });
        text[field] = value;
        refused::<Attach>(text)
    };
    let check = |field: &str, value: Value, part: &str| {
        let error = attach(field, value);
        assert!(error.contains(part), "{error}");
    };
    check("colour", json!("red"), "unknown field `colour`, expected one of `target`, `app`");
    check("app", json!(7), "invalid type: integer `7`, expected a string");
    check("app", json!("Shop"), "\"Shop\" is no app name: use a-z");
    check("target", json!("a/b"), "\"a/b\" is no target");
    check("role", json!(true), "invalid type: boolean `true`");
    check("ips", json!("10.0.0.1"), "expected a sequence");
    check("ips", json!(["10.0.0.1/24"]), "\"10.0.0.1/24\" is no address: write an IPv4 or IPv6 address");
    check("ips", json!(["::ffff:10.0.0.1"]), "write it as 10.0.0.1/32");
    check("ips", json!(["10.0.0.1", "10.0.0.2"]), "\"10.0.0.2\" is no second address: an endpoint has one");
    check("mac", json!("ff:ff:ff:ff:ff:ff"), "is no MAC");
    check("ifname", json!("a/b"), "is no interface name");
    check("gateway", json!("maybe"), "is no gateway");
    assert!(refused::<Attach>(json!({ "target": "a" })).contains("missing field `app`"));
    assert!(refused::<GetStatus>(json!({ "x": 1 })).contains("unknown field `x`"));
    assert!(refused::<ListFlows>(json!({ "port": 70_000 })).contains("expected u16"));
    assert!(refused::<ListFlows>(json!({ "address": "x" })).contains("\"x\" is no address"));
    assert!(refused::<AddRule>(json!({ "rule": "permit a -> b" })).contains("\"permit\" is no action"));
    assert!(refused::<AddApp>(json!({ "name": "a", "prefixes": ["10.0.0.1/8"] })).contains("use 10.0.0.0/8"));
    let bad_default = json!({ "name": "a", "prefixes": [], "defaults": { "inside": "ajar" } });
    assert!(refused::<AddApp>(bad_default).contains("\"ajar\" is no default: use open or closed"));
    let bad_default = json!({ "name": "a", "prefixes": [], "defaults": { "within": "open" } });
    assert!(refused::<AddApp>(bad_default).contains("unknown field `within`"));
    assert!(
        refused::<Why>(json!({ "from": "a", "to": "b", "what": "tcp" })).contains("name one protocol and one port")
    );
}

#[test]
fn an_address_that_is_wanted_twice_is_wanted_once() {
    let address = "10.0.0.1".parse().unwrap();
    assert_eq!(wanted([address, address]).unwrap().iter().collect::<Vec<_>>(), [address]);
}

#[test]
fn answers_carry_their_schema() {
    let answer =
        Versioned::new(crate::front::api::dto::apps::Changed { done: "x".to_owned(), revision: 7, in_force: true });
    assert_eq!(to_value(&answer).unwrap(), json!({ "schema": 1, "done": "x", "revision": 7, "in_force": true }));
}

#[test]
fn states_are_words_with_a_reason() {
    assert_eq!(to_value(State::Ready).unwrap(), json!({ "is": "ready" }));
    assert_eq!(to_value(State::Failed("x".to_owned())).unwrap(), json!({ "is": "failed", "why": "x" }));
    assert_eq!(from_value::<State>(json!({ "is": "waiting", "why": "y" })).unwrap(), State::Waiting("y".to_owned()));
    assert_eq!(to_value(CheckResult::Warn).unwrap(), json!("warn"));
}
