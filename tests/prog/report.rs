//! What the daemon is told: a sample of drops with all that was found out, and packets that the tables could not place.

use super::lab::Lab;
use super::lab::cast::{At, DB, Net, PRESS, SHOP, WEB, address};
use super::lab::event::Event;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::time::Duration;
use weft_common::event::sample::{RATE, SHADOW};
use weft_common::event::{Drop, Hook, MISS_BYTES, Miss};
use weft_common::id::Identity;
use weft_common::policy::Direction;
use weft_common::table::Account;
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::echo_request;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, Station, tcp, udp};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually_some;

const SOON: Duration = Duration::from_secs(5);

#[track_caller]
fn dropped(events: &[Event]) -> Drop {
    match events {
        [Event::Drop(drop)] => *drop,
        other => panic!("not one drop: {other:?}"),
    }
}

#[test]
fn a_drop_is_told_with_who_whom_and_which_rule() {
    let mut lab = Lab::with_rules(&["allow shop -> blog tcp/80", "deny shop/web -> blog tcp/22"]);
    for net in Net::ALL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let ran = lab.sends(WEB, &tcp(web, press).ports(1234, 22).syn());
        let told = dropped(&ran.events);
        let expect = Drop {
            kind: 1,
            reason: DropReason::PolicyDenied as u32,
            time: told.time,
            skipped: 0,
            src: web.ip.into(),
            dst: press.ip.into(),
            src_identity: WEB.identity(),
            dst_identity: PRESS.identity(),
            src_port: 1234,
            dst_port: 22,
            protocol: 6,
            tcp_flags: 2,
            hook: Hook::FromWorkload as u8,
            direction: Direction::Egress as u8,
            rule: 2,
            link: lab.link(At::A, WEB.name),
            shadow: 0,
            reserved: 0,
        };
        assert_eq!(told, expect);
        assert_ne!(told.time, 0);
        lab.settle();
        // Of a ping its type and code.
        let told = dropped(&lab.sends(WEB, &echo_request(web, press, [7, 1]).frame()).events);
        let kind = if net.inner == Family::V4 { [8, 0] } else { [128, 0] };
        assert_eq!(told.dst_port.to_be_bytes(), kind);
        lab.settle();
        // At the other end: the default of the receiver's ingress.
        let [press, db] = net.pair([PRESS, DB]);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let wire = Vxlan::new(a, b, PRESS.app.0).group(PRESS.role.0).wrap(&udp(press, db).ports(53, 54).frame());
        let told = dropped(&lab.receives(At::B, &wire).events);
        assert_eq!((told.src, told.dst), (press.ip.into(), db.ip.into()));
        assert_eq!((told.src_identity, told.dst_identity), (PRESS.identity(), DB.identity()));
        assert_eq!((told.src_port, told.dst_port, told.protocol, told.rule), (53, 54, 17, 0));
        assert_eq!((told.hook, told.direction), (Hook::FromUnderlay as u8, Direction::Ingress as u8));
        lab.settle();
    }
}

#[test]
fn what_was_not_found_out_is_not_told_from_the_run_before() {
    let mut lab = Lab::two_hosts();
    let net = Net::ALL[0];
    lab.over(net);
    let [web, press] = net.pair([WEB, PRESS]);
    lab.sends(WEB, &tcp(web, press).ports(1234, 22).syn()).dropped();
    let tagged = tcp(web, press).syn().vlan(5).between([2, 9, 9, 9, 9, 9], press.mac);
    let told = dropped(&lab.sends(WEB, &tagged).events);
    assert_eq!((told.src_identity, told.dst_identity), (Identity::default(), Identity::default()));
    assert_eq!((told.src_port, told.dst_port, told.protocol, told.tcp_flags), (0, 0, 0, 0));
    assert_eq!(told.rule, Account::NO_RULE);
    assert_eq!((told.src, told.dst), Default::default());
    lab.settle();
}

