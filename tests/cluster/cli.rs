//! What an operator is told, and that it is true.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command};

use serde_json::Value;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    tcp::{TcpEcho, tcp_connect},
};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, READY, SILENCE, SOON, segment::wait_for_rule};

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
    let mut traffic = cluster.weft(at, &["traffic"])["pairs"].clone();
    // Inside an app its endpoints tell each other which groups they want.
    traffic.as_array_mut().unwrap().retain(|pair| pair["from"] != pair["to"]);
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
    refused(["a1", "blog/db", "tcp/1"], "ask its host (peer h2), too: --host-socket");
    refused(["10.1.2.2", "10.2.2.2", "tcp/1"], "ask on h2");
    refused(["10.1.1.99", "a1", "tcp/1"], "nobody has 10.1.1.99");
    refused(["a1", "224.0.0.9", "udp/1"], "goes to many");
    refused(["a1", "10.1.1.9", "icmp/3"], "this kind of ICMP");
    refused(["host", "outside", "tcp/1"], "do not pass weft");
}

#[test]
fn both_hosts_are_asked_and_together_they_say_what_a_packet_meets() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let [db, other] = [("b2", "blog/db"), ("b3", "blog")].map(|(name, member)| cluster.container(1, name, member));
    cluster.weft_everywhere(0, &["allow", "shop/web", "blog/db", "tcp/5432"]);
    let sockets = [0, 1].map(|at| format!("--host-socket=h{}={}", at + 1, cluster.hosts[at].socket().display()));
    let why = |at: usize, words: [&str; 2], more: &[&str]| {
        let arguments = [&["why"], words.as_slice(), &["tcp/5432", "--json"], more].concat();
        let (status, stdout, stderr) = cluster.hosts[at].weft_text(&arguments);
        let answer: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{words:?}: {status} {stderr}"));
        (status.code().unwrap(), answer)
    };
    let whole = [(&db, "blog/db", "allow"), (&other, "blog", "deny")];
    for (is_v6, (container, role, expect)) in [false, true].into_iter().flat_map(|is_v6| whole.map(|way| (is_v6, way)))
    {
        let [client, addr] = [&web, container].map(|end| if is_v6 { end.v6 } else { end.v4 });
        let server = TcpEcho::start(&container.netns, SocketAddr::new(addr, 5432));
        let met = tcp_connect(&web.netns, server.address(), if expect == "allow" { SOON } else { SILENCE });
        assert_eq!(met, if expect == "allow" { Outcome::Reached } else { Outcome::TimedOut });
        let (client, address) = (client.to_string(), addr.to_string());
        // The sender's host does not know who of blog it is, and says whom to ask.
        let (status, alone) = why(0, ["a1", &address], &["--live"]);
        assert!(status == 0 && alone["decision"] == "allow", "{alone:#}");
        let there = &alone["other_half"];
        assert_eq!(there["host"], "h2", "{alone:#}");
        assert_eq!(there["question"]["from"], format!("shop/web@{client}"));
        // A role is asked about by the first family that both have.
        let by_role = (!is_v6).then_some((0, ["a1", role]));
        for (at, words) in [(0, ["a1", &*address]), (1, ["shop/web", &*address])].into_iter().chain(by_role) {
            for more in [&["--live"][..], &[]] {
                let (status, answer) = why(at, words, &[&[&*sockets[0], &*sockets[1]], more].concat());
                assert_eq!(status, if expect == "allow" { 0 } else { 3 }, "{answer:#}");
                let halves = [&answer, &answer["other_half"]["answer"]];
                let [here, there] = if at == 0 { halves } else { [halves[1], halves[0]] };
                assert!(here["decision"] == "allow" && there["decision"] == expect, "{answer:#}");
                if more.is_empty() {
                    continue;
                }
                for (half, program) in [(here, "from_workload"), (there, "from_underlay")] {
                    let live = &half["live"];
                    assert!(live["agrees"] == true && live["decision"] == half["decision"], "{answer:#}");
                    assert!(live["program"].as_str().unwrap().starts_with(program), "{answer:#}");
                    assert_eq!(half["from"]["address"], client, "{answer:#}");
                    assert_eq!(half["to"]["address"], address, "{answer:#}");
                }
            }
        }
    }
    // Whoever is at a socket has to be who was named.
    let swapped = format!("--host-socket=h2={}", cluster.hosts[0].socket().display());
    for (socket, status, part) in [(&*swapped, 1, " is host h1"), ("--host-socket=h9=/x", 2, "are h1, h2")] {
        let (ended, _, stderr) = cluster.hosts[0].weft_text(&["why", "a1", "blog/db", "tcp/5432", socket]);
        assert!(ended.code() == Some(status) && stderr.contains(part), "{ended} {stderr}");
    }
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

