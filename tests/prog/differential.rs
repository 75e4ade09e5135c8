//! The loaded program and `common::policy::decide` answer alike, and of what is tried as `shadow` does, whatever the
//! tables hold: also tables that no compiler would write.

use super::lab::Lab;
use super::lab::cast::{At, MEMBERS, Member};
use super::lab::machine::{Context, Program, Tables};
use super::lab::ran::Action;
use aya::maps::lpm_trie::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_common::addr::{Ip, Mac};
use weft_common::flow::FlowKey;
use weft_common::header::protocol as number;
use weft_common::id::{AppId, Epoch, Identity, RoleId};
use weft_common::parse::Ports;
use weft_common::policy::{
    Action as Verdict, Direction, PeerKey, PrefixKey, Query, Rank, Rule, RuleKey, RuleSet, Rules, SetKey, Winner,
    decide, earlier, shadow,
};
use weft_common::route::{Endpoint, Hop, Route};
use weft_common::table::{Account, Counts};
use weft_common::verdict::DropReason;
use weft_tests::dice::Dice;
use weft_tests::frame::icmp::message;
use weft_tests::frame::{Frame, Station, protocol, tcp, udp};
use weft_tests::underlay::Family;

/// Tables, and packets through each of them: more than 100 000 questions.
const TABLES: u64 = 125;
const PACKETS: usize = 1_000;

const APPS: [AppId; 6] = [AppId::FIRST, AppId(17), AppId(0x000a_bcde), AppId::LAST, AppId::HOST, AppId::OUTSIDE];
const ROLES: [RoleId; 5] = [RoleId::NONE, RoleId(1), RoleId(2), RoleId::LAST, RoleId::UNKNOWN];
const PORTS: [u16; 12] = [0, 1, 22, 53, 80, 81, 443, 1024, 5432, 32768, 65534, 65535];
const PROTOCOLS: [u8; 8] =
    [number::TCP, number::UDP, number::ICMP, number::ICMPV6, number::SCTP, number::UDP_LITE, 47, 50];
const SETS: u32 = 12;
const LISTS: u32 = 24;
const DESTINATIONS: u8 = 24;
/// Nanoseconds since the boot that no test sees.
const LONG: u64 = u64::MAX;

/// What this draws beside numbers.
trait Draw {
    fn identity(&mut self) -> Identity;
    /// Any precedence and any action, those included that are none; every other one allows.
    fn rank(&mut self) -> Rank;
    fn winner(&mut self) -> Winner;
}

impl Draw for Dice {
    fn identity(&mut self) -> Identity {
        match self.pick(&APPS) {
            app @ (AppId::HOST | AppId::OUTSIDE) => Identity::new(app, RoleId::NONE),
            app => Identity::new(app, self.pick(&ROLES)),
        }
    }

    fn rank(&mut self) -> Rank {
        let precedence = self.pick(&[Rank::PRECEDENCE_MIN, -1, 3, Rank::UPPER - 1, Rank::UPPER, Rank::UPPER + 1]);
        let action = if self.chance(50) { Verdict::Allow as u32 } else { self.below(8) };
        let Rank(none) = Rank::new(precedence, Verdict::Pass);
        Rank(none & !7 | action)
    }

    fn winner(&mut self) -> Winner {
        Winner { rank: self.rank(), id: self.below(1000) }
    }
}

/// The same content twice: here, and in the kernel.
#[derive(Default)]
struct Policy {
    sets: BTreeMap<SetKey, RuleSet>,
    peer_lists: BTreeMap<PeerKey, u32>,
    /// By bits that count, of the whole key.
    prefix_lists: BTreeMap<(u32, PrefixKey), u32>,
    rules: BTreeMap<(u32, RuleKey), Rule>,
}

impl Rules for Policy {
    fn set(&self, key: &SetKey) -> Option<RuleSet> {
        self.sets.get(key).copied()
    }

    fn peer_list(&self, key: &PeerKey) -> Option<u32> {
        self.peer_lists.get(key).copied()
    }

