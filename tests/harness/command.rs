//! Runs programs to their end. A failure is told with the command line and what it wrote to stderr.
//!
//! No program may hang a test: after [`LIMIT`] it is killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest a program may run. Everything called here ends in milliseconds; a loaded machine is given time.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Runs a command line, split at blanks, and returns its stdout. Panics when it fails.
#[track_caller]
pub fn run(line: &str) -> String {
    run_with_input(line, "")
}

/// As [`run`], with `input` on stdin: for `ip -batch -` and `nft -f -`.
#[track_caller]
pub fn run_with_input(line: &str, input: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command line names a program"));
    finish(command.args(words), input).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Runs a command, for example one of [`crate::netns::Netns::command`], and returns its stdout. Panics when it fails.
#[track_caller]
pub fn exec(command: &mut Command) -> String {
    finish(command, "").unwrap_or_else(|failure| panic!("{failure}"))
}

/// As [`run`] for a place that must not panic: a destructor.
pub fn try_run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().ok_or("an empty command line")?);
    finish(command.args(words), "")
}

/// Runs a command and returns how it ended and what it printed. Panics when it cannot be started or does not end.
#[track_caller]
pub fn output(command: &mut Command) -> (ExitStatus, String, String) {
    let Output { status, stdout, stderr } = collect(command, "").unwrap_or_else(|failure| panic!("{failure}"));
    (status, String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn finish(command: &mut Command, input: &str) -> Result<String, String> {
    let Output { status, stdout, stderr } = collect(command, input)?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {status}\n{}{stdout}{}", quoted(input), String::from_utf8_lossy(&stderr)))
}

fn collect(command: &mut Command, input: &str) -> Result<Output, String> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command:?}: cannot start: {error}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits in i32"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read all of its input says in its status what was wrong with it.
        stdin.write_all(input.as_bytes()).ok();
    }
    let (send, ended) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()).ok());
    if let Ok(output) = ended.recv_timeout(LIMIT) {
        return output.map_err(|error| format!("{command:?}: {error}"));
    }
    kill(pid, Signal::SIGKILL).ok();
    Err(format!("{command:?}: not finished after {LIMIT:?}, killed"))
}

fn quoted(input: &str) -> String {
    input.lines().flat_map(|line| ["| ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gives_back_what_it_printed() {
        assert_eq!(run("echo two words"), "two words\n");
        assert_eq!(run_with_input("cat", "a\nb\n"), "a\nb\n");
        let (status, stdout, stderr) = output(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!((status.code(), &*stdout, &*stderr), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_failure_names_the_command_and_its_stderr() {
        let failure = try_run("ip link show dev nosuchdevice").unwrap_err();
        assert!(failure.contains("nosuchdevice") && failure.contains("does not exist"), "{failure}");
        assert!(try_run("no-such-program").unwrap_err().contains("cannot start"));
    }

    #[test]
    #[should_panic(expected = "| link nonsense")]
    fn a_failed_batch_shows_its_input() {
        run_with_input("ip -batch -", "link nonsense\n");
    }
}