pub(super) fn digest_directory(cluster: &Cluster) -> std::path::PathBuf {
    let found = fs::read_dir(cluster.hosts[0].bpffs()).unwrap().next().unwrap();
    found.unwrap().path()
}

/// Takes everything out of a pinned table of lists.
fn empty(pin: &Path) {
    use aya::maps::{HashMap, Map, MapData};
    use weft_common::policy::PeerKey;

    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut lists: HashMap<_, PeerKey, u32> = HashMap::try_from(map).unwrap();
    for key in lists.keys().collect::<Result<Vec<_>, _>>().unwrap() {
        // Its daemon may have been faster.
        lists.remove(&key).ok();
    }
}

/// A table as `weft maps` tells it.
fn table(cluster: &Cluster, name: &str) -> Value {
    cluster.weft(0, &["maps", name])["maps"][0].clone()
}

fn entries(table: &Value) -> Vec<(&str, &str, &str)> {
    let text = |entry: &'_ Value, field: &str| entry[field].as_str().unwrap().to_owned().leak() as &str;
    let each = table["entries"].as_array().unwrap().iter();
    each.map(|entry| (text(entry, "key"), text(entry, "value"), text(entry, "compared"))).collect()
}

#[test]
fn tables_are_told_in_words_and_beside_what_they_should_hold() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/8000-8007", "--name", "to-db"]);
    cluster.weft(0, &["allow", "shop", "10.9.0.0/16", "udp"]);
    wait_for_rule(&cluster, 2);
    assert_eq!(ping(&web.netns, super::gateway(1)[0], SOON), Outcome::Reached);

    let all = cluster.weft(0, &["maps"]);
    let all = all["maps"].as_array().unwrap();
    let names: BTreeSet<&str> = all.iter().map(|map| map["name"].as_str().unwrap()).collect();
    assert_eq!(names, weft_common::table::NAMES.iter().copied().collect());
    for map in all {
        for (key, value, compared) in entries(map) {
            assert!(!key.contains(['{', '(']) || key.contains("(#") || key.contains("(slot"), "{key}");
            assert!(!value.contains('{'), "{key} => {value}");
            assert!(["same", "unplanned"].contains(&compared), "{key} => {value}: {compared}");
        }
    }
    let holds = |name: &str, key: &str, value: &str| {
        let map = table(&cluster, name);
        let found = entries(&map).into_iter().find(|(at, _, _)| *at == key);
        assert!(found.is_some_and(|(_, have, _)| have.contains(value)), "{key} => {value} in {map:#}");
    };
    holds("CONFIG", "all", "gateway link weft0, udp port 6784");
    holds("ROUTES", "10.1.1.2/32", " shop/web 02:");
    holds("ROUTES", "10.1.2.0/24", "peer h2 shop, role not known");
    holds("ROUTES", "fd00:2::/32", "nowhere blog, role not known");
    holds("peer_addresses", "192.0.2.2", "peer h2 (#");
    let rules = table(&cluster, "RULES");
    let named = "allow at 1000: allow shop/web -> blog/db tcp/8000-8007 as to-db (#";
    let named = entries(&rules).into_iter().find(|(_, value, _)| value.starts_with(named));
    assert!(named.is_some_and(|(key, ..)| key.ends_with(" tcp/8000-8007")), "{rules:#}");
    let prefixes = table(&cluster, "PREFIX_LISTS");
    assert!(entries(&prefixes)[0].0.ends_with(" about 10.9.0.0/16"), "{prefixes:#}");
    let flows = table(&cluster, "FLOWS");
    let flow = entries(&flows).into_iter().find(|(key, ..)| key.starts_with("icmp 10.1.1.1:"));
    assert!(flow.is_some_and(|(_, value, _)| value.contains(" shop/web -> host host, by a default")), "{flows:#}");

    // What is not as it should be is marked, each on a line of its own.
    let pin = digest_directory(&cluster).join("maps/ROUTES");
    eventually(SOON * 2, || {
        disturb(&pin);
        let (status, text, _) = cluster.hosts[0].weft_text(&["maps", "routes"]);
        let lines: Vec<&str> = text.lines().collect();
        status.success()
            && lines.contains(&"+ 10.77.0.0/16 => host outside")
            && lines.iter().any(|line| line.starts_with("- 10.1.1.2/32  should be => link weft"))
            && lines.iter().any(|line| line.starts_with("! 10.2.0.0/16 => host outside  should be => nowhere blog"))
            && text.contains("1 missing, 1 extra, 1 different")
    });
    let (status, _, stderr) = cluster.hosts[0].weft_text(&["maps", "nosuch"]);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("there is no table \"nosuch\": see weft maps"), "{stderr}");
}

