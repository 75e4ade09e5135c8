//! The loaded program and `decide` answer alike on what the real compiler makes of random policies: verdict and rule.
//!
//! The policies are Kubernetes' objects, as they are read, and beside them rules that those can not say.

use super::lab::Lab;
use super::lab::cast::At;
use super::lab::machine::{Context, Program};
use super::lab::ran::Action;
use super::lab::rules::Compiled;
use crate::policy::kubernetes::{model::Party, objects::Cluster, query};
use crate::policy::loaded::frame;
use std::collections::{BTreeMap, BTreeSet};
use weft::model::app::{Defaults, Gate};
use weft::model::rule::Rule;
use weft_common::addr::{Ip, Mac};
use weft_common::flow::FlowKey;
use weft_common::header::protocol as number;
use weft_common::id::{Epoch, Identity, RoleId};
use weft_common::parse::Ports;
use weft_common::policy::{Query, decide};
use weft_common::route::{Endpoint, Hop, Route};
use weft_common::table::{Account, Counts};
use weft_common::verdict::DropReason;
use weft_tests::dice::Dice;
use weft_tests::frame::Station;

/// Policies, and flows through each of them.
const POLICIES: u64 = 120;
const FLOWS: usize = 400;

/// Names the half of the tables that plans are made for.
const EPOCH: Epoch = Epoch(2);

/// A rule that objects of Kubernetes can not say, if these words make one.
fn rule(dice: &mut Dice, cluster: &Cluster) -> Option<Rule> {
    const WHO: [&str; 16] = [
        "an address",
        "an address",
        "shop",
        "blog",
        "ops",
        "any",
        "everyone",
        "host",
        "outside",
        "shop{tier=a}",
        "any{!env}",
        "[env=b]{tier in (a,b)}",
        "blog{example.org/team}",
        "10.0.0.0/14 except 10.1.0.0/16",
        "10.2.0.0/16",
        "fd00::/64 except fd00::1:0:0/96",
    ];
    let action = dice.pick(&["allow", "allow", "deny", "reject", "reject", "pass"]);
    let mut who = || match dice.pick(&WHO) {
        "an address" => {
            let pods: Vec<_> = cluster.pods.iter().flat_map(|pod| pod.addrs).collect();
            dice.pick(&pods).to_string()
        }
        who => who.to_owned(),
    };
    let (from, to) = (who(), who());
    let what = dice.pick(&["any", "tcp", "tcp/79-81,443", "udp/53,dns", "tcp/web", "sctp/1-8000", "icmp/8", "icmp"]);
    let on = dice.pick(&["", "", " on ingress", " on egress"]);
    let precedence = dice.pick(&[-1, 0, 499, 500, 501, 1000, 16_777_216, 17_000_000]);
    let until = if action == "allow" && dice.chance(30) { " until 2099-01-01T00:00:00Z" } else { "" };
    format!("{action} {from} -> {to} {what}{on} precedence {precedence}{until}").parse().ok()
}

