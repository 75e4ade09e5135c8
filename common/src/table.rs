//! Every table, once: its name, kind, size, key and value. Both sides read it from here.

use crate::addr::Ip;
use crate::event::sample::Bucket;
use crate::flow::{Flow, FlowKey};
use crate::fragment::{Datagram, DatagramKey};
use crate::group::{GroupKey, Member, MemberKey};
use crate::id::{AppId, Epoch, PeerId};
use crate::policy::{PeerKey, PrefixKey, Rule, RuleKey, RuleSet, SetKey};
use crate::route::{Endpoint, Route};
use crate::tunnel::Peer;
use crate::verdict::DropReason;
use crate::wire::{Plain, hash, mix};

/// How the kernel keeps a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Shape {
    /// Elements appear and go.
    Hash = 1,
    /// All elements are always there.
    Array = 2,
    /// As `Hash`, a value per CPU.
    PerCpuHash = 5,
    /// As `Array`, a value per CPU.
    PerCpuArray = 6,
    /// The least recently used gives way.
    LruHash = 9,
    /// Longest prefix of the key.
    LpmTrie = 11,
}

/// A table's declaration. The numbers of [`Shape`] are the kernel's `enum bpf_map_type`.
pub trait Table {
    /// The map's name in the object and below the pin directory.
    const NAME: &'static str;
    /// How the kernel keeps it.
    const SHAPE: Shape;
    /// Most elements it can hold.
    const MAX: u32;
    /// `BPF_F_*` flags it is created with.
    const FLAGS: u32;
    /// Key, without the prefix length of a trie.
    type Key: Plain;
    /// Value, of one CPU where there is one per CPU.
    type Value: Plain;
}

/// `BPF_F_NO_PREALLOC`: elements take memory when they come. Tries demand it.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the daemon stores into it with single instructions.
pub const MMAPABLE: u32 = 1 << 10;

macro_rules! tables {
    ($( $(#[doc = $doc:literal])+ $table:ident = $name:literal : $shape:ident[$max:expr] $flags:expr, $key:ty => $value:ty; )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $table;
            impl Table for $table {
                const NAME: &'static str = $name;
                const SHAPE: Shape = Shape::$shape;
                const MAX: u32 = $max;
                const FLAGS: u32 = $flags;
                type Key = $key;
                type Value = $value;
            }
        )*

        /// Names of all tables.
        pub const NAMES: &[&str] = &[ $($name),* ];

        /// What a table is, without its types.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Spec {
            /// [`Table::NAME`].
            pub name: &'static str,
            /// [`Table::SHAPE`].
            pub shape: Shape,
            /// [`Table::MAX`].
            pub max: u32,
            /// [`Table::FLAGS`].
            pub flags: u32,
            /// Bytes of a key, with the prefix length of a trie.
            pub key_size: u32,
            /// Bytes of a value.
            pub value_size: u32,
        }

        /// All tables.
        pub const SPECS: &[Spec] = &[ $( Spec {
            name: $name,
            shape: Shape::$shape,
            max: $max,
            flags: $flags,
            key_size: size_of::<$key>() as u32 + if matches!(Shape::$shape, Shape::LpmTrie) { 4 } else { 0 },
            value_size: size_of::<$value>() as u32,
        } ),* ];

        const SHAPES: u64 = {
            let digest = 0;
            $( let digest = mix(mix(mix(hash(digest, concat!($name, stringify!($shape), stringify!($key), stringify!($value))), $max as u64), size_of::<$key>() as u64), size_of::<$value>() as u64); )*
            digest
        };
    };
}

tables! {
    /// What all programs need to know. One element.
    Configs = "CONFIG": Array[1] MMAPABLE, u32 => Config;
    /// Endpoints of this host, by the interface their packets come in on.
    Endpoints = "ENDPOINTS": Hash[16_384] NO_PREALLOC, u32 => Endpoint;
    /// Where addresses are.
    Routes = "ROUTES": LpmTrie[262_144] NO_PREALLOC, Ip => Route;
    /// Other hosts, by number.
    Peers = "PEERS": Array[4_096] 0, u32 => Peer;
    /// Other hosts, by underlay address.
    PeerAddresses = "PEER_ADDRESSES": Hash[8_192] NO_PREALLOC, Ip => PeerId;
    /// Rule sets of both slots, by subject.
    Sets = "SETS": Hash[131_072] NO_PREALLOC, SetKey => RuleSet;
    /// Lists by class of peers.
    PeerLists = "PEER_LISTS": Hash[1_048_576] NO_PREALLOC, PeerKey => u32;
    /// Lists by prefix.
    PrefixLists = "PREFIX_LISTS": LpmTrie[262_144] NO_PREALLOC, PrefixKey => u32;
    /// Rules, by list, protocol and port.
    RuleLists = "RULES": LpmTrie[2_097_152] NO_PREALLOC, RuleKey => Rule;
    /// Flows that were allowed.
    Flows = "FLOWS": LruHash[131_072] 0, FlowKey => Flow;
    /// Datagrams that come in pieces.
    Datagrams = "DATAGRAMS": LruHash[8_192] 0, DatagramKey => Datagram;
    /// Who gets copies of what is sent to an app.
    Members = "MEMBERS": Hash[65_536] NO_PREALLOC, MemberKey => Member;
    /// Which member wants which group; the value is when it said so, in nanoseconds.
    Groups = "GROUPS": LruHash[8_192] 0, GroupKey => u64;
    /// How much each interface may send to everybody, by the interface's number modulo the size.
    Storms = "STORMS": PerCpuArray[256] 0, u32 => Bucket;
    /// Drops by reason.
    Drops = "DROPS": PerCpuArray[DropReason::COUNT as u32] 0, u32 => u64;
    /// Traffic and drops by pair of apps and rule.
    Traffic = "TRAFFIC": PerCpuHash[65_536] NO_PREALLOC, Account => Counts;
    /// What would have been counted in `TRAFFIC` if there had been room. One element.
    Uncounted = "UNCOUNTED": PerCpuArray[1] 0, u32 => Counts;
    /// How often each reason may be told, and behind them what rules that are tried would have stopped.
    Samples = "SAMPLES": PerCpuArray[crate::event::sample::SHADOW + 1] 0, u32 => Bucket;
}

