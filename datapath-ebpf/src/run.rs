//! What one run of a program has found out about its packet, step by step.
//!
//! It lives in per-CPU memory, because the kernel's 512 bytes of stack are shared by a whole call chain.
//! Every CPU has its own, and runs that use it do not nest: a program that redirects has ended before the packet
//! moves, copies to containers are queued, and copies to peers, which pass `from_host` at once, are let through by it
//! before it begins.

use weft_common::addr::{Ip, Mac};
use weft_common::answer::{Ending, Error6, Notice};
use weft_common::event::Hook;
use weft_common::flow::{Flow, Side};
use weft_common::id::Identity;
use weft_common::parse::Packet;
use weft_common::policy::Query;
use weft_common::route::{Hop, Route};
use weft_common::table::Account;
use weft_common::tunnel::Tunnel;

use crate::outcome::{Forward, Outcome};
use crate::packet::Room;

/// See the module.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Run {
    /// The packet, as far as it was read.
    pub packet: Packet,
    /// Where its link header starts: behind the tunnel's headers, or at the start.
    pub link: u32,
    /// The tunnel it came in by, if it did.
    pub tunnel: Tunnel,
    /// Who sent it, established by the hook.
    pub sender: Party,
    /// Whom it is for.
    pub receiver: Party,
    /// What policy is asked.
    pub query: Query,
    /// A flow that is to be remembered.
    pub flow: Flow,
    /// When the run began, in nanoseconds of the monotonic clock.
    pub now: u64,
    /// The rule that decided, 0 for a default, or [`Account::NO_RULE`].
    pub rule: u32,
    /// The rule that is only tried and would have decided otherwise, or 0: [`weft_common::policy::shadow`].
    pub shadow: u32,
    /// Whether that is news: 1 of the first packet of a flow that would not have been allowed.
    pub tells_shadow: u32,
    /// Until when what was decided holds, as [`Flow::until`].
    pub until: u64,
    /// When the packet does not fit: what does.
    pub mtu: u32,
    /// What the sender is told.
    pub notice: Notice,
    /// How the packet's connection ends.
    pub ending: Ending,
    /// Where headers are made.
    pub room: Room,
    /// What an ICMP error quotes.
    pub quote: [u8; Error6::QUOTE],
    /// Where the packet goes. In memory, because a value of many shapes is to the verifier registers that nobody filled.
    pub forward: Forward,
    /// Number of the [`weft_common::verdict::DropReason`] when it is dropped.
    pub reason: u32,
    /// Which program runs.
    pub hook: Hook,
    /// Whose rule set decided.
    pub direction: u8,
}

/// One end of a packet's way.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Party {
    /// Where its packets come from and go to.
    pub hop: Hop,
    /// Who it is.
    pub identity: Identity,
    /// Its hardware address; zero when it is not known.
    pub mac: Mac,
}

impl Run {
    /// Forgets the run before.
    #[inline(always)]
    pub fn begin(&mut self, hook: Hook, now: u64) {
        self.hook = hook;
        self.now = now;
        self.link = 0;
        self.packet.src = Ip::NONE;
        self.packet.dst = Ip::NONE;
        self.packet.key.port = [0; 2];
        self.packet.protocol = 0;
        self.packet.policy_port = 0;
        self.packet.tcp_flags = 0;
        self.sender = Party::default();
        self.receiver = Party::default();
        self.rule = Account::NO_RULE;
        self.shadow = 0;
        self.tells_shadow = 0;
        self.mtu = 0;
        self.direction = 0;
        self.forward = Forward::Done;
    }

    /// What the packet is counted under.
    #[inline(always)]
    pub const fn account(&self) -> Account {
        let account = Account::new(self.sender.identity.app, self.receiver.identity.app, self.rule);
        Account { shadow: self.shadow, ..account }
    }

    /// Says where the packet goes.
    #[inline(always)]
    pub fn goes(&mut self, forward: Forward) -> Outcome {
        self.forward = forward;
        Ok(())
    }
}

impl Party {
    /// A side of a flow.
    #[inline(always)]
    pub fn of(side: &Side) -> Self {
        Self { hop: side.hop, identity: side.identity, mac: side.mac }
    }

    /// Whoever has an address.
    #[inline(always)]
    pub fn at(route: &Route) -> Self {
        Self { hop: route.hop, identity: route.identity, mac: route.mac }
    }

    /// Makes it a side of a flow, which keeps its counts.
    #[inline(always)]
    pub fn place(&self, side: &mut Side) {
        side.hop = self.hop;
        side.identity = self.identity;
        side.mac = self.mac;
    }
}
