//! A map seen as bytes: its elements one by one, or all of them.

#![expect(unsafe_code, reason = "system calls that take addresses")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{MapInfo, address, call, command, info, number};

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A map. The sizes are the kernel's own, so no call can write past a buffer.
#[derive(Debug)]
pub(in crate::kernel) struct RawMap {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes of one element's value, of all CPUs where there is one per CPU.
    value: usize,
}

/// Elements read at once: as many as take a mebibyte, but not so few that calls cost more than copying, and not more
/// than save any.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK: std::ops::RangeInclusive<usize> = 64..=4096;

/// What the kernel says to a call that a kind of map does not have; libc has no name for it.
const ENOTSUPP: i32 = 524;

impl RawMap {
    /// `cpus` is how many values an element of a per-CPU map has.
    pub(in crate::kernel) fn new(fd: OwnedFd, cpus: Option<usize>) -> io::Result<Self> {
        let info: MapInfo = info(fd.as_fd())?;
        let one = info.value_size as usize;
        // The kernel rounds the value of each CPU up to 8 bytes.
        let value = cpus.map_or(one, |cpus| one.next_multiple_of(8) * cpus);
        Ok(Self { fd, info, value })
    }

    pub(in crate::kernel) fn info(&self) -> &MapInfo {
        &self.info
    }

    /// The bytes of an element's value; none if there is no such element.
    pub(in crate::kernel) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key.len(), self.value)?;
        let mut value = vec![0; self.value];
        let mut attr = self.element(key, value.as_mut_ptr());
        // SAFETY: `key` has the map's key size; `value` has room for what the map holds per element. Both outlive
        // the call.
        match unsafe { call(command::MAP_LOOKUP, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an element or puts a new value into it.
    pub(in crate::kernel) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key.len(), value.len())?;
        let mut attr = self.element(key, value.as_ptr());
        // SAFETY: `key` and `value` have the map's sizes and outlive the call, which only reads them.
        unsafe { call(command::MAP_UPDATE, &mut attr) }.map(drop)
    }

    /// Takes an element away; says whether there was one.
    pub(in crate::kernel) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key.len(), self.value)?;
        let mut attr = self.element(key, ptr::null::<u8>());
        // SAFETY: `key` has the map's key size and outlives the call, which only reads it.
        match unsafe { call(command::MAP_DELETE, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands out every element. What changes meanwhile may be seen twice, or not.
    pub(in crate::kernel) fn each(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (key, value) = (self.info.key_size as usize, self.value);
        // Of a hash the position is a bucket's number, of others a key.
        let (mut here, mut there) = (vec![0; key.max(8)], vec![0; key.max(8)]);
        let chunk = (CHUNK_BYTES / (key + value).max(1)).clamp(*CHUNK.start(), *CHUNK.end());
        let (mut keys, mut values) = (vec![0; key * chunk], vec![0; value * chunk]);
        let mut started = false;
        let mut left = self.patience();
        loop {
            let mut attr = BatchAttr {
                from: if started { address(here.as_ptr()) } else { 0 },
                to: address(there.as_mut_ptr()),
                keys: address(keys.as_mut_ptr()),
                values: address(values.as_mut_ptr()),
                count: u32::try_from(keys.len() / key.max(1)).unwrap_or(0),
                map: number(self.fd.as_fd()),
                ..BatchAttr::default()
            };
            // SAFETY: `keys` and `values` have room for `count` elements of the map's sizes, `here` and `there` for
            // a position, and all of them outlive the call.
            let result = unsafe { call(command::MAP_LOOKUP_BATCH, &mut attr) };
            let read = attr.count as usize;
            let end = match result.as_ref().map_err(io::Error::raw_os_error) {
                // EINTR: an element went away under the kernel's feet; the position is good.
                Ok(_) | Err(Some(libc::EINTR)) => false,
                Err(Some(libc::ENOENT)) => true,
                // A bucket has more elements than there was room for.
                Err(Some(libc::ENOSPC)) => {
                    keys.resize(keys.len() * 2, 0);
                    values.resize(values.len() * 2, 0);
                    continue;
                }
                Err(Some(libc::EINVAL | ENOTSUPP)) if !started => return self.each_by_key(take),
                Err(_) => return result.map(drop),
            };
            for (key, value) in keys.chunks_exact(key).zip(values.chunks_exact(value)).take(read) {
                take(key, value);
            }
            if end {
                return Ok(());
            }
            if read > 0 {
                (here, there) = (there, here);
                started = true;
            }
            left = left.checked_sub(read.max(1)).ok_or_else(endless)?;
        }
    }

    /// As [`Self::each`], two calls an element: for what has no batches.
    pub(in crate::kernel) fn each_by_key(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut here: Option<Vec<u8>> = None;
        for _ in 0..self.patience() {
            let mut next = vec![0; self.info.key_size as usize];
            let mut attr = self.element(here.as_deref().unwrap_or(&[]), next.as_mut_ptr());
            if here.is_none() {
                attr.key = 0;
            }
            // SAFETY: `here`, if there is one, and `next` have the map's key size and outlive the call.
            match unsafe { call(command::MAP_NEXT_KEY, &mut attr) } {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some(value) = self.lookup(&next)? {
                take(&next, &value);
            }
            here = Some(next);
        }
        Err(endless())
    }

    /// How many elements a reading may show before it has lost its way: a position whose element is deleted leads
    /// some maps back to their start.
    fn patience(&self) -> usize {
        self.info.max_entries as usize * 4 + CHUNK.end()
    }

    fn check(&self, key: usize, value: usize) -> io::Result<()> {
        if key == self.info.key_size as usize && value == self.value {
            return Ok(());
        }
        let why = format!("{key} and {value} bytes for an element of {} and {}", self.info.key_size, self.value);
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    fn element<T>(&self, key: &[u8], value_or_next: *const T) -> ElementAttr {
        ElementAttr {
            map: number(self.fd.as_fd()),
            key: address(key.as_ptr()),
            value_or_next: address(value_or_next),
            ..ElementAttr::default()
        }
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn endless() -> io::Error {
    io::Error::other("the table changes faster than it can be read")
}
