//! What one run of a program came to, and what can be said of it.
//!
//! `BPF_PROG_TEST_RUN` tells the action and the packet, not where a redirect leads. What is asserted instead is what
//! the redirect was made of: the hop in the flow's entry, and the addresses in the packet.

use super::cast::{At, Member};
use super::event::Event;
use super::machine::{Context, Program};
use super::state::State;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use weft_common::addr::{Ip, Mac};
use weft_common::event::sample::SHADOW;
use weft_common::event::{Hook, Kind};
use weft_common::flow::FlowKey;
use weft_common::header::protocol;
use weft_common::id::PeerId;
use weft_common::parse::Ports;
use weft_common::route::{Hop, HopKind};
use weft_common::verdict::DropReason;
use weft_tests::frame::decoded::{Decoded, Net, Transport};
use weft_tests::frame::{ETHER, Frame};
use weft_tests::underlay::Family;

/// What the kernel does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It goes on to whoever is next.
    Pass,
    /// It is gone.
    Drop,
    /// It goes elsewhere.
    Redirect,
}

/// One run of a program.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) at: At,
    pub(crate) program: Program,
    pub(crate) context: Context,
    pub(crate) action: Action,
    pub(crate) input: Frame,
    pub(crate) output: Frame,
    pub(crate) events: Vec<Event>,
    pub(crate) before: State,
    pub(crate) after: State,
    /// The underlay's family.
    pub(crate) outer: Family,
}

impl Action {
    pub(crate) fn of(program: Program, code: u32) -> Self {
        match (program, code) {
            // XDP_PASS, TC_ACT_UNSPEC: TC_ACT_OK would keep it from others' programs.
            (Program::Guard, 2) | (_, u32::MAX) => Self::Pass,
            // XDP_DROP, TC_ACT_SHOT.
            (Program::Guard, 1) | (_, 2) => Self::Drop,
            // TC_ACT_REDIRECT.
            (_, 7) => Self::Redirect,
            other => panic!("an answer that no program of ours gives: {other:?}"),
        }
    }
}

impl Ran {
    /// The reason, if the packet was dropped.
    pub(crate) fn reason(&self) -> Option<DropReason> {
        self.after.dropped_since(&self.before)
    }

    /// Dropped for a reason, as it came, and nobody is told.
    #[track_caller]
    pub(crate) fn dropped(&self) -> DropReason {
        assert_eq!(self.action, Action::Drop, "{self}");
        self.reason().unwrap_or_else(|| panic!("no reason was counted: {self}"))
    }

    /// Dropped, and the sender is told: the answer, on its way to him.
    #[track_caller]
    pub(crate) fn answered(&self) -> Frame {
        assert!(self.action == Action::Redirect && self.reason().is_some(), "{self}");
        self.output.clone()
    }

    /// Dropped, for its connection is over: what the receiver's host is told, in the tunnel. The sender got a copy.
    #[track_caller]
    pub(crate) fn ends_at(&self, peer: At) -> Frame {
        assert!(self.action == Action::Redirect && self.reason() == Some(DropReason::PolicyRevoked), "{self}");
        self.assert_tunnelled_to(peer);
        self.output.clone()
    }

    /// Taken and not needed any more: answered by silence, or copied.
    #[track_caller]
    pub(crate) fn absorbed(&self) {
        assert!(self.action == Action::Drop && self.reason().is_none(), "{self}");
    }

    /// Not ours: it passes as it is.
    #[track_caller]
    pub(crate) fn passed(&self) {
        assert_eq!(self.action, Action::Pass, "{self}");
    }

    /// Into the container of an endpoint.
    #[track_caller]
    pub(crate) fn enters(&self, member: Member, link: u32) -> Frame {
        self.assert_redirected();
        let read = self.output.decode();
        assert_eq!(read.dst_mac, member.mac(), "not for {}: {self}", member.name);
        if let Some(hop) = self.hop() {
            assert_eq!(hop, Hop::local(link), "not into {}: {self}", member.name);
        }
        self.unpadded()
    }

