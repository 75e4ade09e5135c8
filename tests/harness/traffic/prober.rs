//! A steady trickle of numbered datagrams, which afterwards says exactly which were not answered.

use super::udp::connected;
use crate::netns::Netns;
use crate::wait::{Deadline, holds_within};
use crate::worker::{Stop, Woken, Worker};
use nix::poll::PollFlags;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sends a number to an echo server at a steady pace until it is stopped.
pub struct Prober {
    every: Duration,
    tally: Arc<Mutex<Tally>>,
    worker: Worker,
}

/// What became of the numbers of a [`Prober`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many were sent: 0 to `sent - 1`.
    pub sent: u64,
    /// Those that did not come back, in order.
    pub lost: Vec<u64>,
    /// How many answers came more than once.
    pub duplicated: u64,
    /// The time from one number to the next.
    pub every: Duration,
}

/// How long the last numbers have to come back. A loaded machine delays them, which is not a loss.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Tally {
    /// Times that each number came back; its length is how many were sent.
    answers: Vec<u32>,
    /// No more are sent; answers are still taken.
    draining: bool,
}

impl Prober {
    /// Starts to send from a namespace to a [`super::udp::UdpEcho`].
    #[track_caller]
    pub fn start(namespace: &Netns, to: SocketAddr, every: Duration) -> Self {
        let socket = namespace
            .run(|| connected(to))
            .unwrap_or_else(|error| panic!("open a socket to {to} in {}: {error}", namespace.name()));
        let tally: Arc<Mutex<Tally>> = Arc::default();
        let shared = Arc::clone(&tally);
        let worker = Worker::start("prober", move |stop| probe(stop, &socket, every, &shared));
        Self { every, tally, worker }
    }

    /// What is known now. Of numbers sent just now the answer may be on its way.
    pub fn so_far(&self) -> Report {
        self.tally().report(self.every)
    }

    /// Waits until `count` more numbers have been sent and answered. Panics when that takes longer than `within`.
    #[track_caller]
    pub fn wait_answers(&self, count: usize, within: Duration) {
        let first = self.tally().answers.len();
        let answered = || self.tally().answers[first..].iter().filter(|&&times| times > 0).count();
        let enough = holds_within(within, || answered() >= count);
        assert!(enough, "{} of {count} numbers answered within {within:?}", answered());
    }

    /// Sends no more, gives the last numbers time to come back, and reports.
    pub fn stop(self) -> Report {
        self.tally().draining = true;
        holds_within(GRACE, || self.tally().answers.iter().all(|&times| times > 0));
        let Self { every, tally, worker } = self;
        drop(worker);
        lock(&tally).report(every)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }
}

impl Report {
    /// The longest time in which every number was lost.
    pub fn longest_gap(&self) -> Duration {
        let runs = self.lost.chunk_by(|one, next| one + 1 == *next);
        let longest = runs.map(<[u64]>::len).max().unwrap_or(0);
        self.every * u32::try_from(longest).unwrap_or(u32::MAX)
    }
}

impl Tally {
    fn report(&self, every: Duration) -> Report {
        let numbered = || (0..).zip(&self.answers);
        Report {
            sent: self.answers.len() as u64,
            lost: numbered().filter_map(|(number, &times)| (times == 0).then_some(number)).collect(),
            duplicated: numbered().filter(|&(_, &times)| times > 1).count() as u64,
            every,
        }
    }
}

fn probe(stop: &Stop, socket: &UdpSocket, every: Duration, tally: &Mutex<Tally>) {
    let mut due = Deadline::after(Duration::ZERO);
    loop {
        if due.passed() {
            let mut tally = lock(tally);
            if !tally.draining {
                // What cannot be sent is a number that does not come back.
                socket.send(&(tally.answers.len() as u64).to_be_bytes()).ok();
                tally.answers.push(0);
            }
            due = Deadline::after(every);
        }
        match stop.wait_until(due, socket, PollFlags::POLLIN) {
            Woken::Stopped => return,
            Woken::TimedOut => {}
            Woken::Ready => take_answer(socket, &mut lock(tally)),
        }
    }
}

fn take_answer(socket: &UdpSocket, tally: &mut Tally) {
    let mut room = [0; 8];
    // An error is one that an earlier number met: it will not come back.
    if let Ok(8) = socket.recv(&mut room) {
        let number = usize::try_from(u64::from_be_bytes(room)).unwrap_or(usize::MAX);
        let times = tally.answers.get_mut(number).expect("a number that came back was sent");
        *times += 1;
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::udp::UdpEcho;
    use crate::underlay::{Family, Underlay};

    const PACE: Duration = Duration::from_millis(2);
    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn on_a_whole_network_nothing_is_lost() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let server = UdpEcho::start(underlay.host(1), SocketAddr::new(underlay.ip(1, family), 0));
            let prober = Prober::start(underlay.host(0), server.address(), PACE);
            prober.wait_answers(50, SOON);
            let report = prober.stop();
            assert!(report.sent >= 50, "{report:?}");
            assert_eq!((&report.lost[..], report.duplicated), (&[][..], 0));
            assert_eq!(report.longest_gap(), Duration::ZERO);
        }
    }

    #[test]
    fn a_cut_shows_as_one_gap() {
        let underlay = Underlay::bridged(2);
        for family in Family::BOTH {
            let server = UdpEcho::start(underlay.host(1), SocketAddr::new(underlay.ip(1, family), 0));
            let prober = Prober::start(underlay.host(0), server.address(), PACE);
            prober.wait_answers(10, SOON);
            underlay.partition(&[]);
            let first_lost = prober.so_far().sent;
            assert!(holds_within(SOON, || prober.so_far().sent >= first_lost + 20));
            underlay.heal();
            prober.wait_answers(10, SOON);
            let report = prober.stop();
            assert!(report.lost.len() >= 20 && report.lost.contains(&(first_lost + 5)), "{report:?}");
            assert!(report.longest_gap() >= PACE * 20, "{report:?}");
        }
    }

    #[test]
    fn gaps_are_measured_in_a_row() {
        let report = Report { sent: 20, lost: vec![1, 2, 3, 7, 8], duplicated: 0, every: Duration::from_millis(10) };
        assert_eq!(report.longest_gap(), Duration::from_millis(30));
    }
}
