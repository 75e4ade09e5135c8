//! Where the cluster is kept, and how it is changed.
//!
//! One trait, several engines, one suite of conformance tests run on all. Readers get whole values; a change
//! is all or nothing. Invariant: what a store gives out has no fault; what it was asked to change is durable
//! before it is given out.

pub mod change;
mod codec;
pub mod file;
pub mod local;
pub mod memory;

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::model::{
    check::Fault,
    cluster::{Cluster, Revision},
};

use change::Change;

/// A place where a cluster is kept.
pub trait Store: Send + Sync {
    /// The state in force, and every one after it; some between two looks may be skipped.
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>>;

    /// The state in force.
    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.watch().borrow())
    }

    /// The state in force, once what others have written is in force too.
    fn latest(&self) -> BoxFuture<'_, Result<Arc<Snapshot>, ChangeError>> {
        Box::pin(async { Ok(self.now()) })
    }

    /// Makes a change, and says in which revision it is. A change that changes nothing is in the one in force.
    /// Once started it is finished, also if nobody waits for it.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<Revision, ChangeError>> {
        self.change_of(change, None)
    }

    /// As [`change`](Self::change), if what hosts share is still what it was in `seen`: for a change that was decided
    /// by what is there. Else it is [`ChangeError::Overtaken`].
    fn change_of(&self, change: Change, seen: Option<Arc<Snapshot>>) -> BoxFuture<'_, Result<Revision, ChangeError>>;
}

/// A cluster as it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts the changes.
    pub revision: Revision,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Why what was last written is not in force.
    pub problem: Option<Problem>,
    /// Why what is in force, or what was asked for last, could not be written down. It is tried again.
    pub unwritten: Option<Arc<str>>,
}

/// What is wrong with what somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// Where in it, if it can be said.
    pub position: Option<Position>,
    /// The sentence.
    pub text: String,
}

/// A place in a text. Both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// Why a change was not made. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// It would leave a cluster with these faults.
    Faults(Vec<Fault>),
    /// What it speaks of is not there.
    NotFound(String),
    /// Something else still needs what it would take away, or has what it would take.
    InUse(String),
    /// What is written at the moment has an error, which comes first.
    Broken(Problem),
    /// It could not be written down.
    Storage(String),
    /// Another change was made since it was decided.
    Overtaken,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column } = self;
        write!(f, "{line}:{column}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, text } = self;
        write!(f, "{}", file.escape_debug())?;
        if let Some(position) = position {
            write!(f, ":{position}")?;
        }
        // A quoted key of the file can hold any character, and the text can quote it.
        f.write_str(": ")?;
        for c in text.chars() {
            if c == ' ' || c.is_ascii_graphic() { write!(f, "{c}")? } else { write!(f, "{}", c.escape_default())? }
        }
        Ok(())
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faults(faults) => {
                for (at, fault) in faults.iter().enumerate() {
                    write!(f, "{}{fault}", if at > 0 { "; " } else { "" })?;
                }
                Ok(())
            }
            Self::NotFound(what) | Self::InUse(what) | Self::Storage(what) => f.write_str(what),
            Self::Broken(problem) => write!(f, "repair this first: {problem}"),
            Self::Overtaken => f.write_str("the cluster changes all the time: try again"),
        }
    }
}

impl std::error::Error for Problem {}
impl std::error::Error for ChangeError {}

#[cfg(test)]
mod conformance;
