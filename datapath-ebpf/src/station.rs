//! A frame that is neither IP nor ARP: it goes to whoever of its app has the destination's hardware address, here or on
//! a peer, and to nobody else.
//!
//! Where an address is nobody has to be told, and so nothing goes stale: who is here is known, and what nobody here has
//! is copied to the hosts of the app, each of which takes it to its own or drops it. Such copies, and those to
//! everybody, are what a container may send so much of and no more.

use weft_common::addr::Mac;
use weft_common::header::Ether;
use weft_common::id::{AppId, PeerId};
use weft_common::policy::decide_frame;
use weft_common::route::Hop;
use weft_common::tunnel::close_ecn;
use weft_common::verdict::DropReason;

use crate::outcome::{Forward, Outcome};
use crate::packet::Skb;
use crate::replicate::{self, Audience, seek};
use crate::run::{Party, Run};
use crate::{encap, maps};

/// A frame of a container.
#[inline(always)]
pub fn from_endpoint(skb: &mut Skb, run: &mut Run, ether: &Ether) -> Outcome {
    let len = skb.len();
    match leads_to(skb, run, ether)? {
        To::Endpoint => {
            replicate::count(len, run);
            skb.set_for_us();
            run.goes(Forward::Into { link: run.receiver.hop.index })
        }
        To::Peers => {
            replicate::frame(skb, run, Audience::Peers, len);
            run.goes(Forward::Done)
        }
        To::Everybody => {
            replicate::frame(skb, run, Audience::Endpoints, len);
            replicate::frame(skb, run, Audience::Peers, len);
            run.goes(Forward::Done)
        }
    }
}

/// A frame of a peer's endpoint, still in the tunnel.
#[inline(always)]
pub fn from_peer(skb: &mut Skb, run: &mut Run, peer: PeerId, ether: &Ether) -> Outcome {
    let len = skb.len() - run.link;
    let to = comes_from(run, peer, ether)?;
    encap::pop(skb, run.link, ether)?;
    match to {
        To::Endpoint => {
            replicate::count(len, run);
            run.goes(Forward::Out { link: run.receiver.hop.index })
        }
        To::Everybody | To::Peers => {
            replicate::frame(skb, run, Audience::Endpoints, len);
            run.goes(Forward::Done)
        }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy)]
enum To {
    /// To the run's receiver, here.
    Endpoint,
    /// To whichever peer has the address.
    Peers,
    /// To all of the app.
    Everybody,
}

/// Establishes the sender of a container's frame, and finds out where it goes.
#[inline(never)]
fn leads_to(skb: &Skb, run: &mut Run, ether: &Ether) -> Result<To, DropReason> {
    let link = skb.link();
    let endpoint = maps::endpoint(link).ok_or(DropReason::UnknownInterface)?;
    if ether.source() != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    let app = endpoint.identity.app;
    run.sender = Party { hop: Hop::local(link), identity: endpoint.identity, mac: endpoint.mac };
    if ether.is_of_the_link() || ether.destination() == Mac::GATEWAY {
        return Err(DropReason::UnknownStation);
    }
    permit(run, app)?;
    let is_for_many = ether.destination().is_group();
    if !is_for_many {
        let found = seek(app, run.sender.hop, ether);
        if found.link != 0 && found.link != link {
            run.receiver.hop = Hop::local(found.link);
            return Ok(To::Endpoint);
        }
        if found.link == link || found.has_peers == 0 {
            return Err(DropReason::UnknownStation);
        }
    }
    if !maps::may_flood(link, run.now) {
        return Err(DropReason::BroadcastStorm);
    }
    Ok(if is_for_many { To::Everybody } else { To::Peers })
}

/// Establishes the sender of a peer's frame as far as can be, for nothing says who has the source but that it is nobody
/// here; and finds out where the frame goes.
#[inline(never)]
fn comes_from(run: &mut Run, peer: PeerId, ether: &Ether) -> Result<To, DropReason> {
    let (hop, identity) = (Hop::peer(peer), run.tunnel.identity);
    if ether.is_of_the_link() {
        return Err(DropReason::UnknownStation);
    }
    let found = seek(identity.app, hop, ether);
    if found.is_member == 0 {
        return Err(DropReason::IdentityMismatch);
    }
    if found.is_taken != 0 || ether.source() == Mac::GATEWAY || ether.source().is_group() {
        return Err(DropReason::PeerNotOwner);
    }
    run.sender = Party { hop, identity, mac: ether.source() };
    permit(run, identity.app)?;
    // It has no bits for congestion.
    close_ecn(run.tunnel.tos, 0)?;
    if ether.destination().is_group() {
        return Ok(To::Everybody);
    }
    if found.link == 0 {
        return Err(DropReason::UnknownStation);
    }
    run.receiver.hop = Hop::local(found.link);
    Ok(To::Endpoint)
}

/// Whether the endpoints of an app may exchange frames. Then its default has decided: no rule can.
#[inline(always)]
fn permit(run: &mut Run, app: AppId) -> Result<(), DropReason> {
    decide_frame(&maps::Compiled, maps::config().epoch, app)?;
    run.rule = 0;
    Ok(())
}

/// Whether a peer was given a part of an app, and so may have endpoints of it.
#[inline(never)]
pub fn is_member(peer: PeerId, app: AppId) -> bool {
    let nobody = Ether::default();
    seek(app, Hop::peer(peer), &nobody).is_member != 0
}
