//! Marked datagrams to everywhere, all the time: also before there is a way, and when there is none any more.

use crate::netns::Netns;
use crate::wait::Deadline;
use crate::worker::{Stop, Woken, Worker};
use nix::poll::PollFlags;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Sends until it is dropped.
pub struct Flood {
    sent: Arc<AtomicU64>,
    _worker: Worker,
}

impl Flood {
    /// Starts to send `mark` from a namespace to each of `to`, with a pause after each time round.
    #[track_caller]
    pub fn start(namespace: &Netns, to: &[SocketAddr], mark: &'static [u8], pause: Duration) -> Self {
        let open = |any: &str| namespace.run(|| UdpSocket::bind(any));
        let sockets = ["0.0.0.0:0", "[::]:0"].map(|any| {
            let socket = open(any).unwrap_or_else(|error| panic!("open a socket in {}: {error}", namespace.name()));
            socket.set_nonblocking(true).expect("a UDP socket can be made non-blocking");
            socket
        });
        let (to, sent) = (to.to_vec(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&sent);
        let worker = Worker::start("flood", move |stop| send(stop, &sockets, (&to, mark, pause), &counter));
        Self { sent, _worker: worker }
    }

    /// How many datagrams the namespace had a way for, so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn send(stop: &Stop, [v4, v6]: &[UdpSocket; 2], (to, mark, pause): (&[SocketAddr], &[u8], Duration), sent: &AtomicU64) {
    loop {
        for addr in to {
            let socket = if addr.is_ipv4() { v4 } else { v6 };
            // That there is no way is what is waited out.
            if socket.send_to(mark, addr).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        if stop.wait_until(Deadline::after(pause), v4, PollFlags::empty()) == Woken::Stopped {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_way_that_comes_later_is_used() {
        let namespace = Netns::new("flood");
        namespace.ip("link set lo down");
        let flood = Flood::start(&namespace, &["[fd00::1]:9".parse().unwrap()], b"mark", Duration::from_millis(1));
        assert_eq!(flood.sent(), 0);
        namespace.ip_batch("link set lo up\naddr add fd00::1/128 dev lo nodad\n");
        eventually(SOON, || flood.sent() > 10);
    }
}