    /// Into the tunnel to a peer.
    #[track_caller]
    pub(crate) fn leaves_for(&self, peer: At) -> Frame {
        self.assert_redirected();
        self.assert_tunnelled_to(peer);
        if let Some(hop) = self.hop() {
            assert_eq!(hop, Hop::peer(PeerId(peer.number().into())), "not to host {}: {self}", peer.name());
        }
        self.output.clone()
    }

    /// To the stack of this host.
    #[track_caller]
    pub(crate) fn reaches_host(&self) -> Frame {
        self.assert_redirected();
        let read = self.output.decode();
        assert_eq!(read.dst_mac, Mac::GATEWAY.bytes(), "not for the host: {self}");
        if let Some(hop) = self.hop() {
            assert_eq!(hop.kind(), HopKind::Host, "not to the host: {self}");
        }
        self.unpadded()
    }

    /// Out of the interface it came from: an answer that is no drop.
    #[track_caller]
    pub(crate) fn replied(&self) -> Frame {
        self.assert_redirected();
        assert_eq!(self.output.decode().dst_mac, self.input.decode().src_mac, "not an answer: {self}");
        self.output.clone()
    }

    /// What is delivered is as long as the frame that was sent. Kernels before 6.3 do not let an IPv4 packet that comes out of an IPv6 tunnel be shorter than an IPv6 header,
    /// so it is padded there.
    #[track_caller]
    fn unpadded(&self) -> Frame {
        let bytes = self.output.bytes();
        let length = usize::try_from(self.inner_length()).expect("short");
        let (frame, padding) = bytes.split_at(length.min(bytes.len()));
        let may_pad = self.program == Program::FromUnderlay && self.outer == Family::V6 && bytes.len() == ETHER + 40;
        assert!(padding.is_empty() || may_pad && padding.iter().all(|byte| *byte == 0), "longer than sent: {self}");
        assert_eq!(frame.len(), length, "shorter than sent: {self}");
        Frame::from_bytes(frame)
    }

    #[track_caller]
    fn assert_tunnelled_to(&self, peer: At) {
        let read = self.output.decode();
        let ends = [self.at, peer].map(|at| at.station(self.outer).ip);
        assert_eq!([read.ip().src, read.ip().dst], ends, "not to host {}: {self}", peer.name());
        assert_eq!(read.tunnel().header[1], 0, "{self}");
    }

    #[track_caller]
    fn assert_redirected(&self) {
        assert!(self.action == Action::Redirect && self.reason().is_none(), "{self}");
    }

    /// Where the flow's entry says that packets as this one go. Not known of what has no flow of its own.
    fn hop(&self) -> Option<Hop> {
        let read = self.output.decode();
        let (key, leg) = match read.tunnel {
            Some(tunnel) => key(&tunnel.inner)?,
            None => key(&read)?,
        };
        self.after.flows.get(&key).map(|flow| flow.side[leg.other().index()].hop)
    }

    /// What must hold of every run, whatever its story is about.
    #[track_caller]
    pub(crate) fn check(&self) {
        let reason = self.reason();
        let unchanged = self.output == self.input;
        match (self.action, reason) {
            (Action::Pass, None) => {
                assert!(unchanged && self.after == self.before, "passes, and leaves traces: {self}");
            }
            (Action::Pass, Some(_)) => panic!("counted as dropped, and passes: {self}"),
            (Action::Drop, None) => {
                let is_taken = self.is_neighbour_talk() || self.is_for_many() || self.is_copied();
                assert!(is_taken, "dropped without a reason: {self}");
            }
            (Action::Drop, Some(reason)) => {
                let may_change = [DropReason::KernelRefused, DropReason::PolicyRevoked].contains(&reason);
                assert!(unchanged || may_change, "changed, and dropped: {self}");
            }
            (Action::Redirect, None) => {}
            (Action::Redirect, Some(reason)) => assert!(is_told(reason), "answered: {self}"),
        }
        let (packets, bytes) = self.after.passed();
        let (packets_before, bytes_before) = self.before.passed();
        let copies = packets - packets_before;
        assert!(copies <= 1 || self.is_for_many() || self.is_copied(), "counted twice: {self}");
        assert_eq!(bytes - bytes_before, copies * self.inner_length(), "bytes are those of the inner frame: {self}");
        if self.action == Action::Redirect && self.input.decode().faults.is_empty() {
            let faults = self.output.decode().faults;
            assert!(faults.is_empty(), "{faults:?}: {self}");
        }
        self.check_events();
    }

