//! Tells a sender that its packet does not pass. The packet is made into its own answer, in place, and
//! goes back the way it came: out of the container's interface, to the host's stack, or into the tunnel
//! to the peer that sent it. Of a connection that policy ends the other end is told as well.

use weft_common::addr::Mac;
use weft_common::answer::{self, Error4, Error6, Form, Notice, Reset4, Reset6, form, is_left_to_device};
use weft_common::event::Hook;
use weft_common::flow::State;
use weft_common::header::{Bytes as _, Ether, IPV6_LEN, protocol};
use weft_common::id::{Identity, PeerId, RoleId};
use weft_common::parse::Kind;
use weft_common::route::HopKind;
use weft_common::tunnel::Inner;
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::{Skb, sum};
use crate::run::Run;
use crate::{encap, forward, maps};

/// Whether a sender is told of the run's drop, and of what.
#[inline(always)]
pub fn is_due(run: &mut Run) -> bool {
    const PROHIBITED: [u32; 2] = [DropReason::PolicyRejected as u32, DropReason::PolicyRevoked as u32];
    const UNREACHABLE: [u32; 2] = [DropReason::NoRoute as u32, DropReason::NoEndpoint as u32];

    let reason = run.reason;
    run.notice = if reason == PROHIBITED[0] || reason == PROHIBITED[1] {
        Notice::Prohibited
    } else if reason == UNREACHABLE[0] || reason == UNREACHABLE[1] {
        Notice::Unreachable
    } else if reason == DropReason::TooBig as u32 {
        Notice::TooBig
    } else {
        return false;
    };
    true
}

/// Tells the run's drop to whom it concerns: the sender, by an answer in the packet's place, and of a connection that
/// policy ends the receiver too, by a reset. One that only listens would never hear of it, for nothing is sent to it any
/// more. Of two, who is not on a peer gets a copy.
#[inline(always)]
pub fn to(skb: &mut Skb, run: &mut Run) -> Outcome {
    let ether: Ether = skb.get(run.link).ok_or(DropReason::Malformed)?;
    if run.packet.protocol == protocol::TCP {
        let check = skb.get(u32::from(run.packet.l4) + 16).ok_or(DropReason::Malformed)?;
        run.ending.is_unfinished = is_left_to_device(&run.packet, check);
    }
    let receiver = if ends(run) { run.receiver.hop.kind() } else { HopKind::Nowhere };
    if matches!(receiver, HopKind::Local | HopKind::Host) {
        onward(skb, run, &ether)?;
        if matches!(receiver, HopKind::Local) {
            skb.copy_to(run.receiver.hop.index)?;
        } else {
            skb.copy_from(maps::config().gateway)?;
        }
        if run.link > 0 {
            // The tunnel's headers are written again.
            skb.grow(run.link, 0)?;
        }
    }
    if let Some(form) = form(&run.packet, run.notice) {
        let at = run.link + Ether::LEN;
        match (form, ether.ethertype) {
            (Form::Reset, _) => {
                run.ending.back(&run.packet);
                reset(skb, run, &ether, at)
            }
            (Form::Error, Ether::IPV4) => error4(skb, run, at),
            (Form::Error, _) => error6(skb, run, at),
        }?;
        back(skb, run, &ether)?;
    }
    if matches!(receiver, HopKind::Peer) {
        match run.forward {
            Forward::Out { link } => skb.copy_to(link)?,
            Forward::Host { link } => skb.copy_from(link)?,
            _ => {}
        }
        return to_peer(skb, run, &ether);
    }
    Ok(())
}

/// Whether the packet is the first that tells of the end of its connection. Only that is told onward: who is denied may
/// not speak by resets.
#[inline(always)]
fn ends(run: &mut Run) -> bool {
    let is_whole = matches!(run.packet.kind, Kind::Whole | Kind::Reply);
    if run.reason != DropReason::PolicyRevoked as u32 || run.packet.protocol != protocol::TCP || !is_whole {
        return false;
    }
    let Some(entry) = maps::flow(&run.packet.key) else { return false };
    let flow = entry.get();
    if flow.state == State::Ended as u8 {
        return false;
    }
    run.ending.onward(&run.packet, flow);
    entry.end();
    true
}

