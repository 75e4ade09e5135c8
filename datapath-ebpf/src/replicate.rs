//! A packet to many: copies go to the members of the sender's app that may have it and want it, and to nobody else.
//!
//! Copies to peers leave by the gateway device, a VXLAN device that is told the peer: the kernel finds the way. A peer
//! copies what it gets to its own endpoints only, so nothing goes round.

#![expect(unsafe_code, reason = "bpf_loop hands its callback a raw pointer")]

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use weft_common::addr::{Ip, Mac};
use weft_common::group::{self, GroupKey, MEMBERS_MAX, Member, MemberKey, Message, RECORDS_MAX, is_for_all};
use weft_common::header::{Bytes as _, Ether, protocol};
use weft_common::id::{AppId, Identity, PeerId};
use weft_common::parse::Packet;
use weft_common::policy::judge;
use weft_common::route::{Hop, HopKind};
use weft_common::table::{Account, Counts};
use weft_common::verdict::DropReason;

use crate::maps;
use crate::packet::Skb;
use crate::run::Run;

/// Copies a packet of a local endpoint, which is established as the run's sender.
#[cold]
#[inline(never)]
pub fn from_endpoint(skb: &mut Skb, run: &mut Run) -> Result<(), DropReason> {
    let kind: u8 = skb.get(u32::from(run.packet.l4)).ok_or(DropReason::Malformed)?;
    match group::message(run.packet.protocol, kind) {
        // A container that asks what others want would be told, and could take a router's place.
        Message::Query => return Err(DropReason::RogueRouter),
        Message::Report => {
            learn(skb, run);
            packet(skb, run, Audience::Peers);
            return Ok(());
        }
        Message::Other => {}
    }
    if is_for_all(run.packet.dst) && !maps::may_flood(run.sender.hop.index, run.now) {
        return Err(DropReason::BroadcastStorm);
    }
    packet(skb, run, Audience::Endpoints);
    packet(skb, run, Audience::Peers);
    Ok(())
}

/// Whether a packet that a peer sent, and that is still in the tunnel, is for the endpoints here. A report is for
/// this program.
#[inline(always)]
pub fn is_for_endpoints(skb: &Skb, run: &mut Run) -> Result<bool, DropReason> {
    let kind: u8 = skb.get(u32::from(run.packet.l4)).ok_or(DropReason::Malformed)?;
    match group::message(run.packet.protocol, kind) {
        Message::Query => Err(DropReason::RogueRouter),
        Message::Report => {
            learn(skb, run);
            Ok(false)
        }
        Message::Other => Ok(true),
    }
}

/// Copies a packet that a peer sent, out of the tunnel by now, to the endpoints here.
#[cold]
#[inline(never)]
pub fn from_peer(skb: &mut Skb, run: &mut Run) {
    packet(skb, run, Audience::Endpoints);
}

/// Copies a frame that is not IP and came with `len` bytes. Policy was asked already, about all of the app.
#[inline(never)]
pub fn frame(skb: &mut Skb, run: &mut Run, audience: Audience, len: u32) {
    copy(skb, run, audience, len, 0);
}

/// Whether the packet is for many: by its address, or by the frame's, as a prefix's own broadcast address is not
/// known here.
#[inline(always)]
pub fn is_for_many(ether: &Ether, packet: &Packet) -> bool {
    ether.destination().is_group() || packet.dst.is_multicast() || packet.dst.is_broadcast()
}

/// Whether the packet tells which groups its sender wants, over IPv6.
#[inline(always)]
fn is_report(packet: &Packet) -> bool {
    packet.protocol == protocol::ICMPV6
        && matches!(group::message(protocol::ICMPV6, (packet.policy_port >> 8) as u8), Message::Report)
}

/// Whether it is a report with the address that reports have: one of the link, or none yet (RFC 3810 §5.2.13).
#[inline(always)]
pub fn may_report(packet: &Packet) -> bool {
    is_report(packet) && packet.dst.is_multicast() && (packet.src.is_link_local() || packet.src == Ip::NONE)
}

/// Notes what the sender wants.
#[inline(never)]
fn learn(skb: &Skb, run: &mut Run) {
    let mut reading = Reading { skb: skb.again(), at: u32::from(run.packet.l4), run };
    // SAFETY: the kernel calls `next` with the pointer while this frame lives.
    unsafe { bpf_loop(RECORDS_MAX, next as *mut c_void, (&raw mut reading).cast(), 0) };
}

