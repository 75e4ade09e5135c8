//! Tells the daemon of drops, by sample, and of packets the tables could not place.

#![expect(unsafe_code, reason = "fills records in the ring buffer's memory")]

use aya_ebpf::helpers::bpf_skb_load_bytes;
use weft_common::event::{Drop, Hook, Kind, MISS_BYTES, Miss, sample};
use weft_common::header::protocol;
use weft_common::id::AppId;
use weft_common::table::Counts;
use weft_common::verdict::DropReason;

use crate::maps;
use crate::packet::Skb;
use crate::run::Run;

/// Reports a drop, if its reason has not been reported too often, and counts it for the pair of apps and the rule.
#[inline(never)]
pub fn dropped(skb: &Skb, run: &mut Run) {
    if !DropReason::is_of_policy(run.reason) {
        // Policy has let it pass, if it was asked: no rule that is tried would bring it through.
        run.shadow = 0;
    }
    let (src, dst) = (run.sender.identity, run.receiver.identity);
    if src.app != AppId::ANY && dst.app != AppId::ANY {
        maps::count_traffic(&run.account(), Counts::drop(run.now));
    }
    tell(skb, run, Kind::Drop, run.reason);
}

/// Reports a packet that passes and would not with the rules that are tried, if none was reported too often.
#[cold]
#[inline(never)]
pub fn shadowed(skb: &Skb, run: &Run) {
    tell(skb, run, Kind::Shadow, sample::SHADOW);
}

/// Sends what is known of a packet, if the bucket still has something.
#[inline(always)]
fn tell(skb: &Skb, run: &Run, kind: Kind, bucket: u32) {
    let Some(skipped) = maps::sampled(bucket, run.now) else { return };
    let Some(mut entry) = maps::EVENTS.reserve::<Record<Drop>>(0) else {
        maps::lost_sample(bucket, skipped);
        return;
    };
    // SAFETY: the reserved memory is a `Drop`, written whole; a plain record needs no initialised memory before.
    let event = unsafe {
        entry.as_mut_ptr().cast::<Drop>().write(Drop::default());
        &mut *entry.as_mut_ptr().cast::<Drop>()
    };
    event.kind = kind as u32;
    event.reason = bucket;
    event.time = run.now;
    event.skipped = skipped;
    event.src_identity = run.sender.identity;
    event.dst_identity = run.receiver.identity;
    event.hook = run.hook as u8;
    event.direction = run.direction;
    event.rule = run.rule;
    event.shadow = run.shadow;
    event.link = skb.link();
    let packet = &run.packet;
    let ports = packet.key.ports(packet.leg);
    event.src = packet.src;
    event.dst = packet.dst;
    event.src_port = ports.src;
    let is_icmp = matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6);
    event.dst_port = if is_icmp { packet.policy_port } else { ports.dst };
    event.protocol = packet.protocol;
    event.tcp_flags = packet.tcp_flags;
    entry.submit(0);
}

/// Hands a packet to the daemon, which may know where it belongs.
#[cold]
#[inline(never)]
pub fn missed(skb: &Skb, hook: Hook) {
    let Some(mut entry) = maps::EVENTS.reserve::<Record<MissRecord>>(0) else { return };
    let record = entry.as_mut_ptr();
    let len = skb.len();
    let head = Miss { kind: Kind::Miss as u32, len, link: skb.link(), hook: hook as u32 };
    // SAFETY: the reserved memory is a `MissRecord`; its bytes are written by the helper, which fills what
    // it does not read with zeros.
    unsafe {
        (&raw mut (*record).0.head).write(head);
        let want = if len as usize > MISS_BYTES { MISS_BYTES as u32 } else { len };
        let want = if want == 0 { 1 } else { want };
        bpf_skb_load_bytes(skb.raw().cast(), 0, (&raw mut (*record).0.bytes).cast(), want & 0x7ff);
    }
    entry.submit(0);
}

#[repr(C)]
struct MissRecord {
    head: Miss,
    bytes: [u8; MISS_BYTES],
}

/// What the ring buffer holds.
#[repr(transparent)]
struct Record<T>(T);
