//! UDP: an echo server, and probes of it of a chosen size, with or without leave to fragment.

use super::Outcome;
use super::icmp_errors::{self, Fragment};
use crate::netns::Netns;
use crate::wait::Deadline;
use crate::worker::{Stop, Woken, Worker};
use nix::poll::{PollFd, PollFlags, poll};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Sends every datagram back to where it came from, until it is dropped.
pub struct UdpEcho {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    _worker: Worker,
}

/// A datagram to be sent to an echo server.
#[derive(Clone, Copy, Debug)]
pub struct UdpProbe {
    to: SocketAddr,
    payload: usize,
    fragment: Fragment,
    within: Duration,
}

impl UdpEcho {
    /// Listens at an address of the namespace; port 0 takes a free one.
    #[track_caller]
    pub fn start(namespace: &Netns, at: SocketAddr) -> Self {
        let socket = namespace
            .run(|| UdpSocket::bind(at))
            .unwrap_or_else(|error| panic!("listen at {at} in {}: {error}", namespace.name()));
        let address = socket.local_addr().expect("a bound socket has an address");
        let peers = Arc::default();
        let seen = Arc::clone(&peers);
        let worker = Worker::start("udp echo", move |stop| serve(stop, &socket, &seen));
        Self { address, peers, _worker: worker }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who has sent, one entry for each sender, as the server saw them.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends one small datagram and waits until it is back.
pub fn udp_echo(namespace: &Netns, to: SocketAddr, within: Duration) -> Outcome {
    UdpProbe::to(to).within(within).send_from(namespace)
}

impl UdpProbe {
    /// 32 bytes of payload, five seconds.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, payload: 32, fragment: Fragment::Allowed, within: Duration::from_secs(5) }
    }

    /// Sets the bytes after the UDP header, at least 8: the packet is 28 bytes longer on IPv4, 48 on IPv6.
    #[must_use]
    pub fn payload(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    /// Forbids everybody to fragment the datagram: what is too long for the path is [`Outcome::TooBig`].
    #[must_use]
    pub fn dont_fragment(self) -> Self {
        Self { fragment: Fragment::Forbidden, ..self }
    }

    /// Sets how long to wait for the echo.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Sends it from a namespace. The echo counts only with every byte of what was sent.
    #[track_caller]
    pub fn send_from(self, namespace: &Netns) -> Outcome {
        let socket = match namespace.run(|| connected(self.to)) {
            Ok(socket) => socket,
            Err(error) => return Outcome::of(&error),
        };
        icmp_errors::configure(&socket, self.to.ip(), self.fragment).expect("any UDP socket takes these options");
        match self.exchange(&socket) {
            Ok(outcome) => outcome,
            Err(error) => icmp_errors::next(&socket).map_or_else(|| Outcome::of(&error), |(outcome, _)| outcome),
        }
    }

    fn exchange(self, socket: &UdpSocket) -> io::Result<Outcome> {
        let deadline = Deadline::after(self.within);
        let question = question(self.payload);
        socket.send(&question)?;
        let mut room = vec![0; 1 << 16];
        loop {
            match socket.recv(&mut room) {
                Ok(length) if room[..length] == question => return Ok(Outcome::Reached),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // Somebody else's, or nothing yet.
                Ok(_) | Err(_) => {}
            }
            if deadline.passed() {
                return Ok(Outcome::TimedOut);
            }
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not, the socket is looked at again.
            poll(&mut fds, deadline.poll_timeout()).ok();
        }
    }
}

/// A socket of the calling thread's namespace that does not block and hears only the other end.
pub(super) fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A payload that no other probe of this process sends.
fn question(length: usize) -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    number.into_iter().chain((0..).map(|at: usize| at.to_le_bytes()[0])).take(length).collect()
}

fn serve(stop: &Stop, socket: &UdpSocket, peers: &Mutex<Vec<SocketAddr>>) {
    socket.set_nonblocking(true).expect("a UDP socket can be made non-blocking");
    let mut room = vec![0; 1 << 16];
    while stop.wait(socket, PollFlags::POLLIN) == Woken::Ready {
        // Errors are those of earlier answers, which somebody may not have wanted.
        if let Ok((length, peer)) = socket.recv_from(&mut room) {
            let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            if !peers.contains(&peer) {
                peers.push(peer);
            }
            socket.send_to(&room[..length], peer).ok();
        }
    }
    deafen(socket);
}

/// From here on the socket hears only itself, and its port is closed to everybody else. Closing is not enough: a child
/// that another thread is just forking holds a copy of the socket until it has become a program.
fn deafen(socket: &UdpSocket) {
    let mut own = socket.local_addr().expect("a bound socket has an address");
    match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    // The address may have been taken from the namespace, and nobody reaches it then.
    socket.connect(own).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::{Family, Underlay};
    use nix::errno::Errno;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(200);

    #[test]
    fn datagrams_of_every_size_come_back() {
        let underlay = Underlay::bridged(2);
        for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
            let server = UdpEcho::start(underlay.host(1), SocketAddr::new(underlay.ip(1, family), 0));
            let probe = UdpProbe::to(server.address());
            for size in [8, 1500 - headers, 1501 - headers, 60000] {
                assert_eq!(probe.payload(size).send_from(underlay.host(0)), Outcome::Reached, "{family:?} {size}");
            }
            let whole = |size| probe.payload(size - headers).dont_fragment().send_from(underlay.host(0));
            assert_eq!((whole(1500), whole(1501)), (Outcome::Reached, Outcome::TooBig(1500)), "{family:?}");
            assert!(server.peers().iter().all(|peer| peer.ip() == underlay.ip(0, family)));
        }
    }

    #[test]
    fn a_closed_port_refuses_and_a_silent_one_times_out() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let at = SocketAddr::new(underlay.ip(1, family), 0);
            let server = UdpEcho::start(underlay.host(1), at);
            let closed = server.address();
            drop(server);
            assert_eq!(udp_echo(underlay.host(0), closed, SOON), Outcome::Refused);
            let silent = underlay.host(1).run(|| UdpSocket::bind(at).unwrap());
            assert_eq!(udp_echo(underlay.host(0), silent.local_addr().unwrap(), NEVER), Outcome::TimedOut);
        }
    }

    #[test]
    fn without_a_route_there_is_no_way() {
        let alone = Netns::new("alone");
        for to in ["198.51.100.1:1", "[2001:db8::1]:1"] {
            assert_eq!(udp_echo(&alone, to.parse().unwrap(), NEVER), Outcome::Unreachable(Errno::ENETUNREACH));
        }
    }
}
