//! May this packet pass, and where to? A flow hit at the current epoch answers both; else policy decides
//! and the flow is remembered.

use weft_common::flow::{Flow, Leg, Match, Side, advance};
use weft_common::fragment::{Datagram, DatagramKey};
use weft_common::header::protocol;
use weft_common::id::{AppId, Epoch, RoleId};
use weft_common::parse::{Kind, Packet};
use weft_common::policy::{earlier, judge, shadow};
use weft_common::route::HopKind;
use weft_common::table::Counts;
use weft_common::verdict::DropReason;

use crate::maps::{self, Entry};
use crate::run::{Party, Run};

/// Gives a later fragment the ports that its first one had, and remembers those of a first one. The run's
/// sender is established: nobody writes into the memory of another's datagrams.
#[cold]
#[inline(never)]
pub fn fragment(packet: &mut Packet, now: u64) -> Result<(), DropReason> {
    let key =
        DatagramKey { src: packet.src, dst: packet.dst, id: packet.seq, protocol: packet.protocol, reserved: [0; 3] };
    let known = maps::datagram(&key).filter(|datagram| !datagram.is_over(now));
    let poisoned = Datagram { seen: now, first_end: Datagram::POISONED, src_port: 0, dst_port: 0 };
    let Kind::LaterFragment { offset } = packet.kind else {
        if known.is_some() {
            // A second first fragment could say other ports than those that were decided on.
            maps::remember_datagram(&key, &poisoned);
            return Err(DropReason::FragmentOverlap);
        }
        let ports = packet.key.ports(packet.leg);
        let first_end = packet.end.wrapping_sub(u32::from(packet.l4));
        let first = Datagram { seen: now, first_end, src_port: ports.src, dst_port: ports.dst };
        maps::remember_datagram(&key, &first);
        return Ok(());
    };
    let Some(first) = known else { return Err(DropReason::FragmentUntracked) };
    if !first.admits(offset) {
        maps::remember_datagram(&key, &poisoned);
        return Err(DropReason::FragmentOverlap);
    }
    packet.complete(first.ports());
    Ok(())
}

/// The fast path: whether the packet belongs to a flow that is current, sent by the side that `is_sender`
/// confirms. Then the run knows both ends.
#[inline(always)]
pub fn known(run: &mut Run, epoch: Epoch, len: u32, is_sender: impl Fn(&Side) -> bool) -> bool {
    let packet = &run.packet;
    let Some(entry) = maps::flow(&packet.key) else { return false };
    let flow = entry.get();
    if matches!(packet.kind, Kind::IcmpError)
        || flow.matches(packet, epoch, run.now, maps::since_boot) != Match::Current
    {
        return false;
    }
    let (from, to) = sides(flow, packet.leg);
    if !is_sender(from) {
        return false;
    }
    run.sender = Party::of(from);
    run.receiver = Party::of(to);
    run.rule = flow.rule;
    run.shadow = flow.shadow;
    pass(run, len, 0);
    note(entry, run, len);
    true
}

