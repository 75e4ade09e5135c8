//! A TCP connection that lives as long as the test lets it, and of whose death both ends give account.
//!
//! The client sends a numbered stream of bytes at a gentle pace and the server compares each byte. So a byte that is
//! lost, repeated or changed is found where it is, and an end says how it was told: by a reset, by an orderly close, or
//! not at all.

use super::Outcome;
use super::tcp::{hang_up, listen};
use crate::netns::Netns;
use crate::wait::{Deadline, holds_within, some_within};
use crate::worker::{Stop, Woken, Worker};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A server that waits for its one client.
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// An open connection. Dropping it closes both ends.
pub struct Stream {
    client: End,
    server: End,
    /// The client, then the server: an end that is dropped closes its socket.
    workers: Vec<Worker>,
}

/// How an end of a [`Stream`] died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// What it was told.
    pub cause: Cause,
    /// How long after the connection was made.
    pub after: Duration,
    /// Bytes the client had handed to its kernel, or the server had checked.
    pub bytes: u64,
}

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A reset.
    Reset,
    /// The other end has closed.
    Eof,
    /// Nothing came, neither data nor acknowledgements, for as long as the patience given.
    TimedOut,
    /// Nothing came either, and the network had said why; or the own kernel, which did not find a neighbour.
    Unreachable(Errno),
    /// A byte is not the one that was sent at this place of the stream.
    Corrupted {
        /// Where in the stream.
        at: u64,
    },
}

/// One end as its thread tells of it.
type End = Arc<Mutex<Life>>;

#[derive(Default)]
struct Life {
    bytes: u64,
    death: Option<Death>,
}

/// What the client sends at a time and how often: 100 kB a second, with a segment always under way.
const CHUNK: u64 = 1000;
const PACE: Duration = Duration::from_millis(10);

impl Stream {
    /// Opens the server's end at an address of its namespace; port 0 takes a free one.
    #[track_caller]
    pub fn listen(server: &Netns, at: SocketAddr) -> Listening {
        let listener = listen(server, at);
        let address = listener.local_addr().expect("a listener has an address");
        Listening { listener, address }
    }

    /// Bytes that have arrived as they were sent.
    pub fn received(&self) -> u64 {
        lock(&self.server).bytes
    }

    /// Whether new bytes arrive within the time given.
    pub fn flows_within(&self, within: Duration) -> bool {
        let before = self.received();
        holds_within(within, || self.received() > before)
    }

    /// How the client's end died, if it did.
    pub fn client_death(&self) -> Option<Death> {
        lock(&self.client).death
    }

    /// How the server's end died, if it did.
    pub fn server_death(&self) -> Option<Death> {
        lock(&self.server).death
    }

    /// Closes the server's end, as its application would.
    pub fn close_server(&mut self) {
        self.workers.truncate(1);
    }

    /// Waits until both ends are dead: the client's and the server's account. Panics when one lives on.
    #[track_caller]
    pub fn deaths_within(&self, within: Duration) -> (Death, Death) {
        holds_within(within, || self.client_death().is_some() && self.server_death().is_some());
        match (self.client_death(), self.server_death()) {
            (Some(client), Some(server)) => (client, server),
            alive => panic!("an end lives on after {within:?}: {alive:?}"),
        }
    }
}

impl Listening {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects the client. An end that hears nothing for `patience` counts as timed out. Panics without a connection.
    #[track_caller]
    pub fn connect_from(self, client: &Netns, patience: Duration) -> Stream {
        let to = self.address;
        self.connect_to(client, to, patience)
    }

    /// As [`Listening::connect_from`] through another address that leads to the server.
    #[track_caller]
    pub fn connect_to(self, client: &Netns, to: SocketAddr, patience: Duration) -> Stream {
        let near = client
            .run(|| TcpStream::connect_timeout(&to, patience))
            .unwrap_or_else(|error| panic!("connect to {to} from {}: {:?}", client.name(), Outcome::of(&error)));
        let from = near.local_addr().expect("a connected socket has an address");
        let accepted = some_within(patience, || self.listener.accept().ok());
        let (far, _) = accepted.unwrap_or_else(|| panic!("{to} was connected by {from}, but not to this server"));
        for socket in [&near, &far] {
            socket.set_nonblocking(true).expect("a socket can be made non-blocking");
            socket.set_nodelay(true).expect("a TCP socket sends at once if asked");
        }
        let millis = u32::try_from(patience.as_millis()).expect("patience is less than 49 days");
        setsockopt(&near, sockopt::TcpUserTimeout, &millis).expect("a TCP socket takes a user timeout");

        let born = Instant::now();
        let (client, server) = (End::default(), End::default());
        let (sends, checks) = (Arc::clone(&client), Arc::clone(&server));
        let workers = vec![
            Worker::start("stream client", move |stop| {
                bury(&sends, born, send(stop, &near, &sends));
                hang_up(&near);
            }),
            Worker::start("stream server", move |stop| {
                bury(&checks, born, check(stop, &far, &checks, patience));
                hang_up(&far);
            }),
        ];
        Stream { client, server, workers }
    }
}