/// One route too many, one missing, one changed.
fn disturb(pin: &Path) {
    use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
    use weft_common::{addr::Ip, route::Route};

    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut routes: LpmTrie<_, Ip, Route> = LpmTrie::try_from(map).unwrap();
    routes.insert(&Key::new(112, Ip::from_v4([10, 77, 0, 0])), Route::OUTSIDE, 0).unwrap();
    routes.insert(&Key::new(112, Ip::from_v4([10, 2, 0, 0])), Route::OUTSIDE, 0).unwrap();
    // Its daemon may not have put it back yet.
    routes.remove(&Key::new(128, Ip::from_v4([10, 1, 1, 2]))).ok();
}

#[test]
fn what_is_listed_has_names_and_times_and_says_what_to_do() {
    let mut cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let other = cluster.container(0, "b1", "blog/db");
    let since = |cluster: &Cluster| cluster.weft(0, &["ps"])["endpoints"][1]["since"].as_str().unwrap().to_owned();
    let first = since(&cluster);
    cluster.hosts[0].kill9();
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    assert_eq!(since(&cluster), first, "it is attached since then, whatever the daemon does");

    assert_eq!(cluster.weft(0, &["peers"])["peers"][0]["uplink"], "eth0");
    let status = cluster.weft(0, &["status"]);
    let peers = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == "PEERS").unwrap();
    assert_eq!((&peers["used"], &peers["max"]), (&1.into(), &4095.into()));

    assert_eq!(ping(&web.netns, other.v4, SILENCE), Outcome::TimedOut);
    let drops = cluster.weft(0, &["drops"]);
    let dropped = drops["recent"].as_array().unwrap().last().unwrap();
    assert_eq!(dropped["protocol"], "icmp/8/0");
    assert_eq!(dropped["rule"]["text"], "default of blog: closed to other apps");
    assert_eq!(dropped["would_allow"], "allow shop/web -> blog/db icmp/8/0");
    let pairs = cluster.weft(0, &["traffic"]);
    let pair = |pair: &&Value| pair["from"] == "shop" && pair["to"] == "blog";
    assert!(pairs["pairs"].as_array().unwrap().iter().find(pair).is_some_and(|pair| pair["drops"] != 0), "{pairs}");
    // It is what why says, and works.
    let asked = cluster.weft_no(0, &["why", "a1", "b1", "icmp"]);
    assert_eq!(asked["would_allow"], dropped["would_allow"]);
    cluster.weft(0, &["allow", "shop/web -> blog/db icmp/8/0"]);
    wait_for_rule(&cluster, 1);
    assert_eq!(ping(&web.netns, other.v4, SOON), Outcome::Reached);
    cluster.weft(0, &["deny", "shop", "blog"]);
    wait_for_rule(&cluster, 2);
    let denied = cluster.weft_no(0, &["why", "a1", "b1", "icmp"]);
    let advice = denied["would_allow"].as_str().unwrap();
    assert!(denied["rule"]["text"].as_str().unwrap().starts_with("deny shop -> blog"), "{denied}");
    cluster.weft(0, &["allow", advice.strip_prefix("allow ").unwrap()]);
    wait_for_rule(&cluster, 3);
    assert_eq!(cluster.weft(0, &["why", "a1", "b1", "icmp"])["decision"], "allow");
}

