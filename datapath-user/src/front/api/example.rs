//! Answers as a daemon could give them: what tests of the server, the client and the CLI show.

use super::dto::{
    apps::{App, AppDetail, AppList, Changed, Defaults, Gate, Role},
    drops::{DropCount, DropList, Dropped},
    endpoints::{Attached, Detached, Endpoint, EndpointList, Gone},
    flows::{Flow, FlowList, Pair, TrafficList},
    maps::{Compared, Entry, Map, MapList},
    rules::{Hits, HostRevision, Policy, Rule, RuleChange, RuleList},
    side::{Decision, Direction, RuleMention, Side, Source, State, Volume},
    state::{
        Check, CheckResult, Degraded, Diagnosis, Gateway, HookKind, Peer, PeerList, Problem, Reconcile, Repaired,
        ResetDone, Status, Table, Tally,
    },
    time::Timestamp,
    why::{Live, Step, WhyAnswer},
};

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().copied().map(str::to_owned).collect()
}

pub(crate) fn time(second: u8) -> Timestamp {
    format!("2026-11-21T13:11:{second:02}.000Z").parse().unwrap()
}

pub(crate) fn web() -> Side {
    Side {
        app: text("shop"),
        role: text("web"),
        name: text("web-1"),
        address: text("10.1.0.7"),
        port: Some(53_002),
    }
}

pub(crate) fn db() -> Side {
    Side { app: text("blog"), role: text("db"), name: text("db-1"), address: text("fd00:2::4"), port: Some(5432) }
}

pub(crate) fn outside() -> Side {
    Side { app: text("outside"), address: text("203.0.113.9"), port: Some(443), ..Side::default() }
}

fn mention() -> RuleMention {
    RuleMention { text: "allow shop/web -> blog/db tcp/5432 as to-db".to_owned(), id: Some(7), source: Some(source()) }
}

fn of_default() -> RuleMention {
    RuleMention { text: "default of blog: closed to other apps".to_owned(), id: None, source: None }
}

fn source() -> Source {
    Source { file: "/etc/weft/cluster.toml".to_owned(), line: Some(12), column: None }
}

fn defaults() -> Defaults {
    Defaults { inside: Gate::Open, from_apps: Gate::Closed, from_host: Gate::Open, to_outside: Gate::Open }
}

pub(crate) fn app() -> App {
    App {
        name: "shop".to_owned(),
        number: 4711,
        prefixes: texts(&["10.1.0.0/16", "fd00:1::/64"]),
        roles: vec![Role { name: "db".to_owned(), number: 2 }, Role { name: "web".to_owned(), number: 1 }],
        defaults: defaults(),
        endpoints: 3,
    }
}

pub(crate) fn app_list() -> AppList {
    let blog = App {
        name: "blog".to_owned(),
        number: 16,
        prefixes: texts(&["10.2.0.0/16"]),
        roles: Vec::new(),
        defaults: Defaults { inside: Gate::Closed, from_host: Gate::Closed, to_outside: Gate::Closed, ..defaults() },
        endpoints: 0,
    };
    AppList { apps: vec![blog, app()] }
}

pub(crate) fn app_detail() -> AppDetail {
    AppDetail { app: app(), endpoints: endpoint_list().endpoints, rules: rule_list().rules }
}

pub(crate) fn changed() -> Changed {
    Changed { done: "app shop is added".to_owned(), revision: 42 }
}

pub(crate) fn attached() -> Attached {
    Attached {
        name: "web-1".to_owned(),
        app: "shop".to_owned(),
        role: text("web"),
        addresses: texts(&["10.1.0.7/16", "fd00:1::7/64"]),
        mac: "02:12:34:56:78:9a".to_owned(),
        ifname: "eth0".to_owned(),
        gateways: texts(&["10.1.0.1", "fd00:1::1"]),
        link: "weftabcdefghijk".to_owned(),
        was_there: false,
    }
}

pub(crate) fn detached() -> Detached {
    let gone = Gone { name: "web-1".to_owned(), app: "shop".to_owned(), addresses: texts(&["10.1.0.7", "fd00:1::7"]) };
    Detached { endpoints: vec![gone] }
}

pub(crate) fn endpoint_list() -> EndpointList {
    let web = Endpoint {
        name: "web-1".to_owned(),
        app: "shop".to_owned(),
        role: text("web"),
        addresses: texts(&["10.1.0.7", "fd00:1::7"]),
        mac: "02:12:34:56:78:9a".to_owned(),
        ifname: "eth0".to_owned(),
        ifindex: Some(12),
        link: "weftabcdefghijk".to_owned(),
        netns: "/run/netns/web".to_owned(),
        state: State::Ready,
        since: Some(time(0)),
    };
    let late = Endpoint {
        name: "job".to_owned(),
        role: None,
        addresses: texts(&["10.1.0.8"]),
        ifindex: None,
        state: State::Failed("the namespace is gone".to_owned()),
        since: None,
        ..web.clone()
    };
    EndpointList { host: "h1".to_owned(), endpoints: vec![late, web] }
}

