//! Sends whole frames by an interface: packets that had missed, and resets.
//!
//! The frame goes the way of any packet that the interface sends, past the programs at its egress; on the host's end
//! of a pair that leads into the container.

#![expect(unsafe_code, reason = "an address of the packet family, which nix makes none of")]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A socket that sends and does not listen.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
}

impl Injector {
    /// Sends in the namespace of the calling thread.
    pub fn new() -> Result<Self> {
        // Protocol 0: it is handed no packets.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).context("make a packet socket")?;
        Ok(Self { socket })
    }

    /// Sends a frame, with its Ethernet header, by the interface with this number. Does not wait: a full queue is an
    /// error, as it is a lost packet on any wire.
    pub fn send(&self, link: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
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
                size_of_val(&address) as u32,
            )
        };
        if usize::try_from(sent).is_ok_and(|sent| sent == frame.len()) {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
}
