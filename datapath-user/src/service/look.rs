//! What passes and what does not: flows, traffic, drops, peers, status.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use anyhow::Result;
use weft_common::{
    addr::Ip,
    event::{Hook, Kind},
    flow::{Flow, FlowKey, State as FlowState},
    header::{Tcp, protocol},
    policy::{Action, Direction, Query},
    table,
    verdict::DropReason,
};

use crate::front::api::{
    dto::{
        drops::{DropCount, DropList, Dropped},
        flows::{self, FlowList, ListFlows},
        side::{Source, State, Volume},
        state::{Degraded, Gateway, HookKind, Peer, PeerList, Problem, Reconcile, Repaired, Status, Table, Tally},
    },
    refusal::Refusal,
};
use crate::kernel::{
    attach::tcx_is_available,
    config, link,
    tables::{Keyed as _, Map, PerCpu},
};
use crate::model::{name::HostName, traffic::protocol_name};
use crate::observe::Seen;
use crate::plan::{NodePlan, matching::Finder};
use crate::status::EndpointState;
use crate::store::Snapshot;

use super::{
    Service,
    naming::Names,
    why::{Named, is_policy, would},
};

/// How many flows are listed unless more are asked for.
const FLOWS: usize = 1000;

impl Service {
    pub(super) fn flows(&self, request: &ListFlows) -> Result<FlowList> {
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let names = Names { cluster: &snapshot.cluster, plan: &plan };
        let (now, epoch) = (config::now(), self.board.read().epoch);
        let entries = Map::<table::Flows>::open(&self.pins)?.entries()?;
        let wanted = entries
            .iter()
            .filter(|(key, flow)| !flow.is_expired(key.protocol, now) && fits(request, &names, key, flow));
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(_, flow)| std::cmp::Reverse(flow.side[0].bytes + flow.side[1].bytes));
        let limit = request.limit.map_or(FLOWS, |limit| usize::try_from(limit).unwrap_or(FLOWS));
        let shown = wanted.iter().take(limit).map(|(key, flow)| {
            let (from, to) = (flow.opener(), flow.opener().other());
            let side = |leg: weft_common::flow::Leg| {
                let at = leg.index();
                names.side(flow.side[at].identity, Some(key.addr[at]), has_ports(key.protocol).then_some(key.port[at]))
            };
            let volume = |leg: weft_common::flow::Leg| {
                let side = &flow.side[leg.index()];
                Volume { packets: side.packets, bytes: side.bytes }
            };
            flows::Flow {
                protocol: protocol_name(key.protocol),
                opener: side(from),
                other: side(to),
                state: FlowState::from_raw(flow.state).name().to_owned(),
                rule: names.rule(flow.rule),
                sent: volume(from),
                received: volume(to),
                age_ms: now.saturating_sub(flow.created) / 1_000_000,
                idle_ms: now.saturating_sub(flow.seen) / 1_000_000,
                stale: flow.epoch.0 != epoch || flow.is_over(config::since_boot),
            }
        });
        Ok(FlowList { flows: shown.collect(), total: wanted.len() as u64 })
    }

    pub(super) fn drops(&self) -> Result<DropList> {
        let totals = PerCpu::<table::Drops>::open(&self.pins)?.totals(|a, b| a + b)?;
        let counters = totals.into_iter().filter(|(_, packets)| *packets > 0).filter_map(|(reason, packets)| {
            let reason = DropReason::from_index(usize::try_from(reason).ok()?)?;
            Some(DropCount { reason: reason.name().to_owned(), packets, explain: reason.explain().trim().to_owned() })
        });
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let mut teller = Teller::new(&self.host, &snapshot, &plan, self.revision());
        let recent = self.observer.recent().iter().map(|seen| teller.dropped(seen)).collect();
        Ok(DropList { counters: counters.collect(), recent })
    }

    /// Tells drops one by one, each by what is in force then, in a task of its own.
    pub(super) fn follower(&self) -> impl Fn(&Seen) -> Dropped + Send + use<> {
        let (host, snapshots, plans) = (self.host.clone(), self.snapshots.clone(), self.plan.clone());
        let board = self.board.clone();
        move |seen| {
            // Taken out, so that nobody who writes waits while rules are looked at.
            let (snapshot, plan) = (Arc::clone(&snapshots.borrow()), Arc::clone(&plans.borrow()));
            Teller::new(&host, &snapshot, &plan, board.read().in_force()).dropped(seen)
        }
    }

    pub(super) fn peers(&self) -> PeerList {
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let others = snapshot.cluster.hosts.values().filter(|host| host.name != self.host);
        let peers = others.map(|host| {
            let record = plan.ids.peer(&host.name).and_then(|id| plan.peers.get(&id.0));
            let address = |ip: Ip| (ip != Ip::NONE).then(|| ip.to_std().to_string());
            let waiting = || State::Waiting(format!("there is no route to {}", list(&host.addresses)));
            Peer {
                name: host.name.to_string(),
                underlay: record.and_then(|peer| address(peer.addr)).or_else(|| Some(list(&host.addresses))),
                uplink: record.map(|peer| link::name_of(peer.uplink).unwrap_or_else(|| format!("#{}", peer.uplink))),
                next_hop: record.and_then(|peer| address(peer.next_hop)),
                path_mtu: record.map(|peer| peer.path_mtu),
                inner_mtu: record.map(weft_common::tunnel::Peer::inner_mtu),
                prefixes: host.blocks.values().flatten().map(ToString::to_string).collect(),
                state: if record.is_some() { State::Ready } else { waiting() },
            }
        });
        PeerList { host: self.host.to_string(), peers: peers.collect() }
    }

    pub(super) fn status_now(&self) -> Result<Status, Refusal> {
        let (snapshot, plan, board) = (self.snapshot(), self.plan(), self.board.read());
        let problem = snapshot.problem.as_ref().map(|problem| Problem {
            what: problem.text.clone(),
            source: Some(Source {
                file: problem.file.to_string(),
                line: problem.position.map(|at| at.line),
                column: problem.position.map(|at| at.column),
            }),
        });
        let failures = board.failures.iter().map(|why| Degraded { what: "reconcile".to_owned(), why: why.clone() });
        let refused = board.refused.iter().map(|what| Degraded {
            what: format!("program {what}"),
            why: "the kernel refused it; what was attached before goes on".to_owned(),
        });
        let unnumbered = plan
            .unnumbered
            .iter()
            .map(|host| Degraded { what: format!("peer {host}"), why: "there is no number left for it".to_owned() });
        let unwritten = snapshot.unwritten.as_ref().map(|why| Degraded {
            what: "state".to_owned(),
            why: format!("{why}; make room where weftd keeps its state: it is tried again"),
        });
        let gateway = plan.links.gateway.as_ref();
        Ok(Status {
            host: self.host.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned()),
            started: self.started.into(),
            revision: snapshot.revision.0,
            in_force: board.in_force(),
            epoch: board.epoch,
            digest: self.digest_in_force(),
            problem,
            degraded: failures.chain(refused).chain(unnumbered).chain(unwritten).collect(),
            hook_kind: if tcx_is_available() { HookKind::Tcx } else { HookKind::Clsact },
            encapsulation: "vxlan by adjust_room".to_owned(),
            port: snapshot.cluster.settings.port,
            gateway: Gateway {
                device: link::GATEWAY.to_owned(),
                addresses: gateway.into_iter().flat_map(|gateway| &gateway.addresses).map(IpAddr::to_string).collect(),
                state: match gateway {
                    Some(_) => State::Ready,
                    None => State::Failed(format!("host {} is not in the cluster", self.host)),
                },
            },
            masquerade: State::Ready,
            tables: self.fills()?,
            repaired: board
                .repaired
                .iter()
                .map(|(what, times)| Repaired { what: (*what).to_owned(), times: *times })
                .collect(),
            revoked: board.revoked,
            reconcile: board.when.map(|when| Reconcile {
                at: when.into(),
                took_ms: u64::try_from(board.took.as_millis()).unwrap_or(u64::MAX),
                passes: board.passes,
            }),
            endpoints: tally(board.endpoints.values()),
            peers: peer_tally(&self.peers()),
        })
    }

    pub(super) fn fills(&self) -> Result<Vec<Table>> {
        let (plan, board) = (self.plan(), self.board.read());
        // What the plan has is in the tables, or on its way there; only what the programs fill is counted.
        let mut tables: Vec<Table> = plan
            .sizes(&plan)
            .into_iter()
            .map(|size| Table {
                name: size.table.to_owned(),
                used: size.needed as u64,
                max: size.max as u64,
                refused: board.without_room.get(size.table).copied().unwrap_or_default(),
            })
            .collect();
        let flows = Map::<table::Flows>::open(&self.pins)?.entries()?.len();
        tables.push(fill::<table::Flows>(flows));
        let accounts = PerCpu::<table::Traffic>::open(&self.pins)?.entries()?.len();
        let uncounted = PerCpu::<table::Uncounted>::open(&self.pins)?.totals(table::Counts::plus)?;
        let refused = uncounted.values().map(|counts| counts.packets + counts.drops).sum();
        tables.push(Table { refused, ..fill::<table::Traffic>(accounts) });
        Ok(tables)
    }
}

