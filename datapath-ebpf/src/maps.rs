//! The tables, and the only functions that touch them.
//!
//! What is found is copied out or used as a plain record whose fields may change under us: an update or
//! a recycled element can show another element's bytes for a moment. Every field is valid for any bits,
//! and what rests on a flow entry is checked against the packet (epoch, hop, hardware address).

#![expect(unsafe_code, reason = "map elements are memory that the kernel shares")]

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use weft_common::addr::Ip;
use weft_common::event::sample::{self, Bucket};
use weft_common::flow::{Flow, FlowKey, Leg, SEEN_STEP, State};
use weft_common::fragment::{Datagram, DatagramKey};
use weft_common::group::{GroupKey, Member, MemberKey};
use weft_common::id::PeerId;
use weft_common::policy::{PeerKey, PrefixKey, Rule, RuleKey, RuleSet, Rules, SetKey};
use weft_common::route::{Endpoint, Route};
use weft_common::table::{self, Account, Config, Counts, Table};
use weft_common::tunnel::Peer;

use crate::run::Run;

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(table::Configs::MAX, table::Configs::FLAGS);
#[map]
static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(table::Endpoints::MAX, table::Endpoints::FLAGS);
#[map]
static ROUTES: LpmTrie<Ip, Route> = LpmTrie::with_max_entries(table::Routes::MAX, table::Routes::FLAGS);
#[map]
static PEERS: Array<Peer> = Array::with_max_entries(table::Peers::MAX, table::Peers::FLAGS);
#[map]
static PEER_ADDRESSES: HashMap<Ip, PeerId> =
    HashMap::with_max_entries(table::PeerAddresses::MAX, table::PeerAddresses::FLAGS);
#[map]
static SETS: HashMap<SetKey, RuleSet> = HashMap::with_max_entries(table::Sets::MAX, table::Sets::FLAGS);
#[map]
static PEER_LISTS: HashMap<PeerKey, u32> = HashMap::with_max_entries(table::PeerLists::MAX, table::PeerLists::FLAGS);
#[map]
static PREFIX_LISTS: LpmTrie<PrefixKey, u32> =
    LpmTrie::with_max_entries(table::PrefixLists::MAX, table::PrefixLists::FLAGS);
#[map]
static RULES: LpmTrie<RuleKey, Rule> = LpmTrie::with_max_entries(table::RuleLists::MAX, table::RuleLists::FLAGS);
#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(table::Flows::MAX, table::Flows::FLAGS);
#[map]
static DATAGRAMS: LruHashMap<DatagramKey, Datagram> =
    LruHashMap::with_max_entries(table::Datagrams::MAX, table::Datagrams::FLAGS);
#[map]
static MEMBERS: HashMap<MemberKey, Member> = HashMap::with_max_entries(table::Members::MAX, table::Members::FLAGS);
#[map]
static GROUPS: LruHashMap<GroupKey, u64> = LruHashMap::with_max_entries(table::Groups::MAX, table::Groups::FLAGS);
#[map]
static STORMS: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(table::Storms::MAX, table::Storms::FLAGS);
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(table::Drops::MAX, table::Drops::FLAGS);
#[map]
static TRAFFIC: PerCpuHashMap<Account, Counts> =
    PerCpuHashMap::with_max_entries(table::Traffic::MAX, table::Traffic::FLAGS);
#[map]
static UNCOUNTED: PerCpuArray<Counts> = PerCpuArray::with_max_entries(table::Uncounted::MAX, table::Uncounted::FLAGS);
#[map]
static SAMPLES: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(table::Samples::MAX, table::Samples::FLAGS);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(table::EVENTS_BYTES, 0);

#[map]
static RUN: PerCpuArray<Run> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's memory for a run.
#[inline(always)]
pub fn run() -> Option<&'static mut Run> {
    let run = RUN.get_ptr_mut(0)?;
    // SAFETY: zeros at first and then only what programs stored, so a valid `Run`; no other reference
    // exists, because each run asks once and runs do not nest on a CPU.
    Some(unsafe { &mut *run })
}

