//! ARP and neighbour discovery: answered from the tables, so that nothing is flooded and nothing goes stale.
//!
//! An endpoint may speak of its own address only; what claims another's is dropped by name.

use weft_common::addr::{Ip, Mac};
use weft_common::answer::Advertisement6 as Answer;
use weft_common::header::{ArpHdr, Bytes as _, Discovery, Ether, Ipv6Hdr, protocol};
use weft_common::parse::Packet;
use weft_common::route::{Endpoint, HopKind};
use weft_common::verdict::DropReason;

use crate::maps;
use crate::outcome::{Forward, Outcome};
use crate::packet::Skb;
use crate::run::Run;

const ROUTER_SOLICITATION: u16 = 133;
const SOLICITATION: u16 = 135;
const ADVERTISEMENT: u16 = 136;

/// Answers an ARP request of a container (RFC 826).
#[cold]
#[inline(never)]
pub fn arp(skb: &mut Skb, ether: &Ether) -> Outcome {
    const REQUEST: [u8; 2] = [0, 1];
    const REPLY: [u8; 2] = [0, 2];

    let endpoint = maps::endpoint(skb.link()).ok_or(DropReason::UnknownInterface)?;
    let arp: ArpHdr = skb.get(Ether::LEN).ok_or(DropReason::Malformed)?;
    if arp.htype != [0, 1] || arp.ptype != Ether::IPV4 || arp.hlen != 6 || arp.plen != 4 {
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
        return if arp.oper == REPLY && sender == endpoint.v4 {
            Ok(Forward::Done)
        } else {
            Err(DropReason::ForgedNeighbor)
        };
    }
    let Some(mac) = station(&endpoint, target) else { return Ok(Forward::Done) };
    let reply = ArpHdr { oper: REPLY, sha: mac.bytes(), spa: arp.tpa, tha: arp.sha, tpa: arp.spa, ..arp };
    skb.put(0, Ether { dst: arp.sha, src: mac.bytes(), ethertype: Ether::ARP })?;
    skb.put(Ether::LEN, reply)?;
    Ok(Forward::Out { link: skb.link() })
}

/// Whether a packet is neighbour discovery (RFC 4861).
#[inline(always)]
pub fn is_discovery(packet: &Packet) -> bool {
    packet.protocol == protocol::ICMPV6 && matches!(packet.policy_port >> 8, 133..=137)
}

/// Refuses what is said on one link only, and came by another way.
#[inline(always)]
pub fn refuse(packet: &Packet) -> Result<(), DropReason> {
    if !is_discovery(packet) {
        return Ok(());
    }
    let is_claim = matches!(packet.policy_port >> 8, SOLICITATION | ADVERTISEMENT);
    Err(if is_claim { DropReason::ForgedNeighbor } else { DropReason::RogueRouter })
}

/// Answers a neighbour solicitation of a container; other discovery is refused or not needed.
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
        ROUTER_SOLICITATION => return Ok(Forward::Done),
        SOLICITATION | ADVERTISEMENT => {}
        _ => return Err(DropReason::RogueRouter),
    }
    // A hop limit of 255 says that no router has passed it on (RFC 4861 §7.1.1).
    let ip: Ipv6Hdr = skb.get(Ether::LEN).ok_or(DropReason::Malformed)?;
    let message: Discovery = skb.get(u32::from(packet.l4)).ok_or(DropReason::Malformed)?;
    if ip.hop_limit != 255 || u32::from(packet.l4) != Ether::LEN + 40 || packet.end < u32::from(packet.l4) + 24 {
        return Err(DropReason::Malformed);
    }
    let target = Ip::from_v6(message.target);
    let own = target == endpoint.v6 || target.is_link_local();
    if kind == ADVERTISEMENT {
        return if own { Ok(Forward::Done) } else { Err(DropReason::ForgedNeighbor) };
    }
    // An address that is being tested for being free (RFC 4862 §5.4) is asked for by `::`.
    let is_probe = packet.src == Ip::NONE;
    if !(is_probe || packet.src == endpoint.v6 || packet.src.is_link_local()) {
        return Err(DropReason::ForgedNeighbor);
    }
    if own || is_probe {
        return Ok(Forward::Done);
    }
    let Some(mac) = station(&endpoint, target) else { return Ok(Forward::Done) };
    advertise(skb, run, ether, &target, mac)?;
    Ok(Forward::Out { link: skb.link() })
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
fn advertise(skb: &mut Skb, run: &mut Run, ether: &Ether, target: &Ip, mac: Mac) -> Result<(), DropReason> {
    const LEN: u32 = size_of::<Answer>() as u32;

    skb.resize(Ether::LEN + LEN)?;
    skb.put(0, Ether { dst: ether.src, src: mac.bytes(), ethertype: Ether::IPV6 })?;
    skb.put_by(Ether::LEN, &mut run.room, Answer::new(*target, mac, run.packet.src))
}
