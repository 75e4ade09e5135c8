//! The bpf(2) calls that aya does not make, or not as we need them: tables read whole, links by interface index,
//! pins that say what they hold.
//!
//! Owns the layouts of `union bpf_attr` and `struct bpf_*_info` (include/uapi/linux/bpf.h, kept as it is by the
//! kernel's promise to user space), and the only casts between records and bytes. Knows nothing of what the tables
//! mean and where pins are.

#![expect(unsafe_code, reason = "system calls that take addresses, and records seen as bytes")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr, slice,
};

use weft_common::wire::Plain;

mod map;

pub(super) use map::RawMap;

mod command {
    pub(super) const MAP_CREATE: u32 = 0;
    pub(super) const MAP_LOOKUP: u32 = 1;
    pub(super) const MAP_UPDATE: u32 = 2;
    pub(super) const MAP_DELETE: u32 = 3;
    pub(super) const MAP_NEXT_KEY: u32 = 4;
    pub(super) const OBJ_PIN: u32 = 6;
    pub(super) const OBJ_GET: u32 = 7;
    pub(super) const PROG_BY_ID: u32 = 13;
    pub(super) const OBJ_INFO: u32 = 15;
    pub(super) const PROG_QUERY: u32 = 16;
    pub(super) const MAP_LOOKUP_BATCH: u32 = 24;
    pub(super) const LINK_CREATE: u32 = 28;
    pub(super) const LINK_UPDATE: u32 = 29;
    pub(super) const LINK_DETACH: u32 = 34;
}

/// Where a link holds a program: numbers of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Xdp = 37,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct MapInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

/// What the kernel says of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct ProgramInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    /// Hash of the instructions.
    pub(super) tag: [u8; 8],
    /// Zero on the way in: no instructions, times and map numbers are asked for.
    unasked: [u64; 6],
    name: [u8; 16],
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct LinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) program: u32,
    reserved: u32,
    /// Of TCX and XDP links. 0: the interface is gone and the link holds nothing any more.
    pub(super) ifindex: u32,
    /// Of TCX links: an [`AttachType`].
    pub(super) attach_type: u32,
}

/// Records that OBJ_INFO fills: `repr(C)`, all integers.
pub(super) trait Info: Default + Copy {}
impl Info for MapInfo {}
impl Info for ProgramInfo {}
impl Info for LinkInfo {}

impl ProgramInfo {
    /// The first 15 bytes of its name.
    pub(super) fn name(&self) -> String {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct MapCreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// A new map. `inner` is what a map of maps holds.
pub(super) fn map_create(of: &MapInfo, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let &MapInfo { kind, id: _, key_size, value_size, max_entries, flags } = of;
    let inner = inner.map_or(0, number);
    let mut attr = MapCreateAttr { kind, key_size, value_size, max_entries, flags, inner };
    // SAFETY: no addresses are passed; the answer is a descriptor that is ours.
    unsafe { descriptor(command::MAP_CREATE, &mut attr) }
}

/// Pins an object below a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: address(path.as_ptr()), fd: number(object), flags: 0 };
    // SAFETY: the path is a C string that outlives the call; the kernel only reads it.
    unsafe { call(command::OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: address(path.as_ptr()), fd: 0, flags: 0 };
    // SAFETY: the path is a C string that outlives the call; OBJ_GET answers with a descriptor that is ours.
    unsafe { descriptor(command::OBJ_GET, &mut attr) }
}

/// What the kernel says of a map, a program or a link; the caller knows which of them it has.
pub(super) fn info<I: Info>(object: BorrowedFd<'_>) -> io::Result<I> {
    let mut info = I::default();
    let len = u32::try_from(size_of::<I>()).unwrap_or(0);
    let mut attr = InfoAttr { fd: number(object), len, info: address(ptr::from_mut(&mut info)) };
    // SAFETY: the kernel writes at most `len` bytes, the size of `info`, which outlives the call. `Info` types are
    // made of integers, so any bytes are a valid value.
    unsafe { call(command::OBJ_INFO, &mut attr) }?;
    Ok(info)
}

/// What the kernel says of the program with this number.
pub(super) fn program_info(id: u32) -> io::Result<ProgramInfo> {
    let mut attr = ByIdAttr { id, ..ByIdAttr::default() };
    // SAFETY: no addresses are passed; the answer is a descriptor that is ours.
    let program = unsafe { descriptor(command::PROG_BY_ID, &mut attr) }?;
    info(program.as_fd())
}

/// Holds `program` at an interface for as long as the answer is open or pinned.
pub(super) fn link_create(program: BorrowedFd<'_>, ifindex: u32, at: AttachType, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: number(program),
        ifindex,
        attach_type: at as u32,
        flags,
        ..LinkCreateAttr::default()
    };
    // SAFETY: no addresses are passed; the answer is a descriptor that is ours.
    unsafe { descriptor(command::LINK_CREATE, &mut attr) }
}

/// Puts `program` in the place of the one that the link holds. No packet sees neither or both.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link: number(link), program: number(program), ..LinkUpdateAttr::default() };
    // SAFETY: no addresses are passed.
    unsafe { call(command::LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes the program away at once, whoever else has the link open or pinned.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link: number(link), ..LinkUpdateAttr::default() };
    // SAFETY: no addresses are passed; of this command's attributes the link is the first and only.
    unsafe { call(command::LINK_DETACH, &mut attr) }.map(drop)
}

/// The numbers of the programs at an interface, in the order in which they see a packet. EINVAL: the kernel
/// does not know this place.
pub(super) fn programs(ifindex: u32, at: AttachType) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: at as u32,
        programs: address(ids.as_mut_ptr()),
        count: u32::try_from(ids.len()).unwrap_or(0),
        ..QueryAttr::default()
    };
    // SAFETY: `ids` has room for `count` numbers and outlives the call.
    unsafe { call(command::PROG_QUERY, &mut attr) }?;
    Ok(ids.into_iter().take(attr.count as usize).collect())
}

