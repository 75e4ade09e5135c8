//! The three bpf(2) calls that are made here because aya keeps the verifier's log to itself when a program loads.
//!
//! Owns the layouts of `union bpf_attr` for them (include/uapi/linux/bpf.h, kept by the kernel's promise to user space).

#![expect(unsafe_code, reason = "system calls that take addresses")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use aya_obj::generated::bpf_insn;

/// `enum bpf_cmd`.
const PROG_LOAD: u32 = 5;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const BTF_LOAD: u32 = 18;

/// What the verifier writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Log {
    /// `BPF_LOG_STATS`: a few lines at the end.
    Statistics,
    /// `BPF_LOG_LEVEL1`: the path to what it refuses.
    Path,
}

/// A program for the kernel.
pub(super) struct Program<'a> {
    /// `enum bpf_prog_type`.
    pub(super) kind: u32,
    /// `enum bpf_attach_type`.
    pub(super) attach: u32,
    pub(super) name: &'a str,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) license: &'a CStr,
    /// With it, the kernel knows which functions it may verify apart.
    pub(super) types: Option<Types<'a>>,
}

/// Names and prototypes of a program's functions.
#[derive(Clone, Copy)]
pub(super) struct Types<'a> {
    pub(super) btf: BorrowedFd<'a>,
    pub(super) functions: Records<'a>,
    pub(super) lines: Records<'a>,
}

/// Records as they are in `.BTF.ext`.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of one.
    pub(super) size: usize,
}

#[derive(Default)]
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach: u32,
    btf: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    pad: u32,
}

#[derive(Default)]
#[repr(C)]
struct BtfAttr {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

#[derive(Default)]
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited: u32,
    translated: u32,
}

/// Gives the kernel the types of an object.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfAttr { btf: address(btf.as_ptr()), size: length(btf.len())?, ..BtfAttr::default() };
    // SAFETY: the kernel reads `size` bytes at `btf`, which is borrowed for the call; BTF_LOAD answers with a new
    // descriptor.
    unsafe { descriptor(BTF_LOAD, &mut attr) }
}

/// Gives the kernel a program. What the verifier writes is put into `log`, with a zero after it.
pub(super) fn load_program(program: &Program<'_>, level: Log, log: &mut [u8]) -> io::Result<OwnedFd> {
    let &Program { kind, attach, name, instructions, license, types } = program;
    let mut attr = LoadAttr {
        kind,
        count: length(instructions.len())?,
        instructions: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log_level: match level {
            Log::Statistics => 4,
            Log::Path => 1,
        },
        log_size: length(log.len())?,
        log: address(log.as_mut_ptr()),
        attach,
        ..LoadAttr::default()
    };
    // The last byte stays zero.
    for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    if let Some(Types { btf, functions, lines }) = types {
        attr.btf = btf.as_raw_fd().cast_unsigned();
        (attr.functions, attr.function_size, attr.function_count) = functions.attr()?;
        (attr.lines, attr.line_size, attr.line_count) = lines.attr()?;
    }
    // SAFETY: the kernel reads `count` instructions, the licence to its zero, and `function_count` and `line_count`
    // records of the sizes given; it writes at most `log_size` bytes to `log`. All are borrowed for the call. PROG_LOAD
    // answers with a new descriptor.
    unsafe { descriptor(PROG_LOAD, &mut attr) }
}

/// Bytes of machine code that a program became; 0 without a compiler in the kernel.
pub(super) fn jited_bytes(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = Info::default();
    let fd = program.as_raw_fd().cast_unsigned();
    let mut attr = InfoAttr { fd, len: length(size_of::<Info>())?, info: address(ptr::from_mut(&mut info)) };
    // SAFETY: the kernel reads and writes `len` bytes of `info`, which lives to the end of this function; any bytes are
    // an `Info`.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.jited)
}

impl Records<'_> {
    /// Where they are, how large one is, how many there are.
    fn attr(self) -> io::Result<(u64, u32, u32)> {
        let count = self.bytes.len().checked_div(self.size).unwrap_or(0);
        Ok((address(self.bytes.as_ptr()), length(self.size)?, length(count)?))
    }
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// # Safety
///
/// Addresses in `attr` are valid for what `command` does with them, and `attr` is the layout of `command`.
unsafe fn call<A>(command: u32, attr: &mut A) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes `size_of::<A>()` bytes of `attr`, which is borrowed for the call; what it
    // points to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<A>()) };
    match RawFd::try_from(result) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
///
/// As [`call`], and `command` answers with a new descriptor.
unsafe fn descriptor<A>(command: u32, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attr) }?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
