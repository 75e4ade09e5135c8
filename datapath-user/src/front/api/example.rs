//! Answers as a daemon could give them: what tests of the server, the client and the CLI show.

mod state;
mod why;

pub(crate) use state::{diagnosis, map_list, peer_list, reset_done, status};
pub(crate) use why::{why, why_allowed};

use super::dto::{
    apps::{App, AppDetail, AppList, Changed, Defaults, Gate, Role},
    drops::{DropCount, DropList, Dropped},
    endpoints::{Attached, Detached, Endpoint, EndpointList, Gone, Relabelled},
    flows::{Flow, FlowList, Pair, TrafficList},
    learning::{Contact, ContactList, Counted, Learned, Membership, Who},
    policies::{
        Cell, Enforced, Enforcing, Exported, Kind, Line, Matrix, Part, PolicyChange, PolicyDiff, PolicyDigest, Reach,
        Sign, TestReport, Tested, Validated,
    },
    rules::{Action, ByDefault, Hits, Policy, Rule, RuleChange, RuleList, Tried},
    side::{Direction, Miss, Nearest, RuleMention, Side, Source, State, Volume},
    time::Timestamp,
};

fn text(text: &str) -> String {
    text.to_owned()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().copied().map(str::to_owned).collect()
}

pub(crate) fn time(second: u8) -> Timestamp {
    format!("2026-11-21T13:11:{second:02}.000Z").parse().unwrap()
}

pub(crate) fn web() -> Side {
    Side {
        app: Some(text("shop")),
        role: Some(text("web")),
        name: Some(text("web-1")),
        address: Some(text("10.1.0.7")),
        port: Some(53_002),
    }
}

pub(crate) fn db() -> Side {
    Side {
        app: Some(text("blog")),
        role: Some(text("db")),
        name: Some(text("db-1")),
        address: Some(text("fd00:2::4")),
        port: Some(5432),
    }
}

pub(crate) fn outside() -> Side {
    Side { app: Some(text("outside")), address: Some(text("203.0.113.9")), port: Some(443), ..Side::default() }
}

fn mention() -> RuleMention {
    RuleMention { text: text("allow shop/web -> blog/db tcp/5432 as to-db"), id: Some(7), source: Some(source()) }
}

fn of_default() -> RuleMention {
    RuleMention { text: text("default of blog: closed to other apps"), id: None, source: None }
}

fn source() -> Source {
    Source { file: text("/etc/weft/cluster.toml"), line: Some(12), column: None }
}

fn defaults() -> Defaults {
    Defaults { inside: Gate::Open, from_apps: Gate::Closed, from_host: Gate::Open, to_outside: Gate::Open }
}

pub(crate) fn app() -> App {
    App {
        name: text("shop"),
        number: 4711,
        prefixes: texts(&["10.1.0.0/16", "fd00:1::/64"]),
        labels: text("team=a"),
        roles: vec![
            Role { name: text("db"), number: 2, labels: text("tier=db"), ports: text("pg=tcp/5432") },
            Role { name: text("web"), number: 1, labels: text("role=web"), ports: String::new() },
        ],
        defaults: defaults(),
        shadow: false,
        endpoints: 3,
    }
}

pub(crate) fn app_list() -> AppList {
    let blog = App {
        name: text("blog"),
        number: 16,
        prefixes: texts(&["10.2.0.0/16"]),
        labels: String::new(),
        roles: Vec::new(),
        defaults: Defaults { inside: Gate::Closed, from_host: Gate::Closed, to_outside: Gate::Closed, ..defaults() },
        shadow: true,
        endpoints: 0,
    };
    AppList { apps: vec![blog, app()] }
}

pub(crate) fn app_detail() -> AppDetail {
    AppDetail { app: app(), endpoints: endpoint_list().endpoints, rules: rule_list().rules }
}

pub(crate) fn changed() -> Changed {
    Changed { done: text("app shop is there"), revision: 42, in_force: false }
}

pub(crate) fn attached() -> Attached {
    Attached {
        name: text("web-1"),
        app: text("shop"),
        role: Some(text("web")),
        addresses: texts(&["10.1.0.7/16", "fd00:1::7/64"]),
        mac: text("02:12:34:56:78:9a"),
        ifname: text("eth0"),
        gateways: texts(&["10.1.0.1", "fd00:1::1"]),
        link: text("weftabcdefghijk"),
        was_there: false,
    }
}

pub(crate) fn relabelled() -> Relabelled {
    Relabelled {
        name: text("web-1"),
        app: text("shop"),
        role: Some(text("env-prod.tier-web")),
        labels: text("env=prod,tier=web"),
        changed: true,
        revision: 42,
        in_force: true,
    }
}

pub(crate) fn detached() -> Detached {
    let gone =
        Gone { name: text("web-1"), app: text("shop"), addresses: texts(&["10.1.0.7", "fd00:1::7"]), kept: true };
    Detached { endpoints: vec![gone] }
}