/// Sends until the connection dies; none when the test stops it.
fn send(stop: &Stop, mut socket: &TcpStream, end: &End) -> Option<Cause> {
    let mut room = [0; 64];
    let mut next = Deadline::after(Duration::ZERO);
    loop {
        // The server never sends: whatever there is to read is the end.
        match stop.wait_until(next, socket, PollFlags::POLLIN) {
            Woken::Stopped => return None,
            Woken::Ready => match socket.read(&mut room) {
                Ok(0) => return Some(Cause::Eof),
                Ok(_) => return Some(Cause::Corrupted { at: 0 }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Some(Cause::of(&error)),
            },
            Woken::TimedOut => {
                let sent = lock(end).bytes;
                let chunk: Vec<u8> = (sent..sent + CHUNK).map(byte_at).collect();
                match socket.write(&chunk) {
                    Ok(written) => lock(end).bytes += written as u64,
                    // The window is closed: the kernel's timer runs, and the poll above hears it.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Some(Cause::of(&error)),
                }
                next = Deadline::after(PACE);
            }
        }
    }
}

/// Checks until the connection dies; none when the test stops it.
fn check(stop: &Stop, mut socket: &TcpStream, end: &End, patience: Duration) -> Option<Cause> {
    let mut room = vec![0; 1 << 16];
    let mut lost_hope = Deadline::after(patience);
    loop {
        match stop.wait_until(lost_hope, socket, PollFlags::POLLIN) {
            Woken::Stopped => return None,
            Woken::TimedOut => return Some(Cause::TimedOut),
            Woken::Ready => match socket.read(&mut room) {
                Ok(0) => return Some(Cause::Eof),
                Ok(length) => {
                    let mut life = lock(end);
                    for &byte in &room[..length] {
                        if byte != byte_at(life.bytes) {
                            return Some(Cause::Corrupted { at: life.bytes });
                        }
                        life.bytes += 1;
                    }
                    lost_hope = Deadline::after(patience);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Some(Cause::of(&error)),
            },
        }
    }
}

/// The stream is the numbers 0, 1, 2… of eight bytes each.
fn byte_at(place: u64) -> u8 {
    let [.., low] = (place % 8).to_be_bytes();
    (place / 8).to_be_bytes()[usize::from(low)]
}

fn bury(end: &End, born: Instant, cause: Option<Cause>) {
    let mut life = lock(end);
    life.death = cause.map(|cause| Death { cause, after: born.elapsed(), bytes: life.bytes });
}

impl Cause {
    fn of(error: &io::Error) -> Self {
        match Outcome::of(error) {
            Outcome::Refused => Self::Reset,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Unreachable(errno) => Self::Unreachable(errno),
            impossible @ (Outcome::Reached | Outcome::TooBig(_)) => panic!("{impossible:?} does not end a stream"),
        }
    }
}

fn lock(end: &End) -> MutexGuard<'_, Life> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::{Family, Underlay};

    const SOON: Duration = Duration::from_secs(5);

    fn stream_between(underlay: &Underlay, family: Family, patience: Duration) -> Stream {
        let at = SocketAddr::new(underlay.ip(1, family), 0);
        Stream::listen(underlay.host(1), at).connect_from(underlay.host(0), patience)
    }

    #[test]
    fn a_stream_flows_and_survives_a_short_cut_without_losing_a_byte() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let stream = stream_between(&underlay, family, Duration::from_secs(30));
            assert!(stream.flows_within(SOON));
            underlay.partition(&[]);
            // What was under way may still arrive.
            assert!(holds_within(SOON, || !stream.flows_within(PACE * 5)));
            underlay.heal();
            assert!(stream.flows_within(SOON));
            assert_eq!((stream.client_death(), stream.server_death()), (None, None));
        }
    }

    #[test]
    fn a_stream_that_is_cut_for_good_times_out_at_both_ends() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let stream = stream_between(&underlay, family, Duration::from_millis(500));
            assert!(stream.flows_within(SOON));
            underlay.partition(&[]);
            let (client, server) = stream.deaths_within(SOON);
            assert_eq!((client.cause, server.cause), (Cause::TimedOut, Cause::TimedOut));
            assert!(client.bytes > server.bytes && server.bytes > 0, "{client:?} {server:?}");
            underlay.heal();
        }
    }

    #[test]
    fn a_reset_is_told_as_one() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let stream = stream_between(&underlay, family, SOON);
            assert!(stream.flows_within(SOON));
            underlay.host(1).filter_input("meta l4proto tcp reject with tcp reset");
            assert!(holds_within(SOON, || stream.client_death().is_some()));
            assert_eq!(stream.client_death().unwrap().cause, Cause::Reset);
            underlay.host(1).filter_input("");
        }
    }

    #[test]
    fn a_server_that_closes_ends_the_stream() {
        let underlay = Underlay::direct();
        for family in Family::BOTH {
            let mut stream = stream_between(&underlay, family, SOON);
            assert!(stream.flows_within(SOON));
            stream.close_server();
            assert!(holds_within(SOON, || stream.client_death().is_some()));
            // Data that the server had not read turns its close into a reset.
            assert!(matches!(stream.client_death().unwrap().cause, Cause::Eof | Cause::Reset));
        }
    }

    #[test]
    fn a_foreign_byte_is_found_where_it_is() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (far, _) = server.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        let end = End::default();
        let shared = Arc::clone(&end);
        let worker = Worker::start("checks", move |stop| {
            bury(&shared, Instant::now(), check(stop, &far, &shared, SOON));
        });
        client.write_all(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9]).unwrap();
        assert!(holds_within(SOON, || lock(&end).death.is_some()));
        assert_eq!(lock(&end).death.unwrap().cause, Cause::Corrupted { at: 16 });
        drop(worker);
    }
}
