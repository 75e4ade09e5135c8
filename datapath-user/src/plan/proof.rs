//! The proof that compiled tables mean what the rules say: random clusters, rules and questions, answered by
//! `decide` over the tables and by a model that walks the list of rules. The model is written from the text at
//! the head of [`super::rules`] and shares no code with the compiler; it gives its rules to it as text.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weft_common::{
    addr::Ip,
    id::{AppId, Epoch, Identity, RoleId},
    policy::{Decision, Direction, Query, decide},
    verdict::DropReason,
};

use super::{NodePlan, facts::Facts, plan};
use crate::model::{
    app::{Defaults, Gate},
    cluster::Cluster,
    example,
};

/// SplitMix64: a run is repeated by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
struct Net {
    addr: IpAddr,
    len: u8,
}

#[derive(Clone, Debug)]
enum Who {
    App(usize),
    Role(usize, usize),
    Host,
    Outside,
    Any,
    Net(Net, Vec<Net>),
}

#[derive(Clone, Debug)]
enum What {
    Any,
    Ports(u8, Vec<(u16, u16)>),
    Icmp(u8, Option<u8>, Option<u8>),
}

/// Written, so that it can be printed when the proof fails.
#[derive(Clone, Debug)]
struct Statement {
    action: usize,
    from: Who,
    to: Who,
    what: What,
    points: i64,
    precedence: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Known(usize),
    None,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Party {
    Endpoint(usize, Role),
    Host,
    Outside,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    src: Party,
    dst: Party,
    src_addr: IpAddr,
    dst_addr: IpAddr,
    protocol: u8,
    port: u16,
}

struct World {
    /// Roles and defaults of each app.
    apps: Vec<(usize, Defaults)>,
    rules: Vec<Statement>,
}

const ACTIONS: [&str; 3] = ["allow", "deny", "reject"];

impl World {
    fn random(random: &mut Random) -> Self {
        let gate = |random: &mut Random| if random.chance(50) { Gate::Open } else { Gate::Closed };
        let app = |random: &mut Random| {
            let defaults = Defaults {
                inside: gate(random),
                from_apps: gate(random),
                from_host: gate(random),
                to_outside: gate(random),
            };
            (random.below(4), defaults)
        };
        let apps: Vec<_> = (0..=random.below(3)).map(|_| app(random)).collect();
        let mut world = Self { apps, rules: Vec::new() };
        for _ in 0..random.below(14) {
            let rule = world.statement(random);
            let again = world.rules.iter().any(|old| Self::text(old) == Self::text(&rule));
            let two_nets = matches!((&rule.from, &rule.to), (Who::Net(..), Who::Net(..)));
            if !again && !two_nets {
                world.rules.push(rule);
            }
        }
        world
    }

    fn statement(&self, random: &mut Random) -> Statement {
        let what = what(random);
        Statement {
            action: random.below(3),
            from: self.who(random),
            to: self.who(random),
            points: points(&what),
            what,
            precedence: *random.one(&[1, 2, 2, 3, 1000]),
        }
    }

    fn who(&self, random: &mut Random) -> Who {
        let app = random.below(self.apps.len());
        match random.below(10) {
            0 | 1 if self.apps[app].0 > 0 => Who::Role(app, random.below(self.apps[app].0)),
            0..=4 => Who::App(app),
            5 => Who::Host,
            6 => Who::Outside,
            7 => Who::Any,
            _ => {
                let net = net(random);
                let holes = (0..random.below(3)).map(|_| hole(random, &net));
                Who::Net(net.clone(), holes.flatten().collect())
            }
        }
    }

    fn party(&self, random: &mut Random) -> Party {
        let app = random.below(self.apps.len());
        let roles = self.apps[app].0;
        match random.below(8) {
            0 => Party::Host,
            1 => Party::Outside,
            2 | 3 => Party::Endpoint(app, Role::Unknown),
            4 => Party::Endpoint(app, Role::None),
            _ if roles == 0 => Party::Endpoint(app, Role::None),
            _ => Party::Endpoint(app, Role::Known(random.below(roles))),
        }
    }

    fn packet(&self, random: &mut Random) -> Packet {
        let family = random.chance(50);
        let (src_addr, dst_addr) = (address(random, family), address(random, family));
        let (src, dst) = (self.party(random), self.party(random));
        let protocol = *random.one(&[6, 6, 17, 132, 1, 58, 47]);
        let port = *random
            .one(&[0, 1, 22, 79, 80, 81, 443, 1023, 1024, 8000, 8050, 65535, 0x0800, 0x0801, 0x0300, 0x8000, 0x8100]);
        Packet { src, dst, src_addr, dst_addr, protocol, port }
    }

