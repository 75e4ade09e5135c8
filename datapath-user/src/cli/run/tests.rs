//! Commands against a server on a real socket: what is printed, and how it ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::front::api::{access::Access, double::Double, example, server::Server};

/// Long enough for a slow machine; a test that needs it fails.
const SOON: Duration = Duration::from_secs(20);

struct Lab {
    handler: Arc<Double>,
    client: Client,
    stop: CancellationToken,
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.sock");
        let access = Access { owner: nix::unistd::getuid().as_raw(), group: None };
        let server = Server::bind(&path, access).unwrap();
        let (handler, stop) = (Arc::new(Double::default()), CancellationToken::new());
        drop(tokio::spawn(server.run(Arc::clone(&handler), stop.clone())));
        Self { handler, client: Client::new(path), stop, folder }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("weft.sock")
    }

    async fn run(&self, line: &str) -> (Result<Outcome, Failure>, String) {
        let args = std::iter::once("weft").chain(line.split('|')).map(OsString::from);
        let cli = Cli::try_parse_from(words::without_arrows(args)).unwrap();
        let screen = Screen { json: cli.json, colour: Colour::Off, now: example::time(8) };
        let mut out = Vec::new();
        let mut asking = Asking { client: &self.client, screen: &screen, out: &mut out };
        let outcome = tokio::time::timeout(SOON, ask(&cli.command, &mut asking)).await.unwrap();
        (outcome, String::from_utf8(out).unwrap())
    }
}

#[tokio::test]
async fn every_command_is_answered_for_people_and_for_programs() {
    let lab = Lab::new();
    for (line, expect) in [
        ("app|ls", Outcome::Done),
        ("app|add|shop|--prefix|10.1.0.0/16", Outcome::Done),
        ("attach|4711|--app|shop", Outcome::Done),
        ("detach|shop/web-1", Outcome::Done),
        ("ps", Outcome::Done),
        ("allow|shop/web|->|blog/db|tcp/5432", Outcome::Done),
        ("deny|shop/web blog/db|--remove", Outcome::Done),
        ("policy|delete|blog", Outcome::Done),
        ("policy|export", Outcome::Done),
        ("policy|matrix|--port|tcp/80", Outcome::Done),
        ("policy|ls", Outcome::Done),
        ("policy|show|shop", Outcome::Done),
        ("policy|rm|#7", Outcome::Done),
        ("why|shop/web|->|blog/db|tcp/5432", Outcome::No),
        ("flows|--app|shop", Outcome::Done),
        ("drops", Outcome::Done),
        ("traffic", Outcome::Done),
        ("peers", Outcome::Done),
        ("status", Outcome::Done),
        ("maps", Outcome::Done),
        ("maps|ROUTES", Outcome::Done),
        ("doctor", Outcome::No),
        ("reset|--yes", Outcome::NotDone),
    ] {
        let (outcome, text) = lab.run(line).await;
        assert_eq!(outcome.unwrap(), expect, "{line}");
        assert!(text.ends_with('\n') && text.is_ascii(), "{line}: {text}");
        let (outcome, text) = lab.run(&format!("--json|{line}")).await;
        assert_eq!(outcome.unwrap(), expect, "{line}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["schema"], 1, "{line}");
    }
}

const MANIFEST: &str = "\
weft: v1
policy: blog
apps:
  shop: {prefixes: [10.1.0.0/16], roles: [web]}
  blog: {prefixes: [10.2.0.0/16], roles: [db]}
rules:
  - allow shop/web -> blog/db tcp/5432
expect:
  - shop/web -> blog/db tcp/5432 allow
";

#[tokio::test]
async fn manifests_are_read_from_files_and_folders_in_order() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("b.yaml", "weft: b"), ("a.json", "{}"), ("c.yml", "weft: c"), ("notes.txt", "no")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let at = folder.path().display().to_string();
    let (outcome, text) = lab.run(&format!("policy|apply|-f|{at}|-f|{at}/b.yaml")).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{text}");
    let applied = lab.handler.applied.lock().unwrap().pop().unwrap();
    let names: Vec<_> = applied.files.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["a.json", "b.yaml", "c.yml", "b.yaml"]);
    assert_eq!(applied.files[0].text, "{}");
    // What the example answers has a difference.
    assert_eq!(lab.run(&format!("policy|diff|-f|{at}")).await.0.unwrap(), Outcome::No);
    let failed = lab.run(&format!("policy|apply|-f|{at}/none.yaml")).await.0.unwrap_err();
    assert!(failed.to_string().starts_with(&format!("read {at}/none.yaml: ")), "{failed}");
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let failed = lab.run(&format!("policy|apply|-f|{at}/empty")).await.0.unwrap_err();
    assert!(failed.to_string().contains("it has no *.yaml"), "{failed}");
}

