//! Why, asked of the program itself: a packet as the sender would send it, through the program it would meet first.
//!
//! The program's answer and that of the tables have to be the same. A change that takes effect between the two is no
//! contradiction: then both are asked again.

use std::time::{Duration, Instant};

use weft_common::{
    addr::Mac,
    header::{Ether, protocol},
    id::{Identity, PeerId},
    parse::{Kind, parse},
    route::HopKind,
    tunnel::Peer,
    verdict::DropReason,
};

use crate::front::api::{
    dto::why::{Live, Why, WhyAnswer},
    refusal::{Kind as Refused, Refusal},
};
use crate::kernel::{
    attach::{Attached, Attacher, Place},
    config::ConfigCell,
    link,
    load::Program,
    trial::{Ran, Spot, Trial},
};

use super::{
    Service,
    naming::Names,
    probe::{self, Ends},
    why::{Asked, End, decision, is_known, is_policy},
};

/// How long a change may take until both answers are of the same state.
const SETTLED: Duration = Duration::from_secs(5);
/// Between two askings.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of the loopback in every namespace: what comes from outside came in by any interface but the gateway.
const LOOPBACK: u32 = 1;

/// A packet, and the program that it meets.
struct Packet {
    program: Program,
    interface: String,
    place: Place,
    spot: Spot,
    frame: Vec<u8>,
}

