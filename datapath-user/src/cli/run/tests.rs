//! Commands against a server on a real socket: what is printed, and how it ends.

use std::{sync::Arc, time::Duration};

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
    _folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.sock");
        let access = Access { owner: nix::unistd::getuid().as_raw(), group: None };
        let server = Server::bind(&path, access).unwrap();
        let (handler, stop) = (Arc::new(Double::default()), CancellationToken::new());
        drop(tokio::spawn(server.run(Arc::clone(&handler), stop.clone())));
        Self { handler, client: Client::new(path), stop, _folder: folder }
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
