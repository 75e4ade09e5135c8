//! Why a packet may pass, or may not: the same `decide`, over the tables that are in force.
//!
//! What the programs refuse beside policy is said too, in their order: an answer that ends at the rules would promise
//! what does not happen. [`super::live`] asks the program itself.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use weft_common::{
    addr::Ip,
    header::protocol,
    id::{AppId, Epoch, Identity, PeerId, RoleId},
    policy::{Action, Direction, Query, decide, shadow},
    route::{HopKind, Route},
    verdict::DropReason,
};

use crate::front::api::{
    dto::{
        naming::{Party, Probe},
        side::{Decision, RuleMention},
        why::{Also, OtherHalf, Step, Why, WhyAnswer},
    },
    refusal::Refusal,
};
use crate::kernel::config;
use crate::model::{
    app::App,
    cluster::Cluster,
    endpoint::{Endpoint, EndpointKey},
    host::{Host, after},
    name::RoleName,
    prefix::{Family, Prefix},
    rule::Rule,
    selector::{Net, Selector},
    traffic::Traffic,
};
use crate::plan::{
    NodePlan,
    ask::closable,
    matching::{self, Finder, Said, Speaks},
};

use super::{Service, naming::Names};

/// How many rules that did not decide are told of.
const OTHERS: usize = 20;

/// A question, with everything that it was answered from.
pub(super) struct Asked {
    pub(super) plan: Arc<NodePlan>,
    pub(super) from: End,
    pub(super) to: End,
    pub(super) query: Query,
    pub(super) found: Found,
}

/// An end of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Who it is.
    pub(super) identity: Identity,
    /// At which address.
    pub(super) addr: IpAddr,
    /// What the address is to the question.
    pub(super) meant: Meant,
    /// Where that is.
    pub(super) route: Route,
}

/// What an address is to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// It is asked about.
    Itself,
    /// It stands for all that an app or a role has; nobody may have it.
    Example,
}

/// What the packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) verdict: Result<(), DropReason>,
    /// The rule that decided; 0 is a default, or no rule was asked.
    pub(super) rule: u32,
    pub(super) direction: Direction,
    /// The rule that is only tried and would decide otherwise: [`shadow`].
    pub(super) tried: u32,
}

impl Service {
    pub(super) async fn do_why(&self, request: Why) -> Result<WhyAnswer, Refusal> {
        if request.live {
            return self.live(&request).await;
        }
        Ok(self.answer(&request, &self.ask(&request)?))
    }

    /// Finds out who the ends are, and decides.
    pub(super) fn ask(&self, request: &Why) -> Result<Asked, Refusal> {
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let family = [&request.from, &request.to].into_iter().find_map(|party| match party {
            Party::Address(addr) | Party::At(_, addr) => Some(Family::of(*addr)),
            Party::Host | Party::Outside | Party::Name(_) | Party::Member(..) => None,
        });
        let families = family.map_or_else(|| Family::ALL.to_vec(), |family| vec![family]);
        for family in families {
            let at = Place { service: self, cluster: &snapshot.cluster, plan: &plan, family };
            if let (Some(from), Some(to)) = (at.end(&request.from)?, at.end(&request.to)?) {
                let query = query(&from, &to, request.what, family);
                let found = find(&plan, &from, &to, &query);
                return Ok(Asked { plan, from, to, query, found });
            }
        }
        let (from, to) = (&request.from, &request.to);
        Err(Refusal::invalid(format!("{from} and {to} have no address family in common")))
    }

