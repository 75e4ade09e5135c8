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
    /// Of several to the same destination the one with the least is taken. None: the kernel's default.
    pub metric: Option<u32>,
}

/// Brings a container's interface into the state that is asked for, and switches it on. Blocks.
pub fn configure(netns: &Netns, inside: &Inside) -> Result<()> {
    let configure = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("make a runtime")?;
        runtime.block_on(within(inside))
    };
    run_in(netns, configure).with_context(|| format!("configure {} in {netns}", inside.interface))
}

/// The first of eth0, eth1, … that no interface of the namespace is called.
pub fn free_name(netns: &Netns) -> Result<String> {
    run_in(netns, || {
        let mut names = (0..).map(|number| format!("eth{number}"));
        let is_free = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).is_err();
        names.find(is_free).context("find a free name")
    })
}

async fn within(inside: &Inside) -> Result<()> {
    let Inside { interface, rename, mac, mtu, addresses, routes } = inside;
    let links = Links::new()?;
    let name = rename.as_ref().unwrap_or(interface);
    // One that has its name already is ours if it has our address too.
    let found = match links.find(interface).await? {
        None => links.find(name).await?.filter(|link| link.mac == Some(*mac)),
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
    for &InsideRoute { dst, via, metric } in routes {
        links.put_route(&Route { via, metric, ..Route::on_link(dst, link.index) }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        link::{Link, tests::veth},
        netns::tests::{fresh, within_async},
        sysctl,
    };

    fn inside(interface: &str) -> Inside {
        let route = |dst: &str, via: Option<&str>| InsideRoute {
            dst: dst.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            metric: None,
        };
        Inside {
            interface: interface.to_owned(),
            rename: None,
            mac: Mac::new([2, 0, 0, 0, 1, 1]),
            mtu: 1380,
            addresses: vec!["10.32.0.5/32".parse().unwrap(), "fd00::5/128".parse().unwrap()],
            routes: vec![
                route("0.0.0.0/0", Some("169.254.1.1")),
                route("::/0", Some("fd00::1")),
                route("10.40.0.0/16", None),
            ],
        }
    }

    fn seen(netns: &Netns) -> (Vec<Link>, Vec<IpNet>, Vec<Route>) {
        let look = async || {
            let links = Links::new().unwrap();
            let addresses = links.addresses().await.unwrap().into_iter().map(|address| address.net).collect();
            (links.list().await.unwrap(), addresses, links.routes().await.unwrap())
        };
        run_in(netns, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            Ok(runtime.block_on(look()))
        })
        .unwrap()
    }

    #[test]
    fn a_container_sees_what_was_asked_for_and_asking_twice_changes_nothing() {
        let netns = fresh();
        // As Docker makes its containers.
        run_in(&netns, || sysctl::set("ipv6/conf/default/disable_ipv6", "1")).unwrap();
        within_async(async || {
            let links = Links::new().unwrap();
            links.create_veth(&veth("w-1", "temporary", Some(&netns))).await.unwrap();
            let want = Inside { rename: Some("eth0".to_owned()), ..inside("temporary") };
            configure(&netns, &want).unwrap();
            let first = seen(&netns);
            let (links, addresses, routes) = &first;
            let link = links.iter().find(|link| link.name == "eth0").unwrap();
            assert_eq!((link.mac, link.mtu, link.is_up), (Some(want.mac), want.mtu, true));
            assert_eq!(*addresses, want.addresses);
            let routes: Vec<_> =
                routes.iter().map(|route| InsideRoute { dst: route.dst, via: route.via, metric: None }).collect();
            assert_eq!(routes.len(), want.routes.len());
            assert!(want.routes.iter().all(|route| routes.contains(route)), "{routes:?}");
            let switches = ["accept_ra", "accept_dad", "disable_ipv6"];
            let get = || switches.iter().map(|name| sysctl::get(&format!("ipv6/conf/eth0/{name}"))).collect();
            let values: Vec<String> = run_in(&netns, get).unwrap();
            assert_eq!(values, ["0", "0", "0"]);

            configure(&netns, &want).unwrap();
            assert_eq!(seen(&netns), first);
            // The same name on another interface is not ours to change.
            let other = Inside { mac: Mac::new([2, 0, 0, 0, 1, 2]), ..want };
            assert!(configure(&netns, &other).is_err());
            assert_eq!(seen(&netns), first);
        });
    }

    #[test]
    fn without_ipv6_addresses_there_is_no_ipv6_and_without_the_link_an_error() {
        let netns = fresh();
        within_async(async || {
            let links = Links::new().unwrap();
            links.create_veth(&veth("w-1", "eth0", Some(&netns))).await.unwrap();
            let mut want = inside("eth0");
            want.addresses.truncate(1);
            want.routes.clear();
            configure(&netns, &want).unwrap();
            assert_eq!(run_in(&netns, || sysctl::get("ipv6/conf/eth0/disable_ipv6")).unwrap(), "1");
            let error = format!("{:#}", configure(&netns, &inside("eth9")).unwrap_err());
            assert!(error.starts_with("configure eth9 in network namespace "), "{error}");
            assert!(error.ends_with(": find link eth9: it is not there"), "{error}");
        });
    }
}
