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
    policy::{BY_DEFAULT, Decision, Direction, Query, decide, earlier, shadow},
    verdict::DropReason,
};

mod following;
mod meaning;

use super::{
    NodePlan,
    facts::{Clock, Facts},
    plan,
};
use crate::model::{
    app::{Defaults, Gate},
    cluster::Cluster,
    example,
};

use meaning::{Counting, UPPER, within};

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
    /// Of one app, or of those with certain labels; and with certain labels themselves.
    Labelled(Result<usize, Vec<Demand>>, Vec<Demand>),
    Host,
    Outside,
    Any,
    Everyone,
    Net(Net, Vec<Net>),
}

/// A key, and what has to hold of it.
#[derive(Clone, Debug)]
enum Demand {
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    Absent(&'static str),
}

#[derive(Clone, Debug)]
enum What {
    Any,
    Ports(u8, Vec<(u16, u16)>, Vec<&'static str>),
    Icmp(u8, Option<u8>, Option<u8>),
}

type Tags = Vec<(&'static str, &'static str)>;

#[derive(Clone, Debug, Default)]
struct Tier {
    labels: Tags,
    /// Name, protocol, number.
    ports: Vec<(&'static str, u8, u16)>,
}

#[derive(Clone, Debug)]
struct Realm {
    labels: Tags,
    roles: Vec<Tier>,
    defaults: Defaults,
    /// Its policy is only tried.
    shadow: bool,
}

/// Written, so that it can be printed when the proof fails.
#[derive(Clone, Debug)]
struct Statement {
    action: usize,
    from: Who,
    to: Who,
    what: What,
    on: Option<Direction>,
    precedence: i32,
    shadow: bool,
    /// In seconds; it ends at their end.
    until: Option<u64>,
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
    /// In nanoseconds.
    time: u64,
}

struct World {
    apps: Vec<Realm>,
    rules: Vec<Statement>,
}

/// In the order in which they beat each other.
const ACTIONS: [&str; 4] = ["pass", "allow", "deny", "reject"];
impl World {
    fn random(random: &mut Random) -> Self {
        let gate = |random: &mut Random| if random.chance(50) { Gate::Open } else { Gate::Closed };
        let tags = |random: &mut Random| -> Tags {
            let mut tags = Tags::new();
            for key in KEYS {
                if random.chance(50) {
                    tags.push((key, *random.one(&VALUES)));
                }
            }
            tags
        };
        let tier = |random: &mut Random| {
            let mut ports = Vec::new();
            for name in PORTS {
                for protocol in [6, 17] {
                    if random.chance(40) {
                        ports.push((name, protocol, *random.one(&[22, 80, 81, 443, 8050])));
                    }
                }
            }
            Tier { labels: tags(random), ports }
        };
        let app = |random: &mut Random| {
            let defaults = Defaults {
                inside: gate(random),
                from_apps: gate(random),
                from_host: gate(random),
                to_outside: gate(random),
            };
            let roles = (0..random.below(4)).map(|_| tier(random)).collect();
            Realm { labels: tags(random), roles, defaults, shadow: random.chance(10) }
        };
        let apps: Vec<_> = (0..=random.below(3)).map(|_| app(random)).collect();
        let mut world = Self { apps, rules: Vec::new() };
        for _ in 0..random.below(14) {
            let rule = world.statement(random);
            if matches!((&rule.from, &rule.to), (Who::Net(..), Who::Net(..))) {
                continue;
            }
            let has_names = matches!(&rule.what, What::Ports(_, _, names) if !names.is_empty());
            if has_names && matches!(rule.to, Who::Net(..) | Who::Host | Who::Outside) {
                continue;
            }
            let says = |rule| Self::text(rule).parse::<crate::model::rule::Rule>().unwrap();
            let again = world.rules.iter().any(|old| says(old).says_same(&says(&rule)));
            if !again {
                world.rules.push(rule);
            }
        }
        world
    }

    fn statement(&self, random: &mut Random) -> Statement {
        let (from, to) = (self.who(random), self.who(random));
        let precedence = *random.one(&[-2, -1, 0, 1, 2, 2, 3, 1000, UPPER, UPPER + 1]);
        let passes = !(0..UPPER).contains(&precedence);
        let on = match random.below(6) {
            0 | 1 if !matches!(to, Who::Net(..)) => Some(Direction::Ingress),
            2 | 3 if !matches!(from, Who::Net(..)) => Some(Direction::Egress),
            _ => None,
        };
        let action = random.below(4).max(usize::from(!passes));
        // Of those that can end many do, and some have.
        let until = (action == 1 && random.chance(40)).then(|| *random.one(&ENDS));
        Statement { action, from, to, what: what(random), on, precedence, shadow: random.chance(15), until }
    }

