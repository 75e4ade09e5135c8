//! Which rules speak of a packet, and the smallest rule that would change what it meets.
//!
//! Reads the rules as they are written and not the tables, so it can say what [`weft_common::policy::decide`] can not:
//! who else spoke. That both agree on who won is tested.

mod nearest;

use std::{cmp::Reverse, time::SystemTime};

use weft_common::{
    addr::Ip,
    id::{AppId, Identity, RoleId},
    policy::{Action, Direction, Query, Rank},
};

use crate::model::{
    app::{App, Role},
    cluster::Cluster,
    invalid::Invalid,
    name::RoleName,
    rule::{Precedence, Rule},
    selector::Selector,
    traffic::{NamedPorts, Region, Traffic},
};

pub use nearest::{Finder, Miss, Near};

/// A rule that speaks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaks<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// On which side.
    pub direction: Direction,
    /// What it counts for: of an endpoint whose role is not known here a rule about some roles says less.
    pub rank: Rank,
}

/// What rules say of a packet.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// Those in force that speak of it, those that win first.
    pub rules: Vec<Speaks<'a>>,
    /// The sides where rules decide. An app in shadow tries its own, and lets everything pass.
    sides: Vec<Direction>,
}

/// A role with its name; none of an endpoint without one.
type Known<'a> = Option<(&'a RoleName, &'a Role)>;

/// Whether somebody is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    No,
    /// He may have a role that is.
    Maybe,
    Yes,
}

/// What the rules in force `now` say of a packet.
pub fn matching<'a>(cluster: &'a Cluster, query: &Query, now: SystemTime) -> Said<'a> {
    said(cluster, cluster.rules.iter().map(AsRef::as_ref).filter(|rule| holds(rule, now)), query)
}

/// What these of the rules in force say of a packet.
fn said<'a>(cluster: &Cluster, rules: impl Iterator<Item = &'a Rule>, query: &Query) -> Said<'a> {
    let apps = (app_of(cluster, query.src.app), app_of(cluster, query.dst.app));
    let ports = receiver_ports(apps.1, query.dst);
    let decides = |(_, app): &(Direction, Option<&App>)| app.is_none_or(|app| !app.shadow);
    let sides = [(Direction::Egress, apps.0), (Direction::Ingress, apps.1)].into_iter().filter(decides);
    let sides: Vec<Direction> = sides.map(|(direction, _)| direction).collect();
    let mut found = Vec::new();
    for rule in rules.filter(|rule| covers(&rule.traffic, &ports, query)) {
        // As a subject an address is nobody.
        let meant = |direction: Direction| {
            let peer = |of, addr: Ip| (direction != of).then(|| addr.to_std());
            let from = meant(&rule.from, (query.src, apps.0), peer(Direction::Egress, query.src_addr));
            from.min(meant(&rule.to, (query.dst, apps.1), peer(Direction::Ingress, query.dst_addr)))
        };
        for direction in sides.iter().copied().filter(|side| rule.on.is_none_or(|on| on == *side)) {
            let rank = match (meant(direction), rule.action) {
                (Meant::No, _) | (Meant::Maybe, Action::Deny) => continue,
                (Meant::Yes, _) | (Meant::Maybe, Action::Allow) => rule.rank(),
                (Meant::Maybe, Action::Pass | Action::Reject) => Rank::new(rule.precedence.raw(), Action::Allow),
            };
            found.push(Speaks { rule, direction, rank });
        }
    }
    found.sort_by_key(|speaks| Reverse(speaks.rank));
    Said { rules: found, sides }
}

impl<'a> Said<'a> {
    /// The rule that wins on a side. None: the default.
    pub fn winner(&self, direction: Direction) -> Option<Speaks<'a>> {
        let mut on = self.rules.iter().filter(|speaks| speaks.direction == direction);
        let is_pass = |speaks: &Speaks<'_>| speaks.rank.action() == Action::Pass;
        let top = on.next().copied()?;
        let found = if top.rank.is_upper() && is_pass(&top) {
            on.find(|speaks| !speaks.rank.is_upper()).copied()
        } else {
            Some(top)
        };
        found.filter(|speaks| !is_pass(speaks))
    }

    /// The rule between `from` and `to` about `traffic` that would turn what the packet meets into `action`, with the
    /// precedence that it needs. None: no rule can, or no precedence is left.
    pub fn would(
        &self,
        action: Action,
        (from, to): (Selector, Selector),
        traffic: Traffic,
    ) -> Result<Option<Rule>, Invalid> {
        // A prefix keeps no rules, so such a rule is on the other side alone.
        let is_on = |direction: &Direction| match direction {
            Direction::Egress => !matches!(from, Selector::Net(_)),
            Direction::Ingress => !matches!(to, Selector::Net(_)),
        };
        let needed = |direction: Direction| match (self.winner(direction), action) {
            // At the same precedence reject beats deny beats allow. A side that lets it pass already needs nothing for that.
            (Some(speaks), Action::Allow | Action::Pass) if speaks.rank.action() > Action::Allow => {
                speaks.rule.precedence.raw() + 1
            }
            (Some(speaks), Action::Deny | Action::Reject) => {
                speaks.rule.precedence.raw() + i32::from(speaks.rank.action() > action)
            }
            (None, _) | (Some(_), Action::Allow | Action::Pass) => Precedence::MIN.raw(),
        };
        let sides = self.sides.iter().copied().filter(is_on).map(needed);
        // To pass both sides have to let it, to be dropped one is enough.
        let raw = match action {
            Action::Allow | Action::Pass => sides.max(),
            Action::Deny | Action::Reject => sides.min(),
        };
        let Some(raw) = raw.map(|raw| raw.max(Precedence::DEFAULT.raw())) else { return Ok(None) };
        let Some(precedence) = Precedence::new(raw) else { return Ok(None) };
        Rule::new(action, from, to, traffic)?.placed(None, precedence).map(Some)
    }
}