/// A record as the bytes that maps hold.
pub(super) fn bytes<T: Plain>(record: &T) -> &[u8] {
    // SAFETY: `Plain` promises that the record has no padding, so all its bytes are initialised; the slice borrows it.
    unsafe { slice::from_raw_parts(ptr::from_ref(record).cast(), size_of::<T>()) }
}

/// The record at the start of `bytes`; none if they are too few.
pub(super) fn record<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are as many bytes as the record has, and `Plain` promises that any bytes are one. They may lie at
    // any address.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// A descriptor as the kernel wants it in attributes, and as the value of a map of maps.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// What a command is told, and the rest of `union bpf_attr`: PROG_QUERY writes its `revision` also when `attr` was said
/// to end before it (`bpf_mprog_query`, kernel/bpf/mprog.c, since 6.6).
#[repr(C)]
struct Attr<A> {
    told: A,
    rest: [u64; 32],
}

/// # Safety
///
/// Addresses in `told` are valid for what `command` does with them, and `told` is the layout of `command`.
unsafe fn call<A: Copy>(command: u32, told: &mut A) -> io::Result<RawFd> {
    let mut attr = Attr { told: *told, rest: [0; 32] };
    // SAFETY: the kernel reads `size_of::<A>()` bytes of `attr` and writes inside of its own union, which is smaller than
    // `Attr`; what it points to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<A>()) };
    *told = attr.told;
    match RawFd::try_from(result) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
///
/// As [`call`], and `command` answers with a new descriptor.
unsafe fn descriptor<A: Copy>(command: u32, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attr) }?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program that does nothing but answer. `kind` is a number of `enum bpf_prog_type`.
    pub(crate) fn program(kind: u32, answer: i32) -> OwnedFd {
        #[derive(Clone, Copy, Default)]
        #[repr(C)]
        struct LoadAttr {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log: [u64; 2],
            version_and_flags: [u32; 2],
            name: [u8; 16],
        }
        // r0 = answer; exit
        let instructions = [(u64::from(answer.cast_unsigned()) << 32) | 0xb7, 0x95];
        let mut attr = LoadAttr {
            kind,
            count: 2,
            instructions: address(instructions.as_ptr()),
            license: address(c"GPL".as_ptr()),
            name: *b"weft_test\0\0\0\0\0\0\0",
            ..LoadAttr::default()
        };
        // SAFETY: the instructions and the licence outlive the call, which only reads them.
        unsafe { descriptor(5, &mut attr) }.unwrap()
    }

    /// Runs a program once with a frame, and gives its answer.
    pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> i32 {
        #[derive(Clone, Copy, Default)]
        #[repr(C)]
        struct RunAttr {
            program: u32,
            answer: u32,
            length: u32,
            room: u32,
            data: u64,
            out: u64,
            repeat_and_duration: [u32; 2],
            context: [u64; 3],
        }
        let length = u32::try_from(frame.len()).unwrap();
        let data = address(frame.as_ptr());
        let mut attr = RunAttr { program: number(program), length, data, ..RunAttr::default() };
        // SAFETY: the frame outlives the call, which only reads it; there is no room for an answer's bytes.
        unsafe { call(10, &mut attr) }.unwrap();
        attr.answer.cast_signed()
    }

    #[test]
    fn the_kernel_tells_what_a_program_is() {
        let info: ProgramInfo = info(program(3, 0).as_fd()).unwrap();
        assert_eq!((info.kind, info.name().as_str()), (3, "weft_test"));
        assert_ne!(info.tag, [0; 8]);
    }

    #[test]
    fn what_the_kernel_writes_past_a_query_lands_in_nothing_of_ours() {
        #[repr(C)]
        struct Beside {
            query: QueryAttr,
            ours: [u64; 8],
        }
        let mut beside = Beside { query: QueryAttr::default(), ours: [7; 8] };
        beside.query = QueryAttr { ifindex: 1, attach_type: AttachType::TcxIngress as u32, ..QueryAttr::default() };
        // SAFETY: no addresses are passed.
        let outcome = unsafe { call(command::PROG_QUERY, &mut beside.query) };
        assert_eq!(beside.ours, [7; 8], "{outcome:?}");
    }

    #[test]
    fn too_few_bytes_are_no_record_and_the_wrong_number_no_element() {
        assert_eq!(record::<u32>(&[1, 2, 3]), None);
        assert_eq!(record::<u16>(&[1, 2, 3]), Some(u16::from_ne_bytes([1, 2])));
        let spec = MapInfo { kind: 1, key_size: 4, value_size: 8, max_entries: 2, ..MapInfo::default() };
        let map = RawMap::new(map_create(&spec, None).unwrap(), None).unwrap();
        assert!(map.update(&[0; 4], &[0; 7]).is_err());
        assert!(map.lookup(&[0; 5]).is_err());
        assert!(map.delete(&[]).is_err());
    }
}
