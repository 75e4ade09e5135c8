//! The allow rule that misses a packet by least, for whoever asks why a default refused it; and who speaks of a packet,
//! for whoever asks of many.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    time::SystemTime,
};

use weft_common::{
    addr::Ip,
    id::Identity,
    policy::{Action, Direction, Query},
};

use crate::model::{
    app::App,
    cluster::Cluster,
    rule::Rule,
    selector::{Apps, Selector},
    traffic::{Ports, Traffic, Types},
};

use super::{Meant, Said, app_of, covers, holds, meant, receiver_ports, said};

/// A rule, and the one thing for which it does not speak of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What it misses.
    pub miss: Miss,
}

/// What a rule misses, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// Both ends are meant, and other traffic.
    Traffic,
    /// Another sender is meant.
    Sender,
    /// Another receiver is meant.
    Receiver,
}

/// Finds the nearest rules under one state of the cluster, and looks at all rules once for each pair of identities only:
/// a list of drops is often one scan.
#[derive(Debug)]
pub struct Finder<'a> {
    cluster: &'a Cluster,
    now: SystemTime,
    /// The rules that mean at least one end, by the ends and by whose default refused.
    pairs: BTreeMap<(Identity, Identity, Direction), Vec<&'a Rule>>,
    found: BTreeMap<(Question, Direction), Option<Near<'a>>>,
    /// The rules that mean both ends, by the ends.
    both: BTreeMap<(Identity, Identity), Vec<&'a Rule>>,
    heard: BTreeMap<Question, Said<'a>>,
}

/// All of a query, so that the same is not asked twice.
type Question = (Identity, Identity, Ip, Ip, u8, u16);

impl Near<'_> {
    /// All that the rule allows of what it misses: `tcp/5432`, `blog`, `blog/db`.
    pub fn only(&self) -> String {
        match self.miss {
            Miss::Traffic => self.rule.traffic.to_string(),
            Miss::Sender => self.rule.from.to_string(),
            Miss::Receiver => self.rule.to.to_string(),
        }
    }
}

impl<'a> Finder<'a> {
    /// Of the rules in force `now`.
    pub fn new(cluster: &'a Cluster, now: SystemTime) -> Self {
        Self {
            cluster,
            now,
            pairs: BTreeMap::new(),
            found: BTreeMap::new(),
            both: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// As [`super::matching`].
    pub fn matching(&mut self, query: &Query) -> &Said<'a> {
        let (cluster, now, ends) = (self.cluster, self.now, (query.src, query.dst));
        let rules = self.both.entry(ends).or_insert_with(|| meaning_both(cluster, ends, now));
        self.heard.entry(question(query)).or_insert_with(|| said(cluster, rules.iter().copied(), query))
    }

    /// Of the allow rules that `direction` keeps the one that misses least of what its default refuses: by what it
    /// misses, then precedence, then the more specific, then the first. None if all miss more than one thing; and none
    /// if a rule misses nothing, for then either the rules are others by now, or one passes it over.
    pub fn nearest(&mut self, query: &Query, direction: Direction) -> Option<Near<'a>> {
        let Query { src, dst, .. } = *query;
        let question = (question(query), direction);
        if let Some(known) = self.found.get(&question) {
            return *known;
        }
        let (cluster, now) = (self.cluster, self.now);
        let rules = match self.pairs.entry((src, dst, direction)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(candidates(cluster, (src, dst), direction, now)),
        };
        let near = least(cluster, rules, query, direction);
        self.found.insert(question, near);
        near
    }
}

fn question(query: &Query) -> Question {
    let Query { src, dst, src_addr, dst_addr, protocol, port } = *query;
    (src, dst, src_addr, dst_addr, protocol, port)
}

/// Whether a selector may mean somebody. Which address a prefix means is not looked at yet.
fn fits(selector: &Selector, who: (Identity, Option<&App>)) -> bool {
    matches!(selector, Selector::Net(_)) || meant(selector, who, None) != Meant::No
}

/// The rules in force that may mean both ends.
fn meaning_both(cluster: &Cluster, (src, dst): (Identity, Identity), now: SystemTime) -> Vec<&Rule> {
    let (from, to) = ((src, app_of(cluster, src.app)), (dst, app_of(cluster, dst.app)));
    let rules = cluster.rules.iter().map(AsRef::as_ref).filter(|rule| holds(rule, now));
    rules.filter(|rule| fits(&rule.from, from) && fits(&rule.to, to)).collect()
}