/// What the loop over the records of a report needs.
struct Reading {
    skb: Skb,
    run: *mut Run,
    at: u32,
}

/// Called by the kernel for each record. 1 ends the loop.
unsafe extern "C" fn next(_: u32, reading: *mut c_void) -> i64 {
    // SAFETY: the pointer that `learn` gave, to its own frame; nothing else uses it or the run meanwhile.
    let (reading, run) = unsafe {
        let reading = &mut *reading.cast::<Reading>();
        let run = &mut *reading.run;
        (reading, run)
    };
    let Some(record) = group::record(&reading.skb, &run.packet, reading.at) else { return 1 };
    if record.group.is_multicast() && !is_for_all(record.group) {
        let key = GroupKey { group: record.group, app: run.sender.identity.app, hop: run.sender.hop };
        maps::note_wish(&key, record.wanted, run.now);
        // To the peers a host speaks for all its endpoints: while another wants the group, nobody leaves it.
        if !record.wanted
            && matches!(key.hop.kind(), HopKind::Local)
            && wants_another(&key)
            && reading.skb.put(record.kind_at, record.joining).is_err()
        {
            return 1;
        }
    }
    reading.at = record.next;
    i64::from(record.next == 0)
}

/// Whether another endpoint here than that of `key` wants its group.
#[inline(always)]
fn wants_another(key: &GroupKey) -> bool {
    let mut asking = Asking { key: *key, found: 0 };
    // SAFETY: the kernel calls `ask` with the pointer while this frame lives.
    unsafe { bpf_loop(MEMBERS_MAX, ask as *mut c_void, (&raw mut asking).cast(), 0) };
    asking.found == 1
}

/// What the loop over the members needs.
struct Asking {
    key: GroupKey,
    found: u32,
}

/// Called by the kernel for each number of a member. 1 ends the loop.
unsafe extern "C" fn ask(index: u32, asking: *mut c_void) -> i64 {
    // SAFETY: the pointer that `wants_another` gave, to its own frame; nothing else uses it meanwhile.
    let asking = unsafe { &mut *asking.cast::<Asking>() };
    let Some(member) = maps::member(&MemberKey { app: asking.key.app, index }) else { return 1 };
    let another = matches!(member.hop.kind(), HopKind::Local) && member.hop != asking.key.hop;
    if another && maps::wants(&GroupKey { hop: member.hop, ..asking.key }) {
        asking.found = 1;
        return 1;
    }
    0
}

/// Who gets copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The endpoints here.
    Endpoints,
    /// The peers that may have some.
    Peers,
}

/// What the loop over the members needs.
struct Copying {
    skb: Skb,
    run: *mut Run,
    /// Bytes to count.
    len: u32,
    to_peers: u32,
    /// Whether it is asked of each who wants and may have the packet.
    asks: u32,
}

/// Copies an IP packet to those who want and may have it.
#[inline(always)]
fn packet(skb: &mut Skb, run: &mut Run, audience: Audience) {
    let len = skb.len();
    copy(skb, run, audience, len, 1);
}

#[inline(always)]
fn copy(skb: &mut Skb, run: &mut Run, audience: Audience, len: u32, asks: u32) {
    let to_peers = u32::from(audience == Audience::Peers);
    let mut copying = Copying { skb: skb.again(), run, len, to_peers, asks };
    // SAFETY: the kernel calls `each` with the pointer while this frame lives.
    unsafe { bpf_loop(MEMBERS_MAX, each as *mut c_void, (&raw mut copying).cast(), 0) };
}

/// Called by the kernel for each number of a member. 1 ends the loop.
unsafe extern "C" fn each(index: u32, copying: *mut c_void) -> i64 {
    // SAFETY: the pointer that `copy` gave, to its own frame; nothing else uses it or the run meanwhile.
    let (copying, run) = unsafe {
        let copying = &mut *copying.cast::<Copying>();
        let run = &mut *copying.run;
        (copying, run)
    };
    let key = MemberKey { app: run.sender.identity.app, index };
    let Some(member) = maps::member(&key) else { return 1 };
    match (member.hop.kind(), copying.to_peers == 1) {
        (HopKind::Local, false) => to_endpoint(copying, run, &member),
        (HopKind::Peer, true) => to_peer(copying, run, &member),
        (HopKind::Local | HopKind::Peer | HopKind::Host | HopKind::Nowhere, _) => {}
    }
    0
}

