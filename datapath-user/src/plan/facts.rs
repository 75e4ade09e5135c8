//! What only the kernel knows, as far as a plan depends on it. A fact that is missing is not waited for: what
//! depends on it is left out until it is there.

use std::{collections::BTreeMap, net::IpAddr};

use crate::model::name::{HostName, LinkName};

/// What the kernel of this host says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interface index of the gateway device.
    pub gateway: Option<u32>,
    /// Interface index of the host's side of each endpoint's link.
    pub links: BTreeMap<LinkName, u32>,
    /// How each peer is reached.
    pub underlay: BTreeMap<HostName, Underlay>,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Which of the peer's addresses.
    pub addr: IpAddr,
    /// This host's address on the way there.
    pub local: IpAddr,
    /// The next hop on the uplink: the peer itself on the same link.
    pub next_hop: IpAddr,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// Largest packet that the path takes, in bytes.
    pub path_mtu: u32,
}
