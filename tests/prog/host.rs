//! The host's own traffic and what it routes in: an identity like any other, by the gateway device.

use super::lab::Lab;
use super::lab::cast::{At, BLOG, DB, Net, PRESS, SHOP, WEB, address};
use super::lab::machine::{Context, Program};
use weft_common::addr::Mac;
use weft_common::verdict::DropReason;
use weft_tests::frame::icmp::echo_request;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::{BROADCAST, Station, raw, tcp, udp};
use weft_tests::underlay::Family;

#[test]
fn the_host_reaches_its_containers_and_is_answered() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let into = lab.link(At::A, WEB.name);
        let web = WEB.station(net.inner);
        // From its gateway address, from that in another app, and from its address on the underlay.
        for ip in [At::A.gateway(SHOP, net.inner).ip, At::A.gateway(BLOG, net.inner).ip, At::A.station(net.inner).ip] {
            // The stack does not know a MAC on the gateway device.
            let host = Station::new([2, 8, 8, 8, 8, 8], ip);
            let syn = tcp(host, web.behind([0; 6])).syn();
            let inside = lab.host_sends(At::A, &syn).enters(WEB, into);
            assert_eq!(inside, syn.between(Mac::GATEWAY.bytes(), web.mac));
            let reply = tcp(web, host.behind(Mac::GATEWAY.bytes())).ports(80, 40000).syn_ack();
            assert_eq!(lab.sends(WEB, &reply).reaches_host(), reply);
        }
        lab.assert_only_changed(&[
            "a.flows +3",
            "a.host>shop.flows +3",
            "a.host>shop.packets +3",
            "a.shop>host.packets +3",
        ]);
    }
}

#[test]
fn the_host_reaches_containers_of_other_hosts_in_its_own_name() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let (gateway, db) = (At::A.gateway(SHOP, net.inner), DB.station(net.inner));
        let syn = tcp(gateway, db).syn();
        let wire = lab.host_sends(At::A, &syn).leaves_for(At::B);
        assert_eq!((wire.decode().tunnel().vni, wire.decode().tunnel().group), (1, 0));
        let into = lab.link(At::B, DB.name);
        assert_eq!(lab.receives(At::B, &wire).enters(DB, into), syn);
        let reply = tcp(db, gateway).ports(80, 40000).syn_ack();
        let wire = lab.sends(DB, &reply).leaves_for(At::A);
        assert_eq!(lab.receives(At::A, &wire).reaches_host(), reply);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.host>shop.flows +1",
            "a.host>shop.packets +1",
            "a.shop>host.packets +1",
            "b.flows +1",
            "b.host>shop.flows +1",
            "b.host>shop.packets +1",
            "b.shop>host.packets +1",
        ]);
        // The other host knows the addresses of gateways only.
        let underlay = Station::new(Mac::GATEWAY.bytes(), At::A.station(net.inner).ip);
        let wire = lab.host_sends(At::A, &tcp(underlay, db).syn()).leaves_for(At::B);
        assert_eq!(lab.receives(At::B, &wire).dropped(), DropReason::IdentityMismatch);
        lab.settle();
    }
}

#[test]
fn congestion_on_the_way_to_the_host_is_carried_over() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let (gateway, db) = (At::A.gateway(SHOP, net.inner), DB.station(net.inner));
        let frame = |class| udp(db, gateway).traffic_class(class).frame();
        let [b, a] = [At::B, At::A].map(|at| at.station(net.outer));
        let wire = Vxlan::new(b, a, SHOP.0).group(2).traffic_class(3).wrap(&frame(2));
        assert_eq!(lab.receives(At::A, &wire).reaches_host(), frame(3));
        lab.settle();
    }
}

#[test]
fn what_is_routed_in_is_from_outside() {
    let mut lab = Lab::with_rules(&["allow outside -> shop/web tcp/80"]);
    let (lan, into) = (lab.link(At::A, "lan"), lab.link(At::A, WEB.name));
    for net in Net::LOCAL {
        lab.over(net);
        let (web, outsider) = (WEB.station(net.inner), net.outsider());
        let syn = tcp(outsider, web).syn();
        assert_eq!(lab.host_routes(At::A, lan, &syn).enters(WEB, into), syn);
        let reply = tcp(web, outsider).ports(80, 40000).syn_ack();
        lab.sends(WEB, &reply).reaches_host();
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.outside>shop.flows +1",
            "a.outside>shop.packets +1",
            "a.shop>outside.packets +1",
            "a.rule-1.flows +1",
            "a.rule-1.packets +2",
        ]);
        lab.host_routes(At::A, lan, &tcp(outsider, web).ports(1, 81).syn()).dropped();
        let press = PRESS.station(net.inner);
        lab.host_routes(At::A, lan, &echo_request(outsider, press, [1, 1]).frame()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +2", "a.outside>shop.drops +1", "a.outside>blog.drops +1"]);
        // The host itself is not the outside, and the outside does not become the host by speaking in its flow.
        lab.host_sends(At::A, &tcp(outsider, web).ports(1, 81).syn()).enters(WEB, into);
        lab.settle();
        lab.host_routes(At::A, lan, &tcp(outsider, web).ports(1, 81).ack()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +1", "a.outside>shop.drops +1"]);
    }
}

