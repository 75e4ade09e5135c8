//! Cutting a packet into fragments: evenly, or just where a story wants it.

use super::Frame;
use super::ipv6::Extension;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header};
use std::ops::Range;

/// What the IPv6 fragments made here have in common.
pub const IDENTIFICATION: u32 = 0x7765_6674;

impl Frame {
    /// The packet in fragments whose payload is `size` bytes, the last one shorter.
    #[track_caller]
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let length = self.fragmentable().len();
        (0..length).step_by(size).map(|start| self.fragment(start..length.min(start + size))).collect()
    }

    /// One fragment with some bytes of what follows the IP header; the range may overlap with that of another one.
    ///
    /// The start must be a multiple of eight. It is the last fragment if the range goes to the end.
    #[must_use]
    #[track_caller]
    pub fn fragment(&self, range: Range<usize>) -> Self {
        let (head, next) = self.unfragmentable();
        let whole = self.fragmentable();
        assert_eq!(range.start % 8, 0, "fragments start at multiples of eight");
        let offset = u16::try_from(range.start / 8).expect("an offset in a packet");
        let more = range.end < whole.len();
        let part = &whole[range];
        let l3 = if let Some(number_at) = next {
            let extension = Extension::Fragment { offset, more, identification: IDENTIFICATION };
            let (fragment, bytes) = super::ipv6::chain(&[extension], head[number_at]);
            let mut head = head.to_vec();
            head[number_at] = fragment;
            let length = head.len() - 40 + bytes.len() + part.len();
            head[4..6].copy_from_slice(&u16::try_from(length).expect("shorter than the whole").to_be_bytes());
            [&head, &bytes, part].concat()
        } else {
            let (mut header, _) = Ipv4Header::from_slice(head).expect("an IPv4 header");
            header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
            header.more_fragments = more;
            header.dont_fragment = false;
            header.set_payload_len(part.len()).expect("shorter than the whole");
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes(), part].concat()
        };
        Self([&self.0[..self.0.len() - self.l3().len()], &l3].concat())
    }

    /// What may be cut: all after the part that every fragment repeats.
    fn fragmentable(&self) -> &[u8] {
        &self.l3()[self.unfragmentable().0.len()..]
    }

    /// The headers that every fragment repeats; on IPv6 also where in them the number of the next header is.
    #[track_caller]
    fn unfragmentable(&self) -> (&[u8], Option<usize>) {
        let l3 = self.l3();
        match l3[0] >> 4 {
            4 => (&l3[..usize::from(l3[0] & 0x0f) * 4], None),
            6 => {
                let (mut length, mut number_at) = (40, 6);
                // Hop-by-hop options and routing come before the fragment header (RFC 8200, 4.5).
                while [IpNumber::IPV6_HEADER_HOP_BY_HOP.0, IpNumber::IPV6_ROUTE_HEADER.0].contains(&l3[number_at]) {
                    number_at = length;
                    length += (usize::from(l3[length + 1]) + 1) * 8;
                }
                (&l3[..length], Some(number_at))
            }
            _ => panic!("not an IP packet: {self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ETHER;
    use crate::frame::ipv6::ROUTER_ALERT;
    use crate::frame::stations::PAIRS;
    use crate::frame::udp;
    use crate::underlay::{Family, UPLINK, Underlay};
    use crate::wire::Injector;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn fragments_say_where_they_belong() {
        for [a, b] in PAIRS {
            let whole = udp(a, b).payload_length(100).frame();
            let parts: Vec<_> = whole.fragments(48).iter().map(Frame::decode).collect();
            let places: Vec<_> = parts.iter().map(|part| part.ip().fragment.map(|f| (f.offset, f.more))).collect();
            assert_eq!(places, [Some((0, true)), Some((48, true)), Some((96, false))]);
            assert!(parts.iter().all(|part| part.faults.is_empty()), "{parts:?}");
            assert_eq!((parts[0].ports(), parts[1].ports()), (Some((40000, 80)), None));
            assert_eq!(whole.vlan(3).fragment(8..16).decode().vlans, [3]);
        }
    }

    #[test]
    fn an_extension_header_for_routers_is_in_every_fragment() {
        let [a, b] = PAIRS[1];
        let whole = udp(a, b).extension(Extension::HopByHop(ROUTER_ALERT.to_vec())).payload_length(100).frame();
        for part in whole.fragments(64) {
            assert_eq!(part.decode().ip().extensions, [0, 44]);
        }
    }

    #[test]
    fn the_kernel_puts_fragments_together_in_any_order() {
        let underlay = Underlay::bridged(2);
        let injector = Injector::on(underlay.host(0), UPLINK);
        for family in Family::BOTH {
            let (from, to) = (underlay.station(0, family), underlay.station(1, family));
            let socket = underlay.host(1).run(|| UdpSocket::bind((to.ip, 80)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let whole = udp(from, to).payload_length(3000).frame();
            assert!(whole.bytes().len() > ETHER + 1500);
            whole.fragments(1400).iter().rev().for_each(|part| injector.send(part));
            let mut received = [0; 4000];
            assert_eq!(socket.recv(&mut received).unwrap(), 3000);
        }
    }
}