/// Name of the ring buffer of events.
pub const EVENTS: &str = "EVENTS";
/// Bytes of the ring buffer.
pub const EVENTS_BYTES: u32 = 1 << 20;

crate::wire! {
    /// What all programs need to know.
    pub struct Config {
        /// The policy and placement in force.
        pub epoch: Epoch,
        /// Interface index of the gateway device.
        pub gateway: u32,
        /// UDP port of the tunnel.
        pub port: u32,
        /// Whether rules are tried: 1 if so.
        pub shadow: u32,
    }

    /// What packets are counted under.
    pub struct Account {
        /// The sender's app.
        pub src: AppId,
        /// The receiver's app.
        pub dst: AppId,
        /// The rule that decided on the packet or on its flow; 0 is a default. [`Self::NO_RULE`], [`Self::PAST`].
        pub rule: u32,
        /// The rule that is only tried and would have decided otherwise: see [`crate::policy::shadow`].
        pub shadow: u32,
    }

    /// What passed and what did not.
    pub struct Counts {
        /// Packets handed on.
        pub packets: u64,
        /// Their bytes, with Ethernet headers. A merged packet counts as it was handed on.
        pub bytes: u64,
        /// Flows that were allowed.
        pub flows: u64,
        /// Packets dropped after both sides were known.
        pub drops: u64,
        /// When something was counted last, in nanoseconds of the monotonic clock, to a tick.
        pub last: u64,
    }
}

impl Account {
    /// The rule of packets that were dropped before any was asked.
    pub const NO_RULE: u32 = u32::MAX;
    /// The rule of all that rules counted which are no more. Only the daemon writes it.
    pub const PAST: u32 = Self::NO_RULE - 1;
    /// The greatest number that a rule can have.
    pub const LAST_RULE: u32 = Self::PAST - 1;

    /// What the rule with this number, or a default, decided between two apps.
    #[inline(always)]
    pub const fn new(src: AppId, dst: AppId, rule: u32) -> Self {
        Self { src, dst, rule, shadow: 0 }
    }
}

impl Counts {
    /// One packet that was handed on, of `bytes`.
    #[inline(always)]
    pub const fn packet(bytes: u32, now: u64) -> Self {
        Self { packets: 1, bytes: bytes as u64, flows: 0, drops: 0, last: now }
    }

    /// One packet that was dropped.
    #[inline(always)]
    pub const fn drop(now: u64) -> Self {
        Self { packets: 0, bytes: 0, flows: 0, drops: 1, last: now }
    }

    /// Counts these too.
    #[inline(always)]
    pub const fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.flows += more.flows;
        self.drops += more.drops;
        if more.last > self.last {
            self.last = more.last;
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(mut self, more: Self) -> Self {
        self.add(more);
        self
    }
}

/// Names a layout of all tables: the pin directory carries it.
pub const DIGEST: u64 = {
    let layouts = [
        SHAPES,
        Config::LAYOUT,
        Account::LAYOUT,
        Counts::LAYOUT,
        Endpoint::LAYOUT,
        Route::LAYOUT,
        crate::route::Hop::LAYOUT,
        crate::id::Identity::LAYOUT,
        Peer::LAYOUT,
        SetKey::LAYOUT,
        RuleSet::LAYOUT,
        PeerKey::LAYOUT,
        PrefixKey::LAYOUT,
        RuleKey::LAYOUT,
        Rule::LAYOUT,
        crate::policy::Winner::LAYOUT,
        FlowKey::LAYOUT,
        crate::flow::Side::LAYOUT,
        Flow::LAYOUT,
        DatagramKey::LAYOUT,
        MemberKey::LAYOUT,
        Member::LAYOUT,
        GroupKey::LAYOUT,
        Datagram::LAYOUT,
        Bucket::LAYOUT,
        crate::event::Drop::LAYOUT,
        crate::event::Miss::LAYOUT,
    ];
    let mut digest = 0;
    let mut i = 0;
    while i < layouts.len() {
        digest = mix(digest, layouts[i]);
        i += 1;
    }
    digest
};

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel adds to an element of a hash, about: `struct htab_elem` and a bucket.
    const ELEMENT: usize = 64;

    #[test]
    fn the_tables_that_take_memory_at_once_take_less_than_64_mib() {
        let cpus = 4;
        let bytes: usize = SPECS
            .iter()
            .filter(|s| s.flags & NO_PREALLOC == 0)
            .map(|s| {
                let per = match s.shape {
                    Shape::Array => s.value_size as usize,
                    Shape::PerCpuArray => s.value_size as usize * cpus,
                    Shape::PerCpuHash => s.key_size as usize + s.value_size as usize * cpus + ELEMENT,
                    Shape::Hash | Shape::LruHash | Shape::LpmTrie => {
                        s.key_size as usize + s.value_size as usize + ELEMENT
                    }
                };
                per * s.max as usize
            })
            .sum();
        assert!(bytes < 64 << 20, "{bytes}");
    }

    #[test]
    fn names_fit_the_kernel() {
        // BPF_OBJ_NAME_LEN is 16 with the terminating zero.
        assert!(NAMES.iter().all(|name| name.len() < 16));
    }
}