#[test]
fn the_program_and_decide_answer_alike_on_compiled_random_policies() {
    let mut lab = Lab::two_hosts();
    let [link, cache] = ["web", "cache"].map(|name| lab.link(At::A, name));
    let mut asked = BTreeMap::<&str, u64>::new();
    let (mut by_rules, mut ending) = (0, 0);
    for seed in 0..POLICIES {
        let mut dice = Dice(seed);
        let cluster = Cluster::random(&mut dice);
        let mut world = cluster.world(&cluster.text(&mut dice));
        let mut gate = || if dice.chance(50) { Gate::Open } else { Gate::Closed };
        world.defaults = Some(Defaults { inside: gate(), from_apps: gate(), from_host: gate(), to_outside: gate() });
        for _ in 0..4 + dice.roll(12) {
            let again = |rule: &Rule| world.rules.iter().any(|known| known.says_same(rule));
            let rule = rule(&mut dice, &cluster).filter(|rule| !again(rule));
            world.rules.extend(rule);
        }
        let (plan, identities) = world.plan();
        let policy = plan.policy.at(0);
        // Who has which address. Of pods of other hosts only the app is known.
        let mut receivers = BTreeMap::<Ip, Identity>::new();
        let senders: Vec<_> = cluster.pods.iter().map(|pod| identities[&*cluster.full_name(pod)]).collect();
        for (pod, identity) in cluster.pods.iter().zip(&senders) {
            let role = if dice.chance(25) { RoleId::UNKNOWN } else { identity.role };
            receivers.extend(pod.addrs.map(|addr| (addr.into(), Identity::new(identity.app, role))));
        }
        lab.forget();
        let (machine, space) = lab.machine(At::A);
        machine.tables().clear_policy();
        machine.enforce(&Compiled::from(&*plan.policy));
        let (code, tables) = machine.program(Program::FromWorkload);
        tables.write_epoch(EPOCH, 0);
        let place = |identity: Identity| Route { hop: Hop::local(cache), identity, mac: Mac([7; 3]), reserved: 0 };
        receivers.iter().for_each(|(ip, identity)| tables.route((128, *ip), place(*identity)));
        let (mut seen, mut endpoint) = (BTreeSet::new(), None);
        space.run(|| {
            for _ in 0..FLOWS {
                let flow = cluster.flow(&mut dice);
                let Party::Pod(from) = flow.from else { continue };
                let to = Ip::from(flow.to_addr);
                if flow.to == Party::Node && !receivers.contains_key(&to) {
                    receivers.insert(to, Identity::HOST);
                    tables.route((128, to), place(Identity::HOST));
                }
                let is_v4 = flow.from_addr.is_ipv4();
                let icmp = if is_v4 { number::ICMP } else { number::ICMPV6 };
                let other = dice.pick(&[icmp, 47]);
                let src_port = u16::try_from(20_000 + dice.roll(40_000)).expect("a port");
                // Who has an address says it alone, and what is at none is outside.
                let dst = receivers.get(&to).copied().unwrap_or(Identity::OUTSIDE);
                let query = Query { dst, ..query(&flow, |_| senders[from], other) };
                let (query, ports) = match query.protocol {
                    number::ICMP | number::ICMPV6 => {
                        let kind = if is_v4 { 8 } else { 128 };
                        let port = u16::from_be_bytes([kind, 0]);
                        (Query { port, ..query }, Ports { src: src_port, dst: kind.into() })
                    }
                    number::TCP | number::UDP | number::SCTP => (query, Ports { src: src_port, dst: query.port }),
                    _ => (Query { port: 0, ..query }, Ports::NONE),
                };
                let (key, _) = FlowKey::of(query.src_addr, to, query.protocol, ports);
                // What belongs to a flow is not asked again.
                if !seen.insert(key) {
                    continue;
                }
                let mac = Mac::new([2, 0, 0, 0, 0, u8::try_from(from).expect("few")]);
                if endpoint != Some(from) {
                    let [v4, v6] = cluster.pods[from].addrs.map(Ip::from);
                    let identity = senders[from];
                    tables.endpoints.insert(link, Endpoint { v4, v6, identity, mac, reserved: 0 }, 0).expect("write");
                    endpoint = Some(from);
                }
                let [sender, gateway] = [(mac.bytes(), flow.from_addr), ([2, 9, 9, 9, 9, 9], flow.to_addr)]
                    .map(|(mac, ip)| Station::new(mac, ip));
                let frame = frame([sender, gateway], query.protocol, [src_port, query.port]);
                let decision = decide(&policy, EPOCH, &query);
                let account = Account { src: query.src.app, dst: dst.app, rule: decision.rule, shadow: 0 };
                let before = (tables.policy_drops(), tables.account(&account));
                let (code, _) =
                    code.run(Context { link, ..Context::default() }, frame.bytes()).expect("run the program");
                let after = (tables.policy_drops(), tables.account(&account));
                let dropped: Vec<_> = after.0.iter().filter(|(reason, count)| before.0[*reason] != **count).collect();
                let found = match (Action::of(Program::FromWorkload, code), &dropped[..]) {
                    (Action::Redirect, []) => Ok(tables.flow(&key).map(|flow| (flow.rule, flow.until))),
                    (_, [(reason, _)]) => Err(**reason),
                    other => panic!("policy {seed}: {other:?} for {query:?} {frame:?}"),
                };
                let expect = decision.verdict.map(|()| Some((decision.rule, decision.until)));
                let about = || {
                    let rule = plan.policy.names.get(&decision.rule).map(ToString::to_string);
                    format!("policy {seed}, {query:?}: {decision:?} by {rule:?}\n{frame:?}")
                };
                assert_eq!(found, expect, "{}", about());
                // A packet is counted under one rule, so under no other.
                let counted = |Counts { packets, drops, .. }: Counts| [packets, drops];
                let [packets, drops] = counted(before.1);
                let expect = if found.is_ok() { [packets + 1, drops] } else { [packets, drops + 1] };
                assert_eq!(counted(after.1), expect, "{}", about());
                *asked.entry(found.map_or_else(DropReason::name, |_| "allowed")).or_default() += 1;
                by_rules += u64::from(decision.rule != 0);
                ending += u64::from(decision.until != 0);
            }
        });
        for ip in receivers.keys() {
            tables.unroute(*ip);
        }
    }
    lab.settle();
    let all: u64 = asked.values().sum();
    assert!(all >= 25_000 && asked.len() == 4 && asked.values().all(|count| *count > 1000), "{all}: {asked:?}");
    assert!(by_rules > 10_000 && ending > 1000, "{by_rules}, {ending}");
}
