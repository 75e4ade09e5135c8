//! Ends the flows that a change of policy, or the end of a rule, no longer allows, also those on which nothing is being sent.
//!
//! A program decides a flow anew with its next packet. For a flow that is silent the daemon does the same by the
//! same function, and tells both ends by a reset, each from the host that has it.

use weft_common::{
    addr::Mac,
    cut::Segment,
    flow::{Flow, FlowKey, Leg, State},
    header::{Ether, as_bytes, protocol},
    id::Epoch,
    policy::{Query, Rules, decide},
    route::HopKind,
};

/// A frame for a local endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reset {
    /// Index of the host's side of its interface.
    pub(super) link: u32,
    /// The frame.
    pub(super) frame: Vec<u8>,
}

/// What is to be done about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Stays,
    /// Nothing has passed for so long that nobody will miss its entry.
    Expired,
    /// Policy denies it: its ends are told.
    Revoked(Vec<Reset>),
}

/// What becomes of a flow under the rules of `epoch`.
pub(super) fn fate<R: Rules>(rules: &R, epoch: Epoch, key: &FlowKey, flow: &Flow, now: u64) -> Fate {
    if flow.is_expired(key.protocol, now) {
        return Fate::Expired;
    }
    // An entry that is on its way out was revoked before.
    let is_current = flow.epoch == epoch && !flow.is_over(|| rules.now());
    if is_current || flow.state == State::Closing as u8 {
        return Fate::Stays;
    }
    if decide(rules, epoch, &query(key, flow)).verdict.is_ok() {
        return Fate::Stays;
    }
    Fate::Revoked([Leg::A, Leg::B].into_iter().filter_map(|leg| reset(key, flow, leg)).collect())
}

/// What policy was asked when the flow was opened.
fn query(key: &FlowKey, flow: &Flow) -> Query {
    let (from, to) = (flow.opener(), flow.opener().other());
    let port = key.port[to.index()];
    let is_icmp = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    Query {
        src: flow.side[from.index()].identity,
        dst: flow.side[to.index()].identity,
        src_addr: key.addr[from.index()],
        dst_addr: key.addr[to.index()],
        protocol: key.protocol,
        port: if is_icmp { port << 8 } else { port },
    }
}

/// The reset that a local side of a TCP flow takes for one of the other side's.
fn reset(key: &FlowKey, flow: &Flow, to: Leg) -> Option<Reset> {
    let (side, other) = (&flow.side[to.index()], &flow.side[to.other().index()]);
    if key.protocol != protocol::TCP || side.hop.kind() != HopKind::Local {
        return None;
    }
    let (to, from) = (to.index(), to.other().index());
    let is_v4 = key.addr[to].is_v4();
    let ethertype = if is_v4 { Ether::IPV4 } else { Ether::IPV6 };
    let ether = Ether { dst: side.mac.bytes(), src: Mac::GATEWAY.bytes(), ethertype };
    let segment = Segment {
        src: key.addr[from],
        dst: key.addr[to],
        src_port: key.port[from],
        dst_port: key.port[to],
        seq: other.seq_next,
        ack: side.seq_next,
    };
    let mut frame = as_bytes(&ether).to_vec();
    if is_v4 {
        frame.extend_from_slice(as_bytes(&segment.v4()));
    } else {
        frame.extend_from_slice(as_bytes(&segment.v6()));
    }
    Some(Reset { link: side.hop.index, frame })
}