    fn text(rule: &Statement) -> String {
        let Statement { action, from, to, what, points: _, precedence } = rule;
        let who = |who: &Who| match who {
            Who::App(app) => format!("a{app}"),
            Who::Role(app, role) => format!("a{app}/r{role}"),
            Who::Host => "host".to_owned(),
            Who::Outside => "outside".to_owned(),
            Who::Any => "any".to_owned(),
            Who::Net(net, holes) => {
                let text = |net: &Net| format!("{}/{}", net.addr, net.len);
                let except = if holes.is_empty() { String::new() } else { " except ".to_owned() };
                format!("{}{except}{}", text(net), holes.iter().map(text).collect::<Vec<_>>().join(","))
            }
        };
        let what = match what {
            What::Any => "any".to_owned(),
            What::Ports(protocol, ranges) => {
                let mut text = match protocol {
                    6 => "tcp",
                    17 => "udp",
                    _ => "sctp",
                }
                .to_owned();
                for (at, (from, to)) in ranges.iter().enumerate() {
                    write!(text, "{}{from}-{to}", if at == 0 { "/" } else { "," }).unwrap();
                }
                text
            }
            What::Icmp(protocol, kind, code) => {
                let mut text = if *protocol == 1 { "icmp" } else { "icmpv6" }.to_owned();
                for part in kind.iter().chain(code) {
                    write!(text, "/{part}").unwrap();
                }
                text
            }
        };
        format!("{} {} -> {} {what} precedence {precedence}", ACTIONS[*action], who(from), who(to))
    }

    fn cluster(&self) -> Cluster {
        let apps = self.apps.iter().enumerate().map(|(at, (roles, defaults))| {
            let roles: Vec<_> = (0..*roles).map(|role| format!("r{role}")).collect();
            let roles: Vec<_> = roles.iter().map(String::as_str).collect();
            let mut app = example::app(&format!("a{at}"), &[&format!("10.{at}.0.0/16")], &roles);
            app.defaults = *defaults;
            (app.name.clone(), app)
        });
        let rules = self.rules.iter().map(|rule| Self::text(rule).parse().unwrap());
        Cluster { apps: Arc::new(apps.collect()), rules: Arc::new(rules.collect()), ..Cluster::default() }
    }

    /// What the text says, rule by rule.
    fn answer(&self, packet: &Packet) -> (Result<(), DropReason>, Option<usize>, Direction) {
        let out = self.one_way(packet, Direction::Egress);
        if out.0.is_err() {
            return (out.0, out.1, Direction::Egress);
        }
        let into = self.one_way(packet, Direction::Ingress);
        match into {
            (Ok(()), None) => (out.0, out.1, Direction::Egress),
            (verdict, rule) => (verdict, rule, Direction::Ingress),
        }
    }

    fn one_way(&self, packet: &Packet, direction: Direction) -> (Result<(), DropReason>, Option<usize>) {
        let mut best: Option<([i64; 7], usize)> = None;
        for (at, rule) in self.rules.iter().enumerate() {
            let (subject, subject_rule, peer, peer_rule, peer_addr) = match direction {
                Direction::Egress => (packet.src, &rule.from, packet.dst, &rule.to, packet.dst_addr),
                Direction::Ingress => (packet.dst, &rule.to, packet.src, &rule.from, packet.src_addr),
            };
            let allows = rule.action == 0;
            if !is(subject_rule, subject, allows, None)
                || !is(peer_rule, peer, allows, Some(peer_addr))
                || !covers(&rule.what, packet)
            {
                continue;
            }
            let subject_closeness = match subject_rule {
                Who::Role(..) => 3,
                Who::App(_) | Who::Host | Who::Outside => 2,
                Who::Any | Who::Net(..) => 1,
            };
            let (peer_closeness, bits) = match peer_rule {
                Who::Role(..) | Who::Host | Who::Outside => (4, 0),
                Who::App(_) => (3, 0),
                Who::Any => (2, 0),
                Who::Net(net, _) => (1, i64::from(net.len)),
            };
            let merit = [
                i64::from(rule.precedence),
                i64::try_from(rule.action).unwrap(),
                peer_closeness,
                bits,
                subject_closeness,
                -rule.points,
                -i64::try_from(at).unwrap(),
            ];
            if best.is_none_or(|(old, _)| merit > old) {
                best = Some((merit, at));
            }
        }
        match best {
            Some((merit, at)) => {
                let verdict = [Ok(()), Err(DropReason::PolicyDenied), Err(DropReason::PolicyRejected)];
                (verdict[usize::try_from(merit[1]).unwrap()], Some(at))
            }
            None if self.default(packet, direction) == Gate::Open => (Ok(()), None),
            None => (Err(DropReason::PolicyDefault), None),
        }
    }