    fn who(&self, random: &mut Random) -> Who {
        let app = random.below(self.apps.len());
        match random.below(15) {
            0 | 1 if !self.apps[app].roles.is_empty() => Who::Role(app, random.below(self.apps[app].roles.len())),
            10 => Who::Everyone,
            11 => Who::Labelled(Ok(app), demands(random)),
            12 | 13 => Who::Labelled(Err(demands(random)), demands(random)),
            14 => Who::Labelled(Err(Vec::new()), demands(random)),
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
        let roles = self.apps[app].roles.len();
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
        let time = random.one(&ENDS) * SECOND - u64::from(random.chance(50));
        Packet { src, dst, src_addr, dst_addr, protocol, port, time: time.max(NOW) }
    }

    fn text(rule: &Statement) -> String {
        let Statement { action, from, to, what, on, precedence, shadow, until } = rule;
        let who = |who: &Who| match who {
            Who::App(app) => format!("a{app}"),
            Who::Role(app, role) => format!("a{app}/r{role}"),
            Who::Host => "host".to_owned(),
            Who::Outside => "outside".to_owned(),
            Who::Any => "any".to_owned(),
            Who::Everyone => "everyone".to_owned(),
            Who::Labelled(Ok(app), demands) => format!("a{app}{{{}}}", said(demands)),
            Who::Labelled(Err(apps), demands) => format!("[{}]{{{}}}", said(apps), said(demands)),
            Who::Net(net, holes) => {
                let text = |net: &Net| format!("{}/{}", net.addr, net.len);
                let except = if holes.is_empty() { String::new() } else { " except ".to_owned() };
                format!("{}{except}{}", text(net), holes.iter().map(text).collect::<Vec<_>>().join(","))
            }
        };
        let what = match what {
            What::Any => "any".to_owned(),
            What::Ports(protocol, ranges, names) => {
                let mut text = match protocol {
                    6 => "tcp",
                    17 => "udp",
                    _ => "sctp",
                }
                .to_owned();
                let ranges = ranges.iter().map(|(from, to)| format!("{from}-{to}"));
                for (at, part) in ranges.chain(names.iter().map(|name| (*name).to_owned())).enumerate() {
                    write!(text, "{}{part}", if at == 0 { "/" } else { "," }).unwrap();
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
        let on = match on {
            None => "",
            Some(Direction::Ingress) => " on ingress",
            Some(Direction::Egress) => " on egress",
        };
        let until =
            until.map_or_else(String::new, |end| format!(" until 2026-01-31T09:{:02}:{:02}Z", end / 60, end % 60));
        let shadow = if *shadow { "shadow " } else { "" };
        format!("{shadow}{} {} -> {} {what}{on} precedence {precedence}{until}", ACTIONS[*action], who(from), who(to))
    }

    fn cluster(&self) -> Cluster {
        let text = |tags: &Tags| tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let apps = self.apps.iter().enumerate().map(|(at, Realm { labels, roles, defaults, shadow })| {
            let names: Vec<_> = (0..roles.len()).map(|role| format!("r{role}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let mut app = example::app(&format!("a{at}"), &[&format!("10.{at}.0.0/16")], &names);
            app.defaults = *defaults;
            app.shadow = *shadow;
            app.labels = text(labels).parse().unwrap();
            for (role, tier) in app.roles.values_mut().zip(roles) {
                let protocol = |number: &u8| if *number == 6 { "tcp" } else { "udp" };
                let ports = tier.ports.iter().map(|(name, number, port)| format!("{name}={}/{port}", protocol(number)));
                role.labels = text(&tier.labels).parse().unwrap();
                role.ports = ports.collect::<Vec<_>>().join(",").parse().unwrap();
            }
            (app.name.clone(), app)
        });
        let rules = self.rules.iter().map(|rule| Arc::new(Self::text(rule).parse().unwrap()));
        Cluster { apps: Arc::new(apps.collect()), rules: Arc::new(rules.collect()), ..Cluster::default() }
    }
}

const SECOND: u64 = 1_000_000_000;
/// When the host had been up for no time: 2026-01-31T09:00:00Z.
const BOOT: u64 = 1_769_850_000 * SECOND;
/// When the plans are made, after the boot.
const NOW: u64 = 100 * SECOND;
/// When rules end, in seconds after the boot.
const ENDS: [u64; 5] = [90, 100, 101, 160, 1000];

const KEYS: [&str; 3] = ["tier", "env", "example.org/team"];
const VALUES: [&str; 3] = ["a", "b", ""];
const PORTS: [&str; 2] = ["http", "admin"];

fn demands(random: &mut Random) -> Vec<Demand> {
    let values = |random: &mut Random| (0..=random.below(2)).map(|_| *random.one(&VALUES)).collect();
    let one = |random: &mut Random| {
        let key = *random.one(&KEYS);
        match random.below(4) {
            0 => Demand::In(key, values(random)),
            1 => Demand::NotIn(key, values(random)),
            2 => Demand::Exists(key),
            _ => Demand::Absent(key),
        }
    };
    (0..random.below(3)).map(|_| one(random)).collect()
}

fn said(demands: &[Demand]) -> String {
    let one = |demand: &Demand| match demand {
        Demand::In(key, values) if values.len() == 1 => format!("{key}={}", values[0]),
        Demand::NotIn(key, values) if values.len() == 1 => format!("{key}!={}", values[0]),
        Demand::In(key, values) => format!("{key} in ({})", values.join(",")),
        Demand::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
        Demand::Exists(key) => (*key).to_owned(),
        Demand::Absent(key) => format!("!{key}"),
    };
    demands.iter().map(one).collect::<Vec<_>>().join(",")
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
            let ranges = (0..random.below(4)).map(|_| range(random)).collect();
            let mut names: Vec<_> = (0..random.below(3)).map(|_| *random.one(&PORTS)).collect();
            names.sort_unstable();
            names.dedup();
            What::Ports(*random.one(&[6, 6, 17, 132]), ranges, names)
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
        Role::Known(role) => app.roles[&format!("r{role}").parse().unwrap()].number,
        Role::None => RoleId(0),
        Role::Unknown => RoleId(0xffff),
    };
    Identity::new(app.number, role)
}

/// What is decided, and what is only tried and would decide otherwise.
fn ask(plan: &NodePlan, cluster: &Cluster, packet: &Packet) -> (Decision, u32) {
    let query = Query {
        src: identity(cluster, packet.src),
        dst: identity(cluster, packet.dst),
        src_addr: Ip::from(packet.src_addr),
        dst_addr: Ip::from(packet.dst_addr),
        protocol: packet.protocol,
        port: packet.port,
    };
    let policy = plan.policy.at(packet.time);
    let decision = decide(&policy, Epoch(0), &query);
    let passes = u64::from(decision.verdict.is_ok());
    let (tried, until) = if plan.config.shadow != 0 { shadow(&policy, Epoch(0), &query, passes) } else { (0, 0) };
    (Decision { until: earlier(decision.until, until), ..decision }, tried)
}

#[test]
fn compiled_tables_say_what_the_rules_say() {
    const WORLDS: u64 = 1_000;
    const QUESTIONS: usize = 1_000;
    let facts = Facts { clock: Clock { zero: BOOT, now: NOW }, ..Facts::default() };
    let (mut seen, mut tries, mut ended) = ([0_usize; 4], 0, 0);
    // One plan follows the other, so numbers that are kept are part of what is proven.
    let mut before = NodePlan::default();
    for seed in 0..WORLDS {
        let mut random = Random(seed);
        let world = World::random(&mut random);
        let cluster = world.cluster();
        let plan = plan(&cluster, &"h1".parse().unwrap(), &facts, &before);
        let number = |rule: &Arc<crate::model::rule::Rule>| {
            plan.policy.names.iter().find(|(_, named)| named.says_same(rule)).map(|(number, _)| *number).unwrap()
        };
        let numbers: Vec<u32> = cluster.rules.iter().map(number).collect();
        for _ in 0..QUESTIONS {
            let packet = world.packet(&mut random);
            let (found, found_tried) = ask(&plan, &cluster, &packet);
            let number = |rule: Option<usize>| rule.map_or(0, |at| numbers[at]);
            let says = |packet: &Packet| {
                let (verdict, rule, direction) = world.answer(packet, Counting::InForce);
                let (tried_verdict, tried_rule, _) = world.answer(packet, Counting::Tried);
                let tried = match (verdict.is_ok() == tried_verdict.is_ok(), tried_rule) {
                    (true, _) => 0,
                    (false, None) => BY_DEFAULT,
                    (false, rule) => number(rule),
                };
                (verdict, number(rule), direction, tried)
            };
            let about = || {
                let rules: Vec<_> = world.rules.iter().map(World::text).collect();
                format!("seed {seed}, {packet:?}, apps {:?}, rules {rules:#?}", world.apps)
            };
            let until = found.until;
            let found = (found.verdict, found.rule, found.direction, found_tried);
            let (verdict, .., tried) = says(&packet);
            assert_eq!(found, says(&packet), "{}", about());
            // It holds for as long as it says: until just before, and where no end is said for ever.
            if until != 0 || random.chance(10) {
                let last = until.wrapping_sub(1);
                assert!(last >= packet.time, "{}", about());
                assert_eq!(found, says(&Packet { time: last, ..packet }), "until {last}: {}", about());
            }
            ended += usize::from(until != 0 && found != says(&Packet { time: until, ..packet }));
            tries += usize::from(tried != 0);
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
    assert!(seen.iter().all(|count| *count > 30_000), "the questions are one-sided: {seen:?}");
    assert!(tries > 20_000, "{tries}");
    assert!(ended > 5_000, "few answers end: {ended}");
}
