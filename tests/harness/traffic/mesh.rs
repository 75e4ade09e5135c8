//! Numbered datagrams from everybody to everybody, all the time, and an account of each: when it was sent, and when it
//! came, if it came.
//!
//! Nobody answers, and nobody sends from a port at which others listen: no datagram looks like the answer to another,
//! so each way between two stations is asked for itself.

use crate::netns::Netns;
use crate::underlay::Family;
use crate::wait::Deadline;
use crate::worker::{Stop, Woken, Worker};
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sends until it is dropped.
pub struct Mesh {
    book: Arc<Book>,
    stations: Vec<Station>,
    /// Dropped first: they write into the book.
    _workers: Vec<Worker>,
}

/// Who takes part. Its addresses may come and go.
#[derive(Clone, Debug)]
pub struct Station {
    /// Where its sockets are.
    pub netns: Netns,
    /// Its addresses.
    pub v4: IpAddr,
    /// Its addresses.
    pub v6: IpAddr,
    /// Other addresses that it may send from, as whoever has an address in each network.
    pub also: Vec<IpAddr>,
}

/// One way: stations are told by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// To which of its addresses.
    pub family: Family,
    /// At which port.
    pub port: u16,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its number on its way.
    pub number: u64,
    /// Just before it was handed to the kernel.
    pub sent: Instant,
    /// When the kernel had taken it.
    pub taken: Instant,
    /// Why the kernel did not take it, if it did not.
    pub refused: Option<i32>,
    /// When the receiver had it, if it had.
    pub got: Option<Instant>,
    /// How often.
    pub times: u32,
}

/// Where the number of a station becomes the port that it sends from.
const SENDS_FROM: u16 = 40_000;
/// Room for seconds of datagrams: a receiver that has to wait for the processor loses none.
const ROOM: usize = 8 << 20;

struct Book {
    ways: Vec<Way>,
    /// One for each way.
    rows: Vec<Mutex<Row>>,
    rounds: Vec<AtomicU64>,
    /// Datagrams that were not what they had to be, where they were.
    strange: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Row {
    /// The number of the first that is kept.
    first: u64,
    kept: VecDeque<Kept>,
}

#[derive(Clone, Copy)]
struct Kept {
    sent: Instant,
    taken: Option<Instant>,
    refused: Option<i32>,
    got: Option<Instant>,
    times: u32,
}

impl Mesh {
    /// Starts to send from each station to these ports of each other one, once in `every`.
    #[track_caller]
    pub fn start(stations: Vec<Station>, ports: &[u16], every: Duration) -> Self {
        let count = stations.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let ways: Vec<Way> = pairs
            .flat_map(|(from, to)| Family::BOTH.map(|family| (from, to, family)))
            .flat_map(|(from, to, family)| ports.iter().map(move |&port| Way { from, to, family, port }))
            .collect();
        let book = Arc::new(Book {
            rows: ways.iter().map(|_| Mutex::default()).collect(),
            rounds: stations.iter().map(|_| AtomicU64::default()).collect(),
            strange: Mutex::default(),
            ways,
        });
        let mut workers = Vec::new();
        for (at, station) in stations.iter().enumerate() {
            for &port in ports {
                let (socket, book) = (open(station, port), Arc::clone(&book));
                let all = |other: &Station| [&other.also[..], &[other.v4, other.v6]].concat();
                let senders: Vec<_> = stations.iter().map(all).collect();
                workers.push(Worker::start("mesh receiver", move |stop| {
                    receive(stop, &socket, (at, port), (&book, &senders));
                }));
            }
        }
        for (at, station) in stations.iter().enumerate() {
            let socket = open(station, SENDS_FROM + u16::try_from(at).expect("few stations"));
            let is_own = |(place, way): (usize, &Way)| {
                let to = &stations[way.to];
                let addr = if way.family == Family::V4 { to.v4 } else { to.v6 };
                (way.from == at).then(|| (place, SocketAddr::new(mapped(addr).into(), way.port)))
            };
            let own: Vec<_> = book.ways.iter().enumerate().filter_map(is_own).collect();
            let book = Arc::clone(&book);
            workers.push(Worker::start("mesh sender", move |stop| send(stop, &socket, (at, &own, every), &book)));
        }
        Self { book, stations, _workers: workers }
    }

    /// All ways, in the order that [`Self::take`] numbers them.
    pub fn ways(&self) -> &[Way] {
        &self.book.ways
    }