/// The allow rules in force that `direction` keeps and that may mean one of the ends.
fn candidates(
    cluster: &Cluster,
    (src, dst): (Identity, Identity),
    direction: Direction,
    now: SystemTime,
) -> Vec<&Rule> {
    let (from, to) = ((src, app_of(cluster, src.app)), (dst, app_of(cluster, dst.app)));
    let keeps = |rule: &Rule| {
        let subject = if direction == Direction::Egress { &rule.from } else { &rule.to };
        // An address keeps no rules.
        rule.on.is_none_or(|on| on == direction) && !matches!(subject, Selector::Net(_))
    };
    let rules = cluster.rules.iter().map(AsRef::as_ref);
    let allowing = rules.filter(|rule| rule.action == Action::Allow && holds(rule, now) && keeps(rule));
    allowing.filter(|rule| fits(&rule.from, from) || fits(&rule.to, to)).collect()
}

fn least<'a>(cluster: &Cluster, rules: &[&'a Rule], query: &Query, direction: Direction) -> Option<Near<'a>> {
    let apps = (app_of(cluster, query.src.app), app_of(cluster, query.dst.app));
    let ports = receiver_ports(apps.1, query.dst);
    let peer = |of, addr: Ip| (direction != of).then(|| addr.to_std());
    let (src_at, dst_at) = (peer(Direction::Egress, query.src_addr), peer(Direction::Ingress, query.dst_addr));
    let mut best = None;
    for rule in rules {
        let from = meant(&rule.from, (query.src, apps.0), src_at) != Meant::No;
        let to = meant(&rule.to, (query.dst, apps.1), dst_at) != Meant::No;
        let miss = match (from, to, covers(&rule.traffic, &ports, query)) {
            (true, true, true) => return None,
            (true, true, false) => Miss::Traffic,
            (false, true, true) => Miss::Sender,
            (true, false, true) => Miss::Receiver,
            (false, false, _) | (false, true, false) | (true, false, false) => continue,
        };
        let key = (miss, Reverse(rule.precedence), Reverse(specific(rule)));
        // Of two that are equal the first stays.
        if best.as_ref().is_none_or(|(least, _)| key < *least) {
            best = Some((key, Near { rule, miss }));
        }
    }
    best.map(|(_, near)| near)
}

