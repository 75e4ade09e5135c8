//! Records of the ring buffer, read field by field.

use std::mem::offset_of;
use weft_common::addr::Ip;
use weft_common::event::{Drop, Kind, Miss};
use weft_common::id::{AppId, Identity, RoleId};

/// What a program told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Drop(Drop),
    /// With the first bytes of the frame.
    Miss(Miss, Vec<u8>),
}

pub(crate) fn read(record: &[u8]) -> Event {
    let record = Record(record);
    match record.u32(0) {
        kind if kind == Kind::Drop as u32 || kind == Kind::Shadow as u32 => Event::Drop(Drop {
            kind,
            reason: record.u32(offset_of!(Drop, reason)),
            time: record.u64(offset_of!(Drop, time)),
            skipped: record.u64(offset_of!(Drop, skipped)),
            src: record.ip(offset_of!(Drop, src)),
            dst: record.ip(offset_of!(Drop, dst)),
            src_identity: record.identity(offset_of!(Drop, src_identity)),
            dst_identity: record.identity(offset_of!(Drop, dst_identity)),
            src_port: record.u16(offset_of!(Drop, src_port)),
            dst_port: record.u16(offset_of!(Drop, dst_port)),
            protocol: record.u8(offset_of!(Drop, protocol)),
            tcp_flags: record.u8(offset_of!(Drop, tcp_flags)),
            hook: record.u8(offset_of!(Drop, hook)),
            direction: record.u8(offset_of!(Drop, direction)),
            rule: record.u32(offset_of!(Drop, rule)),
            link: record.u32(offset_of!(Drop, link)),
            shadow: record.u32(offset_of!(Drop, shadow)),
            reserved: 0,
        }),
        kind if kind == Kind::Miss as u32 => {
            let len = record.u32(offset_of!(Miss, len));
            let miss =
                Miss { kind, len, link: record.u32(offset_of!(Miss, link)), hook: record.u32(offset_of!(Miss, hook)) };
            let bytes = &record.0[size_of::<Miss>()..];
            let known = bytes.len().min(usize::try_from(len).expect("32 bits"));
            Event::Miss(miss, bytes[..known].to_vec())
        }
        other => panic!("a record of kind {other}"),
    }
}

struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..].first_chunk().expect("a whole record")
    }

    fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    fn ip(&self, at: usize) -> Ip {
        Ip::from_v6(self.bytes(at))
    }

    fn identity(&self, at: usize) -> Identity {
        Identity::new(AppId(self.u32(at)), RoleId(self.u16(at + 4)))
    }
}
