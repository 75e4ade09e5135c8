//! Why a request was not done, as the caller is told.

use std::{error::Error, fmt};

use serde::{Deserialize, Serialize};

use crate::model::{invalid::Invalid, name::AppName};

/// A request that was not done. The message names the thing and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of no.
    pub kind: Kind,
    /// One sentence.
    pub message: String,
    /// What else is wrong, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

/// The kinds of refusal: what a caller that is a program branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request can not be understood.
    Invalid,
    /// The caller may not ask.
    Forbidden,
    /// What the request names is not there.
    NotFound,
    /// It contradicts what is there, or the engine takes no such change.
    Conflict,
    /// Something is used up.
    Exhausted,
    /// The daemon can not do it at this time: it starts, stops, or waited for too long.
    Unavailable,
    /// The daemon failed.
    Internal,
}

/// A refusal as the body of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub error: Refusal,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), more: Vec::new() }
    }

    /// The request can not be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// What the request names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Nobody is called so.
    pub fn no_app(name: &AppName) -> Self {
        Self::not_found(format!("there is no app {name}: see weft app ls"))
    }

    /// The same, below a sentence that says what it comes to.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> Self {
        let Self { kind, message: first, more } = self;
        Self { kind, message: message.into(), more: std::iter::once(first).chain(more).collect() }
    }

    /// It contradicts what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.more.is_empty() { Ok(()) } else { write!(f, " (and {} more)", self.more.len()) }
    }
}

impl Error for Refusal {}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

/// With all its causes.
impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Kind::Internal, format!("{error:#}"))
    }
}
