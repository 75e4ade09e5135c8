//! ICMP echo, of a chosen size, with or without leave to fragment.

use super::Outcome;
use super::icmp_errors::{self, Fragment};
use crate::netns::Netns;
use crate::wait::Deadline;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv, send, socket,
};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// An echo request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    to: IpAddr,
    payload: usize,
    fragment: Fragment,
    within: Duration,
}

/// Sends one echo request of ordinary size and waits for its reply.
pub fn ping(namespace: &Netns, to: IpAddr, within: Duration) -> Outcome {
    Ping::to(to).within(within).send_from(namespace)
}

impl Ping {
    /// 56 bytes of payload, five seconds.
    pub fn to(to: IpAddr) -> Self {
        Self { to, payload: 56, fragment: Fragment::Allowed, within: Duration::from_secs(5) }
    }

    /// Sets the bytes after the ICMP header: the packet is 28 bytes longer on IPv4, 48 on IPv6.
    #[must_use]
    pub fn payload(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    /// Forbids everybody to fragment the request: what is too long for the path is [`Outcome::TooBig`].
    #[must_use]
    pub fn dont_fragment(self) -> Self {
        Self { fragment: Fragment::Forbidden, ..self }
    }

    /// Sets how long to wait for the reply.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Sends it from a namespace. A reply counts only with the number, and every byte, of the request.
    #[track_caller]
    pub fn send_from(self, namespace: &Netns) -> Outcome {
        let echo = IcmpEchoHeader { id: fresh_identifier(), seq: 1 };
        let payload: Vec<u8> = (0..self.payload).map(|at| at.to_le_bytes()[0]).collect();
        let (request, reply) = match self.to {
            IpAddr::V4(_) => (v4(Icmpv4Type::EchoRequest(echo), &payload), v4(Icmpv4Type::EchoReply(echo), &payload)),
            IpAddr::V6(_) => (v6(Icmpv6Type::EchoRequest(echo), &payload), v6(Icmpv6Type::EchoReply(echo), &payload)),
        };
        let socket = namespace.run(|| self.socket()).map_err(|error| Outcome::of(&error.into()));
        match socket {
            Ok(socket) => self.exchange(&socket, &request, &reply),
            Err(outcome) => outcome,
        }
    }

    /// A raw socket that hears only the other end.
    fn socket(&self) -> Result<OwnedFd, Errno> {
        let (family, protocol) = match self.to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
        icmp_errors::configure(&socket, self.to, self.fragment)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(self.to, 0)))?;
        Ok(socket)
    }

    fn exchange(self, socket: &OwnedFd, request: &[u8], reply: &[u8]) -> Outcome {
        let deadline = Deadline::after(self.within);
        match send(socket.as_raw_fd(), request, MsgFlags::empty()) {
            // What is too long is told by the queue, with the MTU.
            Ok(_) | Err(Errno::EMSGSIZE) => {}
            Err(error) => return Outcome::of(&error.into()),
        }
        let mut room = vec![0; 1 << 16];
        loop {
            while let Some((outcome, quoted)) = icmp_errors::next(socket) {
                // An error that quotes nothing is about what this socket has just tried to send.
                if quoted.is_empty() || same_echo(&quoted, request) {
                    return outcome;
                }
            }
            match recv(socket.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Ok(length) if self.icmp(&room[..length]) == reply => return Outcome::Reached,
                // Somebody else's, nothing yet, or an error that the queue tells better.
                Ok(_) | Err(_) => {}
            }
            if deadline.passed() {
                return Outcome::TimedOut;
            }
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not, the socket is looked at again.
            poll(&mut fds, deadline.poll_timeout()).ok();
        }
    }

    /// The ICMP message in what a raw socket received, as [`v4`] and [`v6`] make it.
    fn icmp(self, received: &[u8]) -> Vec<u8> {
        let (header, checksum) = match self.to {
            // The header comes along; nobody has looked at the checksum.
            IpAddr::V4(_) => (received.first().map_or(0, |first| usize::from(first & 0x0f) * 4), 0..0),
            // The kernel has checked the checksum, which covers an address that is not known here.
            IpAddr::V6(_) => (0, 2..4),
        };
        let mut message = received.get(header..).unwrap_or_default().to_vec();
        message.get_mut(checksum).unwrap_or_default().fill(0);
        message
    }
}

