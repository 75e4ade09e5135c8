//! Flows: one entry for both directions of a connection, so that eviction can not strand half of it.
//!
//! Knows nothing of maps and clocks: time is an argument. Invariant: an entry says "allowed" for the
//! epoch it carries and for no other.

use crate::addr::{Ip, Mac};
use crate::header::Tcp;
use crate::id::{Epoch, Identity};
use crate::parse::{Packet, Ports};
use crate::route::Hop;

/// One of the two sides of a flow, as an index into [`Flow::side`]. `A` is the one whose address and
/// port come first in order; which of them opened the flow is in [`Flow::opener`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Leg(u8);

impl Leg {
    /// The side whose (address, port) is the smaller.
    pub const A: Self = Self(0);
    /// The other.
    pub const B: Self = Self(1);

    /// The other side.
    #[must_use]
    #[inline(always)]
    pub const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// From the number in a record.
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    /// The number in a record.
    #[inline(always)]
    pub const fn raw(self) -> u8 {
        self.0 & 1
    }

    /// As an index. The mask is there for the verifier, which does not know what values there are.
    #[inline(always)]
    pub const fn index(self) -> usize {
        (self.0 & 1) as usize
    }
}

crate::wire! {
    /// Names a flow whatever the direction of the packet it was read from.
    pub struct FlowKey {
        /// Addresses of sides A and B.
        pub addr: [Ip; 2],
        /// Ports of sides A and B.
        pub port: [u16; 2],
        /// Transport protocol.
        pub protocol: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }

    /// One side of a flow: where it is, and what is needed to deliver to it or to reset it.
    pub struct Side {
        /// Where its packets come from and go to.
        pub hop: Hop,
        /// Who it is.
        pub identity: Identity,
        /// Its hardware address.
        pub mac: Mac,
        /// Zero.
        pub reserved: u16,
        /// TCP: the sequence number after the last byte it sent.
        pub seq_next: u32,
        /// Zero.
        pub reserved2: u32,
        /// Packets it sent.
        pub packets: u64,
        /// Bytes it sent, with their Ethernet headers.
        pub bytes: u64,
    }

    /// A flow that was allowed.
    pub struct Flow {
        /// Sides A and B.
        pub side: [Side; 2],
        /// The epoch under which it was allowed.
        pub epoch: Epoch,
        /// The rule that allowed it; 0 is the default.
        pub rule: u32,
        /// When the last packet passed, in nanoseconds of the monotonic clock, to a quarter of a second.
        pub seen: u64,
        /// When it was allowed first.
        pub created: u64,
        /// When policy is asked again though nothing changes, in nanoseconds of [`crate::policy::Rules::now`]; 0: never.
        pub until: u64,
        /// [`Leg`] of the side that opened it.
        pub opener: u8,
        /// [`State`].
        pub state: u8,
        /// Zero.
        pub reserved: [u8; 2],
        /// What would not have allowed it if the rules that are tried were in force: see [`crate::policy::shadow`].
        pub shadow: u32,
    }
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Only its opener has sent.
    Opening = 0,
    /// Both sides have sent.
    Open = 1,
    /// TCP: one side has sent a FIN or a RST.
    Closing = 2,
    /// TCP: policy denies it now, and both sides were told.
    Ended = 3,
}

/// In nanoseconds of the monotonic clock.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Granularity of [`Flow::seen`]: a store per packet would move the entry's cache line between cores.
pub const SEEN_STEP: u64 = SECOND / 4;

impl FlowKey {
    /// The key of a packet from `src` to `dst`, and which side sent it.
    pub fn of(src: Ip, dst: Ip, protocol: u8, ports: Ports) -> (Self, Leg) {
        let mut key = Self::default();
        let leg = key.set(src, dst, protocol, ports);
        (key, leg)
    }

    /// Makes this the key of a packet from `src` to `dst`, and says which side sent it.
    #[inline(always)]
    pub fn set(&mut self, src: Ip, dst: Ip, protocol: u8, ports: Ports) -> Leg {
        self.protocol = protocol;
        self.reserved = [0; 3];
        if is_first(src, ports.src, dst, ports.dst) {
            self.addr = [src, dst];
            self.port = [ports.src, ports.dst];
            Leg::A
        } else {
            self.addr = [dst, src];
            self.port = [ports.dst, ports.src];
            Leg::B
        }
    }

    /// The ports of a packet sent by `leg`.
    #[inline(always)]
    pub const fn ports(&self, leg: Leg) -> Ports {
        Ports { src: self.port[leg.index()], dst: self.port[leg.other().index()] }
    }

    /// A number that spreads flows evenly: the tunnel's source port is made of it. The same for both
    /// directions, so a flow takes one path both ways where the network hashes ports.
    #[inline(always)]
    pub fn entropy(&self) -> u32 {
        let mut hash: u32 = 0x9e37_79b9 ^ u32::from(self.protocol);
        let words = [
            self.addr[0].0[0] ^ self.addr[0].0[2],
            self.addr[0].0[1] ^ self.addr[0].0[3],
            self.addr[1].0[0] ^ self.addr[1].0[2],
            self.addr[1].0[1] ^ self.addr[1].0[3],
            (u32::from(self.port[0]) << 16) | u32::from(self.port[1]),
        ];
        let mut i = 0;
        while i < 5 {
            hash = (hash ^ words[i]).wrapping_mul(0x85eb_ca6b);
            hash ^= hash >> 15;
            i += 1;
        }
        hash
    }
}

