//! Why a packet is dropped: the index of the counters, and the words the CLI prints.

macro_rules! drop_reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )*) => {
        /// Why a packet was not delivered. Every exit that drops names one; the number is an index into
        /// the per-CPU counters.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason { $( $(#[doc = $doc])+ $variant ),* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),* ];

            /// The word that the CLI prints and an operator searches for.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),* }
            }

            /// What it means, as a sentence.
            pub const fn explain(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc),+) ),* }
            }
        }
    };
}

drop_reasons! {
    /// The frame is cut short, or its lengths contradict each other.
    Malformed = "malformed",
    /// The packet carries IPv4 options, which could hide where the transport header starts.
    Ipv4Options = "ipv4-options",
    /// An IPv6 extension header is unknown, or there are more of them than are read.
    Ipv6Extension = "ipv6-extension",
    /// A fragment whose first fragment was not seen: nothing says which flow it belongs to.
    FragmentUntracked = "fragment-untracked",
    /// A first fragment that does not hold the whole transport header.
    FragmentShort = "fragment-short",
    /// A fragment overlaps the first one; the rest of its datagram is dropped too.
    FragmentOverlap = "fragment-overlap",
    /// The source address, or source and destination together, can not be on a network: none, loopback, multicast, or the same.
    Martian = "martian",
    /// The interface carries a weft program but belongs to no endpoint.
    UnknownInterface = "unknown-interface",
    /// The source MAC is not the endpoint's.
    SpoofedMac = "spoofed-mac",
    /// The source address is not the endpoint's.
    SpoofedAddress = "spoofed-address",
    /// An ARP packet or neighbour advertisement claims an address that is not the sender's.
    ForgedNeighbor = "forged-neighbor",
    /// A router advertisement, a redirect, a listener query, or a DHCP server's answer from who is none of these.
    RogueRouter = "rogue-router",
    /// The frame is neither IP nor ARP and its destination is no endpoint of the sender's app.
    UnknownStation = "unknown-station",
    /// The frame is neither IP nor ARP, and the app is closed inside or has rules about its inside: they speak of IP alone.
    NotIp = "not-ip",
    /// The destination is inside an app's prefix, but no host has it.
    NoRoute = "no-route",
    /// The destination was given to this host, but no endpoint here has it.
    NoEndpoint = "no-endpoint",
    /// A rule denies it.
    PolicyDenied = "policy-denied",
    /// A rule rejects it; the sender was told.
    PolicyRejected = "policy-rejected",
    /// No rule allows it and the default is closed.
    PolicyDefault = "policy-default",
    /// The rules have no entry for the identity: closed until the daemon has written one.
    PolicyAbsent = "policy-absent",
    /// The flow was allowed once and a later change denies it.
    PolicyRevoked = "policy-revoked",
    /// An ICMP error quotes no flow that is known, or goes the wrong way.
    IcmpUnrelated = "icmp-unrelated",
    /// A tunnel packet from an address that is no peer.
    UnknownPeer = "unknown-peer",
    /// The inner source address is not one that the peer owns.
    PeerNotOwner = "peer-not-owner",
    /// The app or role on the wire is not the one the cluster state gives the inner source address.
    IdentityMismatch = "identity-mismatch",
    /// The tunnel header is cut short or carries flags that are not ours.
    TunnelMalformed = "tunnel-malformed",
    /// The tunnel packet itself is a fragment.
    TunnelFragment = "tunnel-fragment",
    /// A tunnel packet came in elsewhere than on an uplink.
    TunnelOffUplink = "tunnel-off-uplink",
    /// A tunnel packet in clear text from a peer with which traffic is encrypted.
    Cleartext = "cleartext",
    /// The tunnel packet's ECN bits say congestion, the inner packet's say they can not (RFC 6040).
    EcnInvalid = "ecn-invalid",
    /// The packet does not fit the path and may not be fragmented; the sender was told the size.
    TooBig = "too-big",
    /// The endpoint sends more to everybody than one may.
    BroadcastStorm = "broadcast-storm",
    /// The tunnel's port of a host is not for others: masqueraded, what they send there would come from a peer.
    HostPort = "host-port",
    /// The kernel refused to change the packet's size or to redirect it.
    KernelRefused = "kernel-refused",
    /// The peer's entry has no next hop yet.
    PeerUnreachable = "peer-unreachable",
}

impl DropReason {
    /// How many reasons there are: the size of the counter table.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason with this number.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Whether policy refuses what is dropped for the reason with this number: a rule, a default, or the want of both.
    #[inline(always)]
    pub const fn is_of_policy(number: u32) -> bool {
        const POLICY: u64 = 1 << DropReason::PolicyDenied as u32
            | 1 << DropReason::PolicyRejected as u32
            | 1 << DropReason::PolicyDefault as u32
            | 1 << DropReason::PolicyAbsent as u32
            | 1 << DropReason::PolicyRevoked as u32;
        const { assert!(Self::COUNT <= 64) };
        POLICY >> (number & 63) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_one_to_one() {
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(DropReason::from_index(index), Some(*reason));
            assert_eq!(*reason as usize, index);
            assert!(reason.explain().ends_with('.'), "{}", reason.name());
            let number = u32::try_from(index).expect("few");
            assert_eq!(DropReason::is_of_policy(number), reason.name().starts_with("policy-"));
        }
    }
}