#[test]
fn nobody_comes_in_from_outside_with_an_address_of_ours() {
    let mut lab = Lab::with_rules(&["allow outside -> shop", "allow outside -> blog"]);
    let [lan, gateway_device] = ["lan", "gateway"].map(|name| lab.link(At::A, name));
    for net in Net::LOCAL {
        lab.over(net);
        let web = WEB.station(net.inner);
        let mut drops = 0;
        for ip in [
            PRESS.ip(net.inner),
            DB.ip(net.inner),
            address(SHOP, At::A, 99, net.inner),
            At::A.gateway(SHOP, net.inner).ip,
            At::B.gateway(SHOP, net.inner).ip,
        ] {
            lab.host_routes(At::A, lan, &tcp(Station::new(BROADCAST, ip), web).syn()).dropped();
            drops += 1;
        }
        // A container's address that came round by the host's stack; what a program handed to the host and comes back.
        lab.host_sends(At::A, &tcp(PRESS.station(net.inner), web).syn()).dropped();
        lab.host_routes(At::A, gateway_device, &tcp(net.outsider(), web).syn()).dropped();
        drops += 2;
        lab.assert_only_changed(&[&format!("a.drops.spoofed-address +{drops}")]);
    }
}

#[test]
fn a_packet_of_the_host_to_nobody_ends_here() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let gateway = At::A.gateway(SHOP, net.inner);
        // To the outside and to itself there are other ways.
        for ip in [net.outsider().ip, At::A.gateway(BLOG, net.inner).ip] {
            let ran = lab.host_sends(At::A, &udp(gateway, Station::new([0; 6], ip)).frame());
            assert_eq!(ran.reason(), Some(DropReason::NoRoute));
            ran.answered();
        }
        let everybody = match net.inner {
            Family::V4 => [224, 0, 0, 251].into(),
            Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0xfb].into(),
        };
        // It is a member of no app.
        lab.host_sends(At::A, &udp(gateway, Station::new([0xff; 6], everybody)).frame()).absorbed();
        for ethertype in [0x0806, 0x88cc] {
            let ran = lab.host_sends(At::A, &raw(gateway, WEB.station(net.inner), ethertype, &[0; 46]));
            assert_eq!(ran.dropped(), DropReason::UnknownStation);
        }
        lab.settle();
    }
}

/// What carries a tunnel key is refused: [`super::real`] shows it on devices, for a test run can not give one.
#[test]
fn what_a_program_handed_to_the_host_passes_to_it() {
    let mut lab = Lab::two_hosts();
    let link = lab.link(At::A, "gateway");
    for net in Net::LOCAL {
        lab.over(net);
        let (web, gateway) = (WEB.station(net.inner), At::A.gateway(SHOP, net.inner));
        for frame in [tcp(web, gateway).syn(), udp(web, net.outsider()).frame(), raw(web, gateway, 0x88cc, &[0; 46])] {
            lab.run(At::A, Program::ToHost, Context { link, arrived_on: link, segment: 0 }, &frame).passed();
        }
        lab.assert_only_changed(&[]);
    }
}

#[test]
fn a_container_that_asks_the_outside_is_answered_from_there_and_from_nowhere_else() {
    let mut lab = Lab::two_hosts();
    let (lan, into) = (lab.link(At::A, "lan"), lab.link(At::A, WEB.name));
    for net in Net::LOCAL {
        lab.over(net);
        let (web, outsider) = (WEB.station(net.inner), net.outsider());
        lab.sends(WEB, &udp(web, outsider).ports(40000, 53).frame()).reaches_host();
        let answer = udp(outsider, web).ports(53, 40000).frame();
        lab.host_routes(At::A, lan, &answer).enters(WEB, into);
        lab.settle();
        lab.host_routes(At::A, lan, &udp(outsider, web).ports(53, 40001).frame()).dropped();
        lab.assert_only_changed(&["a.drops.policy-default +1", "a.outside>shop.drops +1"]);
        // Nor through the tunnel, from a peer that says it is the outside: not even where an epoch is new.
        let [b, a] = [At::B, At::A].map(|at| at.station(Family::V4));
        let wire = Vxlan::new(b, a, 2).group(0).wrap(&answer);
        for _ in 0..2 {
            lab.receives(At::A, &wire).dropped();
            lab.bump();
        }
        lab.assert_only_changed(&["a.drops.policy-default +2", "a.outside>shop.drops +2"]);
        lab.host_routes(At::A, lan, &answer).enters(WEB, into);
        lab.settle();
    }
}

/// A host that takes in what is for a container elsewhere hands it on as what it is, and gets the answers.
#[test]
fn the_outside_comes_in_by_one_host_and_reaches_a_container_on_another() {
    let mut lab = Lab::with_rules(&["allow outside -> shop/db tcp/80"]);
    let [lan, into] = [lab.link(At::A, "lan"), lab.link(At::B, DB.name)];
    for net in Net::ALL {
        lab.over(net);
        let (outsider, db) = (net.outsider(), DB.station(net.inner));
        let syn = tcp(outsider, db).syn();
        let wire = lab.host_routes(At::A, lan, &syn).leaves_for(At::B);
        assert_eq!((wire.decode().tunnel().vni, wire.decode().tunnel().group), (2, 0));
        assert_eq!(lab.receives(At::B, &wire).enters(DB, into), syn);
        let reply = tcp(db, outsider).ports(80, 40000).syn_ack();
        let wire = lab.sends(DB, &reply).leaves_for(At::A);
        assert_eq!(lab.receives(At::A, &wire).reaches_host(), reply);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.outside>shop.flows +1",
            "a.outside>shop.packets +1",
            "a.shop>outside.packets +1",
            "b.flows +1",
            "b.outside>shop.flows +1",
            "b.outside>shop.packets +1",
            "b.shop>outside.packets +1",
            "a.rule-1.flows +1",
            "a.rule-1.packets +2",
            "b.rule-1.flows +1",
            "b.rule-1.packets +2",
        ]);
        let wire = lab.host_routes(At::A, lan, &tcp(outsider, db).ports(1, 81).syn());
        assert_eq!(wire.dropped(), DropReason::PolicyDefault);
        lab.settle();
    }
}
