//! Who is who: the same hosts, apps and endpoints in every story.
//!
//! | host | endpoints |
//! |---|---|
//! | a | [`WEB`] shop/web, [`CACHE`] shop/db, [`PRESS`] blog/web |
//! | b | [`DB`] shop/db, [`STORE`] blog/db, [`PLAIN`] shop without a role |
//! | c | [`FAR`] shop/web; it runs no programs, its frames are forged |
//!
//! Addresses tell: 10.app.host.number and fd00:app:host::number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::addr::Mac;
use weft_common::id::{AppId, Identity, RoleId};
use weft_tests::frame::Station;
use weft_tests::underlay::Family;

/// A host of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    A,
    B,
    C,
}

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) app: AppId,
    pub(crate) role: RoleId,
    pub(crate) at: At,
    number: u8,
}

/// The families of a story: inside and outside of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) inner: Family,
    pub(crate) outer: Family,
}

pub(crate) const SHOP: AppId = AppId(100);
pub(crate) const BLOG: AppId = AppId(200);
pub(crate) const ROLE_WEB: RoleId = RoleId(1);
pub(crate) const ROLE_DB: RoleId = RoleId(2);

pub(crate) const WEB: Member = Member { name: "web", app: SHOP, role: ROLE_WEB, at: At::A, number: 11 };
pub(crate) const CACHE: Member = Member { name: "cache", app: SHOP, role: ROLE_DB, at: At::A, number: 12 };
pub(crate) const PRESS: Member = Member { name: "press", app: BLOG, role: ROLE_WEB, at: At::A, number: 13 };
pub(crate) const DB: Member = Member { name: "db", app: SHOP, role: ROLE_DB, at: At::B, number: 21 };
pub(crate) const STORE: Member = Member { name: "store", app: BLOG, role: ROLE_DB, at: At::B, number: 22 };
pub(crate) const PLAIN: Member = Member { name: "plain", app: SHOP, role: RoleId::NONE, at: At::B, number: 23 };
pub(crate) const FAR: Member = Member { name: "far", app: SHOP, role: ROLE_WEB, at: At::C, number: 31 };

/// All endpoints that the tables know.
pub(crate) const MEMBERS: [Member; 7] = [WEB, CACHE, PRESS, DB, STORE, PLAIN, FAR];

/// The apps.
pub(crate) const APPS: [AppId; 2] = [SHOP, BLOG];

impl At {
    pub(crate) const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// The name in counters and devices.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }

    /// The host's number in addresses, and as a peer.
    pub(crate) const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The host on the underlay.
    pub(crate) fn station(self, family: Family) -> Station {
        let number = self.number();
        let ip = match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        };
        Station::new([2, 0xee, 0, 0, 0, number], ip)
    }

    /// The host's gateway in an app.
    pub(crate) fn gateway(self, app: AppId, family: Family) -> Station {
        Station::new(Mac::GATEWAY.bytes(), address(app, self, 1, family))
    }
}

impl Member {
    pub(crate) fn station(&self, family: Family) -> Station {
        Station::new(self.mac(), self.ip(family))
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        [2, 0, 0, octet(self.app), self.at.number(), self.number]
    }

    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        address(self.app, self.at, self.number, family)
    }

    pub(crate) const fn identity(&self) -> Identity {
        Identity::new(self.app, self.role)
    }
}

impl Net {
    /// Every combination.
    pub(crate) const ALL: [Self; 4] = [
        Self { inner: Family::V4, outer: Family::V4 },
        Self { inner: Family::V6, outer: Family::V4 },
        Self { inner: Family::V4, outer: Family::V6 },
        Self { inner: Family::V6, outer: Family::V6 },
    ];

    /// Where no tunnel is passed.
    pub(crate) const LOCAL: [Self; 2] = [Self::ALL[0], Self::ALL[1]];

    /// Two endpoints as they see each other: of one app behind their own MACs, else behind the gateway's.
    pub(crate) fn pair(self, [from, to]: [Member; 2]) -> [Station; 2] {
        let (near, far) = (from.station(self.inner), to.station(self.inner));
        let far = if from.app == to.app { far } else { far.behind(Mac::GATEWAY.bytes()) };
        [near, far]
    }

    /// Somebody on the internet, as a container sees it.
    pub(crate) fn outsider(self) -> Station {
        let ip = match self.inner {
            Family::V4 => Ipv4Addr::new(198, 51, 100, 7).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7).into(),
        };
        Station::new(Mac::GATEWAY.bytes(), ip)
    }
}

/// The address with this number in an app's block of a host.
pub(crate) fn address(app: AppId, at: At, number: u8, family: Family) -> IpAddr {
    let (app, host) = (octet(app), at.number());
    match family {
        Family::V4 => Ipv4Addr::new(10, app, host, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, app.into(), host.into(), 0, 0, 0, 0, number.into()).into(),
    }
}

/// An app's number fits an octet here.
pub(crate) fn octet(app: AppId) -> u8 {
    u8::try_from(app.0).expect("apps of the lab have small numbers")
}

/// The word for an app in counters.
pub(crate) fn app_name(app: AppId) -> String {
    match app {
        AppId::HOST => "host".into(),
        AppId::OUTSIDE => "outside".into(),
        SHOP => "shop".into(),
        BLOG => "blog".into(),
        AppId(number) => format!("app{number}"),
    }
}