    fn prefix_list(&self, key: &PrefixKey) -> Option<u32> {
        let mut lengths = (32..=160).rev();
        lengths.find_map(|bits| {
            self.prefix_lists.get(&(bits, PrefixKey { addr: masked(key.addr, bits - 32), ..*key })).copied()
        })
    }

    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        let mut lengths = (32..=56).rev();
        lengths.find_map(|bits| self.rules.get(&(bits, rule_key(*key, bits))).copied())
    }

    fn now(&self) -> u64 {
        LONG - 1
    }
}

fn masked(addr: Ip, bits: u32) -> Ip {
    let kept = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Ip::from_v6((u128::from_be_bytes(addr.bytes()) & kept).to_be_bytes())
}

/// The first bits of a key: the list, then protocol, then port.
fn rule_key(key: RuleKey, bits: u32) -> RuleKey {
    let protocol = if bits >= 40 { key.protocol } else { 0 };
    let kept = u16::MAX.checked_shl(56 - bits.max(40)).unwrap_or(0);
    let port = u16::from_be_bytes(key.port) & kept;
    RuleKey { protocol, port: port.to_be_bytes(), ..key }
}

impl Policy {
    fn random(dice: &mut Dice) -> Self {
        let mut policy = Self::default();
        let subjects = APPS.iter().flat_map(|app| ROLES.map(|role| (*app, role)));
        for (app, role) in subjects {
            for direction in [Direction::Ingress, Direction::Egress] {
                // The half that is not in force holds something else, and so does what is tried.
                for slot in [0, 1, SetKey::SHADOW, 1 | SetKey::SHADOW] {
                    if dice.chance(90) {
                        // Of most the last stage holds; some have none that does, or go on behind it.
                        let stages = if dice.chance(40) { dice.below(RuleSet::STAGES + 2) } else { 0 };
                        for stage in 0..=stages {
                            let until = dice.pick(if stage < stages { &[1, 1, 1, 1, LONG][..] } else { &[0, 0, 0, 1] });
                            let set = RuleSet { id: dice.below(SETS), flags: dice.below(128), until };
                            let key = SetKey { app, role, direction: direction as u8, slot, stage };
                            policy.sets.insert(key, set);
                        }
                    }
                }
            }
        }
        for set in 0..SETS {
            for app in APPS.into_iter().chain([AppId::ANY]) {
                for role in ROLES.into_iter().chain([RoleId::ANY]) {
                    if dice.chance(30) {
                        policy.peer_lists.insert(PeerKey { set, app, role, reserved: 0 }, dice.below(LISTS));
                    }
                }
            }
            for _ in 0..6 {
                let number = u8::try_from(dice.roll(DESTINATIONS.into())).expect("few");
                let family = dice.pick(&Family::BOTH);
                let bits = dice.below(129);
                let addr = masked(destination(number, family), bits);
                policy.prefix_lists.insert((32 + bits, PrefixKey { set, addr }), dice.below(LISTS));
            }
        }
        for list in 0..LISTS {
            for _ in 0..8 {
                let bits = match dice.roll(4) {
                    0 => 32,
                    1 => 40,
                    2 => 56,
                    _ => 40 + dice.below(17),
                };
                let port = dice.pick(&PORTS).to_be_bytes();
                let key = rule_key(RuleKey { list, protocol: dice.pick(&PROTOCOLS), port, reserved: 0 }, bits);
                policy.rules.insert((bits, key), Rule { top: dice.winner(), under: dice.winner() });
            }
        }
        policy
    }

    fn write(&self, tables: &mut Tables) {
        let Self { sets, peer_lists, prefix_lists, rules } = self;
        tables.clear_policy();
        sets.iter().for_each(|(key, set)| tables.sets.insert(key, set, 0).expect("write a set"));
        peer_lists.iter().for_each(|(key, list)| tables.peer_lists.insert(key, list, 0).expect("write a list"));
        for ((bits, key), list) in prefix_lists {
            tables.prefix_lists.insert(&Key::new(*bits, *key), list, 0).expect("write a list");
        }
        for ((bits, key), rule) in rules {
            tables.rules.insert(&Key::new(*bits, *key), rule, 0).expect("write a rule");
        }
    }
}

