//! The guard in front of `from_underlay`: what it drops, the program behind it would drop for the same reason.

use super::lab::Lab;
use super::lab::cast::{At, DB, Net, SHOP, WEB};
use super::lab::machine::{Context, Program};
use super::lab::ran::{Action, Ran};
use weft_common::verdict::DropReason;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{Frame, raw, tcp, udp};
use weft_tests::underlay::Family;

#[track_caller]
fn guards(lab: &mut Lab, frame: &Frame) -> Ran {
    lab.run(At::B, Program::Guard, Context::default(), frame)
}

/// The guard's verdict, after the program behind it was asked too.
#[track_caller]
fn verdict(lab: &mut Lab, frame: &Frame) -> Option<DropReason> {
    let guard = guards(lab, frame);
    if guard.action == Action::Drop {
        let behind = lab.receives(At::B, frame);
        assert_eq!(guard.reason(), behind.reason(), "{guard}\n{behind}");
    } else {
        guard.passed();
    }
    lab.settle();
    guard.reason()
}

#[test]
fn forged_and_malformed_tunnel_packets_end_at_the_guard() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let [web, db] = net.pair([WEB, DB]);
        let inner = tcp(web, db).payload_length(600).ack();
        let tunnel = Vxlan::new(a, b, SHOP.0).group(1);
        let stranger = if net.outer == Family::V4 { "192.0.2.77" } else { "2001:db8::77" };
        let stranger = weft_tests::frame::Station::new(a.mac, stranger.parse().expect("an address"));
        let wire = tunnel.wrap(&inner);
        let mut dropped = vec![
            (Vxlan::new(stranger, b, SHOP.0).group(1).wrap(&inner), DropReason::UnknownPeer),
            (tunnel.clone().header([0, 0, 0, 1, 0, 0, 100, 0]).wrap(&inner), DropReason::TunnelMalformed),
            (wire.truncated(wire.bytes().len() - 1), DropReason::TunnelMalformed),
            (tunnel.packet(&inner).declared_length(20).frame(), DropReason::TunnelMalformed),
        ];
        if net.outer == Family::V4 {
            dropped.push((wire.fragments(400).remove(0), DropReason::TunnelFragment));
        }
        for (frame, reason) in dropped {
            assert_eq!(verdict(&mut lab, &frame), Some(reason));
        }
        for frame in [
            wire.clone(),
            udp(stranger, b).ports(6784, 53).frame(),
            tcp(stranger, b).ports(1, 6784).syn(),
            inner.clone(),
            raw(a, b, 0x0806, &[0; 46]),
            wire.vlan(9),
        ] {
            assert_eq!(verdict(&mut lab, &frame), None);
        }
        // More than it can see is the next program's to find.
        assert_eq!(verdict(&mut lab, &Vxlan::new(a, b, 77).group(9).wrap(&inner)), None);
    }
}

#[test]
fn a_packet_cut_at_any_byte_is_judged_alike() {
    let mut lab = Lab::two_hosts();
    for net in [Net::ALL[0], Net::ALL[3]] {
        lab.over(net);
        let [a, b] = [At::A, At::B].map(|at| at.station(net.outer));
        let [web, db] = net.pair([WEB, DB]);
        let wire = Vxlan::new(a, b, SHOP.0).group(1).wrap(&tcp(web, db).syn());
        for length in 54..wire.bytes().len() {
            verdict(&mut lab, &wire.truncated(length));
        }
    }
}
