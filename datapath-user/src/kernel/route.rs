//! Addresses and routes, and the way to a peer.
//!
//! Ours are told by their protocol number. Invariant: a route that does not carry it is never changed or removed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType, RouteVia,
    },
};
use rtnetlink::RouteMessageBuilder;

use super::link::{Links, told};

/// What routes of ours carry in the field `protocol`: 119 is `w`, and nobody's in iproute2's list.
pub const PROTOCOL: u8 = 119;

/// What the kernel gives to an IPv6 route without a metric (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The interface.
    pub link: u32,
    /// The address, with the length of its prefix.
    pub net: IpNet,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// The interface.
    pub link: u32,
    /// The next hop, taken to be on the link whatever the addresses say. None: the destination itself is.
    pub via: Option<IpAddr>,
    /// The source address that this host takes.
    pub src: Option<IpAddr>,
    /// The lower comes first. None: what the kernel gives.
    pub metric: Option<u32>,
    /// Largest packet, if not the interface's.
    pub mtu: Option<u32>,
}

/// The way that packets take to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The interface they leave by.
    pub uplink: u32,
    /// Our address on it.
    pub source: IpAddr,
    /// The router, or the address itself.
    pub next_hop: IpAddr,
    /// Largest packet, if not the interface's: the route's, or what was learned on the way.
    pub mtu: Option<u32>,
}

impl Route {
    /// To a prefix that is on the link.
    pub fn on_link(dst: IpNet, link: u32) -> Self {
        Self { dst, link, via: None, src: None, metric: None, mtu: None }
    }
}

impl Links {
    /// Every global address, sorted.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages = self.handle.address().get().execute();
        let messages: Vec<_> = messages.try_collect().await.map_err(told).context("list addresses")?;
        let global = messages.iter().filter(|message| message.header.scope == AddressScope::Universe);
        let mut addresses: Vec<_> = global.filter_map(Address::of).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Gives an address to an interface, in use at once: that nobody else has it is known. That it has it is success.
    pub async fn add_address(&self, address: Address) -> Result<()> {
        let Address { link, net } = address;
        let mut request = self.handle.address().add(link, net.addr(), net.prefix_len()).replace();
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(told).with_context(|| format!("add address {net} to link {link}"))
    }

    /// Takes an address from an interface. That it has none is success.
    pub async fn delete_address(&self, address: Address) -> Result<()> {
        let Address { link, net } = address;
        let request = self.handle.address().add(link, net.addr(), net.prefix_len()).message_mut().clone();
        match self.handle.address().del(request).execute().await.map_err(told) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            result => result.with_context(|| format!("delete address {net} of link {link}")),
        }
    }

    /// Our routes, sorted.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let all = self.all_routes().await?;
        let mut ours: Vec<_> = all.into_iter().filter(|(_, is_ours)| *is_ours).map(|(route, _)| route).collect();
        ours.sort();
        Ok(ours)
    }

    /// Sees to it that the route is there. An earlier one of ours with its destination and metric gives way to it
    /// without a gap; another's is an error.
    pub async fn put_route(&self, route: &Route) -> Result<()> {
        let context = || format!("add route to {} by link {}", route.dst, route.link);
        let want = route.normal();
        let same = |(other, _): &&(Route, bool)| (other.dst, other.metric) == (want.dst, want.metric);
        let routes = self.all_routes().await.with_context(context)?;
        let add = self.handle.route().add(route.message());
        let add = match routes.iter().find(same) {
            Some((_, false)) => bail!("{}: there is one that is not ours", context()),
            Some((have, true)) if *have == want => return Ok(()),
            Some((_, true)) => add.replace(),
            None => add,
        };
        add.execute().await.map_err(told).with_context(context)
    }

    /// Removes our route. That there is none is success.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        match self.handle.route().del(route.message()).execute().await.map_err(told) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            result => result.with_context(|| format!("delete route to {} by link {}", route.dst, route.link)),
        }
    }

    /// The way to an address outside this host; none if there is no route.
    pub async fn path_to(&self, address: IpAddr) -> Result<Option<Path>> {
        let context = || format!("find the way to {address}");
        let mut question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, IpNet::from(address).prefix_len())
            .with_context(context)?
            .build();
        // Of the answer's route, not a condition.
        question.header.protocol = RouteProtocol::Unspec;
        question.header.kind = RouteType::Unspec;
        let mut answers = Box::pin(self.handle.route().get(question).execute());
        let answer = match answers.try_next().await.map_err(told) {
            Err(error) if is_unreachable(&error) => return Ok(None),
            answer => answer.with_context(context)?,
        };
        let Some(answer) = answer.filter(|answer| answer.header.kind == RouteType::Unicast) else { return Ok(None) };
        let Some((route, _)) = read(&answer) else { return Ok(None) };
        let Some(source) = route.src else { return Ok(None) };
        Ok(Some(Path { uplink: route.link, source, next_hop: route.via.unwrap_or(address), mtu: route.mtu }))
    }

    /// Numbers of the interfaces that default routes lead to.
    pub async fn default_ways(&self) -> Result<BTreeSet<u32>> {
        let routes = self.all_routes().await?.into_iter().filter(|(route, _)| route.dst.prefix_len() == 0);
        Ok(routes.map(|(route, _)| route.link).collect())
    }

    /// Unicast routes of the main table, each with whether it is ours.
    async fn all_routes(&self) -> Result<Vec<(Route, bool)>> {
        let mut routes = Vec::new();
        let families = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for family in families {
            let messages = self.handle.route().get(family).execute();
            let messages: Vec<_> = messages.try_collect().await.map_err(told).context("list routes")?;
            let main = messages.iter().filter(|message| {
                message.header.table == RouteHeader::RT_TABLE_MAIN && message.header.kind == RouteType::Unicast
            });
            routes.extend(main.filter_map(read));
        }
        Ok(routes)
    }
}

