//! Policy as manifests: in force as a whole or not at all, and proven before and after.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, thread};

use serde_json::Value;
use weft_tests::traffic::{Outcome, tcp::TcpEcho, tcp::tcp_connect};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, Container, SILENCE, SOON};

const BLOG: &str = "\
weft: v1
policy: blog
rules:
  - allow shop/web -> blog/db tcp/5432
  - deny shop -> blog tcp/22 precedence 2000 as ssh
expect:
  - shop/web -> blog/db tcp/5432 allow
  - shop -> blog tcp/22 deny
";

/// Puts a text into a file of the cluster's folder.
pub(crate) fn write(cluster: &Cluster, name: &str, text: &str) -> String {
    let path: PathBuf = cluster.file.with_file_name(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a command that is to fail says.
fn refused(cluster: &Cluster, arguments: &[&str], code: i32) -> String {
    let (status, stdout, stderr) = cluster.hosts[0].weft_text(arguments);
    assert_eq!(status.code(), Some(code), "weft {arguments:?}: {stdout}{stderr}");
    format!("{stdout}{stderr}")
}

/// Of what a host enforces. A daemon that has just started enforces nothing yet.
fn digest(cluster: &Cluster, at: usize) -> String {
    let mut found = None;
    eventually(SOON, || {
        found = cluster.weft(at, &["status"])["digest"].as_str().map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_manifest_is_applied_once_and_the_same_again_is_no_change() {
    let cluster = Cluster::of(2, Family::V4);
    let client = cluster.container(0, "a1", "shop/web");
    let server = cluster.container(1, "b1", "blog/db");
    let echo = TcpEcho::start(&server.netns, server.at(5432));
    assert_eq!(tcp_connect(&client.netns, echo.address(), SILENCE), Outcome::TimedOut);
    let blog = write(&cluster, "blog.yaml", BLOG);

    let told = refused(&cluster, &["policy", "diff", "-f", &blog], 3);
    assert!(told.contains("policy blog: new\n+ allow shop/web -> blog/db tcp/5432\n"), "{told}");
    let before = digest(&cluster, 0);
    let peer = format!("h2={}", cluster.hosts[1].socket().to_str().unwrap());
    let first = cluster.weft(0, &["policy", "apply", "-f", &blog, "--wait", "--host-socket", &peer]);
    assert_eq!((&first["expectations"], &first["in_force"]), (&2.into(), &true.into()), "{first:#}");
    assert!(first["hosts"].as_array().unwrap().iter().all(|host| host["state"] == "yes"), "{first:#}");
    // What was waited for is true: no attempt more.
    assert_eq!(tcp_connect(&client.netns, echo.address(), SOON), Outcome::Reached);
    let after = digest(&cluster, 0);
    assert_ne!(after, before);
    assert_eq!(digest(&cluster, 1), after);
    let first_peer = format!("h1={}", cluster.hosts[0].socket().to_str().unwrap());
    let shown = cluster.weft(1, &["policy", "show", "blog", "--host-socket", &first_peer]);
    let enforcing =
        |shown: &Value| shown["hosts"].as_array().unwrap().iter().filter(|host| host["state"] == "yes").count();
    assert_eq!((&shown["digest"], enforcing(&shown)), (&after.as_str().into(), 2), "{shown:#}");
    let shown = cluster.weft(1, &["policy", "show", "blog"]);
    assert_eq!(enforcing(&shown), 1, "who is not asked is not known: {shown:#}");

    let again = cluster.weft(0, &["policy", "apply", "-f", &blog]);
    assert_eq!(again["parts"], serde_json::json!([]), "{again:#}");
    assert_eq!(again["revision"], first["revision"], "{again:#}");
    assert_eq!(cluster.weft(0, &["policy", "diff", "-f", &blog])["parts"], serde_json::json!([]));
}

#[test]
fn what_is_exported_makes_a_fresh_cluster_the_same() {
    let cluster = Cluster::of(1, Family::V4);
    let fresh = Cluster::of(1, Family::V4);
    let blog = write(&cluster, "blog.yaml", BLOG);
    cluster.weft(0, &["policy", "apply", "-f", &blog]);
    cluster.weft(0, &["deny", "shop", "outside", "udp/53"]);
    cluster.weft(0, &["allow", "shop", "blog", "tcp/80", "--for", "1h"]);
    cluster.weft(0, &["deny", "shop", "blog", "tcp/81", "--shadow"]);
    cluster.weft(0, &["app", "set", "blog", "--shadow", "on", "--label", "team=b", "--to-outside", "closed"]);
    let netns = cluster.hosts[0].container("a1");
    let labels = ["--app", "shop", "--label", "env=prod", "--port", "http=tcp/80"];
    cluster.weft(0, &[&["attach", netns.path().to_str().unwrap()], &labels[..]].concat());
    let loose = cluster.weft(0, &["policy", "export", "--all"]);
    assert_eq!(loose["policies"], serde_json::json!(["blog", "rules"]));
    let (status, exported, _) = cluster.hosts[0].weft_text(&["policy", "export", "--all"]);
    assert!(status.success());
    assert_eq!(loose["manifest"], exported.as_str());
    let exported = write(&fresh, "all.yaml", &exported);
    assert_ne!(digest(&fresh, 0), digest(&cluster, 0));
    let applied = fresh.weft(0, &["policy", "apply", "-f", &exported, "--wait"]);
    assert_eq!(applied["hosts"][0]["state"], "yes", "{applied:#}");
    eventually(SOON, || digest(&fresh, 0) == digest(&cluster, 0));

    // And gone is gone, to the last line of the file.
    let text = |cluster: &Cluster| fs::read_to_string(&cluster.file).unwrap();
    let gone = fresh.weft(0, &["policy", "delete", "rules", "blog", "--wait"]);
    assert_eq!(gone["parts"].as_array().unwrap().len(), 2, "{gone:#}");
    assert!(!text(&fresh).contains("policy"), "{}", text(&fresh));
    let again = fresh.weft(0, &["policy", "delete", "-f", &exported]);
    assert_eq!((&again["parts"], &again["revision"]), (&serde_json::json!([]), &gone["revision"]), "{again:#}");
}

#[test]
fn what_is_wrong_or_breaks_what_is_expected_changes_nothing() {
    let cluster = Cluster::of(1, Family::V4);
    let before = (fs::read_to_string(&cluster.file).unwrap(), digest(&cluster, 0));
    let unchanged = || (fs::read_to_string(&cluster.file).unwrap(), digest(&cluster, 0)) == before;

    // Half of the files are good, and none is applied.
    let good = write(&cluster, "a-good.yaml", &BLOG.replace("policy: blog", "policy: good"));
    let bad =
        write(&cluster, "bad.yaml", &BLOG.replace("tcp/22 prec", "tcp/99999 prec").replace("expect:", "expects:"));
    let told = refused(&cluster, &["policy", "apply", "-f", &good, "-f", &bad], 1);
    assert!(told.contains("bad.yaml:5:5: \"99999\" is no port"), "{told}");
    assert!(told.contains("bad.yaml:6:1: \"expects\""), "{told}");
    assert!(unchanged());
    refused(&cluster, &["policy", "validate", "-f", &bad], 1);
    cluster.weft(0, &["policy", "validate", "-f", &good]);
    // As of a command that fails in front of the pipe.
    for ask in ["validate", "test", "apply", "diff", "delete"] {
        let told = refused(&cluster, &["policy", ask, "-f", "-"], 1);
        assert!(told.contains("nothing came on standard input"), "{told}");
    }
    let unknown = write(
        &cluster,
        "unknown.yaml",
        &BLOG.replace("shop/web -> blog/db tcp/5432\n  - deny", "wiki -> blog/db\n  - deny"),
    );
    let told = refused(&cluster, &["policy", "apply", "-f", &unknown], 1);
    assert!(told.contains("unknown.yaml:4:5: rule `allow wiki -> blog/db any`: there is no app wiki"), "{told}");
    assert!(unchanged());

    let breaks =
        write(&cluster, "breaks.yaml", &BLOG.replace("deny shop -> blog tcp/22", "allow shop/db -> blog tcp/22"));
    let told = refused(&cluster, &["policy", "apply", "-f", &breaks], 1);
    assert!(told.contains("nothing was changed, it would break what is expected"), "{told}");
    assert!(told.contains("breaks.yaml:8: policy blog expects `shop -> blog tcp/22 deny`: shop/db -> blog"), "{told}");
    assert!(told.contains("breaks.yaml:5)"), "{told}");
    // Whoever only asks is shown the difference, too.
    let told = refused(&cluster, &["policy", "diff", "-f", &breaks], 3);
    assert!(told.contains("+ allow shop/db -> blog tcp/22"), "{told}");
    let why = "\napply would be refused, it would break what is expected:\n      ";
    assert!(told.contains(why) && told.contains("breaks.yaml:8: policy blog expects"), "{told}");
    assert!(unchanged());

    // A rule by hand is held to it too, and so is taking one away.
    let blog = write(&cluster, "blog.yaml", BLOG);
    cluster.weft(0, &["policy", "apply", "-f", &blog]);
    let told = refused(&cluster, &["allow", "shop", "blog", "tcp/20-25", "--precedence", "3000"], 1);
    assert!(told.contains("expects `shop -> blog tcp/22 deny`: shop"), "{told}");
    cluster.weft(0, &["allow", "shop", "blog", "tcp/20-21"]);
    cluster.weft(0, &["app", "set", "blog", "--from-apps", "open"]);
    let told = refused(&cluster, &["policy", "rm", "ssh"], 1);
    assert!(told.contains("of policy blog"), "{told}");
}

#[test]
fn hosts_that_do_not_enforce_a_change_are_named() {
    let mut cluster = Cluster::of(4, Family::V4);
    let blog = write(&cluster, "blog.yaml", BLOG);
    let told = refused(&cluster, &["policy", "apply", "-f", &blog, "--wait=20"], 1);
    assert!(told.contains("  h1: enforces it: its tables have "), "{told}");
    assert!(told.contains("  h2: not known: hosts of a cluster from a file do not tell each other"), "{told}");
    cluster.weft_everywhere(0, &["allow", "shop", "blog", "tcp/80"]);

    // One has died and one hangs: neither keeps the third from being heard.
    cluster.hosts[1].kill9();
    cluster.hosts[2].freeze();
    let sockets = [1, 2, 3].map(|at| format!("--host-socket=h{}={}", at + 1, cluster.hosts[at].socket().display()));
    let [h2, h3, h4] = sockets.each_ref().map(String::as_str);
    let told = refused(&cluster, &["deny", "shop", "blog", "tcp/81", "--wait=2", h2, h3, h4], 1);
    assert!(told.contains("  h2: not known: it can not be asked: "), "{told}");
    assert!(told.contains("  h3: not known: it can not be asked: no answer from weftd within 2s"), "{told}");
    for host in ["h1", "h4"] {
        assert!(told.contains(&format!("  {host}: enforces it: its tables have ")), "{told}");
    }
    cluster.start(1);
    cluster.hosts[2].thaw();
    // They come back with the file as it is, and are waited for.
    let told = cluster.weft_everywhere(0, &["deny", "shop", "blog", "tcp/81"]);
    let hosts = told["hosts"].as_array().unwrap();
    assert!(hosts.len() == 4 && hosts.iter().all(|host| host["state"] == "yes"), "{told:#}");
    let told = refused(&cluster, &["deny", "shop", "blog", "tcp/82", "--wait", "--host-socket", "h9=/x"], 2);
    assert!(told.contains("\"h9\" is no host of the cluster"), "{told}");
    assert!(!cluster.weft(0, &["policy", "ls"]).to_string().contains("tcp/82"), "refused, and made");
}

#[test]
fn who_reaches_whom_is_the_same_from_files_and_from_the_daemon() {
    let cluster = Cluster::of(1, Family::V4);
    let blog = write(&cluster, "blog.yaml", BLOG);
    let file = cluster.file.to_str().unwrap().to_owned();
    let ports = ["--port", "tcp/5432", "--port", "icmp"];
    let from_files = cluster.weft(0, &[&["policy", "matrix", "--cluster", &file, "-f", &blog], &ports[..]].concat());
    cluster.weft(0, &["policy", "apply", "-f", &blog, "--wait"]);
    let svg = cluster.file.with_file_name("matrix.svg");
    let asked = [&["policy", "matrix", "--svg", svg.to_str().unwrap()], &ports[..]].concat();
    assert_eq!(cluster.weft(0, &asked), from_files);
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg "));
    let at = |name: &str| from_files["parties"].as_array().unwrap().iter().position(|party| party == name).unwrap();
    assert_eq!(from_files["tables"][0]["rows"][at("shop/web")][at("blog/db")]["passes"], "all", "{from_files:#}");
    assert_eq!(from_files["tables"][0]["rows"][at("shop/db")][at("blog/db")]["passes"], "nothing", "{from_files:#}");

    let junit = cluster.file.with_file_name("junit.xml");
    let test = ["policy", "test", "-f", &blog, "--cluster", &file, "--junit", junit.to_str().unwrap()];
    assert_eq!(cluster.weft(0, &test)["failed"], 0);
    let broken = write(
        &cluster,
        "broken.yaml",
        &BLOG.replace("tcp/22 deny", "tcp/5432 deny").replace("policy: blog", "policy: other"),
    );
    let told = refused(
        &cluster,
        &["policy", "test", "-f", &broken, "--cluster", &file, "--junit", junit.to_str().unwrap()],
        3,
    );
    assert!(told.contains("FAIL  ") && told.contains("broken.yaml:8: shop -> blog tcp/5432 deny"), "{told}");
    assert!(fs::read_to_string(&junit).unwrap().contains("<testsuite name=\"other\" tests=\"2\" failures=\"1\">"));
}

#[test]
fn why_tells_who_else_spoke_and_what_would_change_the_answer() {
    let cluster = Cluster::of(1, Family::V4);
    let [web, db] = [("a1", "shop/web"), ("b1", "blog/db")].map(|(name, member)| cluster.container(0, name, member));
    let blog = write(&cluster, "blog.yaml", BLOG);
    cluster.weft(0, &["policy", "apply", "-f", &blog, "--wait"]);
    near_is_told(&cluster, (&web, &db));
    cluster.weft(0, &["deny", "shop", "blog", "tcp/5000-6000", "--precedence", "7", "--wait"]);

    let allowed = cluster.weft(0, &["why", "a1", "b1", "tcp/5432"]);
    assert_eq!(allowed["rule"]["source"]["line"], 4, "{allowed:#}");
    assert!(allowed["rule"]["source"]["file"].as_str().unwrap().ends_with("blog.yaml"), "{allowed:#}");
    assert_eq!(allowed["also"].as_array().unwrap().len(), 3, "{allowed:#}");
    assert_eq!(allowed["would_deny"], "deny shop/web -> blog/db tcp/5432", "{allowed:#}");
    let denied = cluster.weft_no(0, &["why", "a1", "b1", "tcp/22"]);
    assert_eq!(denied["rule"]["source"]["line"], 5, "{denied:#}");
    assert_eq!(denied["would_allow"], "allow shop/web -> blog/db tcp/22 precedence 2001", "{denied:#}");
    let low = cluster.weft_no(0, &["why", "a1", "b1", "tcp/5001"]);
    assert_eq!(low["would_allow"], "allow shop/web -> blog/db tcp/5001", "a rule of the usual precedence is enough");

    // What is said to change the answer does, where nothing is expected of it.
    cluster.weft(0, &["policy", "delete", "blog", "--wait"]);
    cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/5432", "--wait"]);
    let rule = cluster.weft(0, &["why", "a1", "b1", "tcp/5432"])["would_deny"].as_str().unwrap().to_owned();
    cluster.weft(0, &["deny", rule.strip_prefix("deny ").unwrap(), "--wait"]);
    let denied = cluster.weft_no(0, &["why", "a1", "b1", "tcp/5432"]);
    assert_eq!(denied["rule"]["text"], rule.as_str());
}

/// What the default refuses is told with the rule of the file that is nearest to it and the revision in force, also by
/// `why`; what a rule refuses has no nearest one.
fn near_is_told(cluster: &Cluster, (web, db): (&Container, &Container)) {
    assert_eq!(tcp_connect(&web.netns, db.at(9), SILENCE), Outcome::TimedOut);
    assert_eq!(tcp_connect(&web.netns, db.at(22), SILENCE), Outcome::TimedOut);
    let in_force = &cluster.weft(0, &["status"])["in_force"];
    let drops = cluster.weft(0, &["drops"]);
    let to = |port: u16| {
        let dropped = drops["recent"].as_array().unwrap().iter().find(|dropped| dropped["to"]["port"] == port);
        dropped.unwrap_or_else(|| panic!("nothing was dropped to {port}: {drops:#}"))
    };
    let asked = cluster.weft_no(0, &["why", "a1", "b1", "tcp/9"]);
    for told in [to(9), &asked] {
        let nearest = &told["nearest"];
        assert_eq!((&nearest["miss"], &nearest["only"]), (&"traffic".into(), &"tcp/5432".into()), "{told:#}");
        assert_eq!(nearest["rule"]["source"]["line"], 4, "{told:#}");
        assert_eq!(&told["revision"], in_force, "{told:#}");
    }
    assert_eq!((to(22)["reason"].as_str(), &to(22)["nearest"]), (Some("policy-denied"), &Value::Null));
    assert_eq!(&to(22)["revision"], in_force);

    let line = format!("  rev={in_force}  nearest=[allow shop/web -> blog/db tcp/5432 (");
    let (_, drops, _) = cluster.hosts[0].weft_text(&["drops"]);
    let told = drops.lines().find(|told| told.contains(&line)).unwrap_or_else(|| panic!("{line}: {drops}"));
    assert!(told.contains("blog.yaml:4)] (allows only tcp/5432)"), "{told}");
    assert!(told.contains("  try: weft allow 'shop/web -> blog/db tcp/9'"), "{told}");
    let (_, why, _) = cluster.hosts[0].weft_text(&["why", "a1", "b1", "tcp/9"]);
    assert!(
        why.contains("\nnear   allow shop/web -> blog/db tcp/5432 (") && why.contains("allows only tcp/5432"),
        "{why}"
    );
}

/// The other host reads the file some hundred milliseconds later by itself, which is too late for who asks it at once.
#[test]
fn a_change_is_made_of_what_another_host_has_just_written() {
    let cluster = Cluster::of(2, Family::V4);
    let file = write(&cluster, "gate.yaml", "weft: v1\napps: {blog: {from-apps: open}}\n");
    for (word, shadow) in [("on", true), ("off", false)] {
        cluster.weft(0, &["app", "set", "blog", "--shadow", word]);
        cluster.weft(1, &["policy", "apply", "-f", &file]);
        let apps = cluster.weft(1, &["app", "ls"]);
        let blog = apps["apps"].as_array().unwrap().iter().find(|app| app["name"] == "blog").unwrap();
        assert_eq!(blog["shadow"], shadow, "{blog:#}");
        cluster.weft(0, &["allow", "shop", "blog", "tcp/7", "--name", "seven"]);
        cluster.weft(1, &["policy", "rm", "seven"]);
        cluster.weft(0, &["app", "set", "blog", "--label", "team=b"]);
        cluster.weft(1, &["app", "set", "blog", "--from-apps", "closed"]);
        let apps = cluster.weft(1, &["app", "ls"]).to_string();
        assert!(apps.contains("team"), "{apps}");
        cluster.weft(0, &["app", "set", "blog", "--label", "team-"]);
    }
}

/// Each of two hosts changes the same app by what it finds of it: neither takes back what the other has done.
#[test]
fn changes_of_one_app_by_two_hosts_at_once_are_both_made() {
    let cluster = Cluster::of(2, Family::V4);
    for n in 0..5 {
        thread::scope(|scope| {
            for (at, side) in ["one", "other"].into_iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || cluster.weft(at, &["app", "set", "shop", "--label", &format!("{side}{n}=yes")]));
            }
        });
    }
    let all: BTreeSet<String> = (0..5).flat_map(|n| [format!("one{n}=yes"), format!("other{n}=yes")]).collect();
    for at in [0, 1] {
        eventually(SOON, || {
            let shown = cluster.weft(at, &["app", "show", "shop"]);
            shown["app"]["labels"].as_str().unwrap_or_default().split(',').map(str::to_owned).collect::<BTreeSet<_>>()
                == all
        });
    }
}
