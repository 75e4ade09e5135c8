//! A host of a cluster: a namespace on the underlay, directories of its own, and the daemon that runs there.
//!
//! The binaries are those that were built beside the test: `target/<profile>/weftd` and `weft`.

use crate::command;
use crate::netns::Netns;
use crate::sweep::{BPFFS, owned_name};
use crate::wait::holds_within;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A host. Dropping it kills the daemon and removes what it kept; a failing test prints the daemon's log first.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Netns,
    directory: TempDir,
    bpffs: PathBuf,
    daemon: Option<Child>,
}

/// How long a daemon that was asked to stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(10);

impl Host {
    /// A host in a namespace, usually one of [`crate::underlay::Underlay::hosts`].
    #[track_caller]
    pub fn new(name: &str, namespace: &Netns) -> Self {
        mount_bpffs();
        let owned = owned_name(name);
        let directory = tempfile::Builder::new().prefix(&format!("{owned}-")).tempdir().expect("make a directory");
        let host = Self {
            name: name.into(),
            namespace: namespace.clone(),
            directory,
            bpffs: Path::new(BPFFS).join(owned),
            daemon: None,
        };
        for directory in [host.state_directory(), host.run_directory()] {
            fs::create_dir(&directory).unwrap_or_else(|error| panic!("make {}: {error}", directory.display()));
        }
        host
    }

    /// What the cluster calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Netns {
        &self.namespace
    }

    /// A directory that is removed with the host, for files of the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the daemon remembers.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Where the daemon listens.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Where the daemon pins maps and programs. It makes the directory itself.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_directory().join("weft.sock")
    }

    /// What the daemons of this host have written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts the daemon. The name and the directories are given to it; `arguments` are the rest.
    #[track_caller]
    pub fn start_daemon(&mut self, arguments: &[&str]) {
        let mut command = self.daemon_command();
        self.start(command.args(arguments));
    }

    /// The daemon with its name and its directories, to be given the rest and started by [`Host::start`].
    pub fn daemon_command(&self) -> Command {
        let mut command = self.namespace.command(binary("weftd"));
        command.args(["--host", &self.name]);
        command.arg("--state-dir").arg(self.state_directory());
        command.arg("--run-dir").arg(self.run_directory());
        command.arg("--bpffs").arg(&self.bpffs);
        command
    }

    /// Starts any program as the daemon of this host. What it writes goes to the log.
    #[track_caller]
    pub fn start(&mut self, command: &mut Command) {
        assert!(self.daemon.is_none(), "the daemon of {} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("open the log");
        let errors = log.try_clone().expect("duplicate the log");
        let started = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.daemon = Some(started.unwrap_or_else(|error| panic!("{command:?}: cannot start: {error}")));
    }

    /// The process of the daemon. Panics when none was started.
    #[track_caller]
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().unwrap_or_else(|| panic!("no daemon on {}", self.name)).id()
    }

    /// Waits until the daemon accepts connections. Panics when it does not, and as soon as it has died.
    #[track_caller]
    pub fn wait_ready(&mut self, within: Duration) {
        let mut died = None;
        let ready = holds_within(within, || {
            let daemon = self.daemon.as_mut().expect("a daemon was started");
            died = daemon.try_wait().expect("look at the daemon");
            died.is_some() || UnixStream::connect(self.directory.path().join("run/weft.sock")).is_ok()
        });
        assert!(died.is_none(), "the daemon of {} died: {}", self.name, died.unwrap_or_default());
        assert!(ready, "the daemon of {} is not ready after {within:?}", self.name);
    }

    /// Kills the daemon where it stands. What it pinned stays.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut daemon = self.take_daemon();
        daemon.kill().expect("kill the daemon");
        daemon.wait().expect("wait for the daemon");
    }

    /// Lets the daemon do nothing until [`Self::thaw`]: its socket takes connections, and nobody answers.
    #[track_caller]
    pub fn freeze(&self) {
        signal(self.daemon.as_ref().expect("a daemon that runs"), Signal::SIGSTOP);
    }

    /// Lets the daemon go on after [`Self::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        signal(self.daemon.as_ref().expect("a daemon that runs"), Signal::SIGCONT);
    }

    /// Asks the daemon to stop and waits until it has. Panics when it takes too long.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let mut daemon = self.take_daemon();
        signal(&daemon, Signal::SIGTERM);
        let mut status = None;
        holds_within(STOP_WITHIN, || {
            status = daemon.try_wait().expect("look at the daemon");
            status.is_some()
        });
        status.unwrap_or_else(|| {
            daemon.kill().and_then(|()| daemon.wait()).expect("kill the daemon");
            panic!("the daemon of {} does not stop within {STOP_WITHIN:?}", self.name)
        })
    }

    /// Runs the CLI against the daemon of this host and reads its JSON. Panics when it fails.
    #[track_caller]
    pub fn weft(&self, arguments: &[&str]) -> serde_json::Value {
        let (status, stdout, stderr) = self.weft_text(arguments);
        assert!(status.success(), "weft {arguments:?} on {}: {status}\n{stdout}{stderr}", self.name);
        serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("weft {arguments:?} on {}: not JSON: {error}\n{stdout}{stderr}", self.name))
    }

    /// Runs the CLI against the daemon of this host: how it ended, stdout, stderr.
    #[track_caller]
    pub fn weft_text(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = self.namespace.command(binary("weft"));
        command::output(command.arg("--socket").arg(self.socket()).args(arguments))
    }

    /// Makes an empty namespace, as a container engine would before it asks for a network.
    #[track_caller]
    pub fn container(&self, name: &str) -> Netns {
        Netns::new(&format!("{}-{name}", self.name))
    }

    #[track_caller]
    fn take_daemon(&mut self) -> Child {
        self.daemon.take().unwrap_or_else(|| panic!("no daemon on {}", self.name))
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            if let Ok(Some(status)) = daemon.try_wait() {
                eprintln!("the daemon of {} has ended by itself: {status}", self.name);
            }
            if let Err(error) = daemon.kill().and_then(|()| daemon.wait()) {
                eprintln!("kill the daemon of {}: {error}", self.name);
            }
        }
        if thread::panicking() {
            eprintln!("---- log of {} ----\n{}----", self.name, self.log());
        }
        if self.bpffs.exists()
            && let Err(error) = fs::remove_dir_all(&self.bpffs)
        {
            eprintln!("remove {}: {error}", self.bpffs.display());
        }
    }
}

