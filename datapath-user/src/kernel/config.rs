//! The one element of CONFIG, seen in memory: a store to the epoch puts policy and placement in force, or out of it.
//!
//! Owns the order of these stores, and the wait after them. Invariant: the epoch changes by a single aligned store,
//! after everything it puts in force has been written, so no packet sees half of a change.

#![expect(unsafe_code, reason = "memory that the kernel's programs read at the same time")]

use std::{
    mem::offset_of,
    num::NonZeroUsize,
    os::fd::{AsFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    time::{ClockId, clock_gettime},
};
use weft_common::{
    id::Epoch,
    table::{Config, Configs, MMAPABLE, Table as _},
};

use super::{
    bpf::{self, MapInfo, RawMap},
    pins::Pins,
};

const WORDS: usize = size_of::<Config>() / size_of::<u32>();
const EPOCH: usize = offset_of!(Config, epoch) / size_of::<u32>();
const _: () = assert!(size_of::<Config>().is_multiple_of(size_of::<u32>()));
const _: () = assert!(offset_of!(Config, epoch).is_multiple_of(size_of::<u32>()));

/// CONFIG, mapped for as long as this lives. The programs see every store at once.
#[derive(Debug)]
pub struct ConfigCell {
    words: NonNull<AtomicU32>,
    length: NonZeroUsize,
}

// SAFETY: the memory is shared and only touched by atomic loads and stores; it is unmapped once, by `drop`.
unsafe impl Send for ConfigCell {}
// SAFETY: as above; no method needs the memory for itself.
unsafe impl Sync for ConfigCell {}

impl ConfigCell {
    /// The pinned CONFIG.
    pub fn open(pins: &Pins) -> Result<Self> {
        let path = pins.map(Configs::NAME);
        let map = bpf::open(&path).with_context(|| format!("open table {}", path.display()))?;
        Self::new(map.as_fd())
    }

    fn new(map: BorrowedFd<'_>) -> Result<Self> {
        let info: MapInfo = bpf::info(map).context("read what CONFIG is")?;
        ensure!(
            info.flags & MMAPABLE != 0 && info.value_size as usize == size_of::<Config>(),
            "map CONFIG into memory: it is another map ({info:?})"
        );
        // The kernel gives whole pages, and starts the elements at the first byte.
        let length = NonZeroUsize::new(size_of::<Config>()).context("map CONFIG into memory: it is empty")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses, so no memory of ours changes under us.
        let memory = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map, 0) };
        let memory = memory.with_context(|| format!("map {} into memory", Configs::NAME))?;
        Ok(Self { words: memory.cast(), length })
    }

    /// What is in force.
    pub fn load(&self) -> Config {
        let words: [u32; WORDS] = std::array::from_fn(|at| self.word(at).load(Ordering::Acquire));
        bpf::record(bpf::bytes(&words)).unwrap_or_default()
    }

    /// Puts everything in force: the epoch last.
    pub fn store(&self, config: Config) {
        let words: [u32; WORDS] = bpf::record(bpf::bytes(&config)).unwrap_or_default();
        for (at, word) in words.into_iter().enumerate().filter(|(at, _)| *at != EPOCH) {
            self.word(at).store(word, Ordering::Relaxed);
        }
        self.set_epoch(config.epoch);
    }

    /// Puts an epoch in force, and nothing else.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.word(EPOCH).store(epoch.0, Ordering::Release);
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at < WORDS, "CONFIG has {WORDS} words");
        // SAFETY: `at` is inside the element, whose size was checked against the map's; the memory starts at a page
        // and is mapped until `drop`. The daemon touches it by atomic operations only, here.
        unsafe { self.words.add(at).as_ref() }
    }
}

impl Drop for ConfigCell {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference to it outlives us.
        if let Err(error) = unsafe { munmap(self.words.cast(), self.length.get()) } {
            tracing::warn!("unmap CONFIG: {error}");
        }
    }
}

/// Waits until no program runs that was started before the call: what an earlier epoch named can be changed then.
/// Takes some milliseconds.
///
/// After it puts a map into a map of maps, the kernel waits for a grace period, in order that user space knows just
/// this (torvalds/linux 1ae80cf31938, "wait for running BPF programs when updating map-in-map"). membarrier(2) does
/// the same today, but promises something else, refuses on hosts with `nohz_full`, and waits for nothing on one CPU.
pub fn grace() -> Result<()> {
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;
    let one = |kind| MapInfo { kind, key_size: 4, value_size: 4, max_entries: 1, ..MapInfo::default() };
    let wait = || {
        let inner = bpf::map_create(&one(ARRAY), None)?;
        let outer = RawMap::new(bpf::map_create(&one(ARRAY_OF_MAPS), Some(inner.as_fd()))?, None)?;
        outer.update(&0_u32.to_ne_bytes(), &bpf::number(inner.as_fd()).to_ne_bytes())
    };
    wait().context("wait for running programs")
}

/// Nanoseconds of the clock that the programs stamp flows and events with.
pub fn now() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of the clock by which the programs see that a rule has ended.
pub fn since_boot() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(epoch: u32) -> Config {
        Config { epoch: Epoch(epoch), gateway: 7, port: 6784, shadow: 0 }
    }

    #[test]
    fn what_is_stored_is_what_the_map_holds() {
        let spec = MapInfo { kind: 2, key_size: 4, value_size: 16, max_entries: 1, flags: MMAPABLE, id: 0 };
        let map = RawMap::new(bpf::map_create(&spec, None).unwrap(), None).unwrap();
        let cell = ConfigCell::new(map.as_fd()).unwrap();
        assert_eq!(cell.load(), Config::default());
        cell.store(config(5));
        cell.set_epoch(Epoch(6));
        assert_eq!(cell.load(), config(6));
        let held = map.lookup(&[0; 4]).unwrap().unwrap();
        assert_eq!(bpf::record(&held), Some(config(6)));
    }

    #[test]
    fn a_map_that_can_not_be_mapped_is_refused() {
        let spec = MapInfo { kind: 2, key_size: 4, value_size: 16, max_entries: 1, ..MapInfo::default() };
        let map = bpf::map_create(&spec, None).unwrap();
        let error = ConfigCell::new(map.as_fd()).unwrap_err();
        assert!(error.to_string().starts_with("map CONFIG into memory: it is another map"), "{error}");
    }

    #[test]
    fn the_wait_ends() {
        grace().unwrap();
    }
}
