//! Between containers of one host, and from a container to its host.

use super::lab::Lab;
use super::lab::cast::{At, CACHE, Net, PRESS, SHOP, WEB, address};
use weft_common::addr::Mac;
use weft_common::flow::State;
use weft_common::header::protocol as number;
use weft_tests::frame::icmp::{echo_reply, echo_request};
use weft_tests::frame::{Station, protocol, tcp, udp};

#[test]
fn a_packet_between_containers_of_one_app_is_delivered_as_it_was_sent() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        let [web, cache] = net.pair([WEB, CACHE]);
        for frame in [
            tcp(web, cache).syn(),
            udp(web, cache).payload(b"odd").frame(),
            echo_request(web, cache, [7, 1]).payload(b"ping").frame(),
            protocol(web, cache, number::SCTP).payload(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]).frame(),
            protocol(web, cache, 47).payload(&[0, 0, 8, 0]).frame(),
        ] {
            lab.over(net);
            assert_eq!(lab.delivers([WEB, CACHE], &frame), frame);
            lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +1"]);
        }
    }
}

#[test]
fn the_receivers_mac_is_put_in_whatever_the_sender_wrote() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let [web, cache] = net.pair([WEB, CACHE]);
        for mac in [Mac::GATEWAY.bytes(), [0; 6], [2, 9, 9, 9, 9, 9]] {
            let frame = udp(web, cache.behind(mac)).frame();
            assert_eq!(lab.delivers([WEB, CACHE], &frame), frame.between(web.mac, cache.mac));
        }
        lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +3"]);
    }
}

#[test]
fn a_handshake_and_a_close_are_one_flow() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let [web, cache] = net.pair([WEB, CACHE]);
        let there = tcp(web, cache).sequence(100).acknowledgment(901);
        let back = tcp(cache, web).ports(80, 40000).sequence(900).acknowledgment(101);
        for (pair, frame, state) in [
            ([WEB, CACHE], there.clone().syn(), State::Opening),
            ([CACHE, WEB], back.clone().syn_ack(), State::Open),
            ([WEB, CACHE], there.clone().sequence(101).payload(b"hello").ack(), State::Open),
            ([CACHE, WEB], back.sequence(901).fin(), State::Closing),
        ] {
            assert_eq!(lab.delivers(pair, &frame), frame);
            let flows = lab.flows(At::A);
            assert_eq!((flows.len(), flows[0].state), (1, state as u8));
        }
        let flow = lab.flows(At::A)[0];
        let opener = flow.side[flow.opener().index()];
        let other = flow.side[flow.opener().other().index()];
        assert_eq!((opener.identity, other.identity), (WEB.identity(), CACHE.identity()));
        assert_eq!((opener.packets, other.packets), (2, 2));
        // The SYN, five bytes; the SYN, the FIN.
        assert_eq!((opener.seq_next, other.seq_next), (106, 902));
        lab.assert_only_changed(&["a.flows +1", "a.shop>shop.flows +1", "a.shop>shop.packets +4"]);
    }
}

#[test]
fn another_app_on_the_same_host_is_not_reached() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        for (pair, drops) in [([WEB, PRESS], "a.shop>blog.drops +2"), ([PRESS, WEB], "a.blog>shop.drops +2")] {
            let [from, to] = net.pair(pair);
            lab.sends(pair[0], &tcp(from, to).syn()).dropped();
            lab.sends(pair[0], &echo_request(from, to, [1, 1]).frame()).dropped();
            lab.assert_only_changed(&["a.drops.policy-default +2", drops]);
        }
    }
}

#[test]
fn the_gateway_of_the_app_is_the_host() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let (web, gateway) = (WEB.station(net.inner), At::A.gateway(SHOP, net.inner));
        let ping = echo_request(web, gateway, [7, 1]).frame();
        assert_eq!(lab.sends(WEB, &ping).reaches_host(), ping);
        let pong = echo_reply(gateway, web, [7, 1]).frame();
        let link = lab.link(At::A, WEB.name);
        assert_eq!(lab.host_sends(At::A, &pong).enters(WEB, link), pong);
        lab.assert_only_changed(&[
            "a.flows +1",
            "a.shop>host.flows +1",
            "a.shop>host.packets +1",
            "a.host>shop.packets +1",
        ]);
    }
}

#[test]
fn the_outside_is_reached_by_the_hosts_stack() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let web = WEB.station(net.inner);
        let frame = udp(web, net.outsider().behind([2, 9, 9, 9, 9, 9])).frame();
        assert_eq!(lab.sends(WEB, &frame).reaches_host(), frame.between(web.mac, Mac::GATEWAY.bytes()));
        lab.assert_only_changed(&["a.flows +1", "a.shop>outside.flows +1", "a.shop>outside.packets +1"]);
    }
}

#[test]
fn an_address_that_nobody_has_is_told_unreachable_and_the_daemon_is_asked() {
    let mut lab = Lab::two_hosts();
    for net in Net::LOCAL {
        lab.over(net);
        let web = WEB.station(net.inner);
        let nobody = Station::new(Mac::GATEWAY.bytes(), address(SHOP, At::A, 99, net.inner));
        let ran = lab.sends(WEB, &udp(web, nobody).frame());
        let read = ran.answered().decode();
        read.assert_sound();
        assert_eq!((read.ip().src, read.ip().dst, read.dst_mac), (nobody.ip, web.ip, web.mac));
        lab.assert_only_changed(&["a.drops.no-route +1", "a.misses +1", "a.shop>shop.drops +1", "a.no-rule.drops +1"]);
    }
}
