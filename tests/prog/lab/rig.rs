//! What is costly about a lab: machines whose programs were verified, and the namespace in which they run.
//!
//! A rig goes from one lab to the next, wiped. Its namespace has no name: it is gone when the process is.
//! `BPF_PROG_TEST_RUN` wants every interface number to be one of the namespace it runs in, so there is a device for each
//! interface of each host. What they
//! are given goes nowhere.

use super::cast::{At, MEMBERS};
use super::machine::Machine;
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;
use weft_tests::command::{run, run_with_input};

pub(crate) struct Rig {
    pub(crate) machines: [Machine; 2],
    pub(crate) space: Space,
}

/// A namespace with devices.
pub(crate) struct Space {
    namespace: File,
    links: BTreeMap<String, u32>,
}

/// Rigs that no lab has now.
static SPARE: Mutex<Vec<Rig>> = Mutex::new(Vec::new());

impl Rig {
    /// One that is as new.
    pub(crate) fn take() -> Self {
        let spare = SPARE.lock().expect("nobody panics with it").pop();
        let mut rig = spare.unwrap_or_else(|| Self { machines: [(); 2].map(|()| Machine::new()), space: Space::new() });
        rig.machines.iter_mut().for_each(Machine::wipe);
        rig
    }

    /// For the next lab.
    pub(crate) fn give_back(self) {
        SPARE.lock().expect("nobody panics with it").push(self);
    }
}

impl Space {
    fn new() -> Self {
        let own = MEMBERS.iter().map(|member| (member.at, member.name));
        let all =
            own.chain([At::A, At::B].into_iter().flat_map(|at| ["uplink", "gateway", "lan"].map(|name| (at, name))));
        let mut lines = String::new();
        for (at, name) in all.filter(|(at, _)| *at != At::C) {
            let name = format!("{}-{name}", at.name());
            // Copies are sent at once, and a device that is down takes none.
            writeln!(lines, "link add {name} type bridge\nlink set {name} up").expect("a string takes any text");
        }
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a namespace");
            run_with_input("ip -batch -", &lines);
            (File::open("/proc/thread-self/ns/net").expect("open the namespace"), run("ip -o link"))
        });
        let (namespace, listed) = made.join().unwrap_or_else(|panic| resume_unwind(panic));
        // `3: a-web: <BROADCAST,MULTICAST> …`
        let number = |line: &str| {
            let mut parts = line.split(": ");
            Some((parts.next()?.parse().ok()?, parts.next()?.to_owned()))
        };
        let links = listed.lines().filter_map(number).map(|(number, name): (u32, String)| (name, number)).collect();
        Self { namespace, links }
    }

    /// The number of a device.
    #[track_caller]
    pub(crate) fn link(&self, at: At, name: &str) -> u32 {
        let name = format!("{}-{name}", at.name());
        *self.links.get(&name).unwrap_or_else(|| panic!("no device {name}"))
    }

    /// Calls `body` inside. The thread comes back: one of its own for every packet would take longer than the packet.
    pub(crate) fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let home = Home(File::open("/proc/thread-self/ns/net").expect("open the own namespace"));
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        let result = body();
        drop(home);
        result
    }
}

/// Where a thread returns to, also when it panics.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("go back to the own namespace");
    }
}
