//! Where maps and links outlive the daemon: `<root>/<layout digest>/maps/<NAME>` and `…/links/<interface>-<place>`.
//!
//! Owns these directories and the bpffs they are on. Knows nothing of what the objects do. Invariant: a pin is only
//! taken over after the kernel's word on it was compared with the declaration (aya compares nothing), and only names
//! that this module would give are ever removed.

use std::{
    fmt, fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use weft_common::table;

use super::bpf::{self, MapInfo};

/// Where pins are unless configured.
pub const ROOT: &str = "/sys/fs/bpf/weft";

const MOUNT_POINT: &str = "/sys/fs/bpf";

/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;

/// The pins of one layout of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pins {
    root: PathBuf,
    digest: u64,
}

/// A pin that is not what its name says.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where it is.
    pub pin: PathBuf,
    /// What is declared.
    pub want: String,
    /// What it is.
    pub have: String,
}

impl Pins {
    /// The pins of this daemon's layout.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), digest: table::DIGEST }
    }

    /// Where the map with this name is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory().join("maps").join(name)
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    /// Whether they are on a bpffs: one that was mounted over or away takes the pins with it.
    pub fn are_on_bpffs(&self) -> bool {
        statfs(&self.directory()).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
    }

    /// Makes the directories, and mounts a bpffs if there is none.
    pub fn prepare(&self) -> Result<()> {
        mount_bpffs(&self.root)?;
        for directory in [self.directory().join("maps"), self.links()] {
            fs::create_dir_all(&directory).with_context(|| format!("make directory {}", directory.display()))?;
        }
        Ok(())
    }

    /// Compares every pinned map with its declaration, and says which are not pinned.
    pub fn check(&self) -> Result<Vec<&'static str>> {
        let mut absent = Vec::new();
        for (name, want) in declared() {
            let pin = self.map(name);
            let map = match bpf::open(&pin) {
                Ok(map) => map,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    absent.push(name);
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("open pin {}", pin.display())),
            };
            let have: MapInfo = bpf::info(map.as_fd()).with_context(|| format!("read what {} is", pin.display()))?;
            let have = MapInfo { id: 0, ..have };
            if have != want {
                bail!(Mismatch { pin, want: shown(&want), have: shown(&have) });
            }
        }
        Ok(absent)
    }

    /// The pins of other layouts below the same root, left by other versions of the daemon.
    pub fn others(&self) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read directory {}", self.root.display()))?,
        };
        let digests = entries.filter_map(|entry| digest(entry.ok()?.file_name().to_str()?));
        let mut others: Vec<_> = digests
            .filter(|digest| *digest != self.digest)
            .map(|digest| Self { root: self.root.clone(), digest })
            .collect();
        others.sort();
        Ok(others)
    }

    /// Removes all pins of this layout: links first, so that no program is left without its tables. What only the
    /// pins held is detached and freed. Says whether there were any.
    pub fn remove(&self) -> Result<bool> {
        let were_there = self.directory().exists();
        for directory in [self.links(), self.directory().join("maps"), self.directory()] {
            let result = match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            };
            result.with_context(|| format!("remove directory {}", directory.display()))?;
        }
        // It stays while another layout is in it.
        fs::remove_dir(&self.root).ok();
        Ok(were_there)
    }

    fn directory(&self) -> PathBuf {
        self.root.join(format!("{:016x}", self.digest))
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory().display().fmt(f)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pin, want, have } = self;
        write!(f, "take over pin {}: it is {have}, not {want}", pin.display())
    }
}

impl std::error::Error for Mismatch {}

/// All maps that are pinned: the tables, and the ring buffer of events.
pub(super) fn declared() -> impl Iterator<Item = (&'static str, MapInfo)> {
    let tables = table::SPECS.iter().map(|spec| {
        let &table::Spec { name, shape, max, flags, key_size, value_size } = spec;
        (name, MapInfo { kind: shape as u32, id: 0, key_size, value_size, max_entries: max, flags })
    });
    let events = MapInfo { kind: RINGBUF, max_entries: table::EVENTS_BYTES, ..MapInfo::default() };
    tables.chain([(table::EVENTS, events)])
}

fn shown(info: &MapInfo) -> String {
    let MapInfo { kind, id: _, key_size, value_size, max_entries, flags } = info;
    format!("type {kind} with {max_entries} elements of {key_size} + {value_size} bytes and flags {flags:#x}")
}

