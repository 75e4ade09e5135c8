//! Endpoints: one interface of one container in one app.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::SystemTime,
};

use weft_common::addr::Mac;

use super::{
    invalid::Invalid,
    name::{AppName, EndpointName, HostName, LinkName, RoleName},
    prefix::Family,
    stable,
};

/// Names an endpoint in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The app it is in.
    pub app: AppName,
    /// What it is called there.
    pub name: EndpointName,
}

/// One interface of one container in one app. Its host alone writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it is called.
    pub key: EndpointKey,
    /// Where it is.
    pub host: HostName,
    /// Its tier.
    pub role: Option<RoleName>,
    /// Its addresses, at least one.
    pub addresses: Addresses,
    /// Its hardware address.
    pub mac: Mac,
    /// The namespace it was put into.
    pub netns: Netns,
    /// The interface inside the namespace.
    pub ifname: LinkName,
    /// The host's side of it.
    pub link: LinkName,
    /// Whether the namespace's default route leads through it.
    pub default_route: DefaultRoute,
    /// When it was attached. Earlier versions did not note it.
    pub attached: Option<SystemTime>,
}

/// An address of each family, or none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// A network namespace: how it was named, and which one that was. A name can come to mean another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// A file that stands for it.
    pub path: NetnsPath,
    /// Device number of that file.
    pub device: u64,
    /// Inode number of that file: the namespace's own number, which another gets when it is gone.
    pub inode: u64,
    /// The kernel's cookie for it, which no other gets until the next boot. None: it was written down before cookies
    /// were.
    pub cookie: Option<u64>,
}

/// An absolute path without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsPath(String);

/// Whether a namespace's default route is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DefaultRoute {
    /// If it has no other.
    IfNone,
    /// In place of any other.
    Replace,
    /// Never.
    Leave,
}

impl Endpoint {
    /// The MAC of an endpoint that was given none: the same after every restart and on every host.
    pub fn mac_of(app: &AppName, name: &EndpointName) -> Mac {
        let bits = stable::hash("mac", &[app.as_str(), name.as_str()]).to_be_bytes();
        let mac = |last: u8| Mac::new([0x02, bits[0], bits[1], bits[2], bits[3], last]);
        let own = mac(bits[4]);
        if own == Mac::GATEWAY { mac(!bits[4]) } else { own }
    }
}

impl Netns {
    /// Whether it is the same namespace, by whatever path.
    pub fn is_same(&self, other: &Self) -> bool {
        let cookies = self.cookie.zip(other.cookie);
        (self.device, self.inode) == (other.device, other.inode) && cookies.is_none_or(|(one, other)| one == other)
    }
}

impl EndpointKey {
    /// `name` in `app`.
    pub fn new(app: AppName, name: EndpointName) -> Self {
        Self { app, name }
    }
}

/// `shop/web-1`.
impl FromStr for EndpointKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let help = "write the app, '/' and the endpoint's name, as shop/web-1";
        let (app, name) = text.split_once('/').ok_or_else(|| Invalid::new("endpoint", text, help))?;
        Ok(Self { app: app.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, name } = self;
        f.pad(&format!("{app}/{name}"))
    }
}

impl Addresses {
    /// The addresses there are.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// With `addr` in the place of its family.
    #[must_use]
    pub fn with(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self { v4: Some(v4), ..self },
            IpAddr::V6(v6) => Self { v6: Some(v6), ..self },
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether `addr` is one of them.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.iter().any(|own| own == addr)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().fold(Self::default(), Self::with)
    }
}

impl NetnsPath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetnsPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        /// `PATH_MAX`.
        const LONGEST: usize = 4096;
        if !text.starts_with('/') || text.len() >= LONGEST || text.chars().any(char::is_control) {
            return Err(Invalid::new(
                "namespace",
                text,
                "name it by an absolute path, as /run/netns/x or /proc/PID/ns/net",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NetnsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.escape_debug().to_string())
    }
}

/// Reads a hardware address that an endpoint can have.
pub fn mac(text: &str) -> Result<Mac, Invalid> {
    let refuse = || {
        Invalid::new("MAC", text, "write six bytes in hex, as 02:00:00:00:00:01, not a group's and not the gateway's")
    };
    let byte = |part: &str| {
        let hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if hex { u8::from_str_radix(part, 16).ok() } else { None }
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let bytes: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(refuse)?;
    Some(Mac::new(bytes)).filter(|mac| is_own(*mac)).ok_or_else(refuse)
}

/// Whether an endpoint can have this hardware address.
pub fn is_own(mac: Mac) -> bool {
    mac != Mac::default() && mac != Mac::GATEWAY && !mac.is_group()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn macs_are_stable_local_and_do_not_collide() {
        let of = |app: &str, name: &str| Endpoint::mac_of(&app.parse().unwrap(), &name.parse().unwrap());
        let macs: BTreeSet<_> = (0..10_000).map(|i| of(&format!("app-{}", i % 7), &format!("web-{i}"))).collect();
        assert_eq!(macs.len(), 10_000);
        assert!(macs.iter().all(|mac| mac.bytes()[0] == 0x02 && is_own(*mac)));
        assert_eq!(of("shop", "web-1"), of("shop", "web-1"));
        assert_ne!(of("shop", "web-1"), of("blog", "web-1"));
    }

    #[test]
    fn macs_are_read() {
        assert_eq!(mac("02:Aa:00:00:00:01").unwrap(), Mac::new([2, 0xaa, 0, 0, 0, 1]));
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
            "00:00:00:00:00:00",
            "03:00:00:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "02:00:77:65:66:74",
            "+2:00:00:00:00:01",
        ] {
            mac(text).unwrap_err();
        }
    }

    #[test]
    fn namespaces_are_named_by_absolute_paths() {
        "/run/netns/x".parse::<NetnsPath>().unwrap();
        for text in ["", "x", "netns/x", "/run/\u{1b}[2J", "/a\0b"] {
            text.parse::<NetnsPath>().unwrap_err();
        }
    }

    #[test]
    fn endpoints_are_named_in_their_app() {
        let key: EndpointKey = "shop/web-1".parse().unwrap();
        assert_eq!(key.to_string(), "shop/web-1");
        for text in ["shop", "shop/", "/web", "shop/web/1", "any/web"] {
            text.parse::<EndpointKey>().unwrap_err();
        }
    }
}
