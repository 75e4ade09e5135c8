//! A hand on the wire: frames seen on an interface, and frames put there.
//!
//! A captured frame is as the interface handed it over. Where checksum and segmentation are left to the other end of
//! a veth, so they are here: [`crate::underlay::Offloads::Off`] makes frames whole.

#![expect(unsafe_code, reason = "a packet socket is bound by `sockaddr_ll`, which nix cannot make")]

use crate::frame::Frame;
use crate::netns::Netns;
use crate::socket_options::{PacketAuxData, PacketStatistics};
use crate::wait::Deadline;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind,
    getsockopt, recvmsg, send, setsockopt, socket, sockopt,
};
use std::fmt::{self, Display, Formatter};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Mutex;
use std::time::Duration;

/// Everything that passes an interface in either direction, from [`Capture::start`] on.
///
/// The kernel queues the frames ([`BUFFER`] bytes of them); each question first takes what is queued. So a frame that
/// was sent before the question is in the answer, and "nothing was seen" can be asked.
#[derive(Debug)]
pub struct Capture {
    interface: String,
    socket: OwnedFd,
    seen: Mutex<Vec<Captured>>,
}

/// A frame that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The whole frame, with the VLAN tag that the kernel had put aside.
    pub frame: Frame,
    /// Which way it passed.
    pub direction: Direction,
    /// Whether its transport checksum was left to be computed by a device.
    pub checksum: Checksum,
}

/// Which way a frame passes an interface, as its namespace sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the namespace.
    Received,
    /// Out of the namespace.
    Sent,
}

/// Who computes the transport checksum of a captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the frame.
    InFrame,
    /// A device that the frame has not passed; what is in the frame has no meaning.
    LeftToDevice,
}

/// Puts frames on an interface, as if the namespace had sent them.
#[derive(Debug)]
pub struct Injector {
    interface: String,
    socket: OwnedFd,
}

/// What the kernel may queue for a capture. A frame of 1500 bytes counts for about 2300.
pub const BUFFER: usize = 64 << 20;

/// Longer than any frame: a segment of 64 KiB with its headers.
const LONGEST: usize = 80 << 10;

/// Protocols that a packet socket hears: `ETH_P_ALL`, or none.
const ALL_PROTOCOLS: u16 = 3;
const NO_PROTOCOL: u16 = 0;

impl Capture {
    /// Starts to watch an interface.
    #[track_caller]
    pub fn start(namespace: &Netns, interface: &str) -> Self {
        let socket = packet_socket(namespace, interface, ALL_PROTOCOLS);
        Self::on(socket, format!("{interface} of {}", namespace.name()))
    }

    /// Starts to watch an interface of the calling thread's namespace.
    #[track_caller]
    pub fn here(interface: &str) -> Self {
        let index = if_nametoindex(interface).unwrap_or_else(|error| panic!("interface {interface}: {error}"));
        Self::on(socket_here(index, ALL_PROTOCOLS), interface.to_owned())
    }

    /// Starts to watch a whole namespace, with the interfaces that it will get.
    #[track_caller]
    pub fn everywhere(namespace: &Netns) -> Self {
        let socket = bound_socket(namespace, 0, ALL_PROTOCOLS);
        Self::on(socket, namespace.name().to_owned())
    }

    fn on(socket: OwnedFd, interface: String) -> Self {
        setsockopt(&socket, PacketAuxData, &true).expect("ask for what is beside the frame");
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("make the queue long");
        Self { interface, socket, seen: Mutex::default() }
    }

    /// All frames until now, in order.
    #[track_caller]
    pub fn frames(&self) -> Vec<Captured> {
        let mut seen = self.seen.lock().expect("no reader panicked");
        self.take_queued(&mut seen);
        seen.clone()
    }

