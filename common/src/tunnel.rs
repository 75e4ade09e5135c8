//! The tunnel: VXLAN with group policy in UDP, over IPv4 or IPv6 (RFC 7348).
//!
//! Builds the headers of a packet to a peer and reads those of a packet from one. Who may send what is
//! decided by the caller; this module knows bytes and sizes.

use crate::addr::Ip;
use crate::checksum::Sum;
use crate::header::{Bytes, Ether, IPV4_LEN, IPV6_LEN, Ipv4Hdr, Ipv6Hdr, UDP_LEN, UdpHdr, Vxlan, protocol};
use crate::id::{AppId, Identity, RoleId};
use crate::verdict::DropReason;

/// UDP port of the tunnel unless configured: 4789 belongs to Docker Swarm, 8472 to flannel and Cilium.
pub const PORT: u16 = 6784;

crate::wire! {
    /// How to reach another host.
    pub struct Peer {
        /// Its address on the underlay: where tunnel packets to it go and come from. None is no peer.
        pub addr: Ip,
        /// This host's address as that peer knows it.
        pub local: Ip,
        /// Next hop on the uplink: the peer itself on the same link, else a router.
        pub next_hop: Ip,
        /// Interface index of the uplink.
        pub uplink: u32,
        /// Largest underlay packet that the path takes, in bytes.
        pub path_mtu: u32,
        /// [`Self::ENCRYPTED`].
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

impl Peer {
    /// Traffic with this peer is encrypted: clear text from it is dropped.
    pub const ENCRYPTED: u32 = 1;

    /// Largest inner IP packet that reaches this peer in one piece.
    #[inline(always)]
    pub const fn inner_mtu(&self) -> u32 {
        inner_mtu(self.path_mtu, self.addr.is_v4())
    }
}

/// Bytes that the tunnel adds between the underlay's network header, included, and the inner one.
#[inline(always)]
pub const fn overhead(underlay_v4: bool) -> u32 {
    (if underlay_v4 { IPV4_LEN } else { IPV6_LEN }) + UDP_LEN + Vxlan::LEN + Ether::LEN
}

/// Largest inner IP packet for an underlay's MTU: 1500 gives 1450 over IPv4 and 1430 over IPv6.
#[inline(always)]
pub const fn inner_mtu(underlay_mtu: u32, underlay_v4: bool) -> u32 {
    underlay_mtu.saturating_sub(overhead(underlay_v4))
}

/// What goes in front of an inner packet, over IPv4: all headers up to the inner Ethernet header, included.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Outer4 {
    /// Underlay link; its addresses are the kernel's to fill.
    pub ether: Ether,
    /// Underlay network.
    pub ip: Ipv4Hdr,
    /// Underlay transport.
    pub udp: UdpHdr,
    /// Tunnel.
    pub vxlan: Vxlan,
    /// Inner link.
    pub inner: Ether,
}

/// What goes in front of an inner packet, over IPv6.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Outer6 {
    /// Underlay link; its addresses are the kernel's to fill.
    pub ether: Ether,
    /// Underlay network.
    pub ip: Ipv6Hdr,
    /// Underlay transport.
    pub udp: UdpHdr,
    /// Tunnel.
    pub vxlan: Vxlan,
    /// Inner link.
    pub inner: Ether,
}

/// What the headers depend on beside the peer.
#[derive(Clone, Copy)]
pub struct Inner {
    /// Link header of the inner frame.
    pub ether: Ether,
    /// Bytes of the inner frame, with its link header.
    pub len: u32,
    /// DSCP and ECN of the inner packet, which the outer one copies (RFC 6040 normal mode, RFC 2983 uniform).
    pub tos: u8,
    /// A number that spreads flows.
    pub entropy: u32,
    /// Who sends.
    pub identity: Identity,
}

impl Outer4 {
    /// The headers of `inner` to `peer`.
    #[inline(always)]
    pub fn new(peer: &Peer, port: u16, inner: &Inner) -> Self {
        let udp_len = UDP_LEN + Vxlan::LEN + inner.len;
        // A packet over 64 KiB (BIG TCP) has no length of its own; its segments get theirs when it is cut.
        let total = len16(IPV4_LEN + udp_len);
        let mut ip = Ipv4Hdr {
            vihl: 0x45,
            tos: inner.tos,
            tot_len: total,
            id: [0, 0],
            frags: [0x40, 0],
            ttl: 64,
            proto: protocol::UDP,
            check: [0, 0],
            src_addr: peer.local.v4(),
            dst_addr: peer.addr.v4(),
        };
        ip.check = Sum::default()
            .add([0x45, inner.tos])
            .add(total)
            .add([0x40, 0])
            .add([64, protocol::UDP])
            .add_u32(peer.local.0[3])
            .add_u32(peer.addr.0[3])
            .field();
        Self {
            ether: Ether { ethertype: Ether::IPV4, ..Ether::default() },
            ip,
            udp: udp(port, udp_len, inner.entropy),
            vxlan: vxlan(inner.identity),
            inner: inner.ether,
        }
    }
}

