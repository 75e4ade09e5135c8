//! How a host is.

use super::{digest, source, text, texts, time};
use crate::front::api::dto::{
    maps::{Compared, Entry, Map, MapList},
    side::{Source, State},
    state::{
        Check, CheckResult, Degraded, Diagnosis, Gateway, HookKind, Peer, PeerList, Problem, Reconcile, Repaired,
        ResetDone, Status, Table, Tally,
    },
};

pub(crate) fn peer_list() -> PeerList {
    let ready = Peer {
        name: text("h2"),
        underlay: Some(text("192.0.2.2")),
        uplink: Some(text("ens3")),
        next_hop: Some(text("192.0.2.1 at 02:00:00:00:00:01")),
        path_mtu: Some(1500),
        inner_mtu: Some(1450),
        prefixes: texts(&["10.1.2.0/24", "fd00:1:2::/80"]),
        state: State::Ready,
    };
    let waiting = Peer {
        name: text("h3"),
        underlay: None,
        uplink: None,
        next_hop: None,
        path_mtu: None,
        inner_mtu: None,
        prefixes: Vec::new(),
        state: State::Waiting(text("no route to 192.0.2.3")),
    };
    PeerList { host: text("h1"), peers: vec![ready, waiting] }
}

pub(crate) fn status() -> Status {
    Status {
        host: text("h1"),
        version: text("0.1.0"),
        kernel: text("6.12.0"),
        started: time(0),
        revision: 42,
        in_force: Some(41),
        epoch: 9,
        digest: Some(digest()),
        problem: Some(Problem {
            what: text("\"Shop\" is no app name: use a-z"),
            source: Some(Source { column: Some(7), ..source() }),
        }),
        degraded: vec![Degraded {
            what: text("program guard"),
            why: text("XDP is not supported by ens3; the check behind it stands"),
        }],
        hook_kind: HookKind::Tcx,
        encapsulation: text("vxlan-gbp by adjust_room"),
        port: 6784,
        gateway: Gateway { device: text("weft0"), addresses: texts(&["10.1.0.1"]), state: State::Ready },
        masquerade: State::Waiting(text("nft is busy")),
        tables: vec![
            Table { name: text("ROUTES"), used: 12, max: 262_144, refused: 0 },
            Table { name: text("RULES"), used: 2_000_000, max: 2_097_152, refused: 3 },
        ],
        repaired: vec![Repaired { what: text("map ROUTES"), times: 2 }],
        revoked: 3,
        reconcile: Some(Reconcile { at: time(5), took_ms: 3, passes: 12 }),
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
        name: text("ROUTES"),
        shape: text("lpm-trie"),
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
        name: text("FLOWS"),
        shape: text("lru-hash"),
        used: 1,
        max: 131_072,
        desired: None,
        entries: vec![entry("tcp 10.1.0.7:53002 10.2.0.4:5432", "open", Compared::Unplanned, None)],
        left_out: 0,
    };
    MapList { maps: vec![routes, flows] }
}

pub(crate) fn diagnosis() -> Diagnosis {
    let check = |name, result, detail, advice: Option<&str>| {
        let (name, detail, advice) = (text(name), text(detail), advice.map(text));
        Check { name, result, detail, advice }
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
