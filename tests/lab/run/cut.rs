//! The end of a flow: a connection that a rule allowed dies with the rule, and both its ends hear of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_tests::wait::some_within;

use super::reach::Party;
use super::servers::{Cause, End, lock};
use super::{BLOG_DB, RULE, Show, WEB_1};
use crate::interrupt::Interrupt;

/// A rule that is gone is enforced within this, on open connections too.
const PROMISE: Duration = Duration::from_secs(1);

/// How long an end is watched; longer than the promise, so that a late reset is seen as late.
const WATCH: Duration = Duration::from_secs(5);

/// Ticks of the clock before the rule goes.
const TICKS: usize = 3;

/// Opens connections, removes the rule, and shows how they end. What was not as expected comes back, in words.
pub(super) fn show(show: &Show, interrupt: &Interrupt) -> Result<Vec<String>> {
    let (blog, web) = (&show.parties[BLOG_DB], &show.parties[WEB_1]);
    let mut clients = Vec::new();
    for address in web.addresses() {
        clients.push(read_clock(blog, address)?);
    }
    interrupt.pause(Duration::ZERO)?;
    let started = Instant::now();
    show.show_weft(0, &["allow", RULE, "--remove"])?;

    let watched: Vec<_> = clients.into_iter().map(|client| thread::spawn(move || watch(client))).collect();
    let mut unexpected = Vec::new();
    for client in watched {
        let Ok(near) = client.join() else { bail!("a thread that watches has panicked") };
        let near = near?;
        let at_server = some_within(WATCH, || {
            lock(&show.ends).iter().find(|end| end.peer.port() == near.peer.port() && is_same(end, &near)).copied()
        });
        let family = if near.peer.is_ipv4() { "IPv4" } else { "IPv6" };
        let ends = [(blog, Some(near)), (web, at_server)];
        let words = ends.map(|(party, end)| told(party, end, started));
        println!("   {family}: {}", words.join("; "));
        let all_reset = ends.iter().all(|(_, end)| {
            end.is_some_and(|end| end.cause == Cause::Reset && end.at.duration_since(started) <= PROMISE)
        });
        if !all_reset {
            unexpected.push(format!("{family}: {}; not both reset within {PROMISE:?}", words.join("; ")));
        }
    }
    println!();
    for what in &unexpected {
        println!("   NOT AS EXPECTED: {what}\n");
    }
    Ok(unexpected)
}

fn told(party: &Party, end: Option<End>, started: Instant) -> String {
    match end {
        Some(End { cause, at, peer: _ }) => {
            format!("{} {cause} after {} ms", party.name(), at.duration_since(started).as_millis())
        }
        None => format!("{} still open", party.name()),
    }
}

/// A server that listens for both families sees IPv4 addresses inside IPv6 ones.
fn is_same(server: &End, client: &End) -> bool {
    server.peer.ip().to_canonical().is_ipv4() == client.peer.is_ipv4()
}

/// Connects and hears the clock tick.
fn read_clock(blog: &Party, address: SocketAddr) -> Result<TcpStream> {
    let open = || {
        let mut stream = TcpStream::connect_timeout(&address, WATCH)?;
        stream.set_read_timeout(Some(WATCH))?;
        write!(stream, "GET /clock HTTP/1.0\r\n\r\n")?;
        let lines = BufReader::new(stream.try_clone()?).lines();
        let ticks: Vec<_> = lines.map_while(Result::ok).filter(|line| line.starts_with("tick ")).take(TICKS).collect();
        println!("   {}: {}...", if address.is_ipv4() { "IPv4" } else { "IPv6" }, ticks.join(", "));
        std::io::Result::Ok(stream)
    };
    blog.container.namespace.run(open).with_context(|| format!("read the clock at {address}"))
}

/// Reads until the connection ends. Its own address stands for the peer that the server sees.
fn watch(mut client: TcpStream) -> Result<End> {
    let peer = client.local_addr().context("ask for the address of a socket")?;
    let mut room = [0; 4096];
    loop {
        let read = client.read(&mut room);
        if let Some(cause) = Cause::of(&read) {
            return Ok(End { peer, cause, at: Instant::now() });
        }
    }
}