impl Outer6 {
    /// The headers of `inner` to `peer`. The UDP checksum is zero, as RFC 6935 allows tunnels.
    #[inline(always)]
    pub fn new(peer: &Peer, port: u16, inner: &Inner) -> Self {
        let udp_len = UDP_LEN + Vxlan::LEN + inner.len;
        let ip = Ipv6Hdr {
            vcf: [0x60 | (inner.tos >> 4), inner.tos << 4, 0, 0],
            payload_len: len16(udp_len),
            next_hdr: protocol::UDP,
            hop_limit: 64,
            src_addr: peer.local.bytes(),
            dst_addr: peer.addr.bytes(),
        };
        Self {
            ether: Ether { ethertype: Ether::IPV6, ..Ether::default() },
            ip,
            udp: udp(port, udp_len, inner.entropy),
            vxlan: vxlan(inner.identity),
            inner: inner.ether,
        }
    }
}

#[inline(always)]
fn udp(port: u16, len: u32, entropy: u32) -> UdpHdr {
    // The ephemeral range of RFC 6335, as RFC 7348 §5 recommends.
    let source = 0xc000 | (entropy & 0x3fff) as u16;
    UdpHdr { src: source.to_be_bytes(), dst: port.to_be_bytes(), len: len16(len), check: [0, 0] }
}

#[inline(always)]
fn vxlan(identity: Identity) -> Vxlan {
    let vni = identity.app.0.to_be_bytes();
    Vxlan {
        flags: Vxlan::VNI_VALID | Vxlan::GROUP_VALID,
        policy: 0,
        group: identity.role.0.to_be_bytes(),
        vni: [vni[1], vni[2], vni[3]],
        reserved: 0,
    }
}

#[inline(always)]
const fn len16(len: u32) -> [u8; 2] {
    if len > 0xffff { [0, 0] } else { (len as u16).to_be_bytes() }
}

/// A tunnel packet's own headers, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Who sent it, by its underlay address.
    pub src: Ip,
    /// Whom it was sent to.
    pub dst: Ip,
    /// Whom it claims to speak for. Without a group policy id the role is [`RoleId::UNKNOWN`].
    pub identity: Identity,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    /// Where the inner Ethernet header starts.
    pub inner: u32,
}

/// Reads the tunnel headers of a frame from the underlay. `None`: it is not a tunnel packet to `port`, or there
/// is no port yet.
#[inline(always)]
pub fn open<B: Bytes + ?Sized>(frame: &B, port: u16) -> Result<Option<Tunnel>, DropReason> {
    if port == 0 {
        return Ok(None);
    }
    let Some(ether) = frame.get::<Ether>(0) else { return Ok(None) };
    let (src, dst, tos, udp_at, end) = match ether.ethertype {
        Ether::IPV4 => {
            let Some(ip) = frame.get::<Ipv4Hdr>(Ether::LEN) else { return Ok(None) };
            let frags = u16::from_be_bytes(ip.frags);
            if ip.vihl != 0x45 || ip.proto != protocol::UDP || frags & 0x1fff != 0 {
                return Ok(None);
            }
            if frags & 0x2000 != 0 {
                let udp: Option<UdpHdr> = frame.get(Ether::LEN + IPV4_LEN);
                let ours = udp.is_some_and(|udp| udp.dst == port.to_be_bytes());
                return if ours { Err(DropReason::TunnelFragment) } else { Ok(None) };
            }
            let end = end(frame, Ether::LEN, ip.tot_len);
            (Ip::from_v4(ip.src_addr), Ip::from_v4(ip.dst_addr), ip.tos, Ether::LEN + IPV4_LEN, end)
        }
        Ether::IPV6 => {
            let Some(ip) = frame.get::<Ipv6Hdr>(Ether::LEN) else { return Ok(None) };
            if ip.next_hdr != protocol::UDP {
                return Ok(None);
            }
            let end = end(frame, Ether::LEN + IPV6_LEN, ip.payload_len);
            let tos = (ip.vcf[0] << 4) | (ip.vcf[1] >> 4);
            (Ip::from_v6(ip.src_addr), Ip::from_v6(ip.dst_addr), tos, Ether::LEN + IPV6_LEN, end)
        }
        _ => return Ok(None),
    };
    let Some(udp) = frame.get::<UdpHdr>(udp_at) else { return Ok(None) };
    if udp.dst != port.to_be_bytes() {
        return Ok(None);
    }
    let inner = udp_at + UDP_LEN + Vxlan::LEN;
    let vxlan: Vxlan = frame.get(udp_at + UDP_LEN).ok_or(DropReason::TunnelMalformed)?;
    if end < inner + Ether::LEN || end > frame.frame_len() {
        return Err(DropReason::TunnelMalformed);
    }
    if vxlan.flags & !Vxlan::GROUP_VALID != Vxlan::VNI_VALID {
        return Err(DropReason::TunnelMalformed);
    }
    let grouped = vxlan.flags & Vxlan::GROUP_VALID != 0;
    let role = if grouped { RoleId(u16::from_be_bytes(vxlan.group)) } else { RoleId::UNKNOWN };
    let app = AppId(u32::from_be_bytes([0, vxlan.vni[0], vxlan.vni[1], vxlan.vni[2]]));
    Ok(Some(Tunnel { src, dst, identity: Identity::new(app, role), tos, inner }))
}

