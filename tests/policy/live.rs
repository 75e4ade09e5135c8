//! Other people's policies on two hosts with real daemons: with real packets, and asked by `weft why`.
//!
//! `tests/policy-cases/run.py` knows nothing of weft; `tests/policy-adapter` tells it how weft is driven.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use weft_tests::host::binary;

use super::cases::cases;

/// How a case is judged.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// By packets between the pods.
    Packets,
    /// By what the daemon answers.
    Asking,
}

/// Takes the lab away, also when the story fails.
struct Lab<'a> {
    name: &'a str,
    family: &'a str,
}

impl Lab<'_> {
    /// A command that knows the lab.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("WEFT_ADAPTER_LAB", self.name).env("WEFT_ADAPTER_FAMILY", self.family);
        command.env("WEFT_BIN", binary("weft").parent().unwrap());
        command
    }

    fn adapter() -> String {
        format!("{}/policy-adapter", env!("CARGO_MANIFEST_DIR"))
    }

    /// Runs the cases that `chosen` picks by their number, and judges all of their cells.
    fn run(&self, by: By, chosen: impl Fn(usize) -> bool) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cases.json");
        let chosen: Vec<Value> =
            cases().into_iter().enumerate().filter(|(at, _)| chosen(*at)).map(|(_, case)| case).collect();
        fs::write(&file, json!({ "format": "netpol-cases/1", "cases": chosen }).to_string()).unwrap();
        let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy-cases/run.py");
        let mut command = self.command("python3");
        command.arg(runner).arg(&file).args(["--adapter", &Self::adapter()]);
        if by == By::Asking {
            command.arg("--ask");
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}{errors}");
        assert!(said.ends_with(&format!("{} passed, 0 failed\n", chosen.len())), "{said}");
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let down = self.command(Self::adapter()).arg("down").output();
        if !down.as_ref().is_ok_and(|down| down.status.success()) {
            eprintln!("take lab {} away: {down:?}", self.name);
        }
    }
}

/// Two stories, because they run side by side: together every fourth case and one more.
#[test]
fn some_cases_hold_with_real_packets() {
    Lab { name: "some", family: "4" }.run(By::Packets, |at| at % 8 == 0);
}

#[test]
fn other_cases_hold_with_real_packets() {
    Lab { name: "other", family: "4" }.run(By::Packets, |at| at % 8 == 4 || at == 225);
}

#[test]
fn some_cases_hold_when_the_daemon_is_asked() {
    Lab { name: "asked", family: "4" }.run(By::Asking, |at| at % 16 == 2);
}

/// `run.py` sends IPv4 alone; with packets of IPv6 the same tables are shown in other stories.
#[test]
fn some_cases_hold_when_the_daemon_is_asked_about_ipv6() {
    Lab { name: "six", family: "6" }.run(By::Asking, |at| at % 32 == 1);
}

#[test]
#[ignore = "takes half an hour"]
fn all_cases_hold_with_real_packets() {
    Lab { name: "all", family: "4" }.run(By::Packets, |_| true);
}

#[test]
#[ignore = "takes minutes"]
fn all_cases_hold_when_the_daemon_is_asked() {
    Lab { name: "allasked", family: "4" }.run(By::Asking, |_| true);
}
