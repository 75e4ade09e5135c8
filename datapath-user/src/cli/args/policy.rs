//! What can be said of policies.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{Wait, host_socket, words};
use crate::front::api::dto::naming::{Probe, WhichRule};
use crate::model::name::{AppName, HostName, PolicyName};

/// Rules.
#[derive(Clone, Debug, Subcommand)]
pub enum Policy {
    /// List all rules, with where they were written. What each lets pass now: weft flows
    Ls,
    /// Show what holds for an application, the first rule to be asked first, and which hosts enforce it
    ///
    /// Each host is asked for the digest of the policy in its kernel's tables; other hosts need --host-socket.
    Show {
        /// Which
        app: AppName,
        /// Who else is asked.
        #[command(flatten)]
        others: Others,
    },
    /// Put in force what is only tried: a rule, or all rules of a policy
    ///
    /// What an application tries as a whole is put in force by `weft app set APP --shadow off`.
    Promote {
        /// The rule: its number as '#7', its name, or its text in quotes
        #[arg(required_unless_present = "policy", conflicts_with = "policy")]
        rule: Option<WhichRule>,
        /// The policy
        #[arg(long, value_name = "NAME")]
        policy: Option<PolicyName>,
    },
    /// Remove a rule: what only it allowed is cut within a second
    Rm(RemoveRule),
    /// Put manifests in force: all of them or nothing
    ///
    /// A policy of a manifest takes the place of the one with its name; others stay. Doing it again changes nothing.
    /// What a policy expects is checked before anything is changed.
    Apply(ApplyPolicy),
    /// Take policies away, with their rules
    Delete(DeletePolicy),
    /// Show what applying manifests would change, and break of what is expected. Exit status 3: there is either
    Diff(Files),
    /// Print policies as a manifest
    Export {
        /// Which [default: all]
        names: Vec<PolicyName>,
        /// All that the digest is of: also rules that are of no policy, as a policy `rules`, and apps
        #[arg(long)]
        all: bool,
    },
    /// Look for mistakes in manifests, without a daemon
    Validate(Described),
    /// Check what manifests expect, without a daemon. Exit status 3: something does not hold
    ///
    /// The apps are those of the manifests, and those of a cluster file. Everybody whom an expectation names is asked
    /// about, at every address and port that rules tell apart, by the code that decides on real packets.
    Test(TestPolicy),
    /// Show who reaches whom: roles of apps, the hosts and the outside, senders from top to bottom
    Matrix(Matrix),
    /// Write the smallest manifest that allows what an application is seen to exchange
    ///
    /// Looks at its connections for a time, those that are there included. Ctrl-C ends it early, and nothing that was
    /// seen is lost. An application that is closed shows only what is allowed already: `weft app set APP --shadow on`
    /// first lets everything pass. Of each host the daemon is asked; other hosts need --host-socket. Exit status 3:
    /// something was not seen, or a rule of another policy denies what was.
    Learn(Learn),
    /// Print the JSON schema of manifests
    Schema,
}

/// A rule that is to go.
#[derive(Clone, Debug, Args)]
pub struct RemoveRule {
    /// Its number as '#7', its name, or its text in quotes
    pub rule: WhichRule,
    /// Whether to wait for all hosts.
    #[command(flatten)]
    pub wait: Wait,
}

/// Manifests.
#[derive(Clone, Debug, Args)]
pub struct Files {
    /// A manifest, a folder with manifests (*.yaml, *.yml, *.json), or - for standard input; as often as need be
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR|-")]
    pub file: Vec<PathBuf>,
}

/// Manifests, and the cluster that they are for.
#[derive(Clone, Debug, Args)]
pub struct Described {
    /// The manifests.
    #[command(flatten)]
    pub files: Files,
    /// The cluster file that says which apps there are
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
}

/// Manifests that are to be in force.
#[derive(Clone, Debug, Args)]
pub struct ApplyPolicy {
    /// The manifests.
    #[command(flatten)]
    pub files: Files,
    /// Whether to wait for all hosts.
    #[command(flatten)]
    pub wait: Wait,
}

/// Policies that are to go.
#[derive(Clone, Debug, Args)]
pub struct DeletePolicy {
    /// By name
    #[arg(required_unless_present = "file", value_name = "NAME")]
    pub names: Vec<PolicyName>,
    /// Those of a manifest, of a folder with manifests, or - for standard input
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    pub file: Vec<PathBuf>,
    /// Whether to wait for all hosts.
    #[command(flatten)]
    pub wait: Wait,
}

/// Expectations that are to be checked.
#[derive(Clone, Debug, Args)]
pub struct TestPolicy {
    /// The manifests.
    #[command(flatten)]
    pub described: Described,
    /// Write a JUnit report there, too; where the manifests can not be read, one with that error
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// What to learn.
#[derive(Clone, Debug, Args)]
pub struct Learn {
    /// The application
    #[arg(long)]
    pub app: AppName,
    /// How long to look: 90s, 10m, 8h or 2d, at most 30d
    #[arg(long = "for", value_name = "TIME", value_parser = words::length)]
    pub length: Duration,
    /// What the policy is to be called [default: learned-APP]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<PolicyName>,
    /// Write the manifest there
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Who else is asked.
    #[command(flatten)]
    pub others: Others,
}

/// Other hosts.
#[derive(Clone, Debug, Default, Args)]
pub struct Others {
    /// Where the daemon of another host can be asked; as often as there are hosts
    #[arg(long, value_name = "HOST=PATH", value_parser = host_socket)]
    pub host_socket: Vec<(HostName, PathBuf)>,
}

/// Which matrix.
#[derive(Clone, Debug, Args)]
pub struct Matrix {
    /// With what, as tcp/80 or icmp; a table for each [default: everything]
    #[arg(long, value_name = "PROTOCOL/PORT")]
    pub port: Vec<Probe>,
    /// Only these apps, with the hosts and the outside
    #[arg(long, value_name = "APP")]
    pub app: Vec<AppName>,
    /// Of these manifests, without a daemon
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    pub file: Vec<PathBuf>,
    /// Of this cluster file, with the manifests if there are any, without a daemon
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Write it there as a picture, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}
