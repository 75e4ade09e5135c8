//! What only a router or an address server may say. A container that says it is lying.

use super::icmp::message;
use super::neighbour::{link_option, multicast};
use super::{BROADCAST, Frame, Station, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tells everybody on the link: I am a router, and this /64 is yours to take addresses from.
pub fn router_advertisement(router: Station, prefix: Ipv6Addr) -> Frame {
    const LIFETIME: [u8; 2] = 1800_u16.to_be_bytes();
    const ON_LINK_AND_AUTONOMOUS: u8 = 0xc0;
    const VALID: [u8; 4] = 86400_u32.to_be_bytes();
    let timers = [0; 8];
    let prefix = [&[3, 4, 64, ON_LINK_AND_AUTONOMOUS][..], &VALID, &VALID, &[0; 4], &prefix.octets()].concat();
    let body = [&timers[..], &link_option(1, router.mac), &prefix].concat();
    let everybody = multicast(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    // Hop limit 64 for those who listen, no DHCPv6, lifetime.
    message(router, everybody, [134, 0], [64, 0, LIFETIME[0], LIFETIME[1]]).hops(255).payload(&body).frame()
}

/// A DHCP server's offer of an address to whoever asks from `client`.
#[track_caller]
pub fn dhcp_offer(server: Station, client: [u8; 6], offered: Ipv4Addr) -> Frame {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let IpAddr::V4(own) = server.ip else { panic!("DHCP does not know {}", server.ip) };
    let mut reply = vec![2, 1, 6, 0];
    reply.extend(0x1234_5678_u32.to_be_bytes());
    reply.extend([0; 8]);
    reply.extend(offered.octets());
    reply.extend(own.octets());
    reply.extend([0; 4]);
    reply.extend(client);
    // Rest of the hardware address, server name and boot file.
    reply.resize(236, 0);
    reply.extend(COOKIE);
    // Message type 2 is an offer; who offers; where to route; the end.
    reply.extend([53, 1, 2]);
    reply.extend([&[54, 4][..], &own.octets()].concat());
    reply.extend([&[3, 4][..], &own.octets()].concat());
    reply.push(255);
    let everybody = Station::new(BROADCAST, Ipv4Addr::BROADCAST.into());
    udp(server, everybody).ports(67, 68).payload(&reply).frame()
}

/// A DHCPv6 server's advertisement to `client`.
pub fn dhcpv6_advertise(server: Station, client: Station) -> Frame {
    // Type 2, a transaction, and the server's identifier: a link-layer address (RFC 8415).
    let identifier = [&[0, 2, 0, 10, 0, 3, 0, 1][..], &server.mac].concat();
    udp(server, client).ports(547, 546).payload(&[&[2, 1, 2, 3][..], &identifier].concat()).frame()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::stations::PAIRS;
    use crate::netns::Netns;
    use crate::wait::eventually;
    use crate::wire::Injector;
    use std::time::Duration;

    #[test]
    fn a_naive_host_takes_an_address_from_the_router() {
        let (naive, router) = (Netns::new("naive"), Netns::new("router"));
        naive.ip(&format!("link add eth0 type veth peer name eth0 netns {}", router.name()));
        for end in [&naive, &router] {
            end.ip("link set eth0 up");
        }
        let injector = Injector::on(&router, "eth0");
        let own = Station::new([2, 0, 0, 0, 0, 9], Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).into());
        let advertisement = router_advertisement(own, "2001:db8:7::".parse().unwrap());
        assert_eq!(advertisement.decode().faults.len(), 0, "{advertisement:?}");
        eventually(Duration::from_secs(10), || {
            injector.send(&advertisement);
            naive.ip("-6 addr show dev eth0").contains("2001:db8:7:") && naive.ip("-6 route").contains("default")
        });
    }

    #[test]
    fn an_offer_is_read_back() {
        let [[server, client], [server6, client6]] = PAIRS;
        let read = dhcp_offer(server, client.mac, Ipv4Addr::new(10, 0, 0, 77)).decode();
        assert_eq!((read.faults.len(), read.ports(), &read.payload[16..20]), (0, Some((67, 68)), &[10, 0, 0, 77][..]));
        let read = dhcpv6_advertise(server6, client6).decode();
        assert_eq!((read.faults.len(), read.ports()), (0, Some((547, 546))));
    }
}