/// Makes the packet into a reset for its receiver here, out of the tunnel if it was in one.
#[inline(never)]
fn onward(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Result<(), DropReason> {
    reset(skb, run, ether, run.link + Ether::LEN)?;
    if run.link > 0 {
        skb.shrink(run.link, 0)?;
    }
    let is_local = matches!(run.receiver.hop.kind(), HopKind::Local);
    let dst = if is_local { run.receiver.mac } else { Mac::GATEWAY };
    skb.put(0, Ether { dst: dst.bytes(), ..*ether })
}

/// Makes the packet into a reset for its receiver on a peer. It is told who the sender was when the connection was allowed:
/// of what he is now the peer may know nothing yet, and would not let it pass.
#[inline(never)]
fn to_peer(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let Some(entry) = maps::flow(&run.packet.key) else { return Ok(()) };
    let flow = entry.get();
    run.ending.onward(&run.packet, flow);
    run.sender.identity = flow.side[run.packet.leg.index()].identity;
    reset(skb, run, ether, Ether::LEN)?;
    forward::to_peer(skb, run, ether)
}

/// Sends the answer where the packet came from. `ether` is the link header that it had.
#[inline(never)]
fn back(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let src = if ether.destination().is_group() { Mac::GATEWAY.bytes() } else { ether.dst };
    let ether = Ether { dst: ether.src, src, ethertype: ether.ethertype };
    match run.hook {
        Hook::FromUnderlay => into_tunnel(skb, run, &ether),
        Hook::FromHost => {
            skb.put(0, Ether { dst: Mac::GATEWAY.bytes(), ..ether })?;
            run.goes(Forward::Host { link: skb.link() })
        }
        Hook::FromWorkload | Hook::ToHost | Hook::Guard => {
            skb.put(0, ether)?;
            run.goes(Forward::Out { link: skb.link() })
        }
    }
}

#[inline(always)]
fn reset(skb: &mut Skb, run: &mut Run, ether: &Ether, at: u32) -> Result<(), DropReason> {
    if ether.ethertype == Ether::IPV4 { reset4(skb, run, at) } else { reset6(skb, run, at) }
}

#[inline(never)]
fn reset4(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    skb.fit(at + size_of::<Reset4>() as u32)?;
    skb.put_net_by(at, &mut run.room, Reset4::new(&run.packet, &run.ending))
}

#[inline(never)]
fn reset6(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    skb.fit(at + size_of::<Reset6>() as u32)?;
    // In parts: put together first it takes a large part of the stack.
    let (src, dst) = run.ending.ends(&run.packet);
    skb.put(at, Reset6::START)?;
    skb.paste_addr(at + 8, src)?;
    skb.paste_addr(at + 24, dst)?;
    skb.put_net_by(at + IPV6_LEN, &mut run.room, answer::reset(&run.packet, &run.ending))
}

#[inline(never)]
fn error4(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let quote = at + size_of::<Error4>() as u32;
    let bytes = run.quote.first_chunk_mut::<{ Error4::QUOTE }>().ok_or(DropReason::Malformed)?;
    skb.copy(at, bytes)?;
    let sum = sum(bytes);
    skb.settle(quote + Error4::QUOTE as u32, u32::from(run.packet.l4))?;
    skb.paste(quote, bytes)?;
    skb.put_net_by(at, &mut run.room, Error4::new(&run.packet, run.notice, run.mtu, sum))
}

#[inline(never)]
fn error6(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let quote = at + size_of::<Error6>() as u32;
    skb.copy(at, &mut run.quote)?;
    let sum = sum(&run.quote);
    skb.settle(quote + Error6::QUOTE as u32, u32::from(run.packet.l4))?;
    skb.paste(quote, &run.quote)?;
    skb.put_net_by(at, &mut run.room, Error6::new(&run.packet, run.notice, run.mtu, sum))
}

/// Back to the peer, in the tunnel that the packet came in.
#[inline(never)]
fn into_tunnel(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let id = PeerId(run.sender.hop.index);
    let peer = maps::peer(id).ok_or(DropReason::PeerUnreachable)?;
    // The peer let the packet pass because it does not know the receiver's role. If the answer told it, it would refuse
    // the answer by the rule that this is about, and the sender would never hear of it.
    let (packet, identity) = (&run.packet, Identity::new(run.receiver.identity.app, RoleId::UNKNOWN));
    let len = skb.len() - run.link;
    let inner = Inner { ether: *ether, len, tos: 0, entropy: packet.key.entropy(), identity };
    encap::head(skb, &mut run.room, peer, &inner)?;
    run.goes(Forward::Peer(id))
}
