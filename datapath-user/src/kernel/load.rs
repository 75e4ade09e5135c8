//! The eBPF object: what is in it, and how its programs get into the kernel.
//!
//! Owns the list of programs. Does not attach them. Invariants: tables that are already pinned are taken over only as
//! declared (`pins`); a program that the kernel refuses does not keep the others from being loaded, and nothing that
//! is attached is touched here.

use std::{
    borrow::Cow,
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{self, ProgramError, SchedClassifier, Xdp},
};

use super::{
    bpf::{self, ProgramInfo},
    pins::{Pins, declared},
};

/// Which compiler built the embedded object.
pub const COMPILER: &str = env!("WEFT_BPF_COMPILER");

/// An eBPF object.
#[derive(Clone, Debug)]
pub struct Object(Cow<'static, [u8]>);

/// A program that we know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// Its name in the object, and the kernel's name for it.
    pub name: &'static str,
    /// What it is called with.
    pub kind: Kind,
}

/// What a program is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An skb, by traffic control.
    Classifier,
    /// A frame, by the driver.
    Xdp,
}

/// A program in the kernel, for as long as this or an attachment holds it.
#[derive(Debug)]
pub struct Code {
    program: Program,
    fd: OwnedFd,
    id: u32,
    tag: [u8; 8],
}

/// A program that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Which.
    pub program: Program,
    /// Why, with the end of the verifier's log.
    pub why: anyhow::Error,
}

/// Everything that was loaded.
#[derive(Debug)]
pub struct Loaded {
    codes: Vec<Code>,
    /// What the kernel refused: what is attached of it stays as it is.
    pub refused: Vec<Refused>,
}

impl Program {
    /// Ingress of the host side of a container's interface.
    pub const FROM_WORKLOAD: Self = Self { name: "from_workload", kind: Kind::Classifier };
    /// Ingress of an uplink.
    pub const FROM_UNDERLAY: Self = Self { name: "from_underlay", kind: Kind::Classifier };
    /// Egress of the gateway device.
    pub const FROM_HOST: Self = Self { name: "from_host", kind: Kind::Classifier };
    /// Ingress of the gateway device.
    pub const TO_HOST: Self = Self { name: "to_host", kind: Kind::Classifier };
    /// In front of `from_underlay`.
    pub const GUARD: Self = Self { name: "guard", kind: Kind::Xdp };

    /// All of them.
    pub const ALL: &[Self] = &[Self::FROM_WORKLOAD, Self::FROM_UNDERLAY, Self::FROM_HOST, Self::TO_HOST, Self::GUARD];
}

impl Object {
    /// The object that was built with this daemon.
    pub fn embedded() -> Self {
        Self(Cow::Borrowed(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft-ebpf.o"))))
    }

    /// Another object.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }

    /// Its bytes: an ELF file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes the tables that are not pinned yet, and loads every program. Fails if the tables can not be had.
    pub fn load(&self, pins: &Pins) -> Result<Loaded> {
        pins.prepare()?;
        pins.check()?;
        let mut loader = EbpfLoader::new();
        for (name, _) in declared() {
            loader.map_pin_path(name, pins.map(name));
        }
        let mut object = loader.load(&self.0).context("load the eBPF object")?;
        if let [absent, ..] = pins.check()?[..] {
            bail!("load the eBPF object: it has no table {absent}");
        }

        let mut loaded = Loaded { codes: Vec::new(), refused: Vec::new() };
        for &program in Program::ALL {
            match load(&mut object, program) {
                Ok(code) => loaded.codes.push(code),
                Err(why) => loaded.refused.push(Refused { program, why }),
            }
        }
        Ok(loaded)
    }
}

impl Loaded {
    /// The program, unless the kernel refused it.
    pub fn code(&self, program: Program) -> Option<&Code> {
        self.codes.iter().find(|code| code.program == program)
    }

    /// All that are in the kernel.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }
}

impl Code {
    pub(super) fn new(program: Program, fd: OwnedFd) -> Result<Self> {
        let ProgramInfo { id, tag, .. } =
            bpf::info(fd.as_fd()).with_context(|| format!("read what program {program} is"))?;
        Ok(Self { program, fd, id, tag })
    }

    /// Which program it is.
    pub fn program(&self) -> Program {
        self.program
    }

    /// The kernel's number for it. A program that is loaded again gets another.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Hash of its instructions: the same for the same program with other maps.
    pub fn tag(&self) -> [u8; 8] {
        self.tag
    }
}

impl AsFd for Code {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "load program {}: {:#}", self.program, self.why)
    }
}

