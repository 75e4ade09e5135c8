//! Sends whole frames by an interface: packets that had missed, and resets.
//!
//! The frame goes the way of any packet that the interface sends, past the programs at its egress; on the host's end
//! of a pair that leads into the container.

#![expect(unsafe_code, reason = "an address of the packet family, which nix makes none of")]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

/// `AF_PACKET`, as addresses have it.
const FAMILY: libc::sa_family_t = 17;

/// `sizeof(struct sockaddr_ll)`.
const ADDRESS_LENGTH: libc::socklen_t = 20;
const _: () = assert!(size_of::<libc::sockaddr_ll>() == 20);

/// Sockets that send and do not listen.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    ipv4: OwnedFd,
    /// None where the kernel has no IPv6.
    ipv6: Option<OwnedFd>,
}

impl Injector {
    /// Sends in the namespace of the calling thread.
    pub fn new() -> Result<Self> {
        // Protocol 0: it is handed no packets.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let packet = socket(AddressFamily::Packet, SockType::Raw, flags, None).context("make a packet socket")?;
        // IPPROTO_RAW: the network header comes with the packet.
        let raw = |family| socket(family, SockType::Raw, flags, SockProtocol::Raw);
        let ipv4 = raw(AddressFamily::Inet).context("make a raw socket")?;
        Ok(Self { socket: packet, ipv4, ipv6: raw(AddressFamily::Inet6).ok() })
    }

    /// Sends an IP packet with its own network header on the way that the host's routes give it.
    pub fn send_packet(&self, to: IpAddr, packet: &[u8]) -> io::Result<()> {
        // The port of a raw socket's address has to be 0.
        let address = SockaddrStorage::from(SocketAddr::new(to, 0));
        let socket = match to {
            IpAddr::V4(_) => &self.ipv4,
            IpAddr::V6(_) => self.ipv6.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?,
        };
        sendto(socket.as_raw_fd(), packet, &address, MsgFlags::empty())?;
        Ok(())
    }

    /// Sends a frame, with its Ethernet header, by the interface with this number. Does not wait: a full queue is an
    /// error, as it is a lost packet on any wire.
    pub fn send(&self, link: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: FAMILY,
            // The kernel reads the ethertype from here, for what looks at packets by their protocol.
            sll_protocol: frame.get(12..14).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]])),
            sll_ifindex: link.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `frame` and `address` are borrowed for the call, which reads as many bytes of each as they have.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                ptr::from_ref(&address).cast(),
                ADDRESS_LENGTH,
            )
        };
        if usize::try_from(sent).is_ok_and(|sent| sent == frame.len()) {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        link::{Links, Setting, tests::veth},
        netns::tests::within_async,
    };
    use nix::sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike as _},
    };
    use std::{
        os::fd::FromRawFd as _,
        time::{Duration, Instant},
    };

    #[test]
    fn a_frame_comes_out_at_the_other_end() {
        within_async(async || {
            let links = Links::new().unwrap();
            let here = links.create_veth(&veth("a", "b", None)).await.unwrap();
            let there = links.find("b").await.unwrap().unwrap().index;
            let injector = Injector::new().unwrap();
            let mut frame = [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]].concat();
            frame.extend([0x88, 0xb5]);
            frame.extend(b"as it is");
            let off = injector.send(here, &frame).unwrap_err();
            assert_eq!(off.raw_os_error(), Some(libc::ENETDOWN));
            for link in [here, there] {
                links.set(link, &[Setting::NoLinkLocal, Setting::Up]).await.unwrap();
            }

            // ETH_P_ALL, in network order.
            let all = i32::from(3_u16.to_be());
            // SAFETY: a socket call has no arguments that are addresses; the descriptor is new and ours.
            let ear = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, all)) };
            setsockopt(&ear, ReceiveTimeout, &TimeVal::milliseconds(20)).unwrap();
            // Seen as it leaves and as it arrives. The kernel swallows what is sent before it has noticed that the
            // other end is up.
            let (mut seen, mut heard) = (0, [0; 64]);
            let deadline = Instant::now() + Duration::from_secs(5);
            while seen < 2 {
                assert!(Instant::now() < deadline, "nothing came out");
                injector.send(here, &frame).unwrap();
                seen = 0;
                while let Ok(length) = nix::unistd::read(&ear, &mut heard) {
                    seen += usize::from(heard[..length] == frame);
                }
            }
            assert_eq!(injector.send(999, &frame).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        });
    }
}
