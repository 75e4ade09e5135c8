//! Parts of answers that several of them have.

use serde::{Deserialize, Serialize};

use crate::model;

/// One end of a packet or of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its app, `host` or `outside`; none if that was not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The endpoint, the host or the peer, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its port, if the protocol has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A rule, as something else refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMention {
    /// What it says, with its name; of a default a sentence, as "default of blog: closed to other apps".
    pub text: String,
    /// Its number in the tables; none of a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// The allow rule that misses least of what a default refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// The rule.
    pub rule: RuleMention,
    /// What it misses.
    pub miss: Miss,
    /// All that it allows of that: `tcp/5432`, `blog`, `blog/db`.
    pub only: String,
}

/// The one thing for which a rule does not speak of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Miss {
    /// It means both ends, and other traffic.
    Traffic,
    /// It means another sender.
    Sender,
    /// It means another receiver.
    Receiver,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As the operator named it.
    pub file: String,
    /// Counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// What was sent one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Packets. A merged one counts as it was handed on.
    pub packets: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
}

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", content = "why", rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ready,
    /// Something is missing yet.
    Waiting(String),
    /// It did not work, and is tried again.
    Failed(String),
}

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It passes.
    Allow,
    /// It is dropped in silence.
    Deny,
    /// It is dropped, and the sender is told.
    Reject,
}

/// As the app sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the app.
    Ingress,
    /// From the app.
    Egress,
}

impl RuleMention {
    /// A rule of the cluster.
    pub fn of(id: Option<u32>, rule: &model::rule::Rule) -> Self {
        Self { text: rule.to_string(), id, source: rule.source.as_ref().map(Source::of) }
    }
}

impl Source {
    /// A line of a file.
    pub fn of(source: &model::rule::Source) -> Self {
        Self { file: source.file.to_string(), line: Some(source.line), column: None }
    }
}

impl Decision {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

impl Direction {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl From<weft_common::policy::Direction> for Direction {
    fn from(direction: weft_common::policy::Direction) -> Self {
        use weft_common::policy::Direction;
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}
