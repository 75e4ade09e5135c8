//! One host: the programs with tables of their own. Nothing is attached and no packet moves.

use super::event::{Event, read};
use super::rules::Compiled;
use super::state::State;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::{Program as Loaded, SchedClassifier, TcAttachType, TestRun, TestRunOptions, Xdp, tc};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use weft::kernel::load::Object;
use weft_common::addr::Ip;
use weft_common::event::sample::Bucket;
use weft_common::flow::{Flow, FlowKey};
use weft_common::fragment::{Datagram, DatagramKey};
use weft_common::group::{GroupKey, Member, MemberKey};
use weft_common::id::{Epoch, PeerId};
use weft_common::policy::{PeerKey, PrefixKey, Rule, RuleKey, RuleSet, SetKey};
use weft_common::route::{Endpoint, Route};
use weft_common::table::{self, Account, Config, Counts, Table};
use weft_common::tunnel::Peer;
use weft_common::verdict::DropReason;

/// A program, by its name in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    FromWorkload,
    FromUnderlay,
    FromHost,
    ToHost,
    Guard,
}

/// What the kernel says of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    /// The interface whose hook it is.
    pub(crate) link: u32,
    /// The interface it came in on; 0 if this host made it.
    pub(crate) arrived_on: u32,
    /// The size of the segments of a merged packet, or 0.
    pub(crate) segment: u32,
}

/// The tables, each by its declared type.
pub(crate) struct Tables {
    pub(crate) config: Array<MapData, Config>,
    pub(crate) endpoints: HashMap<MapData, u32, Endpoint>,
    pub(crate) routes: LpmTrie<MapData, Ip, Route>,
    pub(crate) peers: Array<MapData, Peer>,
    pub(crate) peer_addresses: HashMap<MapData, Ip, PeerId>,
    pub(crate) sets: HashMap<MapData, SetKey, RuleSet>,
    pub(crate) peer_lists: HashMap<MapData, PeerKey, u32>,
    pub(crate) prefix_lists: LpmTrie<MapData, PrefixKey, u32>,
    pub(crate) rules: LpmTrie<MapData, RuleKey, Rule>,
    pub(crate) flows: HashMap<MapData, FlowKey, Flow>,
    pub(crate) datagrams: HashMap<MapData, DatagramKey, Datagram>,
    pub(crate) members: HashMap<MapData, MemberKey, Member>,
    pub(crate) groups: HashMap<MapData, GroupKey, u64>,
    storms: PerCpuArray<MapData, Bucket>,
    drops: PerCpuArray<MapData, u64>,
    pub(crate) traffic: PerCpuHashMap<MapData, Account, Counts>,
    uncounted: PerCpuArray<MapData, Counts>,
    samples: PerCpuArray<MapData, Bucket>,
}

pub(crate) struct Machine {
    object: Ebpf,
    tables: Tables,
    ring: RingBuf<MapData>,
    misses: u64,
    /// What was counted after the last run, while nobody has written since.
    known: Option<State>,
}

/// What a run came to.
pub(crate) struct Run {
    pub(crate) code: u32,
    pub(crate) output: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) before: State,
    pub(crate) after: State,
}

/// Enough for a story. The sizes in the object would take 40 MiB of every host at once.
const FEW: u32 = 4096;

/// More than the peers that any story has.
const PEERS: u32 = 16;

/// What a test run takes at most, for all kernels: a page less the room that the kernel keeps around a packet.
pub(crate) const LONGEST: usize = 3500;

impl Program {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FromWorkload => "from_workload",
            Self::FromUnderlay => "from_underlay",
            Self::FromHost => "from_host",
            Self::ToHost => "to_host",
            Self::Guard => "guard",
        }
    }
}

