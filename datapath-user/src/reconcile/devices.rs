//! Brings devices, their addresses and routes into accord with a plan, and says what the kernel knows that a plan
//! needs.
//!
//! Touches what carries our name: the gateway device, and links whose alias says that they are ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
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
    facts::{Clock, Facts, Underlay},
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
    /// What there is, by name: as the last look found it, with what was made and removed since.
    present: BTreeMap<String, Link>,
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
        Ok(Self { links: Links::new()?, present: BTreeMap::new(), ready: BTreeSet::new() })
    }

    /// Looks at what there is. All else goes by that until the next look.
    pub(super) async fn look(&mut self) -> Result<()> {
        self.present = self.links.list().await?.into_iter().map(|link| (link.name.clone(), link)).collect();
        Ok(())
    }

    /// Whether of these, by number, one that is ours or an uplink is otherwise than was known. None is one that is gone.
    pub(super) fn are_news(&self, links: &BTreeMap<u32, Option<Link>>, uplinks: &BTreeSet<String>) -> bool {
        let matters = |link: &&Link| is_ours(link) || link.name == link::GATEWAY || uplinks.contains(&link.name);
        links.iter().any(|(index, now)| {
            let (known, now) = (self.present.values().find(|link| link.index == *index), now.as_ref());
            known != now && known.into_iter().chain(now).any(|link| matters(&link))
        })
    }

    /// What there is, by name.
    pub(super) fn present(&self) -> &BTreeMap<String, Link> {
        &self.present
    }

    /// What only the kernel knows.
    pub(super) async fn facts(&mut self, cluster: &Cluster, host: &HostName) -> Result<Facts> {
        let mut underlay = BTreeMap::new();
        for peer in cluster.hosts.values().filter(|peer| peer.name != *host) {
            if let Some(way) = self.way_to(&peer.addresses).await? {
                underlay.insert(peer.name.clone(), way);
            }
        }
        Ok(Facts { underlay, ..self.numbers() })
    }

    /// The part of the facts that changes when a device of ours is made.
    pub(super) fn numbers(&self) -> Facts {
        let ours = self.present.values().filter(|link| is_ours(link));
        Facts {
            gateway: self.present.get(link::GATEWAY).map(|link| link.index),
            links: ours.filter_map(|link| Some((link.name.parse().ok()?, link.index))).collect(),
            underlay: BTreeMap::new(),
            clock: Clock::default(),
        }
    }

    /// Takes note of a device that was made.
    async fn learn(&mut self, name: &str) -> Result<()> {
        let link = self.links.find(name).await?.with_context(|| format!("find link {name}: it is gone"))?;
        self.present.insert(link.name.clone(), link);
        Ok(())
    }

    /// Removes a device.
    async fn delete(&mut self, name: &str) -> Result<()> {
        match self.present.get(name) {
            Some(link) => self.links.delete(link.index).await?,
            None => return Ok(()),
        }
        self.present.remove(name);
        Ok(())
    }

    /// How the first of these addresses is reached that can be.
    async fn way_to(&mut self, addresses: &[IpAddr]) -> Result<Option<Underlay>> {
        for &addr in addresses {
            let Some(path) = self.links.path_to(addr).await? else { continue };
            if !self.present.values().any(|link| link.index == path.uplink) {
                // It came since the last look.
                self.look().await?;
            }
            let Some(uplink) = self.present.values().find(|link| link.index == path.uplink) else { continue };
            // A way by our own device would lead a tunnel into itself.
            if uplink.name != link::GATEWAY {
                return Ok(Some(Underlay {
                    addr,
                    local: path.source,
                    next_hop: path.next_hop,
                    uplink: path.uplink,
                    path_mtu: path.mtu.unwrap_or(uplink.mtu),
                }));
            }
        }
        Ok(None)
    }

    /// Names of the interfaces that lead to anywhere.
    pub(super) async fn ways_out(&self) -> Result<Vec<String>> {
        let ways = self.links.default_ways().await?;
        let links = self.present.values().filter(|link| ways.contains(&link.index));
        Ok(links.map(|link| link.name.clone()).collect())
    }

    /// Makes the gateway device if it is not there, or of another kind. Says whether it was made. It stays off until
    /// [`Self::open_gateway`].
    pub(super) async fn make_gateway(&mut self, want: &Gateway, port: u16) -> Result<bool> {
        let name = want.name.to_string();
        match self.present.get(&name).map(|have| &have.kind) {
            Some(LinkKind::Vxlan(vxlan)) if vxlan.port == port && vxlan.is_external => return Ok(false),
            Some(LinkKind::Vxlan(_)) => self.delete(&name).await?,
            Some(other @ (LinkKind::Device | LinkKind::Veth | LinkKind::Other(_))) => {
                bail!("create gateway {name}: there is a device of kind {other:?} with this name; rename it")
            }
            None => {}
        }
        let make = link::Gateway { name: name.clone(), port, mac: want.mac, mtu: want.mtu };
        self.links.create_gateway(&make).await?;
        self.learn(&name).await?;
        Ok(true)
    }

    /// Switches the gateway device on, with its settings, addresses and routes and no others. Says how many things
    /// were otherwise.
    pub(super) async fn open_gateway(&mut self, want: &Gateway) -> Result<usize> {
        let name = want.name.as_str();
        let have = self.present.get(name).with_context(|| format!("find gateway {name}: it is gone"))?.clone();
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
            self.learn(name).await?;
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

    /// Makes an endpoint's link if it is not there, off on this side: nothing passes before there is a program. `looks`:
    /// also whether the namespace of one that is there still is.
    pub(super) async fn make_veth(&mut self, name: &LinkName, want: &Veth, looks: bool) -> Result<Made> {
        let found = self.present.get(name.as_str());
        let written = found.and_then(|link| link.alias.as_deref());
        let alias = alias(want);
        let is_there = written.is_some_and(|written| written.strip_suffix(UNFINISHED).unwrap_or(written) == alias);
        if is_there && !(looks && is_gone(want)) {
            return Ok(Made::Was);
        }
        let netns = match open(want) {
            Ok(netns) => netns,
            Err(why) => return Ok(self.gone(name, format!("{why:#}"))),
        };
        if is_there {
            return Ok(Made::Was);
        }
        // The number in the path may be that of a namespace that came after ours.
        if want.netns.cookie.is_some() && want.netns.cookie != Some(netns.cookie()?) {
            return Ok(self.gone(name, format!("{netns} is another one now")));
        }
        if let Some(link) = found {
            if !is_ours(link) && !is_nameless(link) {
                bail!("create veth {name}: a device of somebody else has this name; rename it");
            }
            // Its inner side is not in this namespace: the endpoint was attached anew, and somebody holds the old one.
            self.delete(name.as_str()).await?;
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
        self.learn(name.as_str()).await?;
        Ok(if self.ready.remove(name) { Made::Again } else { Made::New })
    }

    fn gone(&mut self, name: &LinkName, why: String) -> Made {
        self.ready.remove(name);
        Made::Gone(why)
    }

    /// Switches an endpoint's link on, and makes its inner side ready: after the program is there. Says how many things
    /// were otherwise.
    pub(super) async fn open_veth(&mut self, name: &LinkName, want: &Veth) -> Result<usize> {
        let link = self.present.get(name.as_str()).with_context(|| format!("find link {name}: it is gone"))?;
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
        let is_unfinished = link.alias.as_ref().is_some_and(|written| written.ends_with(UNFINISHED));
        if is_unfinished {
            let netns = open(want)?;
            let inside = inside(want);
            tokio::task::spawn_blocking(move || configure(&netns, &inside))
                .await
                .context("configure a container")??;
            self.links.set(link.index, &[Setting::Alias(alias(want))]).await?;
        }
        if is_unfinished || !settings.is_empty() {
            self.learn(name.as_str()).await?;
        }
        self.ready.insert(name.clone());
        Ok(settings.len())
    }

    /// Removes links of ours that no endpoint has. Says how many.
    pub(super) async fn remove_others(&mut self, want: &BTreeMap<LinkName, Veth>) -> Result<usize> {
        let ours = self.present.values().filter(|link| is_ours(link)).map(|link| link.name.clone());
        let surplus: Vec<_> =
            ours.filter(|name| !name.parse::<LinkName>().is_ok_and(|name| want.contains_key(&name))).collect();
        for name in &surplus {
            self.delete(name).await?;
            self.ready.retain(|ready| ready.as_str() != name);
        }
        Ok(surplus.len())
    }

    /// Removes the gateway device with all that is on it. Says whether it was there.
    pub(super) async fn remove_gateway(&mut self) -> Result<bool> {
        // Else it is a device of somebody else, which kept ours from being made.
        let is_there = self.present.get(link::GATEWAY).is_some_and(|link| matches!(link.kind, LinkKind::Vxlan(_)));
        if is_there {
            self.delete(link::GATEWAY).await?;
        }
        Ok(is_there)
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

/// Whether the path of an endpoint's namespace leads nowhere, or to something else than it did.
fn is_gone(Veth { netns, .. }: &Veth) -> bool {
    let there = fs::metadata(netns.path.as_str());
    there.map_or(true, |there| (there.dev(), there.ino()) != (netns.device, netns.inode))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        link::tests::veth,
        netns::tests::{fresh, within_async},
        watch::{Changed, Watch},
    };
    use crate::model::endpoint::{EndpointKey, Netns as Place};
    use std::{
        os::fd::{AsFd as _, AsRawFd as _},
        time::Duration,
    };
    use tokio::time::timeout;
    use weft_common::addr::Mac;

    /// An endpoint's link, with its inner side in `netns`.
    fn wanted(netns: &Netns) -> Veth {
        let id = netns.id().unwrap();
        let path = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
        Veth {
            endpoint: EndpointKey::new("shop".parse().unwrap(), "web-1".parse().unwrap()),
            netns: Place {
                path: path.parse().unwrap(),
                device: id.device(),
                inode: id.inode(),
                cookie: Some(netns.cookie().unwrap()),
            },
            ifname: "eth0".parse().unwrap(),
            mac: Mac::new([2, 0, 0, 0, 0, 7]),
            mtu: 1450,
            addresses: BTreeSet::from([("10.1.1.2".parse().unwrap(), 16)]),
            on_link: BTreeSet::new(),
            gateways: BTreeSet::from(["10.1.1.1".parse().unwrap()]),
            default_route: DefaultRoute::IfNone,
        }
    }

    /// What the kernel tells until it is silent.
    async fn told(watch: &mut Watch) -> Changed {
        let mut told = Changed::default();
        while let Ok(Some(more)) = timeout(Duration::from_millis(100), watch.changed()).await {
            told.extend(more);
        }
        told
    }

    #[test]
    fn what_was_done_is_no_news_and_what_others_do_is() {
        let container = fresh();
        within_async(async || {
            let mut devices = Devices::new().unwrap();
            let mut watch = Watch::new().unwrap();
            let (name, want) = ("weft-1".parse::<LinkName>().unwrap(), wanted(&container));
            devices.look().await.unwrap();
            assert!(matches!(devices.make_veth(&name, &want, true).await.unwrap(), Made::New));
            assert_eq!(devices.open_veth(&name, &want).await.unwrap(), 1);
            let uplinks = BTreeSet::from(["up".to_owned()]);
            let changed = told(&mut watch).await;
            assert!(!changed.links.is_empty() && !devices.are_news(&changed.links, &uplinks), "{changed:?}");
            assert!(!changed.ways, "no address or route of this side came with it");
            assert!(matches!(devices.make_veth(&name, &want, true).await.unwrap(), Made::Was));

            devices.links.create_veth(&veth("up", "else", None)).await.unwrap();
            let changed = told(&mut watch).await.links;
            assert!(
                devices.are_news(&changed, &uplinks) && !devices.are_news(&changed, &BTreeSet::new()),
                "{changed:?}"
            );

            let index = devices.present()[name.as_str()].index;
            devices.links.set(index, &[Setting::Down]).await.unwrap();
            assert!(devices.are_news(&told(&mut watch).await.links, &uplinks), "somebody switched it off");
            devices.look().await.unwrap();
            assert_eq!(devices.open_veth(&name, &want).await.unwrap(), 1);
            assert!(!devices.are_news(&told(&mut watch).await.links, &uplinks));

            devices.links.delete(index).await.unwrap();
            assert!(devices.are_news(&told(&mut watch).await.links, &uplinks), "somebody took it away");
            devices.look().await.unwrap();
            assert!(matches!(devices.make_veth(&name, &want, true).await.unwrap(), Made::Again));
            assert_eq!(devices.remove_others(&BTreeMap::new()).await.unwrap(), 1);
            assert!(!devices.are_news(&told(&mut watch).await.links, &uplinks), "we took it away");
        });
    }
}
