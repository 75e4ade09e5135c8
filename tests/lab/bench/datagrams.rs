//! UDP: how many small packets a second arrive while fewer than one in two hundred is lost.
//!
//! A sender that floods measures how fast packets are dropped. So a rate counts only with its loss, and the rate is
//! stepped until the loss is below the limit.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};
use weft_tests::underlay::Family;

use super::cell::{Quantity, Sample};
use super::machine::{Side, Work, pin};
use super::pair::Pair;

/// Bytes after the UDP header.
const PAYLOAD: usize = 64;

/// What a rate may lose: 0.5 %.
const LOSS: f64 = 0.005;

/// Packets that one call hands over, so that the generator is not what is measured.
const BATCH: usize = 32;

/// Halvings of the interval between a rate that is too high and one that is not.
const STEPS: u32 = 6;

/// Room for what arrives while the receiver does not run.
const BUFFER: usize = 16 << 20;

/// How often the receiver looks up when nothing comes.
const LOOK_UP: Duration = Duration::from_millis(20);

/// Longer than a packet is ever under way here.
const STRAGGLERS: Duration = Duration::from_millis(5);

/// What became of one rate.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Packets a second.
    rate: f64,
    /// From 0 to 1.
    loss: f64,
    /// Microseconds of processor time for a packet that was sent.
    effort: f64,
}

/// The highest rate that is carried.
pub(super) fn measure(pair: &Pair, family: Family, time: Duration) -> Result<Sample> {
    let (client, server) = pair.datagrams(family)?;
    setsockopt(&server, sockopt::RcvBufForce, &BUFFER).context("make the receiver's queue long")?;
    server.set_read_timeout(Some(LOOK_UP)).context("set a time limit")?;
    let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let counting = scope.spawn(|| count(&server, &received, &done));
        let found = scope.spawn(|| {
            pin(Side::Client)?;
            search(|pace, time| try_rate(&client, &received, pace, time), time)
        });
        let found = found.join();
        done.store(true, Ordering::Relaxed);
        let (Ok(found), Ok(counted)) = (found, counting.join()) else {
            bail!("a thread that measures has panicked");
        };
        counted?;
        let (rate, effort) = found?;
        Ok(vec![(Quantity::Packets, rate / 1e6), (Quantity::Effort, effort)])
    })
}

/// As fast as it goes; and if that loses too much, between that and nothing. Gives the rate, and what a packet costs:
/// at full speed, for a sender that keeps a pace works while it waits.
fn search(mut trial: impl FnMut(Option<f64>, Duration) -> Result<Trial>, time: Duration) -> Result<(f64, f64)> {
    // The first packets find neighbours, flows and cold caches.
    trial(Some(1e5), time / 10)?;
    let flood = trial(None, time / 2)?;
    if flood.loss <= LOSS {
        let again = trial(None, time / 2)?;
        return Ok((again.rate.max(flood.rate), f64::midpoint(again.effort, flood.effort)));
    }
    let (mut carried, mut too_fast) = (0.0, flood.rate);
    for _ in 0..STEPS {
        let pace = f64::midpoint(carried, too_fast);
        let Trial { rate, loss, effort: _ } = trial(Some(pace), time / 4)?;
        // What could not be sent at this pace is not a rate that was tried.
        if loss <= LOSS && rate > carried {
            carried = rate;
        } else {
            too_fast = pace;
        }
    }
    if carried == 0.0 {
        bail!("no rate is carried: of {:.0} packets a second {:.1} % are lost", flood.rate, flood.loss * 100.0);
    }
    Ok((carried, flood.effort))
}

/// Sends for `time` and waits for what is under way.
fn try_rate(client: &UdpSocket, received: &AtomicU64, pace: Option<f64>, time: Duration) -> Result<Trial> {
    let payload = [0x5a; PAYLOAD];
    let slices = [[IoSlice::new(&payload)]; BATCH];
    let addresses: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let before = received.load(Ordering::Relaxed);

    let mut sent = 0_u64;
    let (worked, started) = (Work::now()?, Instant::now());
    loop {
        let elapsed = started.elapsed();
        if elapsed >= time {
            break;
        }
        if pace.is_some_and(|pace| super::number(sent) > elapsed.as_secs_f64() * pace) {
            // The kernel's own work for packets may be waiting for this core.
            thread::yield_now();
            continue;
        }
        match sendmmsg(client.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count() as u64,
            // A full queue on the way, or an ICMP error of an earlier packet: lost, and counted as such.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => sent += BATCH as u64,
            Err(error) => return Err(error).context("send datagrams"),
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let effort = Work::now()?.micros_each_since(worked, sent);

    let arrived = super::number(settled(received) - before);
    Ok(Trial { rate: arrived / elapsed, loss: 1.0 - arrived / super::number(sent.max(1)), effort })
}

/// The count when it has not changed for a while.
fn settled(received: &AtomicU64) -> u64 {
    let mut last = (received.load(Ordering::Relaxed), Instant::now());
    loop {
        thread::yield_now();
        let now = received.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() >= STRAGGLERS {
            return now;
        }
    }
}

fn count(server: &UdpSocket, received: &AtomicU64, done: &AtomicBool) -> Result<()> {
    pin(Side::Server)?;
    let mut rooms = [[0; PAYLOAD]; BATCH];
    let mut headers: MultiHeaders<()> = MultiHeaders::preallocate(BATCH, None);
    while !done.load(Ordering::Relaxed) {
        let mut slices = rooms.each_mut().map(|room| [IoSliceMut::new(room)]);
        match recvmmsg(server.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(results) => _ = received.fetch_add(results.count() as u64, Ordering::Relaxed),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("receive datagrams"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries `limit` packets a second and drops the rest, fed by a sender that makes at most `most`.
    fn path(limit: f64, most: f64) -> impl FnMut(Option<f64>, Duration) -> Result<Trial> {
        move |pace, _| {
            let sent = pace.unwrap_or(most).min(most);
            let rate = sent.min(limit);
            Ok(Trial { rate, loss: 1.0 - rate / sent, effort: 1.0 })
        }
    }

    #[test]
    fn the_rate_is_the_highest_that_loses_little() {
        let found = |limit, most| search(path(limit, most), Duration::from_secs(1)).unwrap().0;
        assert!((found(2e6, 1e6) - 1e6).abs() < 1.0, "the sender is the limit");
        let carried = found(5e5, 1e6);
        assert!((4.8e5..=5e5).contains(&carried), "{carried}");
    }
}
