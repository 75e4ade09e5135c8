//! Puts a packet into the tunnel and takes one out of it.

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
};
use weft_common::checksum::Sum;
use weft_common::header::{Bytes as _, Ether, IPV4_LEN, IPV6_LEN, Ipv4Hdr, Ipv6Hdr};
use weft_common::tunnel::{Inner, Outer4, Outer6, Peer, overhead};
use weft_common::verdict::DropReason;

use crate::maps;
use crate::packet::{Room, Skb};

/// Puts the frame into the tunnel to `peer`. Its link header becomes `inner.ether`.
#[inline(always)]
pub fn push(skb: &mut Skb, room: &mut Room, peer: &Peer, inner: &Inner) -> Result<(), DropReason> {
    if peer.addr.is_v4() {
        skb.grow(overhead(true), ENCAP | u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))?;
    } else {
        skb.grow(overhead(false), ENCAP | u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))?;
    }
    head(skb, room, peer, inner)
}

/// Writes the headers of the tunnel to `peer`, up to the inner link header, into room that is there.
#[inline(never)]
pub fn head(skb: &mut Skb, room: &mut Room, peer: &Peer, inner: &Inner) -> Result<(), DropReason> {
    let port = maps::config().port as u16;
    if peer.addr.is_v4() {
        skb.put_by(0, room, Outer4::new(peer, port, inner))
    } else {
        skb.put_by(0, room, Outer6::new(peer, port, inner))
    }
}

/// Sends the packet back in the tunnel that it came in, as a packet of this host to the peer. A checksum of the old
/// headers that was left to a device goes with them: the new ones have none.
#[inline(always)]
pub fn back(skb: &mut Skb, room: &mut Room, peer: &Peer, inner: &Inner) -> Result<(), DropReason> {
    let outer = if peer.addr.is_v4() { overhead(true) } else { overhead(false) } - Ether::LEN;
    skb.shrink(outer, 0)?;
    skb.grow(outer, 0)?;
    head(skb, room, peer, inner)
}

/// Takes the frame out of the tunnel, whose inner link header starts at `inner` and becomes `ether`.
/// Says whether the kernel still knows what protocol it is: without that it has to be received anew.
#[inline(never)]
pub fn pop(skb: &mut Skb, inner: u32, ether: &Ether) -> Result<bool, DropReason> {
    let outer_v4 = inner < overhead(false);
    let inner_v4 = ether.ethertype == Ether::IPV4;
    let typed = if outer_v4 == inner_v4 && (inner_v4 || ether.ethertype == Ether::IPV6) {
        skb.shrink(inner, 0)?;
        true
    } else {
        // Kernels before 6.3 refuse the flags, and have no other way to change the packet's protocol.
        let flag = if inner_v4 { BPF_F_ADJ_ROOM_DECAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_DECAP_L3_IPV6 };
        let is_ip = inner_v4 || ether.ethertype == Ether::IPV6;
        if is_ip && skb.shrink(inner, flag.into()).is_ok() {
            true
        } else {
            // Nor do they let it become shorter than the header that they take it to have.
            let least = inner + Ether::LEN + if outer_v4 { IPV4_LEN } else { IPV6_LEN };
            let len = skb.len();
            if len >= least {
                skb.shrink(inner, 0)?;
            } else {
                skb.resize(least)?;
                skb.shrink(inner, 0)?;
                // What is not IP may be padded, as on any wire.
                if is_ip {
                    skb.resize(len - inner)?;
                }
            }
            false
        }
    };
    skb.put(0, *ether)?;
    Ok(typed)
}

/// Changes the DSCP and ECN of a packet that was taken out of the tunnel.
#[cold]
#[inline(never)]
pub fn mark(skb: &mut Skb, ethertype: [u8; 2], tos: u8) -> Result<(), DropReason> {
    if ethertype == Ether::IPV4 {
        let mut ip: Ipv4Hdr = skb.get(Ether::LEN).ok_or(DropReason::Malformed)?;
        let sum = Sum::from_field(ip.check).remove([ip.vihl, ip.tos]).add([ip.vihl, tos]);
        ip.tos = tos;
        ip.check = sum.field();
        skb.put(Ether::LEN, ip)
    } else {
        let mut ip: Ipv6Hdr = skb.get(Ether::LEN).ok_or(DropReason::Malformed)?;
        ip.vcf[0] = 0x60 | (tos >> 4);
        ip.vcf[1] = (ip.vcf[1] & 0x0f) | (tos << 4);
        skb.put(Ether::LEN, ip)
    }
}

/// The room holds a UDP header and an inner Ethernet header: segmentation and checksum offloads of the
/// packet, and of the device it leaves by, stay in use.
const ENCAP: u64 =
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64 | ((Ether::LEN as u64) << 56);