pub(crate) fn rule_list() -> RuleList {
    let allow = Rule {
        id: Some(7),
        name: text("to-db"),
        action: Decision::Allow,
        from: "shop/web".to_owned(),
        to: "blog/db".to_owned(),
        what: "tcp/5432".to_owned(),
        precedence: 1000,
        text: mention().text,
        source: Some(source()),
        hits: Some(Hits { packets: 1_234_567, flows: 12 }),
    };
    let deny = Rule {
        id: None,
        name: None,
        action: Decision::Deny,
        from: "shop".to_owned(),
        to: "outside".to_owned(),
        what: "any".to_owned(),
        precedence: 2000,
        text: "deny shop -> outside any precedence 2000".to_owned(),
        source: None,
        hits: None,
    };
    RuleList { rules: vec![allow, deny], revision: 42 }
}

pub(crate) fn rule_change() -> RuleChange {
    RuleChange { rule: rule_list().rules.swap_remove(0), changed: true, revision: 42, in_force: true }
}

pub(crate) fn policy() -> Policy {
    let [allow, deny] = rule_list().rules.try_into().unwrap();
    Policy {
        app: "shop".to_owned(),
        defaults: defaults(),
        ingress: vec![allow],
        egress: vec![deny],
        revision: 42,
        hosts: vec![
            HostRevision { host: "h1".to_owned(), revision: Some(42) },
            HostRevision { host: "h2".to_owned(), revision: None },
        ],
    }
}

pub(crate) fn why() -> WhyAnswer {
    let step = |at: &str, found: &str| Step { at: at.to_owned(), found: found.to_owned() };
    WhyAnswer {
        from: web(),
        to: db(),
        what: "tcp/5432".to_owned(),
        decision: Decision::Deny,
        direction: Direction::Ingress,
        reason: text("policy-default"),
        rule: of_default(),
        hop: "peer h2".to_owned(),
        would_allow: text("allow shop/web -> blog/db tcp/5432"),
        steps: vec![
            step("route", "fd00:2::/64 is on peer h2"),
            step("egress of shop/web", "no rule, default open"),
            step("ingress of blog/db", "no rule, default closed"),
        ],
        live: Some(Live {
            decision: Decision::Deny,
            reason: text("policy-default"),
            program: "from_workload".to_owned(),
            agrees: true,
            detail: text("TC_ACT_SHOT"),
        }),
    }
}

pub(crate) fn flow_list() -> FlowList {
    let flow = Flow {
        protocol: "tcp".to_owned(),
        opener: web(),
        other: db(),
        state: "open".to_owned(),
        rule: Some(mention()),
        sent: Volume { packets: 12, bytes: 3456 },
        received: Volume { packets: 9_876_543, bytes: 12_345_678_901 },
        age_ms: 90_000,
        idle_ms: 250,
        stale: false,
    };
    let dns = Flow {
        protocol: "udp".to_owned(),
        other: outside(),
        state: "opening".to_owned(),
        rule: None,
        received: Volume::default(),
        stale: true,
        ..flow.clone()
    };
    FlowList { flows: vec![flow, dns], total: 7 }
}

pub(crate) fn traffic_list() -> TrafficList {
    let pair = Pair {
        from: "shop".to_owned(),
        to: "blog".to_owned(),
        volume: Volume { packets: 1000, bytes: 1_500_000 },
        flows: 3,
        drops: 12,
    };
    TrafficList { pairs: vec![pair] }
}

pub(crate) fn dropped() -> Dropped {
    Dropped {
        time: time(5),
        host: "h2".to_owned(),
        hook: "from_underlay".to_owned(),
        direction: Some(Direction::Ingress),
        from: web(),
        to: db(),
        protocol: "tcp".to_owned(),
        tcp_flags: text("SYN"),
        reason: "policy-default".to_owned(),
        rule: Some(of_default()),
        skipped: 3,
        would_allow: text("allow shop/web -> blog/db tcp/5432"),
    }
}

pub(crate) fn drop_list() -> DropList {
    let spoof = Dropped {
        direction: None,
        to: Side { app: None, name: None, role: None, ..db() },
        protocol: "icmp/8/0".to_owned(),
        tcp_flags: None,
        reason: "spoofed-address".to_owned(),
        rule: None,
        skipped: 0,
        would_allow: None,
        ..dropped()
    };
    let count = |reason: &str, packets, explain: &str| DropCount {
        reason: reason.to_owned(),
        packets,
        explain: explain.to_owned(),
    };
    DropList {
        counters: vec![
            count("policy-default", 1204, "No rule allows it and the default is closed."),
            count("spoofed-address", 1, "The source address is not the endpoint's."),
        ],
        recent: vec![spoof, dropped()],
    }
}