pub(crate) fn endpoint_list() -> EndpointList {
    let web = Endpoint {
        name: text("web-1"),
        app: text("shop"),
        role: Some(text("web")),
        addresses: texts(&["10.1.0.7", "fd00:1::7"]),
        mac: text("02:12:34:56:78:9a"),
        ifname: text("eth0"),
        ifindex: Some(12),
        link: text("weftabcdefghijk"),
        netns: text("/run/netns/web"),
        state: State::Ready,
        since: Some(time(0)),
    };
    let late = Endpoint {
        name: text("job"),
        role: None,
        addresses: texts(&["10.1.0.8"]),
        ifindex: None,
        state: State::Failed(text("the namespace is gone")),
        since: None,
        ..web.clone()
    };
    EndpointList { host: text("h1"), endpoints: vec![late, web] }
}

fn hits() -> Hits {
    Hits { packets: 9_876_543, bytes: 12_345_678_901, flows: 1204, drops: 12, last: time(5) }
}

pub(crate) fn rule_list() -> RuleList {
    let allow = Rule {
        id: Some(7),
        name: Some(text("to-db")),
        action: Action::Allow,
        from: text("shop/web"),
        to: text("blog/db"),
        what: text("tcp/5432"),
        on: None,
        precedence: 1000,
        until: Some(time(50)),
        text: mention().text,
        policy: Some(text("blog")),
        source: Some(source()),
        hits: Some(hits()),
        shadow: false,
        tried: None,
    };
    let deny = Rule {
        id: None,
        name: None,
        action: Action::Deny,
        from: text("shop"),
        to: text("outside"),
        what: text("any"),
        on: Some(Direction::Egress),
        precedence: 2000,
        until: None,
        text: text("shadow deny shop -> outside any on egress precedence 2000"),
        policy: None,
        source: None,
        hits: None,
        shadow: true,
        tried: Some(Tried { would_drop: 1_234, would_drop_flows: 7, would_pass: 0, last: time(3) }),
    };
    RuleList { rules: vec![allow, deny], revision: 42 }
}

pub(crate) fn rule_change() -> RuleChange {
    let rule = Rule { hits: None, ..rule_list().rules.swap_remove(0) };
    RuleChange { rule, changed: true, revision: 42, in_force: true, hosts: enforcing() }
}

pub(crate) fn policy() -> Policy {
    let [allow, deny] = rule_list().rules.try_into().unwrap();
    Policy {
        app: text("shop"),
        defaults: defaults(),
        ingress: vec![allow],
        egress: vec![deny],
        shadow: true,
        tried_by_default: Some(Tried { would_drop: 12, would_drop_flows: 3, would_pass: 4, last: time(5) }),
        by_default: vec![ByDefault { from: text("shop"), to: text("blog"), hits: hits() }],
        revision: 42,
        digest: Some(digest()),
        hosts: enforcing(),
    }
}

fn nearest() -> Nearest {
    let source = Some(Source { file: text("blog.yaml"), line: Some(12), column: None });
    let rule = RuleMention { text: text("allow blog -> blog/db tcp/5432"), id: Some(11), source };
    Nearest { rule, miss: Miss::Sender, only: text("blog") }
}

fn digest() -> String {
    text("6c62272e07bb014262b821756295c58d")
}

fn enforcing() -> Vec<Enforcing> {
    let host = |host: &str, state, why: &str| Enforcing { host: host.to_owned(), state, why: why.to_owned() };
    vec![
        host("h1", Enforced::Yes, "its tables have 6c62, revision 42 there"),
        host("h2", Enforced::No, "it has another policy, 7d73"),
        host("h3", Enforced::NotKnown, "it can not be asked"),
    ]
}

fn parts() -> Vec<Part> {
    let line = |is, text: &str| Line { is, text: text.to_owned() };
    vec![
        Part { what: text("app blog"), change: Kind::New, lines: vec![line(Sign::Added, "prefix 10.2.0.0/16")] },
        Part {
            what: text("policy blog"),
            change: Kind::Changed,
            lines: vec![
                line(Sign::Removed, "allow shop -> blog any"),
                line(Sign::Added, "allow shop/web -> blog/db tcp/5432"),
            ],
        },
        Part { what: text("policy old"), change: Kind::Gone, lines: vec![line(Sign::Removed, "deny a -> b any")] },
    ]
}

pub(crate) fn policy_change() -> PolicyChange {
    PolicyChange { parts: parts(), expectations: 3, revision: 42, in_force: true, hosts: enforcing() }
}

pub(crate) fn policy_diff() -> PolicyDiff {
    PolicyDiff { parts: parts(), breaks: texts(&["policy blog expects `shop -> blog deny`: it passes"]) }
}

pub(crate) fn exported() -> Exported {
    let manifest = "weft: v1\npolicy: blog\nrules:\n  - allow shop/web -> blog/db tcp/5432\n";
    Exported { policies: texts(&["blog"]), manifest: text(manifest) }
}

