//! Names that say which process made a thing, and the removal of things whose maker is gone.
//!
//! A test that is killed cannot clean up. Whatever outlives a process (namespaces, pinned maps, state directories) is
//! therefore named `wt-<pid>-…`, and the first namespace of every later run sweeps away what no living process owns.
//! A process number that was given out again only delays that.

use crate::netns;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where maps and programs are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

const PREFIX: &str = "wt-";

/// A name nobody else has, which says that this process made the thing: `wt-<pid>-<n>-<label>`.
pub fn owned_name(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}-{label}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the namespaces with their processes, the pins and the directories of runs that have ended.
///
/// What cannot be removed is told on stderr and left: it belongs to no test that runs now.
pub fn sweep() {
    for name in abandoned(Path::new(netns::DIRECTORY)) {
        netns::remove(&name);
    }
    for directory in [Path::new(BPFFS), &std::env::temp_dir()] {
        for name in abandoned(directory) {
            let path = directory.join(name);
            if let Err(error) = fs::remove_dir_all(&path) {
                eprintln!("sweep {}: {error}", path.display());
            }
        }
    }
}

/// Sweeps at the first call of this process.
pub(crate) fn sweep_once() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
}

/// The things in `directory` that were made by processes which do not live any more.
fn abandoned(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::run;
    use crate::netns::Netns;
    use crate::wait::eventually;
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_owns_stays() {
        let mine = Netns::new("mine");
        let mut dead = Command::new("true").spawn().unwrap();
        let pid = dead.id();
        dead.wait().unwrap();

        let namespace = format!("wt-{pid}-0-left");
        run(&format!("ip netns add {namespace}"));
        let mut process = Command::new("ip").args(["netns", "exec", &namespace, "sleep", "1000"]).spawn().unwrap();
        // The program has moved into the namespace when the list names it.
        eventually(Duration::from_secs(5), || !run(&format!("ip netns pids {namespace}")).is_empty());
        let state = std::env::temp_dir().join(format!("wt-{pid}-1-state"));
        fs::create_dir_all(state.join("run")).unwrap();

        sweep();
        assert!(!PathBuf::from(netns::DIRECTORY).join(&namespace).exists());
        assert_eq!(process.wait().unwrap().signal(), Some(9));
        assert!(!state.exists());
        assert!(mine.path().exists());
    }

    #[test]
    fn foreign_names_have_no_owner() {
        assert_eq!(owner("wt-12-0-a"), Some(12));
        for foreign in ["wt-", "wt-x-0", "weft-12-0", "docker", "wt"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