    /// How often the slowest station has sent to everybody.
    pub fn rounds(&self) -> u64 {
        self.book.rounds.iter().map(|rounds| rounds.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// Takes those that the kernel had before `before` out of the book, and gives each with the place of its way. What
    /// comes of them later is told by [`Self::strange`].
    pub fn take(&self, before: Instant) -> Vec<(usize, Probe)> {
        let mut all = Vec::new();
        for (place, row) in self.book.rows.iter().enumerate() {
            let mut row = lock(row);
            while let Some(&Kept { sent, taken: Some(taken), refused, got, times }) = row.kept.front()
                && taken < before
            {
                all.push((place, Probe { number: row.first, sent, taken, refused, got, times }));
                row.kept.pop_front();
                row.first += 1;
            }
        }
        all
    }

    /// What came and had not to be there at all, or came when nobody waited for it any more.
    pub fn strange(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.book.strange))
    }

    /// Datagrams that came and were lost, so far, because a receiver had no room.
    pub fn overflowed(&self) -> u64 {
        let of = |station: &Station| {
            let table =
                station.netns.run(|| fs::read_to_string("/proc/thread-self/net/udp6")).expect("read of sockets");
            let drops = |line: &str| line.split_whitespace().last().and_then(|last| last.parse::<u64>().ok());
            table.lines().skip(1).filter_map(drops).sum::<u64>()
        };
        self.stations.iter().map(of).sum()
    }
}

/// Packets that this machine's kernel has lost, so far, because a processor was behind: of everybody's.
pub fn lost_for_want_of_time() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").expect("read of processors");
    let dropped = |line: &str| line.split_whitespace().nth(1).and_then(|field| u64::from_str_radix(field, 16).ok());
    table.lines().map(|line| dropped(line).unwrap_or_else(|| panic!("{line} has no drops"))).sum()
}

/// A socket at both families' addresses, whatever they are.
fn open(station: &Station, port: u16) -> UdpSocket {
    let socket = station
        .netns
        .run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
        .unwrap_or_else(|error| panic!("open port {port} in {}: {error}", station.netns.name()));
    socket.set_nonblocking(true).expect("a UDP socket can be made non-blocking");
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM).expect("root may have large buffers");
    // What waits for one neighbour to be found keeps nobody else waiting.
    setsockopt(&socket, sockopt::SndBufForce, &ROOM).expect("root may have large buffers");
    socket
}

fn send(stop: &Stop, socket: &UdpSocket, (at, to, every): (usize, &[(usize, SocketAddr)], Duration), book: &Book) {
    let mut due = Deadline::after(Duration::ZERO);
    loop {
        if stop.wait_until(due, socket, PollFlags::empty()) == Woken::Stopped {
            return;
        }
        due = Deadline::after(every);
        for &(place, addr) in to {
            let number = {
                let mut row = lock(&book.rows[place]);
                row.kept.push_back(Kept { sent: Instant::now(), taken: None, refused: None, got: None, times: 0 });
                row.first + row.kept.len() as u64 - 1
            };
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(place as u64).to_be_bytes());
            bytes[8..].copy_from_slice(&number.to_be_bytes());
            // What cannot be sent does not come. A station without addresses has no way.
            let refused = socket.send_to(&bytes, addr).err();
            if let Some(kept) = lock(&book.rows[place]).kept.back_mut() {
                kept.taken = Some(Instant::now());
                kept.refused = refused.and_then(|error| error.raw_os_error());
            }
        }
        book.rounds[at].fetch_add(1, Ordering::Release);
    }
}

fn receive(stop: &Stop, socket: &UdpSocket, (at, port): (usize, u16), (book, senders): (&Book, &[Vec<IpAddr>])) {
    let mut room = [0; 64];
    while stop.wait(socket, PollFlags::POLLIN) == Woken::Ready {
        // Errors are those of what others said of earlier datagrams.
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            if let Err(why) = book.enter(&room[..length], from, (at, port), senders) {
                lock(&book.strange).push(why);
            }
        }
    }
}

