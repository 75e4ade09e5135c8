//! A packet from a container: it is the endpoint's own, policy lets it out, and it goes where its
//! destination is.

use weft_common::event::Hook;
use weft_common::flow::Side;
use weft_common::header::{Bytes as _, Ether, protocol};
use weft_common::parse::Packet;
use weft_common::route::{Hop, HopKind};
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::{Skb, parse};
use crate::run::{Party, Run};
use crate::{admit, forward, maps, neighbor, replicate, report, station};

/// The program.
#[inline(always)]
pub fn run(skb: &mut Skb, run: &mut Run) -> Outcome {
    skb.reveal();
    let ether: Ether = skb.get(0).ok_or(DropReason::Malformed)?;
    if skb.is_tagged() {
        return Err(DropReason::UnknownStation);
    }
    match ether.ethertype {
        Ether::IPV4 | Ether::IPV6 => ip(skb, run, ether),
        Ether::ARP => neighbor::arp(skb, run, &ether),
        _ => station::from_endpoint(skb, run, &ether),
    }
}

#[inline(always)]
fn ip(skb: &mut Skb, run: &mut Run, ether: Ether) -> Outcome {
    parse(&mut run.packet, skb, Ether::LEN, ether.ethertype)?;
    if neighbor::is_discovery(&run.packet) {
        return neighbor::discovery(skb, run, &ether);
    }
    let (link, len) = (skb.link(), skb.len());
    if replicate::is_for_many(&ether, &run.packet) {
        identify(run, link, &ether)?;
        replicate::from_endpoint(skb, run)?;
        return run.goes(Forward::Done);
    }
    if run.packet.is_fragment() {
        identify(run, link, &ether)?;
        admit::fragment(&mut run.packet, run.now)?;
    }
    let own = |side: &Side| side.hop == Hop::local(link) && side.mac == ether.source();
    if !admit::known(run, maps::config().epoch, len, own) {
        identify(run, link, &ether)?;
        if let Err(reason) = admit::admit(run, len) {
            if matches!(reason, DropReason::NoRoute) {
                report::missed(skb, Hook::FromWorkload);
            }
            return Err(reason);
        }
    }
    match run.receiver.hop.kind() {
        HopKind::Local => {
            skb.put(0, Ether { dst: run.receiver.mac.bytes(), ..ether })?;
            skb.set_for_us();
            run.goes(Forward::Into { link: run.receiver.hop.index })
        }
        HopKind::Peer => forward::to_peer(skb, run, &ether),
        HopKind::Host => forward::to_host(skb, run, &ether),
        HopKind::Nowhere => Err(DropReason::NoRoute),
    }
}

/// Establishes the sender: the packet is of the endpoint behind the interface by hardware address and
/// address, and not one that only a network's own servers send.
#[inline(never)]
fn identify(run: &mut Run, link: u32, ether: &Ether) -> Result<(), DropReason> {
    let endpoint = maps::endpoint(link).ok_or(DropReason::UnknownInterface)?;
    if ether.source() != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    if !(endpoint.has(run.packet.src) || replicate::may_report(&run.packet)) {
        return Err(DropReason::SpoofedAddress);
    }
    if is_of_a_server(&run.packet) {
        return Err(DropReason::RogueRouter);
    }
    run.sender = Party { hop: Hop::local(link), identity: endpoint.identity, mac: endpoint.mac };
    Ok(())
}

/// A DHCP server's answer, of either family (RFC 2131, RFC 8415), or an IPv4 router's advertisement (RFC 1256).
#[inline(always)]
fn is_of_a_server(packet: &Packet) -> bool {
    const ROUTER_ADVERTISEMENT: u16 = 9;

    let ports = packet.key.ports(packet.leg);
    match packet.protocol {
        protocol::UDP => matches!((ports.src, ports.dst), (67, 68) | (547, 546)),
        protocol::ICMP => packet.policy_port >> 8 == ROUTER_ADVERTISEMENT,
        _ => false,
    }
}
