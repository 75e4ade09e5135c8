//! The eBPF programs. Each is named by where its packets come from; each reads top-down as
//! parse, admit, forward, outcome. What is decided is decided in `weft-common`.
//!
//! A function that is not inlined gives back a number or an enum without content, at most in a `Result`: of a larger
//! value the verifier sees registers that nobody filled, or a pointer to the caller's stack. What is larger is in the run.
//!
//! `#[inline(always)]` is on what runs per packet: the kernel's 512 bytes of stack are shared by a whole
//! call chain, and inlined code shares one frame. `#[inline(never)]` keeps what runs per flow, or to
//! answer, out of that frame.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the attribute macros leave out what is written on the entry points")]
#![expect(unreachable_pub, reason = "modules of one binary: pub says what a module offers to the others")]

mod admit;
mod answer;
mod encap;
mod forward;
mod from_host;
mod from_underlay;
mod from_workload;
mod guard;
mod maps;
mod neighbor;
mod outcome;
mod packet;
mod replicate;
mod report;
mod run;
mod station;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use weft_common::event::Hook;

use crate::packet::Skb;

/// Ingress of the host side of a container's interface.
#[classifier]
pub fn from_workload(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    let Some(run) = begin(Hook::FromWorkload) else { return outcome::lost() };
    let outcome = from_workload::run(&mut skb, run);
    outcome::finish(&mut skb, run, outcome)
}

/// Ingress of an uplink.
#[classifier]
pub fn from_underlay(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    let Some(run) = begin(Hook::FromUnderlay) else { return outcome::lost() };
    let outcome = from_underlay::run(&mut skb, run);
    outcome::finish(&mut skb, run, outcome)
}

/// Egress of the gateway device: what this host sends, and what it routes in from outside.
#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    // A copy on its way to a peer was decided on where it was made, by a run that is still going on: its memory is
    // not to be touched.
    if skb.is_tunnelled() {
        return outcome::pass();
    }
    let Some(run) = begin(Hook::FromHost) else { return outcome::lost() };
    let outcome = from_host::run(&mut skb, run);
    outcome::finish(&mut skb, run, outcome)
}

/// Ingress of the gateway device: what the tunnel's socket took is refused, what a program handed to
/// the host passes.
#[classifier]
pub fn to_host(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    let Some(run) = begin(Hook::ToHost) else { return outcome::lost() };
    let outcome = from_host::refuse_tunnelled(&skb, run);
    outcome::finish(&mut skb, run, outcome)
}

/// In front of `from_underlay`: forged and malformed tunnel packets end here, before they cost an skb.
#[xdp]
pub fn guard(ctx: XdpContext) -> u32 {
    outcome::finish_guard(guard::run(&packet::Raw::new(&ctx)))
}

#[inline(always)]
fn begin(hook: Hook) -> Option<&'static mut run::Run> {
    let run = maps::run()?;
    run.begin(hook, maps::now());
    Some(run)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: `xtask verify` loads every program, and a panic path does not pass the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