#[test]
fn failures_have_their_exit_status_and_no_name_touches_the_terminal() {
    let cluster = Cluster::of(1, Family::V4);
    let check = |arguments: &[&str], code: i32, part: &str| {
        let (status, stdout, stderr) = cluster.hosts[0].weft_text(arguments);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
        assert!(stdout.contains(part) || stderr.contains(part), "{arguments:?}: {stdout}{stderr}");
        let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n'));
        assert!(is_plain(&stdout) && is_plain(&stderr), "{arguments:?}: {stdout:?} {stderr:?}");
    };
    check(&["status"], 0, "h1");
    check(&["nosuch"], 2, "nosuch");
    check(&["no\u{1b}[2Jsuch"], 2, "such");
    check(&["attach", "/run/netns/\u{1b}[2J", "--app", "shop"], 2, "\\u{1b}[2J");
    check(&["attach", "/run/netns/none", "--app", "shop"], 1, "/run/netns/none");
    check(&["attach", "none", "--app", "shop", "--name", "a\u{202e}b"], 2, "\\u{202e}");
    check(&["app", "show", "none"], 1, "there is no app none: see weft app ls");
    check(&["policy", "rm", "#7"], 1, "there is no rule 7: see weft policy ls");
    check(&["why", "shop/web", "blog/db", "tcp/1"], 3, "policy-default");
    let mut elsewhere = Command::new(weft_tests::host::binary("weft"));
    let (status, _, stderr) = weft_tests::command::output(elsewhere.args(["--socket", "/run/none.sock", "ps"]));
    assert!(status.code() == Some(1) && stderr.contains("/run/none.sock"), "{status} {stderr}");

    // Names of the file: they are refused, and shown in the sentence that says so.
    let before = fs::read_to_string(&cluster.file).unwrap();
    fs::write(&cluster.file, format!("{before}[app.\"ev\\u001b[2Jil\\u009b\"]\nprefixes = []\n")).unwrap();
    eventually(SOON, || !cluster.weft(0, &["status"])["problem"].is_null());
    check(&["status"], 0, "\\u{1b}[2Jil\\u{9b}");
    check(&["doctor"], 3, "FAIL  cluster file: ");
    fs::write(&cluster.file, before).unwrap();
    eventually(SOON, || cluster.weft(0, &["status"])["problem"].is_null());
}

#[test]
fn shells_can_complete() {
    let cluster = Cluster::of(1, Family::V4);
    let script = |shell: &str| {
        let (status, stdout, stderr) = cluster.hosts[0].weft_text(&["completions", shell]);
        assert!(status.success(), "{stderr}");
        assert!(stdout.contains("policy") && stdout.contains("json"), "{shell}: {}", stdout.len());
        stdout
    };
    assert!(script("zsh").starts_with("#compdef weft"));
    assert!(script("fish").contains("complete -c weft"));
    let file = cluster.hosts[0].directory().join("completions");
    fs::write(&file, script("bash")).unwrap();
    let line = format!(
        "source {}; complete -p weft; COMP_WORDS=(weft pol); COMP_CWORD=1; _weft weft pol weft; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let (status, stdout, stderr) = weft_tests::command::output(Command::new("bash").args(["-c", &line]));
    assert!(status.success() && stdout.ends_with("policy\n"), "{stdout}{stderr}");
}