    fn default(&self, packet: &Packet, direction: Direction) -> Gate {
        match (direction, packet.src, packet.dst) {
            (Direction::Egress, Party::Endpoint(app, _), Party::Host | Party::Outside) => self.apps[app].1.to_outside,
            (Direction::Egress, ..) | (Direction::Ingress, _, Party::Host | Party::Outside) => Gate::Open,
            (Direction::Ingress, Party::Endpoint(from, _), Party::Endpoint(to, _)) if from == to => {
                self.apps[to].1.inside
            }
            (Direction::Ingress, Party::Endpoint(..), Party::Endpoint(to, _)) => self.apps[to].1.from_apps,
            (Direction::Ingress, Party::Host, Party::Endpoint(to, _)) => self.apps[to].1.from_host,
            (Direction::Ingress, Party::Outside, Party::Endpoint(..)) => Gate::Closed,
        }
    }
}

/// Whether a side of a rule speaks of a party. `addr` is there if addresses count.
fn is(who: &Who, party: Party, allows: bool, addr: Option<IpAddr>) -> bool {
    match (who, party) {
        (Who::Any, Party::Endpoint(..)) | (Who::Host, Party::Host) | (Who::Outside, Party::Outside) => true,
        (Who::App(app), Party::Endpoint(of, _)) => *app == of,
        (Who::Role(app, role), Party::Endpoint(of, has)) => {
            *app == of && (has == Role::Known(*role) || (allows && has == Role::Unknown))
        }
        (Who::Net(net, holes), _) => {
            addr.is_some_and(|addr| within(net, addr) && !holes.iter().any(|hole| within(hole, addr)))
        }
        _ => false,
    }
}

fn within(net: &Net, addr: IpAddr) -> bool {
    match (net.addr, addr) {
        (IpAddr::V4(net_addr), IpAddr::V4(addr)) => {
            (0..net.len).all(|bit| (u32::from(net_addr) ^ u32::from(addr)) >> (31 - bit) & 1 == 0)
        }
        (IpAddr::V6(net_addr), IpAddr::V6(addr)) => {
            (0..net.len).all(|bit| (u128::from(net_addr) ^ u128::from(addr)) >> (127 - bit) & 1 == 0)
        }
        _ => false,
    }
}

fn covers(what: &What, packet: &Packet) -> bool {
    match what {
        What::Any => true,
        What::Ports(protocol, ranges) => {
            packet.protocol == *protocol
                && (ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&packet.port)))
        }
        What::Icmp(protocol, kind, code) => {
            let [has_kind, has_code] = packet.port.to_be_bytes();
            let same_protocol = packet.protocol == *protocol;
            let echo_of_v6 = *protocol == 1 && packet.protocol == 58;
            let right_kind = match kind {
                None => same_protocol || echo_of_v6,
                Some(kind) if same_protocol => *kind == has_kind,
                Some(8) if echo_of_v6 => has_kind == 128,
                Some(0) if echo_of_v6 => has_kind == 129,
                Some(_) => false,
            };
            right_kind && code.is_none_or(|code| code == has_code)
        }
    }
}

/// How many protocols and ports it speaks of.
fn points(what: &What) -> i64 {
    match what {
        What::Any => i64::MAX,
        What::Ports(_, ranges) if ranges.is_empty() => 65536,
        What::Ports(_, ranges) => {
            let mut sorted = ranges.clone();
            sorted.sort_unstable();
            // The ports below `next` are counted.
            let (mut count, mut next) = (0, 0_i64);
            for (from, to) in sorted {
                let (from, end) = (next.max(from.into()), i64::from(to) + 1);
                count += (end - from).max(0);
                next = next.max(end);
            }
            count
        }
        What::Icmp(protocol, kind, code) => {
            let twice = *protocol == 1 && matches!(kind, None | Some(0 | 8));
            let one = match (kind, code) {
                (None, _) => 65536,
                (Some(_), None) => 256,
                (Some(_), Some(_)) => 1,
            };
            if twice { 2 * one } else { one }
        }
    }
}

fn what(random: &mut Random) -> What {
    match random.below(6) {
        0 | 1 => What::Any,
        2 => {
            let kind = random.chance(70).then(|| *random.one(&[0, 3, 8, 128, 129]));
            let code = kind.and_then(|_| random.chance(30).then(|| *random.one(&[0, 1])));
            What::Icmp(*random.one(&[1, 58]), kind, code)
        }
        _ => {
            let ends = [1, 22, 79, 80, 81, 443, 1023, 1024, 8000, 8050, 65535];
            let range = |random: &mut Random| {
                let (a, b) = (*random.one(&ends), *random.one(&ends));
                (a.min(b), a.max(b))
            };
            What::Ports(*random.one(&[6, 6, 17, 132]), (0..random.below(4)).map(|_| range(random)).collect())
        }
    }
}

