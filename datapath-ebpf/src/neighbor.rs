//! ARP and neighbour discovery: answered from the tables, so that nothing is flooded and nothing goes stale.
//!
//! An endpoint may speak of its own address only; what claims another's is dropped by name.

use weft_common::addr::{Ip, Mac};
use weft_common::answer::Advertisement6 as Answer;
use weft_common::header::{ArpHdr, Bytes as _, Discovery, Ether, Ipv6Hdr, protocol};
use weft_common::id::PeerId;
use weft_common::parse::Packet;
use weft_common::route::{Endpoint, Hop, HopKind};
use weft_common::tunnel::Inner;
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::Skb;
use crate::run::{Party, Run};
use crate::{encap, from_underlay, maps, station};

const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

const ROUTER_SOLICITATION: u16 = 133;
const SOLICITATION: u16 = 135;
const ADVERTISEMENT: u16 = 136;

/// Makes an ARP request of a container (RFC 826) its own reply, where there is one; else it is refused or not needed.
#[cold]
#[inline(never)]
pub fn arp(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let endpoint = maps::endpoint(skb.link()).ok_or(DropReason::UnknownInterface)?;
    let arp: ArpHdr = skb.get(Ether::LEN).ok_or(DropReason::Malformed)?;
    if !is_ethernet_ipv4(&arp) {
        return Err(DropReason::Malformed);
    }
    if ether.source() != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    let (sender, target) = (Ip::from_v4(arp.spa), Ip::from_v4(arp.tpa));
    // A probe (RFC 5227) says 0.0.0.0, because it does not claim the address yet.
    let is_probe = arp.spa == [0; 4];
    if Mac::new(arp.sha) != endpoint.mac || !(is_probe || sender == endpoint.v4) {
        return Err(DropReason::ForgedNeighbor);
    }
    if arp.oper != REQUEST {
        let is_own = arp.oper == REPLY && sender == endpoint.v4;
        return if is_own { Ok(()) } else { Err(DropReason::ForgedNeighbor) };
    }
    let Some(mac) = station(&endpoint, target) else { return Ok(()) };
    let reply = ArpHdr { oper: REPLY, sha: mac.bytes(), spa: arp.tpa, tha: arp.sha, tpa: arp.spa, ..arp };
    skb.put(0, Ether { dst: arp.sha, src: mac.bytes(), ethertype: Ether::ARP })?;
    skb.put(Ether::LEN, reply)?;
    run.goes(Forward::Out { link: skb.link() })
}

/// Whether a packet is neighbour discovery (RFC 4861).
#[inline(always)]
pub fn is_discovery(packet: &Packet) -> bool {
    packet.protocol == protocol::ICMPV6 && matches!(packet.policy_port >> 8, 133..=137)
}

/// Answers what a peer asks by ARP through the tunnel, in the tunnel: a host with a VXLAN device of its kernel knows no
/// other way to find an endpoint here. Nothing is learnt from what it says.
#[inline(always)]
pub fn arp_of_peer(skb: &mut Skb, run: &mut Run, peer: PeerId) -> Outcome {
    if !asks_by_arp(skb, run, peer)? {
        return run.goes(Forward::Done);
    }
    back(skb, run, Ether::ARP)?;
    reply(skb, run)?;
    run.goes(Forward::Peer(peer))
}

/// As [`arp_of_peer`], of neighbour discovery.
#[inline(always)]
pub fn discovery_of_peer(skb: &mut Skb, run: &mut Run, peer: PeerId, ether: &Ether) -> Outcome {
    if !solicits(skb, run, peer, ether)? {
        return run.goes(Forward::Done);
    }
    let want = run.link + Ether::LEN + ADVERTISED;
    // As a rule it is as long: a question has the same option.
    if skb.len() != want {
        skb.fit(want)?;
    }
    back(skb, run, Ether::IPV6)?;
    write(skb, run)?;
    run.goes(Forward::Peer(peer))
}

