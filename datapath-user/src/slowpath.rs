//! Packets that the tables could not place. The plan may know better: an entry was lost, or is not written yet.
//!
//! Pure: a packet goes in, what is to be done comes out. Nothing is let through that the programs would not: the
//! same `decide` is asked.

use weft_common::{
    addr::{Ip, Mac},
    checksum::Sum,
    header::{Bytes, Ether, as_bytes, protocol},
    id::{Epoch, Identity, PeerId},
    parse::{Kind, Packet, parse},
    policy::{Query, decide},
    route::HopKind,
    tunnel::{Inner, Outer4, Outer6},
};

use crate::plan::NodePlan;

/// What is to be done about a missed packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The tables are not as they should be: look at them now.
    Repair,
    /// Give this frame to the endpoint behind the interface.
    Deliver {
        /// Index of the host's side.
        link: u32,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Send this IP packet, which is a tunnel packet, to a peer.
    Tunnel {
        /// The peer's underlay address.
        to: Ip,
        /// The packet, from its network header on.
        packet: Vec<u8>,
    },
}

/// What is to be done about `frame`, which came from the endpoint behind `link` and found no way. `now` is by the clock
/// of [`weft_common::policy::Rules::now`].
pub fn handle(plan: &NodePlan, now: u64, link: u32, frame: &[u8]) -> Vec<Command> {
    let Some(ether) = Bytes::get::<Ether>(frame, 0) else { return Vec::new() };
    let Ok(packet) = parse(frame, Ether::LEN, ether.ethertype) else { return Vec::new() };
    let Some(endpoint) = plan.endpoints.get(&link) else { return Vec::new() };
    let receiver = plan.route(packet.dst);
    if ether.source() != endpoint.mac || !endpoint.has(packet.src) {
        return Vec::new();
    }
    let query = Query {
        src: endpoint.identity,
        dst: receiver.identity,
        src_addr: packet.src,
        dst_addr: packet.dst,
        protocol: packet.protocol,
        port: packet.policy_port,
    };
    // Any epoch: a plan has one set of rules.
    if packet.kind != Kind::Whole || decide(&plan.policy.at(now), Epoch(0), &query).verdict.is_err() {
        return Vec::new();
    }
    match receiver.hop.kind() {
        HopKind::Local => {
            let ether = Ether { dst: receiver.mac.bytes(), ..ether };
            vec![Command::Repair, Command::Deliver { link: receiver.hop.index, frame: whole(&ether, frame, &packet) }]
        }
        HopKind::Peer => {
            let tunnel = tunnel(plan, PeerId(receiver.hop.index), endpoint.identity, &ether, (frame, &packet));
            [Command::Repair].into_iter().chain(tunnel).collect()
        }
        // The programs were right, or pass it to the host themselves.
        HopKind::Host | HopKind::Nowhere => Vec::new(),
    }
}

fn tunnel(
    plan: &NodePlan,
    to: PeerId,
    identity: Identity,
    ether: &Ether,
    (frame, packet): (&[u8], &Packet),
) -> Option<Command> {
    let inner = whole(&Ether { dst: Mac::GATEWAY.bytes(), ..*ether }, frame, packet);
    into_tunnel(plan, to, identity, &inner, (packet.tos, packet.key.entropy()))
}

/// The frame `inner`, of an endpoint with this identity, on its way to a peer. With DSCP and ECN of its packet, and a
/// number that spreads flows.
pub(crate) fn into_tunnel(
    plan: &NodePlan,
    to: PeerId,
    identity: Identity,
    inner: &[u8],
    (tos, entropy): (u8, u32),
) -> Option<Command> {
    let peer = plan.peers.get(&to.0)?;
    let ether = Bytes::get(inner, 0)?;
    let head = Inner { ether, len: u32::try_from(inner.len()).ok()?, tos, entropy, identity };
    let port = u16::try_from(plan.config.port).ok()?;
    let mut bytes = Vec::with_capacity(inner.len() + 64);
    if peer.addr.is_v4() {
        let outer = Outer4::new(peer, port, &head);
        for part in [as_bytes(&outer.ip), as_bytes(&outer.udp), as_bytes(&outer.vxlan)] {
            bytes.extend_from_slice(part);
        }
    } else {
        let outer = Outer6::new(peer, port, &head);
        for part in [as_bytes(&outer.ip), as_bytes(&outer.udp), as_bytes(&outer.vxlan)] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(inner);
    Some(Command::Tunnel { to: peer.addr, packet: bytes })
}

/// The frame with this link header and a finished transport checksum: the container may have left it to a device
/// that the packet will not pass.
fn whole(ether: &Ether, frame: &[u8], packet: &Packet) -> Vec<u8> {
    let end = usize::try_from(packet.end).unwrap_or(usize::MAX).min(frame.len());
    let mut whole = as_bytes(ether).to_vec();
    whole.extend_from_slice(&frame[size_of::<Ether>()..end]);
    let l4 = usize::from(packet.l4);
    let check = l4
        + match packet.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMPV6 => 2,
            _ => return whole,
        };
    let Some(field) = whole.get(check..check + 2) else { return whole };
    // A UDP sender may have left it out over IPv4.
    if packet.protocol == protocol::UDP && field == [0, 0] {
        return whole;
    }
    whole[check..check + 2].fill(0);
    let length = u32::try_from(whole.len() - l4).unwrap_or_default();
    let sum = Sum::pseudo(&packet.src, &packet.dst, packet.protocol, length).add_bytes(&whole[l4..]).field();
    whole[check..check + 2].copy_from_slice(&sum);
    whole
}
