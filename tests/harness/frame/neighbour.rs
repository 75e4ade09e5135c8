//! Who has this address: ARP for IPv4, neighbour discovery for IPv6. The honest ones and the lies.

use super::icmp::message;
use super::{BROADCAST, Frame, Station, raw};
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Asks everybody on the link who has `wanted`.
pub fn arp_request(asker: Station, wanted: Ipv4Addr) -> Frame {
    let target = Station::new([0; 6], wanted.into());
    arp(ArpOperation::REQUEST, asker, target).between(asker.mac, BROADCAST)
}

/// Tells `asker` where `owner` is. A lie if the owner's MAC is not the owner's.
pub fn arp_reply(owner: Station, asker: Station) -> Frame {
    arp(ArpOperation::REPLY, owner, asker)
}

/// Tells everybody where `owner` is, without being asked.
pub fn gratuitous_arp(owner: Station) -> Frame {
    arp(ArpOperation::REQUEST, owner, owner.behind([0; 6])).between(owner.mac, BROADCAST)
}

/// Asks those who may have `wanted` for its MAC.
#[track_caller]
pub fn neighbour_solicitation(asker: Station, wanted: Ipv6Addr) -> Frame {
    let [.., a, b, c] = wanted.octets();
    // The group that everybody joins for the last three bytes of an own address (RFC 4291, 2.7.1).
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let body = [&wanted.octets()[..], &link_option(1, asker.mac)].concat();
    message(asker, multicast(group), [135, 0], [0; 4]).hops(255).payload(&body).frame()
}

/// Tells `asker` where `owner` is. A lie if the owner's MAC is not the owner's.
#[track_caller]
pub fn neighbour_advertisement(owner: Station, asker: Station) -> Frame {
    const SOLICITED_OVERRIDE: u8 = 0x60;
    let body = [&v6(owner).octets()[..], &link_option(2, owner.mac)].concat();
    message(owner, asker, [136, 0], [SOLICITED_OVERRIDE, 0, 0, 0]).hops(255).payload(&body).frame()
}

/// Tells everybody where `owner` is, without being asked.
#[track_caller]
pub fn unsolicited_advertisement(owner: Station) -> Frame {
    const OVERRIDE: u8 = 0x20;
    let body = [&v6(owner).octets()[..], &link_option(2, owner.mac)].concat();
    let everybody = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    message(owner, everybody, [136, 0], [OVERRIDE, 0, 0, 0]).hops(255).payload(&body).frame()
}

/// A multicast group and the MAC that stands for it (RFC 2464).
pub fn multicast(group: Ipv6Addr) -> Station {
    let [.., a, b, c, d] = group.octets();
    Station::new([0x33, 0x33, a, b, c, d], group.into())
}

/// The option that names a link address: of the source (1) or of the target (2).
pub(super) fn link_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

#[track_caller]
fn arp(operation: ArpOperation, sender: Station, target: Station) -> Frame {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender.mac,
        sender_ipv4: v4(sender).octets(),
        target_mac: target.mac,
        target_ipv4: v4(target).octets(),
    };
    raw(sender, target, EtherType::ARP.0, &ArpPacket::from(packet).to_bytes())
}

#[track_caller]
fn v4(station: Station) -> Ipv4Addr {
    match station.ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("ARP does not know {ip}"),
    }
}

#[track_caller]
fn v6(station: Station) -> Ipv6Addr {
    match station.ip {
        IpAddr::V4(ip) => panic!("neighbour discovery does not know {ip}"),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::decoded::Net;
    use crate::frame::stations::PAIRS;
    use crate::underlay::{Family, UPLINK, Underlay};
    use crate::wait::eventually;
    use crate::wire::{Capture, Injector};
    use std::time::Duration;

    #[test]
    fn arp_is_read_back() {
        let [[a, b], _] = PAIRS;
        let ask = arp_request(a, v4(b)).decode();
        let nobody = b.behind([0; 6]);
        assert_eq!(ask.net, Net::Arp { operation: 1, sender: a, target: nobody });
        assert_eq!((ask.src_mac, ask.dst_mac), (a.mac, BROADCAST));
        let answer = arp_reply(b, a).decode();
        assert_eq!(answer.net, Net::Arp { operation: 2, sender: b, target: a });
        assert_eq!((answer.src_mac, answer.dst_mac), (b.mac, a.mac));
    }

    #[test]
    fn the_kernel_answers_both_questions_as_these_answers_are_made() {
        let underlay = Underlay::bridged(2);
        let [near, far] = [0, 1].map(|host| Family::BOTH.map(|family| underlay.station(host, family)));
        let capture = Capture::start(underlay.host(0), UPLINK);
        let injector = Injector::on(underlay.host(0), UPLINK);
        injector.send(arp_request(near[0], v4(far[0])));
        injector.send(neighbour_solicitation(near[1], v6(far[1])));
        for answer in [arp_reply(far[0], near[0]), neighbour_advertisement(far[1], near[1])] {
            let seen = capture.wait_for(Duration::from_secs(5), |seen| seen.frame == answer);
            assert!(seen.is_some(), "{answer:?} is not among {:?}", capture.frames());
        }
    }

    #[test]
    fn the_kernel_believes_an_unsolicited_advertisement() {
        let underlay = Underlay::bridged(2);
        let host = underlay.host(1);
        for family in Family::BOTH {
            let (owner, asker) = (underlay.station(0, family), underlay.station(1, family));
            host.ip(&format!("neigh replace {} dev {UPLINK} lladdr 02:00:00:00:00:99 nud stale", owner.ip));
            let injector = Injector::on(underlay.host(0), UPLINK);
            eventually(Duration::from_secs(5), || {
                match owner.ip {
                    IpAddr::V4(_) => injector.send(arp_reply(owner, asker)),
                    IpAddr::V6(_) => injector.send(unsolicited_advertisement(owner)),
                }
                host.ip(&format!("neigh show {}", owner.ip)).contains("02:00:c0:00:02:01")
            });
        }
    }
}