impl Context {
    /// `struct __sk_buff` (include/uapi/linux/bpf.h).
    fn bytes(self) -> [u8; 192] {
        const INGRESS_IFINDEX: usize = 36;
        const IFINDEX: usize = 40;
        const GSO_SEGS: usize = 164;
        const GSO_SIZE: usize = 176;

        let Self { link, arrived_on, segment } = self;
        let mut bytes = [0; 192];
        let segments = if segment == 0 { 0 } else { 2 };
        for (at, value) in [(INGRESS_IFINDEX, arrived_on), (IFINDEX, link), (GSO_SEGS, segments), (GSO_SIZE, segment)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let mut loader = EbpfLoader::new();
        // With its log the verifier takes several times as long.
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
        for table in [table::Flows::NAME, table::Datagrams::NAME, table::Traffic::NAME] {
            loader.map_max_entries(table, FEW);
        }
        let mut object = loader.load(Object::embedded().bytes()).expect("load the object");
        let ring = taken(&mut object, table::EVENTS);
        Self { tables: Tables::take(&mut object), ring, object, misses: 0, known: None }
    }

    /// A program, and the tables that it reads. Runs have to be made inside of the namespace of the devices.
    pub(crate) fn program(&mut self, program: Program) -> (Code<'_>, &mut Tables) {
        self.load(program);
        self.known = None;
        (Code::of(&self.object, program), &mut self.tables)
    }

    /// Runs a program, with what was counted before and after it.
    pub(crate) fn run(&mut self, program: Program, run: impl FnOnce(&Code<'_>) -> (u32, Vec<u8>)) -> Run {
        self.load(program);
        self.events();
        let before = self.known.take().unwrap_or_else(|| self.state());
        let (code, output) = run(&Code::of(&self.object, program));
        let events = self.events();
        let after = self.state();
        self.known = Some(after.clone());
        Run { code, output, events, before, after }
    }

    /// The tables, to be written.
    pub(crate) fn tables(&mut self) -> &mut Tables {
        self.known = None;
        &mut self.tables
    }

    /// Puts a program at the ingress of a device of the calling thread's namespace, for as long as the machine lives.
    pub(crate) fn attach(&mut self, program: Program, device: &str) {
        self.load(program);
        // Kernels before 6.6 want a place to hold it. Another machine may have made it; without it attaching fails.
        tc::qdisc_add_clsact(device).ok();
        let Some(Loaded::SchedClassifier(code)) = self.object.program_mut(program.name()) else {
            panic!("{program:?} is not for a device's ingress")
        };
        let link = code.attach(device, TcAttachType::Ingress);
        link.unwrap_or_else(|error| panic!("attach {program:?} to {device}: {error:?}"));
    }

    /// All that is counted now.
    pub(crate) fn state(&self) -> State {
        let Tables { drops, traffic, uncounted, flows, datagrams, groups, .. } = &self.tables;
        let sum = |values: PerCpuValues<u64>| values.iter().sum();
        State {
            drops: drops.iter().map(|values| sum(values.expect("read a counter"))).collect(),
            traffic: traffic
                .iter()
                .map(|entry| entry.expect("read a counter"))
                .map(|(pair, values)| (pair, total(&values)))
                .collect(),
            uncounted: total(&uncounted.get(&0, 0).expect("read a counter")),
            flows: all(flows),
            datagrams: all(datagrams).len() as u64,
            groups: all(groups).len() as u64,
            misses: self.misses,
        }
    }

    /// How many events of a bucket were not told since the last that was.
    pub(crate) fn untold(&self, bucket: u32) -> u64 {
        self.tables.samples.get(&bucket, 0).expect("read a bucket").iter().map(|bucket| bucket.skipped).sum()
    }

    /// Puts the time into the past at which sets and flows end.
    pub(crate) fn end_comes(&mut self) {
        let Tables { sets, flows, .. } = self.tables();
        for (key, set) in all(sets).into_iter().filter(|(_, set)| set.until != 0) {
            sets.insert(key, RuleSet { until: 1, ..set }, 0).expect("write a set");
        }
        for (key, flow) in all(flows).into_iter().filter(|(_, flow)| flow.until != 0) {
            flows.insert(key, Flow { until: 1, ..flow }, 0).expect("write a flow");
        }
    }

    /// What the programs have told since the last time.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.ring.next() {
            events.push(read(&record));
        }
        self.misses += events.iter().filter(|event| matches!(event, Event::Miss(..))).count() as u64;
        events
    }

    /// Forgets what programs remember, and lets every drop be told again.
    pub(crate) fn forget(&mut self) {
        self.known = None;
        let Tables { flows, datagrams, groups, storms, samples, .. } = &mut self.tables;
        clear(flows);
        clear(datagrams);
        clear(groups);
        reset(storms);
        reset(samples);
    }