    pub(super) fn answer(&self, request: &Why, asked: &Asked) -> WhyAnswer {
        let Asked { plan, from, to, query, found } = asked;
        let snapshot = self.snapshot();
        let names = Names { cluster: &snapshot.cluster, plan };
        let Found { verdict, rule, direction, tried } = *found;
        let decision = decision(verdict);
        let step = |at: &str, found: String| Step { at: at.to_owned(), found };
        let explained = match verdict {
            Ok(()) => "lets it pass".to_owned(),
            Err(reason) => reason.explain().trim().to_owned(),
        };
        let who = |end: &End| format!("{} is {}", end.addr, names.identity(end.identity));
        let mut steps = vec![
            step("from", who(from)),
            step("to", format!("{}, by {}", who(to), names.hop(to.route.hop))),
            step(if verdict.is_ok() || is_policy(verdict) { "policy" } else { "path" }, explained),
        ];
        if tried != 0 {
            let rule = names.tried(tried, query).text;
            let would = if verdict.is_ok() { "would drop it" } else { "would let it pass" };
            steps.push(step("shadow", format!("{rule}, which is only tried, {would}")));
        }
        let mention = || match verdict {
            Err(reason) if !is_policy(verdict) => {
                RuleMention { text: format!("none: {}", reason.explain().trim()), id: None, source: None }
            }
            Ok(()) => names.default_of(closable(query.dst), query.src, query.dst),
            Err(_) => names.default_of(direction, query.src, query.dst),
        };
        let now = SystemTime::now();
        let near = (verdict == Err(DropReason::PolicyDefault))
            .then(|| Finder::new(&snapshot.cluster, now).nearest(query, direction))
            .flatten();
        let said = matching::matching(&snapshot.cluster, query, now);
        let (also, more) = others(&names, &said.rules, *found);
        let named = |end: &End| {
            let addr = (end.meant == Meant::Itself).then_some(end.addr);
            Named { identity: end.identity, addr }
        };
        let traffic = request.what.to_string().parse::<Traffic>().ok();
        let about = traffic.map(|traffic| (named(from), named(to), traffic));
        let change = |action| would(&names, &said, action, about.clone()?);
        let (would_allow, would_deny) = (change(Action::Allow), change(Action::Deny));
        WhyAnswer {
            from: names.side(from.identity, Some(from.addr.into()), None),
            to: names.side(to.identity, Some(to.addr.into()), None),
            what: request.what.to_string(),
            decision,
            direction: direction.into(),
            reason: verdict.err().map(|reason| reason.name().to_owned()),
            rule: names.rule(rule).unwrap_or_else(mention),
            nearest: near.map(|near| names.nearest(&near)),
            revision: self.revision().filter(|_| verdict.is_ok() || is_policy(verdict)),
            also,
            more,
            hop: names.hop(to.route.hop),
            would_allow: would_allow.filter(|_| is_policy(verdict)).map(|rule| rule.to_string()),
            would_deny: would_deny.filter(|_| verdict.is_ok()).map(|rule| rule.to_string()),
            steps,
            live: None,
            other_half: other_half(&names, request, asked),
        }
    }
}

/// Which host decides, too, and what it is to be asked. Of a sender the tunnel tells it who that is, of a receiver it has
/// the address alone.
fn other_half(names: &Names<'_>, request: &Why, Asked { from, to, .. }: &Asked) -> Option<OtherHalf> {
    let (there, question) = match (from.route.hop.kind(), to.route.hop.kind()) {
        (HopKind::Local, HopKind::Peer) => {
            let sender = Party::At(Box::new(names.identity(from.identity).parse().ok()?), from.addr);
            (to.route.hop, Why { from: sender, ..request.clone() })
        }
        (HopKind::Peer, HopKind::Local) => (from.route.hop, Why { to: Party::Address(to.addr), ..request.clone() }),
        _ => return None,
    };
    let host = names.peer(PeerId(there.index)).parse().ok()?;
    Some(OtherHalf { host, question, answer: None })
}

/// The rules that speak of the packet beside the one that decided, and how many more there are.
fn others(names: &Names<'_>, speaking: &[Speaks<'_>], found: Found) -> (Vec<Also>, u64) {
    let decided = names.plan.policy.names.get(&found.rule);
    let did_decide = |speaks: &Speaks<'_>| {
        speaks.direction == found.direction && decided.is_some_and(|rule| rule.says_same(speaks.rule))
    };
    let mut others: Vec<_> = speaking.iter().filter(|speaks| !did_decide(speaks)).collect();
    let more = others.len().saturating_sub(OTHERS);
    others.truncate(OTHERS);
    let also = |speaks: &Speaks<'_>| {
        let id = names.plan.number_of(speaks.rule);
        Also { rule: RuleMention::of(id, speaks.rule), direction: speaks.direction.into() }
    };
    (others.into_iter().map(also).collect(), more as u64)
}

