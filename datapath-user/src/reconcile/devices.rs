//! Brings devices, their addresses and routes into accord with a plan, and says what the kernel knows that a plan
//! needs.
//!
//! Touches what carries our name: the gateway device, and links whose alias says that they are ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use crate::kernel::{
    inside::{Inside, InsideRoute, configure},
    link::{self, Link, LinkKind, Links, Setting},
    netns::{Netns, Target},
    route::{Address, Route},
};
use crate::model::{
    cluster::Cluster,
    endpoint::DefaultRoute,
    name::{HostName, LinkName},
    prefix::Prefix,
};
use crate::plan::{
    facts::{Facts, Underlay},
    links::{Gateway, Veth},
};

/// What is written on a link of ours, before the endpoint's name and the number of its namespace.
const ALIAS: &str = "weft ";

/// What is written behind it until the inner side is ready.
const UNFINISHED: &str = ", unfinished";

/// Metric of a default route that gives way to any other.
const LAST_RESORT: u32 = 4096;

/// The inner side is called so until it is given its name.
const TEMPORARY: &str = "weft-new";

/// The devices of a host.
pub(super) struct Devices {
    links: Links,
    /// Links that were there, and on, in the last pass.
    ready: BTreeSet<LinkName>,
}

/// What making the link of an endpoint came to.
#[derive(Debug)]
pub(super) enum Made {
    /// It is there now and was before.
    Was,
    /// It was made.
    New,
    /// It was there and somebody took it away; it was made again.
    Again,
    /// The namespace is gone, or its name means another: nobody is left to be an endpoint.
    Gone(String),
}

