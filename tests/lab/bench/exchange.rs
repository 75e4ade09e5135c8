//! Small exchanges over TCP: on one connection, and each on a connection of its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_tests::underlay::Family;

use super::cell::{Quantity, Sample};
use super::machine::{Side, Work, pin};
use super::pair::Pair;
use super::statistics::quantile;

/// No answer takes longer, unless it does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exchanges before the clock starts.
const WARM_UP: u32 = 100;

/// One byte there, one byte back, and again, for `time`: how long an exchange takes.
pub(super) fn requests(pair: &Pair, family: Family, time: Duration) -> Result<Sample> {
    let (listener, address) = pair.listen(family)?;
    let client = pair.connect(address)?;
    let (server, _) = listener.accept().context("accept a connection")?;
    let (mut times, effort) = thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&server));
        let asked = scope.spawn(|| ask(&client, time)).join();
        // Ends the server, also after an error.
        client.shutdown(Shutdown::Both).ok();
        let (Ok(answered), Ok(asked)) = (answering.join(), asked) else {
            bail!("a thread that measures has panicked");
        };
        answered?;
        asked
    })?;
    times.sort_by(f64::total_cmp);
    let (median, tail) = (quantile(&times, 0.5), quantile(&times, 0.99));
    Ok(vec![(Quantity::Median, median), (Quantity::Tail, tail), (Quantity::Effort, effort)])
}

/// Connects, asks, is answered and closes, and again, for `time`: how often that is done in a second.
pub(super) fn connections(pair: &Pair, family: Family, time: Duration) -> Result<Sample> {
    let (listener, address) = pair.listen(family)?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&listener));
        let client: Result<Sample> = pair.client.run(|| {
            pin(Side::Client)?;
            let mut done = 0_u64;
            let (worked, started) = (Work::now()?, Instant::now());
            while started.elapsed() < time {
                let stream = TcpStream::connect(address)
                    .with_context(|| format!("connect to {address}, after {done} connections"))?;
                stream.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
                exchange(&stream)?;
                done += 1;
            }
            let effort = Work::now()?.micros_each_since(worked, done);
            let rate = super::number(done) / started.elapsed().as_secs_f64();
            Ok(vec![(Quantity::Connections, rate), (Quantity::Effort, effort)])
        });
        // A connection that asks nothing ends the server.
        let ended = pair.connect(address).map(drop);
        let Ok(served) = serving.join() else { bail!("a thread that measures has panicked") };
        let sample = client?;
        ended?;
        served?;
        Ok(sample)
    })
}

/// Microseconds that each exchange took, and what it cost on average.
fn ask(socket: &TcpStream, time: Duration) -> Result<(Vec<f64>, f64)> {
    pin(Side::Client)?;
    socket.set_nodelay(true).context("send at once")?;
    socket.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    for _ in 0..WARM_UP {
        exchange(socket)?;
    }
    let mut times = Vec::new();
    let (worked, started) = (Work::now()?, Instant::now());
    let mut before = started;
    while before.duration_since(started) < time {
        exchange(socket)?;
        let after = Instant::now();
        times.push(after.duration_since(before).as_secs_f64() * 1e6);
        before = after;
    }
    let effort = Work::now()?.micros_each_since(worked, times.len() as u64);
    Ok((times, effort))
}

fn exchange(mut socket: &TcpStream) -> Result<()> {
    let mut room = [0];
    socket.write_all(&[1]).and_then(|()| socket.read_exact(&mut room)).context("exchange a byte")
}

fn answer(mut socket: &TcpStream) -> Result<()> {
    pin(Side::Server)?;
    socket.set_nodelay(true).context("send at once")?;
    let mut room = [0];
    loop {
        match socket.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(_) => socket.write_all(&room).context("answer a byte")?,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("read a question"),
        }
    }
}

/// One connection after the other: the client has never two.
fn serve(listener: &TcpListener) -> Result<()> {
    pin(Side::Server)?;
    let mut room = [0];
    loop {
        let (mut socket, _) = listener.accept().context("accept a connection")?;
        socket.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
        if socket.read(&mut room).context("read a question")? == 0 {
            return Ok(());
        }
        socket.write_all(&room).context("answer a byte")?;
        // The client closes first and keeps the port in TIME_WAIT, as clients do.
        socket.read(&mut room).context("wait for the end of a connection")?;
    }
}
