//! What goes over the socket: requests that hold domain values, answers that hold text and numbers.
//!
//! The only serde form of what the model knows. A request is parsed by the model's own readers while it is
//! decoded ([`text`]), and refuses fields it does not know. Answers carry the number of the schema
//! ([`Versioned`]); a client reads answers with more fields than it knows.

pub mod apps;
pub mod drops;
pub mod endpoints;
pub mod flows;
pub mod learning;
pub mod maps;
pub mod naming;
pub mod policies;
pub mod rules;
pub mod seen;
pub mod side;
pub mod state;
pub mod text;
pub mod time;
pub mod why;

use serde::{Deserialize, Serialize};

/// The schema of the answers. Grows when a field changes its meaning or goes; a new field leaves it.
pub const SCHEMA: u32 = 1;

/// An answer with the number of its schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The answer.
    #[serde(flatten)]
    pub answer: T,
}

impl<T> Versioned<T> {
    /// `answer` in the schema of this build.
    pub fn new(answer: T) -> Self {
        Self { schema: SCHEMA, answer }
    }
}

#[cfg(test)]
mod tests;