/// Whether (a, a's port) comes before (b, b's port) in the order of [`FlowKey::addr`].
#[inline(always)]
fn is_first(a: Ip, a_port: u16, b: Ip, b_port: u16) -> bool {
    let mut i = 0;
    while i < 4 {
        if a.0[i] != b.0[i] {
            return a.0[i] < b.0[i];
        }
        i += 1;
    }
    a_port <= b_port
}

/// What a packet means to the entry that its key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It belongs to the flow, which is allowed: forward it.
    Current,
    /// It belongs to the flow, which was allowed under another epoch or until now: decide again, as for its opener.
    Stale,
    /// The entry is no longer good for it: decide as if there were none.
    Gone,
}

/// Whether what was seen is longer ago than `limit`, in nanoseconds. Another processor may have seen a packet after this
/// one read the clock: that is less than nothing ago.
#[inline(always)]
pub(crate) const fn is_older(seen: u64, now: u64, limit: u64) -> bool {
    now.wrapping_sub(seen).cast_signed() > limit.cast_signed()
}

impl Flow {
    /// The side that opened it.
    #[inline(always)]
    pub const fn opener(&self) -> Leg {
        Leg::from_raw(self.opener)
    }

    /// What `packet` means to this entry, found by its key. `clock` is [`crate::policy::Rules::now`].
    #[inline(always)]
    pub fn matches(&self, packet: &Packet, epoch: Epoch, now: u64, clock: impl FnOnce() -> u64) -> Match {
        if self.is_expired(packet.protocol, now) {
            return Match::Gone;
        }
        // A SYN against the direction of the flow opens another one; else a flow that one side may open
        // would let the other side open one too.
        let opens = packet.tcp_flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN;
        if opens && packet.leg.raw() != self.opener {
            return Match::Gone;
        }
        if self.epoch == epoch && !self.is_over(clock) { Match::Current } else { Match::Stale }
    }

    /// Whether it was allowed until a time that has come. `clock` is [`crate::policy::Rules::now`], read where it counts.
    #[inline(always)]
    pub fn is_over(&self, clock: impl FnOnce() -> u64) -> bool {
        self.until != 0 && self.until <= clock()
    }

    /// Whether nothing has passed for so long that the entry says nothing any more. An established TCP
    /// flow never expires (`lessons.md` 21): it leaves when it closes, or when the table needs its place.
    #[inline(always)]
    pub fn is_expired(&self, protocol: u8, now: u64) -> bool {
        use crate::header::protocol;
        let limit: u64 = match (protocol, self.state) {
            (protocol::TCP | protocol::SCTP, state) if state == State::Open as u8 => return false,
            // Long enough for a SYN's last retransmission (RFC 6298: 1+2+4+8+16+32 s), and for late
            // segments after a close (RFC 9293: 2 MSL, here 120 s).
            (protocol::TCP | protocol::SCTP, _) => 120 * SECOND,
            // RFC 4787 REQ-5 asks for two minutes at least, RFC 5508 REQ-2 for 60 s.
            (protocol::ICMP | protocol::ICMPV6, _) => 60 * SECOND,
            (_, state) if state == State::Opening as u8 => 120 * SECOND,
            _ => 300 * SECOND,
        };
        is_older(self.seen, now, limit)
    }

    /// The state after `packet`.
    #[inline(always)]
    pub fn next_state(&self, packet: &Packet) -> State {
        if packet.tcp_flags & (Tcp::FIN | Tcp::RST) != 0 {
            return State::Closing;
        }
        if packet.tcp_flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN {
            return State::Opening;
        }
        if self.state == State::Closing as u8 {
            return State::Closing;
        }
        if self.state == State::Ended as u8 {
            // It is allowed again.
            return State::Open;
        }
        if packet.leg.raw() == self.opener { State::from_raw(self.state) } else { State::Open }
    }
}

impl State {
    /// From the number in a record.
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Opening,
            1 => Self::Open,
            2 => Self::Closing,
            _ => Self::Ended,
        }
    }

    /// The word that the CLI prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Ended => "ended",
        }
    }
}