    /// Makes it as it was when it was loaded.
    pub(crate) fn wipe(&mut self) {
        self.forget();
        self.events();
        self.misses = 0;
        let tables = &mut self.tables;
        tables.config.set(0, Config::default(), 0).expect("write the configuration");
        for peer in 0..PEERS {
            if tables.peers.get(&peer, 0).expect("read a peer") != Peer::default() {
                tables.peers.set(peer, Peer::default(), 0).expect("write a peer");
            }
        }
        clear(&mut tables.endpoints);
        clear(&mut tables.peer_addresses);
        clear(&mut tables.members);
        clear_trie(&mut tables.routes);
        tables.clear_policy();
        reset(&mut tables.drops);
        reset(&mut tables.uncounted);
        tables.clear_traffic();
        assert_eq!(self.state(), State { drops: vec![0; DropReason::COUNT], ..State::default() });
    }

    /// Verified when it is used first: a story uses few of them.
    fn load(&mut self, program: Program) {
        let found = self.object.program_mut(program.name()).expect("the object has the program");
        if found.fd().is_ok() {
            return;
        }
        let loaded = match found {
            Loaded::SchedClassifier(code) => code.load(),
            Loaded::Xdp(code) => code.load(),
            other => panic!("{program:?} is {other:?}"),
        };
        loaded.unwrap_or_else(|error| panic!("load {program:?}: {error:?}"));
    }
}

/// A program that is in the kernel.
pub(crate) enum Code<'a> {
    Classifier(&'a SchedClassifier),
    Guard(&'a Xdp),
}

impl<'a> Code<'a> {
    fn of(object: &'a Ebpf, program: Program) -> Self {
        match object.program(program.name()) {
            Some(Loaded::SchedClassifier(code)) => Self::Classifier(code),
            Some(Loaded::Xdp(code)) => Self::Guard(code),
            other => panic!("{program:?} is {other:?}"),
        }
    }

    /// Runs it. The answer is its code and the packet that it leaves.
    pub(crate) fn run(&self, context: Context, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        // Tunnel headers may come before what was there.
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let context = context.bytes();
        let result = match self {
            Self::Classifier(code) => {
                options.ctx_in = Some(&context);
                code.test_run(options)
            }
            // No interface is named: the kernel wants one that has an XDP queue of its own.
            Self::Guard(code) => code.test_run(options),
        };
        match result {
            Ok(result) => {
                out.truncate(usize::try_from(result.data_size_out).expect("32 bits"));
                Ok((result.return_value, out))
            }
            Err(aya::programs::ProgramError::SyscallError(error)) => Err(error.io_error),
            Err(error) => panic!("run a program: {error:?}"),
        }
    }
}

impl Tables {
    fn take(object: &mut Ebpf) -> Self {
        Self {
            config: taken(object, table::Configs::NAME),
            endpoints: taken(object, table::Endpoints::NAME),
            routes: taken(object, table::Routes::NAME),
            peers: taken(object, table::Peers::NAME),
            peer_addresses: taken(object, table::PeerAddresses::NAME),
            sets: taken(object, table::Sets::NAME),
            peer_lists: taken(object, table::PeerLists::NAME),
            prefix_lists: taken(object, table::PrefixLists::NAME),
            rules: taken(object, table::RuleLists::NAME),
            flows: taken(object, table::Flows::NAME),
            datagrams: taken(object, table::Datagrams::NAME),
            members: taken(object, table::Members::NAME),
            groups: taken(object, table::Groups::NAME),
            storms: taken(object, table::Storms::NAME),
            drops: taken(object, table::Drops::NAME),
            traffic: taken(object, table::Traffic::NAME),
            uncounted: taken(object, table::Uncounted::NAME),
            samples: taken(object, table::Samples::NAME),
        }
    }

    /// Puts an address, or a prefix of `len` bits of the 128, on the map.
    pub(crate) fn route(&mut self, (len, ip): (u32, Ip), route: Route) {
        self.routes.insert(&Key::new(len, ip), route, 0).expect("write a route");
    }

    /// Forgets all rules.
    pub(crate) fn clear_policy(&mut self) {
        clear(&mut self.sets);
        clear(&mut self.peer_lists);
        clear_trie(&mut self.prefix_lists);
        clear_trie(&mut self.rules);
    }

    /// The rules in force are those of this epoch, and whether others are tried is as `Config::shadow` says.
    pub(crate) fn write_epoch(&mut self, epoch: Epoch, shadow: u32) {
        let config = self.config.get(&0, 0).expect("read the configuration");
        self.config.set(0, Config { epoch, shadow, ..config }, 0).expect("write the configuration");
    }

    /// Forgets what was counted by pair of apps and rule.
    pub(crate) fn clear_traffic(&mut self) {
        for account in self.traffic.keys().collect::<Result<Vec<_>, _>>().expect("read the counters") {
            self.traffic.remove(&account).expect("remove counters");
        }
    }

    /// What was counted under an account.
    pub(crate) fn account(&self, account: &Account) -> Counts {
        self.traffic.get(account, 0).as_ref().map(total).unwrap_or_default()
    }

    /// What policy has dropped, by reason.
    pub(crate) fn policy_drops(&self) -> BTreeMap<DropReason, u64> {
        let reasons = DropReason::ALL.iter().copied().filter(|reason| DropReason::is_of_policy(*reason as u32));
        let count = |reason| self.drops.get(&(reason as u32), 0).expect("read a counter").iter().sum();
        reasons.map(|reason| (reason, count(reason))).collect()
    }

    /// The entry of a flow, if there is one.
    pub(crate) fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key, 0).ok()
    }

    /// Takes an address off the map. Nothing happens if it was not on it.
    pub(crate) fn unroute(&mut self, ip: Ip) {
        self.routes.remove(&Key::new(128, ip)).ok();
    }
}

