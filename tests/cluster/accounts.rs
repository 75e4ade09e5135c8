//! What is counted under each rule is what was sent.

use std::path::Path;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use serde_json::Value;
use weft_common::table::{Account, Counts};
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    tcp::{TcpEcho, tcp_echo},
    udp::udp_echo,
};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, READY, SILENCE, SOON, cli::digest_directory, segment::wait_for_rule};

/// An echo with 56 bytes of payload, in a frame.
const PING: u64 = 14 + 20 + 8 + 56;

/// Packets, bytes, flows and drops that host `at` has counted under the rule with this text.
fn hits(cluster: &Cluster, at: usize, text: &str) -> Option<[u64; 4]> {
    let list = cluster.weft(at, &["policy", "ls"]);
    let rule = list["rules"].as_array().unwrap().iter().find(|rule| rule["text"] == text).cloned();
    let rule = rule.unwrap_or_else(|| panic!("{text} is not in {list:#}"));
    numbers(&rule["hits"])
}

fn numbers(hits: &Value) -> Option<[u64; 4]> {
    let number = |field: &str| hits[field].as_u64().unwrap();
    (!hits.is_null()).then(|| ["packets", "bytes", "flows", "drops"].map(number))
}

/// What went from `from` to `to` by a default, on host `at`.
fn by_default(cluster: &Cluster, at: usize, [from, to]: [&str; 2]) -> [u64; 4] {
    let policy = cluster.weft(at, &["policy", "show", from]);
    let pairs = policy["by_default"].as_array().unwrap();
    let pair = pairs.iter().find(|pair| pair["from"] == from && pair["to"] == to);
    pair.and_then(|pair| numbers(&pair["hits"])).unwrap_or_default()
}

/// What host `at` has counted from shop to blog under all rules together.
fn pair(cluster: &Cluster, at: usize) -> Value {
    let list = cluster.weft(at, &["traffic"]);
    let pairs = list["pairs"].as_array().unwrap();
    pairs.iter().find(|pair| pair["from"] == "shop" && pair["to"] == "blog").cloned().unwrap()
}

fn pings(from: &Container, to: &Container, times: usize) {
    for _ in 0..times {
        assert_eq!(ping(&from.netns, to.v4, SOON), Outcome::Reached);
    }
}

#[test]
fn rules_have_counted_what_was_sent_whatever_becomes_of_the_daemon() {
    const PINGS: &str = "allow shop/web -> blog/db icmp";
    const TCP: &str = "allow shop/web -> blog/db tcp/9001";
    const UDP: &str = "deny shop -> blog udp/53";

    let mut cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "b2", "blog/db");
    for rule in [PINGS, TCP, UDP] {
        let (action, rest) = rule.split_once(' ').unwrap();
        cluster.weft(0, &[action, rest]);
    }
    wait_for_rule(&cluster, 3);
    for at in 0..2 {
        assert_eq!([PINGS, TCP, UDP].map(|rule| hits(&cluster, at, rule)), [None; 3]);
        assert_eq!(by_default(&cluster, at, ["shop", "blog"]), [0; 4]);
    }

    pings(&web, &db, 5);
    let echo = TcpEcho::start(&db.netns, db.at(9001));
    assert_eq!(tcp_echo(&web.netns, echo.address(), SOON), Outcome::Reached);
    for _ in 0..3 {
        assert_eq!(udp_echo(&web.netns, db.at(53), SILENCE), Outcome::TimedOut);
    }
    for _ in 0..2 {
        assert_eq!(udp_echo(&web.netns, db.at(54), SILENCE), Outcome::TimedOut);
    }
    let is_all_counted = |cluster: &Cluster, echoes: u64| {
        for at in 0..2 {
            assert_eq!(hits(cluster, at, PINGS), Some([2 * echoes, 2 * echoes * PING, echoes, 0]), "on host {at}");
            // The flow's own entry has counted the same packets. The last of them may still be under way.
            eventually(SOON, || {
                let flows = cluster.weft(at, &["flows", "--protocol", "tcp"]);
                let flow = &flows["flows"][0];
                let both =
                    |field: &str| ["sent", "received"].map(|side| flow[side][field].as_u64().unwrap()).iter().sum();
                assert_eq!(flows["total"], 1, "{flows:#}");
                hits(cluster, at, TCP) == Some([both("packets"), both("bytes"), 1, 0])
            });
        }
        // What the sender's host drops, the receiver's does not see.
        assert_eq!([hits(cluster, 0, UDP), hits(cluster, 1, UDP)], [Some([0, 0, 0, 3]), None]);
        assert_eq!([0, 1].map(|at| by_default(cluster, at, ["shop", "blog"])), [[0, 0, 0, 2], [0; 4]]);
    };
    is_all_counted(&cluster, 5);

    cluster.hosts[0].kill9();
    pings(&web, &db, 1);
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    pings(&web, &db, 1);
    is_all_counted(&cluster, 7);

    // For people, on lines that fit.
    let (_, text, _) = cluster.hosts[0].weft_text(&["policy", "ls"]);
    let line = text.lines().find(|line| line.contains(" deny ")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[6..10], ["0", "0B", "0", "3"], "{text}");
    assert!(text.lines().all(|line| line.split(" /").next().unwrap().len() <= 120), "{text}");
}