impl Address {
    fn of(message: &AddressMessage) -> Option<Self> {
        let mut address = None;
        for attribute in &message.attributes {
            // Of a point-to-point interface the first is the other end's.
            if let AddressAttribute::Local(local) = attribute {
                address = Some(*local);
                break;
            }
            if let AddressAttribute::Address(found) = attribute {
                address = Some(*found);
            }
        }
        let net = IpNet::new(address?, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, net })
    }
}

impl Route {
    fn message(&self) -> RouteMessage {
        let &Self { dst, link, via, src, metric, mtu } = self;
        let mut message = match dst {
            IpNet::V4(net) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
            }
            IpNet::V6(net) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
            }
        };
        message.header.protocol = PROTOCOL.into();
        if dst.addr().is_ipv4() && via.is_none() {
            message.header.scope = RouteScope::Link;
        }
        message.attributes.push(RouteAttribute::Oif(link));
        if let Some(via) = via {
            message.header.flags |= RouteFlags::Onlink;
            message.attributes.push(match (dst, via) {
                (IpNet::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
                (IpNet::V4(_) | IpNet::V6(_), via) => RouteAttribute::Gateway(via.into()),
            });
        }
        message.attributes.extend(src.map(|src| RouteAttribute::PrefSource(src.into())));
        message.attributes.extend(metric.map(RouteAttribute::Priority));
        message.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        message
    }

    /// As the kernel tells it.
    fn normal(&self) -> Self {
        let default = if self.dst.addr().is_ipv6() { IPV6_METRIC } else { 0 };
        Self { dst: self.dst.trunc(), metric: self.metric.filter(|metric| *metric != default), ..*self }
    }
}