/// Whether a rule is in force.
fn holds(rule: &Rule, now: SystemTime) -> bool {
    !rule.shadow && rule.until.is_none_or(|until| until.time() > now)
}

fn app_of(cluster: &Cluster, number: AppId) -> Option<&App> {
    cluster.apps.values().find(|app| app.number == number)
}

/// The ports that a receiver has names for; of one whose role is not known, of every role that it may have.
fn receiver_ports(app: Option<&App>, dst: Identity) -> Vec<NamedPorts> {
    let fits = |role: &&Role| dst.role == RoleId::UNKNOWN || role.number == dst.role;
    let named: Vec<_> =
        app.into_iter().flat_map(|app| app.roles.values()).filter(fits).map(|role| role.ports.clone()).collect();
    if named.is_empty() { vec![NamedPorts::default()] } else { named }
}

fn covers(traffic: &Traffic, ports: &[NamedPorts], query: &Query) -> bool {
    let holds = |Region { protocol, ports }: &Region| *protocol == query.protocol && ports.contains(&query.port);
    ports.iter().any(|ports| traffic.regions(ports).is_none_or(|regions| regions.iter().any(holds)))
}

fn meant(selector: &Selector, (who, app): (Identity, Option<&App>), at: Option<std::net::IpAddr>) -> Meant {
    let sure = |is: bool| if is { Meant::Yes } else { Meant::No };
    let roles = |is: &dyn Fn(Known<'_>) -> bool, app: &App| {
        let known = app.roles.iter().find(|(_, role)| role.number == who.role);
        match who.role {
            RoleId::UNKNOWN if app.roles.iter().any(|role| is(Some(role))) || is(None) => Meant::Maybe,
            RoleId::UNKNOWN => Meant::No,
            _ => sure(is(known)),
        }
    };
    match selector {
        Selector::Any => sure(who.app.is_application()),
        Selector::Everyone => sure(who.app != AppId::ANY),
        Selector::Host => sure(who.app == AppId::HOST),
        Selector::Outside => sure(who.app == AppId::OUTSIDE),
        Selector::App(name) => sure(app.is_some_and(|app| app.name == *name)),
        Selector::Role(name, wanted) => match app.filter(|app| app.name == *name) {
            Some(app) => roles(&|role| role.is_some_and(|(own, role)| role.is_called(own, wanted)), app),
            None => Meant::No,
        },
        Selector::Labelled(labelled) => match app.filter(|app| labelled.apps.contain(app)) {
            Some(_) if labelled.labels.is_empty() => Meant::Yes,
            Some(app) => roles(&|role| labelled.selects(role.map(|(_, role)| role)), app),
            None => Meant::No,
        },
        Selector::Net(net) => {
            sure(at.is_some_and(|at| net.prefix().contains(at) && !net.except().iter().any(|hole| hole.contains(at))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use proptest::prelude::*;
    use weft_common::{
        addr::Ip,
        id::Epoch,
        policy::{Decision, decide},
    };

    use super::*;
    use crate::model::{example, prefix::Prefix, selector::Net};
    use crate::plan::rules::Policy;

    fn cluster(rules: &[String], in_shadow: &[&str]) -> Cluster {
        let rules = rules.iter().filter_map(|text| text.parse().ok()).map(Arc::new);
        let mut cluster = Cluster { rules: Arc::new(rules.collect()), ..example::cluster() };
        for app in Arc::make_mut(&mut cluster.apps).values_mut() {
            app.shadow = in_shadow.contains(&app.name.as_str());
        }
        cluster
    }

    fn decided(cluster: &Cluster, query: &Query) -> (Decision, Option<Rule>) {
        let policy = Policy::of(cluster);
        let decision = decide(&policy.at(0), Epoch(0), query);
        (decision, policy.names.get(&decision.rule).map(|rule| rule.as_ref().clone()))
    }

    fn selector() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "shop",
            "shop/web",
            "shop/db",
            "blog",
            "blog/db",
            "any",
            "everyone",
            "host",
            "outside",
            "any{role=db}",
            "any{!role}",
            "[!team]{role in (web,db)}",
            "10.1.0.0/16",
            "10.2.1.0/24",
            "203.0.113.0/24",
            "0.0.0.0/0",
        ])
    }

    fn rule() -> impl Strategy<Value = String> {
        (
            prop::sample::select(vec!["allow", "deny", "reject", "pass"]),
            selector(),
            selector(),
            prop::sample::select(vec!["any", "tcp", "tcp/80", "tcp/80-81", "udp"]),
            prop::sample::select(vec!["", " on ingress", " on egress"]),
            prop::sample::select(vec![-7, 500, 1000, 1001, 1 << 24, (1 << 24) + 1]),
        )
            .prop_map(|(action, from, to, what, on, precedence)| {
                format!("{action} {from} -> {to} {what}{on} precedence {precedence}")
            })
    }

    /// Name in rules, identity and address of somebody.
    fn who() -> impl Strategy<Value = (&'static str, Identity, Ip)> {
        let cluster = example::cluster();
        let of = |app: &str, role: Option<&str>| {
            let app = &cluster.apps[&app.parse().unwrap()];
            Identity::new(app.number, role.map_or(RoleId::NONE, |role| app.roles[&role.parse().unwrap()].number))
        };
        prop::sample::select(vec![
            ("shop", of("shop", None), Ip::from_v4([10, 1, 9, 9])),
            ("shop/web", of("shop", Some("web")), Ip::from_v4([10, 1, 1, 9])),
            ("shop/db", of("shop", Some("db")), Ip::from_v4([10, 1, 1, 8])),
            ("blog/db", of("blog", Some("db")), Ip::from_v4([10, 2, 1, 9])),
            ("host", Identity::HOST, Ip::from_v4([10, 1, 1, 1])),
            ("outside", Identity::OUTSIDE, Ip::from_v4([203, 0, 113, 9])),
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The rule that is said to win does, and the rule that is said to change the answer does.
        #[test]
        fn what_is_read_from_the_rules_is_what_is_decided(
            rules in prop::collection::vec(rule(), 0..6),
            (from, src, src_addr) in who(),
            (to, dst, dst_addr) in who(),
            port in 79_u16..83,
            alone in any::<bool>(),
            in_shadow in prop::sample::subsequence(vec!["shop", "blog"], 0..=2),
        ) {
            let cluster = cluster(&rules, &in_shadow);
            let query = Query { src, dst, src_addr, dst_addr, protocol: 6, port };
            let (decision, rule) = decided(&cluster, &query);
            let said = matching(&cluster, &query, UNIX_EPOCH);
            let mut finder = Finder::new(&cluster, UNIX_EPOCH);
            prop_assert_eq!(&finder.matching(&query).rules, &said.rules);
            let won = said.winner(decision.direction);
            prop_assert_eq!(rule.as_ref().map(Rule::rank), won.map(|won| won.rule.rank()), "{:?}", cluster.rules);

            let allowed = decision.verdict.is_ok();
            let action = if allowed { Action::Deny } else { Action::Allow };
            let outside_denies = won.is_some() && src == Identity::OUTSIDE && decision.direction == Direction::Egress
                || dst == Identity::OUTSIDE;
            let side = |name: &str, addr: Ip| {
                if alone && name == "outside" && !outside_denies && (from == "outside") != (to == "outside") {
                    return Selector::Net(Net::new(Prefix::host(addr.to_std()).unwrap(), []).unwrap());
                }
                name.parse().unwrap()
            };
            let sides = (side(from, src_addr), side(to, dst_addr));
            let traffic = format!("tcp/{port}").parse().unwrap();
            let Some(new) = said.would(action, sides, traffic).unwrap() else {
                let app = |name: &str| name.split_once('/').map_or(name, |(app, _)| app).to_owned();
                let tries = |name: &str| in_shadow.contains(&app(name).as_str()) || (alone && name == "outside");
                prop_assert!(tries(from) && tries(to), "a rule would change it beside {:?}", cluster.rules);
                return Ok(());
            };
            let changed = Cluster { rules: Arc::new(cluster.rules.iter().cloned().chain([Arc::new(new.clone())]).collect()), ..cluster.clone() };
            let (after, _) = decided(&changed, &query);
            prop_assert_eq!(after.verdict.is_ok(), !allowed, "{} beside {:?}", new, cluster.rules);
            // A smaller precedence than the usual one is never asked for; a greater one is needed.
            if new.precedence > Precedence::DEFAULT {
                let less = Precedence::new(new.precedence.raw() - 1).unwrap();
                let weaker = Rule { precedence: less, ..new };
                let rules = cluster.rules.iter().cloned().chain([Arc::new(weaker.clone())]).collect();
                let (after, _) = decided(&Cluster { rules: Arc::new(rules), ..cluster.clone() }, &query);
                prop_assert_eq!(after.verdict.is_ok(), allowed, "{} is enough beside {:?}", weaker, cluster.rules);
            }
        }
    }
}
