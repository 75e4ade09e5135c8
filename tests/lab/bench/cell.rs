//! What is measured: a metric in surroundings, for several settings side by side.

use std::fmt;

use serde::Serialize;
use weft_tests::underlay::{Family, Offloads};

/// How packets get from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// Between two hosts, no containers: what the underlay can do.
    Host,
    /// Containers on two hosts, joined by a kernel VXLAN device and a bridge on each, which asks no firewall.
    Vxlan,
    /// The same with bridges that ask the firewall, as they do where Docker runs; it has no rules.
    Filtered,
    /// Containers on two hosts, joined by weft. Without rules both are in one app; with rules each is in its own.
    Weft {
        /// How many.
        rules: u32,
    },
    /// Two namespaces joined by one veth pair.
    Veth,
    /// Two containers on one host, joined by weft.
    Local,
}

/// What is done between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// Streams, so many at once.
    Tcp {
        /// How many.
        flows: usize,
    },
    /// Small datagrams.
    Udp,
    /// A byte there and a byte back on one connection.
    Requests,
    /// The same on a connection of its own.
    Connections,
}

/// A number that a metric gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantity {
    /// Gbit/s of payload.
    Throughput,
    /// Seconds of processor time for a gigabyte, of both ends and all that is between.
    Work,
    /// Microseconds of processor time for a packet or an exchange. Holds where rates do not: on a machine that others
    /// use too.
    Effort,
    /// Million packets a second.
    Packets,
    /// Microseconds that half of the exchanges took at most.
    Median,
    /// Microseconds that 99 of 100 exchanges took at most.
    Tail,
    /// Connections a second.
    Connections,
}

/// What one measurement found.
pub(super) type Sample = Vec<(Quantity, f64)>;

/// What is the same for all settings that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Of the containers' addresses, or the hosts'.
    pub(super) family: Family,
    pub(super) underlay: Segment,
}

/// The underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) mtu: u32,
    pub(super) offloads: Offloads,
}

/// A line of the result: settings that take turns in every round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) surroundings: Surroundings,
    pub(super) metric: Metric,
    pub(super) settings: Vec<Setting>,
}

impl Metric {
    pub(super) const ALL: [Self; 5] =
        [Self::Tcp { flows: 1 }, Self::Tcp { flows: 8 }, Self::Udp, Self::Requests, Self::Connections];

    /// As it is selected on the command line.
    pub(super) fn name(self) -> String {
        match self {
            Self::Tcp { flows } => format!("tcp{flows}"),
            Self::Udp => "udp".into(),
            Self::Requests => "rr".into(),
            Self::Connections => "crr".into(),
        }
    }

    /// The numbers it gives.
    pub(super) fn quantities(self) -> &'static [Quantity] {
        match self {
            Self::Tcp { .. } => &[Quantity::Throughput, Quantity::Work],
            Self::Udp => &[Quantity::Packets, Quantity::Effort],
            Self::Requests => &[Quantity::Median, Quantity::Tail, Quantity::Effort],
            Self::Connections => &[Quantity::Connections, Quantity::Effort],
        }
    }
}

impl Setting {
    /// What it is compared with first: the same path without anybody's network.
    pub(super) fn baseline(self) -> Self {
        match self {
            Self::Host | Self::Vxlan | Self::Filtered | Self::Weft { .. } => Self::Host,
            Self::Veth | Self::Local => Self::Veth,
        }
    }
}

impl Quantity {
    /// With its unit.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::Work => "CPU s/GB",
            Self::Effort => "CPU us each",
            Self::Packets => "Mpackets/s",
            Self::Median => "p50 us",
            Self::Tail => "p99 us",
            Self::Connections => "conn/s",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Vxlan => f.write_str("vxlan"),
            Self::Filtered => f.write_str("vxlan+nf"),
            Self::Weft { rules: 0 } => f.write_str("weft"),
            Self::Weft { rules } => write!(f, "weft+{rules}"),
            Self::Veth => f.write_str("veth"),
            Self::Local => f.write_str("local"),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { flows: 1 } => f.write_str("TCP, 1 flow"),
            Self::Tcp { flows } => write!(f, "TCP, {flows} flows"),
            Self::Udp => f.write_str("UDP, 64 bytes"),
            Self::Requests => f.write_str("request/response"),
            Self::Connections => f.write_str("connect/request/close"),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offloads = match self.offloads {
            Offloads::On => "on",
            Offloads::Off => "off",
            Offloads::Merged => "off but GRO",
        };
        write!(f, "MTU {}, offloads {offloads}", self.mtu)
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{family}, {}", self.underlay)
    }
}

impl Serialize for Setting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
