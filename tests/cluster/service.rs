//! The daemon as a service of its host: what it tells the service manager, and what it may do.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use weft_tests::traffic::{Outcome, ping::ping};
use weft_tests::underlay::Family;

use super::{Cluster, READY, SOON};

/// The capabilities of capabilities(7) that a daemon keeps, by number: CHOWN, DAC_OVERRIDE, FOWNER, NET_ADMIN, NET_RAW,
/// SYS_PTRACE, SYS_ADMIN, PERFMON, BPF.
const KEPT: [u32; 9] = [0, 1, 3, 12, 13, 19, 21, 38, 39];

#[test]
fn the_daemon_keeps_the_privileges_it_needs_and_no_other() {
    let cluster = Cluster::of(1, Family::V4);
    let kept: u64 = KEPT.iter().map(|bit| 1 << bit).sum();
    let tasks = fs::read_dir(format!("/proc/{}/task", cluster.hosts[0].daemon_pid())).expect("list its threads");
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).expect("read of a thread");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
        };
        let set = |name| u64::from_str_radix(&field(name), 16).unwrap();
        let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(set);
        assert_eq!(sets, [0, kept, kept, kept, 0], "{sets:x?}");
        assert_eq!(field("NoNewPrivs:"), "1");
        threads += 1;
    }
    assert!(threads > 1, "its workers were looked at");
}

#[test]
fn the_service_manager_hears_when_the_daemon_is_ready_alive_and_stopping() {
    let mut cluster = Cluster::of(1, Family::V4);
    cluster.hosts[0].stop();
    let path = cluster.hosts[0].directory().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("listen as a service manager");
    manager.set_read_timeout(Some(READY)).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("hear of the daemon");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let mut command = cluster.hosts[0].daemon_command();
    command.arg("--cluster").arg(&cluster.file).env("NOTIFY_SOCKET", &path);
    cluster.hosts[0].start(&mut command);
    let mut first = heard();
    // The pass that makes it ready is a sign of life too.
    while first == "WATCHDOG=1" {
        first = heard();
    }
    assert_eq!(first, "READY=1");
    // What was said to be ready is: nobody has to ask again.
    let [here, there] = ["a1", "a2"].map(|name| cluster.container(0, name, "shop/web"));
    assert_eq!(ping(&here.netns, there.v4, SOON), Outcome::Reached);
    assert_eq!(heard(), "WATCHDOG=1");
    assert!(cluster.hosts[0].stop().success());
    manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut last = heard();
    while last == "WATCHDOG=1" {
        last = heard();
    }
    assert_eq!(last, "STOPPING=1");
}