#[test]
fn a_flood_of_drops_is_sampled_and_says_how_many_were_left_out() {
    let mut lab = Lab::two_hosts();
    let net = Net::ALL[0];
    lab.over(net);
    let [web, press] = net.pair([WEB, PRESS]);
    let syn = tcp(web, press).syn();
    let cpus = std::thread::available_parallelism().expect("CPUs").get() as u64;
    lab.floods(WEB, &syn, 2000);
    assert_eq!(lab.drops(At::A, DropReason::PolicyDefault), 2000);
    let told = lab.told(At::A);
    assert!((RATE..RATE * cpus + 2000 / 20).contains(&(told.len() as u64)), "{} are told", told.len());
    // Exact counts go on; another reason has tokens of its own.
    let other = lab.sends(WEB, &syn.vlan(5));
    assert_eq!(dropped(&other.events).reason, DropReason::UnknownStation as u32);
    lab.settle();
}

/// The daemon may be slow, or dead: what then is not told is among what the next event says was not.
#[test]
fn what_finds_no_room_to_be_told_is_said_to_be_left_out() {
    const SOME: u16 = 100;

    // Each processor counts for itself what it leaves out. Threads start where the one is that starts them.
    let mut first = CpuSet::new();
    first.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &first)).expect("stay on one processor");
    let mut lab = Lab::with_rules(&["allow shop -> blog udp", "shadow deny shop -> blog udp"]);
    for net in Net::LOCAL {
        lab.over(net);
        let [web, press] = net.pair([WEB, PRESS]);
        let nobody = Station::new([2, 9, 9, 9, 9, 9], address(SHOP, At::A, 99, net.inner));
        let syn = |number| tcp(web, press).ports(number, 22).syn();
        // Of each flow that would be dropped the first packet is told.
        let datagram = |number| udp(web, press).ports(number, 53).frame();
        // Each takes as much room as one can, and nobody reads.
        lab.floods(WEB, &udp(web, nobody).payload_length(MISS_BYTES).frame(), 1000);
        let all = [(DropReason::PolicyDefault as u32, &syn as &dyn Fn(u16) -> Frame), (SHADOW, &datagram)];
        for (_, frame) in all {
            lab.floods_each(WEB, &(1..=SOME).map(frame).collect::<Vec<_>>());
        }
        let first = lab.told(At::A);
        for (bucket, frame) in all {
            let mut told = of_bucket(&first, bucket);
            assert!((told.len() as u64) < RATE, "there was room: {} are told", told.len());
            // There is room again, and a token soon.
            let mut last = SOME;
            let next = eventually_some(SOON, || {
                last += 1;
                lab.floods(WEB, &frame(last), 1);
                of_bucket(&lab.told(At::A), bucket).pop()
            });
            assert!(next.skipped > 0);
            told.push(next);
            let accounted = told.iter().map(|told| 1 + told.skipped).sum::<u64>() + lab.untold(At::A, bucket);
            assert_eq!(accounted, u64::from(last), "{told:?}");
        }
        lab.settle();
    }
}

fn of_bucket(events: &[Event], bucket: u32) -> Vec<Drop> {
    let drops = events.iter().filter_map(|event| match event {
        Event::Drop(drop) if drop.reason == bucket => Some(*drop),
        Event::Drop(_) | Event::Miss(..) => None,
    });
    drops.collect()
}

#[test]
fn a_packet_that_misses_is_handed_over_as_it_came() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        for length in [0, 100, 1400, 2000] {
            lab.over(net);
            let nobody = Station::new([2, 9, 9, 9, 9, 9], address(SHOP, At::A, 99, net.inner));
            let frame = udp(WEB.station(net.inner), nobody).payload_length(length).frame();
            let ran = lab.sends(WEB, &frame);
            let expect = Miss {
                kind: 2,
                len: u32::try_from(frame.bytes().len()).expect("short"),
                link: lab.link(At::A, WEB.name),
                hook: Hook::FromWorkload as u32,
            };
            let known = &frame.bytes()[..frame.bytes().len().min(MISS_BYTES)];
            let missed: Vec<_> = ran.events.iter().filter(|event| matches!(event, Event::Miss(..))).collect();
            assert_eq!(missed, [&Event::Miss(expect, known.to_vec())]);
            ran.answered();
            lab.assert_only_changed(&[
                "a.drops.no-route +1",
                "a.misses +1",
                "a.shop>shop.drops +1",
                "a.no-rule.drops +1",
            ]);
        }
    }
}
