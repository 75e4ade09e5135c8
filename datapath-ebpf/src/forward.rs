//! Hands a packet that was admitted on: to a peer, or to this host's stack.

use weft_common::addr::Mac;
use weft_common::header::{Bytes as _, Ether, Tcp, protocol};
use weft_common::id::PeerId;
use weft_common::parse::Packet;
use weft_common::tunnel::Inner;
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::Skb;
use crate::run::Run;
use crate::{encap, maps};

/// To this host's stack. `ether` is the link header that the frame has.
#[inline(always)]
pub fn to_host(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    skb.put(0, Ether { dst: Mac::GATEWAY.bytes(), ..*ether })?;
    run.goes(Forward::Host { link: maps::config().gateway })
}

/// To the peer that has the run's receiver. `ether` is the link header that the frame has.
#[inline(never)]
pub fn to_peer(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let id = PeerId(run.receiver.hop.index);
    let peer = maps::peer(id).ok_or(DropReason::PeerUnreachable)?;
    let mtu = peer.inner_mtu();
    if exceeds(skb, &run.packet, mtu) {
        run.mtu = mtu;
        return Err(DropReason::TooBig);
    }
    if run.packet.tcp_flags & Tcp::SYN != 0 {
        skb.pull();
        clamp(skb, &run.packet, mtu)?;
    }
    let mut inner = Inner {
        ether: *ether,
        len: skb.len(),
        tos: run.packet.tos,
        entropy: run.packet.key.entropy(),
        identity: run.sender.identity,
    };
    if run.receiver.mac != Mac::default() {
        inner.ether.dst = run.receiver.mac.bytes();
    }
    encap::push(skb, &mut run.room, peer, &inner)?;
    run.goes(Forward::Peer(id))
}

/// Whether the packet, or a segment of it, is larger than `mtu`.
#[inline(always)]
fn exceeds(skb: &Skb, packet: &Packet, mtu: u32) -> bool {
    if packet.end - Ether::LEN <= mtu {
        return false;
    }
    let segment = skb.segment_size();
    segment == 0 || headers_len(packet) + segment > mtu
}

/// Bytes of the network and transport headers.
#[inline(always)]
fn headers_len(packet: &Packet) -> u32 {
    let l4 = u32::from(packet.l4);
    if packet.protocol != protocol::TCP {
        return l4 - Ether::LEN + 8;
    }
    let flags = packet.tcp_flags;
    let marks = u32::from(flags & Tcp::SYN != 0) + u32::from(flags & Tcp::FIN != 0);
    let payload = packet.seq_len.wrapping_sub(marks);
    packet.end.wrapping_sub(payload).wrapping_sub(Ether::LEN)
}

/// Lowers the segment size that a SYN announces to what reaches the peer in one piece (RFC 9293 §3.7.1): a net
/// under what too-big messages say, for paths that lose them.
#[cold]
#[inline(never)]
fn clamp(skb: &mut Skb, packet: &Packet, mtu: u32) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const SEGMENT_SIZE: u8 = 2;

    let fits = mtu.saturating_sub(u32::from(packet.l4) - Ether::LEN + Tcp::LEN) as u16;
    let options_end = headers_len(packet) + Ether::LEN;
    let mut at = u32::from(packet.l4) + Tcp::LEN;
    for _ in 0..OPTIONS_MAX {
        if at + 4 > options_end {
            return Ok(());
        }
        let Some([kind, len, high, low]) = skb.get::<[u8; 4]>(at) else { return Ok(()) };
        match kind {
            END => return Ok(()),
            NOTHING => at += 1,
            SEGMENT_SIZE => {
                if u16::from_be_bytes([high, low]) > fits {
                    return skb.replace16(at + 2, u32::from(packet.l4) + 16, [high, low], fits.to_be_bytes());
                }
                return Ok(());
            }
            _ if len < 2 => return Ok(()),
            _ => at += u32::from(len),
        }
    }
    Ok(())
}

/// A TCP header has 40 bytes of options; senders put the segment size among the first.
const OPTIONS_MAX: u32 = 8;