/// Somebody that a rule is to name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// Who it is.
    pub(super) identity: Identity,
    /// Where, if that address alone is meant.
    pub(super) addr: Option<IpAddr>,
}

/// The smallest rule about what is asked, or was dropped, that turns the answer into `action`, if there is one.
pub(super) fn would(
    names: &Names<'_>,
    said: &Said<'_>,
    action: Action,
    (from, to, traffic): (Named, Named, Traffic),
) -> Option<Rule> {
    // An address outside can be named alone. That is no rule of the outside itself: where one of those is in the way,
    // the outside has to be named.
    let selector = |end: Named, own: Direction, alone: bool| -> Option<Selector> {
        let refused = said.winner(own).is_some_and(|speaks| speaks.rank.action() > Action::Allow);
        match end.addr {
            Some(addr) if alone && is_outside(end) && !(refused && action == Action::Allow) => {
                Some(Selector::Net(Net::new(Prefix::host(addr).ok()?, []).ok()?))
            }
            Some(_) | None => names.identity(end.identity).parse().ok(),
        }
    };
    let sides =
        (selector(from, Direction::Egress, !is_outside(to))?, selector(to, Direction::Ingress, !is_outside(from))?);
    said.would(action, sides, traffic).ok().flatten()
}

fn is_outside(end: Named) -> bool {
    end.identity == Identity::OUTSIDE
}

/// The word for a verdict.
pub(super) fn decision(verdict: Result<(), DropReason>) -> Decision {
    match verdict {
        Ok(()) => Decision::Allow,
        Err(DropReason::PolicyRejected) => Decision::Reject,
        Err(_) => Decision::Deny,
    }
}

/// Whether a rule or a default refused it.
pub(super) fn is_policy(verdict: Result<(), DropReason>) -> bool {
    verdict.is_err_and(|reason| DropReason::is_of_policy(reason as u32))
}

fn query(from: &End, to: &End, what: Probe, family: Family) -> Query {
    let (protocol, port) = what.of(family);
    Query { src: from.identity, dst: to.identity, src_addr: from.addr.into(), dst_addr: to.addr.into(), protocol, port }
}

/// What the programs come to, in their order: parse, admit, forward.
fn find(plan: &NodePlan, from: &End, to: &End, query: &Query) -> Found {
    let refused = |reason| Found { verdict: Err(reason), rule: 0, direction: Direction::Egress, tried: 0 };
    let is_host = |end: &End| end.route.hop.kind() == HopKind::Host;
    let is_tunnel = query.protocol == protocol::UDP && u32::from(query.port) == plan.config.port;
    if from.addr == to.addr && to.meant == Meant::Itself {
        return refused(DropReason::Martian);
    }
    if is_tunnel && (is_host(from) || is_host(to)) {
        return refused(DropReason::HostPort);
    }
    match to.route.hop.kind() {
        HopKind::Nowhere if to.meant == Meant::Itself => return refused(DropReason::NoRoute),
        HopKind::Host if from.route.hop.kind() == HopKind::Peer && to.identity == Identity::OUTSIDE => {
            return refused(DropReason::NoEndpoint);
        }
        HopKind::Local | HopKind::Peer | HopKind::Host | HopKind::Nowhere => {}
    }
    let policy = plan.policy.at(config::since_boot());
    let weft_common::policy::Decision { verdict, rule, direction, until: _ } = decide(&policy, Epoch(0), query);
    let is_tried = plan.config.shadow != 0;
    let tried = if is_tried { shadow(&policy, Epoch(0), query, u64::from(verdict.is_ok())).0 } else { 0 };
    if verdict.is_ok() && to.route.hop.kind() == HopKind::Peer && !plan.peers.contains_key(&to.route.hop.index) {
        return refused(DropReason::PeerUnreachable);
    }
    Found { verdict, rule, direction, tried }
}

/// Where parties are looked for, in one family.
struct Place<'a> {
    service: &'a Service,
    cluster: &'a Cluster,
    plan: &'a NodePlan,
    family: Family,
}

