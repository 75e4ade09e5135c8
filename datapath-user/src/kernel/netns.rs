//! Network namespaces: opening them by any of their names, telling them apart, and running code inside.
//!
//! Invariant: a thread that entered a namespace never returns to the caller, so no other code runs where it did not
//! ask to.

#![expect(unsafe_code, reason = "an ioctl and a socket option that nix has no names for")]

use std::{
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    panic::resume_unwind,
    path::{Path, PathBuf},
    ptr, thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// `ioctl_ns(2)`: `_IO(0xb7, 3)`, which kind of namespace a descriptor stands for.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// `asm-generic/socket.h`, since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Where `ip netns` keeps names, then where containers find the same directory.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// How somebody names a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// That of a process.
    Pid(u32),
    /// A file that stands for it.
    Path(PathBuf),
    /// As `ip netns` names it.
    Name(String),
}

/// A namespace, which lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    file: File,
    shown: String,
}

/// Which namespace it is, for as long as it lives. Its numbers go to another afterwards: see [`Netns::cookie`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// Device number of the file system of namespaces.
    pub fn device(self) -> u64 {
        self.device
    }

    /// The namespace's own number.
    pub fn inode(self) -> u64 {
        self.inode
    }
}

impl Netns {
    /// Opens the namespace that somebody names.
    pub fn open(target: &Target) -> Result<Self> {
        match target {
            Target::Pid(pid) => Self::open_file(Path::new(&format!("/proc/{pid}/ns/net")), target),
            Target::Path(path) => Self::open_file(path, target),
            Target::Name(name) if name.is_empty() || name.contains('/') => bail!("open {target}: that is not a name"),
            Target::Name(name) => {
                let paths = NAMED.map(|directory| Path::new(directory).join(name));
                let found = paths.iter().find(|path| path.exists()).unwrap_or(&paths[0]);
                Self::open_file(found, target)
            }
        }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        let path = PathBuf::from("/proc/thread-self/ns/net");
        Self::open(&Target::Path(path))
    }

    /// Which one it is.
    pub fn id(&self) -> Result<NetnsId> {
        let metadata = self.file.metadata().with_context(|| format!("look at {self}"))?;
        Ok(NetnsId { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Which one it is among all that there were since the kernel started. Asked inside, by a thread that enters it.
    pub fn cookie(&self) -> Result<u64> {
        run_in(self, || cookie().with_context(|| format!("ask for the cookie of {self}")))
    }

    fn open_file(path: &Path, target: &Target) -> Result<Self> {
        // Somebody else's path may lead to a pipe: opening it shall not wait.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .with_context(|| format!("open {target}"))?;
        // SAFETY: this ioctl takes no argument and writes nothing; the descriptor is open.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            bail!("open {target}: {} is not a network namespace", path.display());
        }
        Ok(Self { file, shown: target.to_string() })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "network namespace of process {pid}"),
            Self::Path(path) => write!(f, "network namespace {}", path.display()),
            Self::Name(name) => write!(f, "network namespace {name}"),
        }
    }
}

/// Of the namespace of the calling thread.
fn cookie() -> Result<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut size = libc::socklen_t::try_from(size_of::<u64>())?;
    // SAFETY: the kernel writes at most `size` bytes to `cookie`, which has as many, and then `size`; both live on.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            ptr::from_mut(&mut cookie).cast(),
            ptr::from_mut(&mut size),
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

/// Runs `body` on a thread of its own inside the namespace, and waits for it. Its panics come through.
pub fn run_in<T: Send>(netns: &Netns, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).with_context(|| format!("enter {netns}"))?;
        body()
    };
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, enter);
        let inside = inside.with_context(|| format!("start a thread in {netns}"))?;
        inside.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sched::unshare;
    use std::{process, sync::mpsc};

    /// A new namespace with its loopback down, held by nothing but the answer.
    pub(crate) fn fresh() -> Netns {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        };
        thread::spawn(make).join().unwrap()
    }

    /// Runs a test inside a new namespace, on a thread that ends with it.
    pub(crate) fn within<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        run_in(&fresh(), || Ok(body())).unwrap()
    }

    /// As [`within`], for tests that wait for the kernel.
    pub(crate) fn within_async<T: Send, F: Future<Output = T>>(body: impl FnOnce() -> F + Send) -> T {
        within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body())
        })
    }

    #[test]
    fn a_namespace_keeps_its_cookie_and_no_other_gets_it() {
        let first = fresh();
        let cookie = first.cookie().unwrap();
        assert_eq!(first.cookie().unwrap(), cookie);
        drop(first);
        assert!((0..10).all(|_| fresh().cookie().unwrap() != cookie));
    }

    #[test]
    fn every_way_to_name_a_namespace_finds_the_same() {
        let (told, pid) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let here = fresh();
        let path = PathBuf::from(format!("/run/netns/weft-test-{}", process::id()));
        thread::scope(|scope| {
            let entered = &here;
            scope.spawn(move || {
                run_in(entered, move || {
                    told.send(nix::unistd::gettid()).unwrap();
                    wait.recv().ok();
                    Ok(())
                })
                .unwrap();
            });
            let thread = pid.recv().unwrap();
            std::fs::create_dir_all("/run/netns").unwrap();
            File::create(&path).unwrap();
            let by_pid = Netns::open(&Target::Pid(thread.as_raw().cast_unsigned())).unwrap();
            let source = format!("/proc/{thread}/ns/net");
            let flags = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(source.as_str()), &path, None::<&str>, flags, None::<&str>).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let by_name = Netns::open(&Target::Name(name)).unwrap();
            let by_path = Netns::open(&Target::Path(path.clone())).unwrap();
            for found in [by_pid, by_name, by_path] {
                assert_eq!(found.id().unwrap(), here.id().unwrap(), "{found}");
            }
            nix::mount::umount(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            drop(end);
        });
        assert_ne!(here.id().unwrap(), Netns::current().unwrap().id().unwrap());
    }

    #[test]
    fn what_is_no_namespace_is_named_in_the_error() {
        let open = |target| Netns::open(&target).map(drop).unwrap_err();
        let error = open(Target::Path("/proc/self/ns/uts".into()));
        assert_eq!(
            error.to_string(),
            "open network namespace /proc/self/ns/uts: /proc/self/ns/uts is not a network namespace"
        );
        assert_eq!(open(Target::Name("../x".into())).to_string(), "open network namespace ../x: that is not a name");
        let error = format!("{:#}", open(Target::Name("weft-none".into())));
        assert_eq!(error, "open network namespace weft-none: No such file or directory (os error 2)");
        let error = format!("{:#}", open(Target::Pid(0)));
        assert!(error.starts_with("open network namespace of process 0: "), "{error}");
        let pipe = std::env::temp_dir().join(format!("weft-test-{}", process::id()));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(open(Target::Path(pipe.clone())).to_string().ends_with("is not a network namespace"));
        std::fs::remove_file(pipe).unwrap();
        assert!(open(Target::Path("/dev/null".into())).to_string().contains("/dev/null is not"));
    }

    #[test]
    fn code_runs_inside_and_the_caller_stays_outside() {
        let before = Netns::current().unwrap().id().unwrap();
        let netns = fresh();
        let inside = run_in(&netns, || Netns::current()?.id()).unwrap();
        assert_eq!(inside, netns.id().unwrap());
        assert_eq!(Netns::current().unwrap().id().unwrap(), before);
    }
}
