use super::*;
use std::net::IpAddr;
use weft_common::{
    group::{Member, Record, record},
    parse::parse,
    route::{Endpoint, Route},
    tunnel::{self, Peer},
};

const SHOP: AppId = AppId(100);
const BLOG: AppId = AppId(200);
const SECOND: u64 = 1_000_000_000;
/// A question and its answers, twice: what a router waits.
const LIFE: u64 = 260;

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().unwrap().into()
}

/// Endpoints of shop behind links 11 and 12, one of blog behind 21; peers 1 and 2 have a part of shop, 2 of blog.
fn plan() -> NodePlan {
    let mut plan = NodePlan::default();
    plan.config.port = 6784;
    let unknown = |app| Identity::new(app, RoleId::UNKNOWN);
    let member = |hop, app| Member { hop, identity: unknown(app) };
    for (app, hops) in [
        (SHOP, vec![Hop::local(11), Hop::local(12), Hop::peer(PeerId(1)), Hop::peer(PeerId(2))]),
        (BLOG, vec![Hop::local(21), Hop::peer(PeerId(2))]),
    ] {
        for (index, hop) in (0..).zip(hops) {
            plan.members.insert(MemberKey { app, index }, member(hop, app));
            if hop.kind() == HopKind::Local {
                plan.endpoints.insert(hop.index, Endpoint { identity: unknown(app), ..Endpoint::default() });
            }
        }
    }
    for (block, app) in [("10.1.1.0", SHOP), ("10.2.1.0", BLOG)] {
        plan.masquerade.insert(format!("{block}/24").parse().unwrap());
        plan.routes.insert((120, ip(block)), Route { identity: unknown(app), ..Route::default() });
    }
    for peer in [1, 2] {
        let (addr, local) = (ip(&format!("192.0.2.{}", peer + 1)), ip("192.0.2.1"));
        plan.peers.insert(peer, Peer { addr, local, path_mtu: 1500, ..Peer::default() });
    }
    plan
}

fn wish(group: &str, app: AppId, hop: Hop) -> GroupKey {
    GroupKey { group: ip(group), app, hop }
}

fn wishes(all: &[(GroupKey, u64)]) -> BTreeMap<GroupKey, u64> {
    all.iter().map(|(key, said)| (*key, said * SECOND)).collect()
}

/// What is to be done, as words.
fn told(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Forget { key, .. } => format!("forget {} of {} {}", key.group, key.hop.kind, key.hop.index),
        Action::Send(Command::Deliver { link, frame }) => {
            let ether: Ether = weft_common::header::Bytes::get(frame.as_slice(), 0).unwrap();
            let end = usize::from(frame[16]) * 256 + usize::from(frame[17]);
            let (version, kind) = if ether.ethertype == Ether::IPV4 {
                assert_eq!((frame.len(), Sum::default().add_bytes(&frame[14..38]).field()), (14 + end, [0, 0]));
                assert_eq!(Sum::default().add_bytes(&frame[38..]).field(), [0, 0]);
                ("v4", frame[38])
            } else {
                ("v6", frame[62])
            };
            format!("ask {link} {version} {kind:#x}")
        }
        Action::Send(Command::Tunnel { to, packet }) => {
            let frame = [&[0; 12][..], if to.is_v4() { &Ether::IPV4 } else { &Ether::IPV6 }, packet].concat();
            let outer = tunnel::open(frame.as_slice(), 6784).unwrap().unwrap();
            let inner = &frame[outer.inner as usize..];
            let ether: Ether = weft_common::header::Bytes::get(inner, 0).unwrap();
            let packet = parse(inner, Ether::LEN, ether.ethertype).unwrap();
            let Record { group, wanted, .. } = record(inner, &packet, u32::from(packet.l4)).unwrap();
            assert!(!wanted && packet.dst.is_multicast());
            format!("tell {to}: {} leaves {group} in {}", packet.src, outer.identity.app.0)
        }
        Action::Send(Command::Repair) => panic!("nothing to repair"),
    };
    actions.iter().map(word).collect()
}

#[test]
fn who_wants_something_is_asked_and_nobody_else() {
    let all = wishes(&[
        (wish("239.1.1.1", SHOP, Hop::local(11)), 0),
        (wish("ff05::7", SHOP, Hop::local(11)), 0),
        (wish("ff05::7", BLOG, Hop::local(21)), 0),
        (wish("239.1.1.1", SHOP, Hop::peer(PeerId(1))), 0),
    ]);
    let mut groups = Groups::new(EVERY);
    let asked = ["ask 11 v6 0x82", "ask 11 v4 0x11", "ask 21 v6 0x82"];
    for (second, expect) in [(0, &asked[..]), (5, &[]), (124, &[]), (125, &asked), (130, &[]), (250, &asked)] {
        assert_eq!(told(&groups.look(&plan(), &all, second * SECOND)), expect, "after {second} s");
    }
}

