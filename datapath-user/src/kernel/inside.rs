//! The inside of a container's namespace: its end of the pair gets a name, addresses and routes.
//!
//! Works on a thread of its own that enters the namespace, with a netlink socket of its own. Everything is put, not
//! added, so that doing it twice is doing it once.

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use std::net::IpAddr;
use weft_common::addr::Mac;

use super::{
    link::{Links, Setting},
    netns::{Netns, run_in},
    route::{Address, Route},
    sysctl::set_if_there,
};

/// What a container sees of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The interface as it is called now.
    pub interface: String,
    /// What it shall be called, if something else.
    pub rename: Option<String>,
    /// Its hardware address.
    pub mac: Mac,
    /// Largest network packet.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its routes; a default route is one to 0.0.0.0/0 or ::/0.
    pub routes: Vec<InsideRoute>,
}

/// A route of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsideRoute {
    /// Where to.
    pub dst: IpNet,
    /// By this gateway, taken to be on the link. None: the destination itself is.
    pub via: Option<IpAddr>,
}

/// Brings a container's interface into the state that is asked for, and switches it on. Blocks.
pub fn configure(netns: &Netns, inside: &Inside) -> Result<()> {
    let configure = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("make a runtime")?;
        runtime.block_on(within(inside))
    };
    run_in(netns, configure).with_context(|| format!("configure {} in {netns}", inside.interface))
}

async fn within(inside: &Inside) -> Result<()> {
    let Inside { interface, rename, mac, mtu, addresses, routes } = inside;
    let links = Links::new()?;
    let name = rename.as_ref().unwrap_or(interface);
    let found = match links.find(interface).await? {
        None => links.find(name).await?,
        found => found,
    };
    let link = found.with_context(|| format!("find link {interface}: it is not there"))?;
    if link.name != *name {
        links.set(link.index, &[Setting::Down]).await?;
        links.set(link.index, &[Setting::Name(name.clone())]).await?;
    }
    // Addresses are given, not guessed, and known to be nobody else's. Docker switches IPv6 off in its containers.
    let has_ipv6 = addresses.iter().any(|address| address.addr().is_ipv6());
    for (switch, value) in [
        ("disable_ipv6", if has_ipv6 { "0" } else { "1" }),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
    ] {
        set_if_there(&format!("ipv6/conf/{name}/{switch}"), value)?;
    }
    links.set(link.index, &[Setting::Mac(*mac), Setting::Mtu(*mtu)]).await?;
    for &net in addresses {
        links.add_address(Address { link: link.index, net }).await?;
    }
    links.set(link.index, &[Setting::Up]).await?;
    for &InsideRoute { dst, via } in routes {
        links.put_route(&Route { via, ..Route::on_link(dst, link.index) }).await?;
    }
    Ok(())
}