/// The sequence number after the last byte sent, when `seq` and `len` are those of a segment. Segments that are
/// sent again do not move it back (RFC 9293 §3.4: comparison modulo 2³²).
#[inline(always)]
pub const fn advance(seq_next: u32, seq: u32, len: u32) -> u32 {
    let end = seq.wrapping_add(len);
    if seq_next == 0 || end.wrapping_sub(seq_next) < 0x8000_0000 { end } else { seq_next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::protocol;
    use crate::parse::Kind;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn packet(leg: Leg, flags: u8) -> Packet {
        let (a, b) = (Ip::from(Ipv4Addr::new(10, 0, 0, 1)), Ip::from(Ipv4Addr::new(10, 0, 0, 2)));
        let (src, dst) = if leg == Leg::A { (a, b) } else { (b, a) };
        let (key, _) = FlowKey::of(a, b, protocol::TCP, Ports { src: 1000, dst: 80 });
        Packet {
            src,
            dst,
            key,
            leg,
            kind: Kind::Whole,
            protocol: protocol::TCP,
            tcp_flags: flags,
            tos: 0,
            dont_fragment: true,
            policy_port: 80,
            l4: 34,
            end: 54,
            seq_len: 0,
            seq: 0,
            ack: 0,
        }
    }

    fn flow(state: State) -> Flow {
        Flow { epoch: Epoch(7), state: state as u8, opener: Leg::A.raw(), seen: 1000 * SECOND, ..Flow::default() }
    }

    #[test]
    fn a_syn_against_the_flow_opens_another() {
        let open = flow(State::Open);
        let now = open.seen;
        assert_eq!(open.matches(&packet(Leg::B, Tcp::SYN), Epoch(7), now, || 0), Match::Gone);
        assert_eq!(open.matches(&packet(Leg::B, Tcp::SYN | Tcp::ACK), Epoch(7), now, || 0), Match::Current);
        assert_eq!(open.matches(&packet(Leg::A, Tcp::SYN), Epoch(7), now, || 0), Match::Current);
        assert_eq!(open.matches(&packet(Leg::A, Tcp::ACK), Epoch(8), now, || 0), Match::Stale);
    }

    #[test]
    fn a_flow_that_was_allowed_until_now_is_asked_about_again() {
        let open = Flow { until: 500, ..flow(State::Open) };
        let at = |boot: u64| open.matches(&packet(Leg::A, Tcp::ACK), Epoch(7), open.seen, || boot);
        assert_eq!((at(499), at(500)), (Match::Current, Match::Stale));
        // Where nothing ends no clock is read.
        let usual = flow(State::Open);
        assert!(!usual.is_over(|| panic!("nothing ends")));
    }

    #[test]
    fn a_flow_without_an_epoch_is_asked_about_whatever_is_in_force() {
        let open = Flow { epoch: Epoch::NONE, ..flow(State::Open) };
        let under = |epoch| open.matches(&packet(Leg::A, Tcp::ACK), epoch, open.seen, || 0);
        // Also before there is any.
        assert_eq!([Epoch::default(), Epoch(1), Epoch(7)].map(under), [Match::Stale; 3]);
    }

    #[test]
    fn an_established_flow_never_expires_and_a_closed_one_does() {
        let day = 86_400 * SECOND;
        assert!(!flow(State::Open).is_expired(protocol::TCP, 1000 * SECOND + 30 * day));
        assert!(flow(State::Closing).is_expired(protocol::TCP, 1000 * SECOND + 121 * SECOND));
        assert!(flow(State::Opening).is_expired(protocol::TCP, 1000 * SECOND + 121 * SECOND));
        assert!(!flow(State::Open).is_expired(protocol::UDP, 1000 * SECOND + 299 * SECOND));
        assert!(flow(State::Open).is_expired(protocol::UDP, 1000 * SECOND + 301 * SECOND));
        assert!(!flow(State::Open).is_expired(protocol::UDP, 1000 * SECOND - 1));
    }

    #[test]
    fn a_handshake_and_a_close_walk_the_states() {
        let mut f = flow(State::Opening);
        for (leg, flags, expect) in [
            (Leg::A, Tcp::SYN, State::Opening),
            (Leg::B, Tcp::SYN | Tcp::ACK, State::Open),
            (Leg::A, Tcp::ACK, State::Open),
            (Leg::B, Tcp::FIN | Tcp::ACK, State::Closing),
            (Leg::A, Tcp::ACK, State::Closing),
            (Leg::A, Tcp::SYN, State::Opening),
        ] {
            let next = f.next_state(&packet(leg, flags));
            assert_eq!(next, expect);
            f.state = next as u8;
        }
    }

    #[test]
    fn sequence_numbers_wrap_and_do_not_go_back() {
        assert_eq!(advance(0, 100, 10), 110);
        assert_eq!(advance(110, 100, 5), 110);
        assert_eq!(advance(u32::MAX, u32::MAX, 11), 10);
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key(a: [u32; 4], b: [u32; 4], sp: u16, dp: u16, proto: u8) {
            let (there, leg) = FlowKey::of(Ip(a), Ip(b), proto, Ports { src: sp, dst: dp });
            let (back, other) = FlowKey::of(Ip(b), Ip(a), proto, Ports { src: dp, dst: sp });
            prop_assert_eq!(there, back);
            prop_assert_eq!(there.entropy(), back.entropy());
            if (a, sp) != (b, dp) {
                prop_assert_eq!(leg.other(), other);
            }
            prop_assert_eq!(there.ports(leg), Ports { src: sp, dst: dp });
        }
    }
}