/// An address that a packet may be for. Two of them are on no map: they are outside.
fn destination(number: u8, family: Family) -> Ip {
    match family {
        Family::V4 => Ipv4Addr::new(10, number % 5, number % 3, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, u16::from(number % 5) << 13, 0, 0, 0, 0, number.into(), 1).into(),
    }
}

/// One question: the frame, and how `decide` is asked.
struct Case {
    sender: Member,
    frame: Frame,
    query: Query,
    key: FlowKey,
}

fn case(dice: &mut Dice, senders: &BTreeMap<&str, Identity>, receivers: &BTreeMap<Ip, Identity>) -> Case {
    let sender = dice.pick(&MEMBERS.map(|member| if member.at == At::A { member } else { MEMBERS[0] }));
    let family = dice.pick(&Family::BOTH);
    let from = sender.station(family);
    let dst = destination(u8::try_from(dice.roll(DESTINATIONS.into())).expect("few"), family);
    let to = Station::new([2, 9, 9, 9, 9, 9], dst.to_std());
    let (src_port, dst_port) = (u16::try_from(dice.roll(65536)).expect("a port"), dice.pick(&PORTS));
    let icmp = if family == Family::V4 { number::ICMP } else { number::ICMPV6 };
    let transport = dice.pick(&[number::TCP, number::UDP, icmp, number::SCTP, number::UDP_LITE, 47, 50]);
    let mut port = dst_port;
    let mut ports = Ports { src: src_port, dst: dst_port };
    let frame = match transport {
        number::TCP => tcp(from, to).ports(src_port, dst_port).syn(),
        number::UDP => udp(from, to).ports(src_port, dst_port).frame(),
        number::SCTP | number::UDP_LITE => {
            let head = [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &[0; 8]].concat();
            protocol(from, to, transport).payload(&head).frame()
        }
        number::ICMP | number::ICMPV6 => {
            // Queries: an answer or an error is no question.
            let kind = dice.pick(if family == Family::V4 { &[8_u8, 13, 42][..] } else { &[128, 139, 200] });
            let code = u8::try_from(dice.roll(2)).expect("a code");
            port = u16::from_be_bytes([kind, code]);
            let [high, low] = src_port.to_be_bytes();
            ports = Ports { src: src_port, dst: kind.into() };
            message(from, to, [kind, code], [high, low, 0, 1]).frame()
        }
        _ => {
            (port, ports) = (0, Ports::NONE);
            protocol(from, to, transport).payload(&[0; 8]).frame()
        }
    };
    let src_addr = Ip::from(from.ip);
    let query = Query {
        src: senders[sender.name],
        dst: receivers.get(&dst).copied().unwrap_or(Identity::OUTSIDE),
        src_addr,
        dst_addr: dst,
        protocol: transport,
        port,
    };
    let (key, _) = FlowKey::of(src_addr, dst, transport, ports);
    Case { sender, frame, query, key }
}

/// What the program makes of a packet: why it is dropped, or its flow's rule, the one that is tried, and its end.
type Found = Result<Option<(u32, u32, u64)>, DropReason>;

/// What it has to make of one, and what it counts it under.
fn expected(policy: &Policy, (epoch, is_tried): (Epoch, bool), query: &Query) -> (Found, Account) {
    let decision = decide(policy, epoch, query);
    let passes = decision.verdict.is_ok().into();
    let (tried, until) = if is_tried { shadow(policy, epoch, query, passes) } else { (0, 0) };
    let found = decision.verdict.map(|()| Some((decision.rule, tried, earlier(decision.until, until))));
    let account = Account::new(query.src.app, query.dst.app, decision.rule);
    (found, Account { shadow: tried, ..account })
}