#[test]
fn who_does_not_answer_is_forgotten_and_the_other_hosts_are_told() {
    let silent = wish("239.1.1.1", SHOP, Hop::local(11));
    let peers = wish("239.9.9.9", SHOP, Hop::peer(PeerId(1)));
    let all = wishes(&[(silent, 10), (peers, 10)]);
    let mut groups = Groups::new(EVERY);
    groups.look(&plan(), &all, 10 * SECOND);
    groups.look(&plan(), &all, 150 * SECOND);
    assert_eq!(told(&groups.look(&plan(), &all, (10 + LIFE) * SECOND)), [""; 0]);
    // Not the wish of a peer, whose own daemon asks.
    let leaves = ["192.0.2.2", "192.0.2.3"].map(|peer| format!("tell {peer}: 10.1.1.0 leaves 239.1.1.1 in 100"));
    let forgotten = [&["forget 239.1.1.1 of 1 11".to_owned()][..], &leaves].concat();
    assert_eq!(told(&groups.look(&plan(), &all, (11 + LIFE) * SECOND)), forgotten);
    let rest = wishes(&[(peers, 10)]);
    assert_eq!(told(&groups.look(&plan(), &rest, (16 + LIFE) * SECOND)), leaves);
    assert_eq!(told(&groups.look(&plan(), &rest, (21 + LIFE) * SECOND)), [""; 0]);
}

#[test]
fn a_leave_is_not_said_while_somebody_here_wants_the_group() {
    let (silent, other) = (wish("ff05::7", SHOP, Hop::local(11)), wish("ff05::7", SHOP, Hop::local(12)));
    let mut groups = Groups::new(EVERY);
    groups.look(&plan(), &wishes(&[(silent, 0), (other, 0)]), 0);
    let later = wishes(&[(silent, 0), (other, 200)]);
    let actions = told(&groups.look(&plan(), &later, (1 + LIFE) * SECOND));
    assert_eq!(actions, ["forget ff05::7 of 1 11", "ask 12 v6 0x82"]);
    // In another app nobody does.
    let of_blog = wish("ff05::7", BLOG, Hop::local(22));
    let actions = told(&groups.look(&plan(), &wishes(&[(of_blog, 200), (other, 200)]), (2 + LIFE) * SECOND));
    let leave = "tell 192.0.2.3: fe80::7765:6674:1 leaves ff05::7 in 200";
    assert_eq!(actions, ["forget ff05::7 of 1 22", leave]);
    // Who joins meanwhile stops it from being said again.
    let joined = wishes(&[(wish("ff05::7", BLOG, Hop::local(21)), 263), (other, 263)]);
    assert_eq!(told(&groups.look(&plan(), &joined, (3 + LIFE) * SECOND)), [""; 0]);
}

#[test]
fn what_nobody_was_asked_about_nobody_is_blamed_for() {
    // The daemon was away for an hour.
    let all = wishes(&[(wish("239.1.1.1", SHOP, Hop::local(11)), 10)]);
    let mut groups = Groups::new(EVERY);
    assert_eq!(told(&groups.look(&plan(), &all, 3600 * SECOND)), ["ask 11 v4 0x11"]);
    assert_eq!(told(&groups.look(&plan(), &all, (3600 + LIFE) * SECOND)), ["ask 11 v4 0x11"]);
    assert_eq!(told(&groups.look(&plan(), &all, (3601 + LIFE) * SECOND))[0], "forget 239.1.1.1 of 1 11");
}

#[test]
fn who_is_gone_is_forgotten_at_once() {
    let gone = [
        wish("239.1.1.1", SHOP, Hop::local(13)),
        wish("239.1.1.2", BLOG, Hop::peer(PeerId(1))),
        wish("239.1.1.3", AppId(300), Hop::peer(PeerId(2))),
        // The interface's number is another endpoint's now.
        wish("239.1.1.4", BLOG, Hop::local(11)),
    ];
    let all = wishes(&gone.map(|key| (key, 0)));
    let actions = told(&Groups::new(EVERY).look(&plan(), &all, 0));
    assert_eq!(actions.iter().filter(|action| action.starts_with("forget")).count(), gone.len());
    // Of peers' wishes nobody is told.
    let leaves: Vec<_> = actions.iter().filter(|action| action.starts_with("tell")).collect();
    assert_eq!(leaves.len(), 3, "{leaves:?}");
    assert!(leaves.iter().all(|leave| leave.contains("239.1.1.1") || leave.contains("239.1.1.4")));
}