/// Few addresses, so that prefixes meet them: 10.0.0.0 to 10.3.3.3 and the same under fd00::.
fn address(random: &mut Random, v6: bool) -> IpAddr {
    let mut part = || u8::try_from(random.below(4)).unwrap();
    let (a, b, c) = (part(), part(), part());
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, a.into(), b.into(), c.into()).into()
    } else {
        Ipv4Addr::new(10, a, b, c).into()
    }
}

fn net(random: &mut Random) -> Net {
    let v6 = random.chance(50);
    let len = if v6 {
        *random.one(&[0, 8, 64, 94, 96, 111, 112, 127, 128])
    } else {
        *random.one(&[0, 4, 8, 14, 15, 16, 23, 24, 31, 32])
    };
    truncated(address(random, v6), len)
}

/// A part of `net` that is not all of it.
fn hole(random: &mut Random, net: &Net) -> Option<Net> {
    let bits = if net.addr.is_ipv4() { 32 } else { 128 };
    let more = *random.one(&[1, 2, 8, 16]);
    let inside = (0..40).map(|_| address(random, net.addr.is_ipv6())).find(|addr| within(net, *addr))?;
    (net.len + more <= bits).then(|| truncated(inside, net.len + more))
}

fn truncated(addr: IpAddr, len: u8) -> Net {
    let addr = match addr {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => {
            IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)).into())
        }
    };
    Net { addr, len }
}

fn identity(cluster: &Cluster, party: Party) -> Identity {
    let (app, role) = match party {
        Party::Host => return Identity::new(AppId(1), RoleId(0)),
        Party::Outside => return Identity::new(AppId(2), RoleId(0)),
        Party::Endpoint(app, role) => (&cluster.apps[&format!("a{app}").parse().unwrap()], role),
    };
    let role = match role {
        Role::Known(role) => app.roles[&format!("r{role}").parse().unwrap()],
        Role::None => RoleId(0),
        Role::Unknown => RoleId(0xffff),
    };
    Identity::new(app.number, role)
}

fn ask(plan: &NodePlan, cluster: &Cluster, packet: &Packet) -> Decision {
    let query = Query {
        src: identity(cluster, packet.src),
        dst: identity(cluster, packet.dst),
        src_addr: Ip::from(packet.src_addr),
        dst_addr: Ip::from(packet.dst_addr),
        protocol: packet.protocol,
        port: packet.port,
    };
    decide(plan.policy.as_ref(), Epoch(0), &query)
}

#[test]
fn compiled_tables_say_what_the_rules_say() {
    const WORLDS: u64 = 1_000;
    const QUESTIONS: usize = 150;
    let mut seen = [0_usize; 4];
    // One plan follows the other, so numbers that are kept are part of what is proven.
    let mut before = NodePlan::default();
    for seed in 0..WORLDS {
        let mut random = Random(seed);
        let world = World::random(&mut random);
        let cluster = world.cluster();
        let plan = plan(&cluster, &"h1".parse().unwrap(), &Facts::default(), &before);
        let number = |rule: &crate::model::rule::Rule| {
            plan.policy.names.iter().find(|(_, named)| named.says_same(rule)).map(|(number, _)| *number).unwrap()
        };
        let numbers: Vec<u32> = cluster.rules.iter().map(number).collect();
        for _ in 0..QUESTIONS {
            let packet = world.packet(&mut random);
            let found = ask(&plan, &cluster, &packet);
            let (verdict, rule, direction) = world.answer(&packet);
            let rule = rule.map_or(0, |at| numbers[at]);
            let about = || {
                let rules: Vec<_> = world.rules.iter().map(World::text).collect();
                format!("seed {seed}, {packet:?}, apps {:?}, rules {rules:#?}", world.apps)
            };
            let expect = Decision { verdict, rule, direction };
            assert_eq!(found, expect, "{}", about());
            let kind = match verdict {
                Ok(()) => 0,
                Err(DropReason::PolicyDefault) => 1,
                Err(DropReason::PolicyDenied) => 2,
                Err(_) => 3,
            };
            seen[kind] += 1;
        }
        before = plan;
    }
    assert!(seen.iter().all(|count| *count > 5_000), "the questions are one-sided: {seen:?}");
}
