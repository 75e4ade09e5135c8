//! Headers that may be read from and written to packet bytes, and the bytes they are read from.
//!
//! The structs are those of `network-types`: byte arrays, so they have alignment 1 and any bits are a
//! valid value. `Ether` and the VXLAN header with its group policy are ours, because theirs have
//! alignment 2 and no group.

#![expect(unsafe_code, reason = "promises that headers are plain bytes, and reads them unaligned")]

pub use network_types::arp::ArpHdr;
pub use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
pub use network_types::udp::UdpHdr;

use crate::addr::Mac;

/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: u32 = Ipv4Hdr::LEN as u32;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_LEN: u32 = Ipv6Hdr::LEN as u32;
/// Bytes of a UDP header.
pub const UDP_LEN: u32 = UdpHdr::LEN as u32;

/// A header that can be copied out of a packet.
///
/// # Safety
///
/// The type has alignment 1, no padding, and no bit pattern is invalid.
pub unsafe trait Header: Copy + 'static {}

macro_rules! header {
    ($($t:ty),* $(,)?) => {$(
        // SAFETY: all fields are bytes or arrays of bytes; the assertion proves the alignment.
        unsafe impl Header for $t {}
        const _: () = assert!(align_of::<$t>() == 1);
    )*};
}
header!(
    Ether,
    Ipv4Hdr,
    Ipv6Hdr,
    UdpHdr,
    Tcp,
    Icmp,
    ArpHdr,
    Vxlan,
    Ipv6Extension,
    Ipv6Fragment,
    Discovery,
    Advertisement,
    u8
);

use crate::answer::{Advertisement6, Error4, Error6, Reset4, Reset6};
use crate::tunnel::{Outer4, Outer6};
// Several headers in a row.
header!(Advertisement6, Outer4, Outer6, Reset4, Reset6, Error4, Error6);

// SAFETY: arrays of bytes.
unsafe impl<const N: usize> Header for [u8; N] {}

/// Bytes of a frame: packet memory in the kernel, a slice elsewhere.
pub trait Bytes {
    /// How many bytes the frame has, whether or not they can be read directly.
    fn frame_len(&self) -> u32;

    /// A copy of the header at `at`, or nothing when the bytes end before it does.
    fn get<T: Header>(&self, at: u32) -> Option<T>;
}

impl Bytes for [u8] {
    fn frame_len(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn get<T: Header>(&self, at: u32) -> Option<T> {
        let start = at as usize;
        let bytes = self.get(start..start.checked_add(size_of::<T>())?)?;
        // SAFETY: `bytes` holds exactly `size_of::<T>()` bytes, and `Header` promises that any bits will do.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// The bytes of a header, as they go on the wire.
pub const fn as_bytes<T: Header>(header: &T) -> &[u8] {
    // SAFETY: a header has no padding, so all its bytes are initialised.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(header).cast::<u8>(), size_of::<T>()) }
}

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ether {
    /// Destination.
    pub dst: [u8; 6],
    /// Source.
    pub src: [u8; 6],
    /// What follows, in network order.
    pub ethertype: [u8; 2],
}

impl Ether {
    /// Bytes of the header: where the network header of an untagged frame starts.
    pub const LEN: u32 = 14;
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// ARP.
    pub const ARP: [u8; 2] = [0x08, 0x06];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];

    /// Whether it is not for stations beyond the link: it has a length in the ethertype's place (802.3, as spanning tree
    /// and other protocols of bridges have), or a tag in front of its ethertype, or goes to an address that no bridge
    /// forwards (802.1D §7.12.6), or controls the link (pause, aggregation).
    #[inline(always)]
    pub const fn is_of_the_link(&self) -> bool {
        let ethertype = u16::from_be_bytes(self.ethertype);
        matches!(ethertype, ..0x0600 | 0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x8808 | 0x8809)
            || matches!(self.dst, [0x01, 0x80, 0xc2, _, _, _])
    }

    /// The source as an address.
    #[inline(always)]
    pub const fn source(&self) -> Mac {
        Mac::new(self.src)
    }

    /// The destination as an address.
    #[inline(always)]
    pub const fn destination(&self) -> Mac {
        Mac::new(self.dst)
    }
}

/// TCP without options (RFC 9293 §3.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// Sequence number.
    pub seq: [u8; 4],
    /// Acknowledgement number.
    pub ack: [u8; 4],
    /// Data offset in the upper four bits.
    pub offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Receive window.
    pub window: [u8; 2],
    /// Checksum.
    pub check: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}

impl Tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// Bytes of the header without options.
    pub const LEN: u32 = 20;

