//! Fragments: the first one names the flow, the others are matched to it by the datagram's id.
//!
//! A later fragment is let through only behind its first; one that would overwrite bytes of the first
//! poisons the datagram (RFC 1858, RFC 5722). Overlaps among later fragments can not change what policy
//! looked at, and the receiver's own stack discards them.

use crate::addr::Ip;
use crate::flow::{SECOND, is_older};
use crate::parse::Ports;

crate::wire! {
    /// Names a datagram that came in pieces (RFC 791, RFC 8200 §4.5).
    pub struct DatagramKey {
        /// Source.
        pub src: Ip,
        /// Destination.
        pub dst: Ip,
        /// The identification field.
        pub id: u32,
        /// Transport protocol.
        pub protocol: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }

    /// What the first fragment said.
    pub struct Datagram {
        /// When it passed, in nanoseconds of the monotonic clock.
        pub seen: u64,
        /// Where the first fragment ends: a later one starts there at the earliest. [`Datagram::POISONED`] refuses all.
        pub first_end: u32,
        /// Sender's port.
        pub src_port: u16,
        /// Receiver's port.
        pub dst_port: u16,
    }
}

impl Datagram {
    /// In place of `first_end`: nothing of this datagram may pass any more.
    pub const POISONED: u32 = u32::MAX;
    /// Linux gives a datagram 30 s to be complete (`net.ipv4.ipfrag_time`).
    const LIFETIME: u64 = 30 * SECOND;

    /// The ports of the flow.
    #[inline(always)]
    pub const fn ports(&self) -> Ports {
        Ports { src: self.src_port, dst: self.dst_port }
    }

    /// Whether a datagram with the same id may begin.
    #[inline(always)]
    pub const fn is_over(&self, now: u64) -> bool {
        is_older(self.seen, now, Self::LIFETIME)
    }

    /// Whether a later fragment that starts at `offset` leaves the first one whole.
    #[inline(always)]
    pub const fn admits(&self, offset: u16) -> bool {
        offset as u32 >= self.first_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_may_follow_the_first_and_not_overwrite_it() {
        let first = Datagram { seen: 5, first_end: 1480, src_port: 1, dst_port: 2 };
        assert!(first.admits(1480) && first.admits(2960) && !first.admits(1472) && !first.admits(8));
        assert!(!Datagram { first_end: Datagram::POISONED, ..first }.admits(u16::MAX));
        assert!(!first.is_over(5 + Datagram::LIFETIME) && first.is_over(6 + Datagram::LIFETIME));
    }
}