impl Service {
    pub(super) async fn live(&self, request: &Why) -> Result<WhyAnswer, Refusal> {
        let config = ConfigCell::open(&self.pins)?;
        let deadline = Instant::now() + SETTLED;
        let mut contradictions = 0;
        loop {
            let before = config.load().epoch;
            let asked = self.ask(request)?;
            let live = self.run(&asked).await?;
            let same_plan = std::sync::Arc::ptr_eq(&asked.plan, &self.plan());
            let is_settled = same_plan && before == config.load().epoch && before.0 == self.board.read().epoch;
            contradictions += u32::from(is_settled && !live.agrees);
            if live.agrees || contradictions == 2 || Instant::now() > deadline {
                return Ok(WhyAnswer { live: Some(live), ..self.answer(request, &asked) });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run(&self, asked: &Asked) -> Result<Live, Refusal> {
        let Packet { program, interface, place, spot, frame } = self.packet(asked)?;
        let (pins, at, sent) = (self.pins.clone(), interface.clone(), frame.len());
        let ran = move || {
            let held = Attacher::new(pins.clone()).list()?.into_iter().find(|held| is_at(held, &at, place));
            let Some(held) = held else {
                let why = format!("no program is attached to {at}: see weft status");
                return Ok(Err(Refusal::new(Refused::Unavailable, why)));
            };
            let trial = Trial::load(&pins, program)?;
            if !trial.is_copy_of(&held.program) {
                let why = format!(
                    "the program at {at} is of another version of weft, which this one can not ask: see weft status"
                );
                return Ok(Err(Refusal::new(Refused::Unavailable, why)));
            }
            trial.run(spot, &frame).map(Ok)
        };
        let ran: anyhow::Result<Result<Ran, Refusal>> =
            tokio::task::spawn_blocking(ran).await.map_err(|error| anyhow::anyhow!("ask the program: {error}"))?;
        Ok(self.told(asked, &ran??, format!("{program} at {interface}"), sent))
    }

    /// The packet that the sender would send, and where it would come in.
    fn packet(&self, Asked { plan, from, to, query, .. }: &Asked) -> Result<Packet, Refusal> {
        let refuse = |why: String| Err(Refusal::new(Refused::Invalid, format!("the program can not be asked: {why}")));
        let snapshot = self.snapshot();
        let names = Names { cluster: &snapshot.cluster, plan };
        let (src, dst) = (query.src_addr, query.dst_addr);
        let first_hop = if to.route.mac == Mac::default() { Mac::GATEWAY } else { to.route.mac };
        let ether = |src: Mac| Ether {
            dst: first_hop.bytes(),
            src: src.bytes(),
            ethertype: if dst.is_v4() { Ether::IPV4 } else { Ether::IPV6 },
        };
        let frame = |ether| probe::frame(&Ends { src, dst, ether }, query.protocol, query.port);
        if dst.is_multicast() || dst.is_broadcast() {
            return refuse(format!("what is sent to {dst} goes to many, and rules do not speak of it"));
        }
        if !opens(&frame(ether(Mac::GATEWAY)), query.protocol, query.port) {
            return refuse("this kind of ICMP passes as a part of what is known, or not at all".to_owned());
        }
        if to.route.identity != to.identity {
            let (to, hop) = (names.identity(to.identity), names.hop(to.route.hop));
            return refuse(format!(
                "no endpoint that is {to} is known here, other hosts' are by address alone: name one, or ask its host ({hop}), too: --host-socket"
            ));
        }
        let elsewhere = |end: &End| names.peer(PeerId(end.route.hop.index));
        Ok(match (from.route.hop.kind(), to.route.hop.kind()) {
            (HopKind::Nowhere, _) => return refuse(format!("nobody has {}", from.addr)),
            (HopKind::Peer, HopKind::Peer) => {
                return refuse(format!("neither end is on this host: ask on {} or {}", elsewhere(from), elsewhere(to)));
            }
            (HopKind::Host, HopKind::Host) => {
                return refuse("between a host and the outside packets do not pass weft".to_owned());
            }
            (HopKind::Local, _) => {
                let link = from.route.hop.index;
                let Some(endpoint) = plan.endpoints.get(&link) else {
                    return refuse(format!("nobody has {}", from.addr));
                };
                Packet {
                    program: Program::FROM_WORKLOAD,
                    interface: name(link),
                    place: Place::Ingress,
                    spot: Spot { link, arrived_on: link },
                    frame: frame(ether(endpoint.mac)),
                }
            }
            (HopKind::Host, _) => {
                let arrived_on = if from.identity == Identity::HOST { 0 } else { LOOPBACK };
                Packet {
                    program: Program::FROM_HOST,
                    interface: link::GATEWAY.to_owned(),
                    place: Place::Egress,
                    spot: Spot { link: plan.config.gateway, arrived_on },
                    frame: frame(ether(Mac::GATEWAY)),
                }
            }
            (HopKind::Peer, _) => {
                let peer: &Peer = match plan.peers.get(&from.route.hop.index) {
                    Some(peer) if is_known(from) => peer,
                    Some(_) => {
                        let (addr, identity) = (from.addr, names.identity(from.identity));
                        return refuse(format!("{addr} is not {identity}"));
                    }
                    None => return refuse(format!("there is no way to {}", elsewhere(from))),
                };
                let ether = ether(Mac::GATEWAY);
                let port = u16::try_from(plan.config.port).unwrap_or_default();
                Packet {
                    program: Program::FROM_UNDERLAY,
                    interface: name(peer.uplink),
                    place: Place::Ingress,
                    spot: Spot { link: peer.uplink, arrived_on: peer.uplink },
                    frame: probe::tunnelled(&frame(ether), ether, from.identity, (peer, port)),
                }
            }
        })
    }

    fn told(&self, asked: &Asked, ran: &Ran, program: String, sent: usize) -> Live {
        const UNSPEC: u32 = u32::MAX;
        const SHOT: u32 = 2;
        const REDIRECT: u32 = 7;

        let snapshot = self.snapshot();
        let names = Names { cluster: &snapshot.cluster, plan: &asked.plan };
        let (found, to, from) = (asked.found, asked.to.route.hop, asked.from.route.hop);
        let verdict = match (ran.code, ran.reason) {
            (_, Some(reason)) => Err(reason),
            (UNSPEC | REDIRECT, None) => Ok(()),
            (_, None) => Err(DropReason::KernelRefused),
        };
        let asks_rules = verdict.is_ok() || is_policy(verdict);
        let same_rule = !asks_rules || ran.rule.is_none_or(|rule| rule == found.rule);
        let agrees = verdict == found.verdict && same_rule;
        let code = match ran.code {
            UNSPEC => "TC_ACT_UNSPEC".to_owned(),
            SHOT => "TC_ACT_SHOT".to_owned(),
            REDIRECT => "TC_ACT_REDIRECT".to_owned(),
            other => format!("code {other}"),
        };
        let mut detail = vec![code];
        if !agrees {
            let rule = ran.rule.map_or("none".to_owned(), |rule| match names.rule(rule) {
                Some(rule) => rule.text,
                None => format!("#{rule}"),
            });
            detail.push(format!("its rule: {rule}"));
        }
        if verdict.is_ok() && to.kind() == HopKind::Peer {
            let wrapped = ran.frame.len().saturating_sub(sent);
            let inner = asked.plan.peers.get(&to.index).map(Peer::inner_mtu).unwrap_or_default();
            detail.push(format!("wrapped in {wrapped} bytes, packets up to {inner} bytes fit"));
        }
        if to.kind() == HopKind::Peer {
            let peer = names.peer(PeerId(to.index));
            detail.push(format!("this is the half of {}: {peer} has the last word", self.host));
        }
        if from.kind() == HopKind::Peer {
            let peer = names.peer(PeerId(from.index));
            detail.push(format!("this is the half of {}: {peer} has decided before", self.host));
        }
        Live {
            decision: decision(verdict),
            reason: verdict.err().map(|reason| reason.name().to_owned()),
            program,
            agrees,
            detail: Some(detail.join("; ")),
        }
    }
}

/// Whether rules are asked about the packet: not about ICMP errors, which belong to what they quote, and not about
/// what is said on one link only.
fn opens(frame: &[u8], number: u8, port: u16) -> bool {
    let Some(ethertype) = frame.get(12..14).and_then(|bytes| bytes.try_into().ok()) else { return false };
    let is_discovery = number == protocol::ICMPV6 && matches!(port >> 8, 130..=137 | 143);
    let reads = match parse(frame, Ether::LEN, ethertype) {
        Ok(packet) => packet.kind != Kind::IcmpError,
        Err(reason) => reason == DropReason::Martian,
    };
    reads && !is_discovery
}

fn is_at(held: &Attached, interface: &str, place: Place) -> bool {
    held.interface == interface && held.place == place && held.index.is_some()
}

fn name(index: u32) -> String {
    link::name_of(index).unwrap_or_else(|| format!("#{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_common::addr::Ip;

    #[test]
    fn errors_and_discovery_open_nothing() {
        let check = |number: u8, port: u16, expect: bool| {
            let text = if number == protocol::ICMPV6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
            let [src, dst] = text.map(|text| Ip::from(text.parse::<std::net::IpAddr>().unwrap()));
            let ethertype = if src.is_v4() { Ether::IPV4 } else { Ether::IPV6 };
            let frame = probe::frame(&Ends { src, dst, ether: Ether { ethertype, ..Ether::default() } }, number, port);
            assert_eq!(opens(&frame, number, port), expect, "{number} {port:#x}");
        };
        check(protocol::TCP, 80, true);
        check(protocol::ICMP, 8 << 8, true);
        check(protocol::ICMPV6, 128 << 8, true);
        check(protocol::ICMP, 3 << 8, false);
        check(protocol::ICMPV6, 2 << 8, false);
        check(protocol::ICMPV6, 135 << 8, false);
    }
}
