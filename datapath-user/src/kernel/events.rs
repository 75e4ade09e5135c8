//! What the programs tell: records of the ring buffer, as values.

#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor it waits for")]

use std::{fmt, io};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, RingBuf};
use bytes::Bytes;
use tokio::io::{Interest, unix::AsyncFd};
use weft_common::{
    event::{Drop, Kind, Miss},
    table,
};

use super::{bpf, pins::Pins};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet was dropped, or would have been by rules that are tried.
    Drop(Drop),
    /// The tables do not say where a packet goes; with its first bytes.
    Miss(Miss, Bytes),
}

/// The pinned ring buffer. Records stay in it while nobody reads.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    malformed: u64,
}

impl Events {
    /// Opens the ring buffer. There can be one reader.
    pub fn open(pins: &Pins) -> Result<Self> {
        let pin = pins.map(table::EVENTS);
        let open = || {
            let map = Map::from_map_data(MapData::from_pin(&pin)?)?;
            let ring = RingBuf::try_from(map)?;
            // SAFETY: the ring owns its descriptor and never replaces it, and the `AsyncFd` owns the ring.
            let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
            Ok::<_, anyhow::Error>(ring.map_err(io::Error::from)?)
        };
        let ring = open().with_context(|| format!("open ring buffer {}", pin.display()))?;
        Ok(Self { ring, malformed: 0 })
    }

    /// Waits for a record. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            while let Some(record) = self.ring.get_mut().next() {
                match parse(&record) {
                    Some(event) => return Ok(event),
                    None => self.malformed += 1,
                }
            }
            let mut ready = self.ring.readable_mut().await?;
            // Records that came between the look and the wait wake us again: the kernel's poll looks at the ring.
            ready.clear_ready();
        }
    }

    /// How many records made no sense.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("malformed", &self.malformed).finish_non_exhaustive()
    }
}

/// A record of a miss may have room behind the frame's bytes.
fn parse(record: &[u8]) -> Option<Event> {
    let kind: u32 = bpf::record(record)?;
    if kind == Kind::Drop as u32 || kind == Kind::Shadow as u32 {
        return bpf::record(record).map(Event::Drop);
    }
    if kind == Kind::Miss as u32 {
        let miss: Miss = bpf::record(record)?;
        let frame = record.get(size_of::<Miss>()..)?;
        let length = usize::try_from(miss.len).ok()?.min(frame.len());
        return Some(Event::Miss(miss, Bytes::copy_from_slice(&frame[..length])));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        load::{Object, Program},
        netns::tests::within_async,
        pins::tests::TestPins,
    };
    use std::{os::fd::AsFd as _, time::Duration};
    use tokio::time::timeout;
    use weft_common::event::Hook;

    #[test]
    fn records_are_told_apart_and_nonsense_is_no_record() {
        let drop = Drop { kind: Kind::Drop as u32, reason: 3, skipped: 7, ..Drop::default() };
        assert_eq!(parse(bpf::bytes(&drop)), Some(Event::Drop(drop)));
        let miss = |len| Miss { kind: Kind::Miss as u32, len, link: 5, hook: 0 };
        let with = |miss: &Miss, frame: &[u8]| parse(&[bpf::bytes(miss), frame].concat());
        assert_eq!(with(&miss(3), b"abcdef"), Some(Event::Miss(miss(3), Bytes::from_static(b"abc"))));
        assert_eq!(with(&miss(9), b"abcdef"), Some(Event::Miss(miss(9), Bytes::from_static(b"abcdef"))));
        for cut in 0..size_of::<Miss>() {
            assert_eq!(parse(&bpf::bytes(&miss(0))[..cut]), None);
        }
        for cut in 0..size_of::<Drop>() {
            assert_eq!(parse(&bpf::bytes(&drop)[..cut]), None);
        }
        assert_eq!(parse(bpf::bytes(&Drop { kind: 4, ..drop })), None);
    }

    #[test]
    fn records_of_programs_arrive_and_outlive_the_reader() {
        let pins = TestPins::new();
        let loaded = Object::embedded().load(&pins).unwrap();
        within_async(async || {
            let mut events = Events::open(&pins).unwrap();
            let nothing = timeout(Duration::from_millis(50), events.next()).await;
            assert!(nothing.is_err(), "{nothing:?}");
            // A packet from an interface that the tables do not know.
            let code = loaded.code(Program::FROM_WORKLOAD).unwrap();
            let mut frame = vec![0x45; 60];
            frame[12..14].copy_from_slice(&[8, 0]);
            bpf::tests::run(code.as_fd(), &frame);
            let told = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
            let Event::Drop(first) = told else { panic!("{told:?}") };
            assert_eq!(Hook::from_raw(first.hook), Hook::FromWorkload);
            drop(events);
            bpf::tests::run(code.as_fd(), &frame);

            let mut events = Events::open(&pins).unwrap();
            let told = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
            assert!(matches!(told, Event::Drop(second) if second.time >= first.time && second.reason == first.reason));
            assert_eq!(events.malformed(), 0);
        });
    }
}
