//! Interfaces: what there is, and making, changing and removing ours.
//!
//! Owns the netlink connection that `route.rs` shares. Knows nothing of programs and tables. A change is one request:
//! either the kernel makes all of it or none.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, Prop,
    },
};
use nix::net::if_::if_indextoname;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};
use tokio::task::AbortHandle;
use weft_common::addr::Mac;

use super::netns::Netns;

/// The name of the gateway device unless configured.
pub const GATEWAY: &str = "weft0";

/// Interfaces, addresses and routes of the namespace it was made in.
#[derive(Clone, Debug)]
pub struct Links {
    pub(super) handle: Handle,
    _connection: Arc<Connection>,
}

/// The task that talks to the kernel. It ends with the last of those who talk to it.
#[derive(Debug)]
struct Connection(AbortHandle);

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub other_names: Vec<String>,
    /// What an operator, or we, wrote on it.
    pub alias: Option<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Its hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// Largest network packet.
    pub mtu: u32,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// The other end, or what is below: its number, in the namespace of `peer_netns`.
    pub peer: Option<u32>,
    /// The namespace of `peer` as this one numbers it, if it is another.
    pub peer_netns: Option<i32>,
}

/// What an interface is, as far as we look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// Hardware, as far as the kernel knows.
    #[default]
    Device,
    /// One end of a pair.
    Veth,
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// Something else, by the kernel's name.
    Other(String),
}

/// What matters of a VXLAN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// Its UDP port.
    pub port: u16,
    /// Whether routes and programs say where a packet goes, not the device.
    pub is_external: bool,
    /// Whether it takes the group policy extension.
    pub has_policy: bool,
    /// Whether it learns addresses from packets.
    pub is_learning: bool,
}

/// The device that takes what the programs decline, and has the gateway addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// UDP port of the tunnel.
    pub port: u16,
    /// Its hardware address.
    pub mac: Mac,
    /// Largest network packet.
    pub mtu: u32,
}

/// A pair of interfaces: one here, the other for a container.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// What is written on it.
    pub alias: Option<&'a str>,
    /// Hardware address of the end here; else the kernel makes one up.
    pub mac: Option<Mac>,
    /// Largest network packet, of both ends.
    pub mtu: u32,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_mac: Mac,
    /// Where the other end is made. None: here, for somebody else to move.
    pub peer_netns: Option<&'a Netns>,
}

/// What can be changed of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Switched on.
    Up,
    /// Switched off.
    Down,
    /// Largest network packet.
    Mtu(u32),
    /// Hardware address.
    Mac(Mac),
    /// Name. The interface has to be off.
    Name(String),
    /// What is written on it.
    Alias(String),
    /// No IPv6 address comes with switching it on.
    NoLinkLocal,
}