/// Whether a peer asks for an endpoint here: then it is the run's sender, and the endpoint the receiver.
#[inline(never)]
fn asks_by_arp(skb: &Skb, run: &mut Run, peer: PeerId) -> Result<bool, DropReason> {
    let arp: ArpHdr = skb.get(run.link + Ether::LEN).ok_or(DropReason::Malformed)?;
    if !is_ethernet_ipv4(&arp) {
        return Err(DropReason::Malformed);
    }
    // A probe claims nothing yet; and nobody here has an address of a peer's.
    if arp.spa == [0; 4] {
        return Ok(false);
    }
    run.packet.src = Ip::from_v4(arp.spa);
    run.packet.dst = Ip::from_v4(arp.tpa);
    from_underlay::identify(run, peer, Mac::new(arp.sha))?;
    Ok(arp.oper == REQUEST && is_here(run))
}

/// As [`asks_by_arp`]. What is asked for becomes the packet's destination.
#[inline(never)]
fn solicits(skb: &Skb, run: &mut Run, peer: PeerId, ether: &Ether) -> Result<bool, DropReason> {
    let kind = run.packet.policy_port >> 8;
    match kind {
        ROUTER_SOLICITATION => return Ok(false),
        SOLICITATION | ADVERTISEMENT => {}
        _ => return Err(DropReason::RogueRouter),
    }
    let message = message(skb, run)?;
    if run.packet.src == Ip::NONE {
        return Ok(false);
    }
    if run.packet.src.is_link_local() {
        // As of reports: an address of the link alone, which no prefix has.
        let identity = run.tunnel.identity;
        if !station::is_member(peer, identity.app) {
            return Err(DropReason::IdentityMismatch);
        }
        run.sender = Party { hop: Hop::peer(peer), identity, mac: ether.source() };
    } else {
        from_underlay::identify(run, peer, ether.source())?;
    }
    run.packet.dst = Ip::from_v6(message.target);
    if kind == SOLICITATION {
        return Ok(is_here(run));
    }
    let own = run.packet.dst.is_link_local() || maps::route(run.packet.dst).hop == Hop::peer(peer);
    if own { Ok(false) } else { Err(DropReason::ForgedNeighbor) }
}

/// Whether an endpoint of this host has the packet's destination, and is of the app of the run's sender.
#[inline(always)]
fn is_here(run: &mut Run) -> bool {
    let route = maps::route(run.packet.dst);
    run.receiver = Party::at(&route);
    matches!(route.hop.kind(), HopKind::Local) && route.identity.app == run.sender.identity.app
}

/// Makes the packet one of the run's receiver to its sender, a peer. What is behind its link header is still that of the
/// question.
#[inline(never)]
fn back(skb: &mut Skb, run: &mut Run, ethertype: [u8; 2]) -> Result<(), DropReason> {
    let peer = maps::peer(PeerId(run.sender.hop.index)).ok_or(DropReason::PeerUnreachable)?;
    let inner = Inner {
        ether: Ether { dst: run.sender.mac.bytes(), src: run.receiver.mac.bytes(), ethertype },
        len: skb.len() - run.link,
        tos: 0,
        entropy: run.packet.src.0[3],
        identity: run.receiver.identity,
    };
    encap::back(skb, &mut run.room, peer, &inner)
}

/// Makes the request in the tunnel its own reply.
#[inline(never)]
fn reply(skb: &mut Skb, run: &Run) -> Result<(), DropReason> {
    let arp: ArpHdr = skb.get(run.link + Ether::LEN).ok_or(DropReason::Malformed)?;
    let sha = run.receiver.mac.bytes();
    skb.put(run.link + Ether::LEN, ArpHdr { oper: REPLY, sha, spa: arp.tpa, tha: arp.sha, tpa: arp.spa, ..arp })
}