#[inline(always)]
fn to_endpoint(copying: &mut Copying, run: &mut Run, member: &Member) {
    if member.hop == run.sender.hop {
        return;
    }
    if copying.asks == 1 && !(is_wanted(run, member.hop) && may_have(run, member.identity)) {
        return;
    }
    // A copy that fails is a lost packet, as on any wire; the others go on.
    if copying.skb.copy_to(member.hop.index).is_ok() {
        count(copying.len, run);
    }
}

#[inline(always)]
fn to_peer(copying: &mut Copying, run: &mut Run, member: &Member) {
    if copying.asks == 1 {
        let is_report = matches!(run.packet.protocol, protocol::IGMP) || is_report(&run.packet);
        if !(is_report || is_wanted(run, member.hop)) || !may_have(run, member.identity) {
            return;
        }
    }
    let Some(peer) = maps::peer(PeerId(member.hop.index)) else { return };
    let skb = &mut copying.skb;
    if skb.set_tunnel(peer.addr, run.sender.identity).is_ok() && skb.copy_to(maps::config().gateway).is_ok() {
        count(copying.len, run);
    }
}

#[inline(always)]
fn is_wanted(run: &Run, hop: Hop) -> bool {
    let group = run.packet.dst;
    is_for_all(group) || maps::wants(&GroupKey { group, app: run.sender.identity.app, hop })
}

#[inline(always)]
fn may_have(run: &mut Run, to: Identity) -> bool {
    run.query.src = run.sender.identity;
    run.query.dst = to;
    run.query.src_addr = run.packet.src;
    run.query.dst_addr = run.packet.dst;
    run.query.protocol = run.packet.protocol;
    run.query.port = run.packet.policy_port;
    // What rules that are tried would say of each copy is not asked: the stack has no room for it here.
    let ruling = judge(&maps::Compiled, maps::config().epoch, &run.query);
    run.rule = ruling.rule();
    ruling.passes() != 0
}

/// Counts a packet that one of the sender's app gets, under the rule that allowed it this copy.
#[inline(always)]
pub fn count(len: u32, run: &Run) {
    let app = run.sender.identity.app;
    maps::count_traffic(&Account::new(app, app, run.rule), Counts::packet(len, run.now));
}

/// What the members of an app say of a frame.
pub struct Found {
    app: AppId,
    sender: Hop,
    src: Mac,
    dst: Mac,
    /// The interface behind which the destination is, or 0.
    pub link: u32,
    /// Whether somebody here has the source.
    pub is_taken: u32,
    /// Whether the sender is one of them.
    pub is_member: u32,
    /// Whether some of them are on peers. No count: each number would be another state to the verifier.
    pub has_peers: u32,
}

/// Asks all members of an app.
#[inline(always)]
pub fn seek(app: AppId, sender: Hop, ether: &Ether) -> Found {
    let (src, dst) = (ether.source(), ether.destination());
    let mut found = Found { app, sender, src, dst, link: 0, is_taken: 0, is_member: 0, has_peers: 0 };
    // SAFETY: the kernel calls `look` with the pointer while this frame lives.
    unsafe { bpf_loop(MEMBERS_MAX, look as *mut c_void, (&raw mut found).cast(), 0) };
    found
}

/// Called by the kernel for each number of a member. 1 ends the loop.
unsafe extern "C" fn look(index: u32, found: *mut c_void) -> i64 {
    // SAFETY: the pointer that `seek` gave, to its own frame; nothing else uses it meanwhile.
    let found = unsafe { &mut *found.cast::<Found>() };
    let Some(member) = maps::member(&MemberKey { app: found.app, index }) else { return 1 };
    if member.hop == found.sender {
        found.is_member = 1;
    }
    match member.hop.kind() {
        HopKind::Local => {
            if let Some(endpoint) = maps::endpoint(member.hop.index) {
                if endpoint.mac == found.dst {
                    found.link = member.hop.index;
                }
                if endpoint.mac == found.src {
                    found.is_taken = 1;
                }
            }
        }
        HopKind::Peer => found.has_peers = 1,
        HopKind::Host | HopKind::Nowhere => {}
    }
    0
}