    /// Bytes of the header with options.
    #[inline(always)]
    pub const fn header_len(&self) -> u32 {
        (self.offset >> 4) as u32 * 4
    }
}

/// ICMP and ICMPv6 (RFC 792, RFC 4443).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: [u8; 2],
    /// Identifier and sequence number, or what the type says.
    pub rest: [u8; 4],
}

impl Icmp {
    /// Bytes of the header: where the packet quoted by an error starts.
    pub const LEN: u32 = 8;
}

/// An IPv6 extension header that says its length in units of eight bytes, without the first eight (RFC 8200 §4.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Ipv6Extension {
    /// What follows.
    pub next: u8,
    /// Length.
    pub len: u8,
}

/// The IPv6 fragment header (RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Ipv6Fragment {
    /// What follows.
    pub next: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of eight bytes in the upper 13 bits, "more fragments" in the lowest.
    pub offset: [u8; 2],
    /// Names the datagram.
    pub id: [u8; 4],
}

/// VXLAN with group-based policy (RFC 7348, draft-smith-vxlan-group-policy-05).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// [`Self::VNI_VALID`] and [`Self::GROUP_VALID`].
    pub flags: u8,
    /// "Don't learn" and "policy applied" bits; zero from us, ignored on receipt.
    pub policy: u8,
    /// Group policy id: the sender's role.
    pub group: [u8; 2],
    /// Network identifier: the sender's app.
    pub vni: [u8; 3],
    /// Zero.
    pub reserved: u8,
}

impl Vxlan {
    /// Bytes of the header.
    pub const LEN: u32 = 8;
    /// The I flag.
    pub const VNI_VALID: u8 = 0x08;
    /// The G flag.
    pub const GROUP_VALID: u8 = 0x80;
}

/// A neighbour solicitation, or the start of an advertisement (RFC 4861 §4.3, §4.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Discovery {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: [u8; 2],
    /// Of an advertisement: router, solicited, override.
    pub flags: [u8; 4],
    /// The address that is asked for or spoken of.
    pub target: [u8; 16],
}

/// A neighbour advertisement with its target's link-layer address (RFC 4861 §4.4, §4.6.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Advertisement {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: [u8; 2],
    /// Router, solicited, override.
    pub flags: [u8; 4],
    /// The address that is spoken of.
    pub target: [u8; 16],
    /// Type and length of the option.
    pub option: [u8; 2],
    /// Who has it.
    pub mac: [u8; 6],
}

/// Protocol numbers that the programs tell apart.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_link_alone_is_told_from_other_frames() {
        let frame = |dst, ethertype: u16| Ether { dst, src: [2; 6], ethertype: ethertype.to_be_bytes() };
        for ethertype in [0x0000, 0x0026, 0x05dc, 0x05ff, 0x8100, 0x88a8, 0x9100, 0x9200, 0x8808, 0x8809] {
            assert!(frame([2; 6], ethertype).is_of_the_link(), "{ethertype:04x}");
        }
        for ethertype in [0x0600, 0x0800, 0x22f0, 0x8863, 0x88a2, 0x88b5, 0xffff] {
            assert!(!frame([2; 6], ethertype).is_of_the_link(), "{ethertype:04x}");
            assert!(!frame([0xff; 6], ethertype).is_of_the_link(), "{ethertype:04x}");
            assert!(frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], ethertype).is_of_the_link(), "{ethertype:04x}");
        }
    }
}
