//! Why a command was not carried out.

use std::{fmt, io, path::PathBuf};

use super::page::escape;
use crate::front::api::{Call as _, client::ClientError, dto::learning::LearnPolicy, refusal::Refusal};
use crate::model::{invalid::Invalid, name::HostName};

/// Why it was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line.
    Usage(Invalid),
    /// The daemon, or the way to it.
    Daemon(ClientError),
    /// The daemon of another host, and what the host is called.
    Host(HostName, ClientError),
    /// Nothing could be made of what was seen, which was printed.
    Unlearned(ClientError),
    /// What needed no daemon was refused.
    Refused(Refusal),
    /// Standard input.
    Input(io::Error),
    /// The terminal or the pipe.
    Output(io::Error),
    /// A file, and what was to be done with it.
    File(&'static str, PathBuf, io::Error),
    /// A reset without the daemon.
    Reset(anyhow::Error),
    /// All that there is to say.
    Sentence(&'static str),
}

impl Failure {
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// As it is told on standard error: a line for each thing that is wrong.
    pub(super) fn lines(&self) -> String {
        let refusal = match self {
            Self::Refused(refusal) | Self::Daemon(ClientError::Refused(refusal)) => Some(refusal),
            Self::Usage(_)
            | Self::Daemon(_)
            | Self::Host(..)
            | Self::Unlearned(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::File(..)
            | Self::Reset(_)
            | Self::Sentence(_) => None,
        };
        let first = refusal.map_or_else(|| self.to_string(), |refusal| refusal.message.clone());
        let more = refusal.map(|refusal| refusal.more.as_slice()).unwrap_or_default();
        let more = more.iter().map(|sentence| format!("      {}\n", escape(sentence)));
        std::iter::once(format!("weft: {}\n", escape(&first))).chain(more).collect()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(invalid) => write!(f, "{invalid}"),
            Self::Daemon(error) => write!(f, "{error}"),
            Self::Host(host, error) => write!(f, "host {host}: {error}"),
            Self::Unlearned(error) => {
                write!(
                    f,
                    "no manifest was made: {error}; what was seen is on standard output, for POST {}",
                    LearnPolicy::PATH
                )
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Input(error) => write!(f, "read standard input: {error}"),
            Self::Output(error) => write!(f, "print: {error}"),
            Self::File(done, path, error) => write!(f, "{done} {}: {error}", path.display()),
            Self::Reset(error) => write!(f, "reset this host, on which no weftd runs: {error:#}"),
            Self::Sentence(what) => f.write_str(what),
        }
    }
}
