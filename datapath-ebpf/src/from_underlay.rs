//! A packet from the underlay: a tunnel packet from a peer, about an address the peer owns, that policy
//! lets in. Everything is read and decided while it is still in the tunnel, so what is refused was not
//! changed.

use weft_common::addr::Mac;
use weft_common::flow::Side;
use weft_common::header::{Bytes as _, Ether};
use weft_common::id::{AppId, Identity, PeerId, RoleId};
use weft_common::route::{Hop, HopKind};
use weft_common::tunnel::{Peer, Tunnel, close_ecn};
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::{Skb, open, parse};
use crate::run::{Party, Run};
use crate::{admit, encap, forward, maps, neighbor, replicate, station};

/// The program.
#[inline(always)]
pub fn run(skb: &mut Skb, run: &mut Run) -> Outcome {
    let config = maps::config();
    skb.reveal_tunnel(config.port as u16);
    // A tag says that it is of another interface, whose own program will see it.
    if skb.is_tagged() || !open(&mut run.tunnel, skb, config.port as u16)? {
        return run.goes(Forward::Pass);
    }
    let id = peer(skb, &run.tunnel)?;
    run.link = run.tunnel.inner;
    let ether: Ether = skb.get(run.link).ok_or(DropReason::TunnelMalformed)?;
    match ether.ethertype {
        Ether::IPV4 | Ether::IPV6 => {}
        Ether::ARP => return neighbor::arp_of_peer(skb, run, id),
        _ => return station::from_peer(skb, run, id, &ether),
    }
    parse(&mut run.packet, skb, run.link + Ether::LEN, ether.ethertype)?;
    if neighbor::is_discovery(&run.packet) {
        return neighbor::discovery_of_peer(skb, run, id, &ether);
    }
    if replicate::is_for_many(&ether, &run.packet) {
        to_many(skb, run, id, &ether)?;
        return run.goes(Forward::Done);
    }
    let tos = close_ecn(run.tunnel.tos, run.packet.tos)?;
    if run.packet.is_fragment() {
        identify(run, id, ether.source())?;
        admit::fragment(&mut run.packet, run.now)?;
    }
    let len = skb.len() - run.link;
    let (hop, wire) = (Hop::peer(id), run.tunnel.identity);
    let from_peer = |side: &Side| side.hop == hop && claims(wire, side.identity);
    if !admit::known(run, config.epoch, len, from_peer) {
        identify(run, id, ether.source())?;
        admit::admit(run, len)?;
    }
    deliver(skb, run, &ether, tos)
}

#[inline(always)]
fn deliver(skb: &mut Skb, run: &mut Run, ether: &Ether, tos: u8) -> Outcome {
    let kind = run.receiver.hop.kind();
    if matches!(kind, HopKind::Peer | HopKind::Nowhere) {
        return Err(DropReason::NoEndpoint);
    }
    let typed = encap::pop(skb, run.link, &Ether { dst: run.receiver.mac.bytes(), ..*ether })?;
    if tos != run.packet.tos {
        encap::mark(skb, ether.ethertype, tos)?;
    }
    if matches!(kind, HopKind::Host) {
        return forward::to_host(skb, run, ether);
    }
    let link = run.receiver.hop.index;
    run.goes(if typed { Forward::Into { link } } else { Forward::Out { link } })
}

/// What a peer's endpoint sent to its app: copied to the endpoints here.
#[cold]
#[inline(never)]
fn to_many(skb: &mut Skb, run: &mut Run, id: PeerId, ether: &Ether) -> Result<(), DropReason> {
    identify(run, id, ether.source())?;
    if replicate::is_for_endpoints(skb, run)? {
        encap::pop(skb, run.link, ether)?;
        replicate::from_peer(skb, run);
    }
    Ok(())
}

/// The peer that sent the tunnel packet, on the way that is agreed with it.
#[inline(always)]
fn peer(skb: &Skb, tunnel: &Tunnel) -> Result<PeerId, DropReason> {
    let id = maps::peer_at(tunnel.src).ok_or(DropReason::UnknownPeer)?;
    let peer = maps::peer(id).ok_or(DropReason::UnknownPeer)?;
    if tunnel.dst != peer.local || skb.link() != peer.uplink {
        return Err(DropReason::UnknownPeer);
    }
    if peer.flags & Peer::ENCRYPTED != 0 {
        return Err(DropReason::Cleartext);
    }
    Ok(id)
}

/// Whether what the tunnel says of the sender agrees with `identity`. Without a group policy id it speaks
/// for the app.
#[inline(always)]
fn claims(wire: Identity, identity: Identity) -> bool {
    wire.app == identity.app && (wire.role == identity.role || wire.role == RoleId::UNKNOWN)
}

/// Establishes the sender: the peer owns the source address, and what the tunnel says of it agrees with the
/// cluster state, or the state does not know the address yet and the peer speaks for its app.
#[inline(never)]
pub fn identify(run: &mut Run, peer: PeerId, mac: Mac) -> Result<(), DropReason> {
    let route = maps::route(run.packet.src);
    let (mut identity, wire) = (route.identity, run.tunnel.identity);
    if replicate::may_report(&run.packet) {
        // What groups somebody wants is said from an address of the link alone, which no prefix has: the peer speaks
        // for the app, and nothing but its own membership comes of it.
        if !wire.app.is_application() {
            return Err(DropReason::IdentityMismatch);
        }
        run.sender = Party { hop: Hop::peer(peer), identity: wire, mac };
        return Ok(());
    }
    if identity.app != AppId::OUTSIDE && route.hop != Hop::peer(peer) {
        return Err(DropReason::PeerNotOwner);
    }
    if identity.role == RoleId::UNKNOWN && wire.role != RoleId::ANY {
        identity.role = wire.role;
    }
    if !claims(wire, identity) {
        return Err(DropReason::IdentityMismatch);
    }
    run.sender = Party { hop: Hop::peer(peer), identity, mac };
    Ok(())
}