fn fill<T: table::Table>(used: usize) -> Table {
    Table { name: T::NAME.to_owned(), used: used as u64, max: u64::from(T::MAX), refused: 0 }
}

fn fits(request: &ListFlows, names: &Names<'_>, key: &FlowKey, flow: &Flow) -> bool {
    let ListFlows { app, endpoint, address, port, protocol, limit: _ } = request;
    let holds = |name: &crate::model::name::EndpointName| {
        key.addr.iter().any(|ip| names.cluster.holder(ip.to_std()).is_some_and(|holder| holder.key.name == *name))
    };
    let in_app = |name: &crate::model::name::AppName| {
        let number = names.cluster.apps.get(name).map(|app| app.number);
        flow.side.iter().any(|side| Some(side.identity.app) == number)
    };
    app.as_ref().is_none_or(in_app)
        && endpoint.as_ref().is_none_or(holds)
        && address.is_none_or(|addr| key.addr.contains(&Ip::from(addr)))
        && port.is_none_or(|port| key.port.contains(&port))
        && protocol.is_none_or(|protocol| key.protocol == protocol.0)
}

pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP)
}

fn flag_names(flags: u8) -> String {
    let named = [(Tcp::SYN, "SYN"), (Tcp::ACK, "ACK"), (Tcp::FIN, "FIN"), (Tcp::RST, "RST")];
    let set: Vec<_> = named.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(",") }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn tally<'a>(states: impl Iterator<Item = &'a EndpointState>) -> Tally {
    let mut tally = Tally::default();
    for state in states {
        match state {
            EndpointState::Ready => tally.ready += 1,
            EndpointState::Failed(_) => tally.failed += 1,
        }
    }
    tally
}