/// Puts one program of an object into the kernel.
pub(super) fn load(object: &mut Ebpf, program: Program) -> Result<Code> {
    let found = object.program_mut(program.name).ok_or_else(|| anyhow!("the object has no such program"))?;
    load_kind(found, program.kind).map_err(shortened)?;
    let fd = found.fd().context("duplicate its descriptor")?.as_fd().try_clone_to_owned();
    Code::new(program, fd.context("duplicate its descriptor")?)
}

fn load_kind(found: &mut programs::Program, kind: Kind) -> Result<(), ProgramError> {
    match kind {
        Kind::Classifier => <&mut SchedClassifier>::try_from(found)?.load(),
        Kind::Xdp => <&mut Xdp>::try_from(found)?.load(),
    }
}

/// The verifier's log can have megabytes; why it refused is at its end.
fn shortened(error: ProgramError) -> anyhow::Error {
    const LINES: usize = 20;
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.into() };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    anyhow::Error::new(io_error).context(format!("the kernel refuses it; the verifier's last words:\n{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pins::tests::TestPins;
    use weft_common::table::NAMES;

    #[test]
    fn every_program_loads_and_every_table_is_pinned() {
        let pins = TestPins::new();
        let loaded = Object::embedded().load(&pins).unwrap();
        let refused: Vec<_> = loaded.refused.iter().map(ToString::to_string).collect();
        assert_eq!(refused, Vec::<String>::new());
        assert_eq!(loaded.codes().len(), Program::ALL.len());
        assert_eq!(pins.check().unwrap(), Vec::<&str>::new());
        assert!(NAMES.iter().all(|name| pins.map(name).exists()));
        for code in loaded.codes() {
            let info = bpf::program_info(code.id()).unwrap();
            assert_eq!((info.name().as_str(), info.tag), (code.program().name, code.tag()));
        }
    }

    #[test]
    fn a_restart_takes_over_the_tables() {
        let pins = TestPins::new();
        drop(Object::embedded().load(&pins).unwrap());
        let number = |name| bpf::info::<bpf::MapInfo>(bpf::open(&pins.map(name)).unwrap().as_fd()).unwrap().id;
        let before: Vec<_> = NAMES.iter().map(|name| number(name)).collect();
        drop(Object::embedded().load(&pins).unwrap());
        let after: Vec<_> = NAMES.iter().map(|name| number(name)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn a_table_of_another_layout_is_not_taken_over() {
        let pins = TestPins::new();
        let (name, declared) = declared().find(|(name, _)| *name == "ENDPOINTS").unwrap();
        let other = bpf::map_create(&bpf::MapInfo { max_entries: 7, ..declared }, None).unwrap();
        bpf::pin(other.as_fd(), &pins.map(name)).unwrap();
        let error = Object::embedded().load(&pins).unwrap_err();
        assert!(error.is::<crate::kernel::pins::Mismatch>(), "{error:#}");
        assert!(!pins.map("ROUTES").exists(), "nothing else was made");
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        let pins = TestPins::new();
        let error = Object::from_bytes(vec![0; 64]).load(&pins).unwrap_err();
        assert!(error.to_string().contains("load the eBPF object"), "{error:#}");
    }
}
