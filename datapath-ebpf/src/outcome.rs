//! The one place where an outcome becomes a code for the kernel, a count and a report.

#![expect(unsafe_code, reason = "calls the redirect helpers")]

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh, xdp_action};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use weft_common::addr::Ip;
use weft_common::id::PeerId;
use weft_common::verdict::DropReason;

use crate::packet::Skb;
use crate::run::Run;
use crate::{answer, maps, report};

/// What is to become of a packet that is not dropped.
#[derive(Clone, Copy)]
#[must_use]
#[repr(u32)]
pub enum Forward {
    /// Nowhere: it was answered or copied, or nothing was said of it.
    Done = 0,
    /// Nothing of ours: the host's stack, or the next program, sees it as it is.
    Pass,
    /// Into the container behind this interface.
    Into {
        /// Index of the interface's host side.
        link: u32,
    },
    /// Out of this interface as it is: an answer to the container behind it, or from where there is no way `Into`.
    Out {
        /// Index of the interface.
        link: u32,
    },
    /// In the tunnel to a peer: out of an uplink to a next hop, whose hardware address the kernel knows or finds out.
    Peer(PeerId),
    /// To this host's stack, as received on the gateway device.
    Host {
        /// Index of the gateway device.
        link: u32,
    },
}

/// What a hook comes to: the run knows where the packet goes.
pub type Outcome = Result<(), DropReason>;

/// The code for a TC hook.
#[inline(always)]
pub fn finish(skb: &mut Skb, run: &mut Run, outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => {
            if run.tells_shadow != 0 {
                report::shadowed(skb, run);
            }
            send(run.forward)
        }
        Err(reason) => {
            run.reason = reason as u32;
            refuse(skb, run)
        }
    }
}

/// Counts, reports and answers a drop. The reason is read from memory: the verifier would follow each of
/// them on its own.
#[cold]
#[inline(never)]
fn refuse(skb: &mut Skb, run: &mut Run) -> i32 {
    maps::count_drop(run.reason);
    report::dropped(skb, run);
    run.forward = Forward::Done;
    if answer::is_due(run) {
        // Without an answer the sender finds out by waiting.
        _ = answer::to(skb, run);
    }
    send(run.forward)
}

/// The code for a packet that is left as it is.
#[inline(always)]
pub fn pass() -> i32 {
    send(Forward::Pass)
}

/// The code when there is no memory for a run, which the kernel gives every program.
#[inline(always)]
pub fn lost() -> i32 {
    maps::count_drop(DropReason::KernelRefused as u32);
    TC_ACT_SHOT
}

#[inline(always)]
fn send(forward: Forward) -> i32 {
    match forward {
        // Not TC_ACT_OK, which ends the chain: other programs and filters at the hook have a say about what is not ours.
        Forward::Pass => TC_ACT_UNSPEC,
        Forward::Done => TC_ACT_SHOT,
        // SAFETY: the redirect helpers only note where the packet goes when the program returns their code.
        Forward::Into { link } => unsafe { bpf_redirect_peer(link, 0) as i32 },
        // SAFETY: as above.
        Forward::Out { link } => unsafe { bpf_redirect(link, 0) as i32 },
        // SAFETY: as above.
        Forward::Host { link } => unsafe { bpf_redirect(link, BPF_F_INGRESS) as i32 },
        Forward::Peer(id) => maps::peer(id).map_or(TC_ACT_SHOT, |peer| to_neighbor(peer.uplink, peer.next_hop)),
    }
}

/// The code for the XDP hook. The guard drops or lets pass; it sends nowhere.
#[inline(always)]
pub fn finish_guard(outcome: Result<(), DropReason>) -> u32 {
    match outcome {
        Ok(()) => xdp_action::XDP_PASS,
        Err(reason) => {
            maps::count_drop(reason as u32);
            xdp_action::XDP_DROP
        }
    }
}

const BPF_F_INGRESS: u64 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

#[inline(always)]
fn to_neighbor(link: u32, next_hop: Ip) -> i32 {
    // The address of an IPv4 neighbour is the first word of the kernel's union.
    let (family, words) = if next_hop.is_v4() { (AF_INET, [next_hop.0[3], 0, 0, 0]) } else { (AF_INET6, next_hop.0) };
    let mut neighbor = NextHop { family, words };
    let at: *mut bpf_redir_neigh = (&raw mut neighbor).cast();
    // SAFETY: `NextHop` has the layout of `struct bpf_redir_neigh`; the helper copies it.
    unsafe { bpf_redirect_neigh(link, at, size_of::<NextHop>() as i32, 0) as i32 }
}

/// `struct bpf_redir_neigh`, with the union as plain words.
#[repr(C)]
struct NextHop {
    family: u32,
    words: [u32; 4],
}
const _: () = assert!(size_of::<NextHop>() == size_of::<bpf_redir_neigh>());