fn taken<T: TryFrom<Map, Error: Debug>>(object: &mut Ebpf, name: &str) -> T {
    let map = object.take_map(name).unwrap_or_else(|| panic!("the object has no table {name}"));
    T::try_from(map).unwrap_or_else(|error| panic!("table {name} is of another kind: {error:?}"))
}

fn all<K: Pod + Ord, V: Pod>(map: &HashMap<MapData, K, V>) -> BTreeMap<K, V> {
    map.iter().collect::<Result<_, _>>().expect("read a table")
}

fn clear<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) {
    for key in map.keys().collect::<Result<Vec<_>, _>>().expect("read a table") {
        map.remove(&key).expect("remove an element");
    }
}

fn clear_trie<K: Pod, V: Pod>(map: &mut LpmTrie<MapData, K, V>) {
    for key in map.keys().collect::<Result<Vec<_>, _>>().expect("read a table") {
        map.remove(&key).expect("remove an element");
    }
}

fn reset<V: Pod + Clone + Default>(array: &mut PerCpuArray<MapData, V>) {
    let cpus = array.get(&0, 0).expect("read an element").len();
    for index in 0..array.len() {
        let zeros = PerCpuValues::try_from(vec![V::default(); cpus]).expect("a value per CPU");
        array.set(index, zeros, 0).expect("write an element");
    }
}

fn total(values: &PerCpuValues<Counts>) -> Counts {
    values.iter().copied().fold(Counts::default(), Counts::plus)
}

impl Machine {
    /// Writes compiled rules beside those in force.
    pub(crate) fn enforce(&mut self, compiled: &Compiled) {
        let Compiled { sets, peer_lists, prefix_lists, rules, shadow: _ } = compiled;
        let Tables {
            sets: sets_table, peer_lists: peers_table, prefix_lists: prefixes_table, rules: rules_table, ..
        } = &mut self.tables;
        rules
            .iter()
            .for_each(|((len, key), rule)| rules_table.insert(&Key::new(*len, *key), rule, 0).expect("write a rule"));
        for ((len, key), list) in prefix_lists {
            prefixes_table.insert(&Key::new(*len, *key), list, 0).expect("write a list");
        }
        peer_lists.iter().for_each(|(key, list)| peers_table.insert(key, list, 0).expect("write a list"));
        sets.iter().for_each(|(key, set)| sets_table.insert(key, set, 0).expect("write a set"));
    }
}