/// How much a rule says of whom and what it means; the lengths of prefixes part what is equal otherwise.
fn specific(rule: &Rule) -> (u32, u32) {
    let of = |selector: &Selector| match selector {
        Selector::Everyone => (0, 0),
        Selector::Any => (1, 0),
        Selector::Labelled(labelled) => match labelled.apps {
            Apps::Every | Apps::With(_) => (2, 0),
            Apps::Named(_) => (4, 0),
        },
        Selector::App(_) | Selector::Host | Selector::Outside => (3, 0),
        Selector::Net(net) => (3, 1 + u32::from(net.prefix().len())),
        Selector::Role(..) => (4, 0),
    };
    let traffic = match &rule.traffic {
        Traffic::Any => 0,
        Traffic::Tcp(Ports::All)
        | Traffic::Udp(Ports::All)
        | Traffic::Sctp(Ports::All)
        | Traffic::Icmp(Types::All)
        | Traffic::Icmpv6(Types::All) => 1,
        Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Sctp(_) | Traffic::Icmp(_) | Traffic::Icmpv6(_) => 2,
    };
    let (from, to) = (of(&rule.from), of(&rule.to));
    (from.0 + to.0 + traffic, from.1 + to.1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::model::example;
    use weft_common::id::RoleId;

    fn of(cluster: &Cluster, who: &str) -> Identity {
        if who == "outside" {
            return Identity::OUTSIDE;
        }
        let (app, role) = who.split_once('/').unwrap();
        let app = &cluster.apps[&app.parse().unwrap()];
        let known = || app.roles[&role.parse().unwrap()].number;
        Identity::new(app.number, if role == "?" { RoleId::UNKNOWN } else { known() })
    }

    fn query(cluster: &Cluster, from: &str, to: &str, port: u16) -> Query {
        let addr = |who: &str| Ip::from_v4(if who == "outside" { [203, 0, 113, 9] } else { [10, 1, 1, 9] });
        let (src, dst) = (of(cluster, from), of(cluster, to));
        Query { src, dst, src_addr: addr(from), dst_addr: addr(to), protocol: 6, port }
    }

    /// What is nearest to TCP to port 5432 that the receiver's default refuses.
    fn check_at(direction: Direction, rules: &[&str], (from, to): (&str, &str), expect: Option<(&str, Miss, &str)>) {
        let cluster = Cluster { rules: example::rules(rules), ..example::cluster() };
        let query = query(&cluster, from, to, 5432);
        let mut finder = Finder::new(&cluster, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        for _ in 0..2 {
            let near = finder.nearest(&query, direction);
            let near = near.map(|near| (near.rule.to_string(), near.miss, near.only()));
            let expect = expect.map(|(rule, miss, only)| (rule.to_owned(), miss, only.to_owned()));
            assert_eq!(near, expect, "{rules:?}");
        }
    }

    fn check(rules: &[&str], expect: Option<(&str, Miss, &str)>) {
        check_at(Direction::Ingress, rules, ("shop/web", "blog/db"), expect);
    }

    #[test]
    fn the_rule_that_misses_least_is_the_nearest() {
        let ends = "allow shop/web -> blog/db tcp/80";
        let sender = "allow blog -> blog/db tcp/5432";
        let receiver = "allow shop/web -> shop/db tcp/5432";
        check(&[receiver, sender, ends], Some((ends, Miss::Traffic, "tcp/80")));
        check(&[receiver, sender], Some((sender, Miss::Sender, "blog")));
        check(&[receiver], Some((receiver, Miss::Receiver, "shop/db")));
        check(&[], None);
    }

    #[test]
    fn a_rule_that_misses_two_things_is_not_near() {
        check(&["allow shop/db -> blog/db tcp/80"], None);
        check(&["allow shop/web -> shop/db udp"], None);
        check(&["allow shop/db -> shop/db tcp/5432"], None);
    }

    #[test]
    fn of_equal_misses_precedence_then_the_more_specific_then_the_first_is_nearest() {
        let (wide, narrow) = ("allow any -> blog any", "allow blog/db -> blog/db tcp/5432");
        let wide_missing = "allow host -> blog any";
        check(&[wide_missing, narrow], Some((narrow, Miss::Sender, "blog/db")));
        let strong = "allow host -> blog any precedence 1001";
        check(&[narrow, strong], Some((strong, Miss::Sender, "host")));
        let (first, second) = ("allow shop/web -> blog/db tcp/1", "allow shop/web -> blog/db tcp/2");
        check(&[first, second], Some((first, Miss::Traffic, "tcp/1")));
        check(&[second, first], Some((second, Miss::Traffic, "tcp/2")));
        let (near, far) = ("allow 10.9.1.0/24 -> blog tcp", "allow 10.9.0.0/16 -> blog tcp");
        check(&[far, near], Some((near, Miss::Sender, "10.9.1.0/24")));
        check(&[wide, narrow], None);
    }

    #[test]
    fn only_what_allows_and_is_in_force_is_near() {
        check(&["deny shop/web -> blog/db tcp/80", "reject blog -> blog/db tcp/5432"], None);
        check(&["pass blog -> blog/db tcp/5432 precedence -1", "shadow allow blog -> blog/db tcp/5432"], None);
        check(&["allow blog -> blog/db tcp/5432 until 2001-01-01T00:00:00Z"], None);
        let lasting = "allow blog -> blog/db tcp/5432 until 2101-01-01T00:00:00Z";
        check(&[lasting], Some((lasting, Miss::Sender, "blog")));
    }

    #[test]
    fn a_rule_that_the_refusing_side_does_not_keep_is_not_near() {
        let (out, into) = ("allow shop/web -> blog tcp/1 on egress", "allow shop/web -> blog tcp/2 on ingress");
        check(&[out, into], Some((into, Miss::Traffic, "tcp/2")));
        let pair = ("shop/web", "blog/db");
        check_at(Direction::Egress, &[out, into], pair, Some((out, Miss::Traffic, "tcp/1")));
        let outside = ("shop/web", "outside");
        // The receiver would keep it, and the prefix is the sender's.
        check_at(Direction::Egress, &["allow 192.0.2.0/24 -> outside any"], outside, None);
        let net = "allow shop/web -> 203.0.113.0/24 tcp/80";
        check_at(Direction::Egress, &[net], outside, Some((net, Miss::Traffic, "tcp/80")));
        let net = "allow shop -> 198.51.100.0/24 tcp";
        check_at(Direction::Egress, &[net], outside, Some((net, Miss::Receiver, "198.51.100.0/24")));
    }

    #[test]
    fn an_end_whose_role_is_not_known_is_met_by_a_rule_for_one_of_its_roles() {
        let rule = "allow shop/web -> blog/db tcp/80";
        check_at(Direction::Ingress, &[rule], ("shop/?", "blog/db"), Some((rule, Miss::Traffic, "tcp/80")));
    }

    /// By how many rules are looked at again, and not by a clock.
    #[test]
    fn a_scan_of_ports_looks_at_all_rules_once() {
        let others = (0..50_000).map(|n| format!("allow host -> shop/db tcp/{}", n % 60_000 + 1));
        let near = "allow shop/web -> blog/db tcp/80";
        let cluster = Cluster { rules: example::rules(others.chain([near.to_owned()])), ..example::cluster() };
        let mut finder = Finder::new(&cluster, UNIX_EPOCH);
        for port in 1000..2000 {
            let found = finder.nearest(&query(&cluster, "shop/web", "blog/db", port), Direction::Ingress);
            assert_eq!(found.map(|near| near.rule.to_string()).as_deref(), Some(near));
        }
        let looked: Vec<_> = finder.pairs.values().map(Vec::len).collect();
        assert_eq!((looked.as_slice(), finder.found.len()), (&[1][..], 1000));
    }
}