    fn check_events(&self) {
        let drops: Vec<_> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Drop(drop) => Some(drop),
                Event::Miss(..) => None,
            })
            .collect();
        assert!(drops.len() <= 1, "told twice: {self}");
        for drop in drops {
            let told = self.reason().map_or((Kind::Shadow, SHADOW), |reason| (Kind::Drop, reason as u32));
            assert_eq!((drop.kind, drop.reason), (told.0 as u32, told.1), "something else is told: {self}");
            assert_eq!(
                (Hook::from_raw(drop.hook).name(), drop.link),
                (self.program.name(), self.context.link),
                "{self}"
            );
        }
    }

    /// Copies of it go to the members of an app.
    fn is_for_many(&self) -> bool {
        let read = self.input.decode();
        let inner = read.tunnel.as_ref().map_or(&read, |tunnel| &tunnel.inner);
        let is_group = |ip: IpAddr| ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        inner.dst_mac[0] & 1 == 1 || matches!(&inner.net, Net::Ip(ip) if is_group(ip.dst))
    }

    /// Neither IP nor ARP, and copies of it went to the peers.
    fn is_copied(&self) -> bool {
        let is_other = !matches!(self.input.decode().ethertype, 0x0800 | 0x0806 | 0x86dd);
        is_other && self.program == Program::FromWorkload && self.after.passed() != self.before.passed()
    }

    /// Of the frame in the tunnel, or of the frame.
    fn inner_length(&self) -> u64 {
        const OVERHEAD: [usize; 2] = [50, 70];
        let outside = match (self.program, self.outer) {
            (Program::FromUnderlay, Family::V4) => OVERHEAD[0],
            (Program::FromUnderlay, Family::V6) => OVERHEAD[1],
            _ => 0,
        };
        self.input.bytes().len().saturating_sub(outside) as u64
    }

    /// ARP and neighbour discovery: what is answered or not, and never forwarded.
    fn is_neighbour_talk(&self) -> bool {
        let read = self.input.decode();
        let inner = read.tunnel.as_ref().map_or(&read, |tunnel| &tunnel.inner);
        inner.ethertype == 0x0806 || matches!(inner.transport, Transport::Icmp { kind: 133..=137, .. })
    }
}

/// Whether the sender of what is dropped for this reason is told.
fn is_told(reason: DropReason) -> bool {
    use DropReason::{NoEndpoint, NoRoute, PolicyRejected, PolicyRevoked, TooBig};
    [NoEndpoint, NoRoute, PolicyRejected, PolicyRevoked, TooBig].contains(&reason)
}

/// The flow of a packet that has one of its own.
fn key(read: &Decoded) -> Option<(FlowKey, weft_common::flow::Leg)> {
    let Net::Ip(ip) = &read.net else { return None };
    let ports = match read.transport {
        Transport::Tcp { ports: [src, dst], .. } | Transport::Udp { ports: [src, dst], .. } => Ports { src, dst },
        Transport::Icmp { kind, rest: [high, low, ..], .. } => {
            let id = u16::from_be_bytes([high, low]);
            match (ip.protocol, kind) {
                (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Ports { src: id, dst: kind.into() },
                (protocol::ICMP, 0) => Ports { src: 8, dst: id },
                (protocol::ICMPV6, 129) => Ports { src: 128, dst: id },
                _ => return None,
            }
        }
        Transport::Unknown => return None,
    };
    Some(FlowKey::of(Ip::from(ip.src), Ip::from(ip.dst), ip.protocol, ports))
}

impl Display for Ran {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { at, program, context, action, input, output, events, after, .. } = self;
        writeln!(f, "{} on host {}, {context:?}: {action:?}", program.name(), at.name())?;
        writeln!(f, "in  {input:?}")?;
        if output == input || output.bytes().len() < ETHER {
            writeln!(f, "out unchanged")?;
        } else {
            writeln!(f, "out {output:?}")?;
        }
        events.iter().try_for_each(|event| writeln!(f, "told {event:?}"))?;
        write!(f, "host {} now:\n{after}", at.name())
    }
}