fn digest(name: &str) -> Option<u64> {
    let digest = u64::from_str_radix(name, 16).ok()?;
    (format!("{digest:016x}") == name).then_some(digest)
}

/// A bpffs that others mounted anywhere will do; where it always is, we mount it.
fn mount_bpffs(root: &Path) -> Result<()> {
    let is_bpffs = || {
        let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
        statfs(existing).map(|found| found.filesystem_type() == BPF_FS_MAGIC)
    };
    if is_bpffs().with_context(|| format!("look for a bpffs at {}", root.display()))? {
        return Ok(());
    }
    if !root.starts_with(MOUNT_POINT) {
        bail!("use {} for pins: it is not on a bpffs", root.display());
    }
    let mount_point = fs::File::open(MOUNT_POINT).with_context(|| format!("open {MOUNT_POINT}"))?;
    // Two that mount at once would hide one's pins below the other's file system.
    let _one_at_a_time = Flock::lock(mount_point, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {MOUNT_POINT}"))?;
    if is_bpffs().unwrap_or(false) {
        return Ok(());
    }
    mount(Some("bpf"), MOUNT_POINT, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mount a bpffs at {MOUNT_POINT}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::{
        ops::Deref,
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    /// Pins of a test, removed with everything they hold.
    #[derive(Debug)]
    pub(crate) struct TestPins(pub(crate) Pins);

    impl TestPins {
        pub(crate) fn new() -> Self {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let pins = Pins::new(format!("{MOUNT_POINT}/weft-test-{}-{number}", process::id()));
            pins.prepare().unwrap();
            Self(pins)
        }

        /// As another version of the daemon would have them.
        pub(crate) fn of_digest(&self, digest: u64) -> Pins {
            let other = Pins { root: self.root.clone(), digest };
            other.prepare().unwrap();
            other
        }
    }

    impl Deref for TestPins {
        type Target = Pins;
        fn deref(&self) -> &Pins {
            &self.0
        }
    }

    impl Drop for TestPins {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.root).ok();
        }
    }

    #[test]
    fn a_pin_of_another_layout_is_named() {
        let pins = TestPins::new();
        assert_eq!(pins.check().unwrap().len(), table::NAMES.len() + 1);
        let (name, declared) = declared().find(|(name, _)| *name == "CONFIG").unwrap();
        let map = bpf::map_create(&MapInfo { value_size: 24, ..declared }, None).unwrap();
        bpf::pin(map.as_fd(), &pins.map(name)).unwrap();
        let error = pins.check().unwrap_err();
        let mismatch: &Mismatch = error.downcast_ref().unwrap();
        assert_eq!(mismatch.pin, pins.map("CONFIG"));
        assert!(error.to_string().contains("with 1 elements of 4 + 24 bytes"), "{error}");

        fs::remove_file(pins.map(name)).unwrap();
        let map = bpf::map_create(&declared, None).unwrap();
        bpf::pin(map.as_fd(), &pins.map(name)).unwrap();
        assert!(!pins.check().unwrap().contains(&"CONFIG"));
    }

    #[test]
    fn only_directories_of_layouts_are_others() {
        let pins = TestPins::new();
        let others = [pins.of_digest(0), pins.of_digest(0xabc)];
        fs::create_dir(pins.root.join("0000000000000ABD")).unwrap();
        fs::create_dir(pins.root.join("abc")).unwrap();
        assert_eq!(pins.others().unwrap(), others);
        assert!(others[1].remove().unwrap());
        assert!(!others[1].remove().unwrap());
        assert_eq!(pins.others().unwrap(), others[..1]);
        assert!(pins.links().exists());
        fs::remove_dir(pins.root.join("0000000000000ABD")).unwrap();
        fs::remove_dir(pins.root.join("abc")).unwrap();
        others[0].remove().unwrap();
        pins.remove().unwrap();
        assert!(!pins.root.exists(), "nothing of ours is left");
    }

    #[test]
    fn a_root_that_is_no_bpffs_is_refused() {
        let error = Pins::new("/tmp/weft-no-bpffs").prepare().unwrap_err();
        assert!(error.to_string().contains("not on a bpffs"), "{error}");
    }
}
