//! TCP streams: how much arrives in a window of time, and what the machine worked for it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_tests::underlay::Family;

use super::cell::{Quantity, Sample};
use super::machine::{Side, Work, pin};
use super::pair::Pair;
use crate::interrupt::Interrupt;

/// How many bytes a call hands over; what iperf3 does too.
const CHUNK: usize = 128 << 10;

/// Until windows and buffers have their size.
const WARM_UP: Duration = Duration::from_millis(100);

/// Runs `flows` connections at once and measures them together for `time`.
pub(super) fn measure(
    pair: &Pair,
    family: Family,
    flows: usize,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Sample> {
    let (listener, address) = pair.listen(family)?;
    let mut ends = Vec::new();
    for _ in 0..flows {
        let client = pair.connect(address)?;
        let (server, _) = listener.accept().context("accept a stream")?;
        ends.push((client, server));
    }
    let received = AtomicU64::new(0);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (client, server) in &ends {
            workers.push(scope.spawn(|| send(client)));
            workers.push(scope.spawn(|| receive(server, &received)));
        }
        let measured = window(&received, time, interrupt);
        for socket in ends.iter().flat_map(|(client, server)| [client, server]) {
            // Wakes its thread, whatever that is waiting for. It may have died by itself: the bytes tell.
            socket.shutdown(Shutdown::Both).ok();
        }
        for worker in workers {
            match worker.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread that measures has panicked"),
            }
        }
        measured
    })
}

fn window(received: &AtomicU64, time: Duration, interrupt: &Interrupt) -> Result<Sample> {
    interrupt.pause(WARM_UP)?;
    let (bytes, worked, started) = (received.load(Ordering::Relaxed), Work::now()?, Instant::now());
    interrupt.pause(time)?;
    let (elapsed, work) = (started.elapsed(), Work::now()?.seconds_since(worked));
    let bytes = super::number(received.load(Ordering::Relaxed) - bytes);
    if bytes == 0.0 {
        bail!("nothing arrived in {elapsed:?}");
    }
    Ok(vec![(Quantity::Throughput, bytes * 8.0 / 1e9 / elapsed.as_secs_f64()), (Quantity::Work, work / (bytes / 1e9))])
}

/// Until the socket is shut down.
fn send(mut socket: &TcpStream) -> Result<()> {
    pin(Side::Client)?;
    let chunk = vec![0x5a; CHUNK];
    while socket.write_all(&chunk).is_ok() {}
    Ok(())
}

fn receive(mut socket: &TcpStream, received: &AtomicU64) -> Result<()> {
    pin(Side::Server)?;
    let mut room = vec![0; CHUNK];
    while let Ok(length @ 1..) = socket.read(&mut room) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}