pub(crate) fn peer_list() -> PeerList {
    let ready = Peer {
        name: "h2".to_owned(),
        underlay: text("192.0.2.2"),
        uplink: text("ens3"),
        next_hop: text("192.0.2.1 at 02:00:00:00:00:01"),
        path_mtu: Some(1500),
        inner_mtu: Some(1450),
        prefixes: texts(&["10.1.2.0/24", "fd00:1:2::/80"]),
        state: State::Ready,
    };
    let waiting = Peer {
        name: "h3".to_owned(),
        underlay: None,
        uplink: None,
        next_hop: None,
        path_mtu: None,
        inner_mtu: None,
        prefixes: Vec::new(),
        state: State::Waiting("no route to 192.0.2.3".to_owned()),
    };
    PeerList { peers: vec![ready, waiting] }
}

pub(crate) fn status() -> Status {
    Status {
        host: "h1".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.12.0".to_owned(),
        started: time(0),
        revision: 42,
        in_force: Some(41),
        epoch: 9,
        problem: Some(Problem {
            what: "\"Shop\" is no app name: use a-z".to_owned(),
            source: Some(Source { column: Some(7), ..source() }),
        }),
        degraded: vec![Degraded {
            what: "program guard".to_owned(),
            why: "XDP is not supported by ens3; the check behind it stands".to_owned(),
        }],
        hook_kind: HookKind::Tcx,
        encapsulation: "vxlan-gbp by adjust_room".to_owned(),
        port: 6784,
        gateway: Gateway { device: "weft0".to_owned(), addresses: texts(&["10.1.0.1"]), state: State::Ready },
        masquerade: State::Waiting("nft is busy".to_owned()),
        tables: vec![
            Table { name: "ROUTES".to_owned(), used: 12, max: 262_144, refused: 0 },
            Table { name: "RULES".to_owned(), used: 2_000_000, max: 2_097_152, refused: 3 },
        ],
        repaired: vec![Repaired { what: "map ROUTES".to_owned(), times: 2 }],
        reconcile: Some(Reconcile { at: time(5), took_ms: 3, changes: 1 }),
        endpoints: Tally { ready: 3, waiting: 1, failed: 0 },
        peers: Tally { ready: 2, waiting: 0, failed: 0 },
    }
}

pub(crate) fn map_list() -> MapList {
    let entry = |key: &str, value: &str, compared, desired: Option<&str>| Entry {
        key: key.to_owned(),
        value: value.to_owned(),
        compared,
        desired: desired.map(str::to_owned),
    };
    let routes = Map {
        name: "ROUTES".to_owned(),
        shape: "lpm-trie".to_owned(),
        used: 3,
        max: 262_144,
        desired: Some(3),
        entries: vec![
            entry("10.1.0.9/32", "local link 9 shop", Compared::Extra, None),
            entry("10.2.0.0/24", "peer h3", Compared::Different, Some("peer h2")),
            entry("10.1.0.8/32", "", Compared::Missing, Some("local link 13 shop")),
            entry("10.1.0.7/32", "local link 12 shop/web", Compared::Same, None),
        ],
        left_out: 1,
    };
    let flows = Map {
        name: "FLOWS".to_owned(),
        shape: "lru-hash".to_owned(),
        used: 1,
        max: 131_072,
        desired: None,
        entries: vec![entry("tcp 10.1.0.7:53002 10.2.0.4:5432", "open", Compared::Unplanned, None)],
        left_out: 0,
    };
    MapList { maps: vec![routes, flows] }
}

pub(crate) fn diagnosis() -> Diagnosis {
    let check = |name: &str, result, detail: &str, advice: Option<&str>| Check {
        name: name.to_owned(),
        result,
        detail: detail.to_owned(),
        advice: advice.map(str::to_owned),
    };
    Diagnosis {
        checks: vec![
            check("kernel", CheckResult::Ok, "6.12.0 has TCX", None),
            check("offloads", CheckResult::Warn, "ens3 has no GRO", Some("ethtool -K ens3 gro on")),
            check("port", CheckResult::Fail, "a firewall drops udp 6784", Some("let udp 6784 in")),
        ],
    }
}

pub(crate) fn reset_done() -> ResetDone {
    ResetDone { removed: texts(&["link weft0", "map ROUTES"]), left: texts(&["link weftabc: Device or resource busy"]) }
}
