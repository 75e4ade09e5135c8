//! Ends the flows that a change of policy, or the end of a rule, no longer allows, also those on which nothing is being sent.
//!
//! A program decides a flow anew with its next packet, and tells both ends. For a flow that is silent the daemon does the
//! same by the same function: it resets the ends that are on this host. Whether the other end's host comes to the same
//! by itself is not known, for it may not know who an endpoint here is now; so an end here is made to speak first, and the
//! program does the rest.

use std::{collections::BTreeMap, net::SocketAddr};

use weft_common::{
    addr::Mac,
    cut::Segment,
    flow::{Flow, FlowKey, Leg, State},
    header::{Ether, Tcp, as_bytes, protocol},
    id::Epoch,
    policy::{Query, Rules, decide},
    route::{Endpoint, HopKind},
    verdict::DropReason,
};

use crate::model::traffic::protocol_name;

/// A frame for a local endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Index of the host's side of its interface.
    pub(super) link: u32,
    /// The frame.
    pub(super) bytes: Vec<u8>,
}

/// What is to be done about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Stays,
    /// Nothing has passed for so long that nobody will miss its entry.
    Expired,
    /// Policy denies it.
    Revoked {
        /// What state its entry gets, before the frames are sent: programs look at it for what they cause.
        state: State,
        /// What its ends on this host are told, in order.
        frames: Vec<Frame>,
    },
}

/// A flow with its sides as who they are now, as far as they are `endpoints` of this host: its entry knows who they were
/// with the last packet.
pub(super) fn as_of_now(endpoints: &BTreeMap<u32, Endpoint>, key: &FlowKey, mut flow: Flow) -> Flow {
    for (side, addr) in flow.side.iter_mut().zip(key.addr) {
        let here = (side.hop.kind() == HopKind::Local).then(|| endpoints.get(&side.hop.index)).flatten();
        if let Some(endpoint) = here.filter(|endpoint| endpoint.has(addr)) {
            side.identity = endpoint.identity;
        }
    }
    flow
}

/// What makes an end here that is another than its flow knows, as it is `as_of_now`, tell it to the host of the other end:
/// that host knows of it by packets alone, and decides by it what becomes of the flow.
pub(super) fn tell(key: &FlowKey, flow: &Flow, as_of_now: &Flow) -> Option<Frame> {
    let is_open = key.protocol == protocol::TCP && flow.state == State::Open as u8;
    let is_news = |leg: &Leg| flow.side[leg.index()] != as_of_now.side[leg.index()];
    let leg = [Leg::A, Leg::B].into_iter().find(is_news).filter(|_| is_open)?;
    let other = flow.side[leg.other().index()].hop;
    (other.kind() == HopKind::Peer).then(|| frame(key, flow, leg, Tcp::ACK))
}

/// What becomes of a flow under the rules of `epoch`.
pub(super) fn fate<R: Rules>(rules: &R, epoch: Epoch, key: &FlowKey, flow: &Flow, now: u64) -> Fate {
    if flow.is_expired(key.protocol, now) {
        return Fate::Expired;
    }
    // What is on its way out closes by itself, or was revoked before.
    let is_current = flow.epoch == epoch && !flow.is_over(|| rules.now());
    if is_current || flow.state >= State::Closing as u8 {
        return Fate::Stays;
    }
    // What another host's endpoint has come to be may be news to this one: it is waited for.
    if matches!(decide(rules, epoch, &query(key, flow)).verdict, Ok(()) | Err(DropReason::PolicyAbsent)) {
        return Fate::Stays;
    }
    let mut frames = Vec::new();
    let is_here = |leg: Leg| flow.side[leg.index()].hop.kind() == HopKind::Local;
    let ends = [Leg::A, Leg::B].into_iter().filter(|leg| key.protocol == protocol::TCP && is_here(*leg));
    for leg in ends {
        if !is_here(leg.other()) {
            frames.push(frame(key, flow, leg, Tcp::ACK));
        }
        frames.push(frame(key, flow, leg, Tcp::RST | Tcp::ACK));
    }
    let all_here = is_here(Leg::A) && is_here(Leg::B);
    Fate::Revoked { state: if all_here { State::Ended } else { State::Closing }, frames }
}