pub(crate) fn validated() -> Validated {
    Validated { policies: texts(&["blog", "shop"]), apps: texts(&["shop"]), rules: 7, expectations: 2 }
}

pub(crate) fn test_report() -> TestReport {
    let holds = Tested {
        policy: text("blog"),
        text: text("shop/web -> blog/db tcp/5432 allow"),
        source: Some(Source { file: text("blog.yaml"), line: Some(9), column: None }),
        asked: 2,
        why: None,
        by: None,
    };
    let broken = Tested {
        text: text("shop -> blog any deny"),
        source: None,
        asked: 14,
        why: Some(text("shop/web -> blog/db tcp/5432 passes, by `allow shop/web -> blog/db tcp/5432`")),
        by: Some(mention()),
        ..holds.clone()
    };
    TestReport { expectations: vec![holds, broken], failed: 1 }
}

pub(crate) fn matrix() -> Matrix {
    let some = Cell::Some(texts(&["tcp/5432", "icmp/8"]));
    let rows = vec![
        vec![Cell::All, Cell::Nothing, Cell::Nothing],
        vec![some, Cell::All, Cell::All],
        vec![Cell::Nothing, Cell::All, Cell::Itself],
    ];
    Matrix { parties: texts(&["blog/db", "shop/web", "host"]), tables: vec![Reach { with: text("any"), rows }] }
}

pub(crate) fn policy_digest() -> PolicyDigest {
    PolicyDigest { host: text("h1"), digest: digest(), revision: 42, enforced: true }
}

pub(crate) fn flow_list() -> FlowList {
    let flow = Flow {
        protocol: text("tcp"),
        opener: web(),
        other: db(),
        state: text("open"),
        rule: Some(mention()),
        sent: Volume { packets: 12, bytes: 3456 },
        received: Volume { packets: 9_876_543, bytes: 12_345_678_901 },
        age_ms: 90_000,
        idle_ms: 250,
        stale: false,
    };
    let dns = Flow {
        protocol: text("udp"),
        other: outside(),
        state: text("opening"),
        rule: None,
        received: Volume::default(),
        stale: true,
        ..flow.clone()
    };
    FlowList { flows: vec![flow, dns], total: 7 }
}

/// What a host says that saw one new flow of three in detail.
pub(crate) fn contact_list(after: u64) -> ContactList {
    let who = |app: &str, role, address: &str| Who { app: text(app), role, address: address.parse().unwrap() };
    let web = who("shop", Membership::Role(text("web")), "10.1.0.7");
    let db = who("blog", Membership::Unknown, "10.2.0.4");
    let again = u64::from(after > 0);
    let counted = Counted { from: text("shop"), to: text("blog"), flows: 7 + 3 * again, settled: again, fresh: 0 };
    ContactList {
        host: text("h1"),
        members: texts(&["h1", "h2"]),
        clock: 1_000_000,
        contacts: vec![Contact { from: web, to: db, protocol: 6, port: 5432, scattered: false }],
        counted: vec![counted],
        uncounted: 0,
    }
}

pub(crate) fn learned() -> Learned {
    Learned {
        policy: text("learned-shop"),
        manifest: text("weft: v1\npolicy: learned-shop\nrules:\n  - allow shop/web -> blog/db tcp/5432\n"),
        rules: 1,
        expectations: 0,
        contacts: 1,
        notes: texts(&["`outside` stands for 9 prefixes"]),
        against: texts(&["shop/web -> blog/db tcp/22 does not pass, by `deny shop -> blog` of policy ssh"]),
        unseen: texts(&["host h2 was not asked"]),
    }
}

pub(crate) fn traffic_list() -> TrafficList {
    let pair = Pair {
        from: text("shop"),
        to: text("blog"),
        volume: Volume { packets: 1000, bytes: 1_500_000 },
        flows: 3,
        drops: 12,
    };
    TrafficList { pairs: vec![pair] }
}

pub(crate) fn dropped() -> Dropped {
    Dropped {
        time: time(5),
        host: text("h2"),
        hook: text("from_underlay"),
        direction: Some(Direction::Ingress),
        from: web(),
        to: db(),
        protocol: text("tcp"),
        tcp_flags: Some(text("SYN")),
        reason: text("policy-default"),
        rule: Some(of_default()),
        nearest: Some(nearest()),
        revision: Some(41),
        skipped: 3,
        shadow: Some(mention()),
        would_allow: Some(text("allow shop/web -> blog/db tcp/5432")),
    }
}

pub(crate) fn drop_list() -> DropList {
    let spoof = Dropped {
        direction: None,
        to: Side { app: None, name: None, role: None, ..db() },
        protocol: text("icmp/8/0"),
        tcp_flags: None,
        reason: text("spoofed-address"),
        rule: None,
        nearest: None,
        revision: None,
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