/// Whether two messages have type, identifier and sequence number in common.
fn same_echo(one: &[u8], other: &[u8]) -> bool {
    one.len() >= 8 && one[..2] == other[..2] && one[4..8] == other[4..8]
}

/// Tells the pings of this process from each other, and most likely from those of other processes.
fn fresh_identifier() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let [low, high, ..] = process::id().to_le_bytes();
    u16::from_le_bytes([high, low]).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))
}

fn v4(kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    [&Icmpv4Header::with_checksum(kind, payload).to_bytes()[..], payload].concat()
}

/// Without a checksum: the kernel fills it in.
fn v6(kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
    [&Icmpv6Header::new(kind).to_bytes()[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use crate::underlay::{Family, UPLINK, Underlay};
    use crate::wait::eventually;

    const NEVER: Duration = Duration::from_millis(200);

    #[test]
    fn every_size_arrives_in_fragments_or_is_too_big_to_go_whole() {
        let underlay = Underlay::bridged(2);
        for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
            let to = Ping::to(underlay.ip(1, family));
            for size in [0, 1, 1500 - headers, 1501 - headers, 9000] {
                assert_eq!(to.payload(size).send_from(underlay.host(0)), Outcome::Reached, "{family:?} {size}");
            }
            let whole = |size| to.payload(size - headers).dont_fragment().send_from(underlay.host(0));
            assert_eq!((whole(1500), whole(1501)), (Outcome::Reached, Outcome::TooBig(1500)), "{family:?}");
        }
    }

    #[test]
    fn a_router_says_which_mtu_is_next() {
        let (near, router, far) = (Netns::new("near"), Netns::new("router"), Netns::new("far"));
        for (end, name, mtu, net) in [(&near, "near", 1500, 1), (&far, "far", 1300, 2)] {
            let end_name = end.name();
            router.ip_batch(&format!(
                "link add {name} mtu {mtu} type veth peer name {UPLINK} mtu {mtu} netns {end_name}
                 addr add 10.0.{net}.1/24 dev {name}\naddr add fd00:{net}::1/64 dev {name} nodad\nlink set {name} up"
            ));
            end.ip_batch(&format!(
                "addr add 10.0.{net}.2/24 dev {UPLINK}\naddr add fd00:{net}::2/64 dev {UPLINK} nodad
                 link set {UPLINK} up\nroute add default via 10.0.{net}.1\nroute add default via fd00:{net}::1"
            ));
        }
        router.set_sysctl("ipv4/ip_forward", "1");
        router.set_sysctl("ipv6/conf/all/forwarding", "1");
        for (to, headers) in [("10.0.2.2", 28), ("fd00:2::2", 48)] {
            let to = Ping::to(to.parse().unwrap());
            // These links take their time to come up.
            eventually(Duration::from_secs(20), || to.send_from(&near) == Outcome::Reached);
            let whole = |size: usize| to.payload(size - headers).dont_fragment().send_from(&near);
            assert_eq!([1300, 1301, 1301].map(whole), [Outcome::Reached, Outcome::TooBig(1300), Outcome::TooBig(1300)]);
        }
    }

    #[test]
    fn a_dropped_request_times_out_and_a_rejected_one_does_not() {
        let underlay = Underlay::bridged(2);
        let filter = |verdict: &str| {
            let rules = format!("icmp type echo-request {verdict}\nicmpv6 type echo-request {verdict}");
            underlay.host(1).filter_input(&rules);
        };
        for family in Family::BOTH {
            filter("drop");
            let from = underlay.host(0);
            assert_eq!(ping(from, underlay.ip(1, family), NEVER), Outcome::TimedOut, "{family:?}");
            filter("reject with icmpx type port-unreachable");
            assert_eq!(ping(from, underlay.ip(1, family), Duration::from_secs(5)), Outcome::Refused, "{family:?}");
        }
    }

    #[test]
    fn without_a_route_there_is_no_way() {
        let alone = Netns::new("alone");
        for to in ["198.51.100.1", "2001:db8::1"] {
            assert_eq!(ping(&alone, to.parse().unwrap(), NEVER), Outcome::Unreachable(Errno::ENETUNREACH));
        }
    }
}
