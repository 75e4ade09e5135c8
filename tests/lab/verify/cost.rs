//! What each program costs the verifier of the running kernel, read from the verifier's own words.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya::EbpfLoader;
use aya::maps::MapData;
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use aya_obj::{Function, Object};
use weft::kernel::load::{Kind, Program};
use weft::kernel::pins::Pins;
use weft_tests::sweep::{BPFFS, owned_name};

use super::chain;
use super::sys::{self, Log, Records, Types};

/// One program on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(super) program: String,
    /// In the object, with the functions it calls.
    pub(super) instructions: usize,
    /// How many the verifier looked at, on all paths.
    pub(super) verified: u32,
    /// Bytes of the deepest chain of calls.
    pub(super) stack: u32,
    /// Bytes of machine code.
    pub(super) jited: u32,
    /// How long the verifier took.
    pub(super) microseconds: u64,
}

/// What became of one program.
pub(crate) type Outcome = Result<Cost>;

/// Room for the few lines of statistics.
const STATISTICS: usize = 64 << 10;

/// Room for the path to a refusal; the kernel takes no more than this.
const PATH: usize = 16 << 20;

/// Lines of that path which are told: the reason is at its end.
const TOLD: usize = 20;

/// Loads every program of an object as the daemon would, with tables of their own that go away again.
pub(crate) fn measure(object: &[u8]) -> Result<Vec<Outcome>> {
    let tables = Tables::make(object)?;
    let mut object = Object::parse(object).context("read the eBPF object")?;
    let btf = match aya::features().btf() {
        Some(features) => object.fixup_and_sanitize_btf(features).context("read the types of the object")?,
        None => None,
    };
    let btf = btf.map(|btf| sys::load_btf(&btf.to_bytes())).transpose().context("load the types of the object")?;

    let text: HashSet<_> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = mem::take(&mut object.maps);
    let mut known = Vec::new();
    for (name, map) in &maps {
        known.push((name.as_str(), tables.number(name)?, map));
    }
    object.relocate_maps(known.into_iter(), &text).context("put the tables into the programs")?;
    object.relocate_calls(&text).context("put the functions into the programs")?;
    object.sanitize_functions(aya::features());

    Ok(Program::ALL.iter().map(|program| cost(&object, btf.as_ref(), *program)).collect())
}

fn cost(object: &Object, btf: Option<&OwnedFd>, program: Program) -> Outcome {
    let found = object.programs.get(program.name).ok_or_else(|| anyhow!("the object has no program {program}"))?;
    let function = object.functions.get(&found.function_key());
    let function = function.ok_or_else(|| anyhow!("program {program} has no instructions"))?;
    let Function { instructions, func_info, line_info, func_info_rec_size, line_info_rec_size, .. } = function;
    let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
    let types = btf.map(|btf| Types {
        btf: btf.as_fd(),
        functions: Records { bytes: &functions, size: *func_info_rec_size },
        lines: Records { bytes: &lines, size: *line_info_rec_size },
    });
    let (kind, attach) = numbers(program.kind);
    let request = sys::Program { kind, attach, name: program.name, instructions, license: &found.license, types };

    let mut log = vec![0; STATISTICS];
    match sys::load_program(&request, Log::Statistics, &mut log) {
        Ok(loaded) => {
            let log = text_of(&log);
            let Statistics { verified, frames, microseconds } = Statistics::parse(&log)
                .with_context(|| format!("read what the verifier says of program {program}: {log}"))?;
            let stack = chain::deepest(instructions, &frames)
                .with_context(|| format!("find who calls whom in program {program}: {} frames", frames.len()))?;
            let jited = sys::jited_bytes(loaded.as_fd()).with_context(|| format!("ask what program {program} is"))?;
            let instructions = instructions.len();
            Ok(Cost { program: program.name.into(), instructions, verified, stack, jited, microseconds })
        }
        Err(error) => Err(refusal(&request, error)),
    }
}