/// The slow path: decides on a packet whose flow is not known, or not for this epoch. The run's sender is
/// established; its receiver is found.
#[inline(never)]
pub fn admit(run: &mut Run, len: u32) -> Result<(), DropReason> {
    let config = maps::config();
    let epoch = config.epoch;
    if matches!(run.packet.kind, Kind::IcmpError) {
        related(run, epoch)?;
        pass(run, len, 0);
        return Ok(());
    }
    run.receiver = Party::at(&maps::route(run.packet.dst));
    if is_tunnel(run, config.port as u16) {
        return Err(DropReason::HostPort);
    }
    let entry = maps::flow(&run.packet.key);
    let stale = entry.filter(|entry| continues(entry.get(), run, epoch));
    let opener = stale.map_or(run.packet.leg, |entry| entry.get().opener());
    if let Some(entry) = stale {
        recall(entry.get(), run);
    } else {
        // Nobody is taken to the outside for a peer: its own host does that.
        match (run.sender.hop.kind(), run.receiver.hop.kind(), run.receiver.identity.app) {
            (_, HopKind::Nowhere, _) => return Err(DropReason::NoRoute),
            (HopKind::Peer, _, AppId::OUTSIDE) => return Err(DropReason::NoEndpoint),
            _ => {}
        }
    }
    ask(run, opener);
    let ruling = judge(&maps::Compiled, epoch, &run.query);
    run.rule = ruling.rule();
    run.direction = ruling.direction() as u8;
    run.until = ruling.until();
    if config.shadow != 0 {
        tried(run, epoch, ruling.passes());
    }
    if let Err(reason) = ruling.verdict() {
        return Err(match stale {
            Some(entry) if matches!(reason, DropReason::PolicyAbsent) => {
                learn(entry.get(), run);
                reason
            }
            Some(entry) if is_revoked(entry.get(), run, epoch) => DropReason::PolicyRevoked,
            _ => reason,
        });
    }
    let opens = stale.is_none() && run.packet.may_open();
    pass(run, len, u64::from(opens));
    match stale {
        Some(entry) => run.flow = *entry.get(),
        None if opens => run.flow = Flow { created: run.now, ..Flow::default() },
        None => return Ok(()),
    }
    run.sender.place(&mut run.flow.side[run.packet.leg.index()]);
    run.receiver.place(&mut run.flow.side[run.packet.leg.other().index()]);
    run.flow.epoch = epoch;
    run.flow.rule = run.rule;
    run.flow.shadow = run.shadow;
    run.flow.until = run.until;
    run.flow.seen = run.now;
    run.flow.opener = opener.raw();
    maps::remember(&run.packet.key, &run.flow);
    if let Some(entry) = maps::flow(&run.packet.key) {
        note(entry, run, len);
    }
    Ok(())
}

/// Finds out what the rules that are tried would have said otherwise on what the run has asked.
#[inline(always)]
fn tried(run: &mut Run, epoch: Epoch, passes: u64) {
    let (shadow, until) = shadow(&maps::Compiled, epoch, &run.query, passes);
    run.shadow = shadow;
    run.until = earlier(run.until, until);
    run.tells_shadow = if run.shadow == 0 { 0 } else { passes as u32 };
}

/// Whether the packet, sent from where the run's sender is, belongs to a flow that the fast path did not find
/// good for it. An endpoint that has moved keeps its flows, for its address says who has it now; of what is
/// outside nothing does, so it stays where it was.
#[inline(always)]
fn continues(flow: &Flow, run: &Run, epoch: Epoch) -> bool {
    let moved = sides(flow, run.packet.leg).0.hop != run.sender.hop;
    match flow.matches(&run.packet, epoch, run.now, maps::since_boot) {
        Match::Gone => false,
        Match::Current => !moved,
        Match::Stale => !moved || run.sender.identity.app != AppId::OUTSIDE,
    }
}

/// Gives the receiver the role that its packets have told in the flow, where the route knows its app only: else a rule
/// about it would end the flow with the receiver's next packet and not with this one, or never. Of TCP only: there who gets
/// another role tells it at once, by what he acknowledges, and others may have said nothing since.
#[inline(always)]
fn recall(flow: &Flow, run: &mut Run) {
    let known = sides(flow, run.packet.leg).1.identity;
    let is_tcp = run.packet.protocol == protocol::TCP;
    if is_tcp && run.receiver.identity.role == RoleId::UNKNOWN && known.app == run.receiver.identity.app {
        run.receiver.identity = known;
    }
}

/// Remembers in the flow who its sender has come to be, of whom policy says nothing yet. What becomes of the flow is decided
/// when it does, whoever speaks then; until that nothing passes by this entry.
#[inline(always)]
fn learn(flow: &Flow, run: &mut Run) {
    let leg = run.packet.leg;
    if flow.side[leg.index()].identity != run.sender.identity {
        run.flow = *flow;
        run.sender.place(&mut run.flow.side[leg.index()]);
        run.flow.epoch = Epoch::NONE;
        maps::remember(&run.packet.key, &run.flow);
    }
}

