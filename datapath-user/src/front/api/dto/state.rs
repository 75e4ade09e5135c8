//! How this host is: peers, status, doctor, reset.

use serde::{Deserialize, Serialize};

use super::{
    side::{Source, State},
    time::Timestamp,
};

/// The other hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPeers {}

/// How this host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// Checks of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnose {}

/// Leaves the host as it was before weft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {}

/// The other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerList {
    /// This host.
    pub host: String,
    /// By name.
    pub peers: Vec<Peer>,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What it is called.
    pub name: String,
    /// The underlay address that is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay: Option<String>,
    /// The interface that leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// The next hop, as `192.0.2.1 at 02:00:00:00:00:01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// The largest packet of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// The largest packet of a container on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_mtu: Option<u32>,
    /// What it was given of the apps' prefixes.
    pub prefixes: Vec<String>,
    /// Whether packets reach it.
    pub state: State,
}

/// How this host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This host.
    pub host: String,
    /// Of the daemon.
    pub version: String,
    /// Of the kernel.
    pub kernel: String,
    /// When the daemon started.
    pub started: Timestamp,
    /// The newest revision of the cluster.
    pub revision: u64,
    /// The revision that the programs enforce; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// The epoch that the programs have.
    pub epoch: u32,
    /// Of the policy that the programs enforce: hosts with the same digest enforce the same. None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The edit of the cluster that was refused, if the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What does not work as it should: programs, links, tables.
    pub degraded: Vec<Degraded>,
    /// How the programs are attached.
    pub hook_kind: HookKind,
    /// How packets are wrapped, as `vxlan-gbp by adjust_room`.
    pub encapsulation: String,
    /// UDP port of the tunnel.
    pub port: u16,
    /// The gateway device.
    pub gateway: Gateway,
    /// Whether traffic to the outside gets the host's address.
    pub masquerade: State,
    /// How full the tables are.
    pub tables: Vec<Table>,
    /// What was found changed by others, and repaired.
    pub repaired: Vec<Repaired>,
    /// Flows that the daemon ended since it started, for policy had come to deny them and nothing was being sent. The
    /// programs end the others, and count them as drops.
    #[serde(default)]
    pub revoked: u64,
    /// The last time that the host was compared with what it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<Reconcile>,
    /// Endpoints of this host.
    pub endpoints: Tally,
    /// Other hosts.
    pub peers: Tally,
}

/// An edit that was refused; what was in force before still is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong and what to do.
    pub what: String,
    /// Where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Something that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// What.
    pub what: String,
    /// Why, and what holds instead.
    pub why: String,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookKind {
    /// Links of kernel 6.6 and later.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// The gateway device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its name.
    pub device: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is there.
    pub state: State,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Elements.
    pub used: u64,
    /// Most elements.
    pub max: u64,
    /// How many have no room, as of the last look. Of TRAFFIC: how many packets had none, and are in no other count
    /// than those of drops by reason.
    pub refused: u64,
}

/// A kind of thing that others changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// What, as `map ROUTES`, `link`, `route`.
    pub what: String,
    /// How often, since the daemon started.
    pub times: u64,
}

/// The last comparison with what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// How many there were since the daemon was started.
    pub passes: u64,
}

/// How many there are, and how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// As they should be.
    pub ready: u64,
    /// Something is missing yet.
    pub waiting: u64,
    /// It did not work.
    pub failed: u64,
}

/// Checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What came of it.
    pub result: CheckResult,
    /// What was found.
    pub detail: String,
    /// What to do, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// Something does not work.
    Fail,
}

/// What reset took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetDone {
    /// What is gone.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
}