/// A route in the kernel's words, and whether it is ours. None: it has many next hops, or none.
fn read(message: &RouteMessage) -> Option<(Route, bool)> {
    let is_v6 = message.header.address_family == AddressFamily::Inet6;
    let any = if is_v6 { IpNet::from(Ipv6Net::default()) } else { IpNet::from(Ipv4Net::default()) };
    let mut route = Route::on_link(any, 0);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel says much that we do not ask")]
        match attribute {
            RouteAttribute::Destination(dst) => {
                route.dst = IpNet::new(ip(dst)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Oif(link) => route.link = *link,
            RouteAttribute::Gateway(via) => route.via = ip(via),
            RouteAttribute::Via(RouteVia::Inet(via)) => route.via = Some((*via).into()),
            RouteAttribute::Via(RouteVia::Inet6(via)) => route.via = Some((*via).into()),
            RouteAttribute::PrefSource(src) => route.src = ip(src),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    (route.link != 0).then(|| (route.normal(), message.header.protocol == PROTOCOL.into()))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "labels are no addresses")]
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn is_unreachable(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        link::{Setting, tests::veth},
        netns::tests::within_async,
    };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn up(links: &Links, name: &str, addresses: &[&str]) -> u32 {
        let peer = format!("{name}p");
        let link = links.create_veth(&veth(name, &peer, None)).await.unwrap();
        let other = links.find(&peer).await.unwrap().unwrap().index;
        links.set(other, &[Setting::NoLinkLocal, Setting::Up]).await.unwrap();
        for address in addresses {
            links.add_address(Address { link, net: net(address) }).await.unwrap();
        }
        links.set(link, &[Setting::Up]).await.unwrap();
        link
    }

    #[test]
    fn addresses_are_put_and_taken() {
        within_async(async || {
            let links = Links::new().unwrap();
            let link = up(&links, "a", &["10.0.0.1/24", "2001:db8::1/64", "10.0.0.1/24"]).await;
            let [v4, v6] = ["10.0.0.1/24", "2001:db8::1/64"].map(|text| Address { link, net: net(text) });
            assert_eq!(links.addresses().await.unwrap(), [v4, v6]);
            // In use at once, without a search for others that have it.
            std::net::UdpSocket::bind("[2001:db8::1]:0").unwrap();
            for _ in 0..2 {
                links.delete_address(v4).await.unwrap();
                assert_eq!(links.addresses().await.unwrap(), [v6]);
            }
            let error = links.add_address(Address { link: 999, net: net("10.0.0.9/32") }).await.unwrap_err();
            assert_eq!(format!("{error:#}"), "add address 10.0.0.9/32 to link 999: No such device (os error 19)");
        });
    }

    #[test]
    fn our_routes_come_and_go_and_those_of_others_stay() {
        within_async(async || {
            let links = Links::new().unwrap();
            let link = up(&links, "a", &["10.0.0.1/24", "2001:db8::1/64"]).await;
            let on_link = |text: &str| Route::on_link(net(text), link);
            let want = [
                Route { src: Some(ip("10.0.0.1")), ..on_link("10.32.0.0/16") },
                // A gateway that no prefix of the interface has.
                Route { via: Some(ip("192.0.2.1")), metric: Some(77), mtu: Some(1400), ..on_link("10.33.0.0/16") },
                Route { via: Some(ip("fd00::1")), ..on_link("fd01::/64") },
                Route { metric: Some(5), mtu: Some(1300), ..on_link("fd02::/64") },
            ];
            for route in &want {
                links.put_route(route).await.unwrap();
                links.put_route(route).await.unwrap();
            }
            assert_eq!(links.routes().await.unwrap(), want);

            let changed = Route { mtu: Some(1200), src: None, ..want[0] };
            links.put_route(&changed).await.unwrap();
            assert_eq!(links.routes().await.unwrap()[0], changed);
            for route in [changed, want[1], want[2], want[3], want[0]] {
                links.delete_route(&route).await.unwrap();
            }
            assert_eq!(links.routes().await.unwrap(), []);

            // 10.0.0.0/24 is the kernel's own.
            let theirs = on_link("10.0.0.0/24");
            let error = links.put_route(&theirs).await.unwrap_err().to_string();
            assert_eq!(error, format!("add route to 10.0.0.0/24 by link {link}: there is one that is not ours"));
            links.delete_route(&theirs).await.unwrap();
            assert!(links.path_to(ip("10.0.0.7")).await.unwrap().is_some());
        });
    }

    #[test]
    fn the_way_to_a_peer_is_found() {
        within_async(async || {
            let links = Links::new().unwrap();
            assert_eq!(links.path_to(ip("192.0.2.1")).await.unwrap(), None);
            assert_eq!(links.default_ways().await.unwrap(), BTreeSet::new());
            let near = up(&links, "a", &["10.0.0.1/24", "2001:db8::1/64"]).await;
            let far = up(&links, "b", &["10.1.0.1/24"]).await;
            let default =
                Route { via: Some(ip("10.1.0.254")), mtu: Some(1280), ..Route::on_link(net("0.0.0.0/0"), far) };
            links.put_route(&default).await.unwrap();

            let path =
                |uplink, source, next_hop, mtu| Some(Path { uplink, source: ip(source), next_hop: ip(next_hop), mtu });
            for (peer, want) in [
                ("10.0.0.7", path(near, "10.0.0.1", "10.0.0.7", None)),
                ("2001:db8::7", path(near, "2001:db8::1", "2001:db8::7", None)),
                ("192.0.2.1", path(far, "10.1.0.1", "10.1.0.254", Some(1280))),
                ("2001:db9::7", None),
                ("10.0.0.1", None),
            ] {
                assert_eq!(links.path_to(ip(peer)).await.unwrap(), want, "{peer}");
            }
            assert_eq!(links.default_ways().await.unwrap(), BTreeSet::from([far]));
        });
    }
}
