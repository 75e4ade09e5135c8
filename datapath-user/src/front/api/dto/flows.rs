//! Connections, and what pairs of apps exchange.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{
    naming::Protocol,
    side::{RuleMention, Side, Volume},
    text,
};
use crate::model::name::{AppName, EndpointName};

/// Connections that were allowed. A filter that is there has to hold on either side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListFlows {
    /// One side is in the app.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// One side is an endpoint of this name.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointName>,
    /// One side has the address.
    #[serde(deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// One side has the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// It is of the protocol.
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Not more than so many; without it, 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What each pair of apps exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListTraffic {}

/// Connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowList {
    /// The busiest first.
    pub flows: Vec<Flow>,
    /// How many the filters left, of which `flows` may be a part.
    pub total: u64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: String,
    /// Who opened it.
    pub opener: Side,
    /// The other side.
    pub other: Side,
    /// `opening`, `open`, `closing`, `ended`.
    pub state: String,
    /// What allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleMention>,
    /// From the opener.
    pub sent: Volume,
    /// To the opener.
    pub received: Volume,
    /// How long ago it was opened.
    pub age_ms: u64,
    /// How long ago its last packet was.
    pub idle_ms: u64,
    /// Whether the policy changed since it was decided, or a rule ended: its next packet is decided again.
    pub stale: bool,
}

/// What pairs of apps exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficList {
    /// The busiest first.
    pub pairs: Vec<Pair>,
}

/// What went one way between two apps, since the tables were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The sender's app, `host` or `outside`.
    pub from: String,
    /// The receiver's.
    pub to: String,
    /// What was handed on.
    pub volume: Volume,
    /// Connections that were allowed.
    pub flows: u64,
    /// Packets that were dropped.
    pub drops: u64,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text::address(&text).map_err(D::Error::custom)).transpose()
}