fn peer_tally(peers: &PeerList) -> Tally {
    let mut tally = Tally::default();
    for peer in &peers.peers {
        match peer.state {
            State::Ready => tally.ready += 1,
            State::Waiting(_) => tally.waiting += 1,
            State::Failed(_) => tally.failed += 1,
        }
    }
    tally
}

/// Tells of drops by one state of the cluster.
struct Teller<'a> {
    host: &'a HostName,
    names: Names<'a>,
    revision: Option<u64>,
    finder: Finder<'a>,
}

impl<'a> Teller<'a> {
    fn new(host: &'a HostName, snapshot: &'a Snapshot, plan: &'a NodePlan, revision: Option<u64>) -> Self {
        let cluster = &snapshot.cluster;
        Self { host, names: Names { cluster, plan }, revision, finder: Finder::new(cluster, SystemTime::now()) }
    }

    fn dropped(&mut self, seen: &Seen) -> Dropped {
        let Self { host, names, revision, finder } = self;
        let drop = &seen.drop;
        let reason = DropReason::from_index(usize::try_from(drop.reason).unwrap_or(usize::MAX));
        let passed = drop.kind == Kind::Shadow as u32;
        let reason = reason.filter(|_| !passed);
        let by_policy = passed || is_policy(reason.map_or(Ok(()), Err));
        let direction = if drop.direction == Direction::Ingress as u8 { Direction::Ingress } else { Direction::Egress };
        let has_ports = has_ports(drop.protocol);
        let port = |port: u16| has_ports.then_some(port);
        let protocol = match drop.protocol {
            // What was dropped before it was read has no type.
            protocol::ICMP | protocol::ICMPV6 if by_policy || drop.dst_port != 0 => icmp(drop.protocol, drop.dst_port),
            other => protocol_name(other),
        };
        let (src, dst) = (drop.src_identity, drop.dst_identity);
        let by_default = || (reason == Some(DropReason::PolicyDefault)).then(|| names.default_of(direction, src, dst));
        let (src_addr, dst_addr) = (drop.src, drop.dst);
        let query = Query { src, dst, src_addr, dst_addr, protocol: drop.protocol, port: drop.dst_port };
        let near = (reason == Some(DropReason::PolicyDefault)).then(|| finder.nearest(&query, direction));
        let would_allow = (by_policy && !passed).then(|| would_allow(names, finder, &query)).flatten();
        Dropped {
            time: seen.when.into(),
            host: host.to_string(),
            hook: Hook::from_raw(drop.hook).name().to_owned(),
            direction: by_policy.then(|| direction.into()),
            from: names.side(src, Some(drop.src), port(drop.src_port)),
            to: names.side(dst, Some(drop.dst), port(drop.dst_port)),
            protocol,
            tcp_flags: (drop.protocol == protocol::TCP).then(|| flag_names(drop.tcp_flags)),
            reason: match reason {
                _ if passed => Dropped::SHADOW.to_owned(),
                Some(reason) => reason.name().to_owned(),
                None => format!("#{}", drop.reason),
            },
            rule: by_policy.then(|| names.rule(drop.rule)).flatten().or_else(by_default),
            nearest: near.flatten().map(|near| names.nearest(&near)),
            revision: revision.filter(|_| by_policy),
            shadow: (drop.shadow != 0).then(|| names.tried(drop.shadow, &query)),
            skipped: drop.skipped,
            would_allow,
        }
    }
}