    /// The first frame that `matches`, of those that were seen and those that come within the time given.
    #[track_caller]
    pub fn wait_for(&self, within: Duration, mut matches: impl FnMut(&Captured) -> bool) -> Option<Captured> {
        let deadline = Deadline::after(within);
        let mut seen = self.seen.lock().expect("no reader panicked");
        let mut looked = 0;
        loop {
            self.take_queued(&mut seen);
            if let Some(found) = seen[looked..].iter().find(|captured| matches(captured)) {
                return Some(found.clone());
            }
            looked = seen.len();
            if deadline.passed() {
                return None;
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not: the queue is looked at again.
            poll(&mut fds, deadline.poll_timeout()).ok();
        }
    }

    /// Forgets what was seen, so that the next question is about what comes.
    #[track_caller]
    pub fn clear(&self) {
        let mut seen = self.seen.lock().expect("no reader panicked");
        self.take_queued(&mut seen);
        seen.clear();
    }

    #[track_caller]
    fn take_queued(&self, seen: &mut Vec<Captured>) {
        let mut room = vec![0; LONGEST];
        loop {
            match receive(&self.socket, &mut room) {
                Ok(captured) => seen.push(captured),
                Err(Errno::EAGAIN) => break,
                // Interrupted; or the interface went down, and may come back up: what was seen stays.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => panic!("capture on {}: {error}", self.interface),
            }
        }
        let lost = getsockopt(&self.socket, PacketStatistics).expect("ask what was lost").tp_drops;
        assert_eq!(lost, 0, "capture on {}: frames did not fit into the queue", self.interface);
    }
}

impl Captured {
    /// Whether it left the namespace.
    pub fn was_sent(&self) -> bool {
        self.direction == Direction::Sent
    }
}

impl Display for Captured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { frame, direction, checksum } = self;
        write!(f, "{direction:?} {}", frame.decode())?;
        match checksum {
            Checksum::InFrame => Ok(()),
            Checksum::LeftToDevice => f.write_str(" (checksum left to a device)"),
        }
    }
}

impl Injector {
    /// Opens an interface.
    #[track_caller]
    pub fn on(namespace: &Netns, interface: &str) -> Self {
        let socket = packet_socket(namespace, interface, NO_PROTOCOL);
        Self { interface: format!("{interface} of {}", namespace.name()), socket }
    }

    /// Sends one frame. Panics when the interface does not take it.
    #[track_caller]
    pub fn send(&self, frame: impl AsRef<[u8]>) {
        self.try_send(frame).unwrap_or_else(|error| panic!("inject on {}: {error}", self.interface));
    }

    /// Sends one frame, or tells why the interface did not take it: `EMSGSIZE`, `ENETDOWN`, `ENOBUFS`.
    pub fn try_send(&self, frame: impl AsRef<[u8]>) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame.as_ref(), MsgFlags::empty())?;
        Ok(())
    }
}

/// A non-blocking packet socket that has seen no other interface than this one.
#[track_caller]
fn packet_socket(namespace: &Netns, interface: &str, protocol: u16) -> OwnedFd {
    let index = namespace.run(|| if_nametoindex(interface));
    let index = index.unwrap_or_else(|error| panic!("interface {interface} of {}: {error}", namespace.name()));
    bound_socket(namespace, index, protocol)
}

/// Interface 0 stands for all of them, now and later.
#[track_caller]
fn bound_socket(namespace: &Netns, index: u32, protocol: u16) -> OwnedFd {
    namespace.run(|| socket_here(index, protocol))
}

#[track_caller]
fn socket_here(index: u32, protocol: u16) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let none: Option<SockProtocol> = None;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, none).expect("open a packet socket");
    bind(socket.as_raw_fd(), &link_address(index, protocol))
        .unwrap_or_else(|error| panic!("bind to interface {index}: {error}"));
    socket
}

fn link_address(index: u32, protocol: u16) -> LinkAddr {
    let raw = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET).expect("families are small numbers"),
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(index).expect("the kernel counts interfaces in i32"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a `sockaddr_ll` that lives to the end of this function; nix copies as many bytes as
    // that has, after it looked at the family, which is the one of `sockaddr_ll`.
    unsafe { LinkAddr::from_raw(ptr::from_ref(&raw).cast(), None) }.expect("the family is that of packet sockets")
}