impl Devices {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { links: Links::new()?, ready: BTreeSet::new() })
    }

    /// What only the kernel knows.
    pub(super) async fn facts(&self, cluster: &Cluster, host: &HostName) -> Result<Facts> {
        let links = self.links.list().await?;
        let gateway = links.iter().find(|link| link.name == link::GATEWAY).map(|link| link.index);
        let ours = links.iter().filter(|link| is_ours(link));
        let ours = ours.filter_map(|link| Some((link.name.parse::<LinkName>().ok()?, link.index))).collect();
        let mut underlay = BTreeMap::new();
        for peer in cluster.hosts.values().filter(|peer| peer.name != *host) {
            if let Some(way) = self.way_to(&peer.addresses, gateway).await? {
                underlay.insert(peer.name.clone(), way);
            }
        }
        Ok(Facts { gateway, links: ours, underlay })
    }

    /// How the first of these addresses is reached that can be.
    async fn way_to(&self, addresses: &[IpAddr], gateway: Option<u32>) -> Result<Option<Underlay>> {
        for &addr in addresses {
            let Some(path) = self.links.path_to(addr).await? else { continue };
            // A way by our own device would lead a tunnel into itself.
            if Some(path.uplink) != gateway {
                return Ok(Some(Underlay {
                    addr,
                    local: path.source,
                    next_hop: path.next_hop,
                    uplink: path.uplink,
                    path_mtu: path.mtu,
                }));
            }
        }
        Ok(None)
    }

    /// Names of the interfaces that lead to anywhere.
    pub(super) async fn ways_out(&self) -> Result<Vec<String>> {
        let uplinks = self.links.uplinks().await?.into_iter().filter(|uplink| uplink.is_default);
        Ok(uplinks.map(|uplink| uplink.link.name).collect())
    }

    /// All interfaces.
    pub(super) async fn list(&self) -> Result<Vec<Link>> {
        self.links.list().await
    }

    /// Makes the gateway device if it is not there, or of another kind. Says whether it was made. It stays off until
    /// [`Self::open_gateway`].
    pub(super) async fn make_gateway(&self, want: &Gateway, port: u16) -> Result<bool> {
        let name = want.name.to_string();
        let make = link::Gateway { name: name.clone(), port, mac: want.mac, mtu: want.mtu };
        let Some(have) = self.links.find(&name).await? else {
            self.links.create_gateway(&make).await?;
            return Ok(true);
        };
        match &have.kind {
            LinkKind::Vxlan(vxlan) if vxlan.port == port && vxlan.is_external => Ok(false),
            LinkKind::Vxlan(_) => {
                self.links.delete(have.index).await?;
                self.links.create_gateway(&make).await?;
                Ok(true)
            }
            other @ (LinkKind::Device | LinkKind::Veth | LinkKind::Other(_)) => {
                bail!("create gateway {name}: there is a device of kind {other:?} with this name; rename it")
            }
        }
    }

    /// Switches the gateway device on, with its settings, addresses and routes and no others. Says how many things
    /// were otherwise.
    pub(super) async fn open_gateway(&self, want: &Gateway) -> Result<usize> {
        let name = want.name.as_str();
        let have = self.links.find(name).await?.with_context(|| format!("find gateway {name}: it is gone"))?;
        let mut changes = 0;
        let nets: BTreeSet<IpNet> = want.addresses.iter().copied().map(IpNet::from).collect();
        let present: BTreeSet<IpNet> =
            self.links.addresses().await?.iter().filter(|at| at.link == have.index).map(|at| at.net).collect();
        for &net in nets.difference(&present) {
            self.links.add_address(Address { link: have.index, net }).await?;
            changes += 1;
        }
        for &net in present.difference(&nets) {
            self.links.delete_address(Address { link: have.index, net }).await?;
            changes += 1;
        }
        let settings = [
            (have.mac != Some(want.mac)).then_some(Setting::Mac(want.mac)),
            (have.mtu != want.mtu).then_some(Setting::Mtu(want.mtu)),
            (!have.is_up).then_some(Setting::Up),
        ];
        let settings: Vec<_> = settings.into_iter().flatten().collect();
        if !settings.is_empty() {
            self.links.set(have.index, &settings).await?;
            changes += settings.len();
        }
        let mut routes = Vec::new();
        for (prefix, source) in &want.routes {
            if let Some(dst) = net(prefix) {
                routes.push(Route { src: Some(*source), ..Route::on_link(dst, have.index) });
            }
        }
        let present: Vec<Route> =
            self.links.routes().await?.into_iter().filter(|route| route.link == have.index).collect();
        let mut wanted = BTreeSet::new();
        for route in routes {
            wanted.insert(route.dst);
            if !present.iter().any(|there| there.dst == route.dst && there.src == route.src) {
                self.links.put_route(&route).await?;
                changes += 1;
            }
        }
        for route in present.iter().filter(|route| !wanted.contains(&route.dst)) {
            self.links.delete_route(route).await?;
            changes += 1;
        }
        Ok(changes)
    }

    /// Makes an endpoint's link if it is not there, off on this side: nothing passes before there is a program.
    pub(super) async fn make_veth(&mut self, name: &LinkName, want: &Veth) -> Result<Made> {
        let netns = match open(want) {
            Ok(netns) => netns,
            Err(why) => return Ok(self.gone(name, format!("{why:#}"))),
        };
        let found = self.links.find(name.as_str()).await?;
        let written = found.as_ref().and_then(|link| link.alias.as_deref());
        let alias = alias(want);
        if written.is_some_and(|written| written.strip_suffix(UNFINISHED).unwrap_or(written) == alias) {
            return Ok(Made::Was);
        }
        // The number in the path may be that of a namespace that came after ours.
        if want.netns.cookie.is_some() && want.netns.cookie != Some(netns.cookie()?) {
            return Ok(self.gone(name, format!("{netns} is another one now")));
        }
        if let Some(link) = found {
            if !is_ours(&link) && !is_nameless(&link) {
                bail!("create veth {name}: a device of somebody else has this name; rename it");
            }
            // Its inner side is not in this namespace: the endpoint was attached anew, and somebody holds the old one.
            self.links.delete(link.index).await?;
            self.ready.remove(name);
        }
        let veth = link::Veth {
            name: name.as_str(),
            alias: Some(&format!("{alias}{UNFINISHED}")),
            mac: None,
            mtu: want.mtu,
            peer: TEMPORARY,
            peer_mac: want.mac,
            peer_netns: Some(&netns),
        };
        self.links.create_veth(&veth).await?;
        Ok(if self.ready.remove(name) { Made::Again } else { Made::New })
    }

    fn gone(&mut self, name: &LinkName, why: String) -> Made {
        self.ready.remove(name);
        Made::Gone(why)
    }

    /// Switches an endpoint's link on, and makes its inner side ready: after the program is there. Says how many things
    /// were otherwise.
    pub(super) async fn open_veth(&mut self, name: &LinkName, want: &Veth) -> Result<usize> {
        let link = self.links.find(name.as_str()).await?.with_context(|| format!("find link {name}: it is gone"))?;
        let mut settings = Vec::new();
        if link.mtu != want.mtu {
            settings.push(Setting::Mtu(want.mtu));
        }
        if !link.is_up {
            settings.push(Setting::Up);
        }
        if !settings.is_empty() {
            self.links.set(link.index, &settings).await?;
        }
        // Written down last: a daemon that dies before it is followed by one that does all of it again.
        if link.alias.is_some_and(|written| written.ends_with(UNFINISHED)) {
            let netns = open(want)?;
            let inside = inside(want);
            tokio::task::spawn_blocking(move || configure(&netns, &inside))
                .await
                .context("configure a container")??;
            self.links.set(link.index, &[Setting::Alias(alias(want))]).await?;
        }
        self.ready.insert(name.clone());
        Ok(settings.len())
    }

    /// Removes links of ours that no endpoint has. Says how many.
    pub(super) async fn remove_others(&mut self, want: &BTreeMap<LinkName, Veth>) -> Result<usize> {
        let mut removed = 0;
        for link in self.links.list().await?.into_iter().filter(is_ours) {
            let name = link.name.parse::<LinkName>();
            if name.as_ref().is_ok_and(|name| want.contains_key(name)) {
                continue;
            }
            self.links.delete(link.index).await?;
            if let Ok(name) = name {
                self.ready.remove(&name);
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes the gateway device with all that is on it. Says whether it was there.
    pub(super) async fn remove_gateway(&self) -> Result<bool> {
        match self.links.find(link::GATEWAY).await? {
            Some(link) if matches!(link.kind, LinkKind::Vxlan(_)) => {
                self.links.delete(link.index).await?;
                Ok(true)
            }
            // A device of somebody else, which kept ours from being made.
            Some(_) | None => Ok(false),
        }
    }
}

/// A prefix in the form of the kernel layer.
pub(super) fn net(prefix: &Prefix) -> Option<IpNet> {
    IpNet::new(prefix.first(), prefix.len()).ok()
}

fn is_ours(link: &Link) -> bool {
    link.alias.as_ref().is_some_and(|alias| alias.starts_with(ALIAS))
}

/// Made by a daemon that died before it could write on it.
fn is_nameless(link: &Link) -> bool {
    link.kind == LinkKind::Veth && link.alias.is_none() && !link.is_up
}

/// Whose link it is, and in which namespace its inner side was made.
fn alias(Veth { endpoint, netns, .. }: &Veth) -> String {
    let cookie = netns.cookie.map(|cookie| format!(".{cookie}"));
    format!("{ALIAS}{endpoint} in {}{}", netns.inode, cookie.unwrap_or_default())
}

/// The namespace of an endpoint, if it is still the one it was.
fn open(veth: &Veth) -> Result<Netns> {
    let path = veth.netns.path.as_str();
    let netns = Netns::open(&Target::Path(PathBuf::from(path)))?;
    let id = netns.id()?;
    if (id.device(), id.inode()) != (veth.netns.device, veth.netns.inode) {
        bail!("open network namespace {path}: it is another one now");
    }
    Ok(netns)
}

fn inside(veth: &Veth) -> Inside {
    let nets = veth.addresses.iter().filter_map(|(addr, len)| IpNet::new(*addr, *len).ok());
    let on_link = veth.on_link.iter().filter_map(net).map(|dst| InsideRoute { dst, via: None, metric: None });
    // Behind any that is there already, unless it is to take its place.
    let metric = (veth.default_route == DefaultRoute::IfNone).then_some(LAST_RESORT);
    let defaults = veth.gateways.iter().filter(|_| veth.default_route != DefaultRoute::Leave).map(|gateway| {
        let everything = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        everything.parse().map(|dst| InsideRoute { dst, via: Some(*gateway), metric })
    });
    Inside {
        interface: TEMPORARY.to_owned(),
        rename: Some(veth.ifname.to_string()),
        mac: veth.mac,
        mtu: veth.mtu,
        addresses: nets.collect(),
        routes: on_link.chain(defaults.filter_map(Result::ok)).collect(),
    }
}