/// A binary of the workspace, beside the running one or above it.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("the running binary has a path");
    let beside = running.ancestors().skip(1).take(3).map(|directory| directory.join(name));
    let found = beside.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} beside {}: cargo build -p weft", running.display()))
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits in i32"));
    kill(pid, signal).expect("a child that was not waited for takes signals");
}

/// Mounts the file system of pins where everybody looks for it, if nobody has.
fn mount_bpffs() {
    static MOUNTED: Once = Once::new();
    MOUNTED.call_once(|| {
        let found = statfs(BPFFS).unwrap_or_else(|error| panic!("look at {BPFFS}: {error}"));
        if found.filesystem_type() != BPF_FS_MAGIC {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .unwrap_or_else(|error| panic!("mount {BPFFS}: {error}"));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::ExitStatusExt;

    const SOON: Duration = Duration::from_secs(5);

    fn host() -> Host {
        Host::new("alpha", &Netns::new("alpha"))
    }

    fn shell(host: &Host, script: &str) -> Command {
        let mut command = host.namespace().command("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_daemon_runs_in_the_namespace_and_writes_a_log_that_goes_on_after_a_restart() {
        let mut host = host();
        for lives in 1..=2 {
            let mut command = shell(&host, "echo out; grep -c lo: /proc/self/net/dev; echo err >&2; exec sleep 1000");
            host.start(&mut command);
            eventually(SOON, || host.log() == "out\n1\nerr\n".repeat(lives));
            host.kill9();
        }
    }

    #[test]
    fn a_daemon_is_ready_when_its_socket_accepts() {
        let mut host = host();
        let mut command = shell(&host, "exec sleep 1000");
        host.start(&mut command);
        let listener = UnixListener::bind(host.socket()).unwrap();
        host.wait_ready(SOON);
        drop(listener);
        assert_eq!(host.stop().signal(), Some(15));
    }

    #[test]
    #[should_panic(expected = "the daemon of alpha died: exit status: 3")]
    fn a_daemon_that_dies_is_not_waited_for() {
        let mut host = host();
        let mut command = shell(&host, "exit 3");
        host.start(&mut command);
        host.wait_ready(Duration::from_mins(1));
    }

    #[test]
    fn nothing_is_left_of_a_host() {
        let mut host = host();
        let mut command = shell(&host, "exec sleep 1000");
        host.start(&mut command);
        fs::create_dir(host.bpffs()).unwrap();
        let container = host.container("web");
        let process = PathBuf::from(format!("/proc/{}", host.daemon_pid()));
        let left = [host.directory().to_owned(), host.bpffs().to_owned(), host.namespace().path(), process];
        assert!(left.iter().all(|path| path.exists()));
        drop(host);
        assert!(left.iter().all(|path| !path.exists()), "{left:?}");
        assert!(container.name().ends_with("alpha-web") && container.path().exists());
    }

    #[test]
    #[should_panic(expected = "cargo build -p weft")]
    fn a_binary_that_was_not_built_is_named() {
        binary("no-such-binary");
    }
}
