//! How deep the stack of a program gets: the functions that call each other share the kernel's 512 bytes.
//!
//! The verifier tells the frame of every function, in the order in which they lie in the program. Who calls whom is read
//! from the instructions. Depth is counted as the verifier does: each frame rounded up to 32 bytes.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::generated::bpf_insn;

/// `BPF_JMP | BPF_CALL`, and what the source register says when it calls a function of the program.
const CALL: u8 = 0x85;
const OWN_FUNCTION: u8 = 1;

/// A double-word constant that is the address of a function: a callback.
const LOAD: u8 = 0x18;
const ADDRESS_OF_FUNCTION: u8 = 4;

/// `check_max_stack_depth_subprog` in kernel/bpf/verifier.c.
const UNIT: u32 = 32;

/// The deepest chain of calls, in bytes. None if `frames` are not those of these instructions.
pub(super) fn deepest(instructions: &[bpf_insn], frames: &[u32]) -> Option<u32> {
    let calls: Vec<_> =
        (0..).zip(instructions).filter_map(|(at, instruction)| Some((at, called(at, *instruction)?))).collect();
    let starts: BTreeSet<i64> = calls.iter().map(|&(_, target)| target).chain([0]).collect();
    if starts.len() != frames.len() {
        return None;
    }
    let frames: BTreeMap<_, _> = starts.iter().copied().zip(frames.iter().copied()).collect();
    let function_at = |at| starts.range(..=at).next_back().copied();
    let mut callees: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (at, target) in calls {
        callees.entry(function_at(at)?).or_default().insert(target);
    }
    // A program has no recursion, and a call graph no longer path than it has functions.
    let mut depths: BTreeMap<i64, u32> = BTreeMap::new();
    for _ in 0..frames.len() {
        let known = depths.clone();
        for (&function, frame) in &frames {
            let below = callees.get(&function).into_iter().flatten().filter_map(|callee| known.get(callee)).max();
            depths.insert(function, (*frame).max(1).next_multiple_of(UNIT) + below.copied().unwrap_or_default());
        }
        if depths == known {
            break;
        }
    }
    depths.get(&0).copied()
}

/// Where the function begins that this instruction calls or takes the address of.
fn called(at: i64, instruction: bpf_insn) -> Option<i64> {
    let (code, source) = (instruction.code, instruction.src_reg());
    let names = (code, source) == (CALL, OWN_FUNCTION) || (code, source) == (LOAD, ADDRESS_OF_FUNCTION);
    names.then(|| at + i64::from(instruction.imm) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, source: u8, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(0, source), off: 0, imm }
    }

    #[test]
    fn a_chain_is_as_deep_as_its_frames_together() {
        const EXIT: u8 = 0x95;
        // 0: calls 3 and 5; 3: calls 5; 5: calls a helper.
        let program = [
            instruction(CALL, OWN_FUNCTION, 2),
            instruction(CALL, OWN_FUNCTION, 3),
            instruction(EXIT, 0, 0),
            instruction(CALL, OWN_FUNCTION, 1),
            instruction(EXIT, 0, 0),
            instruction(CALL, 0, 7),
            instruction(EXIT, 0, 0),
        ];
        assert_eq!(deepest(&program, &[40, 0, 32]), Some(64 + 32 + 32));
        assert_eq!(deepest(&program, &[40, 0]), None);
    }
}
