//! A thread that serves or drives traffic until its owner drops the handle.
//!
//! The thread needs no namespace of its own: a socket stays in the one where it was opened, so its owner opens the
//! sockets with [`crate::netns::Netns::run`] and hands them in.

use crate::wait::Deadline;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

/// The handle. Dropping it stops and joins the thread; a panic of the thread becomes one of the dropping test.
pub(crate) struct Worker {
    /// The worker sees it closed, whatever it is waiting for.
    alive: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// The worker's end: the only way a worker waits.
pub(crate) struct Stop(UnixStream);

/// Why a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The socket has something to say.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// The owner is done.
    Stopped,
}

impl Worker {
    pub(crate) fn start(name: &str, body: impl FnOnce(&Stop) + Send + 'static) -> Self {
        let (alive, stop) = UnixStream::pair().expect("make a socket pair");
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || body(&Stop(stop)))
            .unwrap_or_else(|error| panic!("start thread {name}: {error}"));
        Self { alive: Some(alive), thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Said, not only closed: a child that another thread is just forking holds a copy until it has become a program.
        if let Some(alive) = self.alive.take() {
            alive.shutdown(Shutdown::Both).ok();
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Stop {
    /// Waits for `events` on a socket (errors are always among them), for as long as it takes.
    pub(crate) fn wait(&self, socket: impl AsFd, events: PollFlags) -> Woken {
        self.poll(socket.as_fd(), events, || PollTimeout::NONE)
    }

    /// As [`Stop::wait`] until a deadline.
    pub(crate) fn wait_until(&self, deadline: Deadline, socket: impl AsFd, events: PollFlags) -> Woken {
        self.poll(socket.as_fd(), events, || deadline.poll_timeout())
    }

    fn poll(&self, socket: BorrowedFd<'_>, events: PollFlags, timeout: impl Fn() -> PollTimeout) -> Woken {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(socket, events)];
        loop {
            match poll(&mut fds, timeout()) {
                Ok(0) => return Woken::TimedOut,
                Ok(_) if fds[0].any() != Some(false) => return Woken::Stopped,
                Ok(_) => return Woken::Ready,
                Err(Errno::EINTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_dropped_handle_ends_a_thread_that_waits_for_ever() {
        let (send, seen) = mpsc::channel();
        let (_quiet, socket) = UnixStream::pair().unwrap();
        let worker = Worker::start("waits", move |stop| {
            send.send(stop.wait_until(Deadline::after(Duration::from_millis(5)), &socket, PollFlags::POLLIN)).unwrap();
            send.send(stop.wait(&socket, PollFlags::POLLOUT)).unwrap();
            send.send(stop.wait(&socket, PollFlags::POLLIN)).unwrap();
        });
        assert_eq!([(); 2].map(|()| seen.recv().unwrap()), [Woken::TimedOut, Woken::Ready]);
        drop(worker);
        assert_eq!(seen.recv().unwrap(), Woken::Stopped);
    }

    #[test]
    #[should_panic(expected = "inside the worker")]
    fn a_panic_of_the_thread_reaches_its_owner() {
        drop(Worker::start("panics", |_| panic!("inside the worker")));
    }
}