/// What all programs need to know. Zeros until the daemon has written it: no epoch, no gateway.
#[inline(always)]
pub fn config() -> Config {
    CONFIG.get(0).copied().unwrap_or_default()
}

/// Nanoseconds of the monotonic clock, to a tick.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no arguments and no effects.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Nanoseconds since the boot, those included that the host slept: the clock by which rules end.
#[inline(always)]
pub fn since_boot() -> u64 {
    // SAFETY: the helper has no arguments and no effects.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The endpoint behind an interface.
#[inline(always)]
pub fn endpoint(link: u32) -> Option<Endpoint> {
    // SAFETY: a plain record, copied out at once.
    unsafe { ENDPOINTS.get(link) }.copied()
}

/// Where an address is.
#[inline(always)]
pub fn route(ip: Ip) -> Route {
    ROUTES.get(Key::new(128, ip)).copied().unwrap_or(Route::OUTSIDE)
}

/// A peer by number.
#[inline(always)]
pub fn peer(id: PeerId) -> Option<&'static Peer> {
    PEERS.get(id.0).filter(|peer| peer.addr != Ip::NONE)
}

/// A peer by underlay address.
#[inline(always)]
pub fn peer_at(addr: Ip) -> Option<PeerId> {
    // SAFETY: a plain record, copied out at once.
    unsafe { PEER_ADDRESSES.get(addr) }.copied()
}

/// The compiled rules.
pub struct Compiled;

impl Rules for Compiled {
    #[inline(always)]
    fn set(&self, key: &SetKey) -> Option<RuleSet> {
        // SAFETY: a plain record, copied out at once.
        unsafe { SETS.get(key) }.copied()
    }

    #[inline(always)]
    fn peer_list(&self, key: &PeerKey) -> Option<u32> {
        // SAFETY: a plain record, copied out at once.
        unsafe { PEER_LISTS.get(key) }.copied()
    }

    #[inline(always)]
    fn prefix_list(&self, key: &PrefixKey) -> Option<u32> {
        PREFIX_LISTS.get(Key::new(u32::BITS + 128, *key)).copied()
    }

    #[inline(always)]
    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        RULES.get(Key::new(u32::BITS + 8 + 16, *key)).copied()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        since_boot()
    }
}

/// A flow's entry in the table.
#[derive(Clone, Copy)]
pub struct Entry {
    flow: *mut Flow,
}

/// The entry of a flow.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<Entry> {
    FLOWS.get_ptr_mut(key).map(|flow| Entry { flow })
}

/// Remembers that a flow was allowed. The table makes room by forgetting the flow that was idle longest.
#[inline(always)]
pub fn remember(key: &FlowKey, flow: &Flow) {
    // It can only fail when every element is in use on other CPUs at this moment: the next packet decides again.
    _ = FLOWS.insert(key, flow, 0);
}

impl Entry {
    /// Its fields.
    #[inline(always)]
    pub fn get(&self) -> &Flow {
        // SAFETY: the element stays memory of a plain `Flow` for the whole run.
        unsafe { &*self.flow }
    }

    /// Notes that policy has ended it.
    #[inline(always)]
    pub fn end(&self) {
        // SAFETY: the element stays memory of a plain `Flow` for the whole run; the store is of one field.
        unsafe { (&raw mut (*self.flow).state).write_volatile(State::Ended as u8) };
    }

    /// Notes a packet of `bytes` from `leg` that brings the flow to `state` and TCP to `seq_next`.
    #[inline(always)]
    pub fn note(&self, leg: Leg, bytes: u32, state: State, seq_next: u32, now: u64) {
        // SAFETY: the element stays memory of a plain `Flow` for the whole run; each store is of one field.
        unsafe {
            let side = &raw mut (*self.flow).side[leg.index()];
            add(&raw mut (*side).packets, 1);
            add(&raw mut (*side).bytes, u64::from(bytes));
            if (*side).seq_next != seq_next {
                (&raw mut (*side).seq_next).write_volatile(seq_next);
            }
            if (*self.flow).state != state as u8 {
                (&raw mut (*self.flow).state).write_volatile(state as u8);
            }
            if now.wrapping_sub((*self.flow).seen) >= SEEN_STEP {
                (&raw mut (*self.flow).seen).write_volatile(now);
            }
        }
    }
}

