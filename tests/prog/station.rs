//! Frames that are neither IP nor ARP: to whoever of the app has the address, or to all of it, and to nobody else.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, CACHE, DB, FAR, Member, Net, PLAIN, PRESS, SHOP, STORE, WEB};
use weft_common::addr::Mac;
use weft_common::id::AppId;
use weft_common::verdict::DropReason;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{BROADCAST, Frame, raw};
use weft_tests::underlay::Family;

/// For experiments (IEEE 802), ATA over Ethernet, PPPoE discovery, PROFINET, audio and video.
const ETHERTYPES: [u16; 5] = [0x88b5, 0x88a2, 0x8863, 0x8892, 0x22f0];

/// One of the addresses that AVDECC has (IEEE 1722.1).
const GROUP: [u8; 6] = [0x91, 0xe0, 0xf0, 0x01, 0, 0];

fn frame(from: Member, to: [u8; 6], ethertype: u16) -> Frame {
    let src = from.station(Family::V4);
    raw(src, src.behind(to), ethertype, &[0x5a; 46])
}

fn from_b(net: Net, app: AppId) -> Vxlan {
    let [b, a] = [At::B, At::A].map(|at| at.station(net.outer));
    Vxlan::new(b, a, app.0)
}

/// In each direction of the tunnel: the inner family says nothing here.
const OUTER: [Net; 2] = [Net::ALL[0], Net::ALL[2]];

#[test]
fn a_frame_goes_straight_to_an_endpoint_here() {
    let mut lab = Lab::two_hosts();
    let into = lab.link(At::A, CACHE.name);
    for ethertype in ETHERTYPES {
        let frame = frame(WEB, CACHE.mac(), ethertype);
        assert_eq!(lab.sends(WEB, &frame).enters(CACHE, into), frame);
        lab.assert_only_changed(&["a.shop>shop.packets +1"]);
    }
}

#[test]
fn a_frame_to_an_address_that_is_not_here_goes_to_the_peers_and_one_of_them_delivers_it() {
    let mut lab = Lab::two_hosts();
    let into = lab.link(At::A, WEB.name);
    for net in OUTER {
        lab.over(net);
        for ethertype in ETHERTYPES {
            let there = frame(WEB, DB.mac(), ethertype);
            lab.sends(WEB, &there).absorbed();
            lab.assert_only_changed(&["a.shop>shop.packets +2"]);
            let back = frame(DB, WEB.mac(), ethertype);
            let wire = from_b(net, SHOP).group(DB.role.0).wrap(&back);
            assert_eq!(lab.receives(At::A, &wire).enters(WEB, into), back);
            lab.assert_only_changed(&["a.shop>shop.packets +1"]);
            // A copy that another host of the app was sent too.
            let wire = from_b(net, SHOP).group(DB.role.0).wrap(&frame(DB, FAR.mac(), ethertype));
            lab.receives(At::A, &wire).dropped();
            lab.assert_only_changed(&["a.drops.unknown-station +1"]);
        }
    }
}

#[test]
fn a_frame_to_many_goes_to_the_app_here_and_to_its_other_hosts() {
    let mut lab = Lab::two_hosts();
    for net in OUTER {
        lab.over(net);
        for to in [BROADCAST, GROUP] {
            lab.sends(WEB, &frame(WEB, to, 0x88b5)).absorbed();
            // The cache, and hosts b and c.
            lab.assert_only_changed(&["a.shop>shop.packets +3"]);
            lab.sends(PRESS, &frame(PRESS, to, 0x88b5)).absorbed();
            lab.assert_only_changed(&["a.blog>blog.packets +1"]);
            // A peer's goes to the endpoints here, and to no other host.
            lab.receives(At::A, &from_b(net, SHOP).group(2).wrap(&frame(DB, to, 0x88b5))).absorbed();
            lab.assert_only_changed(&["a.shop>shop.packets +2"]);
            lab.receives(At::A, &from_b(net, BLOG).wrap(&frame(STORE, to, 0x88b5))).absorbed();
            lab.assert_only_changed(&["a.blog>blog.packets +1"]);
        }
    }
}

#[test]
fn a_short_frame_crosses_and_may_be_padded() {
    let mut lab = Lab::two_hosts();
    for net in OUTER {
        lab.over(net);
        for length in [0, 1, 19, 20, 39, 40] {
            let src = DB.station(Family::V4);
            let short = raw(src, src.behind(WEB.mac()), 0x88b5, &vec![0x5a; length]);
            let ran = lab.receives(At::A, &from_b(net, SHOP).wrap(&short));
            let least = if net.outer == Family::V4 { 20 } else { 40 };
            let padding = vec![0; usize::saturating_sub(least, length)];
            assert_eq!((ran.reason(), ran.output.clone()), (None, short.padded(&padding)), "{ran}");
            lab.settle();
        }
    }
}

