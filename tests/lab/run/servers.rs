//! The servers of the example: a small web server, and a store of keys and values. Each answers real requests on both
//! families, from threads of the lab with sockets of the container.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_tests::netns::Netns;

/// Where web servers listen.
pub(super) const WEB_PORT: u16 = 80;
/// Where stores listen.
pub(super) const STORE_PORT: u16 = 5432;

/// A server, until it is dropped.
pub(super) struct Server {
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

/// What a web server knows.
pub(super) struct Site {
    /// Which server it is, for its visitors to see.
    pub(super) name: String,
    /// Where it counts visits.
    pub(super) store: SocketAddr,
    /// The container it runs in: its questions to the store come from there.
    pub(super) namespace: Netns,
}

/// How connections to `/clock` have ended, in the order in which they did.
pub(super) type Ends = Arc<Mutex<Vec<End>>>;

/// The end of a connection as one side heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) peer: SocketAddr,
    pub(super) cause: Cause,
    pub(super) at: Instant,
}

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Reset,
    Closed,
    Other(ErrorKind),
}

/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// From one tick of the clock to the next, in milliseconds.
const TICK: u8 = 50;

/// Serves `/`, a greeting; `/visits`, counted in the store; `/clock`, which ticks until the connection ends.
pub(super) fn web(site: Site) -> Result<(Server, Ends)> {
    let ends = Ends::default();
    let (site, told) = (Arc::new(site), Arc::clone(&ends));
    let namespace = site.namespace.clone();
    let server = Server::start(&namespace, WEB_PORT, move |stream| visit(&site, &told, stream))?;
    Ok((server, ends))
}

/// Answers `PING`, and `COUNT key` with a number that grows.
pub(super) fn store(namespace: &Netns) -> Result<Server> {
    let counts: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    Server::start(namespace, STORE_PORT, move |stream| answer(&counts, stream))
}

impl Cause {
    /// What a read says: no bytes are an orderly end.
    pub(super) fn of(read: &io::Result<usize>) -> Option<Self> {
        match read {
            Ok(0) => Some(Self::Closed),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(Self::Reset),
            Err(error) => Some(Self::Other(error.kind())),
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Closed => f.write_str("closed"),
            Self::Other(ErrorKind::WouldBlock | ErrorKind::TimedOut) => f.write_str("still waiting"),
            Self::Other(kind) => write!(f, "{kind}"),
        }
    }
}

impl Server {
    fn start(
        namespace: &Netns,
        port: u16,
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Result<Self> {
        // Both families: an IPv6 socket takes IPv4 too.
        let at = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let listener = namespace.run(|| TcpListener::bind(at));
        let listener = listener.with_context(|| format!("listen at port {port} in {}", namespace.name()))?;
        let own = listener.try_clone().context("duplicate a listener")?;
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = own.accept() {
                let serve = serve.clone();
                // A visitor that breaks off is no business of the others.
                thread::spawn(move || serve(stream).ok());
            }
        });
        Ok(Self { listener, accepting: Some(accepting) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread that accepts; it may have ended by itself.
        nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

fn visit(site: &Site, ends: &Ends, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut lines = BufReader::new(stream.try_clone()?);
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let Site { name, store, namespace } = site;
    match request.split_whitespace().nth(1) {
        Some("/") => page(&mut stream, "200 OK", &format!("hello from {name}\n")),
        Some("/visits") => match namespace.run(|| ask(*store, "COUNT visits")) {
            Ok(number) => page(&mut stream, "200 OK", &format!("visit {number} to {name}\n")),
            Err(error) => page(&mut stream, "502 Bad Gateway", &format!("the store does not answer: {error}\n")),
        },
        Some("/clock") => clock(ends, &mut stream),
        _ => page(&mut stream, "404 Not Found", "there are /, /visits and /clock\n"),
    }
}

fn page(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let length = text.len();
    write!(stream, "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}")?;
    stream.shutdown(Shutdown::Write)
}

fn clock(ends: &Ends, stream: &mut TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")?;
    for tick in 1.. {
        // The visitor says nothing more: what there is to read is the end.
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let cause = match poll(&mut fds, PollTimeout::from(TICK))? {
            0 => writeln!(stream, "tick {tick}").err().map(|error| Cause::of(&Err(error))),
            _ => Some(Cause::of(&stream.read(&mut [0; 64]))),
        };
        if let Some(Some(cause)) = cause {
            lock(ends).push(End { peer, cause, at: Instant::now() });
            break;
        }
    }
    Ok(())
}

fn answer(counts: &Mutex<BTreeMap<String, u64>>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let questions = BufReader::new(stream.try_clone()?).lines();
    for question in questions {
        let question = question?;
        match question.trim().split_once(' ') {
            None if question.trim() == "PING" => writeln!(stream, "PONG")?,
            Some(("COUNT", key)) => {
                let mut counts = lock(counts);
                let count = counts.entry(key.to_owned()).or_default();
                *count += 1;
                writeln!(stream, "{count}")?;
            }
            _ => writeln!(stream, "there are PING and COUNT key")?,
        }
    }
    Ok(())
}

/// Asks a store, from the namespace of the calling thread.
pub(super) fn ask(store: SocketAddr, question: &str) -> io::Result<String> {
    let mut stream = connect(store)?;
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// Gets a page, from the namespace of the calling thread: its text, without the headers.
pub(super) fn get(web: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(web)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let text = answer.strip_prefix("HTTP/1.0 200 OK\r\n").and_then(|answer| answer.split_once("\r\n\r\n"));
    text.map(|(_, text)| text.trim().to_owned()).ok_or_else(|| io::Error::other(answer.escape_debug().to_string()))
}

/// Longer than any handshake here, short enough to wait for one that is dropped.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    const WITHIN: Duration = Duration::from_millis(700);
    let stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
