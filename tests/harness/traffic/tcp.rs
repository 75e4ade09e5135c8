//! TCP: an echo server, and probes of its port.

use super::Outcome;
use crate::netns::Netns;
use crate::worker::{Stop, Woken, Worker};
use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Accepts connections and sends back what comes, until it is dropped.
pub struct TcpEcho {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    _worker: Worker,
}

impl TcpEcho {
    /// Listens at an address of the namespace; port 0 takes a free one.
    #[track_caller]
    pub fn start(namespace: &Netns, at: SocketAddr) -> Self {
        let listener = listen(namespace, at);
        let address = listener.local_addr().expect("a listener has an address");
        let peers = Arc::default();
        let seen = Arc::clone(&peers);
        let worker = Worker::start("tcp echo", move |stop| serve(stop, &listener, &seen));
        Self { address, peers, _worker: worker }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who has connected, in order, as the server saw them.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes a connection and closes it.
pub fn tcp_connect(namespace: &Netns, to: SocketAddr, within: Duration) -> Outcome {
    match namespace.run(|| TcpStream::connect_timeout(&to, within)) {
        Ok(_) => Outcome::Reached,
        Err(error) => Outcome::of(&error),
    }
}

/// Makes a connection, sends some bytes and reads them back.
pub fn tcp_echo(namespace: &Netns, to: SocketAddr, within: Duration) -> Outcome {
    const QUESTION: &[u8] = b"the same bytes come back";
    let echo = || -> io::Result<[u8; QUESTION.len()]> {
        let mut stream = TcpStream::connect_timeout(&to, within)?;
        stream.set_read_timeout(Some(within))?;
        stream.write_all(QUESTION)?;
        let mut answer = [0; QUESTION.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    match namespace.run(echo) {
        Ok(answer) => {
            assert_eq!(answer, QUESTION, "{to} sent back something else");
            Outcome::Reached
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Outcome::Refused,
        Err(error) => Outcome::of(&error),
    }
}

/// Makes a connection to a [`TcpEcho`], sends `bytes` as fast as they are taken, and compares all that comes back, at
/// the same time. Panics where a byte is another.
pub fn tcp_carry(namespace: &Netns, to: SocketAddr, bytes: &[u8], within: Duration) -> Outcome {
    let carry = || -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&to, within)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let sent = (&stream).write_all(bytes);
                stream.shutdown(std::net::Shutdown::Write).and(sent)
            });
            let (mut room, mut at) = (vec![0; 1 << 16], 0);
            while at < bytes.len() {
                let length = (&stream).read(&mut room)?;
                if length == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let sent = bytes.get(at..at + length).unwrap_or_default();
                assert!(room[..length] == *sent, "{to} sent back something else in bytes {at} to {}", at + length);
                at += length;
            }
            sender.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    };
    match namespace.run(carry) {
        Ok(()) => Outcome::Reached,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Outcome::Refused,
        Err(error) => Outcome::of(&error),
    }
}

/// A listener that does not block, opened inside the namespace.
#[track_caller]
pub(super) fn listen(namespace: &Netns, at: SocketAddr) -> TcpListener {
    let listener = namespace
        .run(|| TcpListener::bind(at))
        .unwrap_or_else(|error| panic!("listen at {at} in {}: {error}", namespace.name()));
    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
    listener
}

/// Ends a connection, or the listening for connections, at once. Closing is not enough: a child that another thread is
/// just forking holds a copy of the socket until it has become a program.
pub(super) fn hang_up(socket: &impl AsRawFd) {
    // It may have ended by itself.
    shutdown(socket.as_raw_fd(), Shutdown::Both).ok();
}

fn serve(stop: &Stop, listener: &TcpListener, peers: &Mutex<Vec<SocketAddr>>) {
    thread::scope(|scope| {
        while stop.wait(listener, PollFlags::POLLIN) == Woken::Ready {
            // A client that has given up meanwhile is nobody's error.
            if let Ok((mut stream, peer)) = listener.accept() {
                peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
                scope.spawn(move || {
                    echo(stop, &mut stream);
                    hang_up(&stream);
                });
            }
        }
        hang_up(listener);
    });
}

/// Until the client closes, the connection dies or the server stops.
fn echo(stop: &Stop, stream: &mut TcpStream) -> Option<()> {
    let mut room = vec![0; 1 << 16];
    stream.set_nonblocking(true).ok()?;
    while stop.wait(&*stream, PollFlags::POLLIN) == Woken::Ready {
        let length = stream.read(&mut room).ok().filter(|&length| length > 0)?;
        let mut left = &room[..length];
        while !left.is_empty() {
            match stream.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    (stop.wait(&*stream, PollFlags::POLLOUT) == Woken::Ready).then_some(())?;
                }
                Err(_) => return None,
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::{Family, Underlay};
    use nix::errno::Errno;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(200);

    #[test]
    fn an_open_port_connects_and_echoes_and_the_server_knows_who_it_was() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let server = TcpEcho::start(underlay.host(1), SocketAddr::new(underlay.ip(1, family), 0));
            let from = underlay.host(0);
            assert_eq!(tcp_connect(from, server.address(), SOON), Outcome::Reached);
            assert_eq!(tcp_echo(from, server.address(), SOON), Outcome::Reached);
            let many: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
            assert_eq!(tcp_carry(from, server.address(), &many, SOON), Outcome::Reached);
            let peers: Vec<_> = server.peers().iter().map(SocketAddr::ip).collect();
            assert_eq!(peers, [underlay.ip(0, family); 3]);
        }
    }

    #[test]
    fn a_closed_port_refuses_also_after_the_server_has_stopped() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let server = TcpEcho::start(underlay.host(1), SocketAddr::new(underlay.ip(1, family), 0));
            let at = server.address();
            drop(server);
            assert_eq!(tcp_connect(underlay.host(0), at, SOON), Outcome::Refused);
            assert_eq!(tcp_echo(underlay.host(0), at, SOON), Outcome::Refused);
        }
    }

    #[test]
    fn a_filtered_port_times_out_a_prohibited_one_is_unreachable_and_so_is_one_without_a_route() {
        let underlay = Underlay::bridged(2);
        underlay.host(1).filter_input(
            "tcp dport 1 drop
             tcp dport 2 meta nfproto ipv4 reject with icmp type admin-prohibited
             tcp dport 2 meta nfproto ipv6 reject with icmpv6 type admin-prohibited",
        );
        for (family, prohibited) in [(Family::V4, Errno::EHOSTUNREACH), (Family::V6, Errno::EACCES)] {
            let connect =
                |port, within| tcp_connect(underlay.host(0), SocketAddr::new(underlay.ip(1, family), port), within);
            assert_eq!(connect(1, NEVER), Outcome::TimedOut);
            // An ICMPv6 error that comes while `connect` still holds the socket is not heard; that to the second SYN is.
            assert_eq!(connect(2, SOON), Outcome::Unreachable(prohibited));
        }
        for elsewhere in ["198.51.100.1:1", "[2001:db9::1]:1"] {
            let outcome = tcp_connect(underlay.host(0), elsewhere.parse().unwrap(), SOON);
            assert_eq!(outcome, Outcome::Unreachable(Errno::ENETUNREACH));
        }
    }
}