fn receive(socket: &OwnedFd, room: &mut [u8]) -> Result<Captured, Errno> {
    let mut buffers = [IoSliceMut::new(room)];
    let mut control = cmsg_space!(libc::tpacket_auxdata);
    let message = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let sent = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
    let auxiliary = message.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::Unknown(unknown) = control {
            Some(Auxiliary::read(&unknown.data_bytes))
        } else {
            None
        }
    });
    let length = message.bytes;
    let mut bytes = room[..length].to_vec();
    let Auxiliary { status, tag } = auxiliary.ok_or(Errno::EBADMSG)?;
    if status & libc::TP_STATUS_VLAN_VALID != 0 {
        bytes.splice(12..12, tag);
    }
    let unfinished = status & libc::TP_STATUS_CSUMNOTREADY != 0;
    Ok(Captured {
        frame: Frame::from_bytes(bytes),
        direction: if sent { Direction::Sent } else { Direction::Received },
        checksum: if unfinished { Checksum::LeftToDevice } else { Checksum::InFrame },
    })
}

/// What the kernel tells beside a frame.
struct Auxiliary {
    status: u32,
    /// The VLAN tag as it was on the wire, if `status` says there was one.
    tag: [u8; 4],
}

impl Auxiliary {
    /// Reads a `tpacket_auxdata`: status, two lengths (4 bytes each), two offsets, tag, tag's ethertype (2 bytes each).
    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]).to_be_bytes();
        let ([control_high, control_low], [type_high, type_low]) = (word(16), word(18));
        Self {
            status: u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            tag: [type_high, type_low, control_high, control_low],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::traffic::Outcome;
    use crate::traffic::ping::ping;
    use crate::underlay::{Family, UPLINK, Underlay};
    use crate::wait::eventually;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_ping_is_seen_both_ways_at_both_ends() {
        let underlay = Underlay::bridged(2);
        for (family, request, reply) in [(Family::V4, 8, 0), (Family::V6, 128, 129)] {
            let captures = [0, 1].map(|host| Capture::start(underlay.host(host), UPLINK));
            assert_eq!(ping(underlay.host(0), underlay.ip(1, family), SOON), Outcome::Reached);
            for (capture, first) in captures.iter().zip([Direction::Sent, Direction::Received]) {
                let way = |kind| {
                    let echo = |seen: &Captured| seen.frame.decode().icmp().is_some_and(|(found, _)| found == kind);
                    capture.wait_for(SOON, echo).map(|seen| seen.direction)
                };
                assert_eq!(way(request), Some(first));
                assert_ne!(way(reply), Some(first));
            }
            captures[0].clear();
            assert_eq!(captures[0].frames(), []);
        }
    }

    #[test]
    fn an_injected_frame_arrives_byte_by_byte() {
        let underlay = Underlay::bridged(2);
        let injector = Injector::on(underlay.host(0), UPLINK);
        let capture = Capture::start(underlay.host(1), UPLINK);
        for family in Family::BOTH {
            let (from, to) = (underlay.station(0, family), underlay.station(1, family));
            let plain = frame::udp(from, to).ports(1, 2).payload(b"hello").frame();
            for sent in [plain.vlan(42), frame::raw(from, to, 0x88b5, &[7; 60]), plain] {
                injector.send(&sent);
                let seen = capture.wait_for(SOON, |seen| seen.frame == sent).expect("the frame arrives");
                assert_eq!((seen.direction, seen.checksum), (Direction::Received, Checksum::InFrame));
            }
        }
        assert_eq!(injector.try_send([0; 1600]), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn a_whole_namespace_is_watched_with_what_it_gets_later() {
        let namespace = Netns::new("later");
        let capture = Capture::everywhere(&namespace);
        namespace.ip("link add near type veth peer name far");
        namespace.ip_batch("link set near up\nlink set far up\n");
        eventually(SOON, || namespace.ip("-br link show near").contains(" UP "));
        let station = Underlay::direct().station(0, Family::V4);
        let frame = frame::raw(station, station, 0x88b5, &[7; 60]);
        Injector::on(&namespace, "near").send(&frame);
        capture.wait_for(SOON, |seen| seen.frame == frame && !seen.was_sent()).expect("the far end hears it");
    }

    #[test]
    fn a_frame_that_does_not_come_is_not_waited_for_longer_than_asked() {
        let underlay = Underlay::bridged(2);
        let capture = Capture::start(underlay.host(1), UPLINK);
        assert_eq!(capture.wait_for(Duration::from_millis(50), |seen| seen.frame.bytes() == b"never"), None);
    }

    #[test]
    #[should_panic(expected = "interface eth7")]
    fn an_interface_that_is_not_there_is_named() {
        Capture::start(&Netns::new("bare"), "eth7");
    }
}