/// Makes a neighbour solicitation its own answer; other discovery is refused or not needed.
#[cold]
#[inline(never)]
pub fn discovery(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let packet = &run.packet;
    let endpoint = maps::endpoint(skb.link()).ok_or(DropReason::UnknownInterface)?;
    if ether.source() != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    let kind = packet.policy_port >> 8;
    match kind {
        // Nobody answers: a container's routes are given to it when it is attached.
        ROUTER_SOLICITATION => return Ok(()),
        SOLICITATION | ADVERTISEMENT => {}
        _ => return Err(DropReason::RogueRouter),
    }
    let message = message(skb, run)?;
    let target = Ip::from_v6(message.target);
    let own = target == endpoint.v6 || target.is_link_local();
    if kind == ADVERTISEMENT {
        return if own { Ok(()) } else { Err(DropReason::ForgedNeighbor) };
    }
    // An address that is being tested for being free (RFC 4862 §5.4) is asked for by `::`.
    let is_probe = packet.src == Ip::NONE;
    if !(is_probe || packet.src == endpoint.v6 || packet.src.is_link_local()) {
        return Err(DropReason::ForgedNeighbor);
    }
    if own || is_probe {
        return Ok(());
    }
    let Some(mac) = station(&endpoint, target) else { return Ok(()) };
    run.packet.dst = target;
    run.receiver.mac = mac;
    advertise(skb, run, ether)?;
    run.goes(Forward::Out { link: skb.link() })
}

/// The message, when no router has passed it on: a hop limit of 255 says so (RFC 4861 §7.1.1).
#[inline(always)]
fn message(skb: &Skb, run: &Run) -> Result<Discovery, DropReason> {
    let (packet, at) = (&run.packet, run.link + Ether::LEN);
    let ip: Ipv6Hdr = skb.get(at).ok_or(DropReason::Malformed)?;
    let message: Discovery = skb.get(u32::from(packet.l4)).ok_or(DropReason::Malformed)?;
    let is_whole = u32::from(packet.l4) == at + 40 && packet.end >= u32::from(packet.l4) + 24;
    if ip.hop_limit == 255 && is_whole { Ok(message) } else { Err(DropReason::Malformed) }
}

#[inline(always)]
fn is_ethernet_ipv4(arp: &ArpHdr) -> bool {
    arp.htype == [0, 1] && arp.ptype == Ether::IPV4 && arp.hlen == 6 && arp.plen == 4
}

/// The hardware address that a container is told for `target`. Nothing when nobody has it, or when it is
/// the asker's own.
#[inline(always)]
fn station(endpoint: &Endpoint, target: Ip) -> Option<Mac> {
    if endpoint.has(target) {
        return None;
    }
    let route = maps::route(target);
    match route.hop.kind() {
        // Only its own app is on a container's link.
        _ if route.identity.app.is_application() && route.identity.app != endpoint.identity.app => None,
        HopKind::Local | HopKind::Peer if route.mac != Mac::default() => Some(route.mac),
        // The address of a peer's block, or of a gateway: whoever has it, the gateway takes it there.
        HopKind::Local | HopKind::Peer => Some(Mac::GATEWAY),
        HopKind::Host if route.identity.app.0 != weft_common::id::AppId::OUTSIDE.0 => Some(Mac::GATEWAY),
        HopKind::Host | HopKind::Nowhere => None,
    }
}

#[inline(never)]
fn advertise(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Result<(), DropReason> {
    skb.resize(Ether::LEN + ADVERTISED)?;
    skb.put(0, Ether { dst: ether.src, src: run.receiver.mac.bytes(), ethertype: Ether::IPV6 })?;
    write(skb, run)
}

/// Writes the advertisement of the packet's destination, which the run's receiver has, behind the link header.
#[inline(never)]
fn write(skb: &mut Skb, run: &mut Run) -> Result<(), DropReason> {
    let answer = Answer::new(run.packet.dst, run.receiver.mac, run.packet.src);
    skb.put_net_by(run.link + Ether::LEN, &mut run.room, answer)
}

/// Bytes of an advertisement, with its network header.
const ADVERTISED: u32 = size_of::<Answer>() as u32;