impl Book {
    fn enter(
        &self,
        bytes: &[u8],
        from: SocketAddr,
        (at, port): (usize, u16),
        senders: &[Vec<IpAddr>],
    ) -> Result<(), String> {
        let now = Instant::now();
        let foreign = || format!("station {at} got {bytes:?} from {from} at port {port}");
        let (place, number) = bytes.split_first_chunk::<8>().ok_or_else(foreign)?;
        let number = u64::from_be_bytes(number.try_into().map_err(|_| foreign())?);
        let place = usize::try_from(u64::from_be_bytes(*place)).map_err(|_| foreign())?;
        let way = self.ways.get(place).ok_or_else(foreign)?;
        let from = from.ip().to_canonical();
        let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
        if *way != (Way { to: at, port, family, ..*way }) || !senders[way.from].contains(&from) {
            return Err(format!("station {at} got what was sent on {way:?}, from {from} at port {port}"));
        }
        let mut row = lock(&self.rows[place]);
        let kept = number.checked_sub(row.first).and_then(|place| usize::try_from(place).ok());
        let kept = kept.and_then(|place| row.kept.get_mut(place));
        let kept = kept.ok_or_else(|| format!("number {number} on {way:?} came when nobody waited for it"))?;
        kept.got.get_or_insert(now);
        kept.times += 1;
        Ok(())
    }
}

/// As a socket of IPv6 has it.
fn mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => Ipv4Addr::to_ipv6_mapped(&addr),
        IpAddr::V6(addr) => addr,
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::Underlay;
    use crate::wait::eventually;

    const PACE: Duration = Duration::from_millis(5);
    const SOON: Duration = Duration::from_secs(10);

    fn stations(underlay: &Underlay) -> Vec<Station> {
        let station = |at| Station {
            netns: underlay.host(at).clone(),
            v4: underlay.ip(at, Family::V4),
            v6: underlay.ip(at, Family::V6),
            also: Vec::new(),
        };
        (0..3).map(station).collect()
    }

    /// Waits until everybody has sent `count` times more, and their datagrams had the time to come.
    fn taken(mesh: &Mesh, count: u64) -> Vec<(usize, Probe)> {
        let (began, end) = (Instant::now(), mesh.rounds() + count);
        eventually(SOON, || mesh.rounds() > end);
        let before = Instant::now();
        eventually(SOON, || before.elapsed() > Duration::from_millis(200));
        mesh.take(before).into_iter().filter(|(_, probe)| probe.sent > began).collect()
    }

    #[test]
    fn every_datagram_of_a_whole_network_comes_once_and_what_is_filtered_does_not() {
        let underlay = Underlay::bridged(3);
        let mesh = Mesh::start(stations(&underlay), &[7000, 7001], PACE);
        assert_eq!(mesh.ways().len(), 3 * 2 * 2 * 2);
        let all = taken(&mesh, 10);
        assert!((0..mesh.ways().len()).all(|place| all.iter().filter(|(of, _)| *of == place).count() >= 10));
        assert!(all.iter().all(|(_, probe)| probe.times == 1 && probe.got >= Some(probe.sent)), "{all:?}");

        underlay.host(1).filter_input("udp dport 7001 drop");
        for (place, probe) in taken(&mesh, 10) {
            let Way { to, port, .. } = mesh.ways()[place];
            assert_eq!(probe.got.is_none(), (to, port) == (1, 7001), "{:?}", mesh.ways()[place]);
        }
        assert_eq!((mesh.strange(), mesh.overflowed()), (Vec::new(), 0));
        lost_for_want_of_time();
    }

    #[test]
    fn what_is_none_of_the_datagrams_and_what_comes_late_is_told() {
        let underlay = Underlay::bridged(3);
        let mesh = Mesh::start(stations(&underlay), &[7000], PACE);
        let to = SocketAddr::new(underlay.ip(1, Family::V4), 7000);
        let from = underlay.host(2).run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        for (bytes, told) in [(&b"other"[..], "got [111, "), (&[0; 16], "got what was sent on")] {
            from.send_to(bytes, to).unwrap();
            let mut seen = Vec::new();
            eventually(SOON, || {
                seen.extend(mesh.strange());
                seen.iter().any(|line| line.contains(told))
            });
        }
        taken(&mesh, 2);
        let late = mesh.ways().iter().position(|way| (way.from, way.to, way.family) == (2, 1, Family::V4)).unwrap();
        let first = [&(late as u64).to_be_bytes()[..], &[0; 8]].concat();
        from.send_to(&first, to).unwrap();
        eventually(SOON, || mesh.strange().iter().any(|line| line.contains("nobody waited")));
    }
}