/// Asks again for the reason.
fn refusal(request: &sys::Program<'_>, error: io::Error) -> anyhow::Error {
    let mut log = vec![0; PATH];
    // Refused again, and for the same reason: what counts is the log.
    drop(sys::load_program(request, Log::Path, &mut log));
    let log = text_of(&log);
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(TOLD)..].join("\n");
    anyhow::Error::new(error).context(format!("load program {}; the verifier's last words:\n{end}\n", request.name))
}

/// `enum bpf_prog_type` and `enum bpf_attach_type`; a classifier has none of the latter.
fn numbers(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Classifier => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32, 0),
        Kind::Xdp => (bpf_prog_type::BPF_PROG_TYPE_XDP as u32, bpf_attach_type::BPF_XDP as u32),
    }
}

fn text_of(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// The tables that the programs use.
struct Tables {
    pins: Pins,
    maps: BTreeMap<String, MapData>,
}

impl Tables {
    fn make(object: &[u8]) -> Result<Self> {
        let root = Path::new(BPFFS).join(owned_name("verify"));
        let mut tables = Self { pins: Pins::new(root), maps: BTreeMap::new() };
        tables.pins.prepare()?;
        let names: Vec<_> = Object::parse(object).context("read the eBPF object")?.maps.into_keys().collect();
        let mut loader = EbpfLoader::new();
        for name in &names {
            loader.map_pin_path(name, tables.pin(name));
        }
        // Only the pins are wanted of it.
        drop(loader.load(object).context("make the tables")?);
        for name in names {
            let map = MapData::from_pin(tables.pin(&name)).with_context(|| format!("open table {name}"))?;
            tables.maps.insert(name, map);
        }
        Ok(tables)
    }

    /// A bpffs takes no dots, and the names of sections begin with one.
    fn pin(&self, name: &str) -> PathBuf {
        self.pins.map(&name.replace('.', "_"))
    }

    fn number(&self, name: &str) -> Result<i32> {
        let map = self.maps.get(name).with_context(|| format!("there is no table {name}"))?;
        Ok(map.fd().as_fd().as_raw_fd())
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove() {
            eprintln!("{error:#}");
        }
    }
}

/// What the verifier says at the end.
#[derive(Debug, PartialEq)]
struct Statistics {
    verified: u32,
    frames: Vec<u32>,
    microseconds: u64,
}

impl Statistics {
    /// Reads `verification time 912 usec`, `stack depth 176+64`, `processed 5210 insns (limit 1000000) …`. Later kernels say
    /// the greatest depth instead, and then of each function `subprog 1 (open) static insns_self 360 insns_total 360 stack 64`.
    fn parse(log: &str) -> Option<Self> {
        let after = |words: &str| log.lines().find_map(|line| line.strip_prefix(words));
        let functions = log.lines().filter(|line| line.starts_with("subprog "));
        let mut depths: Vec<_> = functions.filter_map(|line| line.rsplit(' ').next()).collect();
        if depths.is_empty() {
            depths = after("stack depth ")?.split('+').collect();
        }
        Some(Self {
            verified: after("processed ")?.split_once(' ')?.0.parse().ok()?,
            frames: depths.into_iter().map(|depth| depth.trim().parse().ok()).collect::<Option<_>>()?,
            microseconds: after("verification time ")?.split_once(' ')?.0.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_s_words_are_understood() {
        let log = "verification time 912 usec\nstack depth 176+0+64\n\
                   processed 5210 insns (limit 1000000) max_states_per_insn 4 total_states 345 peak_states 345\n";
        let expect = Statistics { verified: 5210, frames: vec![176, 0, 64], microseconds: 912 };
        assert_eq!(Statistics::parse(log), Some(expect));
        let log = "verification time 17995 usec\nstack depth max 96\n\
                   subprog 0 (guard) main insns_self 316 insns_total 316 stack 32\n\
                   subprog 1 (open) static insns_self 360 insns_total 360 stack 64\n\
                   processed 676 insns (limit 1000000) max_states_per_insn 1 total_states 21 peak_states 21 mark_read 0\n";
        let expect = Statistics { verified: 676, frames: vec![32, 64], microseconds: 17995 };
        assert_eq!(Statistics::parse(log), Some(expect));
        assert_eq!(Statistics::parse("processed many insns"), None);
    }
}
