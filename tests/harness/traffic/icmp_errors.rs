//! What ICMP errors and the own stack say about packets that a socket has sent, and what "do not fragment" needs.

use super::Outcome;
use crate::socket_options::{Ipv4MtuDiscover, Ipv6MtuDiscover};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// Who may cut a packet into fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// The sender, and routers on IPv4.
    Allowed,
    /// Nobody.
    Forbidden,
}

/// Has the socket queue its errors, and send as `fragment` says.
pub(super) fn configure(socket: &impl AsFd, to: IpAddr, fragment: Fragment) -> Result<(), Errno> {
    match (to, fragment) {
        (IpAddr::V4(_), Fragment::Allowed) => setsockopt(socket, Ipv4MtuDiscover, &libc::IP_PMTUDISC_DONT)?,
        (IpAddr::V4(_), Fragment::Forbidden) => setsockopt(socket, Ipv4MtuDiscover, &libc::IP_PMTUDISC_DO)?,
        // The sender knows the path and cuts to what fits; no router may.
        (IpAddr::V6(_), Fragment::Allowed) => setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_WANT)?,
        (IpAddr::V6(_), Fragment::Forbidden) => {
            setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_DO)?;
            setsockopt(socket, sockopt::Ipv6DontFrag, &true)?;
        }
    }
    match to {
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    }
}

/// Takes the next error from the queue: what it stands for, and the packet it is about from the transport header on.
pub(super) fn next(socket: &impl AsFd) -> Option<(Outcome, Vec<u8>)> {
    let mut quoted = vec![0; 1 << 16];
    let mut buffers = [IoSliceMut::new(&mut quoted)];
    let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut buffers, Some(&mut control), flags).ok()?;
    let error = message.cmsgs().ok()?.find_map(|control| {
        if let ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) = control {
            Some(error)
        } else {
            None
        }
    })?;
    let length = message.bytes;
    quoted.truncate(length);
    let errno = i32::try_from(error.ee_errno).expect("an errno fits in i32");
    let outcome = if errno == libc::EMSGSIZE {
        Outcome::TooBig(error.ee_info)
    } else {
        Outcome::of(&io::Error::from_raw_os_error(errno))
    };
    Some((outcome, quoted))
}