/// What the interface with this number is called, if there is one in the calling thread's namespace.
pub fn name_of(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

impl Links {
    /// Connects, in the namespace of the calling thread, which has to be inside a tokio runtime.
    pub fn new() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("connect to rtnetlink")?;
        let connection = Arc::new(Connection(tokio::spawn(connection).abort_handle()));
        Ok(Self { handle, _connection: connection })
    }

    /// Every interface, by number.
    pub async fn list(&self) -> Result<Vec<Link>> {
        // Counters are most of what there is to say of a link, and nobody here reads them.
        let request = self.handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let links = request.execute().map_ok(Link::of);
        let mut links: Vec<_> = links.try_collect().await.map_err(told).context("list links")?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The interface with this name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Link>> {
        let mut found = Box::pin(self.handle.link().get().match_name(name).execute());
        match found.try_next().await.map_err(told) {
            Err(error) if is_gone(&error) => Ok(None),
            message => Ok(message.with_context(|| format!("find link {name}"))?.map(Link::of)),
        }
    }

    /// Makes the gateway device, off, and gives its number.
    pub async fn create_gateway(&self, gateway: &Gateway) -> Result<u32> {
        let Gateway { name, port, mac, mtu } = gateway;
        // One device for both families: it opens a socket of each. Its peers may leave out the UDP checksum over IPv6
        // (RFC 6935).
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .port(*port)
            .collect_metadata(true)
            .append_info_data(InfoVxlan::Gbp)
            .learning(false)
            .append_info_data(InfoVxlan::UDPZeroCsumRX(true))
            .address(mac.bytes().to_vec())
            .mtu(*mtu)
            .arp(false)
            .build();
        let create = self.create(message, name, &[Setting::NoLinkLocal]);
        create.await.with_context(|| format!("create gateway {name} at UDP port {port}"))
    }

    /// Makes a pair of interfaces, off, and gives the number of the end here. Nothing is left of it if it fails.
    pub async fn create_veth(&self, veth: &Veth<'_>) -> Result<u32> {
        let &Veth { name, alias, mac, mtu, peer, peer_mac, peer_netns } = veth;
        let mut other = LinkMessageBuilder::<LinkUnspec>::new().name(peer).mtu(mtu).address(peer_mac.bytes().to_vec());
        if let Some(netns) = peer_netns {
            other = other.setns_by_fd(netns.as_fd().as_raw_fd());
        }
        let mut this = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
        if let Some(mac) = mac {
            this = this.address(mac.bytes().to_vec());
        }
        let mut settings = vec![Setting::NoLinkLocal];
        settings.extend(alias.map(|alias| Setting::Alias(alias.to_owned())));
        let place = peer_netns.map_or_else(String::new, |netns| format!(" in {netns}"));
        let create = self.create(this.build(), name, &settings);
        create.await.with_context(|| format!("create veth {name} for {peer}{place}"))
    }

    /// Changes an interface.
    pub async fn set(&self, link: u32, settings: &[Setting]) -> Result<()> {
        let mut message = LinkUnspec::new_with_index(link);
        for setting in settings {
            message = match setting {
                Setting::Up => message.up(),
                Setting::Down => message.down(),
                Setting::Mtu(mtu) => message.mtu(*mtu),
                Setting::Mac(mac) => message.address(mac.bytes().to_vec()),
                Setting::Name(name) => message.name(name),
                Setting::Alias(alias) => message.alias(alias),
                Setting::NoLinkLocal => {
                    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
                    let family = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
                    message.append_extra_attribute(family)
                }
            };
        }
        let result = self.handle.link().change(message.build()).execute().await.map_err(told);
        result.with_context(|| {
            let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
            format!("set {} of link {link}", settings.join(", "))
        })
    }

    /// Removes an interface. That it is gone is success.
    pub async fn delete(&self, link: u32) -> Result<()> {
        match self.handle.link().del(link).execute().await.map_err(told) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.with_context(|| format!("delete link {link}")),
        }
    }

    /// Some settings are only taken of an interface that is there.
    async fn create(&self, message: LinkMessage, name: &str, settings: &[Setting]) -> Result<u32> {
        self.handle.link().add(message).execute().await.map_err(told)?;
        let link = self.find(name).await?.with_context(|| format!("find link {name}: it is gone"))?.index;
        let Err(error) = self.set(link, settings).await else { return Ok(link) };
        Err(match self.delete(link).await {
            Ok(()) => error,
            Err(left) => error.context(format!("{left:#}, after an error")),
        })
    }
}

impl Link {
    pub(super) fn of(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            is_up: flags.contains(LinkFlags::Up),
            is_loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        for attribute in message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel says much that we do not ask")]
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac::new),
                LinkAttribute::Link(peer) => link.peer = (peer != 0).then_some(peer),
                LinkAttribute::LinkNetNsId(netns) => link.peer_netns = Some(netns),
                LinkAttribute::PropList(names) => link.other_names = names.into_iter().filter_map(other_name).collect(),
                LinkAttribute::LinkInfo(infos) => link.kind = LinkKind::of(infos),
                _ => {}
            }
        }
        link
    }
}

impl LinkKind {
    fn of(infos: Vec<LinkInfo>) -> Self {
        let mut kind = Self::Device;
        for info in infos {
            if let LinkInfo::Kind(found) = info {
                #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not ours and only named")]
                let found = match found {
                    InfoKind::Veth => Self::Veth,
                    InfoKind::Vxlan => Self::Vxlan(Vxlan::default()),
                    other => Self::Other(other.to_string()),
                };
                kind = found;
            } else if let (LinkInfo::Data(InfoData::Vxlan(facts)), Self::Vxlan(vxlan)) = (info, &mut kind) {
                for fact in facts {
                    vxlan.learn(&fact);
                }
            }
        }
        kind
    }
}