/// Adds to a number that other CPUs add to as well.
///
/// # Safety
///
/// `to` points to a number in a map element.
#[inline(always)]
unsafe fn add(to: *mut u64, number: u64) {
    // SAFETY: one atomic addition in memory that the caller vouches for.
    unsafe { core::arch::asm!("lock *(u64 *)({to} + 0) += {number}", to = in(reg) to, number = in(reg) number) };
}

/// What the first fragment of a datagram said.
#[inline(always)]
pub fn datagram(key: &DatagramKey) -> Option<Datagram> {
    // SAFETY: a plain record, copied out at once.
    unsafe { DATAGRAMS.get(key) }.copied()
}

/// Remembers what the first fragment of a datagram said, or that it is poisoned.
#[inline(always)]
pub fn remember_datagram(key: &DatagramKey, datagram: &Datagram) {
    // When it fails the later fragments are refused as untracked.
    _ = DATAGRAMS.insert(key, datagram, 0);
}

/// A member of an app.
#[inline(always)]
pub fn member(key: &MemberKey) -> Option<Member> {
    // SAFETY: a plain record, copied out at once.
    unsafe { MEMBERS.get(key) }.copied()
}

/// Whether a member wants a group.
#[inline(always)]
pub fn wants(key: &GroupKey) -> bool {
    GROUPS.get_ptr(key).is_some()
}

/// Notes that a member wants a group from now on, or does not.
#[inline(always)]
pub fn note_wish(key: &GroupKey, wanted: bool, now: u64) {
    // When a wish can not be noted the member asks again; one that is gone is not there to be removed.
    _ = if wanted { GROUPS.insert(key, now, 0) } else { GROUPS.remove(key) };
}

/// Whether an interface may send one more packet to everybody.
#[inline(always)]
pub fn may_flood(link: u32, now: u64) -> bool {
    let Some(bucket) = STORMS.get_ptr_mut(link % table::Storms::MAX) else { return false };
    // SAFETY: this CPU's own element; nothing else runs on it before this program ends.
    unsafe { (*bucket).take(now, sample::STORM) }.is_some()
}

/// Counts a drop for the reason with this number.
#[inline(always)]
pub fn count_drop(reason: u32) {
    if let Some(count) = DROPS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own element; nothing else runs on it before this program ends.
        unsafe { *count += 1 };
    }
}

/// Whether an event about the reason with this number may be sent now, and how many were not sent before it.
#[inline(always)]
pub fn sampled(reason: u32, now: u64) -> Option<u64> {
    let bucket = SAMPLES.get_ptr_mut(reason)?;
    // SAFETY: this CPU's own element; nothing else runs on it before this program ends.
    unsafe { (*bucket).take(now, sample::RATE) }
}

/// Notes that an event for which [`sampled`] has said `skipped` was not sent.
#[inline(always)]
pub fn lost_sample(reason: u32, skipped: u64) {
    if let Some(bucket) = SAMPLES.get_ptr_mut(reason) {
        // SAFETY: this CPU's own element; nothing else runs on it before this program ends.
        unsafe { (*bucket).lose(skipped) };
    }
}

/// Adds to an account.
#[inline(always)]
pub fn count_traffic(account: &Account, add: Counts) {
    if let Some(counts) = TRAFFIC.get_ptr_mut(account) {
        // SAFETY: this CPU's own element; nothing else runs on it before this program ends.
        unsafe { (*counts).add(add) };
    } else if TRAFFIC.insert(account, add, 0).is_err()
        && let Some(counts) = UNCOUNTED.get_ptr_mut(0)
    {
        // SAFETY: as above.
        unsafe { (*counts).add(add) };
    }
}