/// Where a packet ends whose length counts from `start`. One that was merged (GRO) beyond 64 KiB has no length.
#[inline(always)]
fn end<B: Bytes + ?Sized>(frame: &B, start: u32, length: [u8; 2]) -> u32 {
    let merged = length == [0; 2] && frame.frame_len() > 0xffff;
    if merged { frame.frame_len() } else { start + u32::from(u16::from_be_bytes(length)) }
}

/// The inner DSCP and ECN after the tunnel ends (RFC 6040 §4.2): congestion marked on the way is carried
/// over, and a packet that can not carry it is dropped.
#[inline(always)]
pub const fn close_ecn(outer_tos: u8, inner_tos: u8) -> Result<u8, DropReason> {
    const INCAPABLE: u8 = 0;
    const CAPABLE_1: u8 = 1;
    const CAPABLE_0: u8 = 2;
    const CONGESTION: u8 = 3;
    match (outer_tos & 3, inner_tos & 3) {
        (CONGESTION, INCAPABLE) => Err(DropReason::EcnInvalid),
        (CONGESTION, _) => Ok(inner_tos | CONGESTION),
        (CAPABLE_1, CAPABLE_0) => Ok((inner_tos & !3) | CAPABLE_1),
        _ => Ok(inner_tos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::as_bytes;
    use core::net::IpAddr;
    use std::vec::Vec;

    fn peer(local: &str, addr: &str) -> Peer {
        let ip = |text: &str| Ip::from(text.parse::<IpAddr>().unwrap());
        Peer { addr: ip(addr), local: ip(local), path_mtu: 1500, ..Peer::default() }
    }

    fn inner() -> Inner {
        Inner {
            ether: Ether { ethertype: Ether::IPV4, ..Ether::default() },
            len: 114,
            tos: 0xb9,
            entropy: 0x1234_5678,
            identity: Identity::new(AppId(0x0a_bcde), RoleId(0x0102)),
        }
    }

    /// `Outer4` and `Outer6` are all bytes, one after the other.
    fn frame_of(parts: &[&[u8]], payload: usize) -> Vec<u8> {
        let mut frame = parts.concat();
        frame.resize(frame.len() + payload, 0);
        frame
    }

    #[test]
    fn what_is_sent_can_be_opened() {
        let o = Outer4::new(&peer("192.0.2.1", "192.0.2.2"), PORT, &inner());
        let v4 = frame_of(
            &[as_bytes(&o.ether), as_bytes(&o.ip), as_bytes(&o.udp), as_bytes(&o.vxlan), as_bytes(&o.inner)],
            100,
        );
        let o = Outer6::new(&peer("2001:db8::1", "2001:db8::2"), PORT, &inner());
        let v6 = frame_of(
            &[as_bytes(&o.ether), as_bytes(&o.ip), as_bytes(&o.udp), as_bytes(&o.vxlan), as_bytes(&o.inner)],
            100,
        );
        for (frame, at, src) in [(v4, 50, "192.0.2.1"), (v6, 70, "2001:db8::1")] {
            let tunnel = open(frame.as_slice(), PORT).unwrap().unwrap();
            assert_eq!(tunnel.identity, inner().identity);
            assert_eq!((tunnel.inner, tunnel.tos), (at, 0xb9));
            assert_eq!(tunnel.src.to_std(), src.parse::<IpAddr>().unwrap());
            assert_eq!(open(frame.as_slice(), 4789), Ok(None));
            for cut in 0..frame.len() {
                assert!(!matches!(open(&frame[..cut], PORT), Ok(Some(_))), "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_header_checksum_verifies() {
        let o = Outer4::new(&peer("192.0.2.1", "198.51.100.77"), PORT, &inner());
        assert_eq!(Sum::default().add_bytes(as_bytes(&o.ip)).field(), [0, 0]);
    }

    #[test]
    fn mtu_is_what_the_headers_leave() {
        assert_eq!(inner_mtu(1500, true), 1450);
        assert_eq!(inner_mtu(1500, false), 1430);
        assert_eq!(inner_mtu(10, true), 0);
        assert_eq!(size_of::<Outer4>() as u32, overhead(true) + Ether::LEN);
        assert_eq!(size_of::<Outer6>() as u32, overhead(false) + Ether::LEN);
    }

    #[test]
    fn congestion_crosses_the_end_of_the_tunnel() {
        for (outer, inner, expect) in [
            (0, 0, Ok(0)),
            (3, 0, Err(DropReason::EcnInvalid)),
            (3, 1, Ok(3)),
            (3, 2, Ok(3)),
            (3, 3, Ok(3)),
            (1, 2, Ok(1)),
            (2, 1, Ok(1)),
            (1, 0, Ok(0)),
            (0xb8 | 3, 0x28 | 2, Ok(0x28 | 3)),
        ] {
            assert_eq!(close_ecn(outer, inner), expect, "{outer} {inner}");
        }
    }
}
