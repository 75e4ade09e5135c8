//! What an operator is told, and that it is true.

use serde_json::Value;
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, SOON, segment::wait_for_rule};

/// Asks the tables and the program on host `at`.
fn live(cluster: &Cluster, at: usize, words: [&str; 3]) -> Value {
    let arguments = [&["why"], words.as_slice(), &["--live", "--json"]].concat();
    let (status, stdout, stderr) = cluster.hosts[at].weft_text(&arguments);
    let answer: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{words:?}: {status} {stderr}"));
    let allowed = answer["decision"] == "allow";
    assert_eq!(status.code(), Some(if allowed { 0 } else { 3 }), "{words:?}: {answer:#} {stderr}");
    assert_eq!(answer["live"]["agrees"], true, "{words:?}: {answer:#}");
    assert_eq!(answer["live"]["decision"], answer["decision"], "{words:?}: {answer:#}");
    assert_eq!(answer["live"]["reason"], answer["reason"], "{words:?}: {answer:#}");
    answer
}

/// What the programs have counted and remembered on a host.
fn kept(cluster: &Cluster, at: usize) -> [Value; 4] {
    let flows = cluster.weft(at, &["flows"])["total"].clone();
    let traffic = cluster.weft(at, &["traffic"])["pairs"].clone();
    let drops = cluster.weft(at, &["drops"]);
    [flows, traffic, drops["counters"].clone(), drops["recent"].clone()]
}

#[test]
fn the_loaded_program_says_what_the_tables_say_and_nothing_is_kept_of_the_asking() {
    let cluster = Cluster::of(2, Family::V4);
    let names =
        [(0, "a1", "shop/web"), (0, "a3", "shop/db"), (0, "b1", "blog/db"), (1, "a2", "shop/db"), (1, "b2", "blog/db")];
    let all = names.map(|(at, name, member)| cluster.container(at, name, member));
    let [web, _, near, friend, far] = &all;
    cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/5432", "--name", "to-db"]);
    cluster.weft(0, &["deny", "shop", "blog", "udp/53"]);
    cluster.weft(0, &["reject", "shop/web", "blog", "tcp/80"]);
    wait_for_rule(&cluster, 3);
    let before = [kept(&cluster, 0), kept(&cluster, 1)];

    let texts = |container: &Container| container.both().map(|addr| addr.to_string());
    let expect = |answer: &Value, decision: &str, reason: Option<&str>, program: &str| {
        let reason = reason.map_or(Value::Null, Value::from);
        assert_eq!((&answer["decision"], &answer["reason"]), (&Value::from(decision), &reason), "{answer:#}");
        let ran = answer["live"]["program"].as_str().unwrap();
        assert!(ran.starts_with(program), "{answer:#}");
    };
    let questions = [
        ("tcp/5432", "allow", None),
        ("tcp/5433", "deny", Some("policy-default")),
        ("udp/53", "deny", Some("policy-denied")),
        ("tcp/80", "reject", Some("policy-rejected")),
        ("icmp", "deny", Some("policy-default")),
        ("sctp/5432", "deny", Some("policy-default")),
    ];
    for family in 0..2 {
        let [web, near, far] = [web, near, far].map(|container| texts(container)[family].clone());
        for (what, decision, reason) in questions {
            expect(&live(&cluster, 0, [&web, &near, what]), decision, reason, "from_workload at ");
            expect(&live(&cluster, 0, [&web, &far, what]), decision, reason, "from_workload at ");
            // The receiving host knows of the sender what the tunnel says.
            expect(&live(&cluster, 1, ["shop/web", &far, what]), decision, reason, "from_underlay at eth0");
        }
        let friend = &texts(friend)[family];
        let answer = live(&cluster, 0, [&web, friend, "tcp/1"]);
        expect(&answer, "allow", None, "from_workload at ");
        let detail = answer["live"]["detail"].as_str().unwrap();
        assert!(detail.contains("wrapped in 50 bytes, packets up to 1450 bytes fit"), "{detail}");
        assert!(detail.contains("this is the half of h1: h2 has the last word"), "{detail}");
        let nobody = if family == 0 { "10.1.9.9" } else { "fd00:1:9::9" };
        expect(&live(&cluster, 0, [&web, nobody, "tcp/1"]), "deny", Some("no-route"), "from_workload at ");
        expect(&live(&cluster, 0, ["host", &web, "tcp/1"]), "allow", None, "from_host at weft0");
        expect(&live(&cluster, 0, ["outside", &web, "tcp/1"]), "deny", Some("policy-default"), "from_host at weft0");
        expect(&live(&cluster, 0, [&web, "outside", "udp/1"]), "allow", None, "from_workload at ");
        expect(&live(&cluster, 0, [&web, "outside", "udp/6784"]), "deny", Some("host-port"), "from_workload at ");
        expect(&live(&cluster, 0, [&web, &web, "tcp/1"]), "deny", Some("martian"), "from_workload at ");
    }
    let named = live(&cluster, 0, ["a1", "blog/b1", "tcp/5432"]);
    assert!(named["rule"]["text"].as_str().unwrap().contains("to-db"), "{named:#}");
    let by_default = live(&cluster, 0, ["a1", "b1", "tcp/9"]);
    assert_eq!(by_default["rule"]["text"], "default of blog: closed to other apps");
    assert_eq!(by_default["would_allow"], "allow shop/web -> blog/db tcp/9");
    let denied = live(&cluster, 0, ["a1", "b1", "udp/53"]);
    assert_eq!(denied["would_allow"], "allow shop/web -> blog/db udp/53 precedence 1001");

    assert_eq!([kept(&cluster, 0), kept(&cluster, 1)], before, "the asking left something behind");
}