#[test]
fn the_accounts_of_a_rule_that_is_gone_are_closed_and_its_apps_keep_the_sum() {
    const RULE: &str = "allow shop/web -> blog/db icmp";

    let cluster = Cluster::of(1, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(0, "b1", "blog/db");
    cluster.weft(0, &["allow", "shop/web -> blog/db icmp"]);
    wait_for_rule(&cluster, 1);
    pings(&web, &db, 4);
    assert_eq!(hits(&cluster, 0, RULE), Some([8, 8 * PING, 4, 0]));
    let sum = pair(&cluster, 0);
    assert_eq!((&sum["volume"]["packets"], &sum["flows"]), (&4.into(), &4.into()));

    let accounts = |words: &str| {
        let table = cluster.weft(0, &["maps", "TRAFFIC"])["maps"][0].clone();
        let all = table["entries"].as_array().unwrap().iter();
        all.filter(|entry| entry["key"].as_str().unwrap().contains(words)).count()
    };
    cluster.weft(0, &["policy", "rm", RULE]);
    wait_for_rule(&cluster, 0);
    assert_eq!((accounts("by rule #"), accounts("by rules that are gone")), (2, 0), "it was in use a moment ago");
    age(&digest_directory(&cluster).join("maps/TRAFFIC"), Duration::from_mins(6));
    // Whoever changes the rules looks for what is over.
    cluster.weft(0, &["deny", "shop", "blog", "udp"]);
    eventually(SOON, || (accounts("by rule #"), accounts("by rules that are gone")) == (0, 2));
    assert_eq!(pair(&cluster, 0), sum);
    // Come back, it begins anew.
    cluster.weft(0, &["allow", "shop/web -> blog/db icmp"]);
    wait_for_rule(&cluster, 2);
    pings(&web, &db, 1);
    assert_eq!(hits(&cluster, 0, RULE), Some([2, 2 * PING, 1, 0]));
    assert_eq!(pair(&cluster, 0)["volume"]["packets"], 5);
}

/// Makes all accounts quiet for so long.
fn age(pin: &Path, by: Duration) {
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut accounts: PerCpuHashMap<_, Account, Counts> = PerCpuHashMap::try_from(map).unwrap();
    let by = u64::try_from(by.as_nanos()).unwrap();
    for (account, values) in accounts.iter().collect::<Result<Vec<_>, _>>().unwrap() {
        let older = |counts: &Counts| Counts { last: counts.last.saturating_sub(by), ..*counts };
        let values: Vec<_> = values.iter().map(older).collect();
        accounts.insert(account, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
    }
}