#[test]
fn the_program_and_decide_answer_alike_on_random_tables() {
    let mut lab = Lab::two_hosts();
    let links: BTreeMap<_, _> = MEMBERS
        .iter()
        .filter(|member| member.at == At::A)
        .map(|member| (member.name, lab.link(At::A, member.name)))
        .collect();
    let mut asked = BTreeMap::<&str, u64>::new();
    let mut tried = BTreeMap::<&str, u64>::new();
    for table in 0..TABLES {
        let mut dice = Dice(table);
        let policy = Policy::random(&mut dice);
        let senders: BTreeMap<_, _> = links.keys().map(|name| (*name, dice.identity())).collect();
        let mut receivers = BTreeMap::new();
        for number in 0..DESTINATIONS - 2 {
            for family in Family::BOTH {
                receivers.insert(destination(number, family), dice.identity());
            }
        }
        let epoch = Epoch(u32::try_from(table).expect("few") + 5);
        lab.forget();
        let (machine, space) = lab.machine(At::A);
        let (code, tables) = machine.program(Program::FromWorkload);
        policy.write(tables);
        let is_tried = table % 8 != 0;
        tables.write_epoch(epoch, is_tried.into());
        tables.clear_traffic();
        for member in MEMBERS.iter().filter(|member| member.at == At::A) {
            let [v4, v6] = Family::BOTH.map(|family| Ip::from(member.ip(family)));
            let identity = senders[member.name];
            let endpoint = Endpoint { v4, v6, identity, mac: Mac::new(member.mac()), reserved: 0 };
            tables.endpoints.insert(links[member.name], endpoint, 0).expect("write an endpoint");
        }
        for (ip, identity) in &receivers {
            let route = Route { hop: Hop::local(links["web"]), identity: *identity, mac: Mac([7; 3]), reserved: 0 };
            tables.route((128, *ip), route);
        }
        let mut seen = BTreeSet::new();
        let mut before = tables.policy_drops();
        space.run(|| {
            for _ in 0..PACKETS {
                let case = case(&mut dice, &senders, &receivers);
                // What belongs to a flow is not asked again.
                if !seen.insert(case.key) {
                    continue;
                }
                let (expect, account) = expected(&policy, (epoch, is_tried), &case.query);
                let counted = tables.account(&account);
                let context = Context { link: links[case.sender.name], ..Context::default() };
                let (code, _) = code.run(context, case.frame.bytes()).expect("run the program");
                let after = tables.policy_drops();
                let dropped: Vec<_> = after.iter().filter(|(reason, count)| before[*reason] != **count).collect();
                let found = match (Action::of(Program::FromWorkload, code), &dropped[..]) {
                    (Action::Redirect, []) => {
                        Ok(tables.flow(&case.key).map(|flow| (flow.rule, flow.shadow, flow.until)))
                    }
                    (_, [(reason, _)]) => Err(**reason),
                    other => panic!("{other:?} for {:?} {:?}", case.query, case.frame),
                };
                let length = u32::try_from(case.frame.bytes().len()).expect("short");
                let one =
                    if found.is_ok() { Counts { flows: 1, ..Counts::packet(length, 0) } } else { Counts::drop(0) };
                let counts = Counts { last: counted.last, ..tables.account(&account) };
                let expect = (expect, counted.plus(one));
                assert_eq!((found, counts), expect, "table {table}, {:?}, {account:?}\n{:?}", case.query, case.frame);
                let outcome = match (is_tried, account.shadow, found.is_ok()) {
                    (false, ..) => "nothing is tried",
                    (_, 0, _) => "the same",
                    (.., true) => "would drop",
                    (.., false) => "would pass",
                };
                *tried.entry(outcome).or_default() += 1;
                *asked.entry(found.map_or_else(DropReason::name, |_| "allowed")).or_default() += 1;
                before = after;
            }
        });
    }
    lab.settle();
    let all: u64 = asked.values().sum();
    assert!(all >= 100_000 && asked.len() == 5 && asked.values().all(|count| *count > 1000), "{all}: {asked:?}");
    assert!(tried.len() == 4 && tried.values().all(|count| *count > 1000), "{tried:?}");
}
