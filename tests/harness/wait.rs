//! Waiting: always for a condition, always with an end, never for a time alone.

use nix::poll::{PollTimeout, poll};
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short enough to measure reactions of tens of milliseconds, long enough that
/// looking (often a program that is started) does not become the load.
const INTERVAL: Duration = Duration::from_millis(10);

/// A point in time after which nobody waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The point `within` from now.
    pub fn after(within: Duration) -> Self {
        Self(Instant::now() + within)
    }

    /// What is left until then; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// What is left, for `poll(2)`: rounded up, so that a poll that timed out means a deadline that has passed.
    pub(crate) fn poll_timeout(self) -> PollTimeout {
        let millis = self.left().as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }
}

/// Waits until `condition` holds. Panics when it does not within the time given.
#[track_caller]
pub fn eventually(within: Duration, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(within, &mut condition), "did not come true within {within:?}");
}

/// Waits until `value` gives one and returns it. Panics when there is none within the time given.
#[track_caller]
pub fn eventually_some<T>(within: Duration, value: impl FnMut() -> Option<T>) -> T {
    some_within(within, value).unwrap_or_else(|| panic!("no value within {within:?}"))
}

/// Checks that `condition` holds now and all along for `period`. Panics at the first time it does not.
#[track_caller]
pub fn throughout(period: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let broke = holds_within(period, || !condition());
    assert!(!broke, "stopped being true after {:?} of {period:?}", start.elapsed());
}

/// As [`eventually`] for those who want to know instead of to insist.
pub fn holds_within(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Deadline::after(within);
    loop {
        // The condition is looked at once more after the deadline: it may have come true during the last pause.
        let last = deadline.passed();
        if condition() {
            return true;
        }
        if last {
            return false;
        }
        let pause = Deadline::after(INTERVAL.min(deadline.left()));
        // An interrupted pause is only a shorter one.
        poll(&mut [], pause.poll_timeout()).ok();
    }
}

/// As [`eventually_some`] for those who want to know instead of to insist.
pub fn some_within<T>(within: Duration, mut value: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    holds_within(within, || {
        found = value();
        found.is_some()
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn what_comes_true_later_is_waited_for() {
        let (send, receive) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            wait.recv().unwrap();
            send.send(7).unwrap();
        });
        assert!(!holds_within(Duration::from_millis(30), || receive.try_recv().is_ok()));
        go.send(()).unwrap();
        assert_eq!(eventually_some(Duration::from_secs(5), || receive.try_recv().ok()), 7);
        thread.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "did not come true within 20ms")]
    fn what_never_comes_true_panics() {
        eventually(Duration::from_millis(20), || false);
    }

    #[test]
    #[should_panic(expected = "stopped being true")]
    fn what_stops_being_true_panics() {
        let mut looks = 0;
        throughout(Duration::from_secs(5), || {
            looks += 1;
            looks < 3
        });
    }

    #[test]
    fn what_stays_true_is_watched_to_the_end() {
        let start = Instant::now();
        throughout(Duration::from_millis(30), || true);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