/// Between whom a flow is, in words: neither end has to be known by a name any more.
pub(super) fn told(key: &FlowKey) -> String {
    let end = |leg: Leg| SocketAddr::new(key.addr[leg.index()].to_std(), key.port[leg.index()]);
    format!("{} between {} and {}", protocol_name(key.protocol), end(Leg::A), end(Leg::B))
}

/// What policy is asked of a flow.
fn query(key: &FlowKey, flow: &Flow) -> Query {
    let (from, to) = (flow.opener(), flow.opener().other());
    let port = key.port[to.index()];
    let is_icmp = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    Query {
        src: flow.side[from.index()].identity,
        dst: flow.side[to.index()].identity,
        src_addr: key.addr[from.index()],
        dst_addr: key.addr[to.index()],
        protocol: key.protocol,
        port: if is_icmp { port << 8 } else { port },
    }
}

/// A segment for a side on this host that seems to be of the other: a reset that it takes, or what it answers.
fn frame(key: &FlowKey, flow: &Flow, to: Leg, flags: u8) -> Frame {
    let (side, other) = (&flow.side[to.index()], &flow.side[to.other().index()]);
    let (to, from) = (to.index(), to.other().index());
    let is_v4 = key.addr[to].is_v4();
    let ethertype = if is_v4 { Ether::IPV4 } else { Ether::IPV6 };
    let ether = Ether { dst: side.mac.bytes(), src: Mac::GATEWAY.bytes(), ethertype };
    let asks = flags & Tcp::RST == 0;
    let segment = Segment {
        src: key.addr[from],
        dst: key.addr[to],
        src_port: key.port[from],
        dst_port: key.port[to],
        seq: other.seq_next.wrapping_sub(asks.into()),
        ack: side.seq_next,
        flags,
    };
    let mut bytes = as_bytes(&ether).to_vec();
    if is_v4 {
        bytes.extend_from_slice(as_bytes(&segment.v4()));
    } else {
        bytes.extend_from_slice(as_bytes(&segment.v6()));
    }
    Frame { link: side.hop.index, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_common::{
        addr::Ip,
        flow::Side,
        id::{AppId, Identity, PeerId, RoleId},
        parse::Ports,
        policy::{PeerKey, PrefixKey, Rule, RuleKey, RuleSet, SetKey},
        route::Hop,
    };

    const NOW: Epoch = Epoch(4);
    const CLIENT: Identity = Identity::new(AppId(100), RoleId(1));
    const SERVER: Identity = Identity::new(AppId(200), RoleId(1));

    /// Whoever has the first role of his app has nothing to do with other apps' second roles.
    struct FirstRolesOnly;

    impl Rules for FirstRolesOnly {
        fn set(&self, key: &SetKey) -> Option<RuleSet> {
            let flags = if key.role == RoleId(1) { RuleSet::OPEN_APPS } else { 0 };
            (key.role <= RoleId(2)).then_some(RuleSet { id: 1, flags, until: 0 })
        }

        fn peer_list(&self, _: &PeerKey) -> Option<u32> {
            None
        }

        fn prefix_list(&self, _: &PrefixKey) -> Option<u32> {
            None
        }

        fn rule(&self, _: &RuleKey) -> Option<Rule> {
            None
        }

        fn now(&self) -> u64 {
            0
        }
    }

    /// A connection between the client here and the server, of the epoch before.
    fn flow(server: Hop, state: State) -> (FlowKey, Flow) {
        let [src, dst] = ["10.1.1.2", "10.2.1.2"].map(|addr| Ip::from(addr.parse::<std::net::IpAddr>().unwrap()));
        let (key, leg) = FlowKey::of(src, dst, protocol::TCP, Ports { src: 40000, dst: 80 });
        let mut flow = Flow { epoch: Epoch(3), opener: leg.raw(), state: state as u8, ..Flow::default() };
        flow.side[leg.index()] = Side { hop: Hop::local(7), identity: CLIENT, seq_next: 100, ..Side::default() };
        flow.side[leg.other().index()] = Side { hop: server, identity: SERVER, seq_next: 900, ..Side::default() };
        (key, flow)
    }

    /// The flow, when its client has another role now.
    fn changed(key: &FlowKey, flow: Flow) -> Flow {
        let v4 = key.addr[usize::from(flow.side[0].identity != CLIENT)];
        let endpoint = |v4| Endpoint { v4, identity: Identity::new(CLIENT.app, RoleId(2)), ..Endpoint::default() };
        // What has come to have the number of an interface is not who is meant.
        let another = BTreeMap::from([(7, endpoint(Ip::from_v4([10, 1, 1, 3])))]);
        assert_eq!(as_of_now(&another, key, flow), flow);
        as_of_now(&BTreeMap::from([(7, endpoint(v4))]), key, flow)
    }

    /// Link, sequence number and control bits.
    fn told(frames: &[Frame]) -> Vec<(u32, u32, u8)> {
        let tcp = |bytes: &[u8]| (u32::from_be_bytes(bytes[38..42].try_into().unwrap()), bytes[47]);
        frames.iter().map(|frame| (frame.link, tcp(&frame.bytes).0, tcp(&frame.bytes).1)).collect()
    }

    #[test]
    fn what_an_endpoint_is_now_decides_and_not_what_it_was() {
        let (key, open) = flow(Hop::local(8), State::Open);
        assert_eq!(fate(&FirstRolesOnly, NOW, &key, &open, 0), Fate::Stays);
        let Fate::Revoked { state, frames } = fate(&FirstRolesOnly, NOW, &key, &changed(&key, open), 0) else {
            panic!("the client may not any more")
        };
        assert_eq!(state, State::Ended);
        let reset = Tcp::RST | Tcp::ACK;
        let mut told = told(&frames);
        told.sort_unstable();
        assert_eq!(told, [(7, 900, reset), (8, 100, reset)]);
    }

    #[test]
    fn who_has_the_other_end_elsewhere_is_made_to_speak_before_he_is_reset() {
        let (key, open) = flow(Hop::peer(PeerId(3)), State::Open);
        let Fate::Revoked { state, frames } = fate(&FirstRolesOnly, NOW, &key, &changed(&key, open), 0) else {
            panic!("the client may not any more")
        };
        // The program that hears him tells the other end once.
        assert_eq!(state, State::Closing);
        assert_eq!(told(&frames), [(7, 899, Tcp::ACK), (7, 900, Tcp::RST | Tcp::ACK)]);
    }

    #[test]
    fn who_is_another_now_tells_it_by_the_flows_that_he_keeps() {
        let elsewhere = Hop::peer(PeerId(3));
        let (key, open) = flow(elsewhere, State::Open);
        let news = tell(&key, &open, &changed(&key, open));
        assert_eq!(told(&Vec::from_iter(news)), [(7, 899, Tcp::ACK)]);
        assert_eq!(tell(&key, &open, &open), None);
        for (server, state) in [(elsewhere, State::Closing), (Hop::local(8), State::Open), (Hop::HOST, State::Open)] {
            let (key, flow) = flow(server, state);
            assert_eq!(tell(&key, &flow, &changed(&key, flow)), None, "{server:?} {state:?}");
        }
    }

    #[test]
    fn who_is_not_known_yet_keeps_his_flows() {
        let (key, mut flow) = flow(Hop::peer(PeerId(3)), State::Open);
        let server = flow.side.iter_mut().find(|side| side.identity == SERVER).unwrap();
        server.identity = Identity::new(SERVER.app, RoleId(3));
        assert_eq!(fate(&FirstRolesOnly, NOW, &key, &flow, 0), Fate::Stays);
    }

    #[test]
    fn what_is_over_is_ended_once() {
        for state in [State::Closing, State::Ended] {
            let (key, flow) = flow(Hop::local(8), state);
            assert_eq!(fate(&FirstRolesOnly, NOW, &key, &changed(&key, flow), 0), Fate::Stays, "{state:?}");
        }
        let (key, open) = flow(Hop::local(8), State::Open);
        let current = Flow { epoch: NOW, ..open };
        assert_eq!(fate(&FirstRolesOnly, NOW, &key, &changed(&key, current), 0), Fate::Stays);
    }
}
