//! Why a packet may pass, or may not: the same `decide`, over the tables that are in force.

use std::net::IpAddr;

use weft_common::{
    addr::Ip,
    id::{Epoch, Identity},
    policy::{Query, decide},
    verdict::DropReason,
};

use crate::front::api::{
    dto::{
        naming::Party,
        side::{Decision, RuleMention},
        why::{Step, Why, WhyAnswer},
    },
    refusal::{Kind, Refusal},
};
use crate::model::{cluster::Cluster, endpoint::EndpointKey, name::RoleName, prefix::Family};

use super::{Service, naming::Names};

/// An end of the question: who, and at which address.
struct End {
    identity: Identity,
    addr: IpAddr,
}

impl Service {
    pub(super) fn do_why(&self, request: &Why) -> Result<WhyAnswer, Refusal> {
        if request.live {
            let why = "asking the loaded program is not possible yet: leave --live out";
            return Err(Refusal::new(Kind::Unavailable, why));
        }
        let (snapshot, plan) = (self.snapshot(), self.plan());
        let cluster = &*snapshot.cluster;
        let names = Names { cluster, plan: &plan };
        let family = [&request.from, &request.to].into_iter().find_map(|party| match party {
            Party::Address(addr) => Some(Family::of(*addr)),
            Party::Host | Party::Outside | Party::Name(_) | Party::Member(..) => None,
        });
        let mut families = family.map_or_else(|| Family::ALL.to_vec(), |family| vec![family]).into_iter();
        let (family, from, to) = loop {
            let Some(family) = families.next() else {
                return Err(Refusal::invalid(format!(
                    "{} and {} have no address family in common",
                    request.from, request.to
                )));
            };
            let ends = (self.end(&names, &request.from, family)?, self.end(&names, &request.to, family)?);
            if let (Some(from), Some(to)) = ends {
                break (family, from, to);
            }
        };
        let (protocol, port) = request.what.of(family);
        let route = plan.route(to.addr.into());
        let query = Query {
            src: from.identity,
            dst: to.identity,
            src_addr: from.addr.into(),
            dst_addr: to.addr.into(),
            protocol,
            port,
        };
        let answer = decide(&*plan.policy, Epoch(0), &query);
        let decision = match answer.verdict {
            Ok(()) => Decision::Allow,
            Err(DropReason::PolicyRejected) => Decision::Reject,
            Err(_) => Decision::Deny,
        };
        let subject = match answer.direction {
            weft_common::policy::Direction::Egress => from.identity,
            weft_common::policy::Direction::Ingress => to.identity,
        };
        let default =
            || RuleMention { text: format!("the default of {}", names.app_name(subject.app)), id: None, source: None };
        let step = |at: &str, found: String| Step { at: at.to_owned(), found };
        let steps = vec![
            step("from", format!("{} is {}", from.addr, names.identity(from.identity))),
            step("to", format!("{} is {}, by {}", to.addr, names.identity(to.identity), names.hop(route.hop))),
            step(
                "policy",
                match answer.verdict {
                    Ok(()) => "lets it pass".to_owned(),
                    Err(reason) => reason.explain().trim().to_owned(),
                },
            ),
        ];
        let would_allow =
            format!("allow {} -> {} {}", names.identity(from.identity), names.identity(to.identity), request.what);
        Ok(WhyAnswer {
            from: names.side(from.identity, Some(from.addr.into()), None),
            to: names.side(to.identity, Some(to.addr.into()), None),
            what: request.what.to_string(),
            decision,
            direction: answer.direction.into(),
            reason: answer.verdict.err().map(|reason| reason.name().to_owned()),
            rule: names.rule(answer.rule).unwrap_or_else(default),
            hop: names.hop(route.hop),
            would_allow: (decision != Decision::Allow).then_some(would_allow),
            steps,
            live: None,
        })
    }

    /// Who a party is in a family. None: it has no address there.
    fn end(&self, names: &Names<'_>, party: &Party, family: Family) -> Result<Option<End>, Refusal> {
        let (cluster, plan) = (names.cluster, names.plan);
        let at = |addr: IpAddr, identity| Some(End { identity, addr });
        Ok(match party {
            Party::Address(addr) => at(*addr, plan.route(Ip::from(*addr)).identity),
            Party::Host => {
                let host = cluster.hosts.get(&self.host);
                let own = host.into_iter().flat_map(crate::model::host::Host::gateways);
                own.map(|(_, addr)| addr)
                    .find(|addr| Family::of(*addr) == family)
                    .and_then(|addr| at(addr, Identity::HOST))
            }
            // Documentation addresses stand for all that is outside (RFC 5737, RFC 3849).
            Party::Outside => match family {
                Family::V4 => at(IpAddr::from([203, 0, 113, 1]), Identity::OUTSIDE),
                Family::V6 => at(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), Identity::OUTSIDE),
            },
            Party::Name(name) => {
                let mut named = cluster.endpoints.values().filter(|endpoint| endpoint.key.name == *name);
                match (named.next(), named.next()) {
                    (Some(endpoint), None) => {
                        let identity = cluster.identity(endpoint).unwrap_or_default();
                        endpoint.addresses.of(family).and_then(|addr| at(addr, identity))
                    }
                    (Some(_), Some(_)) => {
                        return Err(Refusal::conflict(format!(
                            "several apps have an endpoint {name}: write app/{name}"
                        )));
                    }
                    (None, _) => member(cluster, name.as_str(), None, family)?,
                }
            }
            Party::Member(app, name) => {
                let key = EndpointKey::new(app.clone(), name.clone());
                match cluster.endpoints.get(&key) {
                    Some(endpoint) => {
                        let identity = cluster.identity(endpoint).unwrap_or_default();
                        endpoint.addresses.of(family).and_then(|addr| at(addr, identity))
                    }
                    None => member(cluster, app.as_str(), Some(name.as_str()), family)?,
                }
            }
        })
    }
}

/// An app, or a role of it, at the first address of the app's prefix.
fn member(cluster: &Cluster, app: &str, role: Option<&str>, family: Family) -> Result<Option<End>, Refusal> {
    let unknown = || {
        Refusal::not_found(match role {
            Some(role) => format!("there is no endpoint and no role {app}/{role} that this host knows"),
            None => format!("there is no endpoint and no app {app} that this host knows"),
        })
    };
    let found = cluster.apps.values().find(|known| known.name.as_str() == app).ok_or_else(unknown)?;
    let number = match role {
        None => weft_common::id::RoleId::NONE,
        Some(role) => {
            let role: RoleName = role.parse()?;
            *found.roles.get(&role).ok_or_else(unknown)?
        }
    };
    let prefix = found.prefixes.iter().find(|prefix| prefix.family() == family);
    let identity = Identity::new(found.number, number);
    let at = |addr: IpAddr| End { identity, addr };
    Ok(prefix.map(|prefix| at(crate::model::host::after(prefix.first()))))
}
