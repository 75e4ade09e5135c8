//! What the programs tell the daemon: samples of drops, and packets the tables could not place.

use crate::addr::Ip;
use crate::id::Identity;

crate::wire! {
    /// One dropped packet of possibly many: the counters are exact, events are a sample.
    pub struct Drop {
        /// [`Kind::Drop`], or [`Kind::Shadow`] of a packet that passes.
        pub kind: u32,
        /// [`crate::verdict::DropReason`]; nothing of a packet that passes.
        pub reason: u32,
        /// Nanoseconds of the monotonic clock.
        pub time: u64,
        /// Drops of the same reason on the same CPU since the last event that were not reported.
        pub skipped: u64,
        /// Source address.
        pub src: Ip,
        /// Destination address.
        pub dst: Ip,
        /// Who sent it, as far as it was established.
        pub src_identity: Identity,
        /// Whom it was for, likewise.
        pub dst_identity: Identity,
        /// Source port.
        pub src_port: u16,
        /// Destination port, or ICMP type and code.
        pub dst_port: u16,
        /// Transport protocol.
        pub protocol: u8,
        /// TCP control bits.
        pub tcp_flags: u8,
        /// [`Hook`].
        pub hook: u8,
        /// [`crate::policy::Direction`] of the rule set that decided.
        pub direction: u8,
        /// The rule that decided, 0 for a default, or [`crate::table::Account::NO_RULE`].
        pub rule: u32,
        /// Interface it came in on.
        pub link: u32,
        /// The rule that is only tried and would have decided otherwise: see [`crate::policy::shadow`].
        pub shadow: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// A packet whose destination the tables do not know; its first bytes follow.
    pub struct Miss {
        /// [`Kind::Miss`].
        pub kind: u32,
        /// Bytes of the frame; at most [`MISS_BYTES`] of them follow.
        pub len: u32,
        /// Interface it came in on.
        pub link: u32,
        /// [`Hook`].
        pub hook: u32,
    }
}

/// Bytes of a frame that a [`Miss`] carries: a whole packet of the usual MTU.
pub const MISS_BYTES: usize = 1600;

/// First word of every record on the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`Drop`].
    Drop = 1,
    /// [`Miss`].
    Miss = 2,
    /// [`Drop`] of a packet that passes, and would not if the rules that are tried were in force.
    Shadow = 3,
}

/// Which program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// From a container.
    FromWorkload = 0,
    /// From the underlay, at the uplink.
    FromUnderlay = 1,
    /// From this host's stack, at the gateway device.
    FromHost = 2,
    /// To this host's stack, at the gateway device.
    ToHost = 3,
    /// In front of `from_underlay`, before there is an skb.
    Guard = 4,
}

impl Hook {
    /// The word that the CLI prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromWorkload => "from_workload",
            Self::FromUnderlay => "from_underlay",
            Self::FromHost => "from_host",
            Self::ToHost => "to_host",
            Self::Guard => "guard",
        }
    }

    /// From the number in a record.
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::FromWorkload,
            1 => Self::FromUnderlay,
            2 => Self::FromHost,
            3 => Self::ToHost,
            _ => Self::Guard,
        }
    }
}

/// A token bucket per reason and CPU: how events are sampled.
pub mod sample {
    crate::wire! {
        /// State of one bucket.
        pub struct Bucket {
            /// When tokens were last added, in nanoseconds.
            pub filled: u64,
            /// Tokens left.
            pub tokens: u64,
            /// Events not sent since the last that was.
            pub skipped: u64,
        }
    }

    /// The bucket of [`super::Kind::Shadow`], behind those of reasons for drops.
    pub const SHADOW: u32 = crate::verdict::DropReason::COUNT as u32;
    /// Events a second and CPU and reason.
    pub const RATE: u64 = 20;
    /// Packets to everybody a second and CPU and interface: enough for discovery, too few to hurt.
    pub const STORM: u64 = 1_000;

    impl Bucket {
        /// Whether one more may pass at `now` where `rate` a second may, and as many at once; and how many did not
        /// before it.
        #[inline(always)]
        pub const fn take(&mut self, now: u64, rate: u64) -> Option<u64> {
            let earned = now.saturating_sub(self.filled) / (1_000_000_000 / rate);
            if earned > 0 {
                self.tokens = if self.tokens + earned > rate { rate } else { self.tokens + earned };
                self.filled = now;
            }
            if self.tokens == 0 {
                self.skipped += 1;
                return None;
            }
            self.tokens -= 1;
            let skipped = self.skipped;
            self.skipped = 0;
            Some(skipped)
        }

        /// Notes that the event was not sent for which [`Self::take`] has said `skipped`.
        #[inline(always)]
        pub const fn lose(&mut self, skipped: u64) {
            self.skipped += skipped + 1;
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_flood_is_sampled_and_the_rest_is_counted() {
            let mut bucket = Bucket::default();
            let start = 10 * 1_000_000_000;
            let sent = (0..1000).filter(|_| bucket.take(start, RATE).is_some()).count() as u64;
            assert_eq!(sent, RATE);
            let step = 1_000_000_000 / RATE;
            assert_eq!(bucket.take(start + step, RATE), Some(1000 - RATE));
            // What could not be sent is among those of which the next one says that they were not.
            bucket.lose(1000 - RATE);
            assert_eq!(bucket.take(start + 2 * step, RATE), Some(1000 - RATE + 1));
        }
    }
}
