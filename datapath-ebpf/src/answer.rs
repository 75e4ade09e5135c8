//! Tells a sender that its packet does not pass. The packet is made into its own answer, in place, and
//! goes back the way it came: out of the container's interface, to the host's stack, or into the tunnel
//! to the peer that sent it.

use weft_common::addr::Mac;
use weft_common::answer::{Error4, Error6, Form, Notice, Reset4, Reset6, form};
use weft_common::event::Hook;
use weft_common::header::{Bytes as _, Ether};
use weft_common::id::{Identity, PeerId, RoleId};
use weft_common::tunnel::Inner;
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::{Skb, sum};
use crate::run::Run;
use crate::{encap, maps};

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

/// Makes the packet that is dropped into the answer that is due.
#[inline(always)]
pub fn to(skb: &mut Skb, run: &mut Run) -> Outcome {
    let ether: Ether = skb.get(run.link).ok_or(DropReason::Malformed)?;
    let at = run.link + Ether::LEN;
    let Some(form) = form(&run.packet, run.notice) else { return Ok(()) };
    match (form, ether.ethertype) {
        (Form::Reset, Ether::IPV4) => reset4(skb, run, at),
        (Form::Reset, _) => reset6(skb, run, at),
        (Form::Error, Ether::IPV4) => error4(skb, run, at),
        (Form::Error, _) => error6(skb, run, at),
    }?;
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

#[inline(never)]
fn reset4(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let check = skb.get(u32::from(run.packet.l4) + 16).ok_or(DropReason::Malformed)?;
    skb.fit(at + size_of::<Reset4>() as u32)?;
    skb.put_by(at, &mut run.room, Reset4::new(&run.packet, check))
}

#[inline(never)]
fn reset6(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let check = skb.get(u32::from(run.packet.l4) + 16).ok_or(DropReason::Malformed)?;
    skb.fit(at + size_of::<Reset6>() as u32)?;
    skb.put_by(at, &mut run.room, Reset6::new(&run.packet, check))
}

#[inline(never)]
fn error4(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let quote = at + size_of::<Error4>() as u32;
    let bytes = run.quote.first_chunk_mut::<{ Error4::QUOTE }>().ok_or(DropReason::Malformed)?;
    skb.copy(at, bytes)?;
    let sum = sum(bytes);
    skb.settle(quote + Error4::QUOTE as u32, u32::from(run.packet.l4))?;
    skb.paste(quote, bytes)?;
    skb.put_by(at, &mut run.room, Error4::new(&run.packet, run.notice, run.mtu, sum))
}

#[inline(never)]
fn error6(skb: &mut Skb, run: &mut Run, at: u32) -> Result<(), DropReason> {
    let quote = at + size_of::<Error6>() as u32;
    skb.copy(at, &mut run.quote)?;
    let sum = sum(&run.quote);
    skb.settle(quote + Error6::QUOTE as u32, u32::from(run.packet.l4))?;
    skb.paste(quote, &run.quote)?;
    skb.put_by(at, &mut run.room, Error6::new(&run.packet, run.notice, run.mtu, sum))
}

/// Back to the peer, in the tunnel that the packet came in.
#[inline(always)]
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
