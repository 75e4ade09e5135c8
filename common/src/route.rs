//! Where an address is: a local endpoint, a peer, this host, or outside.

use crate::addr::{Ip, Mac};
use crate::id::{Identity, PeerId};

crate::wire! {
    /// Where packets are handed over. `kind` is a [`HopKind`], `index` what it counts.
    pub struct Hop {
        /// [`HopKind`].
        pub kind: u32,
        /// The interface index of a local endpoint, or a [`PeerId`].
        pub index: u32,
    }

    /// What is known of an address or a prefix. The longest prefix decides.
    pub struct Route {
        /// Where it is.
        pub hop: Hop,
        /// Who has it. Of a block: its app, with [`crate::id::RoleId::UNKNOWN`].
        pub identity: Identity,
        /// Hardware address, of a known endpoint.
        pub mac: Mac,
        /// Zero.
        pub reserved: u16,
    }

    /// An endpoint, found by the interface its packets come in on.
    pub struct Endpoint {
        /// Its IPv4 address, or none.
        pub v4: Ip,
        /// Its IPv6 address, or none.
        pub v6: Ip,
        /// Who it is.
        pub identity: Identity,
        /// Its hardware address.
        pub mac: Mac,
        /// Zero.
        pub reserved: u16,
    }
}

/// The kinds of [`Hop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HopKind {
    /// Nobody has the address: inside an app's prefix, but given to no host, or to no endpoint of this one.
    Nowhere = 0,
    /// An endpoint on this host.
    Local = 1,
    /// An endpoint on a peer.
    Peer = 2,
    /// This host's own stack: its gateway addresses, and whatever is outside.
    Host = 3,
}

impl Hop {
    /// Nobody.
    pub const NOWHERE: Self = Self { kind: HopKind::Nowhere as u32, index: 0 };
    /// This host's stack.
    pub const HOST: Self = Self { kind: HopKind::Host as u32, index: 0 };

    /// The endpoint behind the interface with this index.
    #[inline(always)]
    pub const fn local(link: u32) -> Self {
        Self { kind: HopKind::Local as u32, index: link }
    }

    /// A peer.
    #[inline(always)]
    pub const fn peer(peer: PeerId) -> Self {
        Self { kind: HopKind::Peer as u32, index: peer.0 }
    }

    /// What kind it is; a number that is none is nowhere.
    #[inline(always)]
    pub const fn kind(self) -> HopKind {
        match self.kind {
            1 => HopKind::Local,
            2 => HopKind::Peer,
            3 => HopKind::Host,
            _ => HopKind::Nowhere,
        }
    }
}

impl Route {
    /// Where everything is that no prefix names.
    pub const OUTSIDE: Self = Self { hop: Hop::HOST, identity: Identity::OUTSIDE, mac: Mac([0; 3]), reserved: 0 };
}

impl Endpoint {
    /// Whether `ip` is one of its own addresses.
    #[inline(always)]
    pub fn has(&self, ip: Ip) -> bool {
        ip != Ip::NONE && (ip == self.v4 || ip == self.v6)
    }
}
