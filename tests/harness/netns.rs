//! A network namespace that lives as long as its guard.
//!
//! Only threads made for the purpose enter it: the calling thread never moves, so a test may hold many namespaces and
//! work in all of them at once.

#![expect(unsafe_code, reason = "`Command::pre_exec`, the only way to start a program inside a namespace")]

use crate::command::{run, run_with_input, try_run};
use crate::sweep;
use crate::wait::holds_within;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Where `ip netns` keeps named namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// A handle of a namespace. The last clone that is dropped kills the processes inside and removes it.
#[derive(Clone, Debug)]
pub struct Netns(Arc<Guard>);

#[derive(Debug)]
struct Guard {
    name: String,
    file: File,
}

impl Netns {
    /// Makes an empty namespace with its loopback up. The label is for people who read `ip netns`.
    #[track_caller]
    pub fn new(label: &str) -> Self {
        sweep::sweep_once();
        let name = sweep::owned_name(label);
        run(&format!("ip netns add {name}"));
        let path = Path::new(DIRECTORY).join(&name);
        let file = File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        let namespace = Self(Arc::new(Guard { name, file }));
        namespace.ip("link set lo up");
        namespace
    }

    /// The name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that stands for the namespace, for `setns` and for `weft attach`.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.0.name)
    }

    /// Runs `body` on a thread inside the namespace and returns what it returns. Its panics come through.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .name(self.0.name.clone())
                .spawn_scoped(scope, || {
                    setns(&self.0.file, CloneFlags::CLONE_NEWNET)
                        .unwrap_or_else(|error| panic!("enter namespace {}: {error}", self.0.name));
                    body()
                })
                .unwrap_or_else(|error| panic!("start a thread in {}: {error}", self.0.name));
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A command that will run inside the namespace. It shares everything else with this process, `/sys` too.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = self.0.file.try_clone().unwrap_or_else(|error| panic!("duplicate {}: {error}", self.0.name));
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure only makes one system call on a descriptor that it owns. It takes
        // no lock and allocates nothing: an `io::Error` made from an errno is a number.
        unsafe {
            command.pre_exec(move || setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }

    /// Runs `ip -n <namespace> <line>` and returns what it printed.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        run(&format!("ip -n {} {line}", self.0.name))
    }

    /// Runs many `ip` commands, one a line, in one process.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        run_with_input(&format!("ip -n {} -batch -", self.0.name), lines);
    }

    /// Runs an `nft` script inside.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        run_with_input(&format!("ip netns exec {} nft -f -", self.0.name), script);
    }

    /// Puts rules of `nft`, one a line, in front of everything that the namespace receives for itself, in place of
    /// those of an earlier call. No rules: no filter.
    #[track_caller]
    pub fn filter_input(&self, rules: &str) {
        self.nft(&format!(
            "table inet harness {{\n}}\ndelete table inet harness\ntable inet harness {{\n\
             chain input {{\ntype filter hook input priority 0\n{rules}\n}}\n}}\n"
        ));
    }

    /// Sets a value below `/proc/sys/net`, for example `ipv4/ip_forward`.
    #[track_caller]
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(Path::new("/proc/sys/net").join(key), value))
            .unwrap_or_else(|error| panic!("set {key} to {value} in {}: {error}", self.0.name));
    }

    /// The processes whose main thread is inside.
    pub fn processes(&self) -> Vec<Pid> {
        processes_of(&self.0.file)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Kills the processes inside a named namespace and removes it. Tells on stderr what went wrong, never panics.
pub(crate) fn remove(name: &str) {
    if let Ok(file) = File::open(Path::new(DIRECTORY).join(name)) {
        // Killed again at each look: a process may have forked just before it died.
        let empty = holds_within(Duration::from_secs(5), || {
            let inside = processes_of(&file);
            for &pid in &inside {
                // It may be gone by itself.
                kill(pid, Signal::SIGKILL).ok();
            }
            inside.is_empty()
        });
        if !empty {
            eprintln!("namespace {name}: processes {:?} do not die", processes_of(&file));
        }
    }
    if let Err(failure) = try_run(&format!("ip netns delete {name}")) {
        eprintln!("{failure}");
    }
}

fn processes_of(namespace: &File) -> Vec<Pid> {
    let Ok(wanted) = namespace.metadata() else { return Vec::new() };
    let own = i32::try_from(process::id()).expect("a pid fits in i32");
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // Processes that end meanwhile, and zombies, have no namespace to look at.
    pids.filter(|&pid| pid != own)
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::exec;
    use crate::wait::eventually;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn code_and_programs_run_inside_and_the_test_stays_outside() {
        let namespace = Netns::new("inside");
        namespace.ip("link add marker type bridge");
        let devices = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(namespace.run(devices).contains("marker"));
        assert!(!devices().contains("marker"));
        assert!(exec(namespace.command("cat").arg("/proc/self/net/dev")).contains("marker"));
        assert!(namespace.ip("-br link show lo").contains("LOOPBACK,UP"));
    }

    #[test]
    fn a_socket_stays_where_it_was_opened() {
        let namespace = Netns::new("socket");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = namespace.run(|| TcpListener::bind(address).unwrap());
            let at = listener.local_addr().unwrap();
            assert!(TcpStream::connect(at).is_err(), "{at} is reached from outside");
            namespace.run(|| TcpStream::connect(at).unwrap());
        }
    }

    #[test]
    #[should_panic(expected = "said inside")]
    fn a_panic_inside_comes_through() {
        Netns::new("panic").run(|| panic!("said inside"));
    }

    #[test]
    fn a_sysctl_changes_this_namespace_only() {
        let (namespace, other) = (Netns::new("sysctl"), Netns::new("other"));
        namespace.set_sysctl("ipv4/ip_forward", "1");
        let forwarding = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!((namespace.run(forwarding).trim(), other.run(forwarding).trim()), ("1", "0"));
    }

    #[test]
    fn the_last_handle_takes_processes_and_name_away() {
        let namespace = Netns::new("gone");
        let path = namespace.path();
        let mut child = namespace.command("sleep").arg("1000").spawn().unwrap();
        eventually(Duration::from_secs(5), || !namespace.processes().is_empty());
        let second = namespace.clone();
        drop(namespace);
        assert!(path.exists() && child.try_wait().unwrap().is_none());
        drop(second);
        assert!(!path.exists());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
