//! What only the kernel knows, as far as a plan depends on it. A fact that is missing is not waited for: what
//! depends on it is left out until it is there.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::model::{
    name::{HostName, LinkName},
    time::Until,
};

/// What the kernel of this host says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interface index of the gateway device.
    pub gateway: Option<u32>,
    /// Interface index of the host's side of each endpoint's link.
    pub links: BTreeMap<LinkName, u32>,
    /// How each peer is reached.
    pub underlay: BTreeMap<HostName, Underlay>,
    /// What time it is.
    pub clock: Clock,
}

/// The clock by which programs see that a rule has ended: [`weft_common::policy::Rules::now`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// When it was zero, in nanoseconds since 1970.
    pub zero: u64,
    /// What it shows.
    pub now: u64,
}

impl Clock {
    /// As it shows `now` while it is `utc` since 1970. The host's time may be set at any moment, and is slewed at all of
    /// them: what was `zero` in the plan before stays so while it is about right, or tables would differ each time.
    pub fn read(zero: u64, utc: Duration, now: u64) -> Self {
        const ABOUT: Duration = Duration::from_millis(250);
        let found = u64::try_from(utc.as_nanos()).unwrap_or(u64::MAX).saturating_sub(now);
        let is_right = Duration::from_nanos(found.abs_diff(zero)) <= ABOUT;
        Self { zero: if is_right { zero } else { found }, now }
    }

    /// What it shows when a rule ends; not 0, which would be never.
    pub fn at(&self, until: Until) -> u64 {
        until.seconds().saturating_mul(1_000_000_000).saturating_sub(self.zero).max(1)
    }
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Which of the peer's addresses.
    pub addr: IpAddr,
    /// This host's address on the way there.
    pub local: IpAddr,
    /// The next hop on the uplink: the peer itself on the same link.
    pub next_hop: IpAddr,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// Largest packet that the path takes, in bytes.
    pub path_mtu: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_time_of_the_host_when_that_is_set_and_not_before() {
        const SECOND: u64 = 1_000_000_000;
        let check = |zero: u64, utc: u64, expect: u64| {
            let clock = Clock::read(zero, Duration::from_nanos(utc), 7 * SECOND);
            assert_eq!(clock, Clock { zero: expect, now: 7 * SECOND });
        };
        check(0, 1007 * SECOND, 1000 * SECOND);
        check(1000 * SECOND, 1007 * SECOND + SECOND / 4, 1000 * SECOND);
        check(1000 * SECOND, 1007 * SECOND - SECOND / 4, 1000 * SECOND);
        check(1000 * SECOND, 1007 * SECOND + SECOND / 2, 1000 * SECOND + SECOND / 2);
        check(1000 * SECOND, 900 * SECOND, 893 * SECOND);
        let clock = Clock { zero: 1_795_266_600 * SECOND, now: 0 };
        assert_eq!(clock.at("2026-11-21T13:11:00Z".parse().unwrap()), 60 * SECOND);
        assert_eq!(clock.at("2020-01-01T00:00:00Z".parse().unwrap()), 1, "0 would be never");
    }
}
