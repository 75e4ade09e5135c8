//! Packets that were dropped.

use serde::{Deserialize, Serialize};

use super::{
    side::{Direction, Nearest, RuleMention, Side},
    time::Timestamp,
};

/// Drops by reason, and the last that were reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDrops {}

/// Drops from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowDrops {}

/// Drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropList {
    /// Exact counts since the tables were made, of the reasons that have any.
    pub counters: Vec<DropCount>,
    /// A sample of the last ones, the oldest first.
    pub recent: Vec<Dropped>,
}

/// How often a reason dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Its word.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub explain: String,
}

/// One dropped packet of possibly many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// When.
    pub time: Timestamp,
    /// The host that dropped it.
    pub host: String,
    /// The program that dropped it.
    pub hook: String,
    /// Whose rules decided, if rules did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Who sent it.
    pub from: Side,
    /// Whom it was for.
    pub to: Side,
    /// Transport protocol; of ICMP with type and code.
    pub protocol: String,
    /// TCP control bits, as `SYN,ACK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<String>,
    /// Why: a word of [`DropCount::reason`].
    pub reason: String,
    /// The rule or default that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleMention>,
    /// The allow rule that misses it by least, if a default dropped it: of the rules at the time of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// The revision in force on the host at the time of the answer, if rules decided: a drop of before may have met an
    /// older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Drops of the same reason since the event before that were not reported.
    pub skipped: u64,
    /// A rule that is only tried, or a default of an app whose policy is, and would have decided otherwise. With the
    /// reason [`Dropped::SHADOW`] the packet passed, and this would drop it; else it would have let it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<RuleMention>,
    /// A rule that would let it pass, if rules dropped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_allow: Option<String>,
}

impl Dropped {
    /// The word in the place of a reason where the packet passed.
    pub const SHADOW: &str = "shadow";
}
