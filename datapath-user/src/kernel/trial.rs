//! What a program would do with a packet of our making, asked of the program itself.
//!
//! Loads a copy of it that reads the tables in force and writes into tables of its own, which go with it: no flow, no
//! count and no event of the trial is seen by anybody, and what it would send is not sent. Does not know what the
//! packet means. Invariant: a table is shared only if it is in `SHARED`, and no program writes to any of those.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions, VerifierLogLevel,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs,
};
use weft_common::{
    event::{Drop, Kind},
    flow::{Flow, FlowKey},
    table::{self, Table as _},
    verdict::DropReason,
};

use super::{
    attach::Held,
    bpf,
    load::{self, Code, Object, Program},
    pins::Pins,
};

/// The tables that the daemon fills.
const SHARED: &[&str] = &[
    table::Configs::NAME,
    table::Endpoints::NAME,
    table::Routes::NAME,
    table::Peers::NAME,
    table::PeerAddresses::NAME,
    table::Sets::NAME,
    table::PeerLists::NAME,
    table::PrefixLists::NAME,
    table::RuleLists::NAME,
    table::Members::NAME,
];

/// Elements of the large tables that the programs fill: a trial has one flow.
const FEW: u32 = 4096;

/// Bytes of the ring buffer: a page. One record is read, and the largest takes half of it.
const RING_BYTES: u32 = 4096;

/// A copy of a program of traffic control.
#[derive(Debug)]
pub struct Trial {
    object: Ebpf,
    code: Code,
}

/// Where a packet is, as the program will see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Number of the interface whose hook it is.
    pub link: u32,
    /// Number of the interface it came in on; 0 if this host made it.
    pub arrived_on: u32,
}

/// What came of a packet.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What the program answered: a `TC_ACT_*`.
    pub code: u32,
    /// The packet as the program left it.
    pub frame: Vec<u8>,
    /// The reason under which it was dropped.
    pub reason: Option<DropReason>,
    /// The rule that decided, 0 for a default. None: no rule was asked, or nothing was noted of it.
    pub rule: Option<u32>,
}

impl Trial {
    /// Loads the copy.
    pub fn load(pins: &Pins, program: Program) -> Result<Self> {
        if let [absent, ..] = pins.check()?[..] {
            bail!("try program {program}: there is no table {absent}");
        }
        let mut loader = EbpfLoader::new();
        // With its log the verifier takes several times as long.
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
        for name in SHARED {
            loader.map_pin_path(name, pins.map(name));
        }
        for name in [table::Flows::NAME, table::Datagrams::NAME, table::Groups::NAME, table::Traffic::NAME] {
            loader.map_max_entries(name, FEW);
        }
        loader.map_max_entries(table::EVENTS, RING_BYTES);
        let mut load = || {
            let mut object = loader.load(Object::embedded().bytes())?;
            let code = load::load(&mut object, program)?;
            Ok::<_, anyhow::Error>(Self { object, code })
        };
        load().with_context(|| format!("load a copy of program {program}"))
    }

    /// Whether what is attached has the same instructions.
    pub fn is_copy_of(&self, held: &Held) -> bool {
        self.code.tag() == held.tag
    }

    /// Runs it, once: what it remembered is of this packet. The interfaces are those of the calling thread's namespace.
    pub fn run(mut self, spot: Spot, frame: &[u8]) -> Result<Ran> {
        let context = context(spot);
        // Tunnel headers may come in front of what was there.
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let program = self.code.program();
        let Some(programs::Program::SchedClassifier(copy)) = self.object.program(program.name) else {
            bail!("run program {program}: it is not one of traffic control");
        };
        let result = copy.test_run(options).with_context(|| format!("run program {program}"))?;
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(usize::MAX));
        let counted = self.drops()?.iter().position(|count| *count > 0);
        let reason = counted.and_then(DropReason::from_index);
        let told = self.told()?.filter(|drop| Some(drop.reason as usize) == counted);
        let rule = match told {
            Some(drop) => Some(drop.rule).filter(|rule| *rule != table::Account::NO_RULE),
            None => self.flow()?.map(|flow| flow.rule),
        };
        Ok(Ran { code: result.return_value, frame: out, reason, rule })
    }

    fn drops(&self) -> Result<Vec<u64>> {
        let drops: PerCpuArray<&MapData, u64> = self.table(table::Drops::NAME)?;
        let counts = drops.iter().map(|values| values.map(|values| values.iter().sum()));
        counts.collect::<Result<_, _>>().context("read what was dropped")
    }

    /// The flow that was remembered.
    fn flow(&self) -> Result<Option<Flow>> {
        let flows: HashMap<&MapData, FlowKey, Flow> = self.table(table::Flows::NAME)?;
        let first = flows.iter().next().transpose().context("read the flow")?;
        Ok(first.map(|(_, flow)| flow))
    }

    /// The drop that was told.
    fn told(&mut self) -> Result<Option<Drop>> {
        let ring = self.object.map_mut(table::EVENTS).ok_or_else(|| anyhow!("the object has no events"))?;
        let mut ring = RingBuf::try_from(ring).context("read what was told")?;
        while let Some(record) = ring.next() {
            let drop: Option<Drop> = bpf::record(&record);
            if let Some(drop) = drop.filter(|drop| drop.kind == Kind::Drop as u32) {
                return Ok(Some(drop));
            }
        }
        Ok(None)
    }

    fn table<'a, T: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>>(&'a self, name: &str) -> Result<T> {
        let map = self.object.map(name).ok_or_else(|| anyhow!("the object has no table {name}"))?;
        T::try_from(map).with_context(|| format!("open table {name}"))
    }
}

/// `struct __sk_buff` (include/uapi/linux/bpf.h).
fn context(Spot { link, arrived_on }: Spot) -> [u8; 192] {
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;

    let mut bytes = [0; 192];
    for (at, value) in [(INGRESS_IFINDEX, arrived_on), (IFINDEX, link)] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}