impl Place<'_> {
    /// Who a party is. None: it has no address in the family.
    fn end(&self, party: &Party) -> Result<Option<End>, Refusal> {
        Ok(match party {
            Party::Address(addr) => Some(self.at(*addr, None)),
            Party::Host => {
                let host = self.cluster.hosts.get(&self.service.host);
                let mut own = host.into_iter().flat_map(Host::gateways).map(|(_, addr)| addr);
                own.find(|addr| Family::of(*addr) == self.family).map(|addr| self.at(addr, Some(Identity::HOST)))
            }
            // Documentation addresses stand for all that is outside (RFC 5737, RFC 3849).
            Party::Outside => Some(match self.family {
                Family::V4 => self.at(IpAddr::from([203, 0, 113, 1]), Some(Identity::OUTSIDE)),
                Family::V6 => self.at(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), Some(Identity::OUTSIDE)),
            }),
            Party::Name(name) => {
                let mut named = self.cluster.endpoints.values().filter(|endpoint| endpoint.key.name == *name);
                match (named.next(), named.next()) {
                    (Some(endpoint), None) => self.endpoint(endpoint),
                    (Some(_), Some(_)) => {
                        let why = format!("several apps have an endpoint {name}: write app/{name}");
                        return Err(Refusal::conflict(why));
                    }
                    (None, _) => self.member(name.as_str(), None)?,
                }
            }
            Party::Member(app, name) => {
                match self.cluster.endpoints.get(&EndpointKey::new(app.clone(), name.clone())) {
                    Some(endpoint) => self.endpoint(endpoint),
                    None => self.member(app.as_str(), Some(name.as_str()))?,
                }
            }
            Party::At(party, addr) => self.end(party)?.map(|end| self.at(*addr, Some(end.identity))),
        })
    }

    /// Whoever has an address. The tables say who that is, unless the question does.
    fn at(&self, addr: IpAddr, identity: Option<Identity>) -> End {
        let route = self.plan.route(Ip::from(addr));
        End { identity: identity.unwrap_or(route.identity), addr, meant: Meant::Itself, route }
    }

    fn endpoint(&self, endpoint: &Endpoint) -> Option<End> {
        let identity = self.cluster.identity(endpoint).unwrap_or_default();
        endpoint.addresses.of(self.family).map(|addr| self.at(addr, Some(identity)))
    }

    /// An app, or a role of it: an endpoint of this host stands for it, else an address that a peer may give out, else
    /// the first of the app's prefix.
    fn member(&self, app: &str, role: Option<&str>) -> Result<Option<End>, Refusal> {
        let unknown = || {
            Refusal::not_found(match role {
                Some(role) => format!("there is no endpoint and no role {app}/{role} that this host knows"),
                None => format!("there is no endpoint and no app {app} that this host knows"),
            })
        };
        let found = self.cluster.apps.values().find(|known| known.name.as_str() == app).ok_or_else(unknown)?;
        let number = match role {
            None => RoleId::NONE,
            Some(role) => found.roles.get(&role.parse::<RoleName>()?).ok_or_else(unknown)?.number,
        };
        let identity = Identity::new(found.number, number);
        let is_it = |endpoint: &&Endpoint| self.cluster.identity(endpoint) == Some(identity);
        let mut here = self.cluster.endpoints_on(&self.service.host).filter(is_it);
        let prefix = || found.prefixes.iter().find(|prefix| prefix.family() == self.family);
        let addr = here
            .find_map(|endpoint| endpoint.addresses.of(self.family))
            .or_else(|| self.at_a_peer(found))
            .or_else(|| prefix().map(|prefix| after(prefix.first())));
        Ok(addr.map(|addr| End { meant: Meant::Example, ..self.at(addr, Some(identity)) }))
    }

    /// The address behind a peer's own in its block of an app.
    fn at_a_peer(&self, app: &App) -> Option<IpAddr> {
        let others = self.cluster.hosts.values().filter(|host| host.name != self.service.host);
        let mut found = others.filter_map(|host| {
            let addr = after(host.gateway(&app.name, self.family)?);
            host.block_with(&app.name, addr).map(|_| addr)
        });
        found.next()
    }
}

/// Whether the tables say the same of an end as the question did: of another host's endpoint they know the app alone.
pub(super) fn is_known(end: &End) -> bool {
    let Identity { app, role, reserved: _ } = end.route.identity;
    app == end.identity.app && (role == end.identity.role || (role == RoleId::UNKNOWN && app != AppId::ANY))
}