impl Vxlan {
    fn learn(&mut self, fact: &InfoVxlan) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel says much that we do not ask")]
        match fact {
            InfoVxlan::Port(port) => self.port = *port,
            InfoVxlan::CollectMetadata(on) => self.is_external = *on,
            InfoVxlan::Gbp => self.has_policy = true,
            InfoVxlan::Learning(on) => self.is_learning = *on,
            _ => {}
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Down => f.write_str("down"),
            Self::Mtu(mtu) => write!(f, "MTU {mtu}"),
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Alias(alias) => write!(f, "alias {alias}"),
            Self::NoLinkLocal => f.write_str("no link-local address"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// rtnetlink's errors say "Received a netlink error message"; the errno says it better.
pub(super) fn told(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error { message.to_io() } else { io::Error::other(error) }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

fn other_name(property: Prop) -> Option<String> {
    if let Prop::AltIfName(name) = property { Some(name) } else { None }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, within_async};

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 7]);

    pub(crate) fn veth<'a>(name: &'a str, peer: &'a str, peer_netns: Option<&'a Netns>) -> Veth<'a> {
        Veth { name, alias: None, mac: None, mtu: 1450, peer, peer_mac: MAC, peer_netns }
    }

    #[test]
    fn the_gateway_device_is_what_was_asked_for() {
        within_async(async || {
            let links = Links::new().unwrap();
            let gateway = Gateway { name: GATEWAY.to_owned(), port: 6784, mac: Mac::GATEWAY, mtu: 1450 };
            let index = links.create_gateway(&gateway).await.unwrap();
            let kind = Vxlan { port: 6784, is_external: true, has_policy: true, is_learning: false };
            let want = Link {
                index,
                name: GATEWAY.to_owned(),
                kind: LinkKind::Vxlan(kind),
                mac: Some(Mac::GATEWAY),
                mtu: 1450,
                ..Link::default()
            };
            assert_eq!(links.find(GATEWAY).await.unwrap(), Some(want.clone()));
            links.set(index, &[Setting::Up]).await.unwrap();
            assert_eq!(links.list().await.unwrap()[1], Link { is_up: true, ..want });
            let flags = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{GATEWAY}/addr_gen_mode")).unwrap();
            assert_eq!(flags.trim(), "1", "no address comes by itself");
            assert_eq!(links.all_addresses(index).await, 0);
            // Both sockets are open: nobody else can have the port.
            for any in ["0.0.0.0:6784", "[::]:6784"] {
                let error = std::net::UdpSocket::bind(any).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{any}");
            }

            let error = format!("{:#}", links.create_gateway(&gateway).await.unwrap_err());
            assert_eq!(error, "create gateway weft0 at UDP port 6784: File exists (os error 17)");
            links.delete(index).await.unwrap();
            links.delete(index).await.unwrap();
            assert_eq!(links.find(GATEWAY).await.unwrap(), None);
        });
    }

    #[test]
    fn a_pair_has_one_end_in_the_container() {
        let inside = fresh();
        within_async(async || {
            let links = Links::new().unwrap();
            let alias = Some("weft shop web-1");
            let mac = Some(Mac::new([2, 0, 0, 0, 0, 8]));
            let pair = Veth { alias, mac, ..veth("w-1", "eth0", Some(&inside)) };
            let index = links.create_veth(&pair).await.unwrap();
            let here = links.find("w-1").await.unwrap().unwrap();
            assert_eq!((here.kind.clone(), here.mtu, here.mac), (LinkKind::Veth, 1450, mac));
            assert_eq!((here.alias.as_deref(), here.is_up), (alias, false));
            assert!(here.peer.is_some() && here.peer_netns.is_some(), "{here:?}");
            let names: Vec<_> = links.list().await.unwrap().into_iter().map(|link| link.name).collect();
            assert_eq!(names, ["lo", "w-1"], "the other end was never here");

            let settings = [Setting::Mtu(1400), Setting::Mac(MAC), Setting::Name("w-2".to_owned()), Setting::Up];
            links.set(index, &settings).await.unwrap();
            let want = Link { name: "w-2".to_owned(), mtu: 1400, mac: Some(MAC), is_up: true, ..here };
            assert_eq!(links.find("w-2").await.unwrap(), Some(want));
            links.delete(index).await.unwrap();
            let gone = links.set(index, &settings[..1]).await.unwrap_err();
            assert_eq!(format!("{gone:#}"), format!("set MTU 1400 of link {index}: No such device (os error 19)"));
        });
    }

    #[test]
    fn nothing_is_left_of_a_pair_that_can_not_be_made() {
        let inside = fresh();
        within_async(async || {
            let links = Links::new().unwrap();
            links.create_veth(&veth("w-1", "eth0", Some(&inside))).await.unwrap();
            let taken = links.create_veth(&veth("w-2", "eth0", Some(&inside))).await.unwrap_err();
            assert!(
                format!("{taken:#}").starts_with("create veth w-2 for eth0 in network namespace /proc/thread-self")
            );
            // The kernel refuses an alias this long, after the pair was made.
            let alias = "a".repeat(300);
            let long = Veth { alias: Some(&alias), ..veth("w-3", "w-4", None) };
            assert!(links.create_veth(&long).await.is_err());
            let names: Vec<_> = links.list().await.unwrap().into_iter().map(|link| link.name).collect();
            assert_eq!(names, ["lo", "w-1"]);
        });
    }

    impl Links {
        async fn all_addresses(&self, link: u32) -> usize {
            let all: Vec<_> = self.handle.address().get().execute().try_collect().await.unwrap();
            all.iter().filter(|message| message.header.index == link).count()
        }
    }
}
