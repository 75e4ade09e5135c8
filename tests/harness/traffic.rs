//! Probes: one question to the network, one [`Outcome`] within a deadline; and traffic that goes on while a test does
//! something else, and tells afterwards what became of it.
//!
//! Each runs inside a namespace, over IPv4 or IPv6 as the address says. A probe asks once: who wants to wait until
//! something works says so with [`crate::wait::eventually`], and what was lost on the way is not hidden.

pub mod flood;
pub mod mesh;
pub mod ping;
pub mod prober;
pub mod stream;
pub mod tcp;
pub mod udp;

mod icmp_errors;

use nix::errno::Errno;
use std::io;

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The right answer came: a handshake, or an echo with every byte as it was sent.
    Reached,
    /// The far end, or somebody for it, said no: a TCP reset or a port unreachable.
    Refused,
    /// The network said that there is no way, or that it is forbidden.
    Unreachable(Errno),
    /// The packet must not be fragmented and does not fit a path of this MTU.
    TooBig(u32),
    /// No answer at all.
    TimedOut,
}

impl Outcome {
    /// The outcome an error of a socket stands for. Panics at one that says nothing about the network.
    #[track_caller]
    fn of(error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            return Self::TimedOut;
        }
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::EPIPE) => Self::Refused,
            // EPERM and EACCES are what a filter of this host or an administrative prohibition becomes.
            Some(
                errno @ (Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ENETDOWN
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EPROTO
                | Errno::EOPNOTSUPP
                | Errno::EACCES
                | Errno::EPERM),
            ) => Self::Unreachable(errno),
            _ => panic!("not an answer of the network: {error}"),
        }
    }
}