#[test]
fn what_the_program_can_not_be_asked_is_refused_with_what_to_do() {
    let cluster = Cluster::of(2, Family::V4);
    let _web = cluster.container(0, "a1", "shop/web");
    let refused = |words: [&str; 3], part: &str| {
        let (status, stdout, stderr) = cluster.hosts[0].weft_text(&[&["why"], words.as_slice(), &["--live"]].concat());
        assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
        assert!(stderr.contains(part), "{words:?}: {stderr}");
    };
    refused(["a1", "blog/db", "tcp/1"], "ask its host (peer h2)");
    refused(["10.1.2.2", "10.2.2.2", "tcp/1"], "ask on h2");
    refused(["10.1.1.99", "a1", "tcp/1"], "nobody has 10.1.1.99");
    refused(["a1", "224.0.0.9", "udp/1"], "goes to many");
    refused(["a1", "10.1.1.9", "icmp/3"], "this kind of ICMP");
    refused(["host", "outside", "tcp/1"], "do not pass weft");
}

#[test]
fn a_program_that_says_otherwise_than_the_tables_is_told_loudly() {
    let cluster = Cluster::of(1, Family::V4);
    let _both = [("a1", "shop/web"), ("b1", "blog/db")].map(|(name, member)| cluster.container(0, name, member));
    cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/5432"]);
    wait_for_rule(&cluster, 1);
    live(&cluster, 0, ["a1", "b1", "tcp/5432"]);
    let maps = digest_directory(&cluster).join("maps/PEER_LISTS");
    // The daemon puts it right at its next look at the large tables.
    eventually(SOON * 4, || {
        empty(&maps);
        let (status, stdout, _) = cluster.hosts[0].weft_text(&["why", "a1", "b1", "tcp/5432", "--live"]);
        eprintln!("{status} {stdout}");
        status.code() == Some(4) && stdout.contains("the tables say otherwise: this is a bug of weft")
    });
}

fn digest_directory(cluster: &Cluster) -> std::path::PathBuf {
    let found = std::fs::read_dir(cluster.hosts[0].bpffs()).unwrap().next().unwrap();
    found.unwrap().path()
}

/// Takes everything out of a pinned table of lists.
fn empty(pin: &std::path::Path) {
    use aya::maps::{HashMap, Map, MapData};
    use weft_common::policy::PeerKey;

    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut lists: HashMap<_, PeerKey, u32> = HashMap::try_from(map).unwrap();
    for key in lists.keys().collect::<Result<Vec<_>, _>>().unwrap() {
        // Its daemon may have been faster.
        lists.remove(&key).ok();
    }
}