/// The smallest rule that would let a packet pass. A protocol that rules have no name for has none: it would be one about
/// everything.
fn would_allow(names: &Names<'_>, finder: &mut Finder<'_>, query: &Query) -> Option<String> {
    let Query { src, dst, src_addr, dst_addr, protocol, port } = *query;
    let what = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => format!("{}/{port}", protocol_name(protocol)),
        protocol::ICMP | protocol::ICMPV6 => icmp(protocol, port),
        _ => return None,
    };
    let named = |identity, addr: Ip| Named { identity, addr: Some(addr.to_std()) };
    let asked = (named(src, src_addr), named(dst, dst_addr), what.parse().ok()?);
    would(names, finder.matching(query), Action::Allow, asked).map(|rule| rule.to_string())
}

/// Type and code, which policy sees where others have a port.
fn icmp(number: u8, port: u16) -> String {
    let [kind, code] = port.to_be_bytes();
    format!("{}/{kind}/{code}", protocol_name(number))
}

#[cfg(test)]
mod tests {
    use weft_common::{
        event::Drop,
        id::{Identity, RoleId},
    };

    use super::*;
    use crate::model::{cluster::Revision, example};

    /// What is advised of a packet from shop/web that a rule of these dropped.
    fn advised(rules: &[&str], to: &str, (number, port): (u8, u16)) -> Option<String> {
        let cluster = crate::model::cluster::Cluster { rules: example::rules(rules), ..example::cluster() };
        let of = |app: &str, role: &str| {
            let app = &cluster.apps[&app.parse().unwrap()];
            Identity::new(app.number, app.roles[&role.parse().unwrap()].number)
        };
        let ip = |text: &str| Ip::from(text.parse::<IpAddr>().unwrap());
        let (dst_identity, dst) = match to {
            "outside" => (Identity::OUTSIDE, "203.0.113.9"),
            // Of another host's endpoint the sender's knows the app alone.
            "elsewhere" => (Identity::new(of("blog", "db").app, RoleId::UNKNOWN), "10.2.2.9"),
            _ => (of("blog", "db"), "10.2.1.2"),
        };
        let drop = Drop {
            reason: DropReason::PolicyDenied as u32,
            src: ip("10.1.1.2"),
            dst: ip(dst),
            src_identity: of("shop", "web"),
            dst_identity,
            dst_port: port,
            protocol: number,
            ..Drop::default()
        };
        let snapshot =
            Snapshot { revision: Revision(1), cluster: Arc::new(cluster.clone()), problem: None, unwritten: None };
        let (host, plan) = ("h1".parse().unwrap(), NodePlan::default());
        Teller::new(&host, &snapshot, &plan, None).dropped(&Seen { drop, when: SystemTime::now() }).would_allow
    }

    #[test]
    fn what_is_advised_of_a_drop_is_enough_and_no_more() {
        let check = |rules: &[&str], to: &str, what, expect: Option<&str>| {
            assert_eq!(advised(rules, to, what).as_deref(), expect, "{rules:?} {to} {what:?}");
        };
        let ssh = (protocol::TCP, 22);
        check(&[], "db", ssh, Some("allow shop/web -> blog/db tcp/22"));
        check(&[], "elsewhere", ssh, Some("allow shop/web -> blog tcp/22"));
        // Beside the rule that dropped it there is another in the way, on the other side.
        let both = ["deny shop -> any any on egress", "deny any -> blog any on ingress precedence 3000"];
        check(&both, "db", ssh, Some("allow shop/web -> blog/db tcp/22 precedence 3001"));
        check(&[], "db", (protocol::ICMP, 8 << 8), Some("allow shop/web -> blog/db icmp/8/0"));
        check(&[], "db", (protocol::ICMPV6, 128 << 8), Some("allow shop/web -> blog/db icmpv6/128/0"));
        check(&[], "outside", ssh, Some("allow shop/web -> 203.0.113.9/32 tcp/22"));
        check(&["deny shop -> outside"], "outside", ssh, Some("allow shop/web -> outside tcp/22 precedence 1001"));
        // Generic routing encapsulation: rules have no name for it.
        check(&[], "db", (47, 0), None);
    }
}