#[tokio::test]
async fn hosts_that_can_not_be_asked_are_named_and_the_status_says_so() {
    let lab = Lab::new();
    let (outcome, text) = lab.run("policy|delete|blog|--wait=0").await;
    assert_eq!(outcome.unwrap(), Outcome::NotDone);
    assert!(text.contains("  h1: enforces it: its tables have "), "{text}");
    assert!(text.contains("  h2: not known: hosts of a cluster from a file do not tell each other"), "{text}");
    // At that socket is another host.
    let other = Lab::new();
    let socket = other.socket().display().to_string();
    let (outcome, text) = lab.run(&format!("allow|shop|blog|--wait=0|--host-socket|h2={socket}")).await;
    assert_eq!(outcome.unwrap(), Outcome::NotDone);
    assert!(text.contains(" is host h1"), "{text}");
    // A host that is not there is refused before anything is changed.
    let manifest = lab.folder.path().join("blog.yaml");
    std::fs::write(&manifest, MANIFEST).unwrap();
    let line = format!("policy|apply|-f|{}|--wait|--host-socket|h9=/x", manifest.display());
    let failed = lab.run(&line).await.0.unwrap_err();
    assert_eq!(failed.outcome(), Outcome::Usage, "{failed}");
    assert!(failed.to_string().contains("the hosts of the cluster are h1, h2, h3"), "{failed}");
    assert!(lab.handler.applied.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_changed_is_told_also_where_nobody_says_who_enforces_it() {
    let lab = Lab::new();
    lab.handler.is_mute.store(true, Ordering::SeqCst);
    let (outcome, text) = lab.run("policy|delete|blog|--wait=0").await;
    assert_eq!(outcome.unwrap(), Outcome::NotDone);
    assert!(text.contains("policy blog"), "{text}");
    assert!(text.contains("  h1: not known: it can not be asked: no answer from weftd within 1s"), "{text}");
    let (outcome, text) = lab.run("policy|show|shop").await;
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert!(text.contains("  h1: not known: "), "{text}");
}

#[tokio::test]
async fn a_host_that_says_nothing_is_named_when_the_time_is_over() {
    let lab = Lab::new();
    // The kernel takes connections for it, and nobody answers.
    let silent = lab.folder.path().join("silent.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    for seconds in [0, 1] {
        let line = format!("allow|shop|blog|--wait={seconds}|--host-socket|h2={}", silent.display());
        let (outcome, text) = lab.run(&line).await;
        assert_eq!(outcome.unwrap(), Outcome::NotDone);
        assert!(text.contains("  h1: enforces it: "), "{text}");
        assert!(text.contains("  h2: not known: it can not be asked: no answer from weftd within 1s"), "{text}");
    }
}

#[tokio::test]
async fn what_needs_no_daemon_works_without_one() {
    let lab = Lab::new();
    lab.stop.cancel();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = write("good.yaml", MANIFEST);
    let junit = folder.path().join("junit.xml");
    let (outcome, text) = lab.run(&format!("policy|test|-f|{good}|--junit|{}", junit.display())).await;
    assert_eq!((outcome.unwrap(), text.lines().count()), (Outcome::Done, 2), "{text}");
    assert!(std::fs::read_to_string(&junit).unwrap().contains("tests=\"1\" failures=\"0\""));
    let bad = write("bad.yaml", &MANIFEST.replace("tcp/5432 allow", "tcp/5433 allow"));
    let (outcome, text) = lab.run(&format!("policy|test|-f|{bad}|--junit|{}", junit.display())).await;
    assert_eq!(outcome.unwrap(), Outcome::No);
    assert!(text.contains("tcp/5433 does not pass, by default of blog: closed to other apps"), "{text}");
    let report = std::fs::read_to_string(&junit).unwrap();
    assert!(report.contains("name=\"shop/web -&gt; blog/db tcp/5433 allow\""), "{report}");
    assert!(report.contains("<failure message="), "{report}");
    let (outcome, text) = lab.run(&format!("policy|validate|-f|{good}")).await;
    assert_eq!((outcome.unwrap(), text.as_str()), {
        (Outcome::Done, "no mistakes: 1 policies, 1 rules, 1 expectations, 2 apps\n")
    });
    let error_of = async |manifest: &str| {
        let (outcome, _) = lab.run(&format!("policy|test|-f|{manifest}|--junit|{}", junit.display())).await;
        assert_eq!(outcome.unwrap_err().outcome(), Outcome::NotDone, "{manifest}");
        let report = std::fs::read_to_string(&junit).unwrap();
        assert!(report.contains("tests=\"1\" failures=\"0\" errors=\"1\"") && report.is_ascii(), "{report}");
        report.split_once("<error message=\"").unwrap().1.to_owned()
    };
    let nothing = write("nothing.yaml", MANIFEST.split("expect").next().unwrap());
    assert!(error_of(&nothing).await.starts_with("nothing is expected: "));
    assert!(error_of(&format!("{nothing}-none")).await.starts_with("read "));
    assert_eq!(lab.run(&format!("policy|test|-f|{nothing}")).await.0.unwrap_err().outcome(), Outcome::NotDone);
    let torn = write("torn.yaml", &MANIFEST.replace("tcp/5432\n", "tcp/99999\n").replace("expect:", "expects:"));
    let failed = lab.run(&format!("policy|validate|-f|{torn}")).await.0.unwrap_err();
    let lines = failed.lines();
    let lines: Vec<_> = lines.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("torn.yaml:7:5: ") && lines[1].contains("torn.yaml:8:1: "),
        "{lines:?}"
    );
    let error = error_of(&torn).await;
    assert!(
        error.contains("torn.yaml:7:5: ") && error.contains("\n      ") && error.contains("torn.yaml:8:1: "),
        "{error}"
    );

    let svg = folder.path().join("m.svg");
    let (outcome, text) = lab.run(&format!("policy|matrix|-f|{good}|--svg|{}", svg.display())).await;
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert!(text.contains("shop/web -> blog/db: tcp/5432\n"), "{text}");
    let svg = std::fs::read_to_string(&svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.is_ascii(), "{svg}");
    assert!(svg.contains("<title>shop/web -&gt; blog/db: tcp/5432</title>"), "{svg}");
}

#[test]
fn a_picture_and_a_report_hold_no_markup_of_names() {
    let poison = "</title><script>\"'&\u{202e}";
    let mut matrix = example::matrix();
    matrix.parties.iter_mut().for_each(|name| poison.clone_into(name));
    matrix.tables[0].with = poison.to_owned();
    let svg = matrix::svg(&matrix);
    let mut report = example::test_report();
    for tested in &mut report.expectations {
        tested.policy = poison.to_owned();
        tested.text = poison.to_owned();
        tested.why = Some(poison.to_owned());
    }
    for text in [svg, junit::report(&report)] {
        assert!(text.is_ascii() && !text.contains("<script") && !text.contains("&\\"), "{text}");
        assert!(text.contains("&lt;/title&gt;&lt;script&gt;&quot;&#39;&amp;\\u{202e}"), "{text}");
    }
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_and_is_an_error() {
    let lab = Lab::new();
    let (outcome, text) = lab.run("app|show|shop").await;
    let failed = outcome.unwrap_err();
    assert_eq!(
        (failed.to_string().as_str(), failed.outcome()),
        ("there is no app shop: see weft app ls", Outcome::NotDone)
    );
    assert_eq!(text, "");
}

#[tokio::test]
async fn what_is_no_rule_does_not_reach_the_daemon() {
    let lab = Lab::new();
    lab.stop.cancel();
    for line in ["allow|shop|blog|tcp/99999", "why|shop|blog", "attach|a|--app|shop|--ip|10.0.0.1|--ip|10.0.0.2"] {
        let failed = lab.run(line).await.0.unwrap_err();
        assert_eq!(failed.outcome(), Outcome::Usage, "{failed}");
    }
}

#[tokio::test]
async fn drops_are_printed_as_they_come() {
    let lab = Lab::new();
    for line in ["drops|-f", "drops|-f|--json"] {
        let end = async {
            while lab.handler.followers.lock().unwrap().pop().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ((outcome, text), ()) = tokio::join!(lab.run(line), end);
        assert!(outcome.unwrap_err().to_string().starts_with("weftd has ended"), "{line}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("policy-default"), "{text}");
    }
}

#[test]
fn usage_errors_are_one_line_that_names_the_argument() {
    let check = |line: &str, expect: &str| {
        let args = std::iter::once("weft").chain(line.split('|')).map(OsString::from);
        let error = Cli::try_parse_from(words::without_arrows(args)).unwrap_err();
        assert_eq!(usage(&error.render().to_string()), expect);
    };
    check("attach|7", "the following required arguments were not provided: --app <APP>");
    check("stats", "unrecognized subcommand 'stats' tip: a similar subcommand exists: 'status'");
    check(
        "detach|shop/\u{1b}[31m\n",
        "invalid value 'shop/ ' for '<WHAT>': \"\\u{1b}[31m\\n\" is no endpoint name: use a-z, 0-9, '-' and '.', first \
         and last a letter or a digit, at most 63 characters",
    );
}

#[tokio::test]
async fn what_was_not_seen_in_detail_is_said_beside_what_was_learned() {
    let lab = Lab::new();
    let file = lab.folder.path().join("learned.yaml");
    let (outcome, text) = lab.run(&format!("--json|policy|learn|--app|shop|--for|1s|-o|{}", file.display())).await;
    assert_eq!(outcome.unwrap(), Outcome::No, "{text}");
    let learned: serde_json::Value = serde_json::from_str(&text).unwrap();
    let gone = "host h1: 2 of 3 new connections from shop to blog were gone before they were seen";
    let apart = "host h2 was not asked: name its daemon with --host-socket h2=PATH";
    assert_eq!(learned["unseen"], serde_json::json!([apart, gone]));
    assert_eq!(learned["contacts"], 1);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(learned["manifest"], written.as_str());
    assert!(written.starts_with(&format!("# {apart}\n# {gone}\nweft: v1\n")), "{written}");
    let (_, text) = lab.run("policy|learn|--app|shop|--for|1s").await;
    assert_eq!(text, written);
}

#[tokio::test]
async fn learning_ends_early_and_loses_nothing() {
    let lab = Lab::new();
    let args = |more: &str| {
        let line = format!("weft|policy|learn|--for|30d|--app|{more}");
        let Command::Policy(args::Policy::Learn(args)) = Cli::try_parse_from(line.split('|')).unwrap().command else {
            panic!("{line} is to learn");
        };
        args
    };
    let watch = async |more: &str| {
        let args = args(more);
        let watched = learn::watch(&lab.client, &args, std::future::ready(()));
        tokio::time::timeout(SOON, watched).await.unwrap()
    };
    let watched = watch("shop").await.unwrap();
    assert_eq!(watched.request.contacts.len(), 1);
    // Nothing can be made of it: it is printed, to be asked again.
    let screen = Screen { json: false, colour: Colour::Off, now: example::time(8) };
    let mut out = Vec::new();
    let mut asking = Asking { client: &lab.client, screen: &screen, out: &mut out };
    let failed = learned(&watch("wiki").await.unwrap(), None, &mut asking).await.unwrap_err();
    assert!(failed.to_string().starts_with("no manifest was made: there is no app wiki"), "{failed}");
    assert!(String::from_utf8(out).unwrap().contains("\"address\": \"10.1.0.7\""));

    let refused = async |more: &str, part: &str| {
        let failed = watch(more).await.map(|_| ()).unwrap_err().to_string();
        assert!(failed.contains(part), "{failed}");
    };
    refused("shop|--host-socket|h9=/run/x", "\"h9\" is no host of the cluster: the hosts of the cluster are h1, h2")
        .await;
    refused("shop|--host-socket|h2=/none", "host h2: ").await;
    let here = lab.socket().display().to_string();
    refused(&format!("shop|--host-socket|h2={here}"), &format!("host h2: at {here} is host h1")).await;
    Cli::try_parse_from("weft|policy|learn|--app|shop|--for|0s".split('|')).unwrap_err();
}
