//! Two ends to measure between, and their sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use weft_tests::netns::Netns;
use weft_tests::underlay::Family;

/// Two namespaces; the second is reached by its addresses.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) client: Netns,
    pub(super) server: Netns,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

/// A connection takes microseconds here; a SYN that was lost is sent again after a second.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

impl Pair {
    /// Listens at the server. The port is free and was not used lately.
    pub(super) fn listen(&self, family: Family) -> Result<(TcpListener, SocketAddr)> {
        let listen = || {
            let listener = TcpListener::bind(self.at(family))?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        };
        self.server.run(listen).with_context(|| format!("listen in {}", self.server.name()))
    }

    /// Connects the client.
    pub(super) fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        let stream = self.client.run(|| TcpStream::connect_timeout(&to, CONNECT_WITHIN));
        stream.with_context(|| format!("connect to {to} from {}", self.client.name()))
    }

    /// Two sockets for datagrams from the client to the server.
    pub(super) fn datagrams(&self, family: Family) -> Result<(UdpSocket, UdpSocket)> {
        let server = self.server.run(|| UdpSocket::bind(self.at(family)));
        let server = server.with_context(|| format!("open a socket in {}", self.server.name()))?;
        let to = server.local_addr().context("ask for the address of a socket")?;
        let any: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connect = || {
            let client = UdpSocket::bind(any)?;
            client.connect(to)?;
            Ok::<_, io::Error>(client)
        };
        let client =
            self.client.run(connect).with_context(|| format!("open a socket to {to} in {}", self.client.name()))?;
        Ok((client, server))
    }

    fn at(&self, family: Family) -> SocketAddr {
        let address: IpAddr = match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        };
        SocketAddr::new(address, 0)
    }
}