#[test]
fn nothing_crosses_from_one_app_to_another() {
    let mut lab = Lab::with_rules(&["allow any -> any", "allow shop -> blog"]);
    // Rules about other apps speak of IP; with `any` they speak of the inside too.
    lab.sends(WEB, &frame(WEB, PRESS.mac(), 0x88b5)).dropped();
    lab.assert_only_changed(&["a.drops.not-ip +1"]);
    lab.enforce(&["allow shop -> blog", "allow blog -> shop"]);
    for net in OUTER {
        lab.over(net);
        // Nobody in shop has it: the other hosts of shop are asked, and say so.
        lab.sends(WEB, &frame(WEB, PRESS.mac(), 0x88b5)).absorbed();
        lab.assert_only_changed(&["a.shop>shop.packets +2"]);
        for app in [SHOP, BLOG] {
            let other = if app == SHOP { PRESS } else { WEB };
            lab.receives(At::A, &from_b(net, app).wrap(&frame(DB, other.mac(), 0x88b5))).dropped();
            lab.assert_only_changed(&["a.drops.unknown-station +1"]);
        }
    }
}

#[test]
fn what_is_of_the_link_or_for_the_gateway_goes_nowhere() {
    let mut lab = Lab::two_hosts();
    let mut frames = vec![
        frame(WEB, Mac::GATEWAY.bytes(), 0x88b5),
        // Itself.
        frame(WEB, WEB.mac(), 0x88b5),
        // Pause, aggregation, LLDP, 802.1X to where no bridge forwards it.
        frame(WEB, [0x01, 0x80, 0xc2, 0, 0, 1], 0x8808),
        frame(WEB, [0x01, 0x80, 0xc2, 0, 0, 2], 0x8809),
        frame(WEB, [0x01, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc),
        frame(WEB, [0x01, 0x80, 0xc2, 0, 0, 3], 0x888e),
    ];
    for to in [CACHE.mac(), DB.mac(), BROADCAST] {
        // Lengths, as of spanning tree and of CDP; pause; tags.
        frames.extend([0, 38, 0x5dc, 0x5ff, 0x8808, 0x8809, 0x8100, 0x88a8, 0x9100].map(|kind| frame(WEB, to, kind)));
    }
    for net in OUTER {
        lab.over(net);
        for frame in &frames {
            assert_eq!(lab.sends(WEB, frame).dropped(), DropReason::UnknownStation, "{frame:?}");
            let in_tunnel = frame.between(DB.mac(), frame.decode().dst_mac);
            if frame.decode().dst_mac != WEB.mac() {
                let ran = lab.receives(At::A, &from_b(net, SHOP).wrap(&in_tunnel));
                assert_eq!(ran.dropped(), DropReason::UnknownStation, "{frame:?}");
            }
            lab.settle();
        }
    }
    // On an interface of nobody, and with another's address.
    let lan = lab.link(At::A, "lan");
    let context = super::lab::machine::Context { link: lan, ..Default::default() };
    let ran = lab.run(At::A, super::lab::machine::Program::FromWorkload, context, &frame(WEB, CACHE.mac(), 0x88b5));
    assert_eq!(ran.dropped(), DropReason::UnknownInterface);
    for to in [CACHE.mac(), DB.mac(), BROADCAST] {
        assert_eq!(lab.sends(WEB, &frame(CACHE, to, 0x88b5)).dropped(), DropReason::SpoofedMac);
    }
    lab.assert_only_changed(&["a.drops.unknown-interface +1", "a.drops.spoofed-mac +3"]);
}

#[test]
fn where_rules_speak_of_an_apps_inside_only_ip_passes() {
    for rule in [
        "deny shop/web -> shop/db tcp/80",
        "allow shop/db -> shop/db udp",
        "deny any -> shop icmp",
        "deny shop -> 10.100.2.21/32 tcp",
    ] {
        let mut lab = Lab::with_rules(&[rule]);
        for net in OUTER {
            lab.over(net);
            for to in [CACHE.mac(), DB.mac(), BROADCAST] {
                assert_eq!(lab.sends(WEB, &frame(WEB, to, 0x88b5)).dropped(), DropReason::NotIp, "{rule}");
            }
            for to in [WEB.mac(), BROADCAST] {
                let ran = lab.receives(At::A, &from_b(net, SHOP).group(2).wrap(&frame(DB, to, 0x88b5)));
                assert_eq!(ran.dropped(), DropReason::NotIp, "{rule}");
            }
            lab.assert_only_changed(&["a.drops.not-ip +5"]);
        }
        // A host that has not heard of the rule yet lets it out; the receiver's decides.
        lab.enforce_on(At::B, &[]);
        lab.over(OUTER[0]);
        lab.sends(DB, &frame(DB, BROADCAST, 0x88b5)).absorbed();
        lab.assert_only_changed(&["b.shop>shop.packets +3"]);
        lab.receives(At::A, &from_b(OUTER[0], SHOP).group(2).wrap(&frame(DB, BROADCAST, 0x88b5))).dropped();
        lab.assert_only_changed(&["a.drops.not-ip +1"]);
        // The rule of one app says nothing of another.
        if !rule.contains("any") {
            lab.sends(PRESS, &frame(PRESS, BROADCAST, 0x88b5)).absorbed();
            lab.assert_only_changed(&["a.blog>blog.packets +1"]);
        }
    }
}

#[test]
fn without_rule_sets_nothing_passes() {
    let mut lab = Lab::two_hosts();
    lab.tables(At::A).clear_policy();
    for to in [CACHE.mac(), DB.mac(), BROADCAST] {
        assert_eq!(lab.sends(WEB, &frame(WEB, to, 0x88b5)).dropped(), DropReason::PolicyAbsent);
    }
    let ran = lab.receives(At::A, &from_b(OUTER[0], SHOP).wrap(&frame(DB, WEB.mac(), 0x88b5)));
    assert_eq!(ran.dropped(), DropReason::PolicyAbsent);
    lab.assert_only_changed(&["a.drops.policy-absent +4"]);
}

#[test]
fn a_peer_speaks_for_the_apps_of_which_it_has_a_part_and_for_nobody_here() {
    let mut lab = Lab::two_hosts();
    for net in OUTER {
        lab.over(net);
        let [a, c] = [At::A, At::C].map(|at| at.station(net.outer));
        for to in [WEB.mac(), PRESS.mac(), BROADCAST] {
            let good = frame(DB, to, 0x88b5);
            // Host c has no part of blog; and these are no apps.
            for (from, app) in [(c, BLOG), (c, AppId::HOST), (c, AppId::OUTSIDE), (c, AppId::ANY), (c, AppId::LAST)] {
                let ran = lab.receives(At::A, &Vxlan::new(from, a, app.0).group(1).wrap(&good));
                assert_eq!(ran.dropped(), DropReason::IdentityMismatch, "{app:?}");
            }
            for src in [WEB.mac(), CACHE.mac(), Mac::GATEWAY.bytes(), BROADCAST, GROUP] {
                let ran = lab.receives(At::A, &from_b(net, SHOP).wrap(&good.between(src, to)));
                assert_eq!(ran.dropped(), DropReason::PeerNotOwner, "{src:?}");
            }
            // Congestion was marked on what can not carry the mark.
            let ran = lab.receives(At::A, &from_b(net, SHOP).traffic_class(3).wrap(&good.between(DB.mac(), WEB.mac())));
            assert_eq!(ran.dropped(), DropReason::EcnInvalid);
            lab.assert_only_changed(&[
                "a.drops.identity-mismatch +5",
                "a.drops.peer-not-owner +5",
                "a.drops.ecn-invalid +1",
            ]);
        }
    }
}

#[test]
fn what_goes_to_many_hosts_is_held_back_and_what_goes_to_one_endpoint_is_not() {
    /// What an interface may send to everybody at once.
    const STORM: usize = 1000;

    let mut lab = Lab::two_hosts();
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    for to in [PLAIN.mac(), BROADCAST] {
        lab.forget();
        let before = lab.drops(At::A, DropReason::BroadcastStorm);
        lab.floods(WEB, &frame(WEB, to, 0x88b5), STORM * cpus * 5);
        assert!(lab.drops(At::A, DropReason::BroadcastStorm) > before);
        lab.settle();
        let count = STORM * cpus * 5;
        lab.floods(WEB, &frame(WEB, CACHE.mac(), 0x88b5), count);
        lab.assert_only_changed(&[&format!("a.shop>shop.packets +{count}")]);
    }
}