/// Whether what is denied belongs to a flow that was allowed and has changed: of another epoch, at its end, or with
/// another role. Who is outside has none: he may only pretend to be the flow's.
#[inline(always)]
fn is_revoked(flow: &Flow, run: &Run, epoch: Epoch) -> bool {
    flow.epoch != epoch || flow.is_over(maps::since_boot) || run.sender.identity.app.is_application()
}

/// Notes in its flow's entry that a packet passes.
#[inline(always)]
fn note(entry: Entry, run: &Run, len: u32) {
    let packet = &run.packet;
    let flow = entry.get();
    let (from, _) = sides(flow, packet.leg);
    let seq_next = if packet.protocol == protocol::TCP && matches!(packet.kind, Kind::Whole | Kind::Reply) {
        advance(from.seq_next, packet.seq, packet.seq_len)
    } else {
        from.seq_next
    };
    entry.note(packet.leg, len, flow.next_state(packet), seq_next, run.now);
}

/// Counts a packet that passes, whether it has a flow or not, and the flow if it opens one: under the rule that the
/// run has found.
#[inline(always)]
fn pass(run: &Run, len: u32, flows: u64) {
    maps::count_traffic(&run.account(), Counts { flows, ..Counts::packet(len, run.now) });
}

/// Whether it goes to or comes from the tunnel's port of whoever is behind this host's stack. Masqueraded, it
/// would come from a peer; a flow that such a port has opened would let it pass as an answer.
#[inline(always)]
fn is_tunnel(run: &Run, port: u16) -> bool {
    let outside = |party: &Party| matches!(party.hop.kind(), HopKind::Host);
    let ports = run.packet.key.port;
    run.packet.protocol == protocol::UDP
        && (ports[0] == port || ports[1] == port)
        && (outside(&run.sender) || outside(&run.receiver))
}

#[inline(always)]
fn sides(flow: &Flow, leg: Leg) -> (&Side, &Side) {
    (&flow.side[leg.index()], &flow.side[leg.other().index()])
}

/// Asks policy about the side that opened the flow reaching the other, whichever of them sent this packet.
#[inline(always)]
fn ask(run: &mut Run, opener: Leg) {
    let (packet, query) = (&run.packet, &mut run.query);
    query.protocol = packet.protocol;
    if opener == packet.leg {
        (query.src, query.dst) = (run.sender.identity, run.receiver.identity);
        (query.src_addr, query.dst_addr) = (packet.src, packet.dst);
        query.port = packet.policy_port;
    } else {
        (query.src, query.dst) = (run.receiver.identity, run.sender.identity);
        (query.src_addr, query.dst_addr) = (packet.dst, packet.src);
        query.port = packet.port_of(packet.key.ports(opener));
    }
}

/// An ICMP error passes when the packet it quotes is of a flow that is allowed now, and it goes to the
/// side that sent the quoted packet. An endpoint speaks of its own flows only; a host or a router on the way
/// may speak of any.
#[inline(always)]
fn related(run: &mut Run, epoch: Epoch) -> Result<(), DropReason> {
    let packet = &run.packet;
    let entry = maps::flow(&packet.key).ok_or(DropReason::IcmpUnrelated)?;
    let flow = entry.get();
    let (quoted, addr) = (&flow.side[packet.leg.index()], packet.key.addr[packet.leg.index()]);
    // A flow of another epoch, or whose time is over, may be revoked; the error is lost, and the next packet decides.
    let others = run.sender.identity.app.is_application() && packet.src != packet.key.addr[packet.leg.other().index()];
    let doubtful = flow.epoch != epoch || flow.is_over(maps::since_boot);
    if others || packet.dst != addr || doubtful || flow.is_expired(packet.key.protocol, run.now) {
        return Err(DropReason::IcmpUnrelated);
    }
    run.rule = flow.rule;
    run.shadow = flow.shadow;
    run.receiver = Party::of(quoted);
    Ok(())
}
