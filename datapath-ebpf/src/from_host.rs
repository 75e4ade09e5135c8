//! A packet that this host's stack sends by the gateway device: the host's own, or one it routes in from
//! outside. The host is an identity like any other.

use weft_common::addr::Mac;
use weft_common::flow::Side;
use weft_common::header::{Bytes as _, Ether};
use weft_common::id::{AppId, Identity};
use weft_common::route::{Hop, HopKind};
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::{Skb, parse};
use crate::run::{Party, Run};
use crate::{admit, forward, maps};

/// The program.
#[inline(always)]
pub fn run(skb: &mut Skb, run: &mut Run) -> Outcome {
    skb.reveal();
    let ether: Ether = skb.get(0).ok_or(DropReason::Malformed)?;
    if ether.ethertype != Ether::IPV4 && ether.ethertype != Ether::IPV6 {
        return Err(DropReason::UnknownStation);
    }
    parse(&mut run.packet, skb, Ether::LEN, ether.ethertype)?;
    if run.packet.dst.is_multicast() || run.packet.dst.is_broadcast() {
        // The host is a member of no app: what it tells or asks the link concerns nobody.
        return run.goes(Forward::Done);
    }
    let len = skb.len();
    identify(skb, run)?;
    if run.packet.is_fragment() {
        admit::fragment(&mut run.packet, run.now)?;
    }
    let identity = run.sender.identity;
    let from_host = |side: &Side| side.hop == Hop::HOST && side.identity == identity;
    if !admit::known(run, maps::config().epoch, len, from_host) {
        admit::admit(run, len)?;
    }
    let ether = Ether { src: Mac::GATEWAY.bytes(), ..ether };
    match run.receiver.hop.kind() {
        HopKind::Local => {
            skb.put(0, Ether { dst: run.receiver.mac.bytes(), ..ether })?;
            run.goes(Forward::Out { link: run.receiver.hop.index })
        }
        HopKind::Peer => forward::to_peer(skb, run, &ether),
        HopKind::Host | HopKind::Nowhere => Err(DropReason::NoRoute),
    }
}

/// Establishes the sender. What this host made itself is the host's; what came in elsewhere is from outside;
/// what has a container's address left the overlay and came back, which nothing here sends it to do.
#[inline(never)]
fn identify(skb: &Skb, run: &mut Run) -> Result<(), DropReason> {
    let arrived_on = skb.arrived_on();
    let route = maps::route(run.packet.src);
    let identity = match route.identity.app {
        AppId::HOST | AppId::OUTSIDE if arrived_on == 0 => Identity::HOST,
        AppId::OUTSIDE if arrived_on != maps::config().gateway => Identity::OUTSIDE,
        _ => return Err(DropReason::SpoofedAddress),
    };
    run.sender = Party { hop: Hop::HOST, identity, mac: Mac::GATEWAY };
    Ok(())
}

/// What a VXLAN device took off the tunnel's port did not come through `from_underlay`: another interface
/// let it in, or it was made here. What a program handed to the host carries no tunnel key.
#[inline(always)]
pub fn refuse_tunnelled(skb: &Skb, run: &mut Run) -> Outcome {
    if skb.is_tunnelled() { Err(DropReason::TunnelOffUplink) } else { run.goes(Forward::Pass) }
}
