//! Hints that interfaces, addresses or routes of the namespace have changed.
//!
//! A hint is coarse and may be about nothing; one that is lost is made up for by whoever looks at everything from
//! time to time.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use futures::{FutureExt as _, StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{RouteNetlinkMessage, route::RouteType};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::task::AbortHandle;

use super::link::Link;

/// What may be different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Interfaces, by number, as they are now. None: it is gone.
    pub links: BTreeMap<u32, Option<Link>>,
    /// Where packets go: addresses and routes. Or everything, when the kernel could not tell all.
    pub ways: bool,
}

/// Listens for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: AbortHandle,
}

impl Watch {
    /// Listens in the namespace of the calling thread, which has to be inside a tokio runtime.
    pub fn new() -> Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])
        .context("listen to rtnetlink")?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { messages, connection })
    }

    /// Waits for a change, and takes what else is there already. None: there will be no more.
    pub async fn changed(&mut self) -> Option<Changed> {
        let mut changed = Changed::default();
        while changed == Changed::default() {
            let (message, _) = self.messages.next().await?;
            changed.learn(message);
        }
        while let Some(Some((message, _))) = self.messages.next().now_or_never() {
            changed.learn(message);
        }
        Some(changed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Changed {
    /// Takes in what came after it.
    pub fn extend(&mut self, later: Self) {
        let Self { links, ways } = later;
        self.links.extend(links);
        self.ways |= ways;
    }

    fn learn(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as M;
        #[expect(clippy::wildcard_enum_match_arm, reason = "we listen to a few groups only")]
        match message.payload {
            NetlinkPayload::InnerMessage(M::NewLink(link)) => {
                let link = Link::of(link);
                self.links.insert(link.index, Some(link));
            }
            NetlinkPayload::InnerMessage(M::DelLink(link)) => {
                self.links.insert(link.header.index, None);
            }
            NetlinkPayload::InnerMessage(M::NewRoute(route) | M::DelRoute(route)) => {
                // These come and go with links and addresses, and lead nowhere.
                let own = [RouteType::Local, RouteType::Multicast, RouteType::Broadcast, RouteType::Anycast];
                self.ways |= !own.contains(&route.header.kind);
            }
            NetlinkPayload::InnerMessage(M::NewAddress(_) | M::DelAddress(_)) | NetlinkPayload::Overrun(_) => {
                self.ways = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        link::{Links, Setting, tests::veth},
        netns::tests::within_async,
        route::Address,
    };
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn changes_are_told_and_silence_is_not() {
        within_async(async || {
            let links = Links::new().unwrap();
            let mut watch = Watch::new().unwrap();
            assert!(timeout(Duration::from_millis(50), watch.changed()).await.is_err());
            let link = links.create_veth(&veth("a", "b", None)).await.unwrap();
            assert!(told(&mut watch, |changed| changed.links.get(&link).is_some_and(Option::is_some)).await);
            let net = "10.0.0.1/24".parse().unwrap();
            links.add_address(Address { link, net }).await.unwrap();
            assert!(told(&mut watch, |changed| changed.ways).await);
            links.set(link, &[Setting::Up]).await.unwrap();
            assert!(told(&mut watch, |changed| changed.ways).await);
            links.delete(link).await.unwrap();
            assert!(told(&mut watch, |changed| changed.links.get(&link) == Some(&None)).await);
        });
    }

    async fn told(watch: &mut Watch, what: impl Fn(&Changed) -> bool) -> bool {
        let wait = async { while !what(&watch.changed().await.unwrap()) {} };
        timeout(Duration::from_secs(5), wait).await.is_ok()
    }
}
